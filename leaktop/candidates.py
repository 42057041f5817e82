"""The processes that may be picked, and what tracing one would cost, as frozen values."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SLOWED_MUCH = 0.10
"""Slow-down from which on a process is better watched by growth mode first."""
_BUSY_LEAST = 0.01


@dataclass(frozen=True, slots=True)
class Estimate:
    """What exact tracing costs a process, as estimated before it begins."""

    calls_per_s: float
    """Calls of its allocator."""
    call_cost_s: float
    """Processor time that tracing adds to a call and to the free of what it returns."""
    busy: float
    """Processors that it keeps busy untraced."""

    @property
    def added(self) -> float:
        """Processor seconds a second that tracing adds."""
        return self.calls_per_s * self.call_cost_s

    @property
    def slowdown(self) -> float:
        """What is added, as a share of the processor time that the process takes."""
        return self.added / self.busy if self.busy > 0 else 0.0

    @property
    def much(self) -> bool:
        """Whether it is more than a busy service should be asked to bear.

        One that takes next to no processor time is slowed by nothing that anybody notices.
        """
        return self.slowdown > SLOWED_MUCH and self.added > _BUSY_LEAST


@dataclass(frozen=True, slots=True)
class Process:
    """A process that may be picked, as it was when it was last looked at."""

    pid: int
    start_time: int
    """Clock ticks since boot; with the PID it names one process for ever."""
    comm: str
    rss: int
    """Resident bytes."""
    threads: int = 1
    user: str = ""
    """Name of the user as whom it acts, or the number; empty where that is not known yet."""
    command: str = ""
    """The command line without ``folder``; empty where there is none, or it is not known yet."""
    folder: str = ""
    """Where its program is, with a slash at the end."""
    age_s: float = 0.0
    growth: float | None = None
    """Bytes a minute over ``span_s``; None until it was looked at twice."""
    span_s: float = 0.0
    """Seconds that ``trend`` covers."""
    trend: Sequence[int] = ()
    """Resident bytes, oldest first."""

    @property
    def key(self) -> tuple[int, int]:
        """What no other process has or will have."""
        return self.pid, self.start_time


@dataclass(frozen=True, slots=True)
class Processes:
    """Every process that may be picked, in no order."""

    processes: Sequence[Process] = ()
    memory_total: int = 0
    """Bytes of memory of the machine; 0 where that is not known."""
    memory_available: int = 0


class ProcessSort(StrEnum):
    """What the list of processes is sorted by, in the order of its columns."""

    PID = "pid"
    USER = "user"
    RSS = "rss"
    THREADS = "threads"
    AGE = "age"
    GROWTH = "growth"
    COMMAND = "command"
