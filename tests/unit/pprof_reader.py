"""Reads pprof files by protoc, with pprof's published schema, and by pprof's own rules."""

import gzip
import re
import subprocess
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).parents[1] / "schemas"
Message = dict[str, list[Any]]


def decode(profile: bytes) -> Message:
    """Return fields by name as protoc's text has them, unset numbers left out."""
    done = subprocess.run(
        ["protoc", "--decode=perftools.profiles.Profile", f"-I{SCHEMAS}", "profile.proto"],
        input=gzip.decompress(profile),
        capture_output=True,
        check=True,
    )
    root: Message = {}
    nested = [root]
    for line in done.stdout.decode().splitlines():
        text = line.strip()
        if text == "}":
            nested.pop()
        elif text.endswith(" {"):
            message: Message = {}
            nested[-1].setdefault(text[:-2], []).append(message)
            nested.append(message)
        else:
            name, _, value = text.partition(": ")
            assert not name.isdecimal(), f"a field that the schema does not have: {line}"
            shown: Any = value
            if value.startswith('"'):
                raw = re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), value[1:-1].encode())
                shown = re.sub(rb"\\(.)", rb"\1", raw).decode()
            elif value not in ("true", "false"):
                shown = int(value)
            nested[-1].setdefault(name, []).append(shown)
    return root


def one(message: Message, name: str) -> Any:
    (value,) = message.get(name, [0])
    return value


def check(profile: Message) -> None:
    """Assert what pprof's Profile.CheckValid asserts (google/pprof, profile/profile.go)."""
    strings = profile["string_table"]
    assert strings[0] == ""
    kinds = len(profile["sample_type"])
    ids = {}
    for name in ("mapping", "location", "function"):
        found = [one(each, "id") for each in profile.get(name, [])]
        assert len(set(found)) == len(found)
        assert 0 not in found
        ids[name] = set(found)
    for sample in profile.get("sample", []):
        assert len(sample["value"]) == kinds
        assert set(sample["location_id"]) <= ids["location"]
    for location in profile.get("location", []):
        assert one(location, "mapping_id") in ids["mapping"] | {0}
        assert {one(line, "function_id") for line in location.get("line", [])} <= ids["function"]
    for mapping in profile.get("mapping", []):
        assert one(mapping, "memory_start") < one(mapping, "memory_limit")
    assert all(each.isprintable() for each in strings)
