"""The rows of a snapshot: what each stack holds, from the kernel's counters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leaktop.model import Counters, Site
from leaktop.tracer.blocks import Held
from leaktop.tracer.stacks import StackBook

_NS = 1e-9


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
    stacks: StackBook,
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
        )
        for stack_id, each in sums.items()
        # counters are read while the program runs: a block may be in one of them only
        if each.count > 0 and each.bytes >= 0 and stack_id in known
    )
