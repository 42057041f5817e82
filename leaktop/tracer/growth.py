"""GrowthSource: which code paths make a process grow, at the cost of its page faults alone.

New pages are counted by the stack that touched them first (``bpf/growth.bpf.c``). What is given
back has no stack: only the resident memory of the process shows it.
"""

import mmap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from leaktop.model import (
    LOSSES,
    CodeMapping,
    Counters,
    Filters,
    Frame,
    Growth,
    Memory,
    Site,
    Snapshot,
    StackDetail,
    Target,
    Tracing,
)
from leaktop.perfmap import PerfMap
from leaktop.source import WithoutBlocks
from leaktop.symbolize import Symbolizer
from leaktop.tracer import TracerError, layout
from leaktop.tracer.arch import this_machine
from leaktop.tracer.footprint import memory_of
from leaktop.tracer.growth_program import GrowthProgram
from leaktop.tracer.objects import Capacity
from leaktop.tracer.privilege import check_privileges
from leaktop.tracer.process import NO_TARGET
from leaktop.tracer.stacks import StackBook, named
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.unwind import Unwinder

_NS = 1e-9
_FOLLOW_S, _FOLLOW_MOST_S = 0.05, 0.3
"""As LiveSource has them: stacks are only walked, not counted, until no code address has been new
for this long, or for the longest time."""


