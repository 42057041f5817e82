"""Names of the stubs that calls into other files go through: ``malloc@plt``.

A stub jumps to the address that it reads from a slot of the global offset table, and a relocation
of the slot names the function (System V ABI, x86-64 supplement, 5.2 and 13.2). Stubs are known by
that jump, so it does not matter which linker laid them out, lazily bound or not.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leaktop.symtab import ElfAddress, Strings, Symbol

SECTIONS = (".plt", ".plt.sec", ".plt.got", ".plt.bnd")

_SIZES = (8, 16)  # of one stub
_JUMPS = {"EM_X86_64": re.compile(rb"\xff\x25(....)", re.DOTALL)}  # jmp *slot(%rip)
_JUMP_LENGTH = 6


@dataclass(frozen=True, slots=True)
class StubCode:
    """One section of stubs."""

    address: ElfAddress
    data: bytes
    entry_size: int


@dataclass(frozen=True, slots=True)
class Slots:
    """What fills slots of the global offset table, as one relocation section says."""

    addresses: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint32]
    """Offset into ``strings`` of the name that fills each."""
    strings: Strings


class PltStubs:
    """The stubs of a file, by address."""

    def __init__(self, machine: str, code: Sequence[StubCode], slots: Sequence[Slots]) -> None:
        """Find the stubs in the sections that hold them; none on an architecture not known."""
        jump = _JUMPS.get(machine)
        of_slot = _stubs(jump, code) if jump else {}
        wanted = np.fromiter(of_slot, np.uint64, len(of_slot))
        found: dict[int, tuple[int, Strings, int]] = {}
        for each in slots:
            for index in np.flatnonzero(np.isin(each.addresses, wanted)).tolist():
                for start, size in of_slot[int(each.addresses[index])]:
                    found[start] = (size, each.strings, int(each.names[index]))
        self._starts = sorted(found)
        self._found = found

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, address: ElfAddress) -> Symbol | None:
        """Return the stub that holds an address, None where none does."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        start = self._starts[index]
        size, strings, at = self._found[start]
        name = strings.name(at).partition(b"@")[0].decode("utf-8", "backslashreplace")
        if address >= start + size or not name:
            return None
        return Symbol(f"{name}@plt", ElfAddress(start), size)


def _stubs(
    jump: re.Pattern[bytes], code: Sequence[StubCode]
) -> dict[int, list[tuple[ElfAddress, int]]]:
    # start and size of the stubs that read each slot; one at most in a lazy and an eager section
    found: dict[int, list[tuple[ElfAddress, int]]] = {}
    for section in code:
        size = section.entry_size if section.entry_size in _SIZES else max(_SIZES)
        for match in jump.finditer(section.data):
            distance = int.from_bytes(match[1], "little", signed=True)
            slot = section.address + match.start() + _JUMP_LENGTH + distance
            start = ElfAddress(section.address + match.start() // size * size)
            if 0 <= slot < 2**64:
                found.setdefault(slot, []).append((start, size))
    return found
