"""The accounting rules, each on a program that does just that."""

from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartTarget, Trace
from tests.live.judge import (
    FIGURES,
    NOTHING,
    assert_exact,
    expected_sites,
    found_sites,
    lost,
    totals,
)

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("failing", ()),
        ("bigmalloc", ()),
        ("forking", ()),
        ("unmap", ("exact",)),
        ("unmap", ("head",)),
        ("unmap", ("tail",)),
        ("unmap", ("pieces",)),
        ("unmap", ("spanning",)),
        ("unmap", ("many",)),
        ("unmap", ("replaced",)),
        ("unmap", ("failing",)),
    ],
)
def test_nothing_is_lost(
    name: str, args: tuple[str, ...], build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target(name, *args)
    leaktop = trace(target)
    truth = target.tell()
    assert_exact(leaktop.snapshot_from_now(), truth, build(name), f"{name}.c")
    assert leaktop.stop() == 0


def test_unmapping_the_middle_is_counted_as_unmatched(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("unmap", "middle")
    leaktop = trace(target)
    truth = target.tell()
    losses = {"unmatched_unmaps": 1}
    assert_exact(leaktop.snapshot_from_now(), truth, build("unmap"), "unmap.c", losses=losses)


def test_eight_threads(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("threads")
    leaktop = trace(target)
    truth = target.tell()
    snapshot = leaktop.snapshot_from_now()
    assert totals(snapshot) == {figure: truth.total(figure) for figure in FIGURES}
    # Eight threads at once, from nothing: questions for rules may not all find room at first.
    # Stacks cut then are rows of their own, and a row that holds nothing is not shown.
    cut = lost(snapshot)
    assert set(cut) <= {"truncated"}
    found, expected = found_sites(snapshot), expected_sites(truth)
    assert found.keys() == expected.keys()
    for place, site in found.items():
        assert (site["bytes"], site["count"]) == (
            expected[place]["bytes"],
            expected[place]["count"],
        )
        unseen = expected[place]["allocs"] - site["allocs"]
        assert unseen == expected[place]["frees"] - site["frees"]
        assert 0 <= unseen <= cut.get("truncated", 0)


def test_recursion_gives_each_depth_its_stack(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    depth = 50
    target = start_target("recursion", str(depth))
    leaktop = trace(target)
    truth = target.tell()
    snapshot = leaktop.snapshot_from_now()
    assert_exact(snapshot, truth, build("recursion"), "recursion.c")
    levels = [
        sum(frame["symbol"] == "descend" for frame in stack["frames"])
        for stack in snapshot["stacks"]
    ]
    assert sorted(levels) == list(range(1, depth + 1))
    assert all((stack["bytes"], stack["count"]) == (32, 1) for stack in snapshot["stacks"])


def test_recursion_beyond_the_deepest_stack(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("recursion", "200")
    leaktop = trace(target, "-T", "1000")
    truth = target.tell()
    snapshot = leaktop.snapshot_from_now()
    # The innermost 127 frames are kept; deeper stacks look alike and count as one.
    called = [
        sum(not frame["inlined"] for frame in stack["frames"]) for stack in snapshot["stacks"]
    ]
    assert max(called) == 127
    assert totals(snapshot) == {figure: truth.total(figure) for figure in FIGURES}
    assert set(lost(snapshot)) == {"truncated"}


def test_library_loaded_later(build: Builder, start_target: StartTarget, trace: Trace) -> None:
    library = build("libplugin.so")
    target = start_target("dlopening", str(library))
    leaktop = trace(target)
    truth = target.tell()
    snapshot = leaktop.snapshot_from_now()
    # The dynamic loader allocates too, so only this site is exact.
    key = ("plugin_allocate", truth.sites[0].line)
    assert found_sites(snapshot)[key] == expected_sites(truth)[key]
    (stack,) = [s for s in snapshot["stacks"] if s["frames"][0]["symbol"] == key[0]]
    assert stack["frames"][0]["module"] == library.name
    assert Path(stack["frames"][0]["file"]).name == "plugin.c"
    assert stack["frames"][1]["symbol"] == "use_plugin"
    assert stack["frames"][1]["module"] == "dlopening"
    assert lost(snapshot) == {}


def test_blocks_taken_before_nobody_looked(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("phases", "500")
    leaktop = trace(target)
    target.tell("leak 5 100")
    truth = target.tell("drop")
    snapshot = leaktop.snapshot_from_now()
    assert_exact(snapshot, truth, build("phases"), "phases.c")
    assert snapshot["totals"] == {**NOTHING, "allocs": 5, "frees": 5, "alloc_bytes": 500}


def test_realloc_of_blocks_taken_before_nobody_looked(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("phases", "10")
    leaktop = trace(target)
    truth = target.tell("grow 4 5000")
    assert_exact(leaktop.snapshot_from_now(), truth, build("phases"), "phases.c")


def test_two_at_once_agree(build: Builder, start_target: StartTarget, trace: Trace) -> None:
    target = start_target("functions", "all")
    first = trace(target)
    second = trace(target)
    truth = target.tell()
    assert_exact(first.snapshot_from_now(), truth, build("functions"), "functions.c")
    assert first.stop() == 0
    assert_exact(second.snapshot_from_now(), truth, build("functions"), "functions.c")
    assert second.stop() == 0


def test_full_table_of_allocations(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("phases")
    leaktop = trace(target, "--max-allocs", "100")
    target.tell("leak 1 16")
    leaktop.snapshot_from_now()  # the path is known: a thousand at once find their rules
    target.tell("leak 1499 16")
    snapshot = leaktop.snapshot_from_now()
    held = snapshot["totals"]["count"]
    assert 100 <= held < 1500
    assert lost(snapshot) == {"allocs_full": 1500 - held}
    # Room again: what comes next counts.
    target.tell("drop")
    target.tell("leak 10 32")
    snapshot = leaktop.snapshot_from_now()
    assert snapshot["totals"]["count"] == 10
    assert snapshot["totals"]["bytes"] == 320


def test_blocks_beyond_their_sets_are_held_and_freed(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("phases")
    leaktop = trace(target, "--max-allocs", "1000")
    target.tell("leak 1 16")
    leaktop.snapshot_from_now()
    truth = target.tell("leak 999 16")
    snapshot = leaktop.snapshot_from_now()
    assert_exact(snapshot, truth, build("phases"), "phases.c")
    assert snapshot["totals"]["count"] == 1000
    truth = target.tell("drop")
    assert_exact(leaktop.snapshot_from_now(), truth, build("phases"), "phases.c")


def test_full_table_of_stacks_keeps_the_totals(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("recursion", "100")
    leaktop = trace(target, "--max-stacks", "30")
    truth = target.tell()
    snapshot = leaktop.snapshot_from_now()
    assert totals(snapshot) == {figure: truth.total(figure) for figure in FIGURES}
    assert lost(snapshot) == {"stacks_full": 70}
