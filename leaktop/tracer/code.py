"""The code of a file's functions, as its call frame information delimits them."""

from dataclasses import dataclass
from functools import cached_property

import capstone

from leaktop.callframe import CallFrames, call_frames_of
from leaktop.elf import ElfAddress, ElfFile

_FUNCTION_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Code:
    """A function's instructions, or its last ones, at an ELF address."""

    start: int
    bytes: bytes

    @property
    def end(self) -> int:
        """Address of the first byte behind it."""
        return self.start + len(self.bytes)

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end


class Functions:
    """The functions of one file; its call frame information is read once."""

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf

    @cached_property
    def frames(self) -> CallFrames | None:
        """The file's call frame information, None where it has none. Raises ElfError."""
        return call_frames_of(self.elf)

    def at(self, address: int) -> Code | None:
        """Return the function that an ELF address lies in.

        None where none is described there, or one too large to be looked through. Raises
        CallFrameError and ElfError.
        """
        extent = None if self.frames is None else self.frames.extent(address)
        if extent is None or not 0 < extent[1] <= _FUNCTION_MAX:
            return None
        start, size = extent
        return Code(start, self.elf.read_at(ElfAddress(start), size))


def disassembler(*, detail: bool = False) -> capstone.Cs:
    """Return one for this architecture; ``detail`` has it tell what instructions do."""
    made = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    made.detail = detail
    return made
