"""From call frame information to the rules that the kernel side walks with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop.callframe import Cfa, Kind, Row, Rule
from leaktop.cursor import CallFrameError
from leaktop.tracer.arch import ARCHITECTURES
from leaktop.tracer.frame_rules import (
    BASE_SAVED,
    BASE_SP,
    FLAG_LOADED,
    FLAG_SLOTS_FROM_FP,
    OUTERMOST,
    SIGNAL_FRAME,
    SLOT_LOST,
    SLOT_SAME,
    UNKNOWN,
    FrameRule,
    evaluate,
    rule_of,
)
from tests.unit.cfibuild import sleb, uleb

REGISTERS = ARCHITECTURES["x86_64"].registers
RBX, RBP, RSP, R10, R12, R13, R15, RA = 3, 6, 7, 10, 12, 13, 15, 16
ADDRESS = 0x4010A3
RETURN = {RA: Rule(Kind.OFFSET, -8)}
SAME = SLOT_SAME


def rule(cfa: Cfa, registers: dict[int, Rule] | None = None, *, signal: bool = False) -> FrameRule:
    row = Row(cfa, RETURN | (registers or {}), RA, signal_frame=signal)
    return rule_of(row, ADDRESS, REGISTERS)


def saved(offset: int) -> Rule:
    return Rule(Kind.OFFSET, offset)


def expressed(*operations: int) -> Rule:
    return Rule(Kind.EXPRESSION, 0, bytes(operations))


def test_a_frame_without_frame_pointer() -> None:
    found = rule(Cfa(RSP, 64), {RBX: saved(-32), RBP: saved(-24), R12: saved(-16)})
    assert found == FrameRule(BASE_SP, 64, slots=(-3, -4, -2, SAME, SAME, SAME))


def test_a_frame_with_frame_pointer() -> None:
    found = rule(Cfa(RBP, 16), {RBP: saved(-16), R15: saved(-24)})
    assert found == FrameRule(BASE_SAVED, 16, slots=(-2, SAME, SAME, SAME, SAME, -3))


def test_a_frame_from_another_saved_register() -> None:
    assert rule(Cfa(R13, 8)) == FrameRule(BASE_SAVED + 3, 8)


def test_an_aligned_frame() -> None:
    """What gcc writes where the stack is aligned: the CFA was stored below the frame pointer."""
    found = rule(
        Cfa(expression=bytes((0x76, 0x78, 0x06))),  # breg6 -8, deref
        {
            RBP: expressed(0x76, 0x00),
            R13: expressed(0x76, 0x70),  # -16
            R12: expressed(0x76, 0x68),  # -24
            RBX: expressed(0x76, 0x58),  # -40
        },
    )
    flags = FLAG_LOADED | FLAG_SLOTS_FROM_FP
    assert found == FrameRule(BASE_SAVED, 0, -8, flags, (0, -5, -3, -2, SAME, SAME))


PLT = bytes((0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x3B, 0x2A, 0x33, 0x24, 0x22))


@pytest.mark.parametrize(
    ("address", "offset"), [(0x1020, 8), (0x102A, 8), (0x102B, 16), (0x102F, 16)]
)
def test_an_entry_of_the_plt(address: int, offset: int) -> None:
    """The psABI's: rsp+8, and 8 more once the entry has pushed its index."""
    row = Row(Cfa(expression=PLT), RETURN, RA, signal_frame=False)
    assert rule_of(row, address, REGISTERS) == FrameRule(BASE_SP, offset)


def test_signal_frames_are_the_kernel_s() -> None:
    assert rule(Cfa(expression=b"\x77\xa0\x01\x06"), signal=True) == SIGNAL_FRAME
    row = Row(Cfa(expression=b"\xff"), {}, RA, signal_frame=True)
    assert rule_of(row, ADDRESS, REGISTERS) == SIGNAL_FRAME


def test_the_outermost_frame() -> None:
    assert rule(Cfa(RSP, 8), {RA: Rule(Kind.UNDEFINED)}) == OUTERMOST


@pytest.mark.parametrize(
    ("cfa", "registers"),
    [
        (Cfa(R10, 0), {}),  # nobody saves r10
        (Cfa(RSP, 2**31), {}),
        (Cfa(expression=b""), {}),
        (Cfa(expression=b"\x96" * 65), {}),
        (Cfa(expression=b"\x30" * 17), {}),
        (Cfa(expression=b"\x40"), {}),  # a number
        (Cfa(expression=b"\x77\x08\x06\x06"), {}),  # two pointers
        (Cfa(expression=b"\x77\x00\x76\x00\x22"), {}),  # rsp + rbp
        (Cfa(expression=b"\x77\x00\x32\x24"), {}),  # rsp << 2
        (Cfa(expression=b"\x9c"), {}),  # call_frame_cfa
        (Cfa(expression=b"\x77"), {}),  # cut short
        (Cfa(RSP, 8), {RA: saved(-16)}),
        (Cfa(RSP, 8), {RA: Rule(Kind.REGISTER, 14)}),
        (Cfa(RSP, 8), {RA: Rule(Kind.SAME_VALUE)}),
    ],
)
def test_what_a_rule_cannot_say_ends_the_walk(cfa: Cfa, registers: dict[int, Rule]) -> None:
    assert rule(cfa, registers) == UNKNOWN


