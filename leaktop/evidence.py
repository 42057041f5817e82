"""What the levels that a stack has not been below again say of a leak. Pure.

Going back in time, piece by piece, the least level so far is what has stood since then. Where it
falls on the way back, it has risen on the way here, for good. A leak rises in most of the pieces,
and its lows do not fall between.
"""

import numpy as np
from numpy.typing import NDArray

from leaktop.floors import PIECE_S, Floats, Floors, Piece
from leaktop.model import LIFETIME_EDGES_S

SURE_AFTER_S = 10.0
"""Growth of this many seconds is half of a proof where nothing was freed yet."""
SURE_AFTER_FREES_S = 5.0
"""The same where it is known how long blocks live that are freed."""
FREED_SHARE = 0.1
"""A level is suspicious once fewer blocks of its age were freed than this share of it."""
YOUNG_WEIGHT = 0.4
"""What growth counts that is not older than freed blocks live."""
SPREAD = 3.0
"""Standard deviations that growth has to stand out from, of a number of blocks that come and go
independently: the root of the number (Poisson)."""
SWAY = 0.15
"""The share of them by which a number that somebody keeps in bounds sways besides."""
FALLS = 8.0
"""How many times its deepest fall a level sways at most; buffers that realloc grows never fall."""
LAG_S = 3.0
"""How long a level has to stand to count as risen."""

_EDGES = np.array(LIFETIME_EDGES_S)


class Evidence:
    """What the floors say of each row: its ``score``, and the growth that it is for."""

    def __init__(
        self,
        floors: Floors,
        rows: NDArray[np.intp] | slice,
        now: float,
        *,
        level: Floats,
        count: Floats,
        frees: Floats,
        allocs: Floats,
        longest: Floats,
        turnover: Floats,
    ) -> None:
        """Weigh these rows at once.

        All that follows is of these. ``level``: what each holds now; ``frees``: by band of
        lifetime and row, of blocks that lived at least as long as it begins; ``longest``: what
        bounds the life of all freed blocks; ``turnover``: how many blocks that were freed were
        held at a time, on average.
        """
        self._pieces = [
            Piece(each.start, each.first, each.end, each.rank, each.low[rows], each.allocs[rows])
            for each in floors.newest_first()
        ]
        self._now = now
        a_block = level / np.maximum(count, 1.0)
        self._frees, self._a_block = frees, a_block
        self.score = np.zeros(len(level))
        self.span = np.zeros(len(level))
        """Seconds of growth."""
        self.rate = np.zeros(len(level))
        """How fast it was, a second."""
        self.recent_floor = self._stood_for(LAG_S, level)
        self.allocs_then = self._allocs_before(longest, allocs)
        """Allocations until as long ago as ``longest``."""
        turnover = np.minimum(turnover, count)
        sway = (SPREAD * np.sqrt(turnover) + SWAY * turnover) * a_block
        self._noise = np.minimum(sway, FALLS * self._deepest_fall(level))
        freeing = frees[0] >= FREED_SHARE * count
        after = np.where(freeing, SURE_AFTER_FREES_S, SURE_AFTER_S)
        old = self._go_back(slice(None), level=level, after=after, old=~freeing, weight=1.0)
        young = np.flatnonzero(~old & (level > 0))
        if len(young):
            every = np.ones(len(young), bool)
            self._go_back(
                young, level=level[young], after=after[young], old=every, weight=YOUNG_WEIGHT
            )

    def _stood_for(self, seconds: float, level: Floats) -> Floats:
        floor = level.copy()
        for piece in self._pieces:
            np.minimum(floor, piece.low, out=floor)
            if self._now - piece.start >= seconds:
                break
        return floor

    def _deepest_fall(self, level: Floats) -> Floats:
        fall, floor = np.zeros(len(level)), level.copy()
        for piece in self._pieces:
            np.maximum(fall, piece.low - floor, out=fall)
            np.minimum(floor, piece.low, out=floor)
        return fall

    def _allocs_before(self, seconds: Floats, allocs: Floats) -> Floats:
        then, found = np.zeros(len(allocs)), np.zeros(len(allocs), bool)
        for piece in self._pieces:
            age = self._now - piece.start
            here = ~found & (seconds <= age)
            then[here] = (
                allocs - (allocs - piece.allocs) * np.minimum(seconds, age) / max(age, PIECE_S / 2)
            )[here]
            found |= here
            if found.all():
                break
        return then

    # Returns which rows have levels that are older than freed blocks live: ``old``, updated.
    def _go_back(
        self,
        rows: NDArray[np.intp] | slice,
        *,
        level: Floats,
        after: Floats,
        old: NDArray[np.bool_],
        weight: float,
    ) -> NDArray[np.bool_]:
        noise, a_block = self._noise[rows], self._a_block[rows]
        stood, newer, base = level.copy(), level, level.copy()
        since, seen, rising, times, fallen = (np.zeros(len(level)) for _ in range(5))
        for i, piece in enumerate(self._pieces):
            low, age = piece.low[rows], self._now - piece.start
            least = np.minimum(stood, low)
            risen = (least < stood) & old
            rising += (piece.end - piece.start) * risen
            times += risen
            fallen += np.maximum(low - newer - noise / 2, 0.0) * old
            newer, stood = low, least
            if not old.all():
                base[~old], since[~old], seen[~old] = stood[~old], age, self._now - piece.first
                band = np.searchsorted(_EDGES, age, side="right") - 1
                old |= self._frees[band][rows] * a_block < FREED_SHARE * stood
            if i + 1 == len(self._pieces) or self._pieces[i + 1].rank != piece.rank:
                span = np.maximum(age - since, 1e-9)
                net = base - stood
                steady = net / np.maximum(net + 2 * fallen + noise, 1e-9)
                even = np.minimum(rising / span, 1.0)
                sure = span / (span + after) * times / (times + 1)
                # a level that rises was as low as that where it was looked at first
                rate = net / np.maximum(self._now - piece.first - seen, PIECE_S / 2)
                self._keep(rows, weight * steady * even * sure, span, rate)
        return old

    # The longest span among those that say nearly the same.
    def _keep(
        self, rows: NDArray[np.intp] | slice, score: Floats, span: Floats, rate: Floats
    ) -> None:
        best = self.score[rows]
        better = score > 0.95 * best
        self.score[rows] = np.maximum(best, score)
        self.span[rows] = np.where(better, span, self.span[rows])
        self.rate[rows] = np.where(better, rate, self.rate[rows])
