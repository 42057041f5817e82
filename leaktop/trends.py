"""What every stack held at every tick, in little memory: changes alone, thinned with age. Pure.

A tick is kept as a span: the stacks whose bytes changed, and to what. So a stack that stays as it
is costs nothing. The last ``FULL`` ticks are kept one by one. Of older ones two spans become one,
and later two of those: ``LEVEL`` spans of each length stay. Of a longer span the peak is kept, so
that no spike is lost, and how it ended. Where all that takes more than ``BYTES_MAX``, because
thousands of stacks change at each tick, the length that takes most is thinned before its time, its
oldest first: every stack and the whole time stay in sight, in coarser steps.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from leaktop.model import Trend

FULL = 3600
"""Ticks that are kept one by one: an hour, at one a second."""
LEVEL = 450
"""Spans of 2 ticks, of 4, of 8, ... that are kept, of each length."""
LEVELS = 12
"""Lengths of spans; with one tick a second they reach back five weeks. What is older goes."""
BYTES_MAX = 24 << 20
"""How much the changes of all stacks may take together."""
CELLS = 240
"""Values of a trend at most."""

_LEAST = 8  # spans of each length that stay where memory is short
_NONE = np.zeros(0, dtype=np.int32)
_NOTHING = np.zeros(0, dtype=np.int64)

_Spans = TypeVar("_Spans")


class Thinned(Generic[_Spans]):
    """Spans of time, one a tick, that become fewer and longer with age."""

    def __init__(
        self,
        merge: Callable[[_Spans, _Spans], _Spans],
        drop: Callable[[_Spans], object] = lambda _: None,
        weigh: Callable[[_Spans], int] = lambda _: 1,
    ) -> None:
        """``merge`` makes one span of two, ``drop`` hears of what is too old to be kept."""
        self._merge, self._drop, self._weigh = merge, drop, weigh
        self._levels: list[deque[_Spans]] = [deque() for _ in range(LEVELS)]
        self._weights = [0] * LEVELS

    def __iter__(self) -> Iterator[_Spans]:
        """All spans, the oldest first."""
        for level in reversed(self._levels):
            yield from level

    @property
    def weight(self) -> int:
        """What all spans weigh."""
        return sum(self._weights)

    @property
    def newest(self) -> _Spans | None:
        """The newest span."""
        return next((level[-1] for level in self._levels if level), None)

    def append(self, span: _Spans) -> None:
        """Take the span of one more tick."""
        self._put(0, span)
        for number, level in enumerate(self._levels):
            if len(level) < (LEVEL if number else FULL) + 2:
                return
            self._thin(number)

    def thin(self) -> None:
        """Merge the two oldest spans of the level that weighs most, or drop the oldest of all."""
        heaviest = sorted(range(LEVELS), key=lambda i: (self._weights[i], i), reverse=True)
        for number in heaviest:
            if len(self._levels[number]) >= _LEAST:
                self._thin(number)
                return
        self._drop(self._take(next(i for i in reversed(range(LEVELS)) if self._levels[i])))

    def pop(self) -> _Spans:
        """Take the newest span away and return it."""
        number = next(i for i in range(LEVELS) if self._levels[i])
        span = self._levels[number].pop()
        self._weights[number] -= self._weigh(span)
        return span

    def weigh_again(self) -> None:
        """Learn that spans have changed."""
        self._weights = [sum(map(self._weigh, level)) for level in self._levels]

    def _thin(self, number: int) -> None:
        older = self._take(number)
        if number + 1 == LEVELS:
            self._drop(older)
        else:
            self._put(number + 1, self._merge(older, self._take(number)))

    def _take(self, number: int) -> _Spans:
        span = self._levels[number].popleft()
        self._weights[number] -= self._weigh(span)
        return span

    def _put(self, number: int, span: _Spans) -> None:
        self._levels[number].append(span)
        self._weights[number] += self._weigh(span)


@dataclass(slots=True)
class Span:
    """What changed in one tick, or several."""

    end: float
    """Elapsed seconds at its last tick."""
    ticks: int
    rows: NDArray[np.int32]
    """Of the stacks that changed, rising."""
    ends: NDArray[np.int64]
    """What each of them held at the end."""
    peaks: NDArray[np.int64]
    """The most that each of them held after a change; the same array where that is the end."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        peaks = 0 if self.peaks is self.ends else self.peaks.nbytes
        return self.rows.nbytes + self.ends.nbytes + peaks

    def after(
        self, rows: NDArray[np.intp], held: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what these rows, rising, held at the end, and the most, if ``held`` before."""
        if not len(self.rows):
            return held, held
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        changed = self.rows[at] == rows
        ends, peaks = self.ends[at], self.peaks[at]
        if self.ticks > 1:
            peaks = np.maximum(peaks, held)
        return np.where(changed, ends, held), np.where(changed, peaks, held)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Forget the rows that are not to be kept."""
        kept = rows[self.rows]
        same = self.peaks is self.ends
        self.rows, self.ends = self.rows[kept], self.ends[kept]
        self.peaks = self.ends if same else self.peaks[kept]


def span_of(end: float, rows: NDArray[np.intp], values: NDArray[np.int64]) -> Span:
    """Return the span of one tick at which these rows changed to these values."""
    if not len(rows):
        return Span(end, 1, _NONE, _NOTHING, _NOTHING)
    return Span(end, 1, rows.astype(np.int32), values, values)


def merge(older: Span, newer: Span) -> Span:
    """Return the span of both."""
    ticks = older.ticks + newer.ticks
    if not len(older.rows) or not len(newer.rows):
        one = older if len(older.rows) else newer
        return Span(newer.end, ticks, one.rows, one.ends, one.peaks)
    if np.array_equal(older.rows, newer.rows):
        rows, ends, peaks = newer.rows, newer.ends, np.maximum(older.peaks, newer.peaks)
    else:
        rows = np.union1d(older.rows, newer.rows)
        before, after = np.searchsorted(rows, older.rows), np.searchsorted(rows, newer.rows)
        ends = np.empty(len(rows), dtype=np.int64)
        ends[before] = older.ends
        ends[after] = newer.ends
        peaks = np.zeros(len(rows), dtype=np.int64)  # less than nothing is never held
        peaks[before] = older.peaks
        peaks[after] = np.maximum(peaks[after], newer.peaks)
    return Span(newer.end, ticks, rows, ends, ends if np.array_equal(ends, peaks) else peaks)


@dataclass(frozen=True, slots=True)
class Point:
    """A span of the total, or of one stack."""

    end: float
    peak: int
    """The most that was held in it."""


def merge_points(older: Point, newer: Point) -> Point:
    """Return the point of both spans."""
    return Point(newer.end, max(older.peak, newer.peak))


class Parts:
    """Equal parts of the time of spans, and in which of them each span ends."""

    def __init__(self, ends: Sequence[float], cells: int = CELLS) -> None:
        """Make at most ``cells`` parts of the time of these ``ends``: at least one, rising."""
        times = np.array(ends, dtype=np.float64)
        self.span_s = float(times[-1] - times[0])
        self.count = min(cells, len(times)) if self.span_s > 0 else 1
        share = (times - times[0]) / (self.span_s or 1.0)
        self.part = np.minimum((share * self.count).astype(np.intp), self.count - 1)
        firsts = np.flatnonzero(np.diff(self.part, prepend=-1))
        self._firsts = firsts
        # A part in which no span ends is in the middle of the next one.
        self._spread = np.searchsorted(self.part[firsts], np.arange(self.count))

    def trend(self, peaks: NDArray[np.int64]) -> Trend:
        """Return the trend of a figure with these peaks in the spans."""
        values = np.maximum.reduceat(peaks, self._firsts)
        return Trend(tuple(values[self._spread].tolist()), self.span_s)

    def trend_by_part(self, peaks: NDArray[np.int64]) -> Trend:
        """Return the trend of a figure with these peaks in the parts in which spans end."""
        return Trend(tuple(peaks[self.part[self._firsts]][self._spread].tolist()), self.span_s)


def trend_of(points: Sequence[Point]) -> Trend:
    """Return at most ``CELLS`` values, each the peak of an equal part of the time."""
    if not points:
        return Trend()
    peaks = np.fromiter((point.peak for point in points), np.int64, len(points))
    return Parts([point.end for point in points]).trend(peaks)
