"""What depends on the processor, in one place: a new architecture is a new row.

``bpf/headers/arch`` holds the register file for the BPF side.
"""

import platform
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SignalContext:
    """Where the kernel keeps the registers of what a signal interrupted.

    Offsets in bytes from the stack pointer in the frame that it made to run the handler.
    """

    sp: int
    pc: int
    saved: tuple[int, ...]
    """In the order of ``Registers.saved``."""


@dataclass(frozen=True, slots=True)
class Registers:
    """DWARF's register numbers that unwinding speaks of."""

    stack_pointer: int
    frame_pointer: int
    return_address: int
    saved: tuple[int, ...]
    """Registers that a callee saves, the frame pointer first, in the order of the BPF side's
    ``frame_rule.slots``."""
    signal_context: SignalContext


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """An instruction that stops a traced process (ptrace(2)) with SIGTRAP."""

    code: bytes
    advances: int
    """How far behind its first byte the program counter stands then."""
    pc: int
    """Offset of the program counter in the register set NT_PRSTATUS."""

    def over(self, word: int) -> int:
        """Return a word of code that begins with the breakpoint."""
        kept = word >> 8 * len(self.code) << 8 * len(self.code)
        return kept | int.from_bytes(self.code, "little")


@dataclass(frozen=True, slots=True)
class Architecture:
    """One kind of processor."""

    elf_machine: str
    elf_machine_number: int
    """``e_machine`` of its programs."""
    sys_bpf: int
    sys_perf_event_open: int
    registers: Registers
    signal_return: bytes
    """Code that a signal handler returns to: rt_sigreturn(2)."""
    epilogues: tuple[tuple[bytes, int], ...]
    """Code that, where it follows a call, says by itself where the frame ends: the code, and the
    CFA less the stack pointer."""
    call_before: re.Pattern[bytes]
    """Matches CALL_BYTES_MAX bytes that may end with a call instruction."""
    breakpoint: Breakpoint


CALL_BYTES_MAX = 7
"""Bytes of the longest call instruction."""


ARCHITECTURES = {
    "x86_64": Architecture(
        elf_machine="EM_X86_64",
        elf_machine_number=62,
        # arch/x86/entry/syscalls/syscall_64.tbl; the C library has no wrapper for these two
        sys_bpf=321,
        sys_perf_event_open=298,
        # rbp; rbx, r12 to r15 (System V ABI x86-64, figure 3.36)
        registers=Registers(
            stack_pointer=7,
            frame_pointer=6,
            return_address=16,
            saved=(6, 3, 12, 13, 14, 15),
            # struct ucontext (arch/x86/include/uapi/asm/sigcontext.h)
            signal_context=SignalContext(sp=160, pc=168, saved=(120, 128, 72, 80, 88, 96)),
        ),
        # mov $15, %rax; syscall: what gdb and libgcc look for too
        signal_return=b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05",
        # add $8, %rsp; ret (Python/asm_trampoline.S of CPython)
        epilogues=((b"\x48\x83\xc4\x08\xc3", 16),),
        # call rel32; call *operand
        call_before=re.compile(
            rb"(?:\xe8.{4}|\xff[\x10-\x17\x50-\x57\x90-\x97\xd0-\xd7].{0,5})\Z", re.DOTALL
        ),
        # int3; struct user_regs_struct (arch/x86/include/asm/user_64.h)
        breakpoint=Breakpoint(b"\xcc", advances=1, pc=128),
    )
}
"""By the machine name of uname(2)."""


def this_machine() -> Architecture | None:
    """Return this machine's row, or None where leaktop does not know the processor."""
    return ARCHITECTURES.get(platform.machine())
