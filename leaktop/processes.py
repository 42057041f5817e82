"""The processes of this machine and how their memory grows, read from /proc.

Each reading costs one file a process, ``stat``, and one more or two for those that are new or may
have changed; kernel threads are left alone. It takes ``READ_S`` at most: what is not reached then
keeps its figures and comes first in the next one. Formats: proc(5).
"""

import os
import pwd
import queue
import threading
import time
from array import array
from collections.abc import Callable
from operator import mul
from pathlib import Path

from leaktop import procfs
from leaktop.candidates import Process, Processes

READ_S = 0.07
"""Seconds that one reading may take."""
WINDOW_S = 60.0
"""Growth and trend are those of the last so many seconds."""

_MEASURING = 0.75  # of that time; the rest is for command lines and users, which else never came
_POINTS = 64  # in a window, at one reading a second and a few that were asked for
_COMMAND_MAX = 4096  # bytes of a command line that are read; Java's class comes late in it
_ROUNDS = 16  # so many readings go by until what seldom changes is read again
_TICKS_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessSampler:
    """Reads the processes of a /proc; everything but this process and kernel threads.

    ``clock`` tells seconds since boot, as start times count. One thread at a time may use it.
    """

    def __init__(
        self,
        root: Path = Path("/proc"),
        *,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        user_name: Callable[[int], str] | None = None,
    ) -> None:
        self._root = str(root)
        self._clock = clock
        self._user_name = user_name or UserNames().name
        self._own_pid = os.getpid()
        self._known: dict[int, _Known] = {}
        self._kernel: set[int] = set()
        self._unread: list[int] = []
        self._unnamed: list[_Known] = []
        self._round = 0

    def read(self) -> Processes:
        """Read what there is now; never raises, since any process may end at any time."""
        begin = time.perf_counter()
        if not self._unread:
            self._list()
        while self._unread and time.perf_counter() - begin < READ_S * _MEASURING:
            self._measure(self._unread.pop())
        # new ones first, and the largest, which are the ones in sight
        self._unnamed.sort(key=lambda known: (not known.named, known.stat.resident))
        while self._unnamed and time.perf_counter() - begin < READ_S:
            self._describe(self._unnamed.pop())
        memory = procfs.parse_meminfo(self._text("meminfo") or "")
        return Processes(
            processes=[self._process(known) for known in self._known.values()],
            memory_total=memory.get("MemTotal", 0),
            memory_available=memory.get("MemAvailable", 0),
        )

    def _list(self) -> None:
        self._round += 1
        if self._round % _ROUNDS == 0:
            self._kernel.clear()  # a number may have passed on to a process
        try:
            names = os.listdir(self._root)  # noqa: PTH208  (names are all that is wanted)
        except OSError:
            names = []
        pids = {int(name) for name in names if name.isascii() and name.isdecimal()}
        for pid in self._known.keys() - pids:
            del self._known[pid]
        self._kernel &= pids
        self._unread = sorted(pids - self._kernel - {self._own_pid}, reverse=True)
        self._unnamed = [each for each in self._unnamed if self._known.get(each.pid) is each]

    def _measure(self, pid: int) -> None:
        known = self._known.get(pid)
        try:
            stat = procfs.parse_stat(self._text(f"{pid}/stat") or "")
        except ValueError:
            self._known.pop(pid, None)
            return
        if stat.kernel_thread:
            self._kernel.add(pid)
        if stat.kernel_thread or stat.state in "ZX":  # nothing is left of the dead to trace
            self._known.pop(pid, None)
            return
        if known is None or known.stat.start_time != stat.start_time:
            known = self._known[pid] = _Known(pid, stat)
            self._unnamed.append(known)
        elif known.stat.comm != stat.comm or (pid + self._round) % _ROUNDS == 0:
            self._unnamed.append(known)
        known.add(stat, self._clock())

    def _describe(self, known: "_Known") -> None:
        known.named = True
        known.folder, known.command = procfs.parse_command(self._text(f"{known.pid}/cmdline") or "")
        try:
            known.uid = procfs.parse_effective_uid(self._text(f"{known.pid}/status") or "")
        except ValueError:
            known.uid = None

    def _process(self, known: "_Known") -> Process:
        stat = known.stat
        return Process(
            pid=known.pid,
            start_time=stat.start_time,
            comm=stat.comm,
            rss=stat.resident * _PAGE,
            threads=stat.threads,
            user="" if known.uid is None else self._user_name(known.uid),
            command=known.command,
            folder=known.folder,
            age_s=max(0.0, known.times[-1] - stat.start_time / _TICKS_S),
            growth=known.growth,
            span_s=known.times[-1] - known.times[0],
            trend=known.sizes[:],
        )

    # None where it is gone, or not for us to read.
    def _text(self, name: str) -> str | None:
        try:
            descriptor = os.open(f"{self._root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.fsdecode(os.read(descriptor, _COMMAND_MAX))
            finally:
                os.close(descriptor)
        except OSError:
            return None


class _Known:
    """One process: what it is, and what it held over the window."""

    __slots__ = ("command", "folder", "growth", "named", "pid", "sizes", "stat", "times", "uid")

    def __init__(self, pid: int, stat: procfs.Stat) -> None:
        self.pid = pid
        self.stat = stat
        self.named = False
        self.uid: int | None = None
        self.folder = self.command = ""
        self.times = array("d")  # two numbers a second for each process of the machine
        self.sizes = array("q")
        self.growth: float | None = None

    def add(self, stat: procfs.Stat, now: float) -> None:
        self.stat = stat
        self.times.append(now)
        self.sizes.append(stat.resident * _PAGE)
        passed = max(0, len(self.times) - _POINTS)
        while self.times[passed] < now - WINDOW_S:
            passed += 1
        if passed:
            del self.times[:passed], self.sizes[:passed]
        self.growth = growth_a_minute(self.times, self.sizes)


def growth_a_minute(times: "array[float]", sizes: "array[int]") -> float | None:
    """Return the slope in bytes a minute of the line that fits ``sizes`` best, by least squares.

    None where there are no two moments, which is where nothing can be said.
    """
    if len(times) < 2 or times[0] == times[-1]:  # noqa: PLR2004
        return None
    if min(sizes) == max(sizes):
        return 0.0
    middle = sum(times) / len(times)
    offsets = [moment - middle for moment in times]
    slope: float = sum(map(mul, offsets, sizes)) / sum(map(mul, offsets, offsets))
    return 60.0 * slope


class UserNames:
    """Names of users, asked for by a thread of its own: a directory service may take its time."""

    def __init__(
        self, look_up: Callable[[int], str] = lambda uid: pwd.getpwuid(uid).pw_name
    ) -> None:
        self._look_up = look_up
        self._names: dict[int, str] = {}
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def name(self, uid: int) -> str:
        """Return the name where it is known by now, else the number; returns at once."""
        if uid not in self._names:
            self._names[uid] = str(uid)
            self._asked.put(uid)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._answer, name="leaktop-users", daemon=True
                )
                self._thread.start()
        return self._names[uid]

    def _answer(self) -> None:
        while True:
            uid = self._asked.get()
            try:
                self._names[uid] = self._look_up(uid)
            except (KeyError, OSError):
                continue  # it has none


def look_at(pid: int, root: Path = Path("/proc")) -> Process | None:
    """Return a process as it is now; None where there is none."""
    stat = _stat(pid, root)
    if stat is None:
        return None
    return Process(pid, stat.start_time, stat.comm, stat.resident * _PAGE, stat.threads)


def is_still_there(process: Process, root: Path = Path("/proc")) -> bool:
    """Tell whether the process runs, rather than another one that was given its number."""
    stat = _stat(process.pid, root)
    return stat is not None and stat.start_time == process.start_time


def _stat(pid: int, root: Path) -> procfs.Stat | None:
    try:
        return procfs.parse_stat(os.fsdecode((root / str(pid) / "stat").read_bytes()))
    except (OSError, ValueError):
        return None
