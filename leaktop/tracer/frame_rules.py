"""Turns call frame information into the rules that the kernel side walks with.

A rule says in 16 bytes how to leave one frame (``struct frame_rule`` in ``bpf/memleak.h``). What it
cannot say, a CFA computed from a register that nobody saved for instance, becomes a rule that stops
the walk as truncated: never a guess. Expressions: DWARF 5, 2.5.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

from leaktop.callframe import Cfa, Kind, Row, Rule
from leaktop.cursor import CallFrameError, Cursor
from leaktop.tracer.arch import Registers

BASE_OUTERMOST, BASE_UNKNOWN, BASE_SP, BASE_SAVED = range(4)
"""``enum frame_base``; BASE_SAVED + i is the i-th register of ``Registers.saved``."""
FLAG_LOADED, FLAG_SLOTS_FROM_FP, FLAG_SIGNAL = 1, 2, 4
"""``enum frame_flag``."""
SLOT_SAME, SLOT_LOST = 127, 126
"""A slot's values that are no place: the register keeps its value; it cannot be followed."""

_WORD = 8
_SLOT_MIN, _SLOT_MAX = -128, 125
_OFFSET_MAX = 2**31
_OPERATIONS_MAX = 64
_STACK_MAX = 16
_U64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class FrameRule:
    """How to leave the frame of one code address."""

    base: int
    cfa_offset: int = 0
    load_offset: int = 0
    flags: int = 0
    slots: tuple[int, ...] = (SLOT_SAME,) * 6
    """Where each register of ``Registers.saved`` lies, in words from the CFA (or from the frame
    pointer, with FLAG_SLOTS_FROM_FP)."""


OUTERMOST = FrameRule(BASE_OUTERMOST)
UNKNOWN = FrameRule(BASE_UNKNOWN)
FRAME_POINTER = FrameRule(BASE_SAVED, cfa_offset=2 * _WORD, slots=(-2, *((SLOT_LOST,) * 5)))
"""For code without call frame information: what a function that sets up a frame pointer does."""
SIGNAL_FRAME = FrameRule(BASE_SP, flags=FLAG_SIGNAL)
"""All registers lie where the kernel put them."""


def rule_of(row: Row, address: int, registers: Registers) -> FrameRule:
    """Return the rule for a frame whose code address, in the file, is ``address``."""
    at_return = row.registers.get(row.return_register)
    if at_return is not None and at_return.kind is Kind.UNDEFINED:
        return OUTERMOST
    if row.signal_frame:
        return SIGNAL_FRAME  # whatever the unwinder is told
    return _called_frame(row, address, registers)


def _called_frame(row: Row, address: int, registers: Registers) -> FrameRule:
    at_return = row.registers.get(row.return_register)
    if at_return is None or at_return.kind is not Kind.OFFSET or at_return.value != -_WORD:
        return UNKNOWN
    try:
        cfa = _cfa(row.cfa, address, registers)
    except CallFrameError:
        return UNKNOWN
    bases = {registers.stack_pointer: BASE_SP}
    bases |= {register: BASE_SAVED + i for i, register in enumerate(registers.saved)}
    if cfa.register not in bases or max(abs(cfa.offset), abs(cfa.inner)) >= _OFFSET_MAX:
        return UNKNOWN
    slots, from_fp = _slots(row, address, registers)
    return FrameRule(
        base=bases[cfa.register],
        cfa_offset=cfa.offset,
        load_offset=cfa.inner,
        flags=FLAG_LOADED * cfa.loaded | FLAG_SLOTS_FROM_FP * from_fp,
        slots=slots,
    )


@dataclass(frozen=True, slots=True)
class _Value:
    """What an expression computes: a register, or the word at register + inner, plus offset."""

    register: int | None
    offset: int = 0
    loaded: bool = False
    inner: int = 0


def _cfa(cfa: Cfa, address: int, registers: Registers) -> _Value:
    if cfa.expression is None:
        return _Value(cfa.register, cfa.offset)
    return evaluate(cfa.expression, address, registers)


def _slots(row: Row, address: int, registers: Registers) -> tuple[tuple[int, ...], bool]:
    """Return the slots, and whether they count from the frame pointer.

    A function that aligns its stack describes its saves from the frame pointer, others from the
    CFA; a register that is saved the other way is lost.
    """
    places = [
        _place(row.registers.get(register), register, address, registers)
        for register in registers.saved
    ]
    from_fp = any(from_fp for _, from_fp in places)
    return (
        tuple(
            slot if slot in (SLOT_SAME, SLOT_LOST) or is_from_fp == from_fp else SLOT_LOST
            for slot, is_from_fp in places
        ),
        from_fp,
    )


def _place(
    rule: Rule | None, register: int, address: int, registers: Registers
) -> tuple[int, bool]:
    if rule is None or rule.kind is Kind.SAME_VALUE:
        return SLOT_SAME, False
    if rule.kind is Kind.REGISTER and rule.value == register:
        return SLOT_SAME, False
    if rule.kind is Kind.OFFSET:
        return _slot(rule.value), False
    if rule.kind is Kind.EXPRESSION:
        try:
            value = evaluate(rule.expression, address, registers)
        except CallFrameError:
            return SLOT_LOST, False
        if value.register == registers.frame_pointer and not value.loaded:
            return _slot(value.offset), True
    return SLOT_LOST, False


