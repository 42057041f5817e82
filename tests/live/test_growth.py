"""Growth mode against targets that know their new pages; and that it leaves their code alone."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.conftest import StartTarget, Trace
from tests.live.harness import Json, Leaktop, TargetProcess, Truth, open_files, run_leaktop
from tests.live.judge import lost

pytestmark = pytest.mark.live

PAGE = 4096
Pages = dict[tuple[str, int], tuple[int, int, int]]
"""New pages, faults and calls of brk and mmap, by function and line."""
Watch = Callable[..., tuple[TargetProcess, Leaktop]]
WAYS = {
    "touch": 1000,
    "read": 1000,
    "shared": 1000,
    "private": 200,
    "copy": 1000,
    "populate": 1000,
    "fork": 1000,
    "back": 1000,
    "old": 1000,
    "threads": 500,
    "heap": 300,
    "stack": 60,
}
"""Pages for each way of ``growing.c``."""


def pages_by_line(snapshot: Json, truth: Truth) -> Pages:
    """Sum up pages, faults and calls by the innermost place in the target's own code."""
    places = {(site.function, site.line) for site in truth.sites}
    sums: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for stack in snapshot["stacks"]:
        assert stack["bytes"] == stack["count"] * PAGE
        own = (frame for frame in stack["frames"] if frame["module"] == "growing")
        innermost = next(own, {"symbol": "", "line": 0})
        place = innermost["symbol"], innermost["line"]
        if (place[0], 0) in places:  # any line of it
            place = place[0], 0
        if place in places:
            for i, figure in enumerate(("count", "allocs", "calls")):
                sums[place][i] += stack[figure]
    return {place: (each[0], each[1], each[2]) for place, each in sums.items()}


def of_truth(truth: Truth) -> Pages:
    return {
        (site.function, site.line): (site.count, site.allocs, site.frees) for site in truth.sites
    }


@pytest.fixture
def watch(start_target: StartTarget, trace: Trace) -> Watch:
    """Start a target, and growth mode on it."""

    def watching(*args: str) -> tuple[TargetProcess, Leaktop]:
        target = start_target("growing")
        return target, trace(target, "--growth", "-T", "1000", *args)

    return watching


def test_every_way_to_take_pages_counts_exactly(watch: Watch) -> None:
    target, leaktop = watch()
    for way in WAYS:  # so few that the rules of their stacks come in
        target.tell(f"{way} 10")
    leaktop.snapshot_from_now()
    for way, pages in WAYS.items():
        truth = target.tell(f"{way} {pages}")
    snapshot = leaktop.snapshot_from_now()
    found = pages_by_line(snapshot, truth)
    assert found == of_truth(truth)
    assert snapshot["mode"] == "growth"
    # what it did besides, libc's pages and the threads' stacks, is not nothing but little
    assert 0 <= snapshot["totals"]["count"] - truth.total("count") < 100
    for stack in snapshot["stacks"]:
        assert stack["frees"] is None
        assert stack["oldest_s"] is None


def test_huge_pages_count_in_whole(watch: Watch) -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    if "[never]" in enabled:
        pytest.skip("the host gives no huge pages")
    target, leaktop = watch()
    truth = target.tell("huge 8")
    assert pages_by_line(leaktop.snapshot_from_now(), truth) == of_truth(truth)


def test_pages_of_files_are_no_growth(watch: Watch) -> None:
    target, leaktop = watch()
    target.tell("file 300")
    snapshot = leaktop.snapshot_from_now()
    # all but the pages of libc's own data
    assert snapshot["totals"]["count"] < 20
    assert snapshot["rss"]["change"] > 300 * PAGE


def test_what_is_given_back_shows_in_resident_memory(watch: Watch) -> None:
    target, leaktop = watch()
    target.tell("back 5000")
    snapshot = leaktop.snapshot_from_now()
    assert snapshot["totals"]["bytes"] >= 5000 * PAGE
    assert snapshot["rss"]["change"] < 500 * PAGE


def test_sampling_estimates(watch: Watch) -> None:
    target, leaktop = watch("-s", "10")
    truth = target.tell("touch 100000")
    snapshot = leaktop.snapshot_from_now()
    # 10,000 faults are looked at, give or take 95 (one standard error)
    assert snapshot["totals"]["count"] == pytest.approx(truth.total("count"), rel=0.06)
    assert all(stack["estimated"] for stack in snapshot["stacks"])


def test_it_says_what_it_watches_and_touches_no_code(watch: Watch) -> None:
    target, leaktop = watch()
    ready = f"leaktop: watching {target.pid} (growing) grow: page faults, brk, mmap"
    assert leaktop.err.seen == [ready]
    # what an uprobe leaves in a process: its trampolines
    assert "[uprobes]" not in Path(f"/proc/{target.pid}/maps").read_text()
    assert not any("perf_event" in name for name in open_files(leaktop.process.pid))
    assert lost(leaktop.snapshot()) == {}
    assert leaktop.stop() == 0


def test_options_of_blocks_are_refused() -> None:
    for option in (("-z", "4k"), ("-o", "5"), ("-O", "/x"), ("--probe-at-entry",)):
        run_leaktop("--growth", "-p", "1", *option).assert_refused(2, "--growth", "blocks")
    run_leaktop("--growth", "-p", "1,2").assert_refused(2, "one process")
    run_leaktop("--growth", "--name", "x").assert_refused(2, "-p PID")
