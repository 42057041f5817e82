"""What a row of snapshots says: rates, growth, order and text filter. Pure.

One tick costs O(stacks). Time is always the snapshot's own, never a clock's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from leaktop.model import Counters, Frame, Site, Snapshot, SortKey
from leaktop.plumbing import frame_that_matters, is_plumbing

__all__ = [
    "TICKS",
    "WINDOW_S",
    "History",
    "Rates",
    "Reading",
    "frame_that_matters",
    "haystack",
    "is_plumbing",
    "matches",
    "ordered",
    "text_filter",
]

WINDOW_S = 10.0
"""Growth is measured over about this many seconds."""

TICKS = 120
"""Ticks of history that are kept, in total and for each stack."""

_ROWS = 256
_HAYSTACK_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast it went since the tick before, a second."""

    allocs_per_s: float
    frees_per_s: float
    bytes_per_s: float
    """Change of the outstanding bytes, negative when they shrink."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot and what the ones before it add to it."""

    snapshot: Snapshot
    rates: Rates
    growth: Mapping[int, float]
    """Bytes a second, by stack id, for each stack of the snapshot."""


class History:
    """The last ticks: a ring of columns, one row for each stack.

    Every history starts with nothing held at elapsed 0, so a first snapshot has a growth too.
    Memory is bounded by ``TICKS`` and by the stacks held within them.
    """

    def __init__(self) -> None:
        self._ring = np.zeros((_ROWS, TICKS), dtype=np.int64)
        self._row_of: dict[int, int] = {}
        self._free = list(range(_ROWS - 1, -1, -1))
        self._elapsed = [0.0]  # one for each tick kept, oldest first
        self._totals = [0]
        self._ticks = 1  # columns written so far, the zero column included
        self._last = Counters()

    def add(self, snapshot: Snapshot) -> Reading:
        """Take the next snapshot and return it with its rates and growth."""
        rates = self._rates(snapshot)
        rows = self._rows(snapshot.sites)
        column = self._ticks % TICKS
        held = np.fromiter(
            (s.counters.bytes for s in snapshot.sites), dtype=np.int64, count=len(snapshot.sites)
        )
        self._ring[:, column] = 0
        self._ring[rows, column] = held
        self._ticks += 1
        self._elapsed = [*self._elapsed[-(TICKS - 1) :], snapshot.elapsed_s]
        self._totals = [*self._totals[-(TICKS - 1) :], snapshot.totals.bytes]
        self._last = snapshot.totals
        growth = self._growth(rows, held)
        ids = (site.stack_id for site in snapshot.sites)
        return Reading(snapshot, rates, dict(zip(ids, growth.tolist(), strict=True)))

    def trend(self) -> Sequence[int]:
        """Return the total outstanding bytes at each tick kept, oldest first."""
        return self._totals[1:] if self._ticks <= TICKS else list(self._totals)

    def trend_of(self, stack_id: int) -> Sequence[int]:
        """Return the outstanding bytes of one stack at each tick kept, oldest first."""
        row = self._row_of.get(stack_id)
        kept = len(self.trend())
        if row is None:
            return [0] * kept
        columns = [(self._ticks - kept + i) % TICKS for i in range(kept)]
        values: list[int] = self._ring[row, columns].tolist()
        return values

    def _rates(self, snapshot: Snapshot) -> Rates:
        passed = snapshot.elapsed_s - self._elapsed[-1]
        if passed <= 0:
            return Rates(0.0, 0.0, 0.0)
        now, before = snapshot.totals, self._last
        return Rates(
            (now.allocs - before.allocs) / passed,
            (now.frees - before.frees) / passed,
            (now.bytes - before.bytes) / passed,
        )

    # Bytes a second since the latest tick that is a window old, or the oldest one there is.
    def _growth(self, rows: NDArray[np.intp], held: NDArray[np.int64]) -> NDArray[np.float64]:
        now = self._elapsed[-1]
        base = 0
        for i, elapsed in enumerate(self._elapsed[:-1]):
            if elapsed > now - WINDOW_S:
                break
            base = i
        passed = now - self._elapsed[base]
        if passed <= 0:
            return np.zeros(len(rows))
        column = (self._ticks - len(self._elapsed) + base) % TICKS
        change: NDArray[np.float64] = (held - self._ring[rows, column]) / passed
        return change

    def _rows(self, sites: Sequence[Site]) -> NDArray[np.intp]:
        fresh = [s.stack_id for s in sites if s.stack_id not in self._row_of]
        if len(fresh) > len(self._free):
            self._make_room(len(fresh))
        for stack_id in fresh:
            if stack_id not in self._row_of:
                self._row_of[stack_id] = self._free.pop()
        return np.fromiter((self._row_of[s.stack_id] for s in sites), dtype=np.intp)

    # First the rows of stacks that held nothing at any tick kept, then a larger ring.
    def _make_room(self, wanted: int) -> None:
        used = np.any(self._ring, axis=1).tolist()
        for stack_id, row in list(self._row_of.items()):
            if not used[row]:
                del self._row_of[stack_id]
                self._free.append(row)
        rows = self._ring.shape[0]
        more = rows
        if len(self._free) - wanted >= rows // 4:
            return
        while len(self._free) + more < wanted:
            more *= 2
        self._ring = np.vstack([self._ring, np.zeros((more, TICKS), dtype=np.int64)])
        self._free.extend(range(rows + more - 1, rows - 1, -1))


