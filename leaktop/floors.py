"""How far many figures have stayed above, over all of their past, in bounded memory. Pure.

The past is cut into pieces of time, short ones of late and ever longer ones before: an exponential
histogram (Datar, Gionis, Indyk, Motwani 2002) of minima instead of sums.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PIECE_S = 1.0
"""Seconds that the shortest pieces take at least."""
PER_RANK = 6
"""Pieces of one length that are kept; of more the two oldest are made one of twice the length."""
RANKS = 14
"""Lengths there are: what is older than some hours is forgotten."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Piece:
    """A piece of time, after ``start`` until ``end``."""

    start: float
    first: float
    """When it was looked at first in this time."""
    end: float
    rank: int
    low: Floats
    """The least of each row."""
    allocs: Floats
    """Allocations of each row until ``start``."""


class Floors:
    """Pieces of time for rows that begin at 0; times are seconds and rise."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []  # oldest first; the last one is open

    def add(self, now: float, levels: Floats, allocs: Floats, before: float) -> None:
        """Take what each row is at ``now``; it had made ``allocs`` by ``before``, the last time."""
        last = self._pieces[-1] if self._pieces else None
        if last is None or last.end - last.start >= PIECE_S:
            self._pieces.append(Piece(before, now, now, 0, levels.copy(), allocs.copy()))
            self._merge()
        else:
            np.minimum(last.low, levels, out=last.low)
            last.end = now

    def newest_first(self) -> Iterator[Piece]:
        """Yield the pieces, which follow each other without gaps."""
        return reversed(self._pieces)

    def grow(self, rows: int) -> None:
        """Make room for more rows."""
        for piece in self._pieces:
            more = np.zeros(rows - len(piece.low))
            piece.low = np.concatenate([piece.low, more])
            piece.allocs = np.concatenate([piece.allocs, more])

    def clear(self, row: int) -> None:
        """Forget all of a row's past, as if it had been 0."""
        for piece in self._pieces:
            piece.low[row] = piece.allocs[row] = 0.0

    def _merge(self) -> None:
        for rank in range(RANKS):
            own = [i for i, piece in enumerate(self._pieces) if piece.rank == rank]
            if len(own) <= PER_RANK:
                return
            old, new = self._pieces[own[0]], self._pieces[own[0] + 1]
            if rank == RANKS - 1:
                del self._pieces[own[0]]
                return
            np.minimum(old.low, new.low, out=old.low)
            old.end, old.rank = new.end, rank + 1
            del self._pieces[own[0] + 1]
