"""Answers the kernel side's questions: how to leave the frame of a code address.

The kernel walks stacks with one rule for each code address (``bpf/unwind.bpf.h``) and asks for
those it has not got, with a copy of the stack as it was. A thread of its own answers within
milliseconds from the module's call frame information, and walks on along the copy: so one question
brings in the rules of a whole stack, and the stack that was cut for want of a rule is completed,
exactly as it was.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from leaktop.callframe import CallFrames, call_frames_of
from leaktop.cursor import CallFrameError
from leaktop.elf import ElfError, ElfFile, FileOffset
from leaktop.model import LOSSES
from leaktop.modules import Location, Module
from leaktop.tracer import TracerError, layout
from leaktop.tracer.arch import CALL_BYTES_MAX, Architecture
from leaktop.tracer.frame_rules import (
    BASE_SP,
    FRAME_POINTER,
    OUTERMOST,
    SIGNAL_FRAME,
    UNKNOWN,
    FrameRule,
    rule_of,
)
from leaktop.tracer.loader import Unwinding
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.walk import Frame, OutsideImageError, Rest, StackImage, walk_on

_POLL_S = 0.2
_NICENESS = -15
_EPILOGUE_BYTES = 16
_OPEN_S = 0.1
"""How long modules are opened ahead: the program and its first libraries, a millisecond or so each.
Stacks are cut until a question is answered, so the first one must not wait for files."""
_REFRESH_S = 1.0
"""How often mappings are compared, so that rules go with the code that they were for."""
_COMPLETIONS_MAX = 65_536
"""Answers that wait to be taken; nobody takes that of a stack that found no room."""
_RULES_FULL = list(LOSSES).index("rules_full")


class CallFrameRules:
    """Rules by location in a module; modules are read once. One thread asks for rules."""

    def __init__(self, arch: Architecture) -> None:
        self._arch = arch
        self._modules: dict[tuple[object, ...], _Frames | None] = {}
        self._opening: list[threading.Thread] = []
        self._lock = threading.Lock()

    def open_ahead(self, modules: Sequence[Module]) -> None:
        """Read where modules keep their call frame information, in a thread, for a while."""
        self._opening.append(threading.Thread(target=self._open, args=(modules,), daemon=True))
        self._opening[-1].start()

    def wait(self, most_s: float) -> None:
        """Wait until what is opened ahead is, this long at most."""
        end = time.monotonic() + most_s
        while self._opening:
            self._opening.pop().join(max(0.0, end - time.monotonic()))

    def rule(self, location: Location) -> FrameRule:
        """Return the rule for a code address; code that says nothing has a frame pointer's."""
        if location.module is None:
            return FRAME_POINTER
        try:
            return self._described(location) or self._undescribed(location)
        except (CallFrameError, ElfError):
            return UNKNOWN

    def _open(self, modules: Iterable[Module]) -> None:
        end = time.monotonic() + _OPEN_S
        for module in modules:
            if time.monotonic() > end:
                return
            self._frames(module)

    def _described(self, location: Location) -> FrameRule | None:
        # by call frame information, None where there is none for this code
        assert location.module is not None
        frames = self._frames(location.module)
        if frames is None:
            return None
        # a return address may be the first of another function: its call lies before it
        address = frames.elf.address_of(FileOffset(location.offset - 1))
        row = None if address is None else frames.frames.row(address)
        if address is not None and row is not None:
            return rule_of(row, address, self._arch.registers)
        first = frames.elf.address_of(location.offset)
        extent = None if first is None else frames.frames.extent(first)
        if extent is None or extent[0] != first or self._follows_call(location):
            return None
        # nobody called from before a function's first byte: its address was put there to be
        # returned to, as makecontext(3) does, so this is where a stack made by hand begins
        return OUTERMOST

    def _undescribed(self, location: Location) -> FrameRule:
        if self._code(location, 0, len(self._arch.signal_return)) == self._arch.signal_return:
            return SIGNAL_FRAME
        return FRAME_POINTER

    def _follows_call(self, location: Location) -> bool:
        before = self._code(location, -CALL_BYTES_MAX, CALL_BYTES_MAX)
        return self._arch.call_before.search(before) is not None

    def _code(self, location: Location, distance: int, size: int) -> bytes:
        assert location.module is not None
        with contextlib.suppress(OSError):
            return location.module.read(max(0, location.offset + distance), size)
        return b""

    def _frames(self, module: Module) -> "_Frames | None":
        with self._lock:
            if module.identity not in self._modules:
                found = None
                with contextlib.suppress(ElfError, CallFrameError):
                    found = _open_frames(module, self._arch)
                self._modules[module.identity] = found
            return self._modules[module.identity]


