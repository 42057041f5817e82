"""pprof files, decoded by protoc with pprof's published schema, and read by its own rules."""

from collections.abc import Callable

import pytest

from leaktop.export import Export
from leaktop.export.pprof import FREED, render
from tests.unit.exported import ALL, FREED_BYTES, plain
from tests.unit.pprof_reader import Message, check, decode, one


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
        "alloc_space": totals.alloc_bytes,
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
    assert freed == {
        "alloc_objects": 60 * 1200,
        "alloc_space": FREED_BYTES,
        "inuse_objects": 0,
        "inuse_space": 0,
    }


def test_losses_are_in_the_comments() -> None:
    profile = decode(render(plain()))
    comments = [profile["string_table"][i] for i in profile["comment"]]
    assert comments[0].startswith("outstanding memory of leaky (4242), 2026-01-31 12:01:00 UTC")
    assert [each for each in comments if each.startswith("lost: ")] == [
        "lost: truncated 3: allocations whose stack could not be followed to its end"
    ]
