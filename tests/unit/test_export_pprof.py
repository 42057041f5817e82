"""pprof files, decoded by protoc with pprof's published schema, and read by its own rules."""

import gzip
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leaktop.export import Export
from leaktop.export.pprof import FREED, render
from tests.unit.exported import ALL, plain

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


def sums(profile: Message) -> dict[str, int]:
    names = [profile["string_table"][one(each, "type")] for each in profile["sample_type"]]
    values = zip(*(each["value"] for each in profile.get("sample", [])), strict=True)
    return dict(zip(names, map(sum, values), strict=True))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_the_published_schema_reads_it(make: Callable[[], Export]) -> None:
    export = make()
    profile = decode(render(export))
    check(profile)
    totals = export.reading.snapshot.totals
    assert sums(profile) == {
        "alloc_objects": totals.allocs,
        "inuse_objects": totals.count,
        "inuse_space": totals.bytes,
    }
    assert profile["string_table"][one(profile, "default_sample_type")] == "inuse_space"


def stacks(profile: Message) -> dict[tuple[tuple[str, ...], ...], Message]:
    """Return samples by the names on their stack, innermost first: of each call all lines."""
    strings = profile["string_table"]
    functions = {one(each, "id"): strings[one(each, "name")] for each in profile["function"]}
    names = {
        one(each, "id"): tuple(functions[one(line, "function_id")] for line in each.get("line", []))
        for each in profile["location"]
    }
    return {tuple(names[i] for i in each["location_id"]): each for each in profile["sample"]}


def test_inlined_calls_are_lines_of_one_location() -> None:
    profile = decode(render(plain()))
    (leak,) = [key for key in stacks(profile) if key[0] == ("note_new", "session_open")]
    assert leak[1] == ("handle_request",)
    assert leak[-1] == ("_start",)
    innermost = next(
        each
        for each in profile["location"]
        if one(each, "id") == stacks(profile)[leak]["location_id"][0]
    )
    assert [one(line, "line") for line in innermost["line"]] == [31, 88]
    assert one(innermost, "address") == 0x5603282B1178 - 1


def test_code_without_names_keeps_its_address_and_mapping() -> None:
    profile = decode(render(plain()))
    (mapping,) = [
        each
        for each in profile["mapping"]
        if profile["string_table"][one(each, "filename")] == "/usr/lib/libunknown.so.1"
    ]
    found = [each for each in profile["location"] if one(each, "mapping_id") == one(mapping, "id")]
    assert [(one(each, "address"), "line" in each) for each in found] == [
        (0x7F12A0B04E20 - 1, False),
        (0x7F12A0B05000 - 1, False),
    ]
    assert "has_functions" not in mapping


def test_a_mapping_says_its_build_id_and_what_is_known_of_it() -> None:
    profile = decode(render(plain()))
    mapping, strings = profile["mapping"][0], profile["string_table"]
    assert strings[one(mapping, "build_id")] == "c0ffee" * 6
    assert one(mapping, "file_offset") == 0x1000
    for name in ("has_functions", "has_filenames", "has_line_numbers", "has_inline_frames"):
        assert mapping[name] == ["true"]


def test_what_was_freed_long_ago_counts_as_allocated() -> None:
    profile = decode(render(plain()))
    kinds = [profile["string_table"][one(each, "type")] for each in profile["sample_type"]]
    freed = dict(zip(kinds, stacks(profile)[((FREED,),)]["value"], strict=True))
    assert freed == {"alloc_objects": 60 * 1200, "inuse_objects": 0, "inuse_space": 0}


def test_losses_are_in_the_comments() -> None:
    profile = decode(render(plain()))
    comments = [profile["string_table"][i] for i in profile["comment"]]
    assert comments[0].startswith("outstanding memory of leaky (4242), 2026-01-31 12:01:00 UTC")
    assert [each for each in comments if each.startswith("lost: ")] == [
        "lost: truncated 3: allocations whose stack could not be followed to its end"
    ]
