"""Keeps uprobes of others off instructions, as memleak of bcc does by mistake.

A uprobe carries the offset of a reference counter in the file, and the kernel refuses a second
probe on the instruction that gives another one (EINVAL; alloc_uprobe, kernel/events/uprobes.c).
bcc's attach_uprobe passes a value that nobody set.
"""

import ctypes as ct
import os
from collections.abc import Iterable
from pathlib import Path

from leaktop.elf import ElfFile, FileOffset
from leaktop.tracer.arch import this_machine
from leaktop.tracer.code import Functions
from leaktop.tracer.entry_sites import entry_site, other_sites
from leaktop.tracer.probes import functions_in, table

_PMU = Path("/sys/bus/event_source/devices/uprobe/type")
_COUNTER_SHIFT = 32
"""Where in ``config`` the offset of the counter is (format/ref_ctr_offset beside it)."""
_NOT_MAPPED_WRITABLE = 0x10
"""An offset that no writable mapping of a library holds, so that nothing is counted there."""
_LATER_PLACES = 3
_SIZE = 112  # PERF_ATTR_SIZE_VER5


class Refuser:
    """Holds instructions of one file in one process until it is closed."""

    def __init__(self, path: Path, pid: int, offsets: Iterable[int]) -> None:
        self._descriptors = [_hold(path, pid, offset) for offset in offsets]

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def _hold(path: Path, pid: int, offset: int) -> int:
    name = ct.create_string_buffer(os.fsencode(path))
    words = (ct.c_uint64 * (_SIZE // 8))()
    words[0] = int(_PMU.read_text()) | _SIZE << 32  # type, size
    words[1] = _NOT_MAPPED_WRITABLE << _COUNTER_SHIFT
    words[7] = ct.addressof(name)  # config1
    words[8] = offset  # config2
    arch = this_machine()
    assert arch is not None
    libc = ct.CDLL(None, use_errno=True)
    held = libc.syscall(ct.c_long(arch.sys_perf_event_open), ct.byref(words), pid, -1, -1, 8)
    assert held >= 0, os.strerror(ct.get_errno())
    return int(held)


def entries(path: Path, *names: str) -> set[FileOffset]:
    """Where these functions of a file begin."""
    with path.open("rb") as file:
        return set(ElfFile(file).functions(names).values())


def all_places(path: Path, *names: str) -> set[FileOffset]:
    """Every place at which leaktop would probe these functions, or all that it knows."""
    with path.open("rb") as file:
        elf = ElfFile(file)
        functions = table()
        there = elf.functions({each.name for each in functions})
        code, places = Functions(elf), set()
        for function, entry in functions_in(functions, there):
            if not names or function.name in names:
                places.add(entry)
                places.add(entry_site(code, entry, function, there.values()).offset)
                others = list(other_sites(code, entry, function, there.values()))
                places.update(site.offset for site in others[:_LATER_PLACES])
        return places
