"""Names, files and lines of the frames on a stack: names first, lines when they are asked for."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Generic, TypeVar

from leaktop.binary import Binary
from leaktop.debugfiles import Parts
from leaktop.elf import ElfAddress, ElfError, FileOffset
from leaktop.kallsyms import KERNEL, KernelSymbol, KernelSymbols, is_kernel_address
from leaktop.model import Frame
from leaktop.modules import Location, Module, open_module
from leaktop.native import Call, Demangler, LineReader, NativeError, PartsReader
from leaktop.perfmap import JitSymbol, PerfMap

__all__ = ["Location", "Module", "Symbolizer", "open_module"]

_MAX_BINARIES = 256
_MAX_SYMBOLS = 8_000_000  # in all of them, at about 30 bytes each
_MAX_NAMES = 65536
_MAX_LINES = 65536
_MAX_FRAMES = 65536
_MAX_PROBLEMS = 256

_MANGLED = ("_Z", "_R")  # Itanium C++ ABI 5.1 and old Rust; Rust RFC 2603

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Cache(OrderedDict[_Key, _Value], Generic[_Key, _Value]):
    # forgets what was used least recently

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def recall(self, key: _Key) -> _Value | None:
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]

    def keep(self, key: _Key, value: _Value) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Named:
    # what one return address is called; names as the linker knows them
    address: ElfAddress | None = None
    mangled: str | None = None
    start: ElfAddress | None = None
    jit: JitSymbol | None = None
    kernel: KernelSymbol | None = None


class Symbolizer:
    """Names frames. Any thread may call; lines being read do not hold up names.

    Nothing is raised for a module that cannot be read: its frames stay without a name, and
    ``problems`` says why.
    """

    def __init__(
        self,
        perf_maps: Mapping[int, PerfMap] | None = None,
        kernel: KernelSymbols | None = None,
    ) -> None:
        """``perf_maps``: by PID, for code that is in no file; ``kernel``: this machine's."""
        self._lock = threading.Lock()
        self._perf_maps = dict(perf_maps or {})
        self._kernel = KernelSymbols() if kernel is None else kernel
        self._binaries: _Cache[object, Binary | None] = _Cache(_MAX_BINARIES)
        self._named: _Cache[tuple[object, FileOffset], _Named] = _Cache(_MAX_NAMES)
        self._readable: _Cache[str, str] = _Cache(_MAX_NAMES)
        self._calls: _Cache[tuple[object, ElfAddress], list[Call]] = _Cache(_MAX_LINES)
        self._frames: _Cache[Frame, Frame] = _Cache(_MAX_FRAMES)
        self._lineless: _Cache[object, str] = _Cache(_MAX_PROBLEMS)
        self._problems: _Cache[str, str] = _Cache(_MAX_PROBLEMS)
        self._demangler = Demangler()
        self._lines = LineReader()
        self._parts = PartsReader()

    def frames(self, locations: Sequence[Location], *, lines: bool) -> tuple[Frame, ...]:
        """Return the frames of return addresses, in their order.

        With ``lines`` also file and line, and before each frame the calls inlined there, innermost
        first; the first such call for a large program takes seconds.
        """
        (frames,) = self.stacks([locations], lines=lines)
        return frames

    def stacks(
        self, stacks: Collection[Sequence[Location]], *, lines: bool
    ) -> list[tuple[Frame, ...]]:
        """Return the frames of several stacks, as ``frames`` does for one.

        What they have in common is looked up once, and is the same object in all of them.
        """
        # each module's debug information is asked for all its addresses together
        locations = list(dict.fromkeys(chain.from_iterable(stacks)))
        named = self._name(locations)
        calls = self._read_lines(locations, named) if lines else [[]] * len(locations)
        readable = self._demangle({each.mangled for each in named if each.mangled})
        found = {
            location: self._shared(_frames(location, name, readable.get(name.mangled or ""), inner))
            for location, name, inner in zip(locations, named, calls, strict=True)
        }
        return [tuple(chain.from_iterable(map(found.__getitem__, stack))) for stack in stacks]

    def problems(self) -> Mapping[str, str]:
        """Return why modules are unnamed or without lines: module name to a one-line reason.

        Also why a perf map is not believed, by its path, and why kernel frames have no names.
        """
        with self._lock:
            problems = dict(self._problems)
            for perf_map in self._perf_maps.values():
                if perf_map.problem:
                    problems[perf_map.path] = perf_map.problem
            if self._kernel.problem:
                problems[KERNEL] = self._kernel.problem
        return MappingProxyType(problems)

    def add_perf_map(self, pid: int, perf_map: PerfMap) -> None:
        """Take one more process's names for code that is in no file."""
        with self._lock:
            self._perf_maps[pid] = perf_map

    def close(self) -> None:
        """End the processes that read lines and names; what is cached stays usable."""
        self._demangler.close()
        self._lines.close()
        self._parts.close()

    def _shared(self, frames: Sequence[Frame]) -> list[Frame]:
        # of equal frames the one that is in use already: thousands of stacks hold it
        with self._lock:
            shared = []
            for frame in frames:
                known = self._frames.recall(frame)
                if known is None:
                    self._frames.keep(frame, known := frame)
                shared.append(known)
            return shared

    def _name(self, locations: Sequence[Location]) -> list[_Named]:
        with self._lock:
            return [self._name_one(location) for location in locations]

    def _name_one(self, location: Location) -> _Named:
        module = location.module
        if module is None and is_kernel_address(location.address):
            return _Named(kernel=self._kernel.find(location.address - 1))
        if module is None or self._binary(module) is None:
            perf_map = self._perf_maps.get(location.pid)
            jit = None if perf_map is None else perf_map.find(location.address - 1)
            if jit is not None or module is None:
                return _Named(jit=jit)
        key = (module.identity, location.offset)
        known = self._named.recall(key)
        if known is None:
            known = self._look_up(module, location.offset)
            self._named.keep(key, known)
        return known

    def _look_up(self, module: Module, offset: FileOffset) -> _Named:
        binary = self._binary(module)
        # the byte before the return address lies in the call
        address = binary.address_of(FileOffset(offset - 1)) if binary else None
        if binary is None or address is None:
            return _Named()
        try:
            symbol = binary.find(address)
        except OSError as error:
            self._problems.keep(module.name, f"cannot be read: {error.strerror}")
            symbol = None
        if symbol is None:
            return _Named(address)
        return _Named(address, symbol.name, symbol.start)

    def _binary(self, module: Module) -> Binary | None:
        if module.identity in self._binaries:
            return self._binaries.recall(module.identity)
        binary, reason = None, module.problem
        if module.has_file:
            try:
                binary = Binary(module)
                reason = binary.problem
            except ElfError as error:
                reason = str(error)
        if reason:
            self._problems.keep(module.name, reason)
        self._binaries.keep(module.identity, binary)
        while len(self._binaries) > 1 and self._symbols_held() > _MAX_SYMBOLS:
            self._binaries.popitem(last=False)
        return binary

    def _symbols_held(self) -> int:
        return sum(binary.size for binary in self._binaries.values() if binary)

    def _demangle(self, names: set[str]) -> dict[str, str]:
        readable = {name: name for name in names if not name.startswith(_MANGLED)}
        with self._lock:
            for name in names - readable.keys():
                known = self._readable.recall(name)
                if known is not None:
                    readable[name] = known
        unknown = sorted(names - readable.keys())
        if unknown:
            found = self._demangler.demangle(unknown)
            with self._lock:
                for name, text in found.items():
                    self._readable.keep(name, text)
            readable |= found
        return readable

    def _read_lines(
        self, locations: Sequence[Location], named: Sequence[_Named]
    ) -> list[list[Call]]:
        wanted: dict[object, tuple[Module, dict[ElfAddress, list[Call]]]] = {}
        for location, name in zip(locations, named, strict=True):
            if location.module is not None and name.address is not None:
                _, found = wanted.setdefault(location.module.identity, (location.module, {}))
                found[name.address] = []
        for module, found in wanted.values():
            self._lines_of(module, found)
        return [
            wanted[location.module.identity][1][name.address]
            if location.module is not None and name.address is not None
            else []
            for location, name in zip(locations, named, strict=True)
        ]

    def _lines_of(self, module: Module, found: dict[ElfAddress, list[Call]]) -> None:
        identity = module.identity
        with self._lock:
            if identity in self._lineless:
                return
            for address in found:
                found[address] = self._calls.recall((identity, address)) or []
            unknown = [address for address in found if (identity, address) not in self._calls]
            binary = self._binaries.recall(identity)
        source = binary.with_lines if binary else module
        if not unknown or source.fileno() is None:
            return
        try:
            calls = self._lines.read(source, unknown)
            if binary and binary.parts:
                calls = self._complete(module, binary.parts, unknown, calls)
        except NativeError as error:
            with self._lock:
                self._lineless.keep(identity, str(error))
                self._problems.keep(module.name, f"no lines: {error}")
            return
        found |= zip(unknown, calls, strict=True)
        with self._lock:
            for address in unknown:
                self._calls.keep((identity, address), found[address])

    def _complete(
        self, module: Module, parts: Parts, addresses: list[ElfAddress], calls: list[list[Call]]
    ) -> list[list[Call]]:
        # asks the reader that knows several files about what one of them does not say
        asked = [i for i, known in enumerate(calls) if not _is_whole(known)]
        if not asked:
            return calls
        try:
            more = self._parts.read(parts.modules, [addresses[i] for i in asked], parts.open)
            reason = parts.problem
        except NativeError as error:
            more, reason = [], f"lines are missing: {error}"
        if reason:
            with self._lock:
                self._problems.keep(module.name, reason)
        best = list(calls)
        for i, found in zip(asked, more, strict=False):
            best[i] = max(calls[i], found, key=_worth)
        return best


