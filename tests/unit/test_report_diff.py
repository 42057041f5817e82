"""Two recordings compared: by functions, whatever the addresses."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from leaktop import cli
from leaktop.model import (
    CodeMapping,
    Counters,
    Filters,
    Frame,
    Growth,
    Site,
    Snapshot,
    SortKey,
    Target,
)
from leaktop.report_diff import Change, End, changes, diff_json, diff_text
from leaktop.source.recording import Header, RecordingWriter

BASES = (0x5600_0000_0000, 0x7F00_0000_0000)


def frames(base: int, *names: str | None) -> tuple[Frame, ...]:
    return tuple(
        Frame(base + 0x100 * number + 1, "leaky", name, 15) for number, name in enumerate(names)
    )


def mapping(base: int, pid: int) -> CodeMapping:
    return CodeMapping(pid, base, base + 0x10000, 0x2000, "/usr/bin/leaky")


def end(pid: int, base: int, *held: tuple[tuple[str | None, ...], int, int]) -> End:
    """Return an end with such stacks: names of their frames, bytes and blocks."""
    sites, names = [], {}
    for number, (called, size, count) in enumerate(held):
        stack_id = base + number
        named = frames(base, *called)
        names[stack_id] = named
        bare = tuple(Frame(each.address, each.module) for each in named)
        sites.append(Site(stack_id, Counters(size, count, count), bare, pid=pid))
    total = Counters(sum(size for _, size, _ in held), sum(count for _, _, count in held))
    snapshot = Snapshot(
        1_769_860_800_000_000_000, 80.0, Target(pid, "leaky"), Filters(), total, tuple(sites)
    )
    return End(f"{pid}.leaktop", snapshot, names, {}, [mapping(base, pid)])


def told(found: Sequence[Change]) -> list[tuple[str | None, int, int]]:
    return [(each.frames[0].symbol, each.bytes, each.count) for each in found]


BEFORE = end(
    1, BASES[0], (("leak", "main"), 100, 1), (("cache", "main"), 500, 5), (("old",), 30, 3),
    (("same",), 7, 7),
)  # fmt: skip
AFTER = end(
    2, BASES[1], (("same",), 7, 7), (("cache", "main"), 450, 5), (("leak", "main"), 900, 9),
    (("new",), 40, 400),
)  # fmt: skip


def test_stacks_are_found_again_at_other_addresses() -> None:
    found = changes(BEFORE, AFTER)
    assert told(found) == [("leak", 800, 8), ("cache", -50, 0), ("new", 40, 400), ("old", -30, -3)]
    assert found[2].before is None
    assert found[3].after is None
    by_count = changes(BEFORE, AFTER, SortKey.COUNT)
    assert [name for name, _, _ in told(by_count)] == ["new", "leak", "old", "cache"]
    assert changes(BEFORE, BEFORE) == []


def test_code_without_a_name_is_known_by_its_place_in_the_file() -> None:
    before = end(1, BASES[0], ((None, "main"), 100, 1))
    after = end(2, BASES[1], ((None, "main"), 160, 2))
    assert told(changes(before, after)) == [(None, 60, 1)]
    # and without that by its address alone
    found = changes(replace(before, mappings=()), replace(after, mappings=()))
    assert sorted(each.bytes for each in found) == [-100, 160]


def test_stacks_of_the_same_functions_are_one() -> None:
    before = end(1, BASES[0], (("load", "main"), 100, 1), (("load", "main"), 11, 2))
    after = end(2, BASES[1], (("load", "main"), 200, 4))
    assert told(changes(before, after)) == [("load", 89, 1)]


def test_slab_caches_are_told_apart() -> None:
    def kernel(base: int, *caches: tuple[str, int]) -> End:
        one = end(0, base, *(((("alloc",), size, 1)) for _, size in caches))
        sites = [
            replace(site, cache=name)
            for site, (name, _) in zip(one.snapshot.sites, caches, strict=True)
        ]
        return replace(one, snapshot=replace(one.snapshot, sites=tuple(sites)))

    found = changes(kernel(BASES[0], ("a", 10), ("b", 20)), kernel(BASES[1], ("a", 15), ("c", 20)))
    assert sorted((each.cache or "", each.bytes) for each in found) == [
        ("a", 5), ("b", -20), ("c", 20),
    ]  # fmt: skip


def test_text() -> None:
    lines = diff_text(BEFORE, AFTER, changes(BEFORE, AFTER), 3).splitlines()
    assert lines[0].startswith("from 1.leaktop: 1 (leaky) at 2026-01-31 ")
    assert lines[1].endswith(", after 1m20s")
    assert lines[2] == "637 -> 1397 bytes (+760), 16 -> 421 allocations (+405)"
    assert lines[3] == "Top 3 of 4 stacks that changed (1 new, 1 gone):"
    assert lines[4:7] == [
        "\t+800 bytes in +8 allocations from stack (100 -> 900 bytes)",
        "\t\tleak+0xf [leaky]",
        "\t\tmain+0xf [leaky]",
    ]
    assert "\t+40 bytes in +400 allocations from stack (new)" in lines
    assert "old" not in "".join(lines)


def test_json() -> None:
    document = json.loads(diff_json(BEFORE, AFTER, changes(BEFORE, AFTER), 10))
    assert document["totals"] == {"bytes": 760, "count": 405}
    assert document["changed"] == 4
    assert document["diff"]["before"]["target"]["pid"] == 1
    assert document["diff"]["after"]["totals"] == {"bytes": 1397, "count": 421}
    gone = document["stacks"][3]
    assert (gone["bytes"], gone["before"], gone["after"]) == (-30, {"bytes": 30, "count": 3}, None)
    assert gone["frames"][0]["symbol"] == "old"


def recorded(path: Path, one: End, **other: object) -> Path:
    out = RecordingWriter(path, path.open("xb"), Header(one.snapshot.target, 0), 1 << 30)
    out.snapshot(replace(one.snapshot, time_ns=0, sites=()))
    out.snapshot(replace(one.snapshot, **other))  # type: ignore[arg-type]
    out.names({i: tuple(each) for i, each in one.names.items()}, lines=False)
    out.tell(mappings=one.mappings)
    out.end("enough")
    return path


def test_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(recorded(tmp_path / name, one)) for name, one in (("a", BEFORE), ("b", AFTER))]
    assert cli.main(["--diff", *paths, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    stacks = json.loads(out)["stacks"]
    assert [(each["bytes"], each["frames"][0]["symbol"]) for each in stacks] == [
        (800, "leak"), (-50, "cache"), (40, "new"), (-30, "old"),
    ]  # fmt: skip
    assert cli.main(["--diff", *paths, "-T", "1"]) == 0
    assert "Top 1 of 4 stacks" in capsys.readouterr().out

    data = Path(paths[0]).read_bytes()
    Path(paths[0]).write_bytes(data[:-4])
    assert cli.main(["--diff", *paths]) == 0
    out, err = capsys.readouterr()
    assert "it was cut off; the 2 snapshots before that can be shown" in err
    assert "+800 bytes" in out


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = recorded(tmp_path / "a", BEFORE)
    b = recorded(tmp_path / "b", AFTER, growth=Growth(None))
    assert cli.main(["--diff", str(a), str(b)]) == 1
    assert "nothing in common: user and growth" in capsys.readouterr().err
    assert cli.main(["--diff", str(a), str(tmp_path / "none")]) == 1
    assert "none cannot be read: No such file" in capsys.readouterr().err
