"""What a row of snapshots says: rates, growth and trends. Pure.

One tick costs O(stacks). Time is always the snapshot's own, never a clock's.
"""

from collections import deque
from collections.abc import Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from leaktop import trends
from leaktop.analyze import Rates, Reading
from leaktop.model import Counters, Snapshot, Trend
from leaktop.trends import Point, Span, Thinned

WINDOW_S = 10.0
"""Growth is measured over about this many seconds."""

ROWS_MAX = 1 << 15
"""Stacks whose past is kept. Where that many are known, those that hold nothing now are forgotten;
of those that hold something none is."""

_ROWS = 256


class History:
    """What was held so far, in total and under each stack; see ``trends`` for how exactly.

    Every history starts with nothing held at elapsed 0, so a first snapshot has a growth too. A
    snapshot that is earlier than the last one, of a recording, undoes what came after it.
    """

    def __init__(self) -> None:
        self._rows_of: dict[int, int] = {}
        self._free = list(range(_ROWS - 1, -1, -1))
        # By row: held before the first span, when growth begins, and at the last tick.
        self._first = np.zeros(_ROWS, dtype=np.int64)
        self._base = np.zeros(_ROWS, dtype=np.int64)
        self._held = np.zeros(_ROWS, dtype=np.int64)
        self._base_s = 0.0
        self._spans: Thinned[Span] = Thinned(trends.merge, self._drop, lambda span: span.size)
        self._recent: deque[Span] = deque()  # those after the moment when growth begins
        self._totals: Thinned[Point] = Thinned(trends.merge_points)
        self._last: tuple[float, Counters] | None = (0.0, Counters())
        self._ids: list[int] = []
        self._rows = np.zeros(0, dtype=np.intp)

    def add(self, snapshot: Snapshot) -> Reading:
        """Take the next snapshot and return it with its rates and growth."""
        now_s, sites = snapshot.elapsed_s, snapshot.sites
        if (newest := self._spans.newest) is not None and newest.end >= now_s:
            self._go_back(now_s)
        rates = self._rates(snapshot)
        ids = [site.stack_id for site in sites]
        if ids != self._ids:
            self._ids, self._rows = ids, self._find_rows(ids)
        held = np.fromiter((s.counters.bytes for s in sites), dtype=np.int64, count=len(sites))
        self._keep(now_s, held)
        self._totals.append(Point(now_s, snapshot.totals.bytes))
        passed = now_s - self._base_s
        growth = (held - self._base[self._rows]) / passed if passed > 0 else np.zeros(len(ids))
        return Reading(snapshot, rates, dict(zip(ids, growth.tolist(), strict=True)))

    def trend(self) -> Trend:
        """Return how the total outstanding bytes came about."""
        return trends.trend_of(list(self._totals))

    def trend_of(self, stack_id: int) -> Trend:
        """Return how the outstanding bytes of one stack came about."""
        return trends.trend_of(self.points_of(stack_id))

    def trends_of(self, stack_ids: Sequence[int]) -> Mapping[int, Trend]:
        """Return how the outstanding bytes of many stacks came about, by stack id."""
        spans = list(self._spans)
        known = sorted((row, i) for i in stack_ids if (row := self._rows_of.get(i)) is not None)
        if not spans or not known:
            return {}
        rows = np.fromiter((row for row, _ in known), np.intp, len(known))
        parts = trends.Parts([span.end for span in spans])
        peaks = np.zeros((parts.count, len(rows)), dtype=np.int64)
        held = self._first[rows]
        for span, part in zip(spans, parts.part.tolist(), strict=True):
            held, peak = span.after(rows, held)
            np.maximum(peaks[part], peak, out=peaks[part])
        return {i: parts.trend_by_part(peaks[:, at]) for at, (_, i) in enumerate(known)}

    def points_of(self, stack_id: int) -> list[Point]:
        """Return all that is known of one stack, the oldest first.

        In a span of several ticks the peak is that from the end of the span before on.
        """
        row = self._rows_of.get(stack_id)
        if row is None:
            return [Point(span.end, 0) for span in self._spans]
        points = []
        held = int(self._first[row])
        for span in self._spans:
            at = int(span.rows.searchsorted(row))
            if at == len(span.rows) or span.rows[at] != row:
                points.append(Point(span.end, held))
                continue
            before, held, peak = held, int(span.ends[at]), int(span.peaks[at])
            points.append(Point(span.end, peak if span.ticks == 1 else max(before, peak)))
        return points

    def _rates(self, snapshot: Snapshot) -> Rates:
        last, self._last = self._last, (snapshot.elapsed_s, snapshot.totals)
        if last is None or snapshot.elapsed_s <= last[0]:
            return Rates(0.0, 0.0, 0.0)
        passed, now, before = snapshot.elapsed_s - last[0], snapshot.totals, last[1]
        return Rates(
            (now.allocs - before.allocs) / passed,
            (now.frees - before.frees) / passed,
            (now.bytes - before.bytes) / passed,
        )

    def _keep(self, now_s: float, held: NDArray[np.int64]) -> None:
        now = np.zeros_like(self._held)
        now[self._rows] = held
        changed = np.flatnonzero(now != self._held)
        span = trends.span_of(now_s, changed, now[changed])
        self._held = now
        self._spans.append(span)
        while self._spans.weight > trends.BYTES_MAX:
            self._spans.thin()
        self._recent.append(span)
        self._move_base(now_s)

    # To the latest tick that is a window old; the start, where none is.
    def _move_base(self, now_s: float) -> None:
        while self._recent and self._recent[0].end <= now_s - WINDOW_S:
            span = self._recent.popleft()
            self._base[span.rows] = span.ends
            self._base_s = span.end

    def _drop(self, span: Span) -> None:
        self._first[span.rows] = span.ends

    def _go_back(self, to_s: float) -> None:
        for spans in (self._spans, self._totals):
            while (newest := spans.newest) is not None and newest.end >= to_s:
                spans.pop()
        self._base, self._base_s, self._last = self._first.copy(), 0.0, None
        self._recent = deque(self._spans)
        self._move_base(to_s)
        self._held = self._base.copy()
        for span in self._recent:
            self._held[span.rows] = span.ends

    def _find_rows(self, ids: Sequence[int]) -> NDArray[np.intp]:
        fresh = [stack_id for stack_id in ids if stack_id not in self._rows_of]
        if len(fresh) > len(self._free):
            self._make_room(len(fresh), set(ids))
        for stack_id in fresh:
            self._rows_of[stack_id] = self._free.pop()
        return np.fromiter((self._rows_of[i] for i in ids), dtype=np.intp, count=len(ids))

    def _make_room(self, wanted: int, here: Set[int]) -> None:
        rows = len(self._held)
        if rows >= ROWS_MAX:
            self._forget(here)
            if len(self._free) - wanted >= rows // 4:
                return
        more = rows
        while len(self._free) + more < wanted:
            more *= 2
        more_rows = np.zeros(more, dtype=np.int64)
        self._first = np.concatenate((self._first, more_rows))
        self._base = np.concatenate((self._base, more_rows))
        self._held = np.concatenate((self._held, more_rows))
        self._free.extend(range(rows + more - 1, rows - 1, -1))

    # All stacks but those that are here.
    def _forget(self, here: Set[int]) -> None:
        keep = np.zeros(len(self._held), dtype=np.bool_)
        kept = {stack_id: row for stack_id, row in self._rows_of.items() if stack_id in here}
        keep[list(kept.values())] = True
        self._free += [row for i, row in self._rows_of.items() if i not in kept]
        self._rows_of = kept
        for values in (self._first, self._base, self._held):
            values[~keep] = 0
        for span in {id(span): span for span in (*self._spans, *self._recent)}.values():
            span.keep(keep)
        self._spans.weigh_again()
