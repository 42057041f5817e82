"""Walks a copy of a stack by frame rules, as the kernel side does (``bpf/unwind.bpf.h``)."""

from collections.abc import Callable
from dataclasses import dataclass

from leaktop.tracer.arch import Registers
from leaktop.tracer.frame_rules import (
    BASE_OUTERMOST,
    BASE_SAVED,
    BASE_SP,
    BASE_UNKNOWN,
    FLAG_LOADED,
    FLAG_SIGNAL,
    FLAG_SLOTS_FROM_FP,
    SLOT_LOST,
    SLOT_SAME,
    FrameRule,
)
from leaktop.tracer.layout import STACK_DEPTH_MAX, TRUNCATED, WHOLE

_WORD = 8
_U64 = 2**64 - 1
_ID_SEED = 0x243F6A8885A308D3
_ID_FACTOR = 0x9E3779B97F4A7C15
_STACK_ID_FIRST = 2  # below are the ids that mean something else


class OutsideImageError(Exception):
    """The walk needs a word that was not copied."""


@dataclass(frozen=True, slots=True)
class StackImage:
    """A part of a stack, copied at one moment."""

    start: int
    data: bytes

    def word(self, address: int) -> int:
        """Return the word at an address; raises OutsideImageError."""
        offset = address - self.start
        if not 0 <= offset <= len(self.data) - _WORD:
            raise OutsideImageError
        return int.from_bytes(self.data[offset : offset + _WORD], "little")


@dataclass(frozen=True, slots=True)
class Frame:
    """The registers of one frame; of the saved ones None for what cannot be followed."""

    pc: int
    sp: int
    saved: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """The frames further out than one: their code addresses, and whether that is all."""

    pcs: tuple[int, ...]
    truncation: int


def walk_on(
    frame: Frame, image: StackImage, rule_of: Callable[[int], FrameRule], registers: Registers
) -> Rest:
    """Walk from a frame to the outermost one.

    Asks for every rule on the way. Raises OutsideImageError where the image ends before the stack.
    """
    pcs: list[int] = []
    while len(pcs) <= STACK_DEPTH_MAX:
        rule = rule_of(frame.pc)
        if rule.base == BASE_OUTERMOST:
            return Rest(tuple(pcs), WHOLE)
        following = leave_frame(frame, rule, image, registers)
        if following is None:
            break
        if not following.pc:
            return Rest(tuple(pcs), WHOLE)
        pcs.append(following.pc)
        frame = following
    return Rest(tuple(pcs), TRUNCATED)


def leave_frame(
    frame: Frame, rule: FrameRule, image: StackImage, registers: Registers
) -> Frame | None:
    """Return the caller's frame; None where the rule cannot say. Raises OutsideImageError."""
    if rule.base == BASE_UNKNOWN:
        return None
    if rule.flags & FLAG_SIGNAL:
        return _interrupted(frame, image, registers)
    base = frame.sp if rule.base == BASE_SP else frame.saved[rule.base - BASE_SAVED]
    if base is None:
        return None
    cfa = image.word(base + rule.load_offset & _U64) if rule.flags & FLAG_LOADED else base
    cfa = cfa + rule.cfa_offset & _U64
    if cfa <= frame.sp:
        return None
    origin = frame.saved[0] if rule.flags & FLAG_SLOTS_FROM_FP else cfa
    saved = list(frame.saved)
    for i, slot in enumerate(rule.slots):
        if slot == SLOT_LOST or (slot != SLOT_SAME and origin is None):
            saved[i] = None
        elif slot != SLOT_SAME and origin is not None:
            saved[i] = _saved_word(image, origin + slot * _WORD, required=i == 0)
    return Frame(image.word(cfa - _WORD), cfa, tuple(saved))


def _saved_word(image: StackImage, address: int, *, required: bool) -> int | None:
    try:
        return image.word(address)
    except OutsideImageError:
        if required:
            raise
        return None


def _interrupted(frame: Frame, image: StackImage, registers: Registers) -> Frame:
    context = registers.signal_context
    pc = image.word(frame.sp + context.pc)
    return Frame(
        # the kernel side adds 1 too: it was not called from before this address
        pc=pc + 1,
        sp=image.word(frame.sp + context.sp),
        saved=tuple(image.word(frame.sp + offset) for offset in context.saved),
    )


def stack_id(slot: int, pcs: tuple[int, ...], truncation: int) -> int:
    """Return the id that the kernel side gives a stack (``mix`` in bpf/unwind.bpf.h)."""
    mixed = _ID_SEED
    for value in (slot, *pcs, truncation):
        mixed = (mixed ^ value) * _ID_FACTOR & _U64
        mixed ^= mixed >> 32
    return mixed if mixed >= _STACK_ID_FIRST else mixed + _STACK_ID_FIRST
