"""Symbol tables as numpy arrays: built in one go, names read only when asked for.

Format: System V ABI, chapter 4, "Symbol Table" (elf(5)).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

ElfAddress = NewType("ElfAddress", int)
"""Address as the file has it (``p_vaddr``, ``st_value``), before loading moves it."""

FileOffset = NewType("FileOffset", int)
"""Position of a byte in the file; what uprobes and mappings speak of."""

MAX_NAME = 4096
"""Longest name read, in bytes; a longer one is cut here."""

Entries = npt.NDArray[np.void]
"""Structured array with the fields of ``symbol_dtype``."""

_NOTYPE, _FUNC, _IFUNC = 0, 2, 10  # STT_*
_LOCAL = 0  # STB_LOCAL
_TOP = 2**63  # no user-space address is as high, and sums below it cannot overflow
_NAME_STEP = 256
_CHUNK = 8 << 20
_MAX_PLACES = 4096  # of one string in a string table: more is an attack
_MAX_WALK = 256  # enclosing symbols tried for one address
_MAX_ALIASES = 32


def symbol_dtype(*, wide: bool, order: str) -> np.dtype[np.void]:
    """Return the layout of Elf64_Sym (``wide``) or Elf32_Sym; ``order`` is ``<`` or ``>``."""
    name, info, section = ("name", order + "u4"), ("info", "u1"), ("section", order + "u2")
    value, size = "value", "size"
    if wide:
        fields = [name, info, ("other", "u1"), section, (value, order + "u8"), (size, order + "u8")]
    else:
        fields = [name, (value, order + "u4"), (size, order + "u4"), info, ("other", "u1"), section]
    return np.dtype(fields)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function: its name as the linker knows it, where it starts and how many bytes it has."""

    name: str
    start: ElfAddress
    size: int
    """Up to the next symbol where the file gives none."""


@dataclass(frozen=True, slots=True)
class Strings:
    """A string table, left in the file."""

    read: Callable[[int, int], bytes]
    """Read bytes at an offset of the file; shorter at its end."""
    offset: int
    size: int

    def name(self, at: int) -> bytes:
        """Return the string that starts ``at`` bytes into the table, at most MAX_NAME long."""
        data = b""
        for limit in (_NAME_STEP, MAX_NAME):
            data = self.read(self.offset + at, max(0, min(limit, self.size - at)))
            end = data.find(b"\0")
            if end >= 0:
                return data[:end]
        return data

    def places(self, names: Collection[bytes]) -> dict[int, bytes]:
        """Return where names stand, also as the tail of longer ones, which linkers merge."""
        overlap = max(map(len, names), default=0) + 1
        found: dict[bytes, set[int]] = {name: set() for name in names}
        for base in range(0, self.size, _CHUNK):
            chunk = self.read(self.offset + base, min(_CHUNK + overlap, self.size - base))
            for name, places in found.items():
                at = chunk.find(name + b"\0")
                while at >= 0 and len(places) < _MAX_PLACES:
                    places.add(base + at)
                    at = chunk.find(name + b"\0", at + 1)
        return {at: name for name, places in found.items() for at in places}


@dataclass(frozen=True, slots=True)
class RawTable:
    """One symbol section, as it stands in the file."""

    entries: Entries
    strings: Strings
    default: npt.NDArray[np.bool_]
    """Whether each symbol is the one that a plain name means: hidden versions are not."""

    def defined(self, names: Collection[bytes]) -> dict[bytes, ElfAddress | None]:
        """Return the start of each function of these names that other files may call.

        None for an indirect function (STT_GNU_IFUNC): where it starts, a resolver does.
        """
        entries = self.entries
        places = self.strings.places(names)
        wanted = np.isin(entries["name"], np.fromiter(places, dtype=np.uint32, count=len(places)))
        wanted &= (entries["section"] != 0) & (entries["value"] != 0)
        kind = entries["info"] & 15
        wanted &= ((kind == _FUNC) | (kind == _IFUNC)) & (entries["info"] >> 4 != _LOCAL)
        indexes = np.flatnonzero(wanted)
        found: dict[bytes, ElfAddress | None] = {}
        for index in indexes[np.argsort(~self.default[indexes], kind="stable")].tolist():
            name = places[int(entries["name"][index])]
            start = ElfAddress(int(entries["value"][index]))
            found.setdefault(name, start if kind[index] == _FUNC else None)
        return found


