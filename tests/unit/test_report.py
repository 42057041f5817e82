"""Batch output against its contract, from a source that plays snapshots written here."""

import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.analyze import Reading, ordered
from leaktop.history import History
from leaktop.ignore import Entry, Ignored
from leaktop.model import (
    KERNEL,
    LOSSES,
    CodeMapping,
    Counters,
    Filters,
    Frame,
    Growth,
    Memory,
    ProcessState,
    Refusal,
    Site,
    Snapshot,
    SortKey,
    StackDetail,
    System,
    Target,
    TracedFunction,
    TracedLibrary,
    Tracing,
)
from leaktop.report import BLOCKS_MAX, BatchOptions, ready_line, run_batch
from leaktop.report_json import JSON_VERSION, event_json, json_line
from leaktop.report_text import event_text, frame_text, text
from leaktop.single_blocks import EVENTS_MAX, BlockPage, Event, EventKind, LiveBlock
from leaktop.source import SourceError

HOSTILE = "a\x1b[2J\nb\u202e[red]\x00\x9b\udcff"
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LEAK = Frame(0x5603282B1178, "leak", "leaky", 15, "leak.c", 5, module_path="/usr/bin/leak")
MAIN = Frame(0x5603282B1200, "leak", "main", 0x6D)
UNKNOWN = Frame(0x7F0000001234)
UNKNOWN_END = {"exit_code": None, "signal": None}
NO_DELAY = BatchOptions(delay_s=0.0, iterations=None, top=10, sort=SortKey.BYTES, as_json=True)


def site(stack_id: int = 0x9F, size: int = 160, count: int = 10, **other: Any) -> Site:
    counters = Counters(size, count, allocs=count + 3, frees=3)
    return Site(stack_id, counters, other.pop("frames", (LEAK, MAIN)), oldest_s=1.9, **other)


def snapshot(*sites: Site, **other: Any) -> Snapshot:
    values: dict[str, Any] = {
        "time_ns": 1_769_860_800_123_456_789,
        "elapsed_s": 2.0,
        "target": Target(123, "leaky", rss=4096),
        "filters": Filters(),
        "totals": Counters(4096, 64, 1000, 936),
        "sites": sites,
        "lost": dict.fromkeys(LOSSES, 0),
    }
    return Snapshot(**{**values, **other})


def reading(*sites: Site, **other: Any) -> Reading:
    return History().add(snapshot(*sites, **other))


def document(read: Reading, frames: Mapping[int, Sequence[Frame]] | None = None) -> dict[str, Any]:
    line = json_line(read, ordered(read, SortKey.BYTES), frames or {})
    assert "\n" not in line
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


READY = "tracing 123 (leaky): 1 function in libc.so.6"


class Scripted:
    """A source that plays snapshots, and the last of them again and again."""

    def __init__(self, *snapshots: Snapshot | Exception) -> None:
        self._script = list(snapshots)
        self.calls: list[str] = []
        self.held: dict[int, BlockPage] = {}
        self.logged: list[Event] = []
        self.on_snapshot: Callable[[int], None] = lambda _: None
        self.taken = 0
        self.tracing = Tracing((TracedLibrary("libc.so.6", (TracedFunction("malloc"),)),))
        self.target = Target(123, "leaky")
        self.names: dict[int, tuple[Frame, ...]] = {}
        self.named: list[list[int]] = []

    @property
    def end_descriptor(self) -> int | None:
        return None

    def start(self, progress: Callable[[str], None]) -> None:
        progress("attaching")
        self.calls.append("start")

    def snapshot(self) -> Snapshot:
        self.taken += 1
        self.on_snapshot(self.taken)
        now = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(now, Exception):
            raise now
        return now

    def detail(self, stack_id: int) -> StackDetail:
        raise AssertionError(f"batch output asks for no detail, but did for {stack_id}")

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        asked = list(stack_ids)
        if not lines:
            self.named.append(asked)
        stack_ids = asked
        return {stack_id: self.names[stack_id] for stack_id in stack_ids if stack_id in self.names}

    def blocks(self, stack_ids: Iterable[int], offset: int, count: int) -> Mapping[int, BlockPage]:
        assert (offset, count) == (0, BLOCKS_MAX)
        return {stack_id: self.held[stack_id] for stack_id in stack_ids}

    def read_block(self, pid: int, address: int, size: int) -> bytes:
        raise AssertionError(f"batch output reads no block, but did {size} at {address} of {pid}")

    def log(self, stack_id: int | None) -> None:
        raise AssertionError(f"the log of batch output has all stacks, not {stack_id}")

    def events(self) -> Sequence[Event]:
        taken, self.logged = self.logged[:EVENTS_MAX], self.logged[EVENTS_MAX:]
        return taken

    def memory(self) -> Memory:
        raise AssertionError("batch output does not say what leaktop takes")

    def problems(self) -> Mapping[str, str]:
        return {}

    def mappings(self) -> Sequence[CodeMapping]:
        return ()

    def apply(self, filters: Filters) -> None:
        raise AssertionError(f"batch output changes no filter, but did to {filters}")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def messages() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Check that the handlers of signals are afterwards as they were before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# ---- text ----


