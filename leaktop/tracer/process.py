"""The process that is traced, held by its pidfd: whether it is there, and still the same program.

Imports nothing that takes time, so that a wrong PID is refused at once.
"""

import contextlib
import os
from pathlib import Path

from leaktop import procfs
from leaktop.descriptors import wait_readable
from leaktop.tracer import TracerError

NO_TARGET = 4
"""Exit code: there is no such process, or nothing in it to trace."""

INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h


class Process:
    """One process, held so that a later one of the same PID is never taken for it.

    Raises TracerError (exit code 4) where there is no such process or it has no memory of its own.
    """

    def __init__(self, pid: int, *, kernel_threads: bool = False) -> None:
        """``kernel_threads``: it may be one, which has no memory of its own."""
        self.pid = pid
        self._proc = Path("/proc") / str(pid)
        stat = self._stat()
        if stat is None:
            raise TracerError(
                f"there is no process {pid}; find the one you mean with: pgrep -a NAME",
                exit_code=NO_TARGET,
            )
        if stat.kernel_thread and not kernel_threads:
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

    @property
    def end_descriptor(self) -> int | None:
        """Descriptor that becomes readable when the process exits; None once closed."""
        return self._pidfd if self._pidfd >= 0 else None

    def why_over(self) -> str | None:
        """Return why the process can no longer be traced, in words, or None while it can."""
        if self._pidfd >= 0 and wait_readable([self._pidfd], 0):
            return "exited"
        stat = self._stat()
        if stat is None or stat.state in ("Z", "X"):
            return "exited"
        if self._is_another(stat):
            return f"runs another program now ({stat.comm})"
        return None

    def runs_another_program(self) -> bool:
        """Whether it is there, but has become another program by an exec (execve(2))."""
        stat = self._stat()
        return stat is not None and stat.state not in ("Z", "X") and self._is_another(stat)

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

    @property
    def kernel_pid(self) -> int | None:
        """The process as the initial PID namespace numbers it; None where that cannot be told."""
        with contextlib.suppress(OSError):
            if Path("/proc/self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE:
                return self.pid
        return None

    def close(self) -> None:
        """Let go of the process; safe to call twice."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _stat(self) -> procfs.Stat | None:
        try:
            return procfs.parse_stat(os.fsdecode((self._proc / "stat").read_bytes()))
        except (OSError, ValueError):
            return None

    def _is_another(self, stat: procfs.Stat) -> bool:
        # without privilege the kernel shows 0 for the stack
        return bool(stat.start_stack) and (stat.start_time, stat.start_stack) != self._identity

    def _check_leader(self) -> None:
        with contextlib.suppress(OSError):
            status = procfs.parse_status(os.fsdecode((self._proc / "status").read_bytes()))
            leader = status.get("Tgid", str(self.pid))
            if leader != str(self.pid):
                raise TracerError(
                    f"{self.pid} is a thread of process {leader}; give that: -p {leader}",
                    exit_code=NO_TARGET,
                )
