"""KernelSource: snapshots of what the kernel allocates, by its tracepoints."""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from leaktop import procfs
from leaktop.elf import FileOffset
from leaktop.kallsyms import KERNEL as KERNEL_MODULE
from leaktop.kallsyms import KernelSymbols
from leaktop.model import (
    KERNEL,
    LOSSES,
    CodeMapping,
    Filters,
    Frame,
    Memory,
    Snapshot,
    StackDetail,
    System,
    Target,
    Tracing,
)
from leaktop.modules import Location
from leaktop.source import WithoutBlocks
from leaktop.symbolize import Symbolizer
from leaktop.tracer import TracerError, layout
from leaktop.tracer.arch import this_machine
from leaktop.tracer.attach import Attached
from leaktop.tracer.blocks import detail_of
from leaktop.tracer.footprint import memory_of
from leaktop.tracer.kmem_program import KernelProgram
from leaktop.tracer.objects import Capacity
from leaktop.tracer.privilege import NEEDED_FOR_KERNEL, check_privileges
from leaktop.tracer.process import INITIAL_PID_NAMESPACE, Process
from leaktop.tracer.stacks import UNFILED, Stack, named
from leaktop.tracer.sums import by_id, held_before, losses_of, sites_of, totals_of
from leaktop.tracer.walk import stack_id as id_of

_NS = 1e-9
_MEMINFO = Path("/proc/meminfo")
_NOTES = Path("/sys/kernel/notes")  # ELF notes of vmlinux (kernel/ksysfs.c)

_PAGE_TAKERS = (
    rb"(?:new|allocate)_slab|alloc_slab_page|_*slab_alloc|refill_objects"  # mm/slub.c
    rb"|cache_grow_begin|kmem_getpages"  # mm/slab.c, until 6.8
    rb"|_*kmalloc_large\w*|kmalloc_order\w*"  # pages given out as one object
)
_PERCPU_PAGE_TAKERS = rb"pcpu_populate_chunk|pcpu_alloc_pages"  # mm/percpu-vm.c
"""Functions that take pages to hand them out as objects, which have events of their own."""

_INTERRUPT = re.compile(r"asm_(?:common|spurious)_interrupt|asm_sysvec_\w+|(?:asm_)?exc_nmi\w*")
"""Where the processor enters the kernel of its own accord (arch/x86/entry/entry_64.S)."""

_CAN_BE_LOST = ("allocs_full", "stacks_full", "truncated", "missed_frees", "missed_events")


@dataclass(frozen=True, slots=True)
class Scope:
    """Which of the kernel's allocations count."""

    pid: int | None = None
    """Those made on behalf of this process; None: all."""
    percpu: bool = False
    """Per-CPU memory too."""
    expect_missing_frees: bool = False
    """An allocation where a block is held is the free that was not seen, and no loss."""


class KernelStacks:
    """Every stack of the kernel that has ever counted; see Book.

    What an interrupt allocates is not of the process that runs, be it leaktop: then it counts under
    the stack's id of everybody else.
    """

    def __init__(self, program: KernelProgram, symbolizer: Symbolizer, *, of_process: bool) -> None:
        """``of_process``: what interrupts allocate does not count."""
        self._program = program
        self._symbolizer = symbolizer
        self._of_process = of_process
        self._whole_of: dict[int, int] = {}
        self.left_out: set[int] = set()
        """Ids of stacks that do not count."""
        self._known: dict[int, Stack] = {layout.STACK_ID_UNFILED: UNFILED}
        self._ids = [layout.STACK_ID_UNFILED]
        self._caches: dict[int, str | None] = {0: None}

    @property
    def known(self) -> Mapping[int, Stack]:
        """Stacks by id."""
        return self._known

    @property
    def ids(self) -> Sequence[int]:
        """Ids of the stacks that the kernel side has numbered, by number."""
        return self._ids

    def learn(self, count: int) -> None:
        """Take in the stacks that are new, up to this number."""
        while len(self._ids) <= count:
            stack = self._program.stacks.lookup(len(self._ids))
            if stack is None or not stack["id"]:  # its number is given away, but not it stored yet
                break
            self._ids.append(int(stack["id"]))
            self._add(self._ids[-1], stack)

    def whole(self, stack_id: int) -> int:
        """Return the id that a stack has with everybody else, or its own."""
        return self._whole_of.get(stack_id, stack_id)

    def numbers(self, stack_id: int) -> list[int]:
        """Return all numbers under which a stack has counted."""
        return [number for number, each in enumerate(self._ids) if self.whole(each) == stack_id]

    def _add(self, stack_id: int, captured: np.void) -> None:
        cache, *pcs = captured["pc"][: captured["depth"]].tolist()
        truncation = int(captured["truncated"])
        stack = Stack(
            frames=tuple(Frame(pc, module=KERNEL_MODULE) for pc in pcs),
            locations=tuple(Location(pc, None, FileOffset(0)) for pc in pcs),
            truncated=bool(truncation),
            slot=0,
            cache=self._cache(cache),
        )
        own = bool(captured["slot"] == layout.SLOT_OWN)
        interrupt = (own or self._of_process) and self._is_interrupt(stack)
        if (own and not interrupt) or (self._of_process and interrupt):
            self.left_out.add(stack_id)
        elif own:
            whole = id_of(0, (cache, *pcs), truncation)
            self._whole_of[stack_id] = whole
            stack_id = whole
        self._known.setdefault(stack_id, stack)

    def _is_interrupt(self, stack: Stack) -> bool:
        frames = self._symbolizer.frames(stack.locations, lines=False)
        return any(_INTERRUPT.fullmatch(frame.symbol or "") for frame in frames)

    def _cache(self, key: int) -> str | None:
        if key not in self._caches:
            found = self._program.cache_names.lookup(key)
            text = b"" if found is None else found["text"].tobytes().partition(b"\0")[0]
            self._caches[key] = os.fsdecode(text) or None
        return self._caches[key]


