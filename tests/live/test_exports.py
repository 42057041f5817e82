"""Exports of a real run, each compared with what the target says of itself; the gate on growth."""

import csv
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.live.conftest import Builder
from tests.live.harness import run_leaktop
from tests.live.test_command import truth_of
from tests.unit.pprof_reader import check, decode, one

pytestmark = pytest.mark.live


def test_every_export_says_what_the_target_says(build: Builder, tmp_path: Path) -> None:
    names = ("a.svg", "a.html", "a.pb.gz", "a.speedscope.json", "a.folded", "a.csv", "a.json")
    paths = {name.partition(".")[2]: tmp_path / name for name in names}
    command = build("command")
    done = run_leaktop(
        *("-b", "-d", "3600", "--fail-over", "1k"),
        *(f"--export={path}" for path in paths.values()),
        *("--", str(command), "exit", "0"),
    )
    truth = truth_of(done.err)
    held = {site.function: site.bytes for site in truth.sites if site.count}
    total = truth.total("bytes")

    # the gate: the command still held more than that at its end
    assert done.code == 5, done.err
    assert any(f"grew by {total} bytes in" in line for line in done.err)
    for function, size in held.items():
        at = done.err.index(f"\t+{size} bytes, now {size}, from stack")
        assert done.err[at + 1].startswith(f"\t\t{function}+")

    folded = [line.rsplit(" ", 1) for line in paths["folded"].read_text().splitlines()]
    assert {path.split(";")[-1]: int(size) for path, size in folded} == held

    with paths["csv"].open(newline="") as table:
        rows = list(csv.DictReader(table, strict=True))
    assert {row["function"]: int(row["bytes"]) for row in rows} == held
    assert {row["line"] for row in rows} == {str(site.line) for site in truth.sites if site.count}

    stacks = json.loads(paths["json"].read_text())["stacks"]
    assert {each["frames"][0]["symbol"]: each["bytes"] for each in stacks} == held

    profile = decode(paths["pb.gz"].read_bytes())
    check(profile)
    kinds = [profile["string_table"][one(each, "type")] for each in profile["sample_type"]]
    values = [dict(zip(kinds, each["value"], strict=True)) for each in profile["sample"]]
    assert sum(each["inuse_space"] for each in values) == total
    assert sum(each["inuse_objects"] for each in values) == truth.total("count")
    assert sum(each["alloc_objects"] for each in values) == truth.total("allocs")
    # every site's blocks have one size
    allocated = sum(site.bytes // site.count * site.allocs for site in truth.sites)
    assert sum(each["alloc_space"] for each in values) == allocated
    (mapping,) = [
        each
        for each in profile["mapping"]
        if profile["string_table"][one(each, "filename")] == str(command)
    ]
    notes = subprocess.run(["readelf", "-n", command], capture_output=True, text=True, check=True)
    assert profile["string_table"][one(mapping, "build_id")] in notes.stdout

    speedscope = json.loads(paths["speedscope.json"].read_text())
    assert speedscope["profiles"][0]["endValue"] == total

    svg = "{http://www.w3.org/2000/svg}"
    boxes = [
        (int(group.get("data-w", "")), (group.findtext(f"{svg}title") or "").split("\n")[0])
        for group in ElementTree.parse(paths["svg"]).iter(f"{svg}g")
        if "box" in group.get("class", "").split()
    ]
    assert boxes[0][0] == total
    assert {name: size for size, name in boxes if name in held} == held

    report = paths["html"].read_text()
    HTMLParser().feed(report)
    found = re.findall(r"stack [0-9a-f]{16}: ([0-9]+) bytes", report)
    assert sorted(map(int, found)) == sorted(held.values())
    assert report.count('class="bands"') == 2 * len(held)  # ages and sizes of each


@pytest.mark.parametrize(("status", "code"), [("0", 0), ("3", 1)])
def test_a_command_within_its_limit(status: str, code: int, build: Builder) -> None:
    done = run_leaktop(
        *("--json", "-d", "3600", "--fail-over", "1M"),
        *("--", str(build("command")), "exit", status),
    )
    assert done.code == code, done.err
    total = truth_of(done.err).total("bytes")
    assert any(
        f"grew by {total} bytes" in line and "not more than 1.00M" in line for line in done.err
    )
