"""Which stacks leak, judged by what they hold at each tick and how long freed blocks lived. Pure.

A leak is seen by blocks that outlive all that were ever freed, and whose number rises steadily. No
block is looked at: a level that a stack has never been below since some time stands since then, so
the levels that stand say how growth is spread over time (``leaktop.floors``). What has stood for
less than freed blocks live is no sign of anything. ARCHITECTURE.md explains the rest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter, is_

import numpy as np
from numpy.typing import NDArray

from leaktop.analyze import Reading
from leaktop.evidence import LAG_S, Evidence
from leaktop.floors import Floats, Floors
from leaktop.model import LIFETIME_EDGES_S, Counters, Site, Snapshot
from leaktop.verdicts import Figures, Verdicts

BLOCK_OVERHEAD = 16
"""Bytes that a block counts for besides its own, as it does in the allocator: so many small blocks
weigh as much as few large ones, and blocks of no bytes weigh something."""
FORGET_S = 8.0
"""How fast suspicion goes once nothing rises any more."""
PEAK_S = 30.0
"""How fast a peak is forgotten that later rises need not exceed."""
IDLE_S = 15.0
"""A target that does nothing at all for longer than this is paused: time stands still."""
STILL_S = 10.0
"""A stack that has held the same for this long is judged again once that changes,"""
NO_SCORE = 0.005
"""if its score is below this, which is 0 in two digits."""
AT_ONCE = 2000
"""Stacks whose lifetimes are looked at in a tick; where more have freed, they take turns."""
ABSENT_S = 60.0
"""A stack that has held nothing for this long may be forgotten."""

_BANDS = len(LIFETIME_EDGES_S)
_EDGES = np.array(LIFETIME_EDGES_S)
_UPPER = np.append(_EDGES[1:], np.inf)
_MIDDLE = np.append(np.sqrt(_EDGES[1:-1] * _EDGES[2:]), 1.5 * _EDGES[-1])
_MIDDLE = np.insert(_MIDDLE, 0, _EDGES[1] / 8)  # most of what is short is far shorter
_ROWS = 256
_BYTES, _COUNT, _ALLOCS = (attrgetter(f"counters.{name}") for name in ("bytes", "count", "allocs"))
_FREES = attrgetter("counters.frees")
_LIFETIMES, _ID = attrgetter("lifetimes"), attrgetter("stack_id")

_JUDGED = (
    "floor",  # below which the level has not been of late
    "top",  # the height that a floor has to exceed to count as risen
    "rose",  # when it did last
    "rises",  # how often it did
    "gap",  # from one rise to the next, seconds
    "score",
    "span",  # seconds of the growth that was found
    "rate",  # of it, bytes a second
    "old",  # blocks older than all that were freed, at least
)
_FIELDS = (
    "born",  # when the stack was seen first
    "seen",  # and last
    "moved",  # when its level changed last
    "bytes",
    "count",
    "level",  # bytes and overhead
    "allocs",
    "allocs_before",  # the tick before
    "allocated",  # when it allocated last
    "lived",  # seconds that freed blocks were held, together
    "longest",  # upper bound of the life of any block that was freed
    *_JUDGED,
)


class Judge:
    """Takes each snapshot and tells what it thinks of each stack.

    It keeps some hundred numbers for each stack, however long it runs. Their times rise: another
    run takes another judge.
    """

    def __init__(self) -> None:
        self._elapsed: float | None = None  # at the last snapshot
        self._now = self._idle = 0.0  # time counts from the first one on
        self._totals: tuple[int, int] = (0, 0)
        self._row_of: dict[int, int] = {}
        self._ids: list[int] = []
        self._rows: NDArray[np.intp] = np.zeros(0, np.intp)
        self._free: list[int] = []
        self._floors = Floors()
        self._turn = 0
        self._seen: list[tuple[int, ...]] = []  # lifetimes as they came last, by row
        self._frees = np.zeros((_BANDS, 0))  # at least as long-lived as each band begins
        self._state: dict[str, Floats] = {name: np.zeros(0) for name in _FIELDS}
        self._size = 0
        self._grow(_ROWS)

    @property
    def rows(self) -> int:
        """How many stacks there is room for."""
        return self._size

    def of(self, reading: Reading) -> Reading:
        """Take the next snapshot in a reading, and return it with verdicts."""
        verdicts = self.add(reading.snapshot)
        return replace(reading, verdicts=verdicts, suspicion=verdicts.scores)

    def add(self, snapshot: Snapshot) -> Verdicts:
        """Take the next snapshot and return a verdict for each of its stacks.

        There are none in growth mode, where nothing is known of what is given back.
        """
        if snapshot.growth is not None:
            return Verdicts((), (), None)
        first = self._elapsed is None
        passed = 0.0 if self._elapsed is None else snapshot.elapsed_s - self._elapsed
        self._elapsed = snapshot.elapsed_s
        self._idle = 0.0 if self._moved(snapshot.totals) else self._idle + passed
        if self._idle <= IDLE_S:
            self._now += passed
        rows = self._rows_of(snapshot.sites)
        self._take(rows, snapshot.sites)
        if (passed > 0 and self._idle <= IDLE_S) or first:
            state = self._state
            self._floors.add(self._now, state["level"], state["allocs_before"], self._now - passed)
            state["allocs_before"][:] = state["allocs"]
            self._weigh(passed)
        return Verdicts(self._ids, snapshot.sites, self._figures(rows))

    def _moved(self, totals: Counters) -> bool:
        before, self._totals = self._totals, (totals.allocs, totals.frees)
        return before != self._totals

    # ---- rows ----

    def _grow(self, rows: int) -> None:
        old, self._size = self._size, rows
        for name, values in self._state.items():
            self._state[name] = np.concatenate([values, np.zeros(rows - old)])
        self._frees = np.concatenate([self._frees, np.zeros((_BANDS, rows - old))], axis=1)
        self._seen += [()] * (rows - old)
        self._floors.grow(rows)
        self._free += range(rows - 1, old - 1, -1)

    def _rows_of(self, sites: Sequence[Site]) -> NDArray[np.intp]:
        ids = list(map(_ID, sites))
        if ids != self._ids:
            fresh = [each for each in ids if each not in self._row_of]
            if len(fresh) > len(self._free):
                self._make_room(len(fresh))
            for each in fresh:
                row = self._row_of[each] = self._free.pop()
                for values in self._state.values():
                    values[row] = 0.0
                self._state["born"][row] = self._state["rose"][row] = self._now
            self._ids = ids
            self._rows = np.fromiter((self._row_of[each] for each in ids), np.intp, len(ids))
        return self._rows

    def _make_room(self, wanted: int) -> None:
        absent = self._state["seen"] < self._now - ABSENT_S
        for stack_id, row in list(self._row_of.items()):
            if absent[row]:
                del self._row_of[stack_id]
                self._floors.clear(row)
                self._frees[:, row], self._seen[row] = 0.0, ()
                self._free.append(row)
        rows = self._size
        while rows - self._size + len(self._free) < wanted:
            rows *= 2
        if rows > self._size:
            self._grow(rows)

    def _take(self, rows: NDArray[np.intp], sites: Sequence[Site]) -> None:
        state = self._state
        before = state["level"].copy()
        for name, value in (("bytes", _BYTES), ("count", _COUNT)):
            state[name][:] = 0.0
            state[name][rows] = _column(value, sites)
        allocs = _column(_ALLOCS, sites)
        state["allocated"][rows[allocs != state["allocs"][rows]]] = self._now
        state["allocs"][rows] = allocs
        state["seen"][rows] = self._now
        state["level"][:] = state["bytes"] + BLOCK_OVERHEAD * state["count"]
        state["moved"][before != state["level"]] = self._now
        self._take_lifetimes(rows.tolist(), sites)

    def _take_lifetimes(self, rows: list[int], sites: Sequence[Site]) -> None:
        lifetimes, seen = list(map(_LIFETIMES, sites)), self._seen
        same = map(is_, lifetimes, [seen[row] for row in rows])
        changed = np.flatnonzero(~np.fromiter(same, bool, len(rows))).tolist()
        if len(changed) > AT_ONCE:
            self._turn = (self._turn + AT_ONCE) % len(changed)
            changed = (changed + changed)[self._turn : self._turn + AT_ONCE]
        for i in changed:
            seen[rows[i]] = lifetimes[i]
        # where they are not counted, any age may be one to be freed at
        if lifetimes and not lifetimes[0]:
            self._frees[:, rows] = _column(_FREES, sites)
        known = [i for i in changed if lifetimes[i]]
        if not known:
            return
        at = [rows[i] for i in known]
        bands = np.array([lifetimes[i] for i in known], float)
        self._frees[:, at] = bands[:, ::-1].cumsum(axis=1)[:, ::-1].T
        self._state["lived"][at] = bands @ _MIDDLE
        longest = _BANDS - 1 - np.argmax(bands[:, ::-1] > 0, axis=1)
        self._state["longest"][at] = np.where(bands.any(axis=1), _UPPER[longest], 0.0)

    # ---- suspicion ----

    # Thousands of stacks hold what they have held for long: of those nothing new can be said.
    def _weigh(self, passed: float) -> None:
        state, now = self._state, self._now
        moving = (now - state["moved"] < STILL_S) | (state["score"] > NO_SCORE)
        rows: NDArray[np.intp] | slice = np.flatnonzero(moving)
        if moving.sum() > self._size // 2:  # all of them cost less than a choice
            rows = slice(None)
        one = {name: values[rows].copy() for name, values in state.items()}
        evidence = Evidence(
            self._floors,
            rows,
            now,
            level=one["level"],
            count=one["count"],
            frees=self._frees[:, rows],
            allocs=one["allocs"],
            longest=one["longest"],
            turnover=one["lived"] / np.maximum(now - one["born"], 1.0),
        )
        one["floor"] = evidence.recent_floor
        _note_rises(one, now, passed)
        quiet = now - one["rose"] - LAG_S - 3 * one["gap"]
        fading = np.exp(-np.maximum(quiet, 0.0) / (FORGET_S + one["gap"]))
        one["score"] = np.round(evidence.score * fading, 3)
        one["span"] = evidence.span
        one["rate"] = evidence.rate * one["bytes"] / np.maximum(one["level"], 1.0)
        one["old"] = one["count"] - (one["allocs"] - evidence.allocs_then)
        for name in _JUDGED:
            state[name][rows] = one[name]

    def _figures(self, rows: NDArray[np.intp]) -> Figures:
        state = self._state
        quiet = np.maximum(self._now - state["rose"] - LAG_S, 0.0)
        return Figures(
            score=state["score"][rows],
            span=state["span"][rows],
            rate=state["rate"][rows],
            old=state["old"][rows],
            quiet=quiet[rows],
            standing=(state["floor"] > state["level"] / 2)[rows],
            bounded=(quiet > 2 * state["gap"] + 2)[rows],
            since_alloc=self._now - state["allocated"][rows],
            seen=self._now - state["born"][rows],
        )


# A floor that rises above what it has been of late: how regularly, and how long ago.
def _note_rises(one: dict[str, Floats], now: float, passed: float) -> None:
    floor, top, gap = one["floor"], one["top"], one["gap"]
    risen = floor > top
    fade = math.exp(-passed / PEAK_S)
    one["top"] = np.where(risen, floor, floor + (top - floor) * fade)
    one["rises"] += risen
    again = risen & (one["rises"] > 1)
    gap += np.where(again, (now - one["rose"] - gap) / np.clip(one["rises"] - 1, 1, 5), 0.0)
    one["rose"][risen] = now


def _column(value: Callable[[Site], int], sites: Sequence[Site]) -> Floats:
    return np.fromiter(map(value, sites), float, len(sites))
