"""Tracepoints as tracefs describes them: their numbers, and where the fields of a record lie.

Format: Documentation/trace/events.rst of the kernel, section 3. The layout differs between kernels,
so it is read and never known.
"""

import ctypes as ct
import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leaktop.tracer import TracerError
from leaktop.tracer.kernel import system_call

MOUNTED = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
"""Where tracefs is, where it is mounted."""

# the same on every processor (include/uapi/asm-generic/unistd.h)
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_CMD_CREATE = 6  # FSCONFIG_CMD_CREATE
_READ_ONLY_AND_NO_MORE = 0xF  # MOUNT_ATTR_RDONLY, _NOSUID, _NODEV, _NOEXEC

_FORMAT_MAX = 64 << 10  # bytes; one page at most, says the kernel
_FIELD = re.compile(
    r"^\tfield:(?P<type>[^;]*?)(?P<name>\w+)(?:\[[^\];]*\])?;"
    r"\toffset:(?P<offset>\d{1,9});\tsize:(?P<size>\d{1,9});",
    re.MULTILINE,
)
_NUMBER = re.compile(r"^ID: (\d{1,9})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a tracepoint's record."""

    offset: int
    """Bytes from the record's beginning."""
    size: int
    """Bytes."""
    located: bool
    """Whether it is a word that says where in the record the value lies, and how long it is
    (``__data_loc``)."""


@dataclass(frozen=True, slots=True)
class Format:
    """What tracefs says of one tracepoint."""

    number: int
    """What perf_event_open(2) knows it by."""
    fields: Mapping[str, Field]


def parse_format(text: str) -> Format:
    """Parse a tracepoint's ``format``. Raises ValueError where the text is none."""
    number = _NUMBER.search(text)
    if number is None:
        raise ValueError("the description of a tracepoint has no ID")
    return Format(
        int(number[1]),
        {
            found["name"]: Field(
                int(found["offset"]), int(found["size"]), found["type"].startswith("__data_loc ")
            )
            for found in _FIELD.finditer(text)
        },
    )


@contextmanager
def opened_tracefs() -> Iterator[int]:
    """Open tracefs as a folder, mounted or not, and close it in the end.

    Where the kernel allows, it is mounted nowhere for as long: a descriptor is all there is
    (fsopen(2), kernel commits 24dcb3d90a1f and 93766fbd2696). Raises TracerError (exit code 3).
    """
    descriptor = _opened()
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_format(tracefs: int, event: str) -> Format | None:
    """Return what an open tracefs says of a tracepoint such as ``kmem:kfree``.

    None where there is no such tracepoint. Raises TracerError where it cannot be read.
    """
    path = f"events/{event.replace(':', '/')}/format"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=tracefs)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TracerError(_unreadable(event, error.strerror), exit_code=3) from None
    text = bytearray()
    try:
        while len(text) < _FORMAT_MAX and (part := os.read(descriptor, 1 << 14)):
            text += part
        return parse_format(text.decode(errors="replace"))
    except (OSError, ValueError) as error:
        raise TracerError(_unreadable(event, str(error)), exit_code=3) from None
    finally:
        os.close(descriptor)


def _opened() -> int:
    try:
        return _mounted_nowhere()
    except OSError as error:
        reason = error
    for path in MOUNTED:
        if (path / "events").is_dir():
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if reason.errno == errno.ENODEV:
        raise TracerError(
            "this kernel has no tracefs: leaktop -k needs one with CONFIG_TRACING", exit_code=3
        )
    raise TracerError(
        "the kernel's list of tracepoints is not mounted, and leaktop cannot mount it for itself "
        f"({reason.strerror}); as root: mount -t tracefs nodev {MOUNTED[0]}",
        exit_code=3,
    )


def _mounted_nowhere() -> int:
    context = system_call(_FSOPEN, ct.c_char_p(b"tracefs"), _CLOEXEC)
    try:
        system_call(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return system_call(_FSMOUNT, context, _CLOEXEC, _READ_ONLY_AND_NO_MORE)
    finally:
        os.close(context)


def _unreadable(event: str, reason: str | None) -> str:
    return f"the kernel's tracepoint {event} cannot be read: {reason}; run leaktop as root"