def test_text_reads_like_memleak_s() -> None:
    lines = text(reading(site()), [site()], {}).splitlines()
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] Top 1 stacks with outstanding allocations:", lines[0])
    assert lines[1:] == [
        "\t160 bytes in 10 allocations from stack",
        "\t\tleaky+0xf [leak] (leak.c:5)",
        "\t\tmain+0x6d [leak]",
    ]


def test_text_has_local_time() -> None:
    when = datetime.fromtimestamp(1_769_860_800).astimezone()
    assert text(reading(), [], {}).startswith(f"[{when:%H:%M:%S}] Top 0 stacks")


def test_text_prefers_resolved_frames() -> None:
    shown = text(reading(site()), [site()], {0x9F: (MAIN,)}).splitlines()
    assert shown[2:] == ["\t\tmain+0x6d [leak]"]


def test_text_marks_estimates() -> None:
    shown = text(reading(site(), estimated=True), [site()], {})
    assert "\t~160 bytes in ~10 allocations from stack" in shown


def test_text_says_that_a_stack_was_cut_or_had_no_room() -> None:
    cut = text(reading(), [site(truncated=True)], {}).splitlines()
    assert cut[-1] == "\t\t[the stack goes on: it was cut here]"
    unfiled = text(reading(), [site(frames=(), truncated=True)], {}).splitlines()
    assert len(unfiled) == 3
    assert "--max-stacks" in unfiled[-1]


def test_text_keeps_the_order_that_it_is_given() -> None:
    rows = [site(1, 10), site(2, 30), site(3, 20)]
    shown = re.findall(r"\t(\d+) bytes in", text(reading(), rows, {}))
    assert shown == ["10", "30", "20"]


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        (MAIN, "main+0x6d [leak]"),
        (LEAK, "leaky+0xf [leak] (leak.c:5)"),
        (UNKNOWN, "0x7f0000001234 [unknown]"),
        (replace(UNKNOWN, module="libc.so.6"), "0x7f0000001234 [libc.so.6]"),
        (replace(MAIN, offset=None), "main [leak]"),
        (replace(MAIN, offset=0), "main+0x0 [leak]"),
        (replace(LEAK, line=None), "leaky+0xf [leak] (leak.c:?)"),
        (replace(LEAK, inlined=True, offset=None), "leaky [leak] (leak.c:5) (inlined)"),
    ],
)
def test_frame(frame: Frame, shown: str) -> None:
    assert frame_text(frame) == shown


@given(st.text(max_size=40))
def test_hostile_names_stay_on_their_line(name: str) -> None:
    shown = frame_text(Frame(1, module=name, symbol=name, offset=1, file=name, line=1))
    assert UNSAFE.search(shown) is None
    assert len(shown.splitlines()) == 1


def test_hostile_frames_do_not_forge_stacks() -> None:
    forged = Frame(1, symbol="x\n\t9 bytes in 1 allocations from stack")
    shown = text(reading(), [site(frames=(forged,))], {})
    assert shown.count("\n") == 2


# ---- JSON ----