class GrowthSource(WithoutBlocks):
    """A Source (see ``leaktop.source``) over the page faults of one process.

    Raises TracerError at once where there is no such process.
    """

    _NO_BLOCKS = "growth mode sees pages, not blocks: leave out --growth to see those"

    def __init__(self, pid: int, filters: Filters, capacity: Capacity | None = None) -> None:
        self._filters = filters
        self._capacity = capacity or Capacity()
        self._process = TargetProcess(pid)
        self._symbolizer = Symbolizer()
        self._stacks: StackBook | None = None
        self._program: GrowthProgram | None = None
        self._unwinder: Unwinder | None = None
        self._tracing = Tracing()
        self._kernel_pid = 0
        self._sampled = filters.sample_rate > 1
        self._started_ns = 0
        self._rss_before: int | None = None
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
        """What is watched."""
        return self._tracing

    def start(self, progress: Callable[[str], None]) -> None:
        """Compile, load, attach, and only then begin to count."""
        try:
            self._start(progress)
        except BaseException:
            self.close()
            raise

    def snapshot(self) -> Snapshot:
        """Read every stack's counters: O(stacks)."""
        program, stacks = self._running()
        self._over = self._over or self._process.why_over()
        used = min(int(program.stack_count.entries[0]), self._capacity.stacks)
        stats = program.stack_stats.entries[: used + 1].copy()
        sizes, faults = stats["bytes"], stats["allocs"]
        calls = program.stack_calls.entries[: used + 1].copy()
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        stacks.learn(used)
        counts = {
            stack_id: counters
            for stack_id, *each in zip(
                stacks.ids, *(values.tolist() for values in (sizes, faults, calls)), strict=False
            )
            if (counters := _counters(*each)) != Counters()
        }
        rss = None if self._over else self._process.resident()
        return Snapshot(
            time_ns=wall_ns,
            elapsed_s=(now_ns - self._started_ns) * _NS,
            target=replace(self.target, alive=self._over is None, rss=rss),
            filters=self._filters,
            totals=_counters(*(int(values.sum()) for values in (sizes, faults, calls))),
            sites=_sites(stacks, counts, self._process.pid),
            lost=self._lost(program, stacks, counts),
            estimated=self._sampled,
            note=self._over,
            growth=Growth(self._change_since(rss)),
        )

    def detail(self, stack_id: int) -> StackDetail:
        """Growth mode knows no blocks: always raises TracerError."""
        raise TracerError("no ages and sizes: growth mode sees pages, not blocks")

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """Name the frames of stacks that a snapshot has shown."""
        known = self._stacks.known if self._stacks is not None else {}
        return named(self._symbolizer, known, stack_ids, lines=lines)

    def problems(self) -> Mapping[str, str]:
        """Return why modules have no names or lines, and what went wrong with stacks."""
        problems = dict(self._symbolizer.problems())
        if self._unwinder is not None and self._unwinder.problem is not None:
            problems["stacks"] = self._unwinder.problem
        return problems

    def mappings(self) -> Sequence[CodeMapping]:
        """Return the code of the process, as it was when leaktop last looked."""
        return self._process.code_mappings()

    def memory(self) -> Memory:
        """Ask the kernel what this process and the program's maps take."""
        return memory_of(self._running()[0].maps())

    def apply(self, filters: Filters) -> None:
        """Change the sample rate; raises TracerError for other filters, which are of blocks."""
        if replace(filters, sample_rate=1) != Filters():
            raise TracerError("growth mode sees pages, which have no sizes to filter by")
        self._filters = filters
        self._sampled = self._sampled or filters.sample_rate > 1
        if self._program is not None:
            self._configure(self._program, layout.PHASE_COUNT)

    def close(self) -> None:
        """Detach, free the kernel's maps, close the target's files."""
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
        kernel_pid = self._process.kernel_pid
        if kernel_pid is None:
            raise TracerError(
                "growth mode needs the host's process numbers: run leaktop outside the container, "
                "or in one that shares them (--pid=host)",
                exit_code=3,
            )
        self._kernel_pid = kernel_pid
        self._process.refresh()
        perf_map = PerfMap.of_process(self._process.pid)
        if perf_map is not None:
            self._symbolizer.add_perf_map(self._process.pid, perf_map)
        progress("compiling the BPF program")
        program = self._program = GrowthProgram(self._capacity)
        progress("attaching to page faults, brk and mmap")
        self._tracing = Tracing(way="tracepoints", growth=_what_is_seen(program.attach()))
        if self._process.why_over():
            raise TracerError(
                f"process {self._process.pid} exited while leaktop was attaching",
                exit_code=NO_TARGET,
            )
        self._unwinder = Unwinder(program, arch, self._capacity.rules)
        self._stacks = StackBook(program.stacks, self._unwinder)
        self._unwinder.add(layout.GROWTH_SLOT, self._process)
        self._stacks.add(layout.GROWTH_SLOT, self._process)
        self._unwinder.start()
        progress("learning the stacks of page faults")
        self._configure(program, layout.PHASE_FOLLOW)
        self._unwinder.wait_until_quiet(_FOLLOW_S, _FOLLOW_MOST_S)
        self._process.refresh()
        self._rss_before = self._process.resident()
        self._started_ns = time.monotonic_ns()
        self._configure(program, layout.PHASE_COUNT)

    def _lost(
        self, program: GrowthProgram, stacks: StackBook, counts: Mapping[int, Counters]
    ) -> Mapping[str, int]:
        kernel = np.concatenate([chunk.copy() for chunk in program.losses.chunks()])
        lost = dict(zip(LOSSES, kernel.tolist(), strict=True))
        cut = [counts[stack_id] for stack_id in stacks.cut if stack_id in counts]
        lost["truncated"] += sum(each.allocs + each.calls for each in cut)
        return lost

    def _change_since(self, rss: int | None) -> int | None:
        return None if rss is None or self._rss_before is None else rss - self._rss_before

    def _configure(self, program: GrowthProgram, phase: int) -> None:
        config = np.zeros((), layout.GROWTH_CONFIG)
        config["phase"] = phase
        config["sample_rate"] = self._filters.sample_rate
        config["pid"] = self._kernel_pid
        program.config.update(0, config)

    def _running(self) -> tuple[GrowthProgram, StackBook]:
        if self._program is None or self._stacks is None:
            raise TracerError("tracing has ended: start leaktop again")
        return self._program, self._stacks


def _what_is_seen(no_calls: str | None) -> str:
    if no_calls is None:
        return "page faults, brk, mmap"
    return f"page faults; not brk and mmap: {no_calls}"


def _counters(size: int, faults: int, calls: int) -> Counters:
    return Counters(bytes=size, count=size // mmap.PAGESIZE, allocs=faults, calls=calls)


def _sites(stacks: StackBook, counts: Mapping[int, Counters], pid: int) -> tuple[Site, ...]:
    # a stack that was cut counts as the whole one that it turned out to be
    sums: dict[int, Counters] = {}
    for stack_id, one in counts.items():
        whole = stacks.whole(stack_id)
        sums[whole] = _plus(sums[whole], one) if whole in sums else one
    known = stacks.known
    return tuple(
        Site(
            stack_id=stack_id,
            counters=counters,
            frames=known[stack_id].frames,
            truncated=known[stack_id].truncated,
            pid=pid,
        )
        for stack_id, counters in sums.items()
        if stack_id in known
    )


def _plus(one: Counters, other: Counters) -> Counters:
    return _counters(one.bytes + other.bytes, one.allocs + other.allocs, one.calls + other.calls)
