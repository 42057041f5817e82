"""What a time line shows of a recording, and where on it the screen is."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

SPEEDS = (1, 4, 16, 64)
"""How many times as fast as it was a recording may be played."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What a time line needs to know of a snapshot."""

    time_ns: int
    elapsed_s: float
    bytes: int
    """Outstanding."""
    lost: int
    """Sum of all losses."""
    sites: int
    """How many stacks it has."""
    gone: bool
    """The target is no longer traced."""


@dataclass(frozen=True, slots=True)
class Playback:
    """Where on a recording the screen is, and how it goes on."""

    ticks: Sequence[Tick]
    """Of each snapshot; at least one."""
    number: int = 0
    """Of the snapshot that is shown."""
    playing: bool = True
    speed: int = 1
    """One of ``SPEEDS``."""
    damage: str | None = None
    """Why there are no more snapshots, where the recording has no proper end."""


class MoveKind(Enum):
    """Which way to go on a recording."""

    STEP = "step"
    """So many snapshots."""
    JUMP = "jump"
    """So many seconds."""
    END = "end"
    """To its begin (-1) or its end (1)."""
    PLAY = "play"
    """On by itself, or no longer."""
    SPEED = "speed"
    """By itself, at the next speed."""


@dataclass(frozen=True, slots=True)
class Move:
    """One key of the time line."""

    kind: MoveKind
    amount: int = 0
