"""Walks over stacks that are laid out by hand."""

import struct

import pytest

from leaktop.tracer.arch import ARCHITECTURES
from leaktop.tracer.frame_rules import (
    BASE_SAVED,
    BASE_SP,
    FLAG_LOADED,
    FLAG_SLOTS_FROM_FP,
    FRAME_POINTER,
    OUTERMOST,
    SIGNAL_FRAME,
    SLOT_LOST,
    SLOT_SAME,
    UNKNOWN,
    FrameRule,
)
from leaktop.tracer.layout import STACK_DEPTH_MAX, TRUNCATED, WHOLE
from leaktop.tracer.walk import (
    Frame,
    OutsideImageError,
    Rest,
    StackImage,
    leave_frame,
    stack_id,
    walk_on,
)

REGISTERS = ARCHITECTURES["x86_64"].registers
SP = 0x7FFE00001000
SAVED = (0x100, 0x200, 0x300, 0x400, 0x500, 0x600)
SAME = SLOT_SAME


def image(*words: int, start: int = SP) -> StackImage:
    return StackImage(start, struct.pack(f"<{len(words)}Q", *words))


def frame(pc: int = 1, sp: int = SP, bp: int | None = 0x100) -> Frame:
    return Frame(pc, sp, (bp, *SAVED[1:]))


def leave(here: Frame, rule: FrameRule, stack: StackImage) -> Frame | None:
    return leave_frame(here, rule, stack, REGISTERS)


def test_from_the_stack_pointer() -> None:
    rule = FrameRule(BASE_SP, 32, slots=(-2, -3, SAME, SLOT_LOST, SAME, SAME))
    found = leave(frame(), rule, image(0, 0xB1, 0xB2, 0xCA11))
    assert found == Frame(0xCA11, SP + 32, (0xB2, 0xB1, 0x300, None, 0x500, 0x600))


def test_from_the_frame_pointer() -> None:
    found = leave(frame(bp=SP + 16), FRAME_POINTER, image(0, 0, 0xB2, 0xCA11))
    assert found == Frame(0xCA11, SP + 32, (0xB2, None, None, None, None, None))


def test_from_another_register() -> None:
    here = Frame(1, SP, (0x100, 0x200, SP + 8, 0, 0, 0))
    found = leave(here, FrameRule(BASE_SAVED + 2, 8), image(0, 0xCA11))
    assert found == Frame(0xCA11, SP + 16, here.saved)


def test_an_aligned_frame() -> None:
    # rbp at SP+16; what it points to is the old rbp; the CFA lies 8 below it, rbx 16 below
    rule = FrameRule(
        BASE_SAVED, 0, -8, FLAG_LOADED | FLAG_SLOTS_FROM_FP, (0, -2, SAME, SAME, SAME, SAME)
    )
    stack = image(0xB1, SP + 48, 0xB2, 0xFFFF, 0, 0xCA11)
    found = leave(frame(bp=SP + 16), rule, stack)
    assert found == Frame(0xCA11, SP + 48, (0xB2, 0xB1, *SAVED[2:]))


def test_what_was_interrupted() -> None:
    words = [0] * 24
    context = REGISTERS.signal_context
    for offset, value in zip(context.saved, (1, 2, 3, 4, 5, 6), strict=True):
        words[offset // 8] = value
    words[context.sp // 8], words[context.pc // 8] = 0x5000, 0xCA10
    assert leave(frame(), SIGNAL_FRAME, image(*words)) == Frame(0xCA11, 0x5000, (1, 2, 3, 4, 5, 6))


@pytest.mark.parametrize(
    "rule",
    [
        UNKNOWN,
        FrameRule(BASE_SP, 0),
        FrameRule(BASE_SP, -8),
        FrameRule(BASE_SAVED, 16),  # of a register that is lost
        FrameRule(BASE_SP, 0, 8, FLAG_LOADED),  # leads to an address below
    ],
)
def test_frames_that_cannot_be_left(rule: FrameRule) -> None:
    assert leave(frame(bp=None), rule, image(1, SP - 8, 3, 4)) is None


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (FrameRule(BASE_SP, 24), 2),
        (FrameRule(BASE_SP, 16, slots=(-9, *[SAME] * 5)), 2),  # the frame pointer lies below
        (FrameRule(BASE_SAVED, 0, 0, FLAG_LOADED), 2),
        (SIGNAL_FRAME, 20),
    ],
)
def test_beyond_the_copy(rule: FrameRule, words: int) -> None:
    with pytest.raises(OutsideImageError):
        leave(frame(), rule, image(*[1] * words))


