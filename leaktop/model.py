"""What leaktop knows, as frozen values: no behaviour beyond what a value can say of itself.

Every room may import this one, and it imports only the standard library. Times are seconds as
``float`` unless a name ends in ``_ns``; sizes are bytes as ``int``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

UNLIMITED = 2**64 - 1
"""``Filters.max_size`` when there is no upper bound; the BPF side compares against it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One call on a stack; what is not known is None, never invented.

    ``address`` is the return address in the target; look-ups use ``address - 1``, which lies
    inside the call instruction. An inlined call carries the address of the function that it was
    inlined into. ``offset`` is ``address`` less the start of ``symbol``, as perf and memleak
    print it.
    """

    address: int
    module: str | None = None
    """File name of the mapping without its folder, or a pseudo name such as ``[vdso]``."""
    symbol: str | None = None
    """Function name, demangled."""
    offset: int | None = None
    file: str | None = None
    """Source path as the debug information gives it."""
    line: int | None = None
    inlined: bool = False
    module_path: str | None = None
    """Path of the mapping as the target sees it, for the detail view."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which new allocations are traced; blocks already held are freed properly all the same."""

    min_size: int = 0
    max_size: int = UNLIMITED
    sample_rate: int = 1
    """One of this many allocations is kept, chosen at random, and counted as this many."""
    older_s: float = 0.0
    """Only blocks held at least this long are counted; applied when reading, not when tracing."""


@dataclass(frozen=True, slots=True)
class Target:
    """The process that is traced, or the kernel as a whole: KERNEL."""

    pid: int
    """0 of the kernel."""
    comm: str
    alive: bool = True
    rss: int | None = None
    """Resident bytes; None once the process is gone."""
    busy_s: float | None = None
    """Processor time that it has taken so far, of all its threads; None where that is not known."""
    exit_code: int | None = None
    """What it exited with, where that is known: of commands that leaktop started."""
    signal: int | None = None
    """Number of the signal that ended it, where that is known."""


KERNEL = Target(0, "kernel")
"""The kernel, whoever it works for."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Outstanding bytes and blocks, and the allocations and frees that led to them.

    In growth mode: new pages, in bytes and in number, and the page faults that brought them.
    Under sampling every figure is an estimate: each kept block counts as often as its weight.
    """

    bytes: int = 0
    count: int = 0
    allocs: int = 0
    frees: int = 0
    calls: int = 0
    """Calls of brk, mmap and mremap, in growth mode: they take addresses, not memory."""
    alloc_bytes: int = 0
    """Bytes of the allocations so far; not counted in growth mode."""


@dataclass(frozen=True, slots=True)
class Site:
    """One call stack and what it holds now."""

    stack_id: int
    counters: Counters
    frames: tuple[Frame, ...]
    """Innermost first, beginning with the caller of the allocator; addresses and modules only:
    names come from ``Source.resolve``."""
    oldest_s: float | None = None
    """Age of the oldest block held; an upper bound unless ``oldest_exact``."""
    oldest_exact: bool = True
    truncated: bool = False
    """The stack could not be followed to its outermost frame."""
    pid: int | None = None
    """Of the process that made the calls; None where several have their blocks under no stack."""
    cache: str | None = None
    """Name of the kernel's slab cache that its blocks are of; None where there is none, or the
    kernel does not say."""
    lifetimes: tuple[int, ...] = ()
    """Frees so far by how long the block had been held: band i from ``LIFETIME_EDGES_S[i]`` on,
    the last one open. Empty where that is not counted, and in growth mode."""


LIFETIME_EDGES_S = (0.0, *(2.0**i * 1e-9 for i in range(20, 43)))
"""Where the 24 bands of ``Site.lifetimes`` begin: from about a millisecond to an hour."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a stack leaks, as far as its figures so far tell."""

    score: float
    """0: it does not, 1: it does."""
    reason: str
    """What speaks for it or against it, in a few words for people."""


@dataclass(frozen=True, slots=True)
class CodeMapping:
    """Code that a process has mapped: where it lies, and of which file."""

    pid: int
    """0 of the kernel."""
    start: int
    """Address of its first byte."""
    end: int
    """Address behind its last byte."""
    offset: int
    """Of its first byte in the file."""
    path: str
    """As the target sees it, or a pseudo name such as ``[vdso]``; empty where there is no file."""
    build_id: str | None = None
    """NT_GNU_BUILD_ID in hexadecimal; None where there is none, or it cannot be read."""


@dataclass(frozen=True, slots=True)
class TracedFunction:
    """One function of an allocator's interface, and where its probe is."""

    name: str
    shift: int = 0
    """Bytes from its entry to the probe."""
    instruction: str = ""
    """What is there, one that the kernel emulates; empty where it steps through it."""
    why: str = ""
    """Why the probe is there and not at a cheaper place; empty where there is none."""
    refused: str = ""
    """Why the kernel takes no probe on it; empty where it is traced."""
    effect: str = ""
    """What is wrong with the figures where it is refused."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A function that should be traced and is not."""

    function: str
    library: str
    reason: str
    effect: str
    """What is wrong with the figures for it."""

    def __str__(self) -> str:
        """Which function it is, what is wrong without it, and why."""
        return f"{self.function} in {self.library}: {self.effect}: {self.reason}"


