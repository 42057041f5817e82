"""Stacks merged by the calls that they share, from the top down or from the bottom up. Pure.

Each stack is a row of numbers of calls, and the rows are sorted like words in a dictionary. So a
node of the tree is a run of rows that begin alike: its figures are sums over the run, a stack
counts in it once however often a function calls itself, and only the nodes that somebody looks at
are ever made. A tick that brings no new stack and no new name costs the sums alone.
"""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from leaktop.calls import CUT, NO_STACK, Call, Kind, Node, Order, Row, Stack
from leaktop.model import Frame
from leaktop.plumbing import frame_that_matters

ROWS_MAX = 5000
"""How many rows ``expand_all`` unfolds at most, the heaviest first."""

_END = -1  # where a row is shorter than the longest one; sorts before every call
_SPARE_CALLS = 4096


_ALL = Call(Kind.PROCESS)


class Tree:
    """The tree at one moment. Nothing but what it remembers changes, so threads may share it."""

    def __init__(
        self,
        ways: NDArray[np.int32],
        calls: Sequence[Call],
        figures: "_Figures",
        *,
        bottom_up: bool,
    ) -> None:
        """``ways``: sorted rows of indices into ``calls``, filled up with -1."""
        self._ways, self._calls, self._figures = ways, calls, figures
        self.bottom_up = bottom_up
        self._children: dict[tuple[int, int], tuple[Node, ...]] = {}
        bytes_, count, growth = figures.sums()
        self.root = Node(0, _ALL, 0, bytes_, count, 0, 0, growth, 0, len(ways), 0)

    def children(self, node: Node) -> tuple[Node, ...]:
        """Return the nodes below ``node``, in no order."""
        known = self._children.get((node.id, node.depth))
        if known is None:
            known = self._children[node.id, node.depth] = self._make_children(node)
        return known

    def ordered(self, node: Node, order: Order = Order.TOTAL) -> list[Node]:
        """Return the nodes below ``node``, the largest first; equal ones by name."""
        below = sorted(self.children(node), key=lambda each: each.call[1:])
        return sorted(below, key=_VALUES[order], reverse=True)

    def rows(self, unfolded: Set[int], order: Order = Order.TOTAL) -> list[Row]:
        """Return the lines that are seen where the nodes with these ids are unfolded."""
        rows: list[Row] = []
        waiting = self._under(self.root, "", order)
        while waiting:
            row = waiting.pop()
            is_open = row.node.id in unfolded and not row.node.is_leaf
            rows.append(row._replace(is_open=is_open))
            if is_open:
                waiting += self._under(row.node, row.guides, order)
        return rows

    def heaviest(self, start: Node | None = None) -> list[Node]:
        """Return the way down from ``start`` that always goes on with the largest."""
        way: list[Node] = []
        node = start or self.root
        while below := self.ordered(node):
            node = below[0]
            way.append(node)
        return way

    def chain(self, node: Node) -> list[Node]:
        """Return ``node`` and those below it, up to where the ways part."""
        way = [node]
        while len(below := self.children(way[-1])) == 1 and not way[-1].ends:
            way.append(below[0])
        return way

    def expand_all(self, limit: int = ROWS_MAX) -> set[int]:
        """Return the ids of the nodes to unfold so that all are seen, or about ``limit`` of them.

        Where that is not all, the heaviest are unfolded first, level by level.
        """
        unfolded: set[int] = set()
        level = self.ordered(self.root)
        rows = len(level)
        while level:
            deeper: list[Node] = []
            for node in sorted(level, key=_VALUES[Order.TOTAL], reverse=True):
                below = () if node.is_leaf else self.children(node)
                if rows + len(below) > limit:
                    return unfolded
                if below:
                    unfolded.add(node.id)
                    rows += len(below)
                    deeper += below
            level = deeper
        return unfolded

    def stack_ids(self, node: Node) -> list[int]:
        """Return the ids of the stacks that come this way, those that hold most first."""
        span = slice(node.first, node.first + node.stacks)
        ids, bytes_ = self._figures.ids[span], self._figures.bytes[span]
        return [ids[i] for i in np.argsort(-bytes_, kind="stable").tolist()]

    # As a stack to take from, so the last ones first.
    def _under(self, node: Node, guides: str, order: Order) -> list[Row]:
        below = self.ordered(node, order)
        if not node.depth:
            return [Row(each, "", False) for each in reversed(below)]
        last = len(below) - 1
        base = guides.replace("├", "│").replace("└", " ")
        ends = ("└" if i == last else "├" for i in range(last, -1, -1))
        return [
            Row(each, base + end, False) for each, end in zip(reversed(below), ends, strict=True)
        ]

    def _make_children(self, node: Node) -> tuple[Node, ...]:
        first, depth = node.first + node.ends, node.depth
        last = node.first + node.stacks
        if first == last:
            return ()
        calls = self._ways[first:last, depth]
        starts = np.concatenate(([0], np.flatnonzero(np.diff(calls)) + 1))
        sizes = np.diff(starts, append=last - first)
        ends = np.zeros_like(starts)
        if depth + 1 == self._ways.shape[1]:
            ends = sizes
        else:
            is_end = (self._ways[first:last, depth + 1] == _END).astype(np.intp)
            ends = np.add.reduceat(is_end, starts)
        sums = self._figures.sums_of(first, starts, last)
        own = sums[:2] if self.bottom_up else self._figures.heads(first + starts, ends)
        if self.bottom_up and depth:
            own = (np.zeros_like(own[0]), np.zeros_like(own[1]))
        columns = (calls[starts], *sums, *own, starts + first, sizes, ends)
        return tuple(
            Node(
                id=hash((node.id, call := self._calls[number])),
                call=call,
                depth=depth + 1,
                bytes=bytes_,
                count=count,
                own_bytes=own_bytes,
                own_count=own_count,
                growth=growth,
                first=start,
                stacks=size,
                ends=end,
            )
            for number, bytes_, count, growth, own_bytes, own_count, start, size, end in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )


