"""The rows of a snapshot: what each stack holds, from the kernel's counters."""

from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import Any, Protocol

import numpy as np

from leaktop.model import LOSSES, Counters, Site
from leaktop.tracer.blocks import Held, held_by_stack
from leaktop.tracer.lifetimes import NONE_FREED
from leaktop.tracer.loader import Accounting, Loaded
from leaktop.tracer.stacks import Stack

_NS = 1e-9
_NOTHING = Held(0, 0, 0)
_COUNTED = ("bytes", "allocs", "frees", "oldest_ns", "oldest_freed", "alloc_bytes")


class Book(Protocol):
    """The stacks seen so far, as StackBook keeps them."""

    @property
    def known(self) -> Mapping[int, Stack]:
        """Stacks by id."""
        ...

    def whole(self, stack_id: int) -> int:
        """Return the id under which a stack is shown."""
        ...


_Row = tuple[int, int, int, int, int, int, int, tuple[int, ...]]
"""What a stack did under one of its ids, or under all of them: bytes, blocks, allocations, frees,
birth of the oldest block, whether that is only a bound, bytes allocated so far, and lifetimes. A
tuple, each tick has thousands."""


def _plus(one: _Row, other: _Row) -> _Row:
    size, count, allocs, frees, oldest_ns, oldest_freed, allocated, lifetimes = one
    more_size, more_count, more_allocs, more_frees, birth_ns, freed, more, more_lifetimes = other
    if more_count > 0 and (count <= 0 or birth_ns < oldest_ns):
        oldest_ns, oldest_freed = birth_ns, freed
    sums = size + more_size, count + more_count, allocs + more_allocs, frees + more_frees
    bands = tuple(map(add, lifetimes, more_lifetimes))
    return *sums, oldest_ns, oldest_freed, allocated + more, bands


def sites_of(
    stacks: Book,
    counts: Mapping[int, Sequence[int]],
    held: Mapping[int, Held] | None,
    now_ns: int,
    pids: Mapping[int, int],
    *,
    lifetimes: Mapping[int, tuple[int, ...]],
) -> tuple[Site, ...]:
    """Return a row for each stack that holds something.

    ``counts`` has the fields of ``struct stack_stats`` by stack id; ``held``, where only blocks of
    some age count, their sums. Times are CLOCK_MONOTONIC. ``pids``: of the processes, by slot.
    ``lifetimes``: of blocks of those that have freed any, by stack id.
    """
    sums: dict[int, _Row] = {}
    for stack_id, (size, allocs, frees, oldest_ns, oldest_freed, allocated) in counts.items():
        bands = lifetimes.get(stack_id, NONE_FREED)
        row = size, allocs - frees, allocs, frees, oldest_ns, oldest_freed, allocated, bands
        if held is not None:
            old = held.get(stack_id, _NOTHING)
            row = old.bytes, old.count, allocs, frees, old.birth_ns, 0, allocated, bands
        whole = stacks.whole(stack_id)
        sums[whole] = _plus(sums[whole], row) if whole in sums else row
    known = stacks.known
    return tuple(
        Site(
            stack_id=stack_id,
            counters=Counters(size, count, allocs, frees, alloc_bytes=allocated),
            frames=stack.frames,
            oldest_s=max(0.0, (now_ns - oldest_ns) * _NS),
            oldest_exact=not oldest_freed,
            truncated=stack.truncated,
            pid=pids.get(stack.slot),
            cache=stack.cache,
            lifetimes=bands,
        )
        for stack_id, (
            *(size, count, allocs, frees, oldest_ns, oldest_freed, allocated, bands),
        ) in sums.items()
        # counters are read while the program runs: a block may be in one of them only
        if count > 0 and size >= 0 and (stack := known.get(stack_id)) is not None
    )


def by_id(ids: Sequence[int], stats: np.ndarray[Any, Any]) -> dict[int, tuple[int, ...]]:
    """Return the fields of ``struct stack_stats`` by id of the stack, of those that have counted.

    A number that two threads raced for has never counted, and its id counts under another.
    """
    numbers = np.flatnonzero(stats["allocs"][: len(ids)])
    # by column: one list for each field, not an object for each entry
    columns = (stats[field][numbers].tolist() for field in _COUNTED)
    return dict(
        zip((ids[number] for number in numbers.tolist()), zip(*columns, strict=True), strict=True)
    )


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
    allocs, frees, allocated = 0, 0, 0
    for _, each_allocs, each_frees, *_, each_allocated in counts:
        allocs, frees = allocs + each_allocs, frees + each_frees
        allocated += each_allocated
    return Counters(
        *(sum(each.bytes for each in held), sum(each.count for each in held), allocs, frees),
        alloc_bytes=allocated,
    )


def losses_of(program: Loaded) -> dict[str, int]:
    """Return what the program has lost, by name."""
    lost = np.concatenate([chunk.copy() for chunk in program.losses.chunks()])
    return dict(zip(LOSSES, lost.tolist(), strict=True))