def test_without_a_return_address() -> None:
    assert rule_of(Row(Cfa(RSP, 8), {}, RA, signal_frame=False), ADDRESS, REGISTERS) == UNKNOWN


@pytest.mark.parametrize(
    ("how", "slot"),
    [
        (saved(-128 * 8), -128),
        (saved(125 * 8), 125),
        (saved(-129 * 8), SLOT_LOST),
        (saved(126 * 8), SLOT_LOST),
        (saved(-12), SLOT_LOST),
        (Rule(Kind.SAME_VALUE), SLOT_SAME),
        (Rule(Kind.REGISTER, RBX), SLOT_SAME),
        (Rule(Kind.REGISTER, R12), SLOT_LOST),
        (Rule(Kind.UNDEFINED), SLOT_LOST),
        (Rule(Kind.VAL_OFFSET, -16), SLOT_LOST),
        (Rule(Kind.VAL_EXPRESSION, 0, b"\x76\x00"), SLOT_LOST),
        (expressed(0x77, 0x00), SLOT_LOST),  # at rsp
        (expressed(0x76, 0x00, 0x06), SLOT_LOST),  # where a pointer leads
        (expressed(0xFF), SLOT_LOST),
    ],
)
def test_where_a_register_is_saved(how: Rule, slot: int) -> None:
    assert rule(Cfa(RSP, 64), {RBX: how}) == FrameRule(
        BASE_SP, 64, slots=(SAME, slot, SAME, SAME, SAME, SAME)
    )


def test_registers_saved_the_other_way_are_lost() -> None:
    found = rule(Cfa(RBP, 16), {RBP: expressed(0x76, 0x00), RBX: saved(-24)})
    assert found.flags == FLAG_SLOTS_FROM_FP
    assert found.slots[:2] == (0, SLOT_LOST)


def number(expression: bytes) -> int:
    value = evaluate(expression + bytes((0x77, 0, 0x22)), ADDRESS, REGISTERS)  # + rsp
    assert (value.register, value.loaded) == (RSP, False)
    return value.offset


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (b"\x30", 0),
        (b"\x4f", 31),
        (b"\x08\xff", 255),
        (b"\x09\xff", -1),
        (b"\x0a\xff\xff", 65535),
        (b"\x0b\xfe\xff", -2),
        (b"\x0c\xff\xff\xff\xff", 2**32 - 1),
        (b"\x0d\xff\xff\xff\xff", -1),
        (b"\x0e" + b"\xff" * 8, 2**64 - 1),
        (b"\x0f" + b"\xff" * 8, -1),
        (b"\x10" + uleb(300), 300),
        (b"\x11" + sleb(-300), -300),
        (b"\x35\x12\x22", 10),  # dup, plus
        (b"\x35\x23" + uleb(1000), 1005),
        (b"\x39\x33\x1c", 6),  # minus
        (b"\x3f\x3a\x1a", 10),  # and
        (b"\x35\x3a\x21", 15),  # or
        (b"\x33\x34\x24", 48),  # shl
        (b"\x33\x08\x40\x24", 0),
        (b"\x33\x33\x29", 1),  # eq
        (b"\x34\x33\x2a", 1),  # ge
        (b"\x33\x33\x2b", 0),  # gt
        (b"\x33\x33\x2c", 1),  # le
        (b"\x33\x33\x2d", 0),  # lt
        (b"\x33\x34\x2e", 1),  # ne
        (b"\x80\x05", ADDRESS + 5),  # breg16: the code address
        (b"\x92\x10\x01", ADDRESS + 1),  # bregx
        (b"\x96\x31", 1),  # nop
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else str(value),
)
def test_operations(expression: bytes, value: int) -> None:
    assert number(expression) == value


def test_registers_in_expressions() -> None:
    value = evaluate(b"\x92\x0d\x10\x38\x1c\x06\x23\x10", ADDRESS, REGISTERS)
    assert (value.register, value.inner, value.loaded, value.offset) == (R13, 8, True, 16)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80))
def test_any_expression(expression: bytes) -> None:
    try:
        evaluate(expression, ADDRESS, REGISTERS)
    except CallFrameError:
        return


RULES = st.builds(Rule, st.sampled_from(Kind), st.integers(-(2**66), 2**66), st.binary(max_size=12))


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        Cfa,
        st.integers(0, 255),
        st.integers(-(2**66), 2**66),
        st.none() | st.binary(max_size=12),
    ),
    st.dictionaries(st.integers(0, 17), RULES),
)
def test_any_row_is_a_rule_that_fits(cfa: Cfa, registers: dict[int, Rule]) -> None:
    found = rule_of(Row(cfa, registers, RA, signal_frame=False), ADDRESS, REGISTERS)
    assert -(2**31) <= found.cfa_offset < 2**31
    assert -(2**31) <= found.load_offset < 2**31
    assert all(-128 <= slot <= 127 for slot in found.slots)
    assert found.base <= BASE_SAVED + 5
