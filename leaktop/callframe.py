"""Call frame information: how to leave the frame of one address, from ``.eh_frame``.

A file's ``.eh_frame_hdr`` holds a sorted table of functions; one binary search and the decoding of
one entry answer a question, however large the file is. Programs that are linked statically may have
no such table; for them it is made, by going over all entries once. Formats: LSB Core 5.0, 10.6
(eh_frame and its header) and DWARF 5, 6.4 (the instructions). The bytes are hostile: every read is
bounded, and what is wrong with them is a CallFrameError.
"""

import array
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from leaktop.cursor import ABSOLUTE, DATA_RELATIVE, OMIT, SIGNED_4, CallFrameError, Cursor
from leaktop.elf import ElfAddress, ElfFile

_ENTRY_MAX = 1 << 20
"""Bytes of one entry; the largest real ones have some ten thousand."""
_STATES_MAX = 64
"""Nested DW_CFA_remember_state."""
_REGISTERS_MAX = 256
"""Processors have fewer; a state with more would take much memory."""
_COMMONS_MAX = 64
"""Common entries that are kept; real files have some dozens."""
_SCAN_MAX = 1 << 20
"""Functions of a file without a search table."""
_PAIR_BYTES = 8
_REGISTERS_MAX = 256
"""Processors have fewer; a state with more would take much memory."""
_COMMONS_MAX = 64
"""Common entries that are kept; real files have some dozens."""
_SCAN_MAX = 1 << 20
"""Functions of a file without a search table."""
_PAIR_BYTES = 8
_LEB_MAX = 10
"""Bytes of a number of 64 bits in LEB128."""

_U32 = 0xFFFFFFFF
_TABLE_ENCODING = DATA_RELATIVE | SIGNED_4


class Kind(Enum):
    """How a register of the caller is found; names as in DWARF 5, 6.4.1."""

    UNDEFINED = "undefined"
    SAME_VALUE = "same value"
    OFFSET = "offset"
    """Saved at CFA + value."""
    VAL_OFFSET = "val_offset"
    """Is CFA + value."""
    REGISTER = "register"
    """Is in the register numbered value."""
    EXPRESSION = "expression"
    """Saved at the address that the expression computes."""
    VAL_EXPRESSION = "val_expression"
    """Is what the expression computes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where one register of the caller is."""

    kind: Kind
    value: int = 0
    expression: bytes = b""


@dataclass(frozen=True, slots=True)
class Cfa:
    """The canonical frame address: a register and an offset, or an expression."""

    register: int = 0
    offset: int = 0
    expression: bytes | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """How to leave a frame at one address."""

    cfa: Cfa
    registers: Mapping[int, Rule]
    """Registers without a rule keep their value."""
    return_register: int
    signal_frame: bool
    """The caller was interrupted: its address is no return address."""


@dataclass(frozen=True, slots=True)
class _Common:
    """A common information entry."""

    code_factor: int
    data_factor: int
    return_register: int
    pointer_encoding: int
    augmented: bool
    signal_frame: bool
    instructions: bytes


@dataclass(frozen=True, slots=True)
class _Function:
    """A frame description entry; its instructions can be read once."""

    common: _Common
    start: int
    size: int
    instructions: Cursor


Table = npt.NDArray[np.int32]
"""Rows of (function, its entry), sorted; addresses less the table's base."""


