"""Which processes are to be traced besides those given: all of a name, or all that come of one."""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from leaktop import procfs

_PROC = Path("/proc")
_COMM_BYTES = 15  # TASK_COMM_LEN less its end, include/linux/sched.h


class Finder(Protocol):
    """Looks for processes, once a tick."""

    @property
    def waits(self) -> bool:
        """Whether there may be more when all that are known have ended."""
        ...

    def find(self, known: Collection[int]) -> list[int]:
        """Return PIDs that are to be traced and are not among the known ones. Never raises."""
        ...


class Finders:
    """All that several finders find."""

    def __init__(self) -> None:
        self._finders: list[Finder] = []

    def add(self, finder: Finder) -> None:
        """Ask one more."""
        self._finders.append(finder)

    @property
    def waits(self) -> bool:
        """See Finder."""
        return any(finder.waits for finder in self._finders)

    def find(self, known: Collection[int]) -> list[int]:
        """See Finder."""
        return list(dict.fromkeys(pid for each in self._finders for pid in each.find(known)))


class Named:
    """All processes of a name: the kernel's (``comm``), or what their first argument ends with."""

    def __init__(self, name: str, proc: Path = _PROC) -> None:
        self._name = name
        self._proc = proc
        self._others: dict[int, int] = {}  # start time by PID, of those that are not it

    @property
    def waits(self) -> bool:
        """See Finder."""
        return True

    def find(self, known: Collection[int]) -> list[int]:
        """See Finder."""
        there = {int(path.name) for path in self._proc.iterdir() if path.name.isdecimal()}
        self._others = {pid: start for pid, start in self._others.items() if pid in there}
        return [pid for pid in sorted(there - set(known)) if self._is_it(pid)]

    def _is_it(self, pid: int) -> bool:
        with contextlib.suppress(OSError, ValueError):
            stat = procfs.parse_stat(os.fsdecode((self._proc / str(pid) / "stat").read_bytes()))
            if stat.kernel_thread or stat.state in ("Z", "X"):
                return False
            # looked at once; but a process may take another name when it runs another program
            seen = hash((stat.start_time, stat.start_stack, stat.comm))
            if self._others.get(pid) == seen:
                return False
            if stat.comm == self._name[:_COMM_BYTES] or self._called(pid) == self._name:
                return True
            self._others[pid] = seen
        return False

    def _called(self, pid: int) -> str:
        arguments = (self._proc / str(pid) / "cmdline").read_bytes()
        return Path(os.fsdecode(arguments.split(b"\0", 1)[0])).name


class Offspring:
    """The children of known processes, and theirs."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc

    @property
    def waits(self) -> bool:
        """See Finder."""
        return False

    def find(self, known: Collection[int]) -> list[int]:
        """See Finder."""
        found: list[int] = []
        left = list(known)
        while left:
            for pid in self._children(left.pop()):
                if pid not in known and pid not in found:
                    found.append(pid)
                    left.append(pid)
        return found

    def _children(self, pid: int) -> list[int]:
        # of each thread: proc_pid_children(5)
        children: list[int] = []
        for path in (self._proc / str(pid) / "task").glob("*/children"):
            with contextlib.suppress(OSError, ValueError):
                children += map(int, path.read_text().split())
        return children
