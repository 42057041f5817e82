"""Names of code that a runtime made up while it ran, as it lists them in /tmp/perf-PID.map.

Format: tools/perf/Documentation/jit-interface.txt in Linux; lines ``START SIZE name``, numbers in
hexadecimal. Written by ``node --perf-basic-prof``, by Java's perf-map-agent or ``jcmd PID
Compiler.perfmap``, and by ``python -X perf``; ``leaktop.jitnames`` says what the names mean.
"""

import os
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leaktop import jitnames
from leaktop.procfs import parse_stat, parse_status
from leaktop.root import RefusedError, Root
from leaktop.symtab import MAX_NAME

_MAX_FILE = 64 << 20
_MAX_ENTRIES = 1_000_000
_MAX_LINE = 8192
_MAX_WALK = 64  # entries that begin before an address and are tried for it
_SEAM = 64  # bytes that must still be there for a file to have only grown
_TOP = 2**63
_LONG_S, _REST = 0.05, 10  # a read that took long is not repeated for so many times as long
_CLOCK_S = 2.0  # by how much the clocks of files and of processes may differ


@dataclass(frozen=True, slots=True)
class JitSymbol:
    """A function of a runtime."""

    name: str
    start: int
    """Address in the target's memory."""
    module: str
    """A pseudo name, by the runtime where it is known: ``[python]``, ``[js]``, … or ``[jit]``."""
    file: str | None = None
    line: int | None = None


class PerfMap:
    """The perf map of one process, read when it is first needed, and again where it has grown.

    Believed only where it is a regular file of the target's user or of root and was written since
    the process started: an old one may be of another process with the same PID. For one thread at
    a time.
    """

    def __init__(self, root: Root, path: str, owners: frozenset[int], written_since: float) -> None:
        """``path`` is as the target sees it; ``written_since`` seconds since the epoch."""
        self.path = path
        self.problem: str | None = None
        """Why there are no names though there is a file."""
        self._root = root
        self._owners = owners
        self._since = written_since
        self._state: tuple[int, ...] = ()  # of the file that was read
        self._rest_until = 0.0
        self._clear()

    @classmethod
    def of_process(cls, pid: int, root: Root | None = None) -> "PerfMap | None":
        """Return the map of a running process, None where the process cannot be looked at.

        Its name has the PID as the target itself knows it, in the innermost PID namespace.
        """
        proc = Path("/proc") / str(pid)
        try:
            status = parse_status(os.fsdecode((proc / "status").read_bytes()))
            stat = parse_stat(os.fsdecode((proc / "stat").read_bytes()))
            inner = int(status.get("NSpid", str(pid)).split()[-1])
            owners = frozenset([0, *map(int, status["Uid"].split())])
            root = root or Root.of(pid)
        except (OSError, ValueError, LookupError):
            return None
        up = time.clock_gettime(time.CLOCK_BOOTTIME)
        started = time.time() - up + stat.start_time / os.sysconf("SC_CLK_TCK")
        return cls(root, f"/tmp/perf-{inner}.map", owners, started - _CLOCK_S)  # noqa: S108

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, address: int) -> JitSymbol | None:
        """Return the function that holds an address: where entries overlap, the last written."""
        if not 0 <= address < _TOP:
            return None
        index = self._index(address)
        now = time.monotonic()
        if index is None and now >= self._rest_until:
            self._read()
            index = self._index(address)
            took = time.monotonic() - now
            if took > _LONG_S:
                self._rest_until = now + _REST * took
        return None if index is None else self._symbol(index)

    def _clear(self) -> None:
        self._text = bytearray()
        self._parsed = 0  # bytes of the text that are whole lines
        self._starts, self._ends = array("Q"), array("Q")
        self._names = array("I")  # where in the text each is
        self._sort()

    def _sort(self) -> None:
        starts = np.frombuffer(self._starts, np.uint64) if self._starts else np.empty(0, np.uint64)
        self._order = np.argsort(starts, kind="stable").astype(np.uint32)
        self._sorted = starts[self._order]

    def _index(self, address: int) -> int | None:
        last = int(np.searchsorted(self._sorted, np.uint64(address), side="right"))
        near = self._order[max(0, last - _MAX_WALK) : last].tolist()
        return max((index for index in near if address < self._ends[index]), default=None)

    def _symbol(self, index: int) -> JitSymbol | None:
        at = self._names[index]
        end = self._text.find(b"\n", at, at + MAX_NAME)
        raw = bytes(self._text[at : end if end >= 0 else at + MAX_NAME])
        name = raw.decode("utf-8", "backslashreplace").strip()
        if not name:
            return None
        function, module, file, line = jitnames.parse(name)
        return JitSymbol(function, self._starts[index], module, file, line)

    def _read(self) -> None:
        try:
            descriptor = self._root.open(self.path, follow=False)
        except OSError:
            return  # most processes have none
        except RefusedError as error:
            self.problem = str(error)
            return
        try:
            self._read_from(descriptor)
        except OSError as error:
            self.problem = f"cannot be read: {error.strerror}"
        finally:
            os.close(descriptor)

    def _read_from(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if state == self._state:
            return
        before, self._state = self._state, state
        self.problem = self._why_refused(status)
        if self.problem:
            self._clear()
            return
        known = len(self._text)
        seam = bytes(self._text[-_SEAM:])
        grown = before[:2] == state[:2] and known < status.st_size
        if not grown or os.pread(descriptor, len(seam), known - len(seam)) != seam:
            self._clear()
            known = 0
        size = min(status.st_size, _MAX_FILE)
        if size < status.st_size:
            self.problem = f"larger than {_MAX_FILE >> 20} MiB: only its beginning is read"
        while known < size and (data := os.pread(descriptor, min(1 << 20, size - known), known)):
            self._text += data
            known += len(data)
        self._parse()
        self._sort()

    def _why_refused(self, status: os.stat_result) -> str | None:
        if status.st_uid not in self._owners:
            return f"belongs to user {status.st_uid}, who is neither the target's nor root"
        if status.st_mtime < self._since:
            return "is older than the process"
        return None

    def _parse(self) -> None:
        text = self._text
        while len(self._starts) < _MAX_ENTRIES:
            end = text.find(b"\n", self._parsed)
            if end < 0:
                return
            at, self._parsed = self._parsed, end + 1
            if end - at > _MAX_LINE:
                continue
            fields = bytes(text[at:end]).split(b" ", 2)
            with suppress(ValueError, IndexError):
                start, size = int(fields[0], 16), int(fields[1], 16)
                name = fields[2]
                if 0 <= start < start + size < _TOP and name:
                    self._starts.append(start)
                    self._ends.append(start + size)
                    self._names.append(end - len(name))
        self.problem = f"more than {_MAX_ENTRIES} entries: the rest is left out"
