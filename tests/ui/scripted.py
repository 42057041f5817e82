"""A Source that plays prepared snapshots; every call can be held and watched by a test."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from leaktop.model import (
    CodeMapping,
    Counters,
    Filters,
    Frame,
    Growth,
    Histogram,
    Memory,
    Refusal,
    Site,
    Snapshot,
    StackDetail,
    Target,
    TracedFunction,
    TracedLibrary,
    Tracing,
)
from leaktop.single_blocks import EVENTS_MAX, BlockPage, Event, EventKind, LiveBlock
from leaktop.source import SourceError

TARGET = Target(pid=4242, comm="leaky", rss=48 << 20)
START_NS = 1_769_860_800_000_000_000


class Gate:
    """Holds a call until the test lets it go on, and tells the test that it was reached."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self) -> None:
        self.reached.set()
        self._open.wait()


LIBC = TracedLibrary(
    "libc.so.6",
    (
        TracedFunction("malloc", 0, "push r12"),
        TracedFunction("calloc", 0, "push r13"),
        TracedFunction("realloc", 0, "push r15"),
        TracedFunction("free", 9, "push rbp"),
        TracedFunction("posix_memalign", 7, "push r12"),
        TracedFunction("memalign", 7, "je 0x99620"),
        TracedFunction("mmap", 10, "jne 0x1019c0"),
        TracedFunction("munmap", why="nothing that the kernel emulates comes before syscall"),
        TracedFunction("mremap", why="nothing that the kernel emulates comes before rsp changes"),
    ),
)
TRACING = Tracing((LIBC,), way="uprobe session links")
REFUSED = TracedFunction(
    "free",
    9,
    "push rbp",
    refused="Invalid argument (is another tracer attached?)",
    effect="what it frees looks held",
)
JEMALLOC = TracedLibrary("libjemalloc.so.2", (TracedFunction("malloc", 4, "push rbx"), REFUSED))
MEMORY = Memory(97 << 20, {"block_sets": 64 << 20, "stacks": 17 << 20, "config": 352})


MAPPED = (
    CodeMapping(4242, 0x5603282B1000, 0x5603282B5000, 0x1000, "/usr/bin/leaky", "c0ffee" * 6),
    CodeMapping(4242, 0x7F12A0B00000, 0x7F12A0C00000, 0x26000, "/usr/lib/libunknown.so.1"),
)


