"""The processes that are traced together: those given, and those that a finder adds."""

import contextlib
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leaktop.model import Filters, Tracing
from leaktop.perfmap import PerfMap
from leaktop.symbolize import Symbolizer
from leaktop.tracer import TracerError, layout
from leaktop.tracer.attach import Attacher
from leaktop.tracer.attachment import Attachment
from leaktop.tracer.blocks import forget_blocks
from leaktop.tracer.finder import Finder
from leaktop.tracer.loader import Program
from leaktop.tracer.probes import Choice
from leaktop.tracer.stacks import StackBook
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.unwind import Unwinder
from leaktop.tracer.ways import Way

_FOLLOW_S, _FOLLOW_MOST_S = 0.03, 0.6
"""Calls are only followed until no code address has been new for this long, or for the longest
time: their stacks' rules come in, and calls under way when probes were attached return."""
_TRIES = 5
"""Ticks for which a process that was found may have nothing to trace yet, as after an exec."""
_AT_ONCE = 16
"""Processes that one tick adds at most; the rest wait for the next one."""
_ENDED_MAX = 64
"""Processes that have ended and are still shown; of more the oldest go."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What attaching one more process takes."""

    program: Program
    attacher: Attacher
    unwinder: Unwinder
    stacks: StackBook


class Crew:
    """Attachments by slot; a slot is never used again, since its stacks stay with its number.

    For the thread that reads snapshots.
    """

    def __init__(self, choice: Choice, finder: Finder, symbolizer: Symbolizer) -> None:
        self._choice = choice
        self._finder = finder
        self._symbolizer = symbolizer
        self._members: dict[int, Attachment] = {}
        self._slots = 0
        self._failed: dict[int, int] = {}  # tries by PID
        self._again: list[int] = []  # PIDs that run another program now
        self._given_up: str | None = None
        self.problems: dict[str, str] = {}
        """Why processes that were found are not traced."""
        self._ends = select.epoll()

    @property
    def members(self) -> Sequence[Attachment]:
        """Those that are or were traced and are still shown, in order of appearance."""
        return list(self._members.values())

    @property
    def alive(self) -> list[Attachment]:
        """Those that can still be traced."""
        return [member for member in self._members.values() if member.over is None]

    @property
    def over(self) -> str | None:
        """Why there is nothing more to trace and nothing will come, in words."""
        if self.alive or self._finder.waits or self._again:
            return None
        if not self._members:
            return self._given_up
        reasons = {member.over for member in self._members.values() if member.over}
        return reasons.pop() if len(reasons) == 1 else "all ended"

    @property
    def end_descriptor(self) -> int:
        """Becomes readable when a process exits, until that was noticed; stays so at the end."""
        return self._ends.fileno()

    def tracing(self, way: Way | None) -> Tracing:
        """Return what is traced of all of them."""
        alive = self.alive or self.members
        libraries = dict.fromkeys(each for member in alive for each in member.tracing.libraries)
        return Tracing(
            libraries=tuple(libraries),
            processes=tuple(each.name for each in alive if len(alive) > 1),
            way="" if way is None else way.value,
        )

    def enrol(self, process: TargetProcess) -> Attachment:
        """Take a process in; it is not attached yet."""
        self._slots += 1
        member = Attachment(process, self._slots, self._choice)
        self._members[member.slot] = member
        if process.end_descriptor is not None:
            self._ends.register(process.end_descriptor, select.EPOLLIN)
        perf_map = PerfMap.of_process(process.pid)
        if perf_map is not None:
            self._symbolizer.add_perf_map(process.pid, perf_map)
        return member

    def begin(
        self,
        members: Sequence[Attachment],
        kit: Kit,
        filters: Filters,
        progress: Callable[[str], None],
    ) -> None:
        """Attach to processes that were found out about, and count what they do.

        Raises TracerError where one of them cannot be traced.
        """
        for member in members:
            member.attach(kit.attacher, progress)
            kit.unwinder.add(member.slot, member.process)
            kit.stacks.add(member.slot, member.process)
        progress("learning the stacks of the allocator's callers")
        for member in members:
            member.follow(kit.program, filters)
        kit.unwinder.wait_until_quiet(_FOLLOW_S, _FOLLOW_MOST_S)
        for member in members:
            member.count(kit.program, filters)

    def look_after(self, kit: Kit, filters: Filters, *, called: bool) -> None:
        """Notice ends, other programs and new code, and take in what the finder finds."""
        for member in self.alive:
            member.check(kit.program, filters, kit.attacher, called=called)
            if member.over is not None:
                self._note_end(member, kit)
        ended = [member for member in self._members.values() if member.over is not None]
        for member in ended[:-_ENDED_MAX]:
            self._drop(member, kit)
        again, self._again = self._again, []
        known = {member.process.pid for member in self.alive}
        new = [*again, *self._finder.find(known | set(again))][:_AT_ONCE]
        if new and self._slots < layout.PROCESSES_MAX - _AT_ONCE:
            self._take_in(new, kit, filters)
        elif new:
            self.problems["processes"] = "no more of them can be traced: start leaktop again"

    def close(self) -> None:
        """Detach from all; safe to call twice."""
        for member in self._members.values():
            member.close()
        self._members.clear()
        if not self._ends.closed:
            self._ends.close()

    def _take_in(self, pids: Sequence[int], kit: Kit, filters: Filters) -> None:
        taken = []
        for pid in pids:
            if self._failed.get(pid, 0) > _TRIES:  # its finder finds it all the same
                continue
            try:
                member = self.enrol(TargetProcess(pid))
            except TracerError:
                continue  # gone already
            try:
                member.find(lambda step: None)
            except TracerError as error:
                self._give_up(member, error)
            else:
                taken.append(member)
        for member in taken:
            try:
                self.begin([member], kit, filters, lambda step: None)
            except TracerError as error:
                self._give_up(member, error)

    def _give_up(self, member: Attachment, error: TracerError) -> None:
        # for the moment: it may not have mapped its allocator yet
        pid = member.process.pid
        tries = self._failed[pid] = self._failed.get(pid, 0) + 1
        if tries <= _TRIES:
            self._again.append(pid)
        else:
            self.problems[f"process {pid}"] = self._given_up = str(error)
        del self._members[member.slot]
        member.close()

    def _note_end(self, member: Attachment, kit: Kit) -> None:
        descriptor = member.process.end_descriptor
        if member.process.runs_another_program():
            self._again.append(member.process.pid)
            self._failed.pop(member.process.pid, None)
            self._drop(member, kit)
        elif descriptor is not None and (self.alive or self._finder.waits):
            with contextlib.suppress(OSError):
                self._ends.unregister(descriptor)

    def _drop(self, member: Attachment, kit: Kit) -> None:
        """Forget a process with all that it held."""
        del self._members[member.slot]
        member.detach()
        kit.unwinder.remove(member.slot)
        kit.stacks.remove(member.slot)
        forget_blocks(kit.program, member.slot)
        member.close()
