"""The compiled BPF program: made by bcc in a child process, and kept for the next start.

Compiling takes most of a second, loading what was kept a tenth of it. What is kept is named by a
hash of all that it was made from, and lies in a folder that only its owner can write to: it will
run in the kernel.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leaktop.tracer import TracerError, kernel
from leaktop.tracer.cache import Cache, default_cache
from leaktop.tracer.kernel import MapSpec

BPF_SOURCE = Path(__file__).resolve().parent.parent / "bpf"
_CHILD = Path(__file__).with_name("compile_child.py")
_FORM = 1
"""Grows when what is kept is written in another form."""
_KEPT_MAX = 8
_COMPILE_S = 60.0

_PACKAGES = {
    "debian": "apt install python3-bpfcc",
    "ubuntu": "apt install python3-bpfcc",
    "fedora": "dnf install python3-bcc",
    "rhel": "dnf install python3-bcc",
    "centos": "dnf install python3-bcc",
    "arch": "pacman -S python-bcc",
    "opensuse": "zypper install python3-bcc",
    "alpine": "apk add py3-bcc",
}


@dataclass(frozen=True, slots=True)
class ProgramCode:
    """One program's instructions, and which of them name a map: instruction, number of the map."""

    code: bytes
    maps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Image:
    """Programs and the maps that they share."""

    maps: tuple[MapSpec, ...]
    programs: dict[str, ProgramCode]

    def to_json(self) -> str:
        """Return the image as text, for ``from_json``."""
        programs = {
            name: {"code": base64.b64encode(program.code).decode(), "maps": program.maps}
            for name, program in self.programs.items()
        }
        return json.dumps({"maps": [asdict(each) for each in self.maps], "programs": programs})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Image":
        """Return the image that a text describes. Raises ValueError where it describes none."""
        try:
            given = json.loads(text)
            maps = tuple(
                MapSpec(**{**each, "fields": tuple(each["fields"])}) for each in given["maps"]
            )
            programs = {
                name: ProgramCode(
                    base64.b64decode(each["code"], validate=True),
                    tuple((int(index), int(number)) for index, number in each["maps"]),
                )
                for name, each in given["programs"].items()
            }
        except (KeyError, TypeError, AttributeError, binascii.Error, RecursionError) as error:
            raise ValueError(f"no compiled program: {error}") from None
        return cls(maps, programs)


def program_cache() -> Cache:
    """Return where compiled programs are kept."""
    return default_cache("program-", _KEPT_MAX)


def image_of(main: str, programs: Sequence[str], flags: Sequence[str], cache: Cache) -> Image:
    """Return the compiled form of a source file in BPF_SOURCE; from the cache where it is there.

    Raises TracerError (exit code 3) where bcc is missing or does not compile it.
    """
    request = {
        "text": source_of(main),
        # else a structure in the place of another is a warning that nobody sees
        "flags": [f"-I{BPF_SOURCE}", "-Werror=incompatible-pointer-types", *flags],
        "headers": str(BPF_SOURCE / "headers"),  # ours, whatever the host has
        "programs": list(programs),
    }
    key = _key_of(request)
    kept = cache.get(key)
    if kept is not None:
        with contextlib.suppress(ValueError):
            image = Image.from_json(kept)
            if set(image.programs) == set(programs):
                return image
    image = _compile(request)
    cache.put(key, image.to_json())
    return image


def source_of(main: str) -> str:
    """Return a source file with its parts put in place.

    bcc rewrites map operations in the main file only.
    """
    text = (BPF_SOURCE / main).read_text()
    for part in BPF_SOURCE.glob("*.bpf.h"):
        line = f'#include "{part.name}"\n'
        before, found, after = text.partition(line)
        if found:
            resume = before.count("\n") + 2
            text = (
                f'{before}#line 1 "{part.name}"\n{part.read_text()}\n'
                f'#line {resume} "{main}"\n{after}'
            )
    return f'#line 1 "{main}"\n{text}'


def _key_of(request: dict[str, Any]) -> str:
    mix = hashlib.sha256(json.dumps([_FORM, request], sort_keys=True).encode())
    for header in sorted(BPF_SOURCE.rglob("*.h")):
        mix.update(header.read_bytes())
    return mix.hexdigest()


def _compile(request: dict[str, Any]) -> Image:
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-P", str(_CHILD)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_COMPILE_S,
            check=False,
            start_new_session=True,  # Ctrl+C at the terminal is for us
        )
        reply = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise TracerError(why_not_compiled("", error), exit_code=3) from None
    match reply.get("error"):
        case "no bcc":
            raise TracerError(
                "the Python module bcc cannot be imported; it comes from your distribution: "
                f"{package_hint(_os_release())}\n"
                "(PyPI's bcc is another project; a virtual environment must be made with "
                "--system-site-packages)",
                exit_code=3,
            )
        case "another bcc":
            raise TracerError(
                "the Python module bcc is PyPI's project of that name, not the BPF Compiler "
                f"Collection; remove it (pip uninstall bcc), then: {package_hint(_os_release())}",
                exit_code=3,
            )
        case "not compiled":
            why = why_not_compiled(reply["text"], Exception(reply["exception"]))
            raise TracerError(why, exit_code=3)
    numbers = {each.pop("descriptor"): number for number, each in enumerate(reply["maps"])}
    maps = tuple(MapSpec(**{**each, "fields": tuple(each["fields"])}) for each in reply["maps"])
    programs = {}
    for name, encoded in reply["programs"].items():
        code = base64.b64decode(encoded)
        programs[name] = ProgramCode(code, tuple(kernel.relocations(code, numbers)))
    return Image(maps, programs)


def _os_release() -> str:
    with contextlib.suppress(OSError):
        return Path("/etc/os-release").read_text(errors="replace")
    return ""


def package_hint(os_release: str) -> str:
    """Return how to install bcc on the distribution that an os-release(5) text describes."""
    fields = dict(line.partition("=")[::2] for line in os_release.splitlines())
    like = " ".join(fields.get(name, "").strip("\"'") for name in ("ID", "ID_LIKE"))
    known = next((name for name in like.split() if name in _PACKAGES), None)
    return _PACKAGES[known] if known else "package python3-bpfcc, python3-bcc or python-bcc"


def why_not_compiled(said: str, error: Exception) -> str:
    """Return, in two lines, what clang or the kernel said first and what to look at."""
    lines = [line.strip() for line in said.splitlines()]
    first = next((line for line in lines if "error" in line.lower()), None)
    first = first or next(filter(None, lines), str(error))
    return (
        f"bcc cannot compile leaktop's BPF program: {first}\n"
        "is the kernel built with BPF, and bcc's package whole and of 0.22 or later?"
    )