class ScriptedSource:
    """Plays ``snapshots`` one a tick and stays at the last."""

    def __init__(
        self,
        snapshots: Sequence[Snapshot],
        *,
        names: Mapping[int, tuple[Frame, ...]] | None = None,
        lines: Mapping[int, tuple[Frame, ...]] | None = None,
        details: Mapping[int, StackDetail] | None = None,
        steps: Sequence[str] = ("compiling the tracer", "attaching 13 functions"),
        unnamed: Mapping[str, str] | None = None,
        tracing: Tracing = TRACING,
    ) -> None:
        self.snapshots = list(snapshots)
        self.names = dict(names or {})
        self.lines = dict(lines or {})
        self.details = dict(details or {})
        self.steps = steps
        self.unnamed = dict(unnamed or {})
        self.tracing = tracing
        self.no_detail = ""
        self.held: dict[int, Sequence[LiveBlock]] = {}
        self.content: dict[int, bytes] = {}
        self.happened: list[Event] = []
        self.mapped: list[CodeMapping] = list(MAPPED)
        self.pages_read: list[tuple[int, int, int]] = []
        self.logged: list[int | None] = []
        self.asked_for_memory = 0
        self.played = 0
        self.closed = 0
        self.resolved: list[tuple[list[int], bool]] = []
        self.applied: list[Filters] = []
        self.failures: dict[str, Exception] = {}
        self.gates = {name: Gate() for name in ("start", "snapshot", "detail", "resolve", "close")}
        self.threads: dict[str, set[int]] = {}
        self._filters: Filters | None = None

    @property
    def target(self) -> Target:
        return TARGET

    @property
    def end_descriptor(self) -> int | None:
        return None

    def start(self, progress: Callable[[str], None]) -> None:
        for step in self.steps:
            progress(step)
        self._enter("start")

    def snapshot(self) -> Snapshot:
        self._enter("snapshot")
        snapshot = self.snapshots[min(self.played, len(self.snapshots) - 1)]
        self.played += 1
        return snapshot if self._filters is None else replace(snapshot, filters=self._filters)

    def detail(self, stack_id: int) -> StackDetail:
        self._enter("detail")
        if stack_id not in self.details:
            raise SourceError(self.no_detail or f"stack {stack_id:x} holds nothing")
        return self.details[stack_id]

    def blocks(self, stack_ids: Iterable[int], offset: int, count: int) -> Mapping[int, BlockPage]:
        self._enter("blocks")
        pages = {}
        for stack_id in stack_ids:
            self.pages_read.append((stack_id, offset, count))
            held = self.held.get(stack_id, ())
            first = offset if offset < len(held) else max(0, len(held) - count)
            blocks = tuple(held[first : first + count])
            pages[stack_id] = BlockPage(stack_id, first, len(held), blocks)
        return pages

    def read_block(self, pid: int, address: int, size: int) -> bytes:
        self._enter("read_block")
        if address not in self.content:
            raise SourceError(f"nothing can be read at {address:#x} of process {pid}")
        return self.content[address][:size]

    def log(self, stack_id: int | None) -> None:
        self._enter("log")
        self.logged.append(stack_id)

    def events(self) -> Sequence[Event]:
        self._enter("events")
        taken, self.happened = self.happened[:EVENTS_MAX], self.happened[EVENTS_MAX:]
        return taken

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        asked = list(stack_ids)
        self._enter("resolve")
        self.resolved.append((asked, lines))
        known = self.lines if lines else self.names
        return {i: known[i] for i in asked if i in known}

    def memory(self) -> Memory:
        self._enter("memory")
        self.asked_for_memory += 1
        return MEMORY

    def problems(self) -> Mapping[str, str]:
        self._enter("problems")
        return dict(self.unnamed)

    def mappings(self) -> Sequence[CodeMapping]:
        self._enter("mappings")
        return self.mapped

    def apply(self, filters: Filters) -> None:
        self._enter("apply")
        self.applied.append(filters)
        self._filters = filters

    def close(self) -> None:
        self.closed += 1
        self._enter("close")

    def _enter(self, name: str) -> None:
        self.threads.setdefault(name, set()).add(threading.get_ident())
        if name in self.gates:
            self.gates[name]()
        if name in self.failures:
            raise self.failures[name]


def site(
    stack_id: int,
    held: int,
    count: int,
    frames: tuple[Frame, ...],
    *,
    oldest: float | None = None,
    exact: bool = True,
    truncated: bool = False,
    frees: int = 0,
    band: int = 0,
) -> Site:
    """``band``: of the lifetimes of most of what was freed."""
    lives = [0] * 24
    lives[band], lives[band + 1] = frees - frees // 4, frees // 4
    return Site(
        stack_id,
        Counters(held, count, count + frees, frees),
        tuple(Frame(f.address, f.module) for f in frames if not f.inlined),
        oldest_s=oldest,
        oldest_exact=exact,
        truncated=truncated,
        lifetimes=tuple(lives),
    )


def snapshot(
    elapsed: float,
    sites: Iterable[Site],
    *,
    lost: Mapping[str, int] | None = None,
    estimated: bool = False,
    note: str | None = None,
    filters: Filters | None = None,
    refusals: tuple[Refusal, ...] = (),
) -> Snapshot:
    held = tuple(sites)
    counters = [s.counters for s in held]
    churn = int(elapsed * 1200)
    return Snapshot(
        time_ns=START_NS + int(elapsed * 1e9),
        elapsed_s=elapsed,
        target=TARGET if note is None else replace(TARGET, alive=False, rss=None),
        filters=filters or Filters(),
        totals=Counters(
            sum(c.bytes for c in counters),
            sum(c.count for c in counters),
            sum(c.allocs for c in counters) + churn,
            sum(c.frees for c in counters) + churn,
        ),
        sites=held,
        lost=lost or {},
        estimated=estimated,
        note=note,
        refusals=refusals,
    )