def _slot(offset: int) -> int:
    words, rest = divmod(offset, _WORD)
    return words if not rest and _SLOT_MIN <= words <= _SLOT_MAX else SLOT_LOST


def evaluate(expression: bytes, address: int, registers: Registers) -> _Value:
    """Evaluate a DWARF expression as far as it is linear in one register.

    The code address is known, so what depends on it is a number: the expression of a PLT entry
    becomes an offset. Raises CallFrameError for anything else.
    """
    return _Evaluation(expression, address, registers).result()


class _Evaluation:
    """A stack machine over values that are linear in one register."""

    def __init__(self, expression: bytes, address: int, registers: Registers) -> None:
        self._cursor = Cursor(expression, 0)
        self._address = address
        self._registers = registers
        self._stack: list[_Value] = []

    def result(self) -> _Value:
        """Run the expression and return what it leaves."""
        for _ in range(_OPERATIONS_MAX):
            if self._cursor.at_end:
                return self._pop()
            self._step(self._cursor.u1())
        raise CallFrameError("an expression of too many operations")

    def _step(self, operation: int) -> None:
        if 0x30 <= operation <= 0x4F:  # DW_OP_lit0..31
            self._push(_Value(None, operation - 0x30))
        elif 0x70 <= operation <= 0x8F:  # DW_OP_breg0..31
            self._push(self._based(operation - 0x70, self._cursor.sleb()))
        elif operation == 0x92:  # DW_OP_bregx
            self._push(self._based(self._cursor.uleb(), self._cursor.sleb()))
        elif 0x08 <= operation <= 0x0F:  # DW_OP_const1u, 1s, 2u, ... 8s
            size = 1 << (operation - 0x08 >> 1)
            self._push(_Value(None, self._cursor.fixed(size, signed=bool(operation & 1))))
        elif operation == 0x10:  # DW_OP_constu
            self._push(_Value(None, self._cursor.uleb()))
        elif operation == 0x11:  # DW_OP_consts
            self._push(_Value(None, self._cursor.sleb()))
        elif operation == 0x06:  # DW_OP_deref
            self._push(_loaded(self._pop()))
        elif operation == 0x12:  # DW_OP_dup
            self._push(self._pick(0))
        elif operation == 0x23:  # DW_OP_plus_uconst
            self._push(_sum(self._pop(), _Value(None, self._cursor.uleb())))
        elif operation in _BINARY:
            right, left = self._pop(), self._pop()
            self._push(_BINARY[operation](left, right))
        elif operation != 0x96:  # DW_OP_nop
            raise CallFrameError(f"operation {operation:#x} in an expression")

    def _based(self, register: int, offset: int) -> _Value:
        if register == self._registers.return_address:  # the code address itself
            return _Value(None, self._address + offset)
        return _Value(register, offset)

    def _push(self, value: _Value) -> None:
        if len(self._stack) == _STACK_MAX:
            raise CallFrameError("an expression that needs too much room")
        self._stack.append(value)

    def _pop(self) -> _Value:
        value = self._pick(0)
        self._stack.pop()
        return value

    def _pick(self, depth: int) -> _Value:
        if len(self._stack) <= depth:
            raise CallFrameError("an expression that takes what is not there")
        return self._stack[-1 - depth]


def _loaded(value: _Value) -> _Value:
    if value.loaded or value.register is None:
        raise CallFrameError("an expression that follows more than one pointer")
    return _Value(value.register, 0, loaded=True, inner=value.offset)


def _sum(left: _Value, right: _Value) -> _Value:
    if left.register is None:
        left, right = right, left
    if right.register is not None:
        raise CallFrameError("an expression of two registers")
    return replace(left, offset=left.offset + right.offset)


def _difference(left: _Value, right: _Value) -> _Value:
    return _sum(left, _Value(None, -_number(right)))


def _number(value: _Value) -> int:
    if value.register is not None:
        raise CallFrameError("an expression that is not linear in a register")
    return value.offset


def _shifted(left: int, right: int) -> int:
    return left << right & _U64 if 0 <= right < 64 else 0


def _numbers(compute: Callable[[int, int], int]) -> Callable[[_Value, _Value], _Value]:
    return lambda left, right: _Value(None, int(compute(_number(left), _number(right))))


_BINARY: dict[int, Callable[[_Value, _Value], _Value]] = {
    0x1C: _difference,  # DW_OP_minus
    0x22: _sum,  # DW_OP_plus
    0x1A: _numbers(operator.and_),
    0x21: _numbers(operator.or_),
    0x24: _numbers(_shifted),  # DW_OP_shl
    0x29: _numbers(operator.eq),
    0x2A: _numbers(operator.ge),
    0x2B: _numbers(operator.gt),
    0x2C: _numbers(operator.le),
    0x2D: _numbers(operator.lt),
    0x2E: _numbers(operator.ne),
}
