"""Single blocks of a stack, and what happens to them, as frozen values."""

from dataclasses import dataclass
from enum import StrEnum

BLOCK_BYTES_MAX = 256
"""How much of a block ``Source.read_block`` returns at most."""
EVENTS_MAX = 10_000
"""How many events ``Source.events`` returns at most."""


@dataclass(frozen=True, slots=True)
class LiveBlock:
    """One block, or mapping, that is held now."""

    address: int
    size: int
    age_s: float
    thread: int
    """The thread that allocated it, as the initial PID namespace numbers it."""
    pid: int | None
    """None once its process is no longer shown."""
    weight: int = 1
    """How many allocations it stands for, where sampling kept it."""


@dataclass(frozen=True, slots=True)
class BlockPage:
    """Some of the live blocks of one stack, oldest first."""

    stack_id: int
    offset: int
    """How many older ones come before the first."""
    total: int
    """How many blocks the stack holds, as far as they were kept."""
    blocks: tuple[LiveBlock, ...]


class EventKind(StrEnum):
    """What changed what a stack holds; in the order of ``memleak.h``."""

    ALLOC = "alloc"
    FREE = "free"
    TRIM = "trim"
    """A head or tail of a mapping was unmapped."""


@dataclass(frozen=True, slots=True)
class Event:
    """One block that came or went."""

    time_ns: int
    """Wall clock, nanoseconds since the epoch."""
    kind: EventKind
    address: int
    size: int
    """Bytes that came or went."""
    pid: int | None
    """None once its process is no longer shown."""
    thread: int
    """The thread that did it, as the initial PID namespace numbers it."""
    stack_id: int | None
    """Of the stack that allocated the block; None where it is not known yet."""
    weight: int = 1
