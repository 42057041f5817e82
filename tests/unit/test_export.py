"""Exports of text and tables, each read back by a reader of its own."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from leaktop.export import Export, ExportError
from leaktop.export.formats import FORMATS, format_of
from leaktop.export.places import Places
from leaktop.model import CodeMapping, Frame
from tests.unit.exported import ALL, HOSTILE, LEAK, UNNAMED, plain

SCHEMAS = Path(__file__).parents[1] / "schemas"
every_export = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
Make = Callable[[], Export]


def rendered(export: Export, name: str) -> bytes:
    return format_of(Path(f"x{name}")).render(export)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.svg", "flame graph"),
        ("A.SVG", "flame graph"),
        ("a.json", "JSON"),
        ("a.speedscope.json", "speedscope"),
        ("a.txt", "folded stacks"),
        ("heap.pb.gz", "pprof profile"),
    ],
)
def test_the_longest_ending_says_the_format(name: str, what: str) -> None:
    assert format_of(Path("/tmp") / name).what == what


@pytest.mark.parametrize("name", ["a.png", "svg", ".svg", "a.gz", "", "a\x1b[31m"])
def test_other_names_are_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ExportError, match=r"has to end in \.svg, ") as refused:
        format_of(Path(name))
    assert str(refused.value).isprintable()


@every_export
@pytest.mark.parametrize("ending", [ending for each in FORMATS for ending in each.endings])
def test_every_format_is_the_same_again(ending: str, make: Make) -> None:
    assert rendered(make(), ending) == rendered(make(), ending)


def sums(export: Export) -> tuple[int, int]:
    held = [each.counters for each in export.reading.snapshot.sites]
    return sum(each.bytes for each in held), sum(each.count for each in held)


@every_export
def test_folded_lines_are_frames_and_a_sum(make: Make) -> None:
    export = make()
    lines = rendered(export, ".folded").decode().splitlines()
    found = [re.fullmatch(r"([^;\n]+(?:;[^;\n]+)*) ([1-9][0-9]*)", line) for line in lines]
    assert all(found)
    assert len({each[1] for each in found if each}) == len(lines)
    assert sum(int(each[2]) for each in found if each) == sums(export)[0]
    assert all(line.isprintable() for line in lines)


def test_folded_paths_go_inwards() -> None:
    lines = rendered(plain(), ".folded").decode().splitlines()
    names = "_start;__libc_start_main_impl;__libc_start_call_main;main;serve;handle_request"
    assert f"leaky;{names};session_open;note_new {48 * 400 * 60}" in lines
    assert "leaky;libunknown.so.1+0x2b000;libunknown.so.1+0x2ae20 2048" in lines
    assert "leaky;[the stack goes on];jit_entry 512" in lines


@every_export
def test_csv_has_a_row_for_each_stack(make: Make) -> None:
    export = make()
    text = rendered(export, ".csv").decode()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    sites = {f"{each.stack_id:016x}": each for each in export.reading.snapshot.sites}
    assert [row["stack"] for row in rows] == sorted(
        sites, key=lambda each: (-sites[each].counters.bytes, each)
    )
    for row in rows:
        held = sites[row["stack"]].counters
        assert [int(row[name]) for name in ("bytes", "count", "allocs", "frees")] == [
            *(held.bytes, held.count, held.allocs, held.frees)
        ]
        assert None not in row
        assert all(value.isprintable() for value in row.values())


def test_csv_cells_are_no_formulas() -> None:
    text = rendered(plain(), ".csv").decode()
    rows = {row["stack"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    row = rows[f"{HOSTILE:016x}"]
    assert row["function"].startswith("'=HYPERLINK")
    assert (row["module"], row["file"][:3]) == ("'=leaky", "'-e")
    leak = rows[f"{LEAK:016x}"]
    assert (leak["suspect"], leak["reason"]) == ("0.97", "<grows> & never frees")
    assert (leak["function"], leak["file"], leak["line"]) == (
        *("note_new", "/src/leaky/session.c", "31"),
    )
    assert rows[f"{UNNAMED:016x}"]["oldest_s"] == ""


@every_export
def test_json_is_the_batch_document_with_all_stacks(make: Make) -> None:
    export = make()
    text = rendered(export, ".json").decode("utf-8")
    document = json.loads(text)
    json.dumps(document, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    assert document["version"] == 1
    assert len(document["stacks"]) == len(export.reading.snapshot.sites)
    assert sum(each["bytes"] for each in document["stacks"]) == sums(export)[0]
    assert document["mappings"][0] == {
        "pid": 4242,
        "start": "0x5603282b1000",
        "end": "0x5603282b5000",
        "offset": 4096,
        "path": "/usr/bin/leaky",
        "build_id": "c0ffee" * 6,
    }


@every_export
def test_speedscope_reads_it_by_its_own_schema(make: Make) -> None:
    export = make()
    document = json.loads(rendered(export, ".speedscope.json"))
    schema = json.loads((SCHEMAS / "speedscope.json").read_text())
    jsonschema.validate(document, schema)
    by_name = {each["name"]: each for each in document["profiles"]}
    frames = document["shared"]["frames"]
    for name, expected in zip(
        ("outstanding bytes", "outstanding blocks"), sums(export), strict=True
    ):
        profile = by_name[name]
        assert len(profile["samples"]) == len(profile["weights"])
        assert sum(profile["weights"]) == profile["endValue"] == expected
        assert all(0 <= index < len(frames) for each in profile["samples"] for index in each)
        assert all(each for each in profile["samples"])
    assert all(each["name"].isprintable() for each in frames)


def test_speedscope_stacks_begin_outermost_and_have_lines() -> None:
    document = json.loads(rendered(plain(), ".speedscope.json"))
    frames = document["shared"]["frames"]
    (stack,) = [
        [frames[index] for index in sample]
        for sample in document["profiles"][0]["samples"]
        if frames[sample[-1]]["name"] == "note_new [leaky]"
    ]
    assert stack[0]["name"] == "_start [leaky]"
    assert stack[-1] == {"name": "note_new [leaky]", "file": "/src/leaky/session.c", "line": 31}
    names = Counter(each["name"] for each in frames)
    assert names["main [leaky]"] == 1


def test_code_of_several_processes_and_the_kernel_is_told_apart() -> None:
    mapped = [
        CodeMapping(1, 0x1000, 0x2000, 0, "/a"),
        CodeMapping(2, 0x1000, 0x2000, 0x500, "/b"),
        CodeMapping(0, 1 << 63, (1 << 63) + 0x1000, 0, "[kernel]"),
    ]
    places = Places(mapped)
    assert [places.find(pid, 0x2000) for pid in (1, 2, 3)] == [mapped[0], mapped[1], None]
    assert places.find(1, 0x1000) is None  # the call before it is not in the mapping
    assert places.find(1, (1 << 63) + 1) is mapped[2]
    assert places.name(2, Frame(0x1010, "b")) == "b+0x510"
    assert places.name(3, Frame(0x1010, "b")) == "0x1010"
