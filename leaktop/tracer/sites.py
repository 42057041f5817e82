"""Where in a function to put probes: what its instructions say."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import capstone
from capstone import CS_GRP_JUMP, CS_GRP_RET, CS_OP_IMM, CsInsn

from leaktop.callframe import call_frames_of
from leaktop.cursor import CallFrameError
from leaktop.elf import ElfAddress, ElfFile, FileOffset

_FUNCTION_MAX = 64 * 1024
_FUNCTIONS_MAX = 16


class UnclearError(Exception):
    """It cannot be told where the function returns; the text says why."""


@dataclass(frozen=True, slots=True)
class _Extent:
    start: int
    code: bytes

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.start + len(self.code)


def return_sites(elf: ElfFile, entry: FileOffset) -> tuple[FileOffset, ...]:
    """Return every ``ret`` that a call of a function can end with.

    Follows jumps into other functions, which return to the same caller: a compiler's cold part,
    or a tail call, also one through the PLT to a function that the file exports. Raises
    UnclearError where such a jump's target is not in the file or is computed, and ElfError.
    """
    frames = call_frames_of(elf)
    if frames is None:
        raise UnclearError("the file does not say where its functions end")

    def extent(address: int) -> _Extent:
        try:
            found = frames.extent(address)
        except CallFrameError as error:
            raise UnclearError(str(error)) from None
        if found is None or not 0 < found[1] <= _FUNCTION_MAX:
            raise UnclearError(f"no function is described at {address:#x}")
        return _Extent(found[0], elf.read_at(ElfAddress(found[0]), found[1]))

    stubs = elf.plt()

    def target(address: int) -> int:
        stub = stubs.find(ElfAddress(address))
        if stub is None:
            return address
        name = stub.name.removesuffix("@plt")
        offset = elf.functions((name,)).get(name)
        found = None if offset is None else elf.address_of(offset)
        if found is None:
            raise UnclearError(f"it ends in a jump to {name} of another file")
        return found

    start = elf.address_of(entry)
    if start is None:
        raise UnclearError("the function is not in the file")
    offsets = [elf.offset_of(ElfAddress(address)) for address in _returns(start, extent, target)]
    return tuple(offset for offset in offsets if offset is not None)


def _returns(
    start: int, extent: Callable[[int], _Extent], target: Callable[[int], int]
) -> list[int]:
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    disassembler.detail = True
    waiting, seen, found = [start], list[_Extent](), list[int]()
    while waiting:
        address = waiting.pop()
        if any(address in each for each in seen):
            continue
        if len(seen) == _FUNCTIONS_MAX:
            raise UnclearError("it ends in too many other functions")
        function = extent(address)
        seen.append(function)
        end = function.start
        for instruction in disassembler.disasm(function.code, function.start):
            end += instruction.size
            if instruction.group(CS_GRP_RET):
                found.append(instruction.address)
            elif instruction.group(CS_GRP_JUMP):
                waiting += map(target, _leaving(instruction, function))
        if end != function.start + len(function.code):
            raise UnclearError(f"its code is not understood at {end:#x}")
    return sorted(found)


def _leaving(instruction: CsInsn, function: _Extent) -> Iterator[int]:
    """Yield where a jump leads to outside its function."""
    operand = instruction.operands[0]
    if operand.type != CS_OP_IMM:
        raise UnclearError("it ends in a jump whose target is computed")
    if operand.imm not in function:
        yield operand.imm