class CallFrames:
    """The call frame information of one file.

    ``table`` says where each function's entry is, relative to the ELF address ``base``;
    ``read(address, size)`` returns bytes of the file at an ELF address, as many as there are.
    """

    def __init__(self, base: int, table: Table, read: Callable[[int, int], bytes]) -> None:
        self._base = base
        self._table = table
        self._read = read
        self._commons: dict[int, _Common] = {}

    def row(self, address: int) -> Row | None:
        """Return the row for an ELF address, or None where no function is described.

        Raises CallFrameError.
        """
        function = self._function(address)
        if function is None:
            return None
        common = function.common
        machine = _Machine(common, function.start, address)
        machine.run(Cursor(common.instructions, 0))
        machine.keep_initial()
        machine.run(function.instructions)
        return Row(machine.cfa, machine.registers, common.return_register, common.signal_frame)

    def extent(self, address: int) -> tuple[int, int] | None:
        """Return start and size in bytes of the function, or the part of one, at an ELF address.

        Raises CallFrameError.
        """
        function = self._function(address)
        return None if function is None else (function.start, function.size)

    def _function(self, address: int) -> "_Function | None":
        relative = address - self._base
        if not -(1 << 31) <= relative < 1 << 31:
            return None
        index = int(np.searchsorted(self._table[:, 0], relative, side="right")) - 1
        if index < 0:
            return None
        function = self._parse_function(self._base + int(self._table[index, 1]))
        return function if 0 <= address - function.start < function.size else None

    def _parse_function(self, entry: int) -> "_Function":
        cursor = self._entry(entry)
        pointer_at = cursor.address
        distance = cursor.fixed(4)
        if not distance:
            raise CallFrameError("the search table leads to no function")
        common = self._common(pointer_at - distance)
        start = cursor.pointer(common.pointer_encoding, self._base)
        # the length has the pointer's format but is relative to nothing
        size = cursor.pointer(common.pointer_encoding & 0x0F, self._base)
        if common.augmented:
            cursor.skip(cursor.uleb())
        return _Function(common, start, size, cursor)

    def _entry(self, address: int) -> Cursor:
        head = Cursor(self._read(address, 12), address)
        length = head.fixed(4)
        if length == _U32:
            raise CallFrameError("an entry in the 64-bit format")
        if not 4 <= length <= _ENTRY_MAX:
            raise CallFrameError(f"an entry of {length} bytes")
        return Cursor(self._read(address + 4, length), address + 4)

    def _common(self, address: int) -> _Common:
        if address not in self._commons:
            if len(self._commons) >= _COMMONS_MAX:
                self._commons.clear()
            self._commons[address] = _parse_common(self._entry(address), self._base)
        return self._commons[address]


def call_frames_of(elf: ElfFile) -> CallFrames | None:
    """Return the call frame information of a file, None where it has none.

    Raises ElfError.
    """

    def read(address: int, size: int) -> bytes:
        return elf.read_at(ElfAddress(address), size)

    header = elf.eh_frame_header()
    if header is not None:
        with contextlib.suppress(CallFrameError):
            return CallFrames(header[0], table_in_header(*header), read)
    section = elf.eh_frame()
    return None if section is None else CallFrames(section[0], table_of(*section), read)


