"""What can be said of a snapshot: order and text filter. Pure; one tick costs O(stacks)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter

from leaktop.candidates import Estimate, Process, ProcessSort
from leaktop.marks import Mark
from leaktop.model import Frame, Site, Snapshot, SortKey, Target, Verdict
from leaktop.plumbing import frame_that_matters, is_plumbing

__all__ = [
    "Rates",
    "Reading",
    "cost_between",
    "frame_that_matters",
    "haystack",
    "is_plumbing",
    "matches",
    "ordered",
    "ordered_processes",
    "process_text",
    "rises",
    "text_filter",
]

_HAYSTACK_LIMIT = 64 * 1024
_SAMPLED_COST = 0.6
"""Of a call that sampling leaves out, by one that is kept (docs/performance.md)."""
_LEAST_OWN = 0.2


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast it went since the tick before, a second."""

    allocs_per_s: float
    frees_per_s: float
    bytes_per_s: float
    """Change of the outstanding bytes, negative when they shrink."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot and what the ones before it add to it."""

    snapshot: Snapshot
    rates: Rates
    growth: Mapping[int, float]
    """Bytes a second, by stack id, for each stack of the snapshot."""
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)
    """By stack id; empty where leaks are not judged."""
    suspicion: Mapping[int, float] = field(default_factory=dict)
    """The verdicts' scores alone, which cost less to have of thousands."""


def cost_between(before: Snapshot, now: Snapshot, call_cost_s: float) -> Estimate | None:
    """Return what exact tracing cost a process between two snapshots; None where it cannot be told.

    ``call_cost_s``: processor time that tracing adds to a call that is kept. What it took is not
    the process's own, of which a fifth at the least is left, as it cannot be told more exactly.
    """
    passed = now.elapsed_s - before.elapsed_s
    if before.target.busy_s is None or now.target.busy_s is None or passed <= 0:
        return None
    if now.filters.sample_rate > 1:
        call_cost_s *= _SAMPLED_COST
    calls_per_s = (now.totals.allocs - before.totals.allocs) / passed
    busy = (now.target.busy_s - before.target.busy_s) / passed
    own = max(busy - calls_per_s * call_cost_s, busy * _LEAST_OWN)
    return Estimate(calls_per_s, call_cost_s, own)


def ordered(
    reading: Reading, key: SortKey, *, reverse: bool = False, mark: Mark | None = None
) -> list[Site]:
    """Return the sites by ``key``, largest first unless ``reverse``.

    Bytes and blocks are those since ``mark`` where there is one.
    Equal ones come by stack id, so that rows do not dance; unknown ages come last either way.
    """
    last = float("inf") if reverse else float("-inf")
    value: Callable[[Site], float]
    match key:
        case SortKey.BYTES:
            value = mark.bytes_since if mark else _bytes
        case SortKey.COUNT:
            value = mark.count_since if mark else _count
        case SortKey.GROWTH:
            growth = reading.growth

            def value(site: Site) -> float:
                return growth.get(site.stack_id, 0.0)

        case SortKey.SUSPECT:
            suspicion = reading.suspicion

            def value(site: Site) -> float:
                return suspicion.get(site.stack_id, 0.0)

        case SortKey.AGE:

            def value(site: Site) -> float:
                return last if site.oldest_s is None else site.oldest_s

    by_id = sorted(reading.snapshot.sites, key=_stack_id)
    return sorted(by_id, key=value, reverse=not reverse)


_stack_id = attrgetter("stack_id")
_bytes = attrgetter("counters.bytes")
_count = attrgetter("counters.count")


def haystack(
    frames: Sequence[Frame], process: Target | None = None, cache: str | None = None
) -> str:
    """Return the text that a filter searches: each name, module and place, one a line.

    Of one of several processes first its name and PID; of a slab cache its name.
    """
    lines = [f"{process.comm} {process.pid}"] if process is not None else []
    lines += [cache] if cache else []
    for frame in frames:
        lines.append(frame.symbol or hex(frame.address))
        if frame.module:
            lines.append(frame.module)
        if frame.file:
            lines.append(f"{frame.file}:{frame.line}" if frame.line else frame.file)
    return "\n".join(lines)[:_HAYSTACK_LIMIT]


@lru_cache(maxsize=32)
def text_filter(pattern: str) -> Callable[[str], bool]:
    """Return the test of a haystack that ``pattern`` stands for.

    A regular expression, or plain text where it is none; ``!`` in front inverts; upper and lower
    case are alike unless the pattern has an upper-case letter. An empty pattern keeps all.
    """
    inverted = pattern.startswith("!")
    body = pattern[1:] if inverted else pattern
    if not body:
        return lambda _: True
    flags = re.MULTILINE
    # A letter after a backslash is a class, as in \W, and says nothing about case.
    if not any(c.isupper() for c in re.sub(r"\\.", "", body)):
        flags |= re.IGNORECASE
    try:
        search = re.compile(body, flags).search
    except (re.error, RecursionError, OverflowError):
        search = re.compile(re.escape(body), flags).search
    if inverted:
        return lambda text: search(text) is None
    return lambda text: search(text) is not None


def matches(frames: Sequence[Frame], pattern: str) -> bool:
    """Tell whether any frame's name, module or place passes ``text_filter(pattern)``."""
    return text_filter(pattern)(haystack(frames))


_OF_PROCESS: Mapping[ProcessSort, Callable[[Process], float | str]] = {
    ProcessSort.PID: lambda process: process.pid,
    ProcessSort.USER: lambda process: process.user,
    ProcessSort.RSS: lambda process: process.rss,
    ProcessSort.GROWTH: lambda process: process.growth or 0.0,
    ProcessSort.THREADS: lambda process: process.threads,
    ProcessSort.AGE: lambda process: process.age_s,
    ProcessSort.COMMAND: lambda process: process.command or process.comm,
}
_RISING = {ProcessSort.PID, ProcessSort.USER, ProcessSort.COMMAND}


def rises(key: ProcessSort, *, reverse: bool) -> bool:
    """Tell whether the list begins with the least: so for numbers and names of processes."""
    return (key in _RISING) is not reverse


def ordered_processes(
    processes: Sequence[Process], key: ProcessSort, *, reverse: bool = False
) -> list[Process]:
    """Return the processes by ``key``, in the order that is usual for it unless ``reverse``.

    Equal ones come by size where growth is asked for, and then by PID, so that rows do not dance.
    """
    found = sorted(processes, key=lambda process: process.pid)
    if key is ProcessSort.GROWTH:
        found.sort(key=lambda process: process.rss, reverse=True)
    found.sort(key=_OF_PROCESS[key], reverse=not rises(key, reverse=reverse))
    return found


def process_text(process: Process) -> str:
    """Return the text that a filter searches: number, user, name and command line, one a line."""
    command = process.folder + process.command
    return f"{process.pid}\n{process.user}\n{process.comm}\n{command}"
