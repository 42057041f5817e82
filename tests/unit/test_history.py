"""Rates, growth and trends of a row of snapshots, against all that was ever held."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop import history as history_module
from leaktop import trends
from leaktop.history import History
from leaktop.model import Counters, Filters, Frame, Site, Snapshot, Target, Trend
from leaktop.trends import Point


def site(stack_id: int, held: int) -> Site:
    return Site(stack_id, Counters(bytes=held, count=1), (Frame(1),))


def snapshot(elapsed: float, *sites: Site, allocs: int = 0, frees: int = 0) -> Snapshot:
    held = sum(s.counters.bytes for s in sites)
    return Snapshot(
        time_ns=int(elapsed * 1e9),
        elapsed_s=elapsed,
        target=Target(1, "t"),
        filters=Filters(),
        totals=Counters(held, len(sites), allocs, frees),
        sites=tuple(sites),
    )


def peaks(history: History, stack_id: int) -> list[int]:
    return [point.peak for point in history.points_of(stack_id)]


def test_first_snapshot_is_measured_from_the_start() -> None:
    reading = History().add(snapshot(2.0, site(7, 4096), allocs=1000, frees=936))
    assert reading.growth == {7: 2048.0}
    assert reading.rates.allocs_per_s == 500.0
    assert reading.rates.frees_per_s == 468.0
    assert reading.rates.bytes_per_s == 2048.0


def test_first_snapshot_at_the_very_start_has_no_rates() -> None:
    reading = History().add(snapshot(0.0, site(7, 4096), allocs=5))
    assert reading.growth == {7: 0.0}
    assert reading.rates.allocs_per_s == 0.0


def test_rates_are_those_of_the_last_tick() -> None:
    history = History()
    history.add(snapshot(1.0, allocs=10, frees=4))
    reading = history.add(snapshot(3.0, site(1, 100), allocs=30, frees=4))
    assert reading.rates.allocs_per_s == 10.0
    assert reading.rates.frees_per_s == 0.0
    assert reading.rates.bytes_per_s == 50.0


def test_growth_slides_over_ten_seconds() -> None:
    history = History()
    # 1000 bytes in the first second, then 10 a second.
    for second in range(1, 31):
        reading = history.add(snapshot(float(second), site(1, 1000 + 10 * (second - 1))))
        if second == 5:
            assert reading.growth[1] == (1000 + 40) / 5.0
    assert reading.growth[1] == 10.0


def test_growth_of_a_stack_that_came_and_went() -> None:
    history = History()
    history.add(snapshot(1.0, site(1, 100)))
    history.add(snapshot(2.0, site(2, 50)))
    reading = history.add(snapshot(4.0, site(1, 400)))
    assert reading.growth == {1: 100.0}
    assert history.trend_of(1) == Trend((100, 0, 400), 3.0)
    assert history.trend_of(2) == Trend((0, 50, 0), 3.0)


def test_growth_can_be_negative() -> None:
    history = History()
    for second in range(1, 12):
        reading = history.add(snapshot(float(second), site(1, 10_000 - 100 * second)))
    assert reading.growth[1] == -100.0


def test_a_short_past_is_kept_tick_by_tick() -> None:
    history = History()
    assert history.trend() == Trend()
    for tick in range(1, 200):
        history.add(snapshot(float(tick), site(1, tick), site(2, 2)))
    assert history.trend() == Trend(tuple(range(3, 202)), 198.0)
    assert history.trend_of(1) == Trend(tuple(range(1, 200)), 198.0)
    assert history.trend_of(2) == Trend((2,) * 199, 198.0)
    assert history.trend_of(99) == Trend((0,) * 199, 198.0)


def test_an_hour_is_kept_tick_by_tick_and_drawn_with_its_spikes() -> None:
    history = History()
    for tick in range(1, trends.FULL + 1):
        history.add(
            snapshot(float(tick), site(1, 1_000_000 if tick == 77 else 1000), site(2, tick))
        )
    points = history.points_of(2)
    assert [point.peak for point in points] == list(range(1, trends.FULL + 1))
    trend = history.trend_of(1)
    assert len(trend.values) == trends.CELLS
    assert trend.span_s == trends.FULL - 1
    assert [i for i, value in enumerate(trend.values) if value > 1000] == [76 * 240 // 3599]
    assert max(history.trend().values) == 1_000_077


def test_ticks_that_are_late_fill_the_time_since_the_one_before() -> None:
    history = History()
    for elapsed, held in ((1.0, 10), (2.0, 20), (3.0, 30), (9.0, 40)):
        history.add(snapshot(elapsed, site(1, held)))
    assert history.trend() == Trend((20, 30, 40, 40), 8.0)


def test_going_back_undoes_what_came_after() -> None:
    history, shorter = History(), History()
    for tick in range(1, 40):
        history.add(snapshot(float(tick), site(1, tick * tick), site(tick + 1, 7)))
    for tick in range(1, 20):
        shorter.add(snapshot(float(tick), site(1, tick * tick), site(tick + 1, 7)))
    for elapsed in (19.5, 20.0, 45.0):
        now = snapshot(elapsed, site(1, 500), site(20, 9))
        back = history.add(now)
        assert back.growth == shorter.add(now).growth
        for stack_id in (1, 5, 20, 30):
            assert history.points_of(stack_id) == shorter.points_of(stack_id)
        assert history.trend() == shorter.trend()
        assert elapsed > 19.5 or back.rates.bytes_per_s == 0.0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends, "FULL", 12)
    monkeypatch.setattr(trends, "LEVEL", 8)


def _ticks(spans: Sequence[trends.Span], gone: int) -> Iterator[tuple[int, int]]:
    # The first and the last tick of each span, before which ``gone`` ticks were dropped.
    last = gone
    for span in spans:
        yield last + 1, last + span.ticks
        last += span.ticks


@dataclass
class Naive:
    """All that every stack held at every tick."""

    held: list[dict[int, int]]

    def points(self, spans: Sequence[trends.Span], stack_id: int) -> list[Point]:
        points = []
        gone = len(self.held) - 1 - sum(span.ticks for span in spans)
        for span, (first, last) in zip(spans, _ticks(spans, gone), strict=True):
            values = [self.held[tick].get(stack_id, 0) for tick in range(first, last + 1)]
            if span.ticks > 1:  # from the end of the span before on
                values.append(self.held[first - 1].get(stack_id, 0))
            points.append(Point(float(last), max(values)))
        return points

    def growth(self, stack_id: int) -> float:
        now = len(self.held) - 1
        base = max(0, now - 10)
        change = self.held[now].get(stack_id, 0) - self.held[base].get(stack_id, 0)
        return change / (now - base)


_TICKS = st.lists(
    st.dictionaries(st.integers(1, 6), st.sampled_from((0, 1, 5, 5, 100)), max_size=6),
    max_size=120,
)


@given(_TICKS, st.sampled_from((24 << 20, 600, 300)))
@settings(max_examples=200, deadline=None)
def test_the_past_is_what_was_held_within_its_resolution(
    ticks: list[dict[int, int]], limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trends, "FULL", 12)
        patch.setattr(trends, "LEVEL", 8)
        patch.setattr(trends, "BYTES_MAX", limit)
        patch.setattr(trends, "_LEAST", 2)
        history = History()
        naive = Naive([{}])
        for elapsed, held in enumerate(ticks, start=1):
            naive.held.append(held)
            sites = [site(stack_id, size) for stack_id, size in held.items()]
            reading = history.add(snapshot(float(elapsed), *sites))
            assert reading.growth == {i: naive.growth(i) for i in held}
        spans = list(history._spans)
        assert sum(span.size for span in spans) == history._spans.weight <= limit
        for stack_id in range(1, 8):
            assert history.points_of(stack_id) == naive.points(spans, stack_id)
        known = [i for i in range(1, 8) if i in history._rows_of]
        assert history.trends_of(range(1, 8)) == {
            i: history.trend_of(i) for i in known if len(spans)
        }
        if limit > 1000:  # resolution halves with age
            lengths = [span.ticks for span in spans]
            assert sum(lengths) == len(ticks)
            assert lengths == sorted(lengths, reverse=True)
            assert lengths[-12:] == [1] * min(12, len(lengths))


@pytest.mark.usefixtures("small")
def test_what_is_too_old_goes_and_leaves_what_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends, "LEVELS", 2)
    history = History()
    for tick in range(1, 100):
        history.add(snapshot(float(tick), site(1, 5), site(2, tick)))
    spans = list(history._spans)
    assert [span.ticks for span in spans] == [2] * 9 + [1] * 13
    assert peaks(history, 1) == [5] * 22
    assert peaks(history, 2) == [*range(70, 87, 2), *range(87, 100)]
    assert history.trend().span_s == 99 - 70


def test_memory_is_bounded_where_all_stacks_change_at_each_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trends, "BYTES_MAX", 100 * 12 * 1000)
    history = History()
    for tick in range(1, 400):
        history.add(snapshot(float(tick), *(site(i, i + tick) for i in range(1000))))
    assert history._spans.weight <= trends.BYTES_MAX
    # All of the time is still there, the latest at full rate.
    spans = list(history._spans)
    assert sum(span.ticks for span in spans) == 399
    assert [span.ticks for span in spans[-8:]] == [1] * 8
    assert max(span.ticks for span in spans) <= 16
    assert peaks(history, 5)[-1] == 5 + 399


def test_stacks_that_stay_as_they_are_cost_nothing() -> None:
    history = History()
    for tick in range(1, 100):
        history.add(snapshot(float(tick), *(site(i, i + 1) for i in range(1000))))
    assert history._spans.weight == 1000 * 12


def test_rows_are_bounded_when_stacks_come_and_go_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "ROWS_MAX", 1024)
    history = History()
    for tick in range(1, 700):
        sites = [site(tick * 100 + i, i + 1) for i in range(20)]
        reading = history.add(snapshot(float(tick), *sites, site(7, tick)))
        assert reading.growth[7] == 1.0
        assert reading.growth[tick * 100] == 1 / min(10, tick)
    assert len(history._held) == 1024
    assert peaks(history, 7) == list(range(1, 700))
    assert peaks(history, 699 * 100 + 3)[-2:] == [0, 4]
    assert set(peaks(history, 103)) == {0}


def test_more_stacks_at_once_than_are_kept_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "ROWS_MAX", 1024)
    history = History()
    for tick in range(1, 4):
        history.add(snapshot(float(tick), *(site(i + tick * 100, i) for i in range(5000))))
    assert peaks(history, 350) == [250, 150, 50]