@dataclass(frozen=True, slots=True)
class TracedLibrary:
    """A file of the target that defines an allocator."""

    name: str
    functions: tuple[TracedFunction, ...]
    left_out: tuple[str, ...] = ()
    """Functions that cannot be traced safely: name and reason."""

    def __str__(self) -> str:
        """``N functions in LIBRARY``."""
        count = sum(not function.refused for function in self.functions)
        return f"{count} function{'' if count == 1 else 's'} in {self.name}"


@dataclass(frozen=True, slots=True)
class Tracing:
    """What is traced, and how."""

    libraries: tuple[TracedLibrary, ...] = ()
    processes: tuple[Target, ...] = ()
    """Where more than one process is traced, each of them."""
    way: str = ""
    """How probes are attached, for people."""
    tracepoints: tuple[str, ...] = ()
    """Events of the kernel, where that is what is traced: ``kmem:kfree``."""
    left_out: tuple[str, ...] = ()
    """What of the kernel's is not done, and why."""
    growth: str = ""
    """What is watched in growth mode, and what is not, for people; empty elsewhere."""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The functions on which the kernel took no probe."""
        return tuple(
            Refusal(function.name, library.name, function.refused, function.effect)
            for library in self.libraries
            for function in library.functions
            if function.refused
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """What leaktop itself takes; bytes."""

    resident: int
    """Of its own process, as the kernel counts it."""
    maps: Mapping[str, int] = field(default_factory=dict)
    """Of the kernel for each BPF map, by its name."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One of several processes at one moment."""

    target: Target
    totals: Counters
    """Of the stacks that it holds something under, and all that it did."""
    note: str | None = None
    """Why it is no longer traced, once it is not."""


@dataclass(frozen=True, slots=True)
class System:
    """The host's memory as the kernel itself counts it; bytes."""

    available: int
    """What programs could still get without swapping (``MemAvailable``)."""
    slab: int
    """What slab caches hold (``Slab``)."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How a process as a whole has grown since counting started."""

    rss_change: int | None
    """Bytes of resident memory, more or less: nothing else says what was given back. None where it
    is not known."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one tick read, at one moment."""

    time_ns: int
    """Wall clock, nanoseconds since the epoch."""
    elapsed_s: float
    """Seconds since counting started."""
    target: Target
    filters: Filters
    totals: Counters
    sites: tuple[Site, ...]
    """Stacks that hold something now, in no order."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """What could not be accounted, by the name of the loss; empty or all zero: the figures are
    exact. The names and their meaning are in ``LOSSES``."""
    estimated: bool = False
    """Sampling was on at some time, so the figures are estimates."""
    note: str | None = None
    """Why the target is no longer traced, once it is not."""
    refusals: tuple[Refusal, ...] = ()
    """Functions that should be traced and are not: without them the figures are wrong."""
    processes: tuple[ProcessState, ...] = ()
    """Where more than one process is or was traced, each of them, in order of appearance."""
    system: System | None = None
    """The host's memory, where it is the kernel that is traced; None in a process."""
    growth: Growth | None = None
    """In growth mode, what its counters cannot say; None elsewhere."""

    @property
    def mode(self) -> str:
        """What the figures are: what a process (``user``) or the kernel (``kernel``) holds.

        Or the new pages of a process (``growth``).
        """
        if self.growth is not None:
            return "growth"
        return "user" if self.system is None else "kernel"


@dataclass(frozen=True, slots=True)
class Trend:
    """How a figure came about: its peaks in equal parts of some time, oldest first."""

    values: Sequence[int] = ()
    span_s: float = 0.0
    """Seconds that they cover."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bytes and blocks by band: band i holds values from ``edges[i]`` up to ``edges[i + 1]``.

    The last band is open, so ``edges`` is as long as ``bytes`` and ``counts``.
    """

    edges: tuple[float, ...]
    bytes: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StackDetail:
    """What the live blocks of one stack say, read block by block: exact but for sampling."""

    stack_id: int
    time_ns: int
    ages: Histogram
    """Bands of seconds."""
    sizes: Histogram
    """Bands of bytes, powers of two."""
    oldest_s: float | None
    newest_s: float | None
    bytes_error: float = 0.0
    """Standard error of the stack's bytes as sampled; 0 when every block was kept."""


RECORDING_BYTES = 256 << 20
"""How large a recording may become where nothing else is asked for."""


class SortKey(StrEnum):
    """What a table is sorted by; the values are those of ``--sort``."""

    BYTES = "bytes"
    COUNT = "count"
    GROWTH = "growth"
    AGE = "age"
    SUSPECT = "suspect"


LOSSES: Mapping[str, str] = {
    "allocs_full": "allocations not tracked: the table of live allocations was full (--max-allocs)",
    "stacks_full": "allocations filed under no stack: the stack table was full (--max-stacks)",
    "truncated": "allocations whose stack could not be followed to its end",
    "threads_full": "calls not seen: no room for their thread's state",
    "missed_returns": "allocator calls that never returned where they were called",
    "missed_frees": "blocks replaced by a new one at the same address: their free was not seen",
    "unmatched_unmaps": "munmap calls that match no mapping seen, or only its middle",
    "mapping_ends_full": "mappings whose tail cannot be matched: the table of ends was full",
    "unread_results": "posix_memalign results that could not be read",
    "rules_full": "code addresses that found no room for their call-frame rule",
    "missed_events": "kernel events not seen: they came while another BPF program was running",
    "events_dropped": "events not logged: more came than were read (the figures have them)",
}
"""Every way to lose something, in the order of ``memleak.h``: name to what it means."""