def _stack(*calls: tuple[str, str, str, int], base: int = 0x5603282B1000) -> tuple[Frame, ...]:
    frames = []
    for i, (symbol, module, file, line) in enumerate(calls):
        inlined = symbol.startswith("*")
        frames.append(
            Frame(
                address=base + 0x178 * (i - inlined),
                module=module,
                symbol=symbol.lstrip("*"),
                offset=None if inlined else 15 + 16 * i,
                file=file or None,
                line=line or None,
                inlined=inlined,
                module_path=f"/usr/bin/{module}",
            )
        )
    return tuple(frames)


LEAK, CACHE, CHURN, STRINGS, PYTHON, UNNAMED, CUT = 0x9F31, 0xCAC4E, 0xC4, 0x57, 0x93, 0x0DD, 0xCC7

LINES: dict[int, tuple[Frame, ...]] = {
    LEAK: _stack(
        ("*note_new", "leaky", "/src/leaky/session.c", 31),
        ("session_open", "leaky", "/src/leaky/session.c", 88),
        ("handle_request", "leaky", "/src/leaky/server.c", 142),
        ("serve", "leaky", "/src/leaky/server.c", 201),
        ("main", "leaky", "/src/leaky/main.c", 40),
        ("__libc_start_call_main", "libc.so.6", "", 0),
        ("__libc_start_main_impl", "libc.so.6", "", 0),
        ("_start", "leaky", "", 0),
    ),
    CACHE: _stack(
        ("cache_put", "leaky", "/src/leaky/cache.c", 57),
        ("handle_request", "leaky", "/src/leaky/server.c", 133),
        ("serve", "leaky", "/src/leaky/server.c", 201),
        ("main", "leaky", "/src/leaky/main.c", 40),
    ),
    CHURN: _stack(
        ("parse_header", "leaky", "/src/leaky/parse.c", 19),
        ("handle_request", "leaky", "/src/leaky/server.c", 120),
        ("serve", "leaky", "/src/leaky/server.c", 201),
    ),
    STRINGS: _stack(
        ("operator new(unsigned long)", "libstdc++.so.6", "", 0),
        (
            "std::vector<std::string, std::allocator<std::string> >::push_back(std::string&&)",
            "libmetrics.so.2",
            "",
            0,
        ),
        (
            "metrics::Registry<std::string, metrics::Counter>::intern(std::string const&)",
            "libmetrics.so.2",
            "/src/metrics/registry.hpp",
            77,
        ),
        ("metrics::flush()", "libmetrics.so.2", "/src/metrics/flush.cc", 12),
    ),
    PYTHON: _stack(
        ("PyObject_Malloc", "libpython3.11.so.1.0", "", 0),
        ("PyDict_New", "libpython3.11.so.1.0", "", 0),
        ("_PyEval_EvalFrameDefault", "libpython3.11.so.1.0", "", 0),
    ),
    CUT: _stack(("jit_entry", "[heap]", "", 0)),
}
NAMES: dict[int, tuple[Frame, ...]] = {
    stack_id: tuple(replace(f, file=None, line=None) for f in frames if not f.inlined)
    for stack_id, frames in LINES.items()
}
BARE = (Frame(0x7F12A0B04E20, "libunknown.so.1"), Frame(0x7F12A0B05000, "libunknown.so.1"))


def sites_at(second: int) -> list[Site]:
    """Return a leak, a cache, churn and some small ones as they are after ``second`` seconds."""
    return [
        site(LEAK, 48 * 400 * second, 400 * second, LINES[LEAK], oldest=second - 0.2),
        site(CACHE, 12 << 20, 3072, LINES[CACHE], oldest=second - 0.1, frees=900 * second, band=12),
        site(CHURN, 4096 + 512 * (second % 3), 9, LINES[CHURN], oldest=0.3, frees=5000 * second),
        site(STRINGS, 300_000, 1200, LINES[STRINGS], oldest=second - 1.0, exact=False),
        site(PYTHON, 65_536, 128, LINES[PYTHON], oldest=second / 2),
        site(UNNAMED, 2048, 2, BARE, oldest=None),
        site(CUT, 512, 1, LINES[CUT], oldest=0.1, truncated=True),
    ]


GROWTH = Tracing(way="tracepoints", growth="page faults, brk, mmap")


