"""LiveSource: snapshots of a running process, read from the BPF program's maps."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from leaktop.model import (
    LOSSES,
    Counters,
    Filters,
    Frame,
    Memory,
    Snapshot,
    StackDetail,
    Target,
    TracedLibrary,
    Tracing,
)
from leaktop.perfmap import PerfMap
from leaktop.symbolize import Symbolizer
from leaktop.tracer import TracerError, layout
from leaktop.tracer.allocators import (
    Allocator,
    Choice,
    elsewhere,
    find_allocators,
    require_allocator,
)
from leaktop.tracer.arch import this_machine
from leaktop.tracer.attach import (
    Attached,
    Attacher,
    Way,
    attach_functions,
    attacher,
    best_way,
)
from leaktop.tracer.blocks import Held, detail_of, held_by_stack, live_blocks
from leaktop.tracer.footprint import memory_of
from leaktop.tracer.kernel_types import changed_return
from leaktop.tracer.loader import MAPPINGS_MAX, Capacity, Program
from leaktop.tracer.privilege import check_privileges
from leaktop.tracer.process import NO_TARGET
from leaktop.tracer.stacks import StackBook
from leaktop.tracer.sums import sites_of
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.unwind import Unwinder

_NS = 1e-9
_FOLLOW_S, _FOLLOW_MOST_S = 0.05, 0.6
"""Calls are only followed until no code address has been new for this long, or for the longest
time: their stacks' rules come in, and calls under way when probes were attached return."""