def test_json_fields() -> None:
    assert document(reading(site())) == {
        "version": 1,
        "time": "2026-01-31T12:00:00.123Z",
        "elapsed_s": 2.0,
        "mode": "user",
        "target": {"pid": 123, "comm": "leaky", "alive": True, **UNKNOWN_END},
        "targets": [],
        "filters": {"min_size": 0, "max_size": None, "sample_rate": 1, "older_s": 0.0},
        "totals": {"bytes": 4096, "count": 64, "allocs": 1000, "frees": 936, "alloc_bytes": 0},
        "ignored": {"bytes": 0, "count": 0, "stacks": 0},
        "rates": {"allocs_per_s": 500.0, "frees_per_s": 468.0, "bytes_per_s": 2048.0},
        "probes_refused": [],
        "lost": dict.fromkeys(LOSSES, 0),
        "stacks": [
            {
                "id": "000000000000009f",
                "pid": None,
                "bytes": 160,
                "count": 10,
                "allocs": 13,
                "frees": 3,
                "alloc_bytes": 0,
                "growth_bytes_per_s": 80.0,
                "oldest_s": 1.9,
                "oldest_exact": True,
                "estimated": False,
                "truncated": False,
                "frames": [
                    {
                        "address": "0x5603282b1178",
                        "symbol": "leaky",
                        "offset": 15,
                        "module": "leak",
                        "file": "leak.c",
                        "line": 5,
                        "inlined": False,
                    },
                    {
                        "address": "0x5603282b1200",
                        "symbol": "main",
                        "offset": 109,
                        "module": "leak",
                        "file": None,
                        "line": None,
                        "inlined": False,
                    },
                ],
            }
        ],
    }


WORKER = Target(124, "worker\n", alive=False)
SEVERAL = (
    ProcessState(Target(123, "leaky"), Counters(160, 10, 13, 3)),
    ProcessState(WORKER, Counters(0, 0, 5, 5), "exited"),
)


def test_json_of_several_processes() -> None:
    found = document(reading(replace(site(), pid=124), processes=SEVERAL))
    assert found["targets"] == [
        {
            **{"pid": 123, "comm": "leaky", "alive": True, "note": None, **UNKNOWN_END},
            **{"bytes": 160, "count": 10, "allocs": 13, "frees": 3, "alloc_bytes": 0},
        },
        {
            **{"pid": 124, "comm": "worker\n", "alive": False, "note": "exited", **UNKNOWN_END},
            **{"bytes": 0, "count": 0, "allocs": 5, "frees": 5, "alloc_bytes": 0},
        },
    ]
    assert found["stacks"][0]["pid"] == 124


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ({"exit_code": 0}, {"exit_code": 0, "signal": None}),
        ({"exit_code": 255}, {"exit_code": 255, "signal": None}),
        ({"signal": 11}, {"exit_code": None, "signal": "SIGSEGV"}),
        ({"signal": 40}, {"exit_code": None, "signal": "signal 40"}),
    ],
)
def test_json_of_a_command_that_ended(end: dict[str, int], told: dict[str, object]) -> None:
    found = document(reading(target=Target(123, "leaky", alive=False, **end)))
    assert found["target"] == {"pid": 123, "comm": "leaky", "alive": False, **told}


def test_text_of_several_processes_says_whose_a_stack_is() -> None:
    shown = reading(replace(site(), pid=124), processes=SEVERAL)
    assert "from stack of 124 (worker?)\n" in text(shown, shown.snapshot.sites, {})


def test_ready_line_of_several_processes() -> None:
    processes = (Target(123, "leaky"), Target(124, "worker"), Target(125, "leaky"))
    line = ready_line(processes[0], Tracing(processes=processes))
    assert line.startswith("tracing 3 processes (leaky, worker): ")


