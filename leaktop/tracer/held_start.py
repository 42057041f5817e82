"""Starts a program and holds it at its entry point, until somebody lets it go.

At the entry point (AT_ENTRY, getauxval(3)) the dynamic linker has mapped and relocated all
libraries and run their constructors; the program's own constructors and main come after. The
program is stopped there by a breakpoint, under ptrace(2), which is over when it is let go: then
neither code nor process differ from those of one that was started by a shell.
"""

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from leaktop.command import describe_end
from leaktop.tracer import TracerError
from leaktop.tracer.arch import Architecture
from leaktop.tracer.process import NO_TARGET

# include/uapi/linux/ptrace.h
_TRACEME, _PEEKTEXT, _POKETEXT, _CONT, _DETACH = 0, 1, 4, 7, 17
_SETOPTIONS, _GETREGSET, _SETREGSET = 0x4200, 0x4204, 0x4205
_O_EXITKILL = 0x100000
_NT_PRSTATUS = 1  # elf.h: the general registers
_AT_ENTRY = 9
_REGISTERS_MAX = 1024
_ELFCLASS64 = 2
_WORD = 8

Spawn = Callable[[Callable[[], None]], "subprocess.Popen[bytes]"]
"""Starts the process: its argument is to run in the child before exec (``preexec_fn``)."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class HeldStart:
    """One program that is held; whatever ends leaktop meanwhile ends it too, for it has not begun.

    ``wait`` for it, then either ``go`` or ``abandon``.
    """

    def __init__(self, spawn: Spawn, arch: Architecture) -> None:
        self._spawn = spawn
        self._arch = arch
        self._process: subprocess.Popen[bytes] | None = None
        self._error: BaseException | None = None
        self._abandoned = False
        self._reached, self._over = threading.Event(), threading.Event()
        # ptrace calls have to come from the thread that the process was started in
        self._thread = threading.Thread(target=self._run, name="leaktop-command", daemon=True)
        self._thread.start()

    def wait(self) -> "subprocess.Popen[bytes]":
        """Return the process once it is at its entry point.

        Raises OSError where it cannot be started, and TracerError where it has no entry point that
        leaktop can hold it at, or ended before.
        """
        try:
            self._reached.wait()
        except BaseException:
            self.abandon()
            raise
        if self._error is not None:
            raise self._error
        assert self._process is not None
        return self._process

    def go(self) -> None:
        """Let it run; returns at once."""
        self._over.set()

    def wait_until_over(self) -> None:
        """Wait until it is no longer traced: before that, it would end with leaktop."""
        self._thread.join()

    def abandon(self) -> None:
        """End it; nothing of it has run but its libraries' constructors.

        May be called twice, and does nothing to one that was let go.
        """
        if not self._over.is_set():
            self._abandoned = True
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._process = self._spawn(_trace_me)
            _Tracee(self._process, self._arch).run_to_entry()
        except BaseException as error:  # whoever waits raises it
            self._error = error
            self._reached.set()
            return
        self._reached.set()
        self._over.wait()
        if self._abandoned:
            self._process.kill()
            self._process.wait()
        else:
            with contextlib.suppress(OSError):  # somebody killed it
                _ptrace(_DETACH, self._process.pid, 0, 0)


class _Tracee:
    # a child in its exec's stop; for the thread that started it

    def __init__(self, process: "subprocess.Popen[bytes]", arch: Architecture) -> None:
        self._process = process
        self._pid = process.pid
        self._breakpoint = arch.breakpoint
        self._arch = arch

    def run_to_entry(self) -> None:
        try:
            self._next_stop()
            _ptrace(_SETOPTIONS, self._pid, 0, _O_EXITKILL)
            self._check_program()
            entry = self._entry()
            code = _ptrace(_PEEKTEXT, self._pid, entry, 0) & (1 << 8 * _WORD) - 1
            self._poke(entry, self._breakpoint.over(code))
            self._continue_to(entry)
            self._poke(entry, code)
            self._set_pc(entry)
        except BaseException:
            if self._process.returncode is None:
                os.kill(self._pid, signal.SIGKILL)
                while self._process.returncode is None:
                    self._wait()
            raise

    def _continue_to(self, entry: int) -> None:
        number = 0
        while True:
            _ptrace(_CONT, self._pid, 0, number)
            number = self._next_stop()
            if number == signal.SIGTRAP and self._pc() == entry + self._breakpoint.advances:
                return

    def _next_stop(self) -> int:
        # the signal that it stopped for, which _CONT has to pass on
        status = self._wait()
        if self._process.returncode is not None:
            how = describe_end(self._process.returncode)
            raise TracerError(f"the command {how} before its program began", NO_TARGET)
        return os.WSTOPSIG(status)

    def _wait(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        if not os.WIFSTOPPED(status):
            self._process.returncode = os.waitstatus_to_exitcode(status)
        return status

    def _check_program(self) -> None:
        with Path(f"/proc/{self._pid}/exe").open("rb") as program:
            header = program.read(20)
        (machine,) = struct.unpack_from("<H", header, 18)
        if header[4] != _ELFCLASS64 or machine != self._arch.elf_machine_number:
            kind = "a 32-bit program" if header[4] != _ELFCLASS64 else "of another processor"
            raise TracerError(f"the command is {kind}; leaktop traces 64-bit ones only", NO_TARGET)

    def _entry(self) -> int:
        words = struct.iter_unpack("=QQ", Path(f"/proc/{self._pid}/auxv").read_bytes())
        entry = dict(words).get(_AT_ENTRY)
        if not entry:
            raise TracerError("the kernel does not say where the command's program begins")
        return int(entry)

    def _poke(self, address: int, word: int) -> None:
        _ptrace(_POKETEXT, self._pid, address, word)

    def _pc(self) -> int:
        return int.from_bytes(self._registers()[self._pc_bytes], "little")

    def _set_pc(self, pc: int) -> None:
        registers = bytearray(self._registers())
        registers[self._pc_bytes] = pc.to_bytes(_WORD, "little")
        self._transfer(_SETREGSET, (ctypes.c_char * len(registers)).from_buffer(registers))

    @property
    def _pc_bytes(self) -> slice:
        return slice(self._breakpoint.pc, self._breakpoint.pc + _WORD)

    def _registers(self) -> bytes:
        buffer = (ctypes.c_char * _REGISTERS_MAX)()
        size = self._transfer(_GETREGSET, buffer)
        return buffer.raw[:size]

    def _transfer(self, request: int, buffer: "ctypes.Array[ctypes.c_char]") -> int:
        # struct iovec: the kernel writes how much it took or gave
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), ctypes.sizeof(buffer))
        _ptrace(request, self._pid, _NT_PRSTATUS, ctypes.addressof(vector))
        return vector[1]


def _trace_me() -> None:
    _ptrace(_TRACEME, 0, 0, 0)


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    ctypes.set_errno(0)
    result: int = _libc.ptrace(request, pid, address, data)
    if result == -1 and (number := ctypes.get_errno()):
        raise OSError(number, os.strerror(number))
    return result
