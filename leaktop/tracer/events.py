"""The log of single allocations and frees, which the BPF program writes for chosen stacks."""

import time
from collections.abc import Callable, Mapping, Sequence
from mmap import PAGESIZE

import numpy as np

from leaktop.single_blocks import EVENTS_MAX, Event, EventKind
from leaktop.tracer import layout
from leaktop.tracer.loader import Program
from leaktop.tracer.objects import EVENTS_PAGES
from leaktop.tracer.stacks import StackBook

_KINDS = tuple(EventKind)


class EventLog:
    """Says which stacks are logged, and reads what they did. For the thread that reads snapshots.

    A stack is logged where its counters say so, which the program has at hand anyway: the others
    cost no more than that one test.
    """

    def __init__(self, program: Program, stacks: StackBook, stacks_max: int) -> None:
        """``stacks_max``: how many numbers there are for stacks."""
        self._program = program
        self._stacks = stacks
        self._stacks_max = stacks_max
        self._chosen: int | None = None
        self._pids: dict[int, int] = {}

    def choose_all(self) -> None:
        """Log every stack, also those that have no number yet."""
        for stats in self._program.stack_stats.writable_chunks():
            stats["log"] = 1

    def choose(self, stack_id: int | None) -> None:
        """Log one stack and no other, or none; what was logged of others is dropped."""
        self._chosen = stack_id
        # first, so that the kernel side flags no number of the one before any more
        self._program.logged_stack.update(0, stack_id or 0)
        stats = self._program.stack_stats
        for number in np.flatnonzero(stats.entries["log"][: self._used() + 1]).tolist():
            stats.set(number, "log", 0)
        self._flag_chosen()
        for _ in self._program.events(EVENTS_PAGES * PAGESIZE // layout.EVENT.itemsize):
            pass

    def read(self, pids: Mapping[int, int]) -> Sequence[Event]:
        """Take the oldest events, ``EVENTS_MAX`` at most. ``pids``: by slot."""
        self._pids.update(pids)
        records = b"".join(self._program.events(EVENTS_MAX))
        used = self._used()
        if used >= len(self._stacks.ids):
            self._stacks.learn(used)
        self._flag_chosen()
        return events_of(records, self._stack_id, self._pids)

    def _used(self) -> int:
        return min(int(self._program.stack_count.entries[0]), self._stacks_max)

    def _flag_chosen(self) -> None:
        # again and again, since a stack that was cut counts under numbers of other ids
        if self._chosen is None:
            return
        stats = self._program.stack_stats
        for number in self._stacks.numbers(self._chosen):
            if not stats.entries["log"][number]:
                stats.set(number, "log", 1)

    def _stack_id(self, number: int) -> int | None:
        ids = self._stacks.ids
        return self._stacks.whole(ids[number]) if number < len(ids) else None


def events_of(
    records: bytes, stack_id: Callable[[int], int | None], pids: Mapping[int, int]
) -> list[Event]:
    """Return the events of a row of ``struct event``.

    ``stack_id``: of a number; ``pids``: by slot.
    """
    clock_ns = time.time_ns() - time.monotonic_ns()
    events = []
    for at_ns, key, size, thread, stack, weight, kind in np.frombuffer(
        records, layout.EVENT
    ).tolist():
        slot, address = layout.slot_and_address(key)
        events.append(
            Event(
                time_ns=at_ns + clock_ns,
                kind=_KINDS[kind],
                address=address,
                size=size,
                pid=pids.get(slot),
                thread=thread,
                stack_id=stack_id(stack),
                weight=weight,
            )
        )
    return events
