"""What exact tracing would cost a process, measured before anything of it is traced.

Calls of its allocator are counted for a second at most, by probes on entries alone, and multiplied
by what a traced call costs on this host, which is measured in leaktop's own process.
"""

import ctypes as ct
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from leaktop.candidates import Estimate
from leaktop.tracer import TracerError
from leaktop.tracer.allocators import find_allocators, require_allocator
from leaktop.tracer.arch import Architecture, this_machine
from leaktop.tracer.call_counter import CallCounter
from leaktop.tracer.privilege import check_privileges
from leaktop.tracer.probes import Choice, Probe, Traced, probes_for
from leaktop.tracer.process import NO_TARGET
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.ways import Way, best_way

MEASURE_S = 1.0
"""How long calls are counted at most."""
_CLEAR_CALLS, _CLEAR_S = 10_000, 0.05
"""So many calls in so short a time are enough to tell."""
_LOOK_S = 0.01

_OWN_SHARE = 1.2
"""What a call costs with leaktop's programs, by what it costs with one that only counts: measured
were 1.0 to 1.6 (docs/performance.md, a pair by empty probes), 1.1 for a loop of malloc and free."""
_ROUNDS, _PAIRS = 7, 300
_BLOCK_BYTES = 64
_LEAST_OWN = 0.2
"""Share of the processor time measured that is the process's own at the least: of one that hardly
does anything but allocate, counting takes more than can be told apart from the rest."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of processor time."""

    pair_s: float
    """What exact tracing adds to a malloc and its free."""
    entry_s: float
    """What counting adds to a call."""


def estimate_slowdown(pid: int, choice: Choice, stop: threading.Event) -> Estimate:
    """Return what exact tracing would cost a process; takes a second at most, less if ``stop``.

    Raises TracerError where that cannot be told: nothing to trace, no privilege, probes refused.
    """
    check_privileges()
    arch = _arch()
    process = TargetProcess(pid)
    try:
        process.refresh()
        found = find_allocators(process, choice, (), lambda step: None)
        require_allocator(process, choice, found)
        costs = costs_here()
        with CallCounter(arch, _way_of_entries()) as counter:
            for allocator in found:
                file = allocator.module.fileno()
                probes = _entries(each for each in allocator.functions if each.function.allocates)
                if file is not None and probes:
                    counter.attach(file, pid, probes)
            return estimate_of(*_counted(process, counter, stop), costs)
    finally:
        process.close()


@lru_cache(maxsize=1)
def costs_here() -> Costs:
    """Return what a call costs on this host; measured once, in some milliseconds.

    Raises TracerError where it cannot be measured.
    """
    own = TargetProcess(os.getpid())
    try:
        own.refresh()
        for allocator in find_allocators(own, Choice(), (), lambda step: None):
            named = {each.function.name: each for each in allocator.functions}
            file = allocator.module.fileno()
            if {"malloc", "free"} <= named.keys() and file is not None:
                return _measured(_arch(), own.pid, file, [named["malloc"], named["free"]])
    finally:
        own.close()
    raise TracerError("what a probe costs cannot be measured: leaktop itself has no malloc")


def estimate_of(calls: int, wall_s: float, busy_s: float, costs: Costs) -> Estimate:
    """Return the estimate for so many calls counted in so long, of which ``busy_s`` on processors.

    What counting took of that is not the process's own.
    """
    own_s = max(busy_s - calls * costs.entry_s, busy_s * _LEAST_OWN)
    return Estimate(calls_per_s=calls / wall_s, call_cost_s=costs.pair_s, busy=own_s / wall_s)


def _counted(
    process: TargetProcess, counter: CallCounter, stop: threading.Event
) -> tuple[int, float, float]:
    # calls, seconds, seconds of processor time
    first, began, busy = counter.read(), time.monotonic(), _processor_time(process)
    while True:
        stopped = stop.wait(_LOOK_S)
        calls, wall_s = counter.read() - first, time.monotonic() - began
        clear = calls >= _CLEAR_CALLS and wall_s >= _CLEAR_S
        if stopped or clear or wall_s >= MEASURE_S:
            return calls, wall_s, _processor_time(process) - busy


def _processor_time(process: TargetProcess) -> float:
    seconds = process.processor_time()
    if seconds is None:
        raise TracerError(f"process {process.pid} has exited", NO_TARGET)
    return seconds


def _measured(arch: Architecture, pid: int, file: int, pair: list[Traced]) -> Costs:
    plain = _seconds_a_pair()

    def added(way: Way, probes: list[Probe], runs: int) -> float:
        with CallCounter(arch, way) as counter:
            counter.attach(file, pid, probes)
            seconds = _seconds_a_pair() - plain
            if counter.read() < runs * _ROUNDS * _PAIRS:
                raise TracerError("what a probe costs cannot be measured: calls were not seen")
        return max(seconds, 0.0)

    entry_s = added(_way_of_entries(), _entries(pair[:1]), 1)
    return Costs(added(best_way(), list(probes_for(pair)), 3) * _OWN_SHARE, entry_s)


def _seconds_a_pair() -> float:
    # of this thread's processor time; the fastest round, which nothing disturbed
    libc = ct.CDLL(None)
    malloc, free = libc.malloc, libc.free
    malloc.restype, malloc.argtypes = ct.c_void_p, [ct.c_size_t]
    free.restype, free.argtypes = None, [ct.c_void_p]
    best = float("inf")
    for _ in range(_ROUNDS):
        begin = time.thread_time()
        for _ in range(_PAIRS):
            free(malloc(_BLOCK_BYTES))
        best = min(best, time.thread_time() - begin)
    return best / _PAIRS


def _entries(functions: Iterable[Traced]) -> list[Probe]:
    return [
        Probe(each.function, each.site.offset, at_exit=False, pushed=each.site.pushed)
        for each in functions
    ]


def _way_of_entries() -> Way:
    # a session would want a return probe for each
    way = best_way()
    return Way.MULTI if way is Way.SESSION else way


def _arch() -> Architecture:
    arch = this_machine()
    if arch is None:
        raise TracerError("leaktop runs on x86-64 only, so far", exit_code=3)
    return arch
