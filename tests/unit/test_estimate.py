"""What exact tracing would cost: the arithmetic, and its words."""

import os

import pytest

from leaktop.analyze import cost_between
from leaktop.candidates import Estimate
from leaktop.format import format_estimate, format_slowdown
from leaktop.model import Counters, Filters, Snapshot, Target
from leaktop.processes import is_still_there, look_at
from leaktop.tracer.estimate import Costs, estimate_of

COSTS = Costs(pair_s=2.5e-6, entry_s=0.5e-6)


def test_what_counting_took_is_not_the_process_s_own() -> None:
    # 100,000 calls in half a second, which took 0.05 s of the 0.45 s on a processor
    estimate = estimate_of(100_000, 0.5, 0.45, COSTS)
    assert estimate.calls_per_s == 200_000
    assert estimate.added == pytest.approx(0.5)
    assert estimate.busy == pytest.approx(0.8)
    assert estimate.slowdown == pytest.approx(0.625)
    assert estimate.much


def test_a_process_that_only_allocates_keeps_some_time_of_its_own() -> None:
    estimate = estimate_of(1_000_000, 0.5, 0.45, COSTS)
    assert estimate.busy == pytest.approx(0.2 * 0.9)
    assert format_slowdown(estimate) == "several times over"


@pytest.mark.parametrize(
    ("calls_per_s", "busy", "much", "text"),
    [
        (0, 0.0, False, "by less than 1 % (0 calls/s x 2.5 us)"),
        (200, 0.9, False, "by less than 1 % (200 calls/s x 2.5 us)"),
        (36_000, 1.0, False, "by about 9 % (36000 calls/s x 2.5 us)"),
        (136_000, 1.0, True, "by about 34 % (136k calls/s x 2.5 us)"),
        # a quarter more of what is next to nothing: nobody notices
        (1000, 0.01, False, "by about 25 % (1000 calls/s x 2.5 us)"),
        (136_000, 8.0, False, "by about 4 % (136k calls/s x 2.5 us)"),
    ],
)
def test_what_is_much(calls_per_s: float, busy: float, much: bool, text: str) -> None:
    estimate = Estimate(calls_per_s, 2.5e-6, busy)
    assert estimate.much is much
    assert format_estimate(estimate) == text


def test_a_process_is_looked_at_by_its_number() -> None:
    found = look_at(os.getpid())
    assert found is not None
    assert found.pid == os.getpid()
    assert is_still_there(found)
    assert look_at(2**22) is None


def test_cost_between_snapshots() -> None:
    def at(second: float, busy_s: float | None, rate: int = 1) -> Snapshot:
        return Snapshot(
            time_ns=0,
            elapsed_s=second,
            target=Target(1, "x", busy_s=busy_s),
            filters=Filters(sample_rate=rate),
            totals=Counters(allocs=int(100_000 * second)),
            sites=(),
        )

    found = cost_between(at(1, 1.0), at(3, 2.8), 2e-6)
    assert found is not None
    assert (found.calls_per_s, found.call_cost_s) == (100_000, 2e-6)
    assert found.busy == pytest.approx(0.7)
    sampled = cost_between(at(1, 1.0), at(3, 2.8, rate=10), 2e-6)
    assert sampled is not None
    assert (sampled.call_cost_s, sampled.busy) == pytest.approx((1.2e-6, 0.78))
    assert cost_between(at(1, None), at(3, 2.8), 2e-6) is None
    assert cost_between(at(1, 1.0), at(1, 1.0), 2e-6) is None
