"""Which stacks leak, told from live figures of a program whose truth is known."""

import json

import pytest

from leaktop.verdicts import SUSPICIOUS
from tests.live.conftest import StartTarget, Trace
from tests.live.harness import Json, Leaktop, TargetProcess

pytestmark = pytest.mark.live

SEED = "7"
WITHIN_S = 30
BESIDE = ("slow_leak", "large_cache", "churn")
MIXED = (
    "slow_leak",
    "leak_on_rare_path",
    "cache_without_limit",
    "lru_cache",
    "pool_in_steps",
    "queue_with_bursts",
    "startup_data",
    "periodic_batch",
)


def begun(target: TargetProcess) -> dict[str, bool]:
    """Let it begin; whether each of its functions leaks."""
    target.say("go")
    return {site["function"]: site["leaks"] for site in json.loads(target.lines.next())["sites"]}


def until(leaktop: Leaktop, seconds: float) -> list[Json]:
    """The snapshots of the first so many seconds of tracing."""
    shots = [leaktop.snapshot()]
    while shots[-1]["elapsed_s"] < seconds:
        shots.append(leaktop.snapshot())
    return shots


def test_leaks_come_first_within_30_s(start_target: StartTarget, trace: Trace) -> None:
    beside, mixed = (start_target("leaking", SEED, *kinds) for kinds in (BESIDE, MIXED))
    by_suspicion = ("-d", "1", "--sort", "suspect")
    first, second = (trace(target, *by_suspicion) for target in (beside, mixed))
    begun(beside)
    leaks = begun(mixed)
    # one small block a second beside 200 MB of cache and 100,000 pairs a second
    shots = until(first, WITHIN_S)
    top = shots[-1]["stacks"][0]
    assert top["frames"][0]["symbol"] == "slow_leak"
    assert top["suspect"] >= SUSPICIOUS
    assert top["suspect_reason"].startswith("grows 4")  # 48 bytes a second, less some at the ends
    assert top["suspect_reason"].endswith(", no block ever freed")
    scores = {
        stack["frames"][0]["symbol"]: stack["suspect"]
        for stack in reversed(until(second, WITHIN_S)[-1]["stacks"])
    }
    least = min(score for name, score in scores.items() if leaks[name])
    assert all(score < least for name, score in scores.items() if not leaks[name]), scores
