"""The process that is traced: what it maps, and where its code comes from."""

import contextlib
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from leaktop import procfs
from leaktop.elf import FileOffset
from leaktop.model import CodeMapping
from leaktop.modules import Location, Module, open_module
from leaktop.tracer import TracerError
from leaktop.tracer.process import Process

_UPROBES = "[uprobes]"
_MODULES_MAX = 4096  # files held open; a process maps some hundreds at most


class _Mapped:
    """The mappings at one moment, never changed: threads share it."""

    def __init__(self, mappings: tuple[procfs.Mapping, ...]) -> None:
        self.mappings = mappings
        self.code = frozenset(
            (m.start, m.end, m.file_offset, m.device, m.inode) for m in mappings if m.executable
        )
        self._starts = [mapping.start for mapping in mappings]

    def at(self, address: int) -> procfs.Mapping | None:
        """Return the mapping that an address lies in."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.mappings[index].end:
            return None
        return self.mappings[index]


class TargetProcess(Process):
    """A process with its mappings and their files. Any thread may call, but for ``close``."""

    def __init__(self, pid: int) -> None:
        """See Process for what it raises."""
        super().__init__(pid)
        self._mapped = _Mapped(())
        self.code_version = 0
        """Grows whenever a refresh finds that code was mapped or unmapped."""
        self._lock = threading.Lock()
        self._modules: dict[tuple[str, int, str], Module] = {}

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

    def code_mappings(self) -> list[CodeMapping]:
        """Return all mappings that hold code, in order of address, with their files' build ids."""
        found = []
        for each in self._mapped.mappings:
            if each.executable:
                module = self._module(each) if each.path else None
                path = module.path if module else ""
                build_id = module.build_id if module else None
                found.append(
                    CodeMapping(self.pid, each.start, each.end, each.file_offset, path, build_id)
                )
        return found

    def is_program(self, mapping: procfs.Mapping) -> bool:
        """Whether a mapping is of the program's own file, rather than of a library."""
        with contextlib.suppress(OSError):
            return (self._proc / "exe").stat().st_ino == mapping.inode
        return False

    def close(self) -> None:
        """Let go of the process and of its files."""
        super().close()
        self._modules.clear()

    def _locate(self, address: int) -> Location:
        # a return address may lie just past the code of its mapping: the call lies inside
        mapping = self._mapped.at(address - 1)
        if mapping is None or not mapping.path:
            return Location(address, None, FileOffset(0), self.pid)
        return Location.in_mapping(address, mapping, self._module(mapping), self.pid)

    def _module(self, mapping: procfs.Mapping) -> Module:
        key = (mapping.device, mapping.inode, mapping.path)
        with self._lock:
            if key not in self._modules:
                if len(self._modules) >= _MODULES_MAX:
                    self._modules.pop(next(iter(self._modules)))
                self._modules[key] = open_module(self.pid, mapping)
            return self._modules[key]