def table_in_header(address: int, header: bytes) -> Table:
    """Return the search table of ``.eh_frame_hdr``, which lies at an ELF address.

    Its base is that address. Raises CallFrameError where there is none.
    """
    cursor = Cursor(header, address)
    version, frame_encoding, count_encoding, table_encoding = (cursor.u1() for _ in range(4))
    if version != 1 or table_encoding != _TABLE_ENCODING or count_encoding == OMIT:
        raise CallFrameError(".eh_frame_hdr has no search table")
    cursor.pointer(frame_encoding, address)
    count = cursor.pointer(count_encoding, address)
    pairs = cursor.rest()
    count = min(count, len(pairs) // _PAIR_BYTES)
    return np.frombuffer(pairs[: count * _PAIR_BYTES], "<i4").reshape(count, 2)


def table_of(address: int, section: bytes) -> Table:
    """Return a search table for a whole ``.eh_frame``, which lies at an ELF address.

    Its base is that address. What comes after damage is left out.
    """
    pairs = array.array("i")
    encodings: dict[int, int] = {}
    cursor = Cursor(section, address)
    with contextlib.suppress(CallFrameError):
        while not cursor.at_end and len(pairs) < 2 * _SCAN_MAX:
            entry = cursor.position
            length = cursor.fixed(4)
            if not length:  # a terminator; another object's entries may follow
                continue
            following = cursor.position + length
            common = cursor.position
            common -= cursor.fixed(4)
            if common != following - length:
                if common not in encodings:
                    encodings[common] = _pointer_encoding(section, address, common)
                start = cursor.pointer(encodings[common], address) - address
                if -(1 << 31) <= start < 1 << 31:
                    pairs.extend((start, entry))
            cursor.skip(following - cursor.position)
    table = np.frombuffer(pairs, np.int32).reshape(-1, 2)
    return table[np.argsort(table[:, 0], kind="stable")]


def _pointer_encoding(section: bytes, address: int, common: int) -> int:
    if common < 0:
        raise CallFrameError("a function's common entry is none")
    length = Cursor(section[common : common + 4], 0).fixed(4)
    entry = section[common + 4 : common + 4 + min(length, _ENTRY_MAX)]
    return _parse_common(Cursor(entry, address + common + 4), address).pointer_encoding


def _parse_common(cursor: Cursor, base: int) -> _Common:
    if cursor.fixed(4):
        raise CallFrameError("a function's common entry is none")
    version = cursor.u1()
    if version not in (1, 3, 4):
        raise CallFrameError(f"a common entry of version {version}")
    augmentation = cursor.text()
    if version == 4:
        cursor.skip(2)  # sizes of an address and of a segment selector
    code_factor, data_factor = cursor.uleb(), cursor.sleb()
    return_register = cursor.u1() if version == 1 else cursor.uleb()
    encoding, signal_frame = ABSOLUTE, False
    augmented = augmentation.startswith("z")
    if augmented:
        end = cursor.uleb()
        end += cursor.position
        for letter in augmentation[1:]:
            if letter == "R":
                encoding = cursor.u1()
            elif letter == "S":
                signal_frame = True
            elif letter == "L":
                cursor.u1()
            elif letter == "P":
                cursor.pointer(cursor.u1(), base)
            elif letter != "B":
                break  # what follows is not known, and its length says where it ends
        cursor.skip(end - cursor.position)
    elif augmentation:
        raise CallFrameError(f"augmentation {augmentation!r}")
    return _Common(
        code_factor=code_factor,
        data_factor=data_factor,
        return_register=return_register,
        pointer_encoding=encoding,
        augmented=augmented,
        signal_frame=signal_frame,
        instructions=cursor.rest(),
    )


@dataclass(slots=True)
class _Machine:
    """Runs call frame instructions up to one address."""

    common: _Common
    location: int
    address: int
    cfa: Cfa = field(default_factory=Cfa)
    registers: dict[int, Rule] = field(default_factory=dict)
    _initial: dict[int, Rule] = field(default_factory=dict)
    _states: list[tuple[Cfa, dict[int, Rule]]] = field(default_factory=list)

    def keep_initial(self) -> None:
        """Take the rules so far as those that DW_CFA_restore goes back to."""
        self._initial = dict(self.registers)

    def run(self, cursor: Cursor) -> None:
        """Run until the rules for the address are complete."""
        while not cursor.at_end and self.location <= self.address:
            opcode = cursor.u1()
            high, low = opcode & 0xC0, opcode & 0x3F
            if high == 0x40:  # DW_CFA_advance_loc
                self._advance(low)
            elif high == 0x80:  # DW_CFA_offset
                self._offset(low, cursor.uleb())
            elif high == 0xC0:  # DW_CFA_restore
                self._restore(low)
            else:
                self._extended(opcode, cursor)

    def _extended(self, opcode: int, cursor: Cursor) -> None:
        if opcode in (0x02, 0x03, 0x04):  # DW_CFA_advance_loc1, 2, 4
            self._advance(cursor.fixed(1 << (opcode - 2)))
        elif opcode in _CFA_INSTRUCTIONS:
            _CFA_INSTRUCTIONS[opcode](self, cursor)
        elif opcode in _REGISTER_INSTRUCTIONS:
            register = cursor.uleb()
            if register >= _REGISTERS_MAX:
                raise CallFrameError(f"register {register}")
            _REGISTER_INSTRUCTIONS[opcode](self, register, cursor)
        elif opcode == 0x0A:  # DW_CFA_remember_state
            if len(self._states) == _STATES_MAX:
                raise CallFrameError("too many remembered states")
            self._states.append((self.cfa, dict(self.registers)))
        elif opcode == 0x0B:  # DW_CFA_restore_state
            if not self._states:
                raise CallFrameError("a state is restored that was not remembered")
            self.cfa, self.registers = self._states.pop()
        elif opcode == 0x2E:  # DW_CFA_GNU_args_size
            cursor.uleb()
        elif opcode == 0x01:  # DW_CFA_set_loc
            self.location = cursor.pointer(self.common.pointer_encoding, 0)
        elif opcode:  # DW_CFA_nop
            raise CallFrameError(f"call frame instruction {opcode:#x}")

    def _advance(self, delta: int) -> None:
        self.location += delta * self.common.code_factor

    def _offset(self, register: int, factored: int) -> None:
        self.registers[register] = Rule(Kind.OFFSET, factored * self.common.data_factor)

    def _restore(self, register: int) -> None:
        if register in self._initial:
            self.registers[register] = self._initial[register]
        else:
            self.registers.pop(register, None)

    def _define_cfa(self, register: int, offset: int) -> None:
        self.cfa = Cfa(register, offset)

    def _set(self, register: int, kind: Kind, value: int = 0, expression: bytes = b"") -> None:
        self.registers[register] = Rule(kind, value, expression)


def _factored(machine: _Machine, value: int) -> int:
    return value * machine.common.data_factor


_CFA_INSTRUCTIONS: dict[int, Callable[[_Machine, Cursor], None]] = {
    0x0C: lambda m, c: m._define_cfa(c.uleb(), c.uleb()),  # DW_CFA_def_cfa
    0x0D: lambda m, c: m._define_cfa(c.uleb(), m.cfa.offset),  # def_cfa_register
    0x0E: lambda m, c: m._define_cfa(m.cfa.register, c.uleb()),  # def_cfa_offset
    0x0F: lambda m, c: setattr(m, "cfa", Cfa(expression=c.block())),  # def_cfa_expression
    0x12: lambda m, c: m._define_cfa(c.uleb(), _factored(m, c.sleb())),  # def_cfa_sf
    0x13: lambda m, c: m._define_cfa(m.cfa.register, _factored(m, c.sleb())),  # def_cfa_offset_sf
}
"""Instructions about the CFA."""

_REGISTER_INSTRUCTIONS: dict[int, Callable[[_Machine, int, Cursor], None]] = {
    0x05: lambda m, r, c: m._offset(r, c.uleb()),  # DW_CFA_offset_extended
    0x06: lambda m, r, c: m._restore(r),  # restore_extended
    0x07: lambda m, r, c: m._set(r, Kind.UNDEFINED),
    0x08: lambda m, r, c: m._set(r, Kind.SAME_VALUE),
    0x09: lambda m, r, c: m._set(r, Kind.REGISTER, c.uleb()),
    0x10: lambda m, r, c: m._set(r, Kind.EXPRESSION, expression=c.block()),
    0x11: lambda m, r, c: m._offset(r, c.sleb()),  # offset_extended_sf
    0x14: lambda m, r, c: m._set(r, Kind.VAL_OFFSET, _factored(m, c.uleb())),
    0x15: lambda m, r, c: m._set(r, Kind.VAL_OFFSET, _factored(m, c.sleb())),
    0x16: lambda m, r, c: m._set(r, Kind.VAL_EXPRESSION, expression=c.block()),
    0x2F: lambda m, r, c: m._offset(r, -c.uleb()),  # GNU_negative_offset_extended
}
"""Instructions about a register, whose number they begin with."""
