"""Sizes, sampling, age and order, as the command line asks for them."""

from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartTarget, Trace
from tests.live.judge import NOTHING, assert_exact, lost

pytestmark = pytest.mark.live


def test_sizes(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("phases")
    leaktop = trace(target, "-z", "100", "-Z", "1k")
    for size in (1, 99, 100, 500, 1024, 1025, 100000):
        target.tell(f"leak 10 {size}")
    snapshot = leaktop.snapshot_from_now()
    # Both bounds are within.
    assert snapshot["totals"]["bytes"] == 10 * (100 + 500 + 1024)
    assert snapshot["totals"]["count"] == 30
    filters = {"min_size": 100, "max_size": 1024, "sample_rate": 1, "older_s": 0.0}
    assert snapshot["filters"] == filters
    target.tell("drop")
    snapshot = leaktop.snapshot_from_now()
    assert snapshot["totals"] == {**NOTHING, "allocs": 30, "frees": 30, "alloc_bytes": 16_240}
    assert snapshot["stacks"] == []
    assert lost(snapshot) == {}


def test_sampling_estimates_within_two_percent(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("phases")
    leaktop = trace(target, "-s", "10")
    truth = target.tell("leak 1000000 24")
    snapshot = leaktop.snapshot_from_now()
    # 100,000 blocks are kept, give or take 300 (one standard error): 2 % is more than six of them.
    for figure in ("bytes", "count", "allocs"):
        assert snapshot["totals"][figure] == pytest.approx(truth.total(figure), rel=0.02)
    (stack,) = snapshot["stacks"]
    assert stack["estimated"] is True
    assert stack["bytes"] == pytest.approx(truth.total("bytes"), rel=0.02)
    assert lost(snapshot) == {}


def test_sampled_blocks_are_given_back_with_their_weight(
    start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("phases")
    leaktop = trace(target, "-s", "10")
    target.tell("leak 20000 24")
    assert leaktop.snapshot_from_now()["totals"]["count"] % 10 == 0
    target.tell("drop")
    totals = leaktop.snapshot_from_now()["totals"]
    assert (totals["bytes"], totals["count"]) == (0, 0)
    assert totals["frees"] == totals["allocs"] > 0


def test_older_shows_blocks_once_they_are_old(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("phases")
    leaktop = trace(target, "-o", "1")
    truth = target.tell("leak 20 64")
    snapshot = leaktop.snapshot_from_now()
    assert_exact(snapshot, truth, build("phases"), "phases.c")


def test_older_hides_what_is_younger(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("phases")
    leaktop = trace(target, "-o", "3600000")
    target.tell("leak 20 64")
    assert leaktop.snapshot_from_now()["stacks"] == []


@pytest.mark.parametrize("key", ["bytes", "count", "growth", "age"])
def test_sort(key: str, start_target: StartTarget, trace: Trace) -> None:
    target = start_target("functions", "all")
    leaktop = trace(target, "--sort", key)
    target.tell()
    stacks = leaktop.snapshot_from_now()["stacks"]
    field = {"growth": "growth_bytes_per_s", "age": "oldest_s"}.get(key, key)
    values = [stack[field] for stack in stacks]
    assert len(values) > 10
    assert values == sorted(values, reverse=True)


def test_top_keeps_the_first_and_the_totals(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("functions", "all")
    leaktop = trace(target, "-T", "1")
    truth = target.tell()
    snapshot = leaktop.snapshot_from_now()
    (stack,) = snapshot["stacks"]
    assert stack["bytes"] == max(site.bytes for site in truth.sites)
    assert snapshot["totals"]["bytes"] == truth.total("bytes")


def test_ignored_stacks_are_in_the_totals_alone(
    start_target: StartTarget, trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "leaktop").mkdir()
    known = '[[ignore]]\nstack = ["phases!leak_phase", "main"]\n'
    (tmp_path / "leaktop" / "config.toml").write_text(known)
    target = start_target("phases")
    leaktop = trace(target)
    target.tell("leak 30 64")
    truth = target.tell("grow 10 128")
    snapshot = leaktop.snapshot_from_now()
    (stack,) = snapshot["stacks"]
    assert stack["frames"][0]["symbol"] == "grow_phase"
    assert (stack["bytes"], stack["count"]) == (1280, 10)
    assert snapshot["ignored"] == {"bytes": 1280, "count": 20, "stacks": 1}
    assert snapshot["totals"]["bytes"] == truth.total("bytes") == 2560
    assert lost(snapshot) == {}
