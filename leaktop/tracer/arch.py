"""What depends on the processor, in one place: a new architecture is a new row.

``bpf/headers/arch`` holds the register file for the BPF side.
"""

import platform
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """System call numbers that the C library has no wrapper for."""

    sys_bpf: int
    sys_perf_event_open: int


ARCHITECTURES = {"x86_64": Architecture(sys_bpf=321, sys_perf_event_open=298)}
"""By the machine name of uname(2); numbers from arch/x86/entry/syscalls/syscall_64.tbl."""


def this_machine() -> Architecture | None:
    """Return this machine's row, or None where leaktop does not know the processor."""
    return ARCHITECTURES.get(platform.machine())