@dataclass(frozen=True, slots=True)
class _Frames:
    elf: ElfFile
    frames: CallFrames


def _open_frames(module: Module, arch: Architecture) -> _Frames | None:
    elf = module.open_elf()
    frames = call_frames_of(elf) if elf.machine == arch.elf_machine else None
    return None if frames is None else _Frames(elf, frames)


class _Given:
    """The rules that the kernel side has for one process. For the thread that answers."""

    def __init__(self, slot: int, process: TargetProcess) -> None:
        self.slot = slot
        self.process = process
        self.code = process.code()
        self.rules: dict[int, FrameRule] = {}

    def key(self, pc: int) -> int:
        """Return the kernel side's key of a code address: ``key_of`` (bpf/memleak.bpf.c)."""
        return layout.key_of(self.slot, pc)

    def changed_code(self) -> frozenset[tuple[int, int, int, str, int]]:
        """Return what was mapped or unmapped since this was asked last."""
        self.process.refresh()
        code = self.process.code()
        changed, self.code = code ^ self.code, code
        return changed


class Unwinder:
    """The thread that answers, for all processes."""

    def __init__(
        self,
        program: Unwinding,
        arch: Architecture,
        capacity: int,
        rules: CallFrameRules | None = None,
    ) -> None:
        """``capacity``: rules that the kernel side has room for."""
        self._program = program
        self._arch = arch
        self._registers = arch.registers
        self._rules = rules or CallFrameRules(arch)
        self._capacity = capacity
        self._given: dict[
            int, _Given
        ] = {}  # by slot; replaced as a whole, since two threads use it
        self._count = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = 0
        self._answered = 0.0  # time.monotonic() of the last answer; infinity while one is made
        self._epoch = 0  # grows whenever rules are taken back
        self.problem: str | None = None
        """What went wrong last, for people."""
        self.completions: dict[int, Rest | None] = {}
        """What the questions' stacks go on with, by stack id; None where the copy was too short.
        Whoever takes a completion removes it."""

    def start(self) -> None:
        """Begin to answer."""
        self._program.open_questions()
        self._thread = threading.Thread(target=self._run, name="unwinder", daemon=True)
        self._thread.start()

    def add(self, slot: int, process: TargetProcess) -> None:
        """Answer for one more process; its files are opened ahead, meanwhile."""
        self._rules.open_ahead([module for _, module in process.code_files()])
        self._given = self._given | {slot: _Given(slot, process)}

    def remove(self, slot: int) -> None:
        """Take back the rules of a process that is gone."""
        given = self._given.get(slot)
        if given is not None:
            self._given = {each: known for each, known in self._given.items() if each != slot}
            self._take_back(given, list(given.rules))

    def stop(self) -> None:
        """Stop answering; safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._program.end_questions()
            self._thread.join()
            self._thread = None

    def wait_until_quiet(self, quiet_s: float, most_s: float) -> None:
        """Return once all is answered, and no question has come for a while.

        Or after the longest time.
        """
        since = time.monotonic()
        end = since + most_s
        self._rules.wait(most_s)  # the first answers may, too
        while (now := time.monotonic()) < end:
            left = max(self._answered, since) + quiet_s - now
            if left <= 0:
                return
            time.sleep(min(left, quiet_s))

    def _take(self, data: bytes) -> None:
        self._answered = float("inf")
        size = layout.QUESTION.itemsize
        try:
            self._answer(np.frombuffer(data[:size], layout.QUESTION)[0], data[size:])
        except Exception as error:
            self.problem = f"a stack could not be followed: {type(error).__name__}: {error}"
        finally:
            self._answered = time.monotonic()

    def _run(self) -> None:
        # stacks are cut until it answers, and on a busy host it would have to queue behind those
        # that ask; it has little to do
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        refreshed = time.monotonic()
        while not self._stop.is_set():
            for question in self._program.questions(_POLL_S):
                self._take(question)
            if time.monotonic() - refreshed > _REFRESH_S:
                refreshed = time.monotonic()
                for given in self._given.values():
                    with contextlib.suppress(TracerError):
                        self._drop_rules_of_changed_code(given)

    def _answer(self, question: np.void, stack: bytes) -> None:
        lost = int(question["lost"])
        frame = Frame(
            pc=int(question["pc"]),
            sp=int(question["sp"]),
            saved=tuple(
                None if lost >> i & 1 else value
                for i, value in enumerate(question["registers"].tolist())
            ),
        )
        image = StackImage(int(question["image_start"]), stack[: int(question["image_size"])])
        given = self._given.get(int(question["slot"]))
        rest = None
        try:
            if given is not None:
                with contextlib.suppress(OutsideImageError):
                    rest = walk_on(frame, image, partial(self._give, given), self._registers)
        finally:  # whoever waits for this one must not wait for ever
            if stack_id := int(question["stack_id"]):
                if len(self.completions) >= _COMPLETIONS_MAX:
                    self.completions.pop(next(iter(self.completions)), None)
                self.completions[stack_id] = rest

    def _give(self, given: _Given, pc: int) -> FrameRule:
        known = given.rules.get(pc)
        if known is not None:
            return known
        rule = self._rule(given.process, pc)
        if self._count >= self._capacity:
            self._refused += 1
            self._program.losses.update(_RULES_FULL, self._refused)
            return rule
        value = (rule.cfa_offset, rule.load_offset, rule.base, rule.flags, _bytes(rule.slots))
        self._program.frame_rules.update(given.key(pc), value)
        given.rules[pc] = rule
        self._count += 1
        return rule

    def _rule(self, process: TargetProcess, pc: int) -> FrameRule:
        if not process.is_code(pc - 1):
            process.refresh()
            if not process.is_code(pc - 1):
                return UNKNOWN
        location = process.locate([pc])[0]
        if location.module is None:
            return self._rule_of_generated_code(process, pc)
        return self._rules.rule(location)

    def _rule_of_generated_code(self, process: TargetProcess, pc: int) -> FrameRule:
        """Return the rule for code without a file: its frame pointer's, unless it says otherwise.

        Code that drops a fixed part of the stack and returns, as CPython's trampolines for perf do,
        says by that where its frame ends.
        """
        follows = process.read_memory(pc, _EPILOGUE_BYTES)
        for epilogue, cfa_offset in self._arch.epilogues:
            if follows.startswith(epilogue):
                return FrameRule(BASE_SP, cfa_offset=cfa_offset)
        return FRAME_POINTER

    def _drop_rules_of_changed_code(self, given: _Given) -> None:
        changed = given.changed_code()
        if changed:
            gone = [pc for pc in given.rules if any(low < pc <= high for low, high, *_ in changed)]
            self._take_back(given, gone)

    def _take_back(self, given: _Given, pcs: Iterable[int]) -> None:
        for pc in pcs:
            del given.rules[pc]
            self._count -= 1
            self._program.frame_rules.delete(given.key(pc))
        self._epoch += 1
        self._program.epoch.update(0, self._epoch)


def _bytes(slots: tuple[int, ...]) -> list[int]:
    return [slot & 0xFF for slot in slots]
