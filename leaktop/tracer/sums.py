"""The rows of a snapshot: what each stack holds, from the kernel's counters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from leaktop.model import LOSSES, Counters, Site
from leaktop.tracer.blocks import Held, held_by_stack
from leaktop.tracer.loader import Accounting, Loaded
from leaktop.tracer.stacks import Stack

_NS = 1e-9


class Book(Protocol):
    """The stacks seen so far, as StackBook keeps them."""

    @property
    def known(self) -> Mapping[int, Stack]:
        """Stacks by id."""
        ...

    def whole(self, stack_id: int) -> int:
        """Return the id under which a stack is shown."""
        ...


@dataclass(slots=True)
class _Sum:
    """What a stack did under one of its ids, or under all of them."""

    bytes: int
    count: int
    allocs: int
    frees: int
    oldest_ns: int
    oldest_exact: bool

    def add(self, other: "_Sum") -> None:
        if other.count > 0 and (self.count <= 0 or other.oldest_ns < self.oldest_ns):
            self.oldest_ns, self.oldest_exact = other.oldest_ns, other.oldest_exact
        self.bytes += other.bytes
        self.count += other.count
        self.allocs += other.allocs
        self.frees += other.frees


def sites_of(
    stacks: Book,
    counts: Mapping[int, Sequence[int]],
    held: Mapping[int, Held] | None,
    now_ns: int,
    pids: Mapping[int, int],
) -> tuple[Site, ...]:
    """Return a row for each stack that holds something.

    ``counts`` has the fields of ``struct stack_stats`` by stack id; ``held``, where only blocks of
    some age count, their sums. Times are CLOCK_MONOTONIC. ``pids``: of the processes, by slot.
    """
    sums: dict[int, _Sum] = {}
    for stack_id, (size, allocs, frees, oldest_ns, oldest_freed) in counts.items():
        one = _Sum(size, allocs - frees, allocs, frees, oldest_ns, not oldest_freed)
        if held is not None:
            old = held.get(stack_id, Held(0, 0, 0))
            one.bytes, one.count, one.oldest_ns, one.oldest_exact = (
                old.bytes,
                old.count,
                old.birth_ns,
                True,
            )
        whole = stacks.whole(stack_id)
        if whole in sums:
            sums[whole].add(one)
        else:
            sums[whole] = one
    known = stacks.known
    return tuple(
        Site(
            stack_id=stack_id,
            counters=Counters(each.bytes, each.count, each.allocs, each.frees),
            frames=known[stack_id].frames,
            oldest_s=max(0.0, (now_ns - each.oldest_ns) * _NS),
            oldest_exact=each.oldest_exact,
            truncated=known[stack_id].truncated,
            pid=pids.get(known[stack_id].slot),
            cache=known[stack_id].cache,
        )
        for stack_id, each in sums.items()
        # counters are read while the program runs: a block may be in one of them only
        if each.count > 0 and each.bytes >= 0 and stack_id in known
    )


def by_id(ids: Sequence[int], stats: np.ndarray[Any, Any]) -> dict[int, tuple[int, ...]]:
    """Return the fields of ``struct stack_stats`` by id of the stack, of those that have counted.

    A number that two threads raced for has never counted, and its id counts under another.
    """
    return {
        stack_id: each
        for stack_id, (*each, _, _) in zip(ids, stats.tolist(), strict=False)
        if each[1]
    }


def held_before(program: Accounting, ids: Sequence[int], born_before_ns: int) -> Mapping[int, Held]:
    """Sum up by id of the stack the blocks that were born by then; ``ids`` of stacks by number."""
    held: dict[int, Held] = {}
    for number, one in held_by_stack(program.live_blocks(), born_before_ns).items():
        if number < len(ids):
            held[ids[number]] = held[ids[number]].plus(one) if ids[number] in held else one
    return held


def totals_of(sites: Iterable[Site], counts: Iterable[Sequence[int]]) -> Counters:
    """Return what is held as the rows have it, and all that ever was."""
    held = [site.counters for site in sites]
    allocs, frees = 0, 0
    for _, each_allocs, each_frees, *_ in counts:
        allocs, frees = allocs + each_allocs, frees + each_frees
    return Counters(
        sum(each.bytes for each in held), sum(each.count for each in held), allocs, frees
    )


def losses_of(program: Loaded) -> dict[str, int]:
    """Return what the program has lost, by name."""
    lost = np.concatenate([chunk.copy() for chunk in program.losses.chunks()])
    return dict(zip(LOSSES, lost.tolist(), strict=True))