def test_other_registers_beyond_the_copy_are_lost() -> None:
    rule = FrameRule(BASE_SP, 16, slots=(SAME, -9, SAME, SAME, SAME, SAME))
    found = leave(frame(), rule, image(0, 0xCA11))
    assert found == Frame(0xCA11, SP + 16, (0x100, None, *SAVED[2:]))


def test_slots_from_a_lost_frame_pointer() -> None:
    rule = FrameRule(BASE_SP, 16, 0, FLAG_SLOTS_FROM_FP, (0, 1, SAME, SAME, SAME, SAME))
    found = leave(frame(bp=None), rule, image(0, 0xCA11))
    assert found == Frame(0xCA11, SP + 16, (None, None, *SAVED[2:]))


@pytest.mark.parametrize("address", [SP - 8, SP - 1, SP + 9, SP + 16, 0, 2**64 - 8])
def test_words_outside(address: int) -> None:
    with pytest.raises(OutsideImageError):
        image(1, 2).word(address)


def test_words_need_not_be_aligned() -> None:
    assert image(0x0807060504030201, 0x10).word(SP + 1) == 0x1008070605040302


STEP = FrameRule(BASE_SP, 8)


def walk(rules: dict[int, FrameRule], *words: int) -> Rest:
    return walk_on(frame(), image(*words), rules.__getitem__, REGISTERS)


def test_to_the_outermost_frame() -> None:
    assert walk({1: STEP, 2: STEP, 3: OUTERMOST}, 2, 3) == Rest((2, 3), WHOLE)
    assert walk({1: OUTERMOST}) == Rest((), WHOLE)


def test_to_a_stack_s_end_made_by_hand() -> None:
    assert walk({1: STEP, 2: STEP}, 2, 0) == Rest((2,), WHOLE)


def test_to_code_without_a_rule() -> None:
    assert walk({1: STEP, 2: UNKNOWN}, 2) == Rest((2,), TRUNCATED)


def test_to_the_end_of_the_copy() -> None:
    with pytest.raises(OutsideImageError):
        walk({1: STEP, 2: STEP}, 2)


def test_without_end() -> None:
    rest = walk({1: STEP}, *[1] * 300)
    assert rest.truncation == TRUNCATED
    assert len(rest.pcs) > STACK_DEPTH_MAX


def mix(value: int, other: int) -> int:
    """``mix`` of bpf/unwind.bpf.h, word by word."""
    product = (value ^ other) * 0x9E3779B97F4A7C15 % 2**64
    return product ^ product >> 32


@pytest.mark.parametrize("pcs", [(), (1,), (0x7F0000001234, 0x401000), (2**64 - 1,) * 127])
@pytest.mark.parametrize("truncation", [WHOLE, TRUNCATED])
def test_ids_are_the_kernel_s(pcs: tuple[int, ...], truncation: int) -> None:
    expected = mix(0x243F6A8885A308D3, 3)
    for pc in pcs:
        expected = mix(expected, pc)
    assert stack_id(3, pcs, truncation) == mix(expected, truncation)


def test_ids_depend_on_order_and_on_the_end() -> None:
    stacks = [((1, 2), WHOLE), ((2, 1), WHOLE), ((1, 2), TRUNCATED), ((1,), WHOLE), ((), WHOLE)]
    ids = {stack_id(slot, *each) for each in stacks for slot in (1, 2)}
    assert len(ids) == 2 * len(stacks)  # and on the process