def _is_whole(calls: Sequence[Call]) -> bool:
    return bool(calls) and all(call.function and call.line for call in calls)


def _worth(calls: Sequence[Call]) -> tuple[int, int]:
    return sum(call.line is not None for call in calls), sum(bool(call.function) for call in calls)


def _frames(
    location: Location, named: _Named, symbol: str | None, calls: Sequence[Call]
) -> list[Frame]:
    module, jit = location.module, named.jit
    if jit is not None:
        inside = location.address - jit.start
        return [Frame(location.address, jit.module, jit.name, inside, jit.file, jit.line)]
    if module is None and is_kernel_address(location.address):
        return [_kernel_frame(location.address, named.kernel)]
    physical = Frame(
        address=location.address,
        module=module.name if module else None,
        module_path=module.path if module else None,
    )
    start = named.start
    if calls:
        outermost = calls[-1]
        if symbol is None:
            symbol, start = outermost.function, outermost.start
        physical = replace(physical, file=outermost.file, line=outermost.line)
    offset = None
    if symbol is not None and start is not None and named.address is not None:
        offset = named.address + 1 - start
    inlined = [
        replace(
            physical,
            symbol=call.function,
            file=call.file,
            line=call.line,
            inlined=True,
        )
        for call in calls[:-1]
    ]
    return [*inlined, replace(physical, symbol=symbol, offset=offset)]


def _kernel_frame(address: int, symbol: KernelSymbol | None) -> Frame:
    if symbol is None:
        return Frame(address, KERNEL)
    return Frame(address, symbol.module, symbol.name, address - symbol.start)
