"""Exports of a real run, each compared with what the target says of itself; the gate on growth."""

import csv
import json
import re
import subprocess
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.live.conftest import Builder, StartTarget
from tests.live.harness import run_leaktop
from tests.live.terminal import ENTER, Terminal
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


def test_from_the_screen(start_target: StartTarget, build: Builder, tmp_path: Path) -> None:
    target, at_end, by_key = start_target("phases"), tmp_path / "end.csv", tmp_path / "key.folded"
    terminal = Terminal(
        *("-p", str(target.pid), "-d", "0.2", "--export", str(at_end)),
        columns=160,
        extra_environment={"TMPDIR": str(tmp_path)},
    )
    try:
        terminal.wait_for(r"\[tracing\]")
        target.tell("leak 10 1000")
        terminal.wait_for(r"9\.77K +10 .* leak_phase \[phases\]")
        terminal.press("y")
        terminal.wait_for(r"copied, where the terminal takes it \(OSC 52\); also in ")
        (kept,) = tmp_path.glob("leaktop-phases-*.txt")
        clipboard = re.search(rb"\x1b\]52;c;([A-Za-z0-9+/=]+)\x07", terminal.raw)
        assert clipboard is not None
        assert b64decode(clipboard[1]) == kept.read_bytes()
        assert "10000 bytes in 10 blocks" in kept.read_text()
        notes = subprocess.run(
            ["readelf", "-n", build("phases")], capture_output=True, text=True, check=True
        )
        listed = kept.read_text().partition("build ids:\n")[2].splitlines()
        ids = dict(line.split() for line in listed)
        assert ids[str(build("phases"))] in notes.stdout

        terminal.press("e")
        terminal.wait_for(r"leaktop-phases-\d+-\d{8}-\d{6}\.svg")
        terminal.press("\x15", str(by_key), ENTER)  # ^U takes the proposed name away
        terminal.wait_for("folded stacks written to ")
        assert by_key.read_text().endswith(";leak_phase 10000\n")
        terminal.press("q")
        assert terminal.wait() == 0
        assert f"leaktop: table written to {at_end}".encode() in terminal.raw
        with at_end.open(newline="") as table:
            assert [row["bytes"] for row in csv.DictReader(table)] == ["10000"]
    finally:
        terminal.close()
