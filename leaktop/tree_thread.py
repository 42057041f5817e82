"""The thread that builds call trees while one is on the screen; what it is asked last counts."""

import threading
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from leaktop.calls import Order, Row, Stack
from leaktop.marks import Mark
from leaktop.model import Frame, Site

if TYPE_CHECKING:
    from leaktop.calltree import Tree, TreeBuilder


class Unfold(Enum):
    """What of a tree is to be seen."""

    THESE = "these"
    """What is below the nodes that the wish names."""
    HEAVIEST = "heaviest"
    """The way down that always goes on with the largest."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class TreeWish:
    """Of what a tree is to be built, and how it is looked at."""

    sites: Sequence[Site]
    names: Mapping[int, tuple[Frame, ...]]
    """Frames with names, by stack id; may gain more at any time."""
    growth: Mapping[int, float]
    mark: Mark | None = None
    """Since when the figures are changes, where they are."""
    processes: Mapping[int, str] = field(default_factory=dict)
    """By PID, where there are several."""
    bottom_up: bool = False
    whole: bool = False
    """With allocators and their like."""
    unfolded: Set[int] = frozenset()
    """Ids of nodes."""
    unfold: Unfold = Unfold.THESE
    order: Order = Order.TOTAL


@dataclass(frozen=True, slots=True)
class BuiltTree:
    """A tree, and what it was built of."""

    tree: "Tree"
    wish: TreeWish
    unfolded: Set[int]
    """Ids of the nodes that are unfolded."""
    rows: Sequence[Row]
    """What is seen then."""
    named: bool
    """All names that can be had were there."""


class TreeThread(threading.Thread):
    """Builds what was wished for last, and hands it over; every method returns at once."""

    def __init__(self, hand_over: Callable[[BuiltTree], object]) -> None:
        super().__init__(name="leaktop-tree", daemon=True)
        self._hand_over = hand_over
        self._changed = threading.Condition()
        self._wish: TreeWish | None = None
        self._stopping = False
        self._builders: dict[tuple[bool, bool], TreeBuilder] = {}

    def request(self, wish: TreeWish) -> None:
        """Have a tree built in place of the one wished for before."""
        with self._changed:
            self._wish = wish
            self._changed.notify()

    def stop(self) -> None:
        """End once what is at work is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Build one tree after the other."""
        while (wish := self._take()) is not None:
            self._hand_over(self._build(wish))

    def _take(self) -> TreeWish | None:
        with self._changed:
            while self._wish is None and not self._stopping:
                self._changed.wait()
            wish, self._wish = self._wish, None
            return None if self._stopping else wish

    def _build(self, wish: TreeWish) -> BuiltTree:
        named = all(site.stack_id in wish.names for site in wish.sites)
        from leaktop.calltree import TreeBuilder  # noqa: PLC0415  (numpy, after the first paint)

        way = wish.bottom_up, wish.whole
        if way not in self._builders:
            self._builders[way] = TreeBuilder(bottom_up=wish.bottom_up, whole=wish.whole)
        tree = self._builders[way].build(_stack(site, wish) for site in wish.sites)
        unfolded = wish.unfolded
        if wish.unfold is Unfold.HEAVIEST:
            unfolded = {node.id for node in tree.heaviest()}
        elif wish.unfold is Unfold.ALL:
            unfolded = tree.expand_all()
        return BuiltTree(tree, wish, unfolded, tree.rows(unfolded, wish.order), named)


def _stack(site: Site, wish: TreeWish) -> Stack:
    counters = site.counters
    held = counters.bytes, counters.count
    if wish.mark is not None:
        held = wish.mark.change(site.stack_id, counters)
    return Stack(
        site.stack_id,
        wish.names.get(site.stack_id) or site.frames,
        *held,
        growth=wish.growth.get(site.stack_id, 0.0),
        truncated=site.truncated,
        cache=site.cache,
        process=wish.processes.get(site.pid or 0, ""),
    )