class LiveSource:
    """A Source (see ``leaktop.source``) over one process and the kernel's live counters.

    Raises TracerError at once where there is no such process.
    """

    def __init__(
        self,
        pid: int,
        filters: Filters,
        capacity: Capacity | None = None,
        choice: Choice | None = None,
    ) -> None:
        self._filters = filters
        self._capacity = capacity or Capacity()
        self._choice = choice or Choice()
        self._process = TargetProcess(pid)
        self._symbolizer = Symbolizer(PerfMap.of_process(pid))
        self._stacks: StackBook | None = None
        self._program: Program | None = None
        self._unwinder: Unwinder | None = None
        self._attached = Attached()
        self._attacher: Attacher | None = None
        self._allocators: list[Allocator] = []
        self._tracing = Tracing()
        self._searched = 0
        self._trampoline = 0
        self._changed_return = (0, 0, 0, 0)
        self._sampled = filters.sample_rate > 1
        self._started_ns = 0
        self._over: str | None = None

    @property
    def target(self) -> Target:
        """The process, as it was when leaktop looked first."""
        return Target(pid=self._process.pid, comm=self._process.comm)

    @property
    def end_descriptor(self) -> int | None:
        """Becomes readable when the process exits (pidfd_open(2))."""
        return self._process.end_descriptor

    @property
    def tracing(self) -> Tracing:
        """What is traced by now."""
        return self._tracing

    def start(self, progress: Callable[[str], None]) -> None:
        """Find the allocator, compile, load, attach, and only then begin to count."""
        try:
            self._start(progress)
        except BaseException:
            self.close()
            raise

    def snapshot(self) -> Snapshot:
        """Read every stack's counters: O(stacks)."""
        program, stacks = self._running()
        self._over = self._over or self._process.why_over()
        self._attach_to_new_code()
        used = min(int(program.stack_count.entries[0]), self._capacity.stacks)
        stats = program.stack_stats.entries[: used + 1].copy()
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        self._learn_trampoline(called=bool(stats["allocs"].any()))
        stacks.learn(used)
        counts = _by_id(stacks.ids, stats)
        held = None
        if self._filters.older_s:
            held = self._held_before(now_ns - int(self._filters.older_s / _NS))
        sites = sites_of(stacks, counts, held, now_ns)
        return Snapshot(
            time_ns=wall_ns,
            elapsed_s=(now_ns - self._started_ns) * _NS,
            target=Target(
                pid=self._process.pid,
                comm=self._process.comm,
                alive=self._over is None,
                rss=None if self._over else self._process.resident(),
            ),
            filters=self._filters,
            totals=Counters(
                bytes=sum(site.counters.bytes for site in sites),
                count=sum(site.counters.count for site in sites),
                allocs=int(stats["allocs"].sum()),
                frees=int(stats["frees"].sum()),
            ),
            sites=sites,
            lost=self._lost(program, stacks, counts),
            estimated=self._sampled,
            note=self._over,
            refusals=self._tracing.refusals,
        )

    def detail(self, stack_id: int) -> StackDetail:
        """Read every live block once, in batches, and sum up those of one stack."""
        program, stacks = self._running()
        return detail_of(live_blocks(program), stack_id, stacks.numbers(stack_id))

    def memory(self) -> Memory:
        """Ask the kernel what this process and the program's maps take."""
        return memory_of(self._running()[0].maps())

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """Name the frames of stacks that a snapshot has shown."""
        known = self._stacks.known if self._stacks is not None else {}
        wanted = {
            stack_id: known[stack_id].locations for stack_id in stack_ids if stack_id in known
        }
        frames = self._symbolizer.stacks(wanted.values(), lines=lines)
        return dict(zip(wanted, frames, strict=True))

    def problems(self) -> Mapping[str, str]:
        """Return why modules have no names or lines, and what went wrong with stacks."""
        problems = dict(self._symbolizer.problems())
        if self._unwinder is not None and self._unwinder.problem is not None:
            problems["stacks"] = self._unwinder.problem
        return problems

    def apply(self, filters: Filters) -> None:
        """Change the filters by one map write; blocks already held are not touched."""
        self._filters = filters
        self._sampled = self._sampled or filters.sample_rate > 1
        if self._program is not None:
            self._configure(self._program)

    def close(self) -> None:
        """Detach, free the kernel's maps, close the target's files."""
        self._attached.close()
        if self._unwinder is not None:
            self._unwinder.stop()
            self._unwinder = None
        if self._program is not None:
            self._program.close()
            self._program = None
        self._symbolizer.close()
        self._process.close()

    def _start(self, progress: Callable[[str], None]) -> None:
        check_privileges()
        arch = this_machine()
        if arch is None:
            raise TracerError("leaktop runs on x86-64 only, so far", exit_code=3)
        self._process.refresh()
        self._allocators = find_allocators(self._process, self._choice, (), progress)
        require_allocator(self._process, self._choice, self._allocators)
        progress("compiling the BPF program")
        way = best_way(arch)
        program = self._program = Program(self._capacity, sessions=way is Way.SESSION)
        self._attacher = attacher(way, program, arch)
        self._tracing = Tracing(way=way.value)
        allocates = self._attach(self._attacher, self._allocators, progress)
        if not allocates:
            raise TracerError(_nothing_attached(self._tracing), exit_code=3)
        if self._process.why_over():
            raise TracerError(
                f"process {self._process.pid} exited while leaktop was attaching",
                exit_code=NO_TARGET,
            )
        self._unwinder = Unwinder(self._process, program, arch, self._capacity.rules)
        self._stacks = StackBook(self._process, program.stacks, self._unwinder)
        self._unwinder.start()
        progress("learning the stacks of the allocator's callers")
        self._configure(program, layout.PHASE_FOLLOW)
        self._unwinder.wait_until_quiet(_FOLLOW_S, _FOLLOW_MOST_S)
        self._process.refresh()
        self._trampoline = self._process.trampoline
        self._hold_older_mappings(program)
        self._started_ns = time.monotonic_ns()
        self._configure(program)

    def _attach(
        self, attacher: Attacher, allocators: Iterable[Allocator], progress: Callable[[str], None]
    ) -> bool:
        # returns whether any function that blocks come from is traced
        allocates = False
        for allocator in allocators:
            count, name = len(allocator.functions), allocator.module.name
            progress(f"attaching to {count} functions in {name}")
            # through the open file, so that no other can have taken its path meanwhile
            path = f"/proc/self/fd/{allocator.module.fileno()}"
            functions = attach_functions(
                partial(attacher.attach, path, self._process.pid),
                allocator.functions,
                partial(elsewhere, allocator),
                self._attached,
                all_at_once=attacher.all_at_once,
            )
            allocates = allocates or any(
                traced.function.allocates and not done.refused
                for traced, done in zip(allocator.functions, functions, strict=True)
            )
            library = TracedLibrary(name, functions, allocator.skipped)
            if self._attached.returns_at_ret:
                self._changed_return = changed_return() or self._changed_return
            self._tracing = replace(self._tracing, libraries=(*self._tracing.libraries, library))
        return allocates

    def _hold_older_mappings(self, program: Program) -> None:
        """Let the kernel side know what is mapped already, so that its munmap is no loss."""
        pid = self._process.kernel_pid
        if pid is None:
            return
        for mapping in self._process.mappings[: MAPPINGS_MAX // 2]:
            size = mapping.end - mapping.start
            program.mappings.update((mapping.start, pid, 0), (size, 0, layout.STACK_UNFILED, 0))
            program.mapping_ends.update((mapping.end, pid, 0), mapping.start)

    def _attach_to_new_code(self) -> None:
        """Trace allocators that the target has mapped since (dlopen)."""
        searched, self._searched = self._searched, self._process.code_version
        if self._over or self._attacher is None or searched == self._searched:
            return
        known = {allocator.module.identity for allocator in self._allocators}
        new = find_allocators(self._process, self._choice, known, lambda step: None)
        if new:
            self._allocators += new
            try:
                self._attach(self._attacher, new, lambda step: None)
            except TracerError:
                self._over = self._process.why_over()
                if self._over is None:
                    raise
            self._configure(self._running()[0])

    def _configure(self, program: Program, phase: int = layout.PHASE_COUNT) -> None:
        config = np.zeros((), layout.CONFIG)
        config["phase"] = phase
        config["min_size"] = self._filters.min_size
        config["max_size"] = self._filters.max_size
        config["sample_rate"] = self._filters.sample_rate
        config["trampoline"] = self._trampoline
        for name, offset in zip(layout.CHANGED_RETURN, self._changed_return, strict=True):
            config[name] = offset
        libraries = [allocator for allocator in self._allocators if allocator.end]
        for i, allocator in enumerate(libraries[: layout.ALLOCATORS_MAX]):
            config["allocators"][i] = (allocator.start, allocator.end)
        program.config.update(0, config)

    def _running(self) -> tuple[Program, StackBook]:
        if self._program is None or self._stacks is None:
            raise TracerError("tracing has ended: start leaktop again")
        return self._program, self._stacks

    def _learn_trampoline(self, *, called: bool) -> None:
        if self._over or self._trampoline or not called:
            return
        self._process.refresh()
        self._trampoline = self._process.trampoline
        if self._trampoline and self._program is not None:
            self._configure(self._program)

    def _held_before(self, born_before_ns: int) -> Mapping[int, Held]:
        # by id of the stack
        program, stacks = self._running()
        held: dict[int, Held] = {}
        for number, one in held_by_stack(live_blocks(program), born_before_ns).items():
            if number < len(stacks.ids):
                stack_id = stacks.ids[number]
                held[stack_id] = held[stack_id].plus(one) if stack_id in held else one
        return held

    def _lost(
        self, program: Program, stacks: StackBook, counts: Mapping[int, Sequence[int]]
    ) -> Mapping[str, int]:
        kernel = np.concatenate([chunk.copy() for chunk in program.losses.chunks()])
        lost = dict(zip(LOSSES, kernel.tolist(), strict=True))
        lost["truncated"] += sum(counts[stack_id][1] for stack_id in stacks.cut)
        return lost


def _by_id(ids: Sequence[int], stats: np.ndarray[Any, Any]) -> dict[int, tuple[int, ...]]:
    # a number that two threads raced for has never counted, and its id counts under another
    return {
        stack_id: each for stack_id, (*each, _) in zip(ids, stats.tolist(), strict=False) if each[1]
    }


def _nothing_attached(tracing: Tracing) -> str:
    first = tracing.refusals[0]
    return (
        f"the kernel refuses every function that allocates, {first.function} in {first.library} "
        f"since: {first.reason}; end other tracers of the process, and try again"
    )
