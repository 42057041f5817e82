"""LiveSource: snapshots of running processes, read from the BPF program's maps."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from leaktop.descriptors import make_room
from leaktop.model import (
    CodeMapping,
    Filters,
    Frame,
    Memory,
    ProcessState,
    Site,
    Snapshot,
    StackDetail,
    Target,
    Tracing,
)
from leaktop.single_blocks import BLOCK_BYTES_MAX, BlockPage, Event
from leaktop.symbolize import Symbolizer
from leaktop.tracer import TracerError
from leaktop.tracer.arch import this_machine
from leaktop.tracer.attach import attacher
from leaktop.tracer.attachment import Attachment
from leaktop.tracer.blocks import detail_of, pages_of, placed_blocks
from leaktop.tracer.crew import Crew, Kit
from leaktop.tracer.events import EventLog
from leaktop.tracer.finder import Finder, Finders
from leaktop.tracer.footprint import memory_of
from leaktop.tracer.loader import Program
from leaktop.tracer.loading import Loading
from leaktop.tracer.objects import Capacity
from leaktop.tracer.privilege import check_privileges
from leaktop.tracer.probes import Choice
from leaktop.tracer.stacks import StackBook, named
from leaktop.tracer.sums import by_id, held_before, losses_of, sites_of, totals_of
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.unwind import CallFrameRules, Unwinder
from leaktop.tracer.ways import Way

_NS = 1e-9


class LiveSource:
    """A Source (see ``leaktop.source``) over processes and the kernel's live counters.

    Raises TracerError at once where there is no such process.
    """

    def __init__(
        self,
        pids: Sequence[int],
        filters: Filters,
        loading: Loading | None = None,
        choice: Choice | None = None,
        finder: Finder | None = None,
        *,
        log_all: bool = False,
    ) -> None:
        """Own ``loading``, which has begun by now.

        ``finder`` looks for more processes at every tick; ``log_all``: log every stack.
        """
        self._filters = filters
        make_room()
        self._loading = loading or Loading(Capacity())
        self._symbolizer = Symbolizer()
        self._crew = Crew(choice or Choice(), finder or Finders(), self._symbolizer)
        for pid in pids:
            self._crew.enrol(TargetProcess(pid))
        self._first = self._crew.members[0].target
        self._program: Program | None = None
        self._kit: Kit | None = None
        self._log: EventLog | None = None
        self._log_all = log_all
        self._way: Way | None = None
        self._tracing = Tracing()
        self._sampled = filters.sample_rate > 1
        self._started_ns = 0
        self._several = len(pids) > 1

    @property
    def target(self) -> Target:
        """The first process, as it was when leaktop looked first."""
        return self._first

    @property
    def end_descriptor(self) -> int | None:
        """Becomes readable when a process exits (pidfd_open(2))."""
        return self._crew.end_descriptor if self._crew.members else None

    @property
    def tracing(self) -> Tracing:
        """What is traced by now."""
        return self._tracing

    def start(self, progress: Callable[[str], None]) -> None:
        """Find the allocators, compile, load, attach, and only then begin to count."""
        try:
            self._start(progress)
        except BaseException:
            self.close()
            raise

    def snapshot(self) -> Snapshot:
        """Read every stack's counters: O(stacks)."""
        kit, crew = self._running(), self._crew
        program, stacks = kit.program, kit.stacks
        called = program.stack_count.entries[0] > 0
        crew.look_after(kit, self._filters, called=bool(called))
        self._learn_what_is_traced()
        used = min(int(program.stack_count.entries[0]), self._loading.capacity.stacks)
        program.lifetimes.read(used + 1)
        stats = program.stack_stats.entries[: used + 1].copy()
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        stacks.learn(used)
        members = crew.members
        pids = self._pids()
        shown = _of_slots(by_id(stacks.ids, stats), stacks, {0, *pids})
        held = None
        if self._filters.older_s:
            held = held_before(program, stacks.ids, now_ns - int(self._filters.older_s / _NS))
        lifetimes = program.lifetimes.by_id(stacks.ids, stats)
        sites = sites_of(stacks, shown, held, now_ns, pids, lifetimes=lifetimes)
        return Snapshot(
            time_ns=wall_ns,
            elapsed_s=(now_ns - self._started_ns) * _NS,
            target=members[0].target if members else self._first,
            filters=self._filters,
            totals=totals_of(sites, shown.values()),
            sites=sites,
            lost=self._lost(program, stacks, shown),
            estimated=self._sampled,
            note=crew.over,
            refusals=self._tracing.refusals,
            processes=self._states(members, stacks, shown, sites),
        )

    def detail(self, stack_id: int) -> StackDetail:
        """Read every live block once, in batches, and sum up those of one stack."""
        kit = self._running()
        return detail_of(kit.program.live_blocks(), stack_id, kit.stacks.numbers(stack_id))

    def blocks(self, stack_ids: Iterable[int], offset: int, count: int) -> Mapping[int, BlockPage]:
        """Read every live block once, in batches, and pick some of those of each stack."""
        kit = self._running()
        numbers = {stack_id: kit.stacks.numbers(stack_id) for stack_id in stack_ids}
        chunks = placed_blocks(kit.program, [each for own in numbers.values() for each in own])
        return pages_of(chunks, numbers, offset, count, self._pids())

    def read_block(self, pid: int, address: int, size: int) -> bytes:
        """Read memory of one of the processes through /proc/PID/mem."""
        self._running()
        for member in self._crew.alive:
            if member.process.pid == pid:
                found = member.process.read_memory(address, min(size, BLOCK_BYTES_MAX))
                if member.process.why_over() is None:  # else the PID may be another's by now
                    if found or not size:
                        return found
                    raise TracerError(f"nothing can be read at {address:#x} of process {pid}")
        raise TracerError(f"process {pid} is no longer traced: its memory cannot be read")

    def log(self, stack_id: int | None) -> None:
        """Set and clear the flags of stacks in the kernel's counters, in place."""
        self._running()
        if self._log is not None:
            self._log.choose(stack_id)

    def events(self) -> Sequence[Event]:
        """Take events out of the ring that the BPF program puts them into."""
        self._running()
        return [] if self._log is None else self._log.read(self._pids())

    def memory(self) -> Memory:
        """Ask the kernel what this process and the program's maps take."""
        return memory_of(self._running().program.maps())

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """Name the frames of stacks that a snapshot has shown."""
        known = {} if self._kit is None else self._kit.stacks.known
        return named(self._symbolizer, known, stack_ids, lines=lines)

    def problems(self) -> Mapping[str, str]:
        """Return why modules have no names or lines, and what went wrong with stacks."""
        problems = {**self._symbolizer.problems(), **self._crew.problems}
        if self._kit is not None and self._kit.unwinder.problem is not None:
            problems["stacks"] = self._kit.unwinder.problem
        return problems

    def mappings(self) -> Sequence[CodeMapping]:
        """Return the code of every process that is shown, as it was when leaktop last looked."""
        members = sorted(self._crew.members, key=lambda member: member.process.pid)
        return [each for member in members for each in member.process.code_mappings()]

    def apply(self, filters: Filters) -> None:
        """Change the filters by one map write a process; blocks already held are not touched."""
        self._filters = filters
        self._sampled = self._sampled or filters.sample_rate > 1
        if self._program is not None:
            for member in self._crew.alive:
                member.apply(self._program, filters)

    def close(self) -> None:
        """Detach, free the kernel's maps, close the targets' files."""
        self._crew.close()
        self._log = None
        if self._kit is not None:
            self._kit.unwinder.stop()
            self._kit = None
        if self._program is not None:
            self._program.close()
            self._program = None
        self._loading.discard()
        self._symbolizer.close()

    def _start(self, progress: Callable[[str], None]) -> None:
        check_privileges()
        arch = this_machine()
        if arch is None:
            raise TracerError("leaktop runs on x86-64 only, so far", exit_code=3)
        members = self._crew.members
        for member in members:
            member.find(progress)
        rules = CallFrameRules(arch)
        rules.open_ahead([module for each in members for _, module in each.process.code_files()])
        progress("loading the BPF program")
        objects, way = self._loading.result()
        program = self._program = Program(objects)
        self._way = way
        unwinder = Unwinder(program, arch, self._loading.capacity.rules, rules)
        stacks = StackBook(program.stacks, unwinder)
        kit = self._kit = Kit(program, attacher(way, program, arch), unwinder, stacks)
        self._log = EventLog(program, stacks, self._loading.capacity.stacks)
        if self._log_all:
            self._log.choose_all()
        unwinder.start()
        self._crew.begin(members, kit, self._filters, progress)
        self._started_ns = time.monotonic_ns()
        self._learn_what_is_traced()

    def _learn_what_is_traced(self) -> None:
        tracing = self._crew.tracing(self._way)
        if tracing != self._tracing:
            self._tracing = tracing

    def _pids(self) -> dict[int, int]:
        # by slot
        return {member.slot: member.process.pid for member in self._crew.members}

    def _running(self) -> Kit:
        if self._kit is None:
            raise TracerError("tracing has ended: start leaktop again")
        return self._kit

    def _states(
        self,
        members: Sequence[Attachment],
        stacks: StackBook,
        shown: Mapping[int, Sequence[int]],
        sites: Sequence[Site],
    ) -> tuple[ProcessState, ...]:
        self._several = self._several or len(members) > 1
        if not self._several:
            return ()
        return tuple(
            ProcessState(
                member.target,
                totals_of(
                    [site for site in sites if site.pid == member.process.pid],
                    [
                        each
                        for stack_id, each in shown.items()
                        if stacks.known[stack_id].slot == member.slot
                    ],
                ),
                member.over,
            )
            for member in members
        )

    def _lost(
        self, program: Program, stacks: StackBook, shown: Mapping[int, Sequence[int]]
    ) -> Mapping[str, int]:
        lost = losses_of(program)
        lost["truncated"] += sum(shown[stack_id][1] for stack_id in stacks.cut if stack_id in shown)
        return lost


def _of_slots(
    counts: Mapping[int, tuple[int, ...]], stacks: StackBook, slots: Collection[int]
) -> dict[int, tuple[int, ...]]:
    # of the processes that are shown
    known = stacks.known
    return {
        stack_id: each
        for stack_id, each in counts.items()
        if stack_id in known and known[stack_id].slot in slots
    }
