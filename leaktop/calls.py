"""What a call tree is made of: calls, the stacks that make them, and the sums over stacks."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from leaktop.model import Frame


class Kind(Enum):
    """What a node stands for."""

    FUNCTION = "function"
    ADDRESS = "address"
    """Of a function without a name."""
    CACHE = "cache"
    """A slab cache of the kernel."""
    PROCESS = "process"
    """Where there are several, all that one of them holds."""
    CUT = "cut"
    """What called it is not known: the stack could not be followed further."""
    NO_STACK = "no stack"


class Call(NamedTuple):
    """What stacks are merged by: functions by name and module, as perf does, not by address."""

    kind: Kind
    name: str = ""
    module: str = ""
    """File name of the mapping, or a pseudo name; empty where it is not known."""


CUT = Call(Kind.CUT)
NO_STACK = Call(Kind.NO_STACK)


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack and its figures: what it holds, or how that changed since a mark."""

    stack_id: int
    frames: Sequence[Frame]
    """Innermost first, with the names that are known by now."""
    bytes: int
    count: int
    growth: float = 0.0
    """Bytes a second."""
    truncated: bool = False
    cache: str | None = None
    process: str = ""
    """Whose it is, where there are several."""


class Order(StrEnum):
    """What children are sorted by."""

    TOTAL = "total"
    OWN = "own"
    COUNT = "count"
    GROWTH = "growth"


@dataclass(frozen=True, slots=True)
class Node:
    """A call, and the sums over all stacks that come this way."""

    id: int
    """The same at each tick for the same way from the root, as long as names stay."""
    call: Call
    depth: int
    """1 for those under the root."""
    bytes: int
    count: int
    own_bytes: int
    """Of ``bytes``, what the function allocated itself, by its allocators and their like; seen from
    the bottom up, 0 in callers. Over all nodes these are the total."""
    own_count: int
    growth: float
    """Bytes a second."""
    first: int
    """Index of the first of its rows."""
    stacks: int
    """How many stacks come this way, and in how many rows."""
    ends: int
    """How many of them go no further."""

    @property
    def is_leaf(self) -> bool:
        """Whether nothing is below it."""
        return self.ends == self.stacks


class Row(NamedTuple):
    """A visible line of the tree."""

    node: Node
    guides: str
    """Lines that lead to it, one character a level below the first."""
    is_open: bool
