"""What a row of snapshots says: rates, growth and trends. Pure.

One tick costs O(stacks). Time is always the snapshot's own, never a clock's.
"""

from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray

from leaktop.analyze import Rates, Reading
from leaktop.model import Counters, Site, Snapshot

WINDOW_S = 10.0
"""Growth is measured over about this many seconds."""

TICKS = 120
"""Ticks of history that are kept, in total and for each stack."""

_ROWS = 256


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
            self._make_room(len(fresh), {s.stack_id for s in sites})
        for stack_id in fresh:
            if stack_id not in self._row_of:
                self._row_of[stack_id] = self._free.pop()
        return np.fromiter((self._row_of[s.stack_id] for s in sites), dtype=np.intp)

    # First the rows of stacks that held nothing at any tick kept and are not here now, with blocks
    # of no bytes; then a larger ring.
    def _make_room(self, wanted: int, here: Set[int]) -> None:
        used = np.any(self._ring, axis=1).tolist()
        for stack_id, row in list(self._row_of.items()):
            if not used[row] and stack_id not in here:
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