class SymbolTable:
    """The functions of a file, by address.

    Symbols without a type count where they lie in code outside any function: assembly often has
    no other. Where symbols overlap, the one that starts last wins.
    """

    def __init__(
        self,
        tables: Sequence[RawTable],
        code_sections: npt.NDArray[np.bool_],
        section_ends: npt.NDArray[np.uint64],
    ) -> None:
        """Merge tables; the other two say of each section index whether it is code, and its end."""
        self._strings = [table.strings for table in tables]
        kept = [_functions(table.entries, code_sections) for table in tables]
        value = _join([entries["value"] for entries in kept], np.uint64)
        size = _join([entries["size"] for entries in kept], np.uint64)
        order = np.argsort(value, kind="stable")
        value, size = value[order], np.minimum(size[order], np.uint64(_TOP))
        info = _join([entries["info"] for entries in kept], np.uint8)[order]
        section = _join([entries["section"] for entries in kept], np.uint16)[order]
        table_of = _join([np.full(len(each), i) for i, each in enumerate(kept)], np.uint8)[order]
        names = _join([entries["name"] for entries in kept], np.uint32)[order]

        is_function = info & 15 != _NOTYPE
        reached = np.maximum.accumulate(np.where(is_function, value + size, 0))
        keep = is_function | (reached <= value)
        self._start = value[keep]
        self._end = _ends(self._start, size[keep], section[keep], section_ends)
        self._reach = np.maximum.accumulate(self._end)
        self._names, self._table_of = names[keep], table_of[keep]
        self._poor = (~is_function[keep]) * np.uint8(2) + (info[keep] >> 4 == _LOCAL)

    def __len__(self) -> int:
        return len(self._start)

    def find(self, address: ElfAddress) -> Symbol | None:
        """Return the function that holds an address, None where none is known to."""
        if not 0 <= address < _TOP:
            return None
        last = int(np.searchsorted(self._start, np.uint64(address), side="right")) - 1
        for index in range(last, max(-1, last - _MAX_WALK), -1):
            if self._reach[index] <= address:
                return None
            if self._end[index] > address:
                return self._best_alias(index, address)
        return None

    def _best_alias(self, last: int, address: int) -> Symbol:
        # of the symbols that start where `last` does, by what people call the function
        start = self._start[last]
        first = int(np.searchsorted(self._start, start, side="left"))
        choices = []
        for index in range(max(first, last - _MAX_ALIASES + 1), last + 1):
            if self._end[index] > address:
                raw = self._strings[self._table_of[index]].name(int(self._names[index]))
                # .symtab carries versions in the name itself
                name = raw.partition(b"@")[0] or raw
                bars = len(name) - len(name.lstrip(b"_"))
                choices.append((not name, int(self._poor[index]), bars, len(name), name, index))
        *_, name, index = min(choices)
        return Symbol(
            name.decode("utf-8", "backslashreplace"),
            ElfAddress(int(start)),
            int(self._end[index] - start),
        )


def _functions(entries: Entries, code_sections: npt.NDArray[np.bool_]) -> Entries:
    kind, section, value = entries["info"] & 15, entries["section"], entries["value"]
    in_code = code_sections[np.minimum(section, len(code_sections) - 1)]
    wanted = (kind == _FUNC) | (kind == _IFUNC)
    wanted |= (kind == _NOTYPE) & in_code & (entries["name"] != 0)
    kept: Entries = entries[wanted & (section != 0) & (value != 0) & (value < _TOP)]
    return kept


def _ends(
    start: npt.NDArray[np.uint64],
    size: npt.NDArray[np.uint64],
    section: npt.NDArray[np.uint16],
    section_ends: npt.NDArray[np.uint64],
) -> npt.NDArray[np.uint64]:
    # a symbol of size 0 reaches to the next one, or to the end of its section
    following = np.append(start, np.uint64(_TOP))[np.searchsorted(start, start, side="right")]
    section_end = section_ends[np.minimum(section, len(section_ends) - 1)]
    guess = np.maximum(np.minimum(following, section_end), start)
    ends: npt.NDArray[np.uint64] = np.where(size > 0, start + size, guess)
    return ends


def _join(parts: Sequence[npt.NDArray[Any]], kind: type[np.generic]) -> npt.NDArray[Any]:
    # in native byte order, which sorting and searching are much faster in
    return np.concatenate([np.empty(0, kind), *(part.astype(kind) for part in parts)]).astype(kind)