_VALUES = {
    Order.TOTAL: lambda node: (node.bytes, node.count),
    Order.OWN: lambda node: (node.own_bytes, node.own_count),
    Order.COUNT: lambda node: (node.count, node.bytes),
    Order.GROWTH: lambda node: (node.growth, node.bytes),
}


class _Figures:
    # Of each stack, in the order of the rows.
    def __init__(self, ids: Sequence[int], stacks: Mapping[int, Stack]) -> None:
        self.ids = ids
        rows = [stacks[stack_id] for stack_id in ids]
        self.bytes = np.fromiter((each.bytes for each in rows), np.int64, len(rows))
        self._count = np.fromiter((each.count for each in rows), np.int64, len(rows))
        self._growth = np.fromiter((each.growth for each in rows), np.float64, len(rows))
        self._sum_bytes = np.concatenate(([0], np.cumsum(self.bytes)))
        self._sum_count = np.concatenate(([0], np.cumsum(self._count)))

    def sums(self) -> tuple[int, int, float]:
        return int(self._sum_bytes[-1]), int(self._sum_count[-1]), float(self._growth.sum())

    # Over the runs from each of ``starts``, counted from ``first``, to the next one or ``last``.
    def sums_of(
        self, first: int, starts: NDArray[np.intp], last: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        bounds = np.append(starts + first, last)
        growth = np.add.reduceat(self._growth[first:last], starts)
        return np.diff(self._sum_bytes[bounds]), np.diff(self._sum_count[bounds]), growth

    # Over the first ``lengths`` rows from each of ``starts``.
    def heads(
        self, starts: NDArray[np.intp], lengths: NDArray[np.intp]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ends = starts + lengths
        return (
            self._sum_bytes[ends] - self._sum_bytes[starts],
            self._sum_count[ends] - self._sum_count[starts],
        )


class TreeBuilder:
    """Builds one tree after another, and keeps of each what the next one will need again."""

    def __init__(self, *, bottom_up: bool = False, whole: bool = False) -> None:
        """``bottom_up``: from the function that matters outwards, its callers merged.

        ``whole``: with the allocators' own functions and their like below the one that matters.
        """
        self._bottom_up = bottom_up
        self._whole = whole
        self._numbers: dict[Call, int] = {}
        self._ways: dict[int, tuple[Stack, tuple[int, ...]]] = {}
        self._sorted: list[int] = []
        self._matrix: NDArray[np.int32] = np.zeros((0, 0), dtype=np.int32)

    def build(self, stacks: Iterable[Stack]) -> Tree:
        """Return the tree of these stacks."""
        by_id = {stack.stack_id: stack for stack in stacks}
        if len(self._numbers) > 2 * self._matrix.size + _SPARE_CALLS:
            self._numbers, self._ways = {}, {}  # most are of stacks that went
        if self._learn(by_id):
            self._sort()
        figures = _Figures(self._sorted, by_id)
        return Tree(self._matrix, list(self._numbers), figures, bottom_up=self._bottom_up)

    # Tells whether any way is new, another one, or gone.
    def _learn(self, stacks: Mapping[int, Stack]) -> bool:
        ways: dict[int, tuple[Stack, tuple[int, ...]]] = {}
        changed = len(stacks) != len(self._ways)
        for stack_id, stack in stacks.items():
            known = self._ways.get(stack_id)
            if known is not None and _same_way(known[0], stack):
                ways[stack_id] = known
            else:
                way = tuple(map(self._number, self._calls(stack)))
                changed = changed or known is None or known[1] != way
                ways[stack_id] = (stack, way)
        self._ways = ways
        return changed

    def _sort(self) -> None:
        ids = list(self._ways)
        ways = [way for _, way in self._ways.values()]
        lengths = np.fromiter(map(len, ways), np.intp, len(ways))
        matrix = np.full((len(ways), lengths.max(initial=0)), _END, dtype=np.int32)
        flat = np.fromiter((number for way in ways for number in way), np.int32, lengths.sum())
        matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = flat
        order = np.lexsort(matrix.T[::-1]) if matrix.size else np.arange(len(ways))
        self._matrix = matrix[order]
        self._sorted = [ids[i] for i in order.tolist()]

    def _number(self, call: Call) -> int:
        return self._numbers.setdefault(call, len(self._numbers))

    def _calls(self, stack: Stack) -> list[Call]:
        frames = stack.frames if self._whole else _that_matter(stack.frames)
        calls = [_call(frame) for frame in frames]
        if stack.cache:
            calls.insert(0, Call(Kind.CACHE, stack.cache))
        if not frames:
            calls.append(NO_STACK)
        elif stack.truncated:
            calls.append(CUT)
        if stack.process:
            calls.append(Call(Kind.PROCESS, stack.process))
        return calls if self._bottom_up else calls[::-1]


def _same_way(one: Stack, other: Stack) -> bool:
    return (
        one.frames is other.frames
        and one.truncated == other.truncated
        and one.process == other.process
        and one.cache == other.cache
    )


# From the function that matters outwards, with those inside it that nobody knows the names of.
def _that_matter(frames: Sequence[Frame]) -> Sequence[Frame]:
    matters = frame_that_matters(frames)
    for i, frame in enumerate(frames):
        if frame is matters or frame.symbol is None:
            return frames[i:]
    return frames


def _call(frame: Frame) -> Call:
    module = frame.module or ""
    if frame.symbol:
        return Call(Kind.FUNCTION, frame.symbol, module)
    return Call(Kind.ADDRESS, f"{frame.address:#x}", module)
