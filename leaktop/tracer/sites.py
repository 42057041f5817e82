"""Where in a function to put probes: what its instructions say."""

from collections.abc import Callable, Iterator

from capstone import CS_GRP_JUMP, CS_GRP_RET, CS_OP_IMM, CsInsn

from leaktop.cursor import CallFrameError
from leaktop.elf import ElfAddress, FileOffset
from leaktop.tracer.code import Code, Functions, disassembler

_FUNCTIONS_MAX = 16


class UnclearError(Exception):
    """It cannot be told where the function returns; the text says why."""


def return_sites(functions: Functions, entry: FileOffset) -> tuple[FileOffset, ...]:
    """Return every ``ret`` that a call of a function can end with.

    Follows jumps into other functions, which return to the same caller: a compiler's cold part,
    or a tail call, also one through the PLT to a function that the file exports. Raises
    UnclearError where such a jump's target is not in the file or is computed, and ElfError.
    """
    if functions.frames is None:
        raise UnclearError("the file does not say where its functions end")

    def code_at(address: int) -> Code:
        try:
            found = functions.at(address)
        except CallFrameError as error:
            raise UnclearError(str(error)) from None
        if found is None:
            raise UnclearError(f"no function is described at {address:#x}")
        return found

    elf = functions.elf
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
    offsets = [elf.offset_of(ElfAddress(address)) for address in _returns(start, code_at, target)]
    return tuple(offset for offset in offsets if offset is not None)


def _returns(start: int, code_at: Callable[[int], Code], target: Callable[[int], int]) -> list[int]:
    disassemble = disassembler(detail=True).disasm
    waiting, seen, found = [start], list[Code](), list[int]()
    while waiting:
        address = waiting.pop()
        if any(address in each for each in seen):
            continue
        if len(seen) == _FUNCTIONS_MAX:
            raise UnclearError("it ends in too many other functions")
        function = code_at(address)
        seen.append(function)
        end = function.start
        for instruction in disassemble(function.bytes, function.start):
            end += instruction.size
            if instruction.group(CS_GRP_RET):
                found.append(instruction.address)
            elif instruction.group(CS_GRP_JUMP):
                waiting += map(target, _leaving(instruction, function))
        if end != function.end:
            raise UnclearError(f"its code is not understood at {end:#x}")
    return sorted(found)


def _leaving(instruction: CsInsn, function: Code) -> Iterator[int]:
    """Yield where a jump leads to outside its function."""
    operand = instruction.operands[0]
    if operand.type != CS_OP_IMM:
        raise UnclearError("it ends in a jump whose target is computed")
    if operand.imm not in function:
        yield operand.imm
