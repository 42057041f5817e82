"""The cheapest instruction of a function's entry block to put its probe on.

Under a probe the kernel emulates some instructions; all others it steps through one at a time, with
a second trap, which costs several times as much (arch/x86/kernel/uprobes.c: push_setup_xol_ops,
branch_setup_xol_ops). A probe a few bytes in sees every call just as well, as long as arguments and
stack pointer are still what they were.
"""

from collections.abc import Collection, Iterator

from capstone import CS_GRP_CALL, CS_GRP_INT, CS_GRP_JUMP, CS_GRP_RET, CS_OP_IMM, CS_OP_REG, CsInsn

from leaktop.cursor import CallFrameError
from leaktop.elf import ElfError, FileOffset
from leaktop.tracer.code import Code, Functions, disassembler
from leaktop.tracer.probes import Entry, Function, Site

_WORD_PREFIX = 0x66
_WORD = 8
_LOOK_MAX = 16  # instructions
_LONGEST = 15  # bytes of an instruction (Intel SDM 2.3.11)

_ARGUMENTS = tuple(
    frozenset(family.split())
    for family in (  # System V ABI x86-64, 3.2.3
        "rdi edi di dil",
        "rsi esi si sil",
        "rdx edx dx dl dh",
        "rcx ecx cx cl ch",
        "r8 r8d r8w r8b",
    )
)
_CALLEE_SAVED = frozenset(  # ibid., 3.2.1
    ["rbx", "ebx", "bx", "bl", "bh", "rbp", "ebp", "bp", "bpl"]
    + [f"r{i}{part}" for i in range(12, 16) for part in ("", "d", "w", "b")]
)
_STACK_POINTER = frozenset(("rsp", "esp", "sp", "spl"))
_READ = {  # the arguments that the BPF program reads, by position (bpf/memleak.bpf.c: enter)
    Entry.FREE: (0,),
    Entry.MALLOC: (0,),
    Entry.NEW: (0,),
    Entry.MEMALIGN: (1,),
    Entry.CALLOC: (0, 1),
    Entry.REALLOC: (0, 1),
    Entry.REALLOCARRAY: (0, 1, 2),
    Entry.POSIX_MEMALIGN: (0, 2),
    Entry.MMAP: (0, 1, 3),
    Entry.MREMAP: (0, 1, 2, 3, 4),
    Entry.MUNMAP: (0, 1),
}
_NONE = "nothing that the kernel emulates comes before {}"


def entry_site(
    functions: Functions, entry: FileOffset, function: Function, others: Collection[FileOffset]
) -> Site:
    """Return where to probe the function at a file offset; the entry itself where in doubt.

    ``others`` are the entries of all functions that are probed in the file: a site never lies in
    two of them.
    """
    try:
        code = _code_from(functions, entry)
    except (CallFrameError, ElfError):
        code = None
    if code is None:
        return Site(entry, 0, "", "the file does not say where the function ends")
    found = _first_emulated(code, function)
    if isinstance(found, str):
        return Site(entry, 0, "", found)
    shift = found.address - code.start
    if any(entry < other <= entry + shift for other in others):
        return Site(entry, 0, "", "another function begins before the site")
    if shift and not _entered_once(code, found.address):
        return Site(entry, 0, "", "the function jumps back to its beginning")
    return Site(FileOffset(entry + shift), shift, f"{found.mnemonic} {found.op_str}".strip(), "")


def other_sites(
    functions: Functions, entry: FileOffset, function: Function, others: Collection[FileOffset]
) -> Iterator[Site]:
    """Yield other places than the entry that see every call of a function, best first.

    For where the kernel refuses the best one. Without words pushed first: there a return probe
    can be. Where registers that a callee saves have new values no stack could be followed, so
    there is no such place. Yields nothing where the function cannot be read.
    """
    try:
        code = _code_from(functions, entry)
    except (CallFrameError, ElfError):
        code = None
    if code is not None:
        found = [
            site
            for site in _straight_on(code, entry, function)
            if not any(entry < other <= site.offset for other in others)
            and _entered_once(code, code.start + site.shift)
        ]
        yield from sorted(found, key=lambda site: site.pushed)


