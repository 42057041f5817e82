"""The BPF program of growth mode: on the kernel's tracepoints, and on no code of the target's."""

import os

import numpy as np

from leaktop.tracer import TracerError, kernel
from leaktop.tracer.cache import Cache
from leaktop.tracer.image import image_of, program_cache
from leaktop.tracer.loader import Unwinding
from leaktop.tracer.objects import (
    KERNEL_TYPES,
    Capacity,
    Objects,
    common_flags,
    walking_flags,
)

_MAIN = "growth.bpf.c"
_TRACEPOINTS = {
    "page_fault_user": "on_fault",
    "page_fault_kernel": "on_copy",
    "mm_page_alloc": "on_page",
    "mm_filemap_add_to_page_cache": "on_file_page",
}
"""Programs by tracepoint. The first two are x86's (arch/x86/include/asm/trace/exceptions.h)."""
_LOCKING = "mmap_lock_start_locking"
"""A tracepoint that brk, mmap and mremap come by. There are some at the entries of system calls,
too, but any of those in use makes every system call of every process slower."""
_PROGRAMS = (*_TRACEPOINTS.values(), "on_locking", "on_walk")


class GrowthProgram(Unwinding):
    """The program with its maps; attached to nothing yet.

    Raises TracerError where it cannot be compiled, or its maps cannot be made.
    """

    def __init__(self, capacity: Capacity, cache: Cache | None = None) -> None:
        flags = [*common_flags(capacity), *walking_flags(capacity)]
        super().__init__(Objects(image_of(_MAIN, _PROGRAMS, flags, cache or program_cache())))
        self.config = self._map("growth_config", np.dtype("u4"))
        self.stack_calls = self._array("stack_calls", np.dtype("u8"))
        self._links: list[int] = []

    def attach(self) -> str | None:
        """Put every program in its place; return why brk and mmap are not seen, if so.

        Raises TracerError where page faults cannot be seen.
        """
        self._objects.go_on_in(self._objects.load("on_walk", 0, kernel.PROG_TYPE_RAW_TRACEPOINT))
        for tracepoint, function in _TRACEPOINTS.items():
            try:
                self._attach(tracepoint, function)
            except OSError as error:
                raise TracerError(
                    f"growth mode needs the kernel's tracepoint {tracepoint}: {error.strerror}",
                    exit_code=3,
                ) from None
        if not _locking_is_cheap():
            return "this kernel has no tracepoint for them that is cheap"
        try:
            self._attach(_LOCKING, "on_locking")
        except OSError as error:
            return f"tracepoint {_LOCKING}: {error.strerror}"
        return None

    def close(self) -> None:
        """Detach, free programs and maps; safe to call twice."""
        while self._links:
            os.close(self._links.pop())
        self.stack_calls.close()
        super().close()

    def _attach(self, tracepoint: str, function: str) -> None:
        program = self._objects.load(function, 0, kernel.PROG_TYPE_RAW_TRACEPOINT)
        self._links.append(kernel.attach_raw_tracepoint(program, tracepoint))


def _locking_is_cheap() -> bool:
    # while it is used, kernels before commit 7d6be67cfdd4 put together the path of a control group
    # for every lock that is taken; theirs has a field for it
    try:
        return b"\0__data_loc_memcg_path\0" not in KERNEL_TYPES.read_bytes()
    except OSError:
        return False
