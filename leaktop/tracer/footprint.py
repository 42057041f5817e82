"""What leaktop itself takes of the host's memory."""

import os
from collections.abc import Iterable
from pathlib import Path

from leaktop.model import Memory
from leaktop.procfs import parse_statm_resident, parse_status

_PROC = Path("/proc/self")


def memory_of(maps: Iterable[tuple[str, int]]) -> Memory:
    """Return what this process takes, and what each map does, given by name and descriptor.

    The latter is the kernel's own estimate, ``memlock`` (bpf_map_show_fdinfo,
    kernel/bpf/syscall.c). A map that has no such field is left out.
    """
    pages = parse_statm_resident((_PROC / "statm").read_text())
    taken = {}
    for name, descriptor in maps:
        said = parse_status((_PROC / "fdinfo" / str(descriptor)).read_text())
        if (size := said.get("memlock", "")).isdecimal():
            taken[name] = int(size)
    return Memory(pages * os.sysconf("SC_PAGE_SIZE"), taken)