def _straight_on(code: Code, entry: FileOffset, function: Function) -> Iterator[Site]:
    kept = _CALLEE_SAVED.union(*(_ARGUMENTS[i] for i in _READ[function.entry]))
    head = code.bytes[: _LOOK_MAX * _LONGEST]
    pushed = 0
    for instruction in disassembler(detail=True).disasm(head, code.start, _LOOK_MAX):
        shift = instruction.address - code.start
        leaves, emulated = _leaves(instruction), _is_emulated(instruction)
        if shift and (emulated or not leaves):
            name = f"{instruction.mnemonic} {instruction.op_str}".strip()
            yield Site(FileOffset(entry + shift), shift, name if emulated else "", pushed=pushed)
        if leaves:
            return
        written = {instruction.reg_name(register) for register in instruction.regs_access()[1]}
        words = _pushes(instruction)
        if written & kept or (written & _STACK_POINTER and words is None):
            return
        pushed += words or 0


def _leaves(instruction: CsInsn) -> bool:
    groups = (CS_GRP_JUMP, CS_GRP_CALL, CS_GRP_RET, CS_GRP_INT)
    others = instruction.mnemonic.startswith(("syscall", "loop"))
    return others or any(instruction.group(group) for group in groups)


def _pushes(instruction: CsInsn) -> int | None:
    # words by which it moves the stack pointer down; None where it does not say
    operands = instruction.operands
    if instruction.mnemonic == "push" and operands[0].size == _WORD:
        return 1
    if instruction.mnemonic == "sub" and [each.type for each in operands] == [
        CS_OP_REG,
        CS_OP_IMM,
    ]:
        moved = instruction.reg_name(operands[0].reg) == "rsp" and operands[1].imm
        if moved and moved > 0 and moved % _WORD == 0:
            return int(moved // _WORD)
    return None


def _code_from(functions: Functions, entry: FileOffset) -> Code | None:
    # from the entry on, which need not be where the function begins
    address = functions.elf.address_of(entry)
    whole = None if address is None else functions.at(address)
    if address is None or whole is None:
        return None
    return Code(address, whole.bytes[address - whole.start :])


def _first_emulated(code: Code, function: Function) -> CsInsn | str:
    kept = _STACK_POINTER.union(*(_ARGUMENTS[i] for i in _READ[function.entry]))
    head = code.bytes[: _LOOK_MAX * _LONGEST]
    before = None
    for instruction in disassembler(detail=True).disasm(head, code.start, _LOOK_MAX):
        if (
            function.entry is Entry.FREE
            and before is not None
            and _is_null_check(before, instruction)
            and _returns_at(code, instruction.operands[0].imm)
        ):
            before = instruction
            continue
        if _is_emulated(instruction):
            return instruction
        if _leaves(instruction):
            return _NONE.format(f"{instruction.mnemonic} {instruction.op_str}".strip())
        written = {instruction.reg_name(register) for register in instruction.regs_access()[1]}
        if changed := written & kept:
            return _NONE.format(f"{min(changed)} is changed")
        before = instruction
    return _NONE.format("its code ends or is not understood")


def _is_emulated(instruction: CsInsn) -> bool:
    if _WORD_PREFIX in instruction.prefix:
        return False
    if instruction.mnemonic == "push":
        operand = instruction.operands[0]
        return bool(operand.type == CS_OP_REG and operand.size == _WORD)
    if instruction.mnemonic == "nop":
        return not any(instruction.prefix)  # the kernel refuses to probe some of those
    # a relative call is emulated too, but without the copy of its return address that a process
    # with a shadow stack needs
    return bool(instruction.group(CS_GRP_JUMP) and instruction.operands[0].type == CS_OP_IMM)


def _is_null_check(test: CsInsn, jump: CsInsn) -> bool:
    return (test.mnemonic, test.op_str, jump.mnemonic) == ("test", "rdi, rdi", "je")


def _returns_at(code: Code, address: int) -> bool:
    inside = address - code.start
    return address in code and code.bytes[inside : inside + 1] == b"\xc3"


def _entered_once(code: Code, site: int) -> bool:
    # A computed jump leads past the entry block too: compilers make them for a switch, whose cases
    # are not where the function begins.
    end = code.start
    for address, size, mnemonic, operands in disassembler().disasm_lite(code.bytes, code.start):
        end = address + size
        jumps = mnemonic.startswith(("j", "loop"))
        if jumps and operands.startswith("0x") and code.start <= int(operands, 16) <= site:
            return False
    return end == code.end