class KernelSource(WithoutBlocks):
    """A Source (see ``leaktop.source``) over the kernel's own allocations.

    Raises TracerError at once where there is no such process.
    """

    _NO_BLOCKS = "the kernel's blocks are shown by stack only"

    def __init__(self, filters: Filters, scope: Scope, capacity: Capacity | None = None) -> None:
        self._filters = filters
        self._scope = scope
        self._capacity = capacity or Capacity()
        self._process = None if scope.pid is None else Process(scope.pid, kernel_threads=True)
        self._symbols = KernelSymbols()
        self._symbolizer = Symbolizer(kernel=self._symbols)
        self._program: KernelProgram | None = None
        self._stacks: KernelStacks | None = None
        self._attached = Attached()
        self._tracing = Tracing()
        self._sampled = filters.sample_rate > 1
        self._started_ns = 0
        self._over: str | None = None

    @property
    def target(self) -> Target:
        """The kernel, or the process that it works for."""
        if self._process is None:
            return KERNEL
        return Target(pid=self._process.pid, comm=self._process.comm)

    @property
    def tracing(self) -> Tracing:
        """Which tracepoints are traced."""
        return self._tracing

    @property
    def end_descriptor(self) -> int | None:
        """Becomes readable when the process exits; None of the kernel."""
        return None if self._process is None else self._process.end_descriptor

    def start(self, progress: Callable[[str], None]) -> None:
        """Read the tracepoints' formats, compile, load, attach, and only then begin to count."""
        try:
            self._start(progress)
        except BaseException:
            self.close()
            raise

    def snapshot(self) -> Snapshot:
        """Read every stack's counters: O(stacks)."""
        program, stacks = self._running()
        if self._process is not None:
            self._over = self._over or self._process.why_over()
        used = min(int(program.stack_count.entries[0]), self._capacity.stacks)
        program.lifetimes.read(used + 1)
        stats = program.stack_stats.entries[: used + 1].copy()
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        stacks.learn(used)
        counts = by_id(stacks.ids, stats)
        counts = {each: counts[each] for each in counts if each not in stacks.left_out}
        held = None
        if self._filters.older_s:
            held = held_before(program, stacks.ids, now_ns - int(self._filters.older_s / _NS))
        lifetimes = program.lifetimes.by_id(stacks.ids, stats)
        sites = sites_of(stacks, counts, held, now_ns, {}, lifetimes=lifetimes)
        return Snapshot(
            time_ns=wall_ns,
            elapsed_s=(now_ns - self._started_ns) * _NS,
            target=replace(self.target, alive=self._over is None),
            filters=self._filters,
            totals=totals_of(sites, counts.values()),
            sites=sites,
            lost=_lost(program),
            estimated=self._sampled,
            note=self._over,
            system=_system(),
        )

    def detail(self, stack_id: int) -> StackDetail:
        """Read every live block once, in batches, and sum up those of one stack."""
        program, stacks = self._running()
        return detail_of(program.live_blocks(), stack_id, stacks.numbers(stack_id))

    def memory(self) -> Memory:
        """Ask the kernel what this process and the program's maps take."""
        return memory_of(self._running()[0].maps())

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """Name the frames of stacks that a snapshot has shown; there are no lines."""
        known = self._stacks.known if self._stacks is not None else {}
        return named(self._symbolizer, known, stack_ids, lines=lines)

    def problems(self) -> Mapping[str, str]:
        """Return why the kernel's functions have no names."""
        return self._symbolizer.problems()

    def mappings(self) -> Sequence[CodeMapping]:
        """Return the kernel's own code as one mapping; none of modules, or where it is hidden."""
        if self._program is None:
            return ()
        ends = self._symbols.ranges(re.compile(b"_stext|_etext"))
        if not ends:
            return ()
        build_id = None
        with suppress(OSError):
            build_id = procfs.parse_build_id(_NOTES.read_bytes())
        return (CodeMapping(0, ends[0][0], ends[-1][0], 0, KERNEL_MODULE, build_id),)

    def apply(self, filters: Filters) -> None:
        """Change the filters by one map write; blocks already held are not touched."""
        self._filters = filters
        self._sampled = self._sampled or filters.sample_rate > 1
        if self._program is not None:
            self._configure(self._program)

    def close(self) -> None:
        """Detach, free the kernel's maps, let go of the process."""
        self._attached.close()
        if self._program is not None:
            self._program.close()
            self._program = None
        self._symbolizer.close()
        if self._process is not None:
            self._process.close()

    def _start(self, progress: Callable[[str], None]) -> None:
        check_privileges(NEEDED_FOR_KERNEL)
        arch = this_machine()
        if arch is None:
            raise TracerError("leaktop runs on x86-64 only, so far", exit_code=3)
        progress("reading the names of the kernel's functions")
        takers = _PAGE_TAKERS + b"|" + _PERCPU_PAGE_TAKERS if self._scope.percpu else _PAGE_TAKERS
        ranges = self._symbols.ranges(re.compile(takers))
        progress("compiling the BPF program")
        program = self._program = KernelProgram(self._capacity, percpu=self._scope.percpu)
        of_process = self._scope.pid is not None
        self._stacks = KernelStacks(program, self._symbolizer, of_process=of_process)
        self._limit(program, ranges[: layout.PAGE_TAKERS_MAX])
        progress(f"attaching to {len(program.tracepoints)} tracepoints")
        program.attach(arch, self._attached)
        self._tracing = Tracing(
            way="tracepoints",
            tracepoints=tuple(program.tracepoints),
            left_out=() if ranges else (_pages_twice(self._symbols.problem),),
        )
        self._started_ns = time.monotonic_ns()
        self._configure(program)

    def _limit(self, program: KernelProgram, page_takers: Sequence[tuple[int, int]]) -> None:
        scope = np.zeros((), layout.KERNEL_CONFIG)
        scope["own_pid"] = os.getpid()
        scope["pid"] = self._scope.pid or 0
        scope["namespace_device"], scope["namespace_inode"] = _pid_namespace()
        scope["missing_frees"] = self._scope.expect_missing_frees
        for i, each in enumerate(page_takers):
            scope["page_takers"][i] = each
        program.kernel_config.update(0, scope)

    def _configure(self, program: KernelProgram) -> None:
        config = np.zeros((), layout.CONFIG)
        config["phase"] = layout.PHASE_COUNT
        config["min_size"] = self._filters.min_size
        config["max_size"] = self._filters.max_size
        config["sample_rate"] = self._filters.sample_rate
        program.config.update(0, config)

    def _running(self) -> tuple[KernelProgram, KernelStacks]:
        if self._program is None or self._stacks is None:
            raise TracerError("tracing has ended: start leaktop again")
        return self._program, self._stacks


def _lost(program: KernelProgram) -> Mapping[str, int]:
    lost = losses_of(program)
    lost["missed_events"] += program.missed
    return {name: lost[name] for name in LOSSES if name in _CAN_BE_LOST}


def _system() -> System:
    amounts = procfs.parse_meminfo(_MEMINFO.read_text())
    return System(available=amounts.get("MemAvailable", 0), slab=amounts.get("Slab", 0))


def _pid_namespace() -> tuple[int, int]:
    # as bpf_get_ns_current_pid_tgid (kernel commit b4490c5c4e02) wants it; 0, 0 for the initial one
    namespace = Path("/proc/self/ns/pid").stat()
    if namespace.st_ino == INITIAL_PID_NAMESPACE:
        return 0, 0
    device = os.major(namespace.st_dev) << 20 | os.minor(namespace.st_dev)  # MKDEV of the kernel
    return device, namespace.st_ino


def _pages_twice(problem: str | None) -> str:
    return (
        "told apart: pages that slab caches take, which count twice, by themselves and by the "
        f"objects on them ({problem or 'the kernel lists none of the functions that take them'})"
    )
