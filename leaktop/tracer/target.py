"""The process that is traced: whether it is there, what it maps, where its code comes from."""

import contextlib
import os
import select
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from leaktop import procfs
from leaktop.elf import FileOffset
from leaktop.modules import Location, Module, open_module
from leaktop.tracer import TracerError

NO_TARGET = 4
"""Exit code: there is no such process, or nothing in it to trace."""

_UPROBES = "[uprobes]"
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_MODULES_MAX = 4096  # files held open; a process maps some hundreds at most


class _Mapped:
    """The mappings at one moment, never changed: threads share it."""

    def __init__(self, mappings: tuple[procfs.Mapping, ...]) -> None:
        self.mappings = mappings
        self.code = frozenset(
            (m.start, m.end, m.file_offset, m.device, m.inode) for m in mappings if m.executable
        )
        self._starts = np.array([mapping.start for mapping in mappings], np.uint64)

    def at(self, address: int) -> procfs.Mapping | None:
        """Return the mapping that an address lies in."""
        if not 0 <= address < 2**64:
            return None
        index = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        if index < 0 or address >= self.mappings[index].end:
            return None
        return self.mappings[index]


class TargetProcess:
    """One process, held so that a later one of the same PID is never taken for it.

    Any thread may call, but for ``close``.
    Raises TracerError (exit code 4) where there is no such process or it has no memory of its own.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._proc = Path("/proc") / str(pid)
        stat = self._stat()
        if stat is None:
            raise TracerError(
                f"there is no process {pid}; find the one you mean with: pgrep -a NAME",
                exit_code=NO_TARGET,
            )
        if stat.kernel_thread:
            raise TracerError(
                f"{pid} ({stat.comm}) is a kernel thread and has no user memory; "
                "give the PID of a program",
                exit_code=NO_TARGET,
            )
        self._check_leader()
        self.comm = stat.comm
        self._identity = (stat.start_time, stat.start_stack)
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise TracerError(
                f"process {pid} exited before leaktop could attach", exit_code=NO_TARGET
            ) from None
        except OSError as error:
            raise TracerError(f"process {pid} cannot be held: {error.strerror}") from None
        self._mapped = _Mapped(())
        self.code_version = 0
        """Grows whenever a refresh finds that code was mapped or unmapped."""
        self._lock = threading.Lock()
        self._modules: dict[tuple[str, int, str], Module] = {}

    @property
    def end_descriptor(self) -> int | None:
        """Descriptor that becomes readable when the process exits; None once closed."""
        return self._pidfd if self._pidfd >= 0 else None

    def why_over(self) -> str | None:
        """Return why the process can no longer be traced, in words, or None while it can."""
        if self._pidfd >= 0 and select.select([self._pidfd], [], [], 0)[0]:
            return "exited"
        stat = self._stat()
        if stat is None or stat.state in ("Z", "X"):
            return "exited"
        # without privilege the kernel shows 0 for the stack
        if stat.start_stack and (stat.start_time, stat.start_stack) != self._identity:
            return f"runs another program now ({stat.comm}): start leaktop again to trace it"
        return None

    def resident(self) -> int | None:
        """Return resident memory in bytes, or None once the process is gone."""
        try:
            pages = procfs.parse_statm_resident((self._proc / "statm").read_text())
        except (OSError, ValueError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE") if pages else None

    def read_memory(self, address: int, size: int) -> bytes:
        """Return memory of the process, less or nothing where it cannot be read."""
        with contextlib.suppress(OSError, OverflowError), (self._proc / "mem").open("rb") as memory:
            return os.pread(memory.fileno(), size, address)
        return b""

    def refresh(self) -> None:
        """Read the mappings anew; what was mapped before stays known by its files."""
        try:
            # bytes first: text mode would take a carriage return in a file name for a line's end
            text = os.fsdecode((self._proc / "maps").read_bytes())
        except PermissionError:
            raise TracerError(
                f"the memory map of process {self.pid} cannot be read; run leaktop as root "
                "(or with CAP_SYS_PTRACE)",
                exit_code=3,
            ) from None
        except OSError:
            return
        mappings = tuple(procfs.parse_maps(text))
        if mappings:
            before, self._mapped = self._mapped, _Mapped(mappings)
            if before.code != self._mapped.code:
                self.code_version += 1

    @property
    def trampoline(self) -> int:
        """Address that uretprobes make functions return to, 0 while the process has none.

        It is the first slot of the area named [uprobes] (kernel/events/uprobes.c,
        uprobe_get_trampoline_vaddr).
        """
        return next((m.start for m in self._mapped.mappings if m.path == _UPROBES), 0)

    @property
    def mappings(self) -> tuple[procfs.Mapping, ...]:
        """The mappings of the last refresh."""
        return self._mapped.mappings

    @property
    def kernel_pid(self) -> int | None:
        """The process as the initial PID namespace numbers it; None where that cannot be told."""
        with contextlib.suppress(OSError):
            if Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE:
                return self.pid
        return None

    def code(self) -> frozenset[tuple[int, int, int, str, int]]:
        """Return all mappings that hold code: start, end, and what of which file it is.

        Another file may be mapped where one was.
        """
        return self._mapped.code

    def is_code(self, address: int) -> bool:
        """Whether code can run at an address."""
        mapping = self._mapped.at(address)
        return mapping is not None and mapping.executable

    def locate(self, addresses: Iterable[int]) -> list[Location]:
        """Return module and offset of code addresses, by the mappings of the last refresh."""
        return [self._locate(address) for address in addresses]

    def knows(self, addresses: Iterable[int]) -> bool:
        """Whether every address lies in a mapping of the last refresh."""
        return all(self._mapped.at(address) is not None for address in addresses)

    def code_files(self) -> Iterator[tuple[procfs.Mapping, Module]]:
        """Yield the files that hold code, each once, with its first such mapping."""
        seen = set()
        for mapping in self._mapped.mappings:
            identity = (mapping.device, mapping.inode)
            if mapping.executable and mapping.file_backed and identity not in seen:
                seen.add(identity)
                yield mapping, self._module(mapping)

    def is_program(self, mapping: procfs.Mapping) -> bool:
        """Whether a mapping is of the program's own file, rather than of a library."""
        with contextlib.suppress(OSError):
            return (self._proc / "exe").stat().st_ino == mapping.inode
        return False

    def close(self) -> None:
        """Let go of the process and of its files."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._modules.clear()

    def _stat(self) -> procfs.Stat | None:
        try:
            return procfs.parse_stat(os.fsdecode((self._proc / "stat").read_bytes()))
        except (OSError, ValueError):
            return None

    def _check_leader(self) -> None:
        with contextlib.suppress(OSError):
            status = procfs.parse_status(os.fsdecode((self._proc / "status").read_bytes()))
            leader = status.get("Tgid", str(self.pid))
            if leader != str(self.pid):
                raise TracerError(
                    f"{self.pid} is a thread of process {leader}; give that: -p {leader}",
                    exit_code=NO_TARGET,
                )

    def _locate(self, address: int) -> Location:
        # a return address may lie just past the code of its mapping: the call lies inside
        mapping = self._mapped.at(address - 1)
        if mapping is None or not mapping.path:
            return Location(address, None, FileOffset(0))
        return Location.in_mapping(address, mapping, self._module(mapping))

    def _module(self, mapping: procfs.Mapping) -> Module:
        key = (mapping.device, mapping.inode, mapping.path)
        with self._lock:
            if key not in self._modules:
                if len(self._modules) >= _MODULES_MAX:
                    self._modules.pop(next(iter(self._modules)))
                self._modules[key] = open_module(self.pid, mapping)
            return self._modules[key]
