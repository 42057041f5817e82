"""Names of the kernel's own functions, as /proc/kallsyms lists them (kernel/kallsyms.c).

A line is ``ADDRESS TYPE name``, and for a module's or a BPF program's a tab and ``[module]`` behind
it; the address has 16 hexadecimal digits on 64-bit machines, the type is nm(1)'s. Names are those
of the kernel's source, so nothing is demangled. Names of modules and BPF programs come from whoever
loaded them.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

KERNEL = "[kernel]"
"""Pseudo module of the functions that are in no module."""

_MAX_TEXT = 64 << 20  # 1.5 million lines; there are 100 to 250 thousand
_MAX_NAME = 512  # KSYM_NAME_LEN (include/linux/kallsyms.h)
_MAX_FUNCTION = 256 << 10  # bytes: there are no sizes, and behind the last symbol nothing is known
_MAX_ALIASES = 16
_REST_S = 10.0  # before what is unknown is looked for again: modules come and go
_DIGITS = 16
_HEAD = _DIGITS + 3  # ADDRESS, blank, type, blank
_CODE = b"tTwW"
_GLOBAL = b"TW"
_HIDDEN = (
    "the kernel hides its addresses: run leaktop as root (CAP_SYSLOG); "
    "if it does so even then, `sysctl kernel.kptr_restrict=1` shows them to root"
)

_VALUES = np.full(256, 255, np.uint8)  # of hexadecimal digits
_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def is_kernel_address(address: int) -> bool:
    """Tell whether an address is the kernel's: the upper half (arch/x86/x86_64/mm.rst in Linux)."""
    return 1 << 63 <= address < 1 << 64


@dataclass(frozen=True, slots=True)
class KernelSymbol:
    """A function of the kernel."""

    name: str
    start: int
    module: str
    """``[kernel]``, or the module's name in brackets; BPF programs are in ``[bpf]``."""


class KernelSymbols:
    """The running kernel's functions by address, read when the first is asked for.

    For one thread at a time. Nothing is raised: ``problem`` says why there are no names.
    """

    def __init__(self, path: Path = Path("/proc/kallsyms")) -> None:
        """``path`` is of a file in the form of /proc/kallsyms."""
        self.problem: str | None = None
        """Why nothing is named, and what to do, in one line."""
        self._path = path
        self._rest_until = 0.0
        self._take(b"")

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, address: int) -> KernelSymbol | None:
        """Return the function that holds an address, None where none is known to."""
        if not is_kernel_address(address):
            return None
        found = self._look_up(address)
        if found is None and time.monotonic() >= self._rest_until:
            self._read()
            self._rest_until = time.monotonic() + _REST_S
            found = self._look_up(address)
        return found

    def ranges(self, names: re.Pattern[bytes]) -> list[tuple[int, int]]:
        """Return where the code begins and ends of the kernel's own functions with such names.

        Marks of compiler clones (``.isra.0``) are not part of a name.
        """
        if not len(self):
            self._read()
        line = re.compile(
            rb"^([0-9a-f]{16}) [%s] (?:%s)(?:\.[\w.]+)?$" % (_CODE, names.pattern), re.MULTILINE
        )
        starts = sorted({int(found[1], 16) for found in line.finditer(self._text)} - {0})
        behind = np.searchsorted(self._starts, np.array(starts, np.uint64), side="right")
        return [
            (start, int(self._starts[index]))
            for start, index in zip(starts, behind.tolist(), strict=True)
            if index < len(self._starts)
        ]

    def _read(self) -> None:
        try:
            with self._path.open("rb", buffering=0) as stream:
                text = _read_all(stream.fileno())
        except OSError as error:
            self.problem = f"{self._path} cannot be read: {error.strerror}"
            return
        self._take(text)
        if len(self):
            self.problem = None
        else:
            hidden = text.startswith(b"0" * _DIGITS)
            self.problem = _HIDDEN if hidden else f"{self._path} lists no functions"

    def _take(self, text: bytes) -> None:
        # arrays by address, of every symbol: data ends a function, too
        self._text = text
        lines, starts = _parse(text)
        order = np.argsort(starts, kind="stable")
        self._starts, self._lines = starts[order], lines[order]

    def _look_up(self, address: int) -> KernelSymbol | None:
        last = int(np.searchsorted(self._starts, np.uint64(address), side="right"))
        if not last:
            return None
        start = int(self._starts[last - 1])
        if address - start >= _MAX_FUNCTION:
            return None
        first = int(np.searchsorted(self._starts, np.uint64(start), side="left"))
        return self._best(self._lines[first:last][:_MAX_ALIASES].tolist(), start)

    def _best(self, lines: list[int], start: int) -> KernelSymbol | None:
        # of the symbols at one address, by what people call the function; the first where equal
        best, chosen = None, None
        for at in lines:
            kind = self._text[at + _DIGITS + 1]
            end = self._text.find(b"\n", at, at + _HEAD + 2 * _MAX_NAME)
            line = self._text[at + _HEAD : max(end, at)]
            name, module = (part.strip() for part in line.partition(b"\t")[::2])
            if kind not in _CODE or not name:
                continue
            rank = (len(name) - len(name.lstrip(b"_")), kind not in _GLOBAL)
            if best is None or rank < best:
                best, chosen = rank, (name[:_MAX_NAME], module[:_MAX_NAME])
        if chosen is None:
            return None
        text, place = (each.decode("utf-8", "backslashreplace") for each in chosen)
        return KernelSymbol(text, start, place or KERNEL)


def _read_all(descriptor: int) -> bytes:
    text = bytearray()
    while len(text) < _MAX_TEXT and (data := os.read(descriptor, 1 << 20)):
        text += data
    return bytes(text)


def _parse(text: bytes) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    # where each line begins that has the form, and its address; a line that was cut has no end
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    begins = np.concatenate([np.zeros(1, np.intp), ends[:-1] + 1])[: len(ends)]
    begins = begins[ends - begins > _HEAD]
    whole = (data[begins + _DIGITS] == ord(" ")) & (data[begins + _HEAD - 1] == ord(" "))
    begins = begins[whole]
    addresses = np.zeros(len(begins), np.uint64)
    valid = np.ones(len(begins), np.bool_)
    for digit in range(_DIGITS):
        values = _VALUES[data[begins + digit]]
        valid &= values < 16  # noqa: PLR2004
        addresses = (addresses << np.uint64(4)) | (values & 15).astype(np.uint64)
    valid &= addresses >= np.uint64(1 << 63)  # what is hidden is 0, what is per CPU is small
    return begins[valid].astype(np.uint32), addresses[valid]