def ordered(reading: Reading, key: SortKey, *, reverse: bool = False) -> list[Site]:
    """Return the sites by ``key``, largest first unless ``reverse``.

    Equal ones come by stack id, so that rows do not dance; unknown ages come last either way.
    """
    last = float("inf") if reverse else float("-inf")
    value: Callable[[Site], float]
    match key:
        case SortKey.BYTES:
            value = _bytes
        case SortKey.COUNT:
            value = _count
        case SortKey.GROWTH:
            growth = reading.growth

            def value(site: Site) -> float:
                return growth.get(site.stack_id, 0.0)

        case SortKey.AGE:

            def value(site: Site) -> float:
                return last if site.oldest_s is None else site.oldest_s

    by_id = sorted(reading.snapshot.sites, key=_stack_id)
    return sorted(by_id, key=value, reverse=not reverse)


def _stack_id(site: Site) -> int:
    return site.stack_id


def _bytes(site: Site) -> int:
    return site.counters.bytes


def _count(site: Site) -> int:
    return site.counters.count


def haystack(frames: Sequence[Frame]) -> str:
    """Return the text that a filter searches: each name, module and place, one a line."""
    lines: list[str] = []
    for frame in frames:
        lines.append(frame.symbol or hex(frame.address))
        if frame.module:
            lines.append(frame.module)
        if frame.file:
            lines.append(f"{frame.file}:{frame.line}" if frame.line else frame.file)
    return "\n".join(lines)[:_HAYSTACK_LIMIT]


@lru_cache(maxsize=32)
def text_filter(pattern: str) -> Callable[[str], bool]:
    """Return the test of a haystack that ``pattern`` stands for.

    A regular expression, or plain text where it is none; ``!`` in front inverts; upper and lower
    case are alike unless the pattern has an upper-case letter. An empty pattern keeps all.
    """
    inverted = pattern.startswith("!")
    body = pattern[1:] if inverted else pattern
    if not body:
        return lambda _: True
    flags = re.MULTILINE
    # A letter after a backslash is a class, as in \W, and says nothing about case.
    if not any(c.isupper() for c in re.sub(r"\\.", "", body)):
        flags |= re.IGNORECASE
    try:
        search = re.compile(body, flags).search
    except (re.error, RecursionError, OverflowError):
        search = re.compile(re.escape(body), flags).search
    if inverted:
        return lambda text: search(text) is None
    return lambda text: search(text) is not None


def matches(frames: Sequence[Frame], pattern: str) -> bool:
    """Tell whether any frame's name, module or place passes ``text_filter(pattern)``."""
    return text_filter(pattern)(haystack(frames))
