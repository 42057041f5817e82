"""Verdicts on the stacks of one snapshot, put into words where somebody asks for them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leaktop.format import format_count
from leaktop.model import LIFETIME_EDGES_S, Site, Verdict

if TYPE_CHECKING:  # the screen appears before numpy is there
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

SUSPICIOUS = 0.45
"""Scores from here on are marked."""
CERTAIN = 0.8
"""Scores from here on are marked doubly."""
_SAID = 0.2  # scores of what frees little are explained by growth from here on
_EARLY_S = 5.0
_TAIL = 0.05  # of the lifetimes, which a range of them leaves out at either end


@dataclass(frozen=True, slots=True)
class Figures:
    """What verdicts are made of, by position of the stack in its snapshot; times are seconds."""

    score: "Floats"
    span: "Floats"
    """How long it has grown."""
    rate: "Floats"
    """How fast, bytes a second."""
    old: "Floats"
    """Blocks older than all that were ever freed, at least; negative where that is not known."""
    quiet: "Floats"
    """How long it has not risen."""
    standing: "Flags"
    """Most of what it holds has been there for a while, whichever blocks that is."""
    bounded: "Flags"
    """That is long for how it rose before."""
    since_alloc: "Floats"
    """How long it has not allocated."""
    seen: "Floats"
    """How long it is known."""


class Verdicts(Mapping[int, Verdict]):
    """By stack id; of thousands few are ever read, so each is made when it is."""

    def __init__(self, ids: Sequence[int], sites: Sequence[Site], figures: Figures | None) -> None:
        """``ids``: of the sites; without ``figures`` there are no verdicts."""
        self._ids = ids
        self._sites = sites
        self._figures = figures
        self._at: dict[int, int] | None = None
        self._made: dict[int, Verdict] = {}

    @property
    def scores(self) -> Mapping[int, float]:
        """All scores, by stack id."""
        if self._figures is None:
            return {}
        return dict(zip(self._ids, self._figures.score.tolist(), strict=True))

    def __getitem__(self, stack_id: int) -> Verdict:
        """Return the verdict on a stack of the snapshot; raises KeyError for others."""
        if stack_id not in self._made:
            i = self._position[stack_id]
            assert self._figures is not None
            self._made[stack_id] = _verdict(self._sites[i], self._figures, i)
        return self._made[stack_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._position)

    def __len__(self) -> int:
        return 0 if self._figures is None else len(self._sites)

    @property
    def _position(self) -> dict[int, int]:
        if self._at is None:
            ids = () if self._figures is None else self._ids
            self._at = {stack_id: i for i, stack_id in enumerate(ids)}
        return self._at


def held_range(lifetimes: Sequence[int]) -> str:
    """Return how long most freed blocks were held, ``2-9 s``; empty where none was freed."""
    freed = sum(lifetimes)
    if not freed:
        return ""
    reached, low, high = 0, 0, 0
    for band, count in enumerate(lifetimes):
        if reached <= freed * _TAIL:
            low = band
        reached += count
        high = band
        if reached >= freed * (1 - _TAIL):
            break
    end = LIFETIME_EDGES_S[high + 1] if high + 1 < len(LIFETIME_EDGES_S) else None
    start = LIFETIME_EDGES_S[low]
    if end is None:
        return f"over {spoken_time(start)}"
    if not start:
        return f"under {spoken_time(end)}"
    one, other = spoken_time(start).split(" "), spoken_time(end).split(" ")
    return f"{one[0]}{'' if one[1] == other[1] else ' ' + one[1]}-{other[0]} {other[1]}"


def spoken_time(seconds: float) -> str:
    """Return a time with its unit: ``16 ms``, ``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 99.5:  # noqa: PLR2004
        return f"{round(seconds)} s"
    if seconds < 99.5 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def spoken_bytes(value: float) -> str:
    """Return bytes with their unit, in powers of 1024: ``48 B``, ``4.1 KB``, ``120 MB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":  # noqa: PLR2004
            break
        value /= 1024
    return f"{value:.1f} {unit}" if value < 10 and value != round(value) else f"{value:.0f} {unit}"  # noqa: PLR2004


def _verdict(site: Site, figures: Figures, i: int) -> Verdict:
    return Verdict(float(figures.score[i]), _reason(site, figures, i))


def _reason(site: Site, figures: Figures, i: int) -> str:
    held = held_range(site.lifetimes)
    turns_over = site.counters.frees > site.counters.count
    said = SUSPICIOUS if turns_over else _SAID
    if figures.score[i] >= said and not figures.bounded[i]:
        return _growth(site, figures, i, held)
    if figures.seen[i] < _EARLY_S:
        return f"too early to tell: seen for {spoken_time(float(figures.seen[i]))}"
    if figures.bounded[i] and figures.standing[i]:
        return _standstill(site, figures, i, held)
    if held:
        return f"freed later: held {held}"
    return "rises now and then, too unevenly to tell"


def _growth(site: Site, figures: Figures, i: int, held: str) -> str:
    rate, span = spoken_bytes(float(figures.rate[i])), spoken_time(float(figures.span[i]))
    growth, old = f"grows {rate}/s for {span}", int(figures.old[i])
    if not site.counters.frees:
        return f"{growth}, no block ever freed"
    if old > 0:
        return f"{growth}: {_blocks(old)} older than any that was ever freed"
    return f"{growth}, though it frees" + (f" others: held {held}" if held else " others")


def _standstill(site: Site, figures: Figures, i: int, held: str) -> str:
    since_alloc, quiet = float(figures.since_alloc[i]), float(figures.quiet[i])
    if since_alloc > max(_EARLY_S, quiet / 2):
        return f"no new block for {spoken_time(since_alloc)}: {_blocks(site.counters.count)} kept"
    kind = "looks like a cache" if site.counters.count > 1 else "looks like reuse"
    return f"bounded since {spoken_time(quiet)}" + (f", held {held}" if held else "") + f": {kind}"


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{format_count(count)} blocks"