def test_json_of_other_values() -> None:
    filters = Filters(min_size=64, max_size=4096, sample_rate=10, older_s=1.5)
    row = site(2**64 - 1, oldest_exact=False, truncated=True, frames=(UNKNOWN,))
    found = document(
        reading(
            replace(row, oldest_s=None),
            filters=filters,
            target=Target(123, "leaky", alive=False),
            estimated=True,
            lost={**dict.fromkeys(LOSSES, 0), "truncated": 7},
        )
    )
    assert found["filters"] == {
        "min_size": 64,
        "max_size": 4096,
        "sample_rate": 10,
        "older_s": 1.5,
    }
    assert found["target"]["alive"] is False
    assert found["lost"]["truncated"] == 7
    (stack,) = found["stacks"]
    assert stack["id"] == "f" * 16
    assert stack["oldest_s"] is None
    assert (stack["oldest_exact"], stack["truncated"], stack["estimated"]) == (False, True, True)
    assert stack["frames"] == [
        {
            "address": "0x7f0000001234",
            "symbol": None,
            "offset": None,
            "module": None,
            "file": None,
            "line": None,
            "inlined": False,
        }
    ]


def test_json_prefers_resolved_frames() -> None:
    found = document(reading(site()), {0x9F: (replace(MAIN, inlined=True), LEAK)})
    frames = found["stacks"][0]["frames"]
    assert [(frame["symbol"], frame["inlined"]) for frame in frames] == [
        ("main", True),
        ("leaky", False),
    ]


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)), st.integers(0, 999_999))
def test_json_time_is_utc_to_the_millisecond(when: datetime, rest_ns: int) -> None:
    exact = when.replace(microsecond=when.microsecond // 1000 * 1000, tzinfo=UTC)
    whole_s = int((exact.replace(microsecond=0)).timestamp())
    time_ns = whole_s * 10**9 + exact.microsecond * 1000 + rest_ns
    shown = document(reading(time_ns=time_ns))["time"]
    assert shown == f"{exact:%Y-%m-%dT%H:%M:%S}.{exact.microsecond // 1000:03}Z"


def test_json_keeps_hostile_names_as_data() -> None:
    frame = Frame(1, module=HOSTILE, symbol=HOSTILE, file=HOSTILE)
    line = json_line(
        reading(site(frames=(frame,)), target=Target(123, HOSTILE)), [site(frames=(frame,))], {}
    )
    assert line.isascii()
    assert line.isprintable()
    (shown,) = json.loads(line)["stacks"][0]["frames"]
    assert shown["symbol"] == HOSTILE.replace("\udcff", "?")
    assert json.loads(line)["target"]["comm"] == shown["symbol"] == shown["module"] == shown["file"]


@given(st.text(st.characters()))
def test_json_is_unicode_whatever_the_name(name: str) -> None:
    read = reading(target=Target(123, name))
    json.loads(json_line(read, [], {}))["target"]["comm"].encode("utf-8")


FREE_REFUSED = Refusal("free", "libc.so.6", "Invalid argument", "frees are not seen")


def test_json_names_what_is_not_traced() -> None:
    found = document(reading(site(), refusals=(FREE_REFUSED,)))
    assert found["probes_refused"] == [
        {
            "function": "free",
            "library": "libc.so.6",
            "effect": "frees are not seen",
            "reason": "Invalid argument",
        }
    ]


def test_text_names_what_is_not_traced_in_each_snapshot() -> None:
    said = text(reading(site(), refusals=(FREE_REFUSED,)), [], {}).splitlines()
    assert said[1] == "\t[not traced: free in libc.so.6: frees are not seen: Invalid argument]"


def test_ready_line_says_what_is_traced_and_what_is_not() -> None:
    refused = TracedFunction("free", refused="Invalid argument", effect="frees are not seen")
    libraries = (
        TracedLibrary("libc.so.6", (TracedFunction("malloc"), TracedFunction("calloc"), refused)),
        TracedLibrary("libx.so", (TracedFunction("malloc"),), ("_Znwm: not described",)),
    )
    assert ready_line(Target(123, "leaky"), Tracing(libraries)) == (
        "tracing 123 (leaky): 2 functions in libc.so.6, 1 function in libx.so; "
        "not free in libc.so.6: frees are not seen: Invalid argument; not _Znwm: not described"
    )


@pytest.mark.parametrize(
    ("target", "whose"), [(KERNEL, "the kernel"), (Target(7, "x"), "the kernel for 7 (x)")]
)
def test_ready_line_of_the_kernel(target: Target, whose: str) -> None:
    tracing = Tracing(tracepoints=("kmem:kmalloc", "kmem:kfree"), left_out=("told apart: x",))
    assert ready_line(target, tracing) == f"tracing {whose}: 2 tracepoints; not told apart: x"


def test_the_kernel_in_json_and_text() -> None:
    read = reading(site(cache="dentry"), target=KERNEL, system=System(available=10, slab=4))
    found = document(read)
    assert found["mode"] == "kernel"
    target = {"pid": 0, "comm": "kernel", "alive": True, "exit_code": None, "signal": None}
    assert found["target"] == target
    assert found["system"] == {"available": 10, "slab": 4}
    assert found["stacks"][0]["cache"] == "dentry"
    said = text(read, read.snapshot.sites, {}).splitlines()
    assert said[2] == "\t\t[of slab cache dentry]"


def test_nothing_of_the_kernel_is_said_of_a_process() -> None:
    found = document(reading(site()))
    assert "system" not in found
    assert "cache" not in found["stacks"][0]


# ---- the loop ----


def test_ready_line_comes_before_data(out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(snapshot(site()))

    def nothing_printed_yet(_: int) -> None:
        assert messages.getvalue() == f"leaktop: {READY}\n"
        assert out.getvalue() == ""

    source.on_snapshot = nothing_printed_yet
    run_batch(source, replace(NO_DELAY, iterations=1), out, messages)
    assert source.calls == ["start", "close"]
    assert messages.getvalue() == f"leaktop: {READY}\n"


def test_hostile_ready_line_is_one_line(out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(snapshot())
    source.target = Target(123, HOSTILE)
    run_batch(source, replace(NO_DELAY, iterations=1), out, messages)
    assert messages.getvalue().count("\n") == 1
    assert UNSAFE.search(messages.getvalue()) is None


@pytest.mark.parametrize("iterations", [1, 3])
def test_iterations(iterations: int, out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(*(snapshot(elapsed_s=float(i)) for i in range(1, 9)))
    run_batch(source, replace(NO_DELAY, iterations=iterations), out, messages)
    shown = [json.loads(line)["elapsed_s"] for line in out.getvalue().splitlines()]
    assert shown == [float(i) for i in range(1, iterations + 1)]
    assert source.taken == iterations
    assert source.calls == ["start", "close"]


def test_rates_and_growth_are_since_the_snapshot_before(
    out: io.StringIO, messages: io.StringIO
) -> None:
    source = Scripted(
        snapshot(site(size=100), elapsed_s=1.0, totals=Counters(100, 1, 10, 9)),
        snapshot(site(size=400), elapsed_s=2.0, totals=Counters(400, 4, 30, 26)),
    )
    run_batch(source, replace(NO_DELAY, iterations=2), out, messages)
    second = json.loads(out.getvalue().splitlines()[1])
    assert second["rates"] == {"allocs_per_s": 20.0, "frees_per_s": 17.0, "bytes_per_s": 300.0}
    assert second["stacks"][0]["growth_bytes_per_s"] == 200.0


@pytest.mark.parametrize(
    ("key", "order"),
    [(SortKey.BYTES, [3, 2]), (SortKey.COUNT, [1, 2]), (SortKey.AGE, [2, 3])],
)
def test_sort_and_top(
    key: SortKey, order: list[int], out: io.StringIO, messages: io.StringIO
) -> None:
    rows = (
        replace(site(1, 10, 30), oldest_s=1.0),
        replace(site(2, 20, 20), oldest_s=3.0),
        replace(site(3, 30, 10), oldest_s=2.0),
    )
    source = Scripted(snapshot(*rows))
    run_batch(source, replace(NO_DELAY, iterations=1, top=2, sort=key), out, messages)
    stacks = json.loads(out.getvalue())["stacks"]
    assert [int(stack["id"], 16) for stack in stacks] == order


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("handlers")
def test_a_signal_between_ticks_gives_a_last_snapshot(
    number: signal.Signals, out: io.StringIO, messages: io.StringIO
) -> None:
    # the signal comes while the second tick is being waited for, which would take for ever
    source = Scripted(snapshot(elapsed_s=1.0), snapshot(elapsed_s=2.0))
    source.names = {}
    endless = replace(NO_DELAY, delay_s=3600.0)

    class Out(io.StringIO):
        def flush(self) -> None:
            if self.getvalue().endswith("\n"):
                os.kill(os.getpid(), number)

    messages = Out()  # its first line is the ready line
    run_batch(source, endless, out, messages)
    assert [json.loads(line)["elapsed_s"] for line in out.getvalue().splitlines()] == [1.0]
    assert source.calls == ["start", "close"]


@pytest.mark.usefixtures("handlers")
def test_a_signal_during_a_tick_ends_with_that_tick(
    out: io.StringIO, messages: io.StringIO
) -> None:
    source = Scripted(snapshot())
    source.on_snapshot = lambda taken: os.kill(os.getpid(), signal.SIGTERM) if taken == 3 else None
    run_batch(source, NO_DELAY, out, messages)
    assert len(out.getvalue().splitlines()) == 3
    assert source.calls == ["start", "close"]


@pytest.mark.usefixtures("handlers")
def test_signals_that_come_at_any_instant_end_it(out: io.StringIO, messages: io.StringIO) -> None:
    # many rounds, each interrupted by both signals of a child that aims at nothing in particular
    parent = os.getpid()
    source = Scripted(snapshot())
    before = [signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)]
    child = os.fork()
    if child == 0:
        try:
            while os.getppid() == parent:
                os.kill(parent, signal.SIGINT)
                os.kill(parent, signal.SIGTERM)
                time.sleep(0.0002)
        finally:
            os._exit(0)
    try:
        for _ in range(300):
            run_batch(source, replace(NO_DELAY, delay_s=3600.0), out, messages)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert source.calls == ["start", "close"] * 300


def test_the_target_s_end_ends_it(out: io.StringIO, messages: io.StringIO) -> None:
    gone = snapshot(site(), target=Target(123, "leaky", alive=False), note="exited")
    source = Scripted(snapshot(site()), gone)
    run_batch(source, NO_DELAY, out, messages)
    shown = [json.loads(line)["target"]["alive"] for line in out.getvalue().splitlines()]
    assert shown == [True, False]
    assert source.calls == ["start", "close"]
    assert messages.getvalue().count("\n") == 1


def test_text_says_how_the_target_ended(out: io.StringIO, messages: io.StringIO) -> None:
    note = f"runs another program now ({HOSTILE})"
    source = Scripted(snapshot(target=Target(123, HOSTILE, alive=False), note=note))
    run_batch(source, replace(NO_DELAY, as_json=False), out, messages)
    last = messages.getvalue().splitlines()[-1]
    assert last.startswith("leaktop: process 123 (a?[2J?b")
    assert "runs another program now" in last
    assert UNSAFE.search(messages.getvalue()) is None


def test_losses_are_told_when_they_change(out: io.StringIO, messages: io.StringIO) -> None:
    none = dict.fromkeys(LOSSES, 0)
    some = {**none, "allocs_full": 3, "truncated": 1}
    source = Scripted(*(snapshot(lost=lost) for lost in (none, some, some, none)))
    run_batch(source, replace(NO_DELAY, iterations=4, as_json=False), out, messages)
    assert messages.getvalue().splitlines()[1:] == [
        f"leaktop: lost: allocs_full 3: {LOSSES['allocs_full']}",
        f"leaktop: lost: truncated 1: {LOSSES['truncated']}",
    ]


def test_losses_are_in_json_and_nowhere_else(out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(snapshot(lost={**dict.fromkeys(LOSSES, 0), "allocs_full": 3}))
    run_batch(source, replace(NO_DELAY, iterations=1), out, messages)
    assert json.loads(out.getvalue())["lost"]["allocs_full"] == 3
    assert messages.getvalue().count("\n") == 1


class Closed(io.StringIO):
    """A stream that nobody reads any more."""

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.usefixtures("handlers")
def test_closed_output_ends_it_and_closes_the_source(messages: io.StringIO) -> None:
    source = Scripted(snapshot())
    with pytest.raises(BrokenPipeError):
        run_batch(source, NO_DELAY, Closed(), messages)
    assert source.calls == ["start", "close"]
    assert source.taken == 1


@pytest.mark.usefixtures("handlers")
def test_closed_messages_close_the_source(out: io.StringIO) -> None:
    source = Scripted(snapshot())
    with pytest.raises(BrokenPipeError):
        run_batch(source, NO_DELAY, out, Closed())
    assert source.calls == ["start", "close"]


@pytest.mark.usefixtures("handlers")
def test_an_error_while_running_closes_the_source(out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(snapshot(), SourceError("the map cannot be read"))
    with pytest.raises(SourceError, match="cannot be read"):
        run_batch(source, NO_DELAY, out, messages)
    assert len(out.getvalue().splitlines()) == 1
    assert source.calls == ["start", "close"]


@pytest.mark.usefixtures("handlers")
def test_a_source_that_cannot_start_says_nothing_and_is_closed(
    out: io.StringIO, messages: io.StringIO
) -> None:
    class Refused(Scripted):
        def start(self, progress: Callable[[str], None]) -> None:
            raise SourceError("not root", 3)

    source = Refused(snapshot())
    with pytest.raises(SourceError, match="not root"):
        run_batch(source, NO_DELAY, out, messages)
    assert (out.getvalue(), messages.getvalue()) == ("", "")
    assert source.calls == ["close"]


def test_json_version_is_the_one_that_scripts_know() -> None:
    assert JSON_VERSION == 1


def test_growth_mode_says_that_it_is_growth() -> None:
    pages = Site(1, Counters(8192, 2, allocs=2), (LEAK,))
    calls = Site(2, Counters(calls=3), (MAIN,))
    read = reading(pages, calls, growth=Growth(rss_change=-4096))
    found = document(read)
    assert found["mode"] == "growth"
    assert found["rss"] == {"bytes": 4096, "change": -4096}
    assert [(stack["frees"], stack["calls"]) for stack in found["stacks"]] == [(None, 0), (None, 3)]
    said = text(read, read.snapshot.sites, {})
    assert "new pages (growth, not leaks; resident memory -4096 bytes)" in said
    assert "8192 bytes in 2 new pages from stack" in said
    assert "3 calls of brk or mmap from stack" in said


EVENT_NS = 1_769_860_800_123_456_789
EVENT = Event(EVENT_NS, EventKind.ALLOC, 0x55D0_0000_1230, 64, 123, 124, 0x9F)


def test_an_event_is_a_line_of_text() -> None:
    when = datetime.fromtimestamp(EVENT_NS // 1000 / 1e6).astimezone()
    assert event_text(EVENT) == (
        f"[{when:%H:%M:%S}.123456] 123/124 alloc 64 bytes at 0x55d000001230 stack 000000000000009f"
    )
    unknown = replace(EVENT, kind=EventKind.FREE, pid=None, stack_id=None, weight=10)
    assert event_text(unknown).endswith("] ?/124 free 64 bytes at 0x55d000001230 x10 stack ?")


def test_an_event_is_a_json_object() -> None:
    assert json.loads(event_json(EVENT)) == {
        "version": 1,
        "event": "alloc",
        "time": "2026-01-31T12:00:00.123456Z",
        "pid": 123,
        "thread": 124,
        "address": "0x55d000001230",
        "size": 64,
        "weight": 1,
        "stack": "000000000000009f",
    }
    assert json.loads(event_json(replace(EVENT, pid=None, stack_id=None)))["stack"] is None


@pytest.mark.parametrize("as_json", [True, False])
def test_events_come_before_the_snapshot_that_has_them(
    as_json: bool, out: io.StringIO, messages: io.StringIO
) -> None:
    source = Scripted(snapshot(site()))
    source.logged = [replace(EVENT, address=i) for i in range(5)]
    options = replace(NO_DELAY, as_json=as_json, trace=True, iterations=1)
    run_batch(source, options, out, messages)
    lines = out.getvalue().splitlines()
    show = event_json if as_json else event_text
    assert lines[:5] == [show(replace(EVENT, address=i)) for i in range(5)]
    assert len(lines) > 5
    assert '"event"' not in lines[5]


def test_without_trace_nobody_asks_for_events(out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(snapshot(site()))
    source.logged = [EVENT]
    run_batch(source, replace(NO_DELAY, iterations=1), out, messages)
    assert source.logged == [EVENT]


BLOCKS = (
    LiveBlock(0x55D000001230, 64, 1.2345, 123, 123),
    LiveBlock(0x55D000001280, 48, 0.5, 124, 123, weight=10),
)


def test_blocks_are_listed_under_their_stack(out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(snapshot(site()))
    source.held = {0x9F: BlockPage(0x9F, 0, 7, BLOCKS)}
    options = replace(NO_DELAY, as_json=False, show_allocs=True, iterations=1)
    run_batch(source, options, out, messages)
    assert out.getvalue().splitlines()[-3:] == [
        "\t\taddr = 55d000001230 size = 64 age = 1.234s thread = 123",
        "\t\taddr = 55d000001280 size = 48 age = 0.500s thread = 124 x10",
        "\t\t[5 younger allocations not listed]",
    ]


def test_blocks_are_an_array_of_their_stack(out: io.StringIO, messages: io.StringIO) -> None:
    source = Scripted(snapshot(site()))
    source.held = {0x9F: BlockPage(0x9F, 0, 2, BLOCKS)}
    run_batch(source, replace(NO_DELAY, show_allocs=True, iterations=1), out, messages)
    (stack,) = json.loads(out.getvalue())["stacks"]
    assert stack["allocations_total"] == 2
    assert stack["allocations"] == [
        {"address": "0x55d000001230", "size": 64, "age_s": 1.234, "thread": 123, "weight": 1},
        {"address": "0x55d000001280", "size": 48, "age_s": 0.5, "thread": 124, "weight": 10},
    ]
    assert "allocations" not in document(reading(site()))["stacks"][0]


KNOWN, NEW, SMALL = (replace(LEAK, symbol=name) for name in ("known", "new", "small"))
OF_KNOWN = (Entry(("leak!known", "...")),)


def three_stacks() -> Scripted:
    source = Scripted(snapshot(site(1, 300), site(2, 200), site(3, 100, 1)))
    source.names = {1: (KNOWN, MAIN), 2: (NEW, MAIN), 3: (SMALL, MAIN)}
    return source


def test_ignored_stacks_are_counted_and_not_among_the_top(
    out: io.StringIO, messages: io.StringIO
) -> None:
    options = replace(NO_DELAY, iterations=2, top=1, ignore=OF_KNOWN)
    source = three_stacks()
    run_batch(source, options, out, messages)
    for line in out.getvalue().splitlines():
        found = json.loads(line)
        assert [stack["id"] for stack in found["stacks"]] == ["0000000000000002"]
        assert found["ignored"] == {"bytes": 300, "count": 10, "stacks": 1}
        assert found["totals"]["bytes"] == 4096
    assert source.named == [[1, 2, 3]]


def test_text_says_what_is_ignored(out: io.StringIO, messages: io.StringIO) -> None:
    options = replace(NO_DELAY, iterations=1, as_json=False, ignore=OF_KNOWN)
    run_batch(three_stacks(), options, out, messages)
    lines = out.getvalue().splitlines()
    assert lines[1] == "\t[ignored: 300 bytes in 10 allocations from 1 stack]"
    assert "200 bytes in 10 allocations" in lines[2]
    assert "known" not in out.getvalue()


def test_text_of_ignored_estimates_and_pages() -> None:
    ignored = Ignored({1: OF_KNOWN[0], 2: OF_KNOWN[0]}, 8192, 2)
    shown = text(reading(estimated=True, growth=Growth(None)), [], {}, ignored=ignored)
    assert "\t[ignored: ~8192 bytes in ~2 new pages from 2 stacks]" in shown.splitlines()


def test_without_a_list_nothing_is_named_to_be_ignored(
    out: io.StringIO, messages: io.StringIO
) -> None:
    source = three_stacks()
    run_batch(source, replace(NO_DELAY, iterations=1), out, messages)
    assert json.loads(out.getvalue())["ignored"] == {"bytes": 0, "count": 0, "stacks": 0}
    assert source.named == []