def growing_source(seconds: Sequence[int] = (60,)) -> ScriptedSource:
    """Return a source with a tick for each second, as growth mode sees that process."""
    shots = []
    for second in seconds:
        sites = [
            replace(
                each,
                counters=Counters(
                    each.counters.bytes // 4096 * 4096,
                    each.counters.bytes // 4096,
                    each.counters.bytes // 8192 + 1,
                    calls=i % 2 * 12,
                ),
                oldest_s=None,
                lifetimes=(),
            )
            for i, each in enumerate(sites_at(second))
        ]
        totals = [each.counters for each in sites]
        shots.append(
            replace(
                snapshot(float(second), sites),
                totals=Counters(
                    sum(each.bytes for each in totals),
                    sum(each.count for each in totals),
                    sum(each.allocs for each in totals),
                    calls=sum(each.calls for each in totals),
                ),
                growth=Growth(second << 15),
            )
        )
    source = ScriptedSource(shots, names=NAMES, lines=LINES, tracing=GROWTH)
    source.no_detail = "no ages and sizes: growth mode sees pages, not blocks"
    return source


def detail(stack_id: int, *, error: float = 0.0) -> StackDetail:
    """Return ages that grow older evenly, and sizes of 32 to 63 with a few large ones."""
    counts = (12, 120, 480, 1200, 2400, 1700, 88, 0, 0)
    sizes = [0] * 20
    for bit, count in ((5, 5800), (6, 180), (12, 20)):
        sizes[bit] = count
    return StackDetail(
        stack_id=stack_id,
        time_ns=START_NS + 3600 * 10**9,
        ages=Histogram(
            edges=(0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 60.0, 600.0, 3600.0),
            bytes=tuple(48 * count for count in counts),
            counts=counts,
        ),
        sizes=Histogram(
            edges=tuple(float(1 << bit) for bit in range(20)),
            bytes=tuple((1 << bit) * count for bit, count in enumerate(sizes)),
            counts=tuple(sizes),
        ),
        oldest_s=61.8,
        newest_s=0.04,
        bytes_error=error,
    )


def live_blocks(count: int) -> list[LiveBlock]:
    """Return blocks of 48 and some more bytes, each a little younger than the one before."""
    return [
        LiveBlock(
            address=0x55D0_0000_1000 + 64 * i,
            size=48 + i % 3 * 8,
            age_s=61.8 * (1 - i / count),
            thread=TARGET.pid + i % 2,
            pid=TARGET.pid,
            weight=10 if i % 7 == 5 else 1,
        )
        for i in range(count)
    ]


CONTENT = b"GET /index.html HTTP/1.1\r\nHost: \x1b[31mevil\x1b[0m\0" + bytes(range(0, 256, 3))


def happened(count: int, stack_id: int) -> list[Event]:
    """Return blocks that come, of which each third one goes again."""
    events: list[Event] = []
    for i in range(count):
        address = 0x55D0_0000_1000 + 64 * i
        kinds = (EventKind.ALLOC, EventKind.FREE) if i % 3 == 0 else (EventKind.ALLOC,)
        for kind in kinds:
            at_ns = START_NS + 1_234_567 * len(events)
            events.append(
                Event(at_ns, kind, address, 48 + i, TARGET.pid, TARGET.pid + i % 2, stack_id)
            )
    return events


def leaky_source(
    seconds: int = 60, tracing: Tracing = TRACING, **options: object
) -> ScriptedSource:
    """Return a source with one tick, the state after ``seconds``."""
    source = ScriptedSource(
        [snapshot(float(seconds), sites_at(seconds), **options)],  # type: ignore[arg-type]
        names=NAMES,
        lines=LINES,
        details={i: detail(i) for i in LINES},
        tracing=tracing,
    )
    source.held = {i: live_blocks(400) for i in LINES}
    source.content = {each.address: CONTENT for each in live_blocks(400)}
    return source


def many_sites(count: int, second: int) -> list[Site]:
    """Return ``count`` stacks whose bytes and order change a little each second."""
    frames = (Frame(0x1000, "big"), Frame(0x2000, "big"))
    return [
        site(
            i + 1,
            (i * 7919 % 100_003) * 16 + (i % 10) * second * 64,
            i % 97 + 1,
            frames,
            oldest=second + i % 50 + 0.5,
        )
        for i in range(count)
    ]
