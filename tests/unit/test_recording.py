"""Recordings: what is written comes back equal, and whatever happens to the file, no traceback."""

import io
import json
import os
import resource
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaktop.model import (
    LIFETIME_EDGES_S,
    CodeMapping,
    Counters,
    Filters,
    Frame,
    Growth,
    Histogram,
    Memory,
    ProcessState,
    Refusal,
    Site,
    Snapshot,
    StackDetail,
    System,
    Target,
    TracedFunction,
    TracedLibrary,
    Tracing,
)
from leaktop.source import SourceError, blocks, encoding, recording
from leaktop.source.blocks import MAJOR, MINOR, SIGNATURE, Kind, RecordingError, packed
from leaktop.source.encoding import Decoder, Encoder
from leaktop.source.recording import Header, Recording, RecordingWriter
from leaktop.source.replay import ReplaySource, ending_line, opening_line
from leaktop.source.timeline import Tick

HOSTILE = "a\x1b[2J\nb\u202e[red]\x00\x9b\udcff"
TARGET = Target(123, HOSTILE, rss=4096)
MAIN = Frame(0x5603282B1178, "leak", module_path="/usr/bin/leak")
LIBC = Frame(0xFFFF_FFFF_FFFF_FFFF, "libc.so.6")
NAMED = (
    Frame(MAIN.address, "leak", "inner", None, "/src/leak.c", 4, True, "/usr/bin/leak"),
    Frame(MAIN.address, "leak", HOSTILE, 15, "/src/leak.c", 5, module_path="/usr/bin/leak"),
)


def site(stack_id: int, size: int = 160, **other: Any) -> Site:
    counters = other.pop("counters", Counters(size, 10, 13, 3))
    return Site(stack_id, counters, other.pop("frames", (MAIN, LIBC)), **other)


def snapshot(second: int, *sites: Site, **other: Any) -> Snapshot:
    values: dict[str, Any] = {
        "time_ns": 1_769_860_800_123_456_789 + second * 10**9,
        "elapsed_s": (second * 10**9 + 12_345) * 1e-9,
        "target": TARGET,
        "filters": Filters(),
        "totals": Counters(sum(each.counters.bytes for each in sites), 64, 1000, 936),
        "sites": sites,
        "lost": {"allocs_full": 0, "truncated": second // 3},
    }
    return Snapshot(**{**values, **other})


def history(count: int) -> list[Snapshot]:
    """Return snapshots in which stacks come, go, grow and only grow older."""
    return [
        snapshot(
            second,
            *(
                site(
                    stack_id,
                    160 * stack_id + (second if stack_id % 3 == 0 else 0),
                    oldest_s=((second - 1) * 10**9 + stack_id) * 1e-9,
                )
                for stack_id in range(second % 4, 9)
            ),
        )
        for second in range(1, count + 1)
    ]


def writer(path: Path, **other: Any) -> RecordingWriter:
    return RecordingWriter(path, path.open("xb"), Header(TARGET, 0), other.get("limit", 1 << 30))


def record(path: Path, snapshots: Iterable[Snapshot]) -> Path:
    out = writer(path)
    for each in snapshots:
        out.snapshot(each)
    out.end("enough")
    return path


def replayed(path: Path) -> list[Snapshot]:
    source = ReplaySource(path)
    try:
        return [source.snapshot() for _ in source.ticks]
    finally:
        source.close()


names = st.one_of(st.none(), st.text(max_size=8), st.just(HOSTILE))
figures = st.integers(-(2**61), 2**61)
moments = st.integers(0, 2**45).map(lambda ns: ns * 1e-9)
seconds = st.one_of(moments, st.floats(0, 1e9))
frames = st.builds(
    Frame,
    st.integers(0, 2**64 - 1),
    names,
    names,
    st.one_of(st.none(), st.integers(0, 2**40)),
    names,
    st.one_of(st.none(), st.integers(0, 2**31)),
    st.booleans(),
    names,
)
few_frames = st.lists(frames, max_size=3).map(tuple)
counters = st.builds(Counters, *[figures] * 6)
lifetimes = st.one_of(
    st.just(()),
    st.lists(
        st.integers(0, 2**40), min_size=len(LIFETIME_EDGES_S), max_size=len(LIFETIME_EDGES_S)
    ).map(tuple),
)
sites = st.builds(
    Site,
    st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1)),
    counters,
    few_frames,
    st.one_of(st.none(), seconds),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 2**22)),
    names,
    lifetimes,
)
targets = st.builds(
    Target, st.integers(0, 2**22), st.text(max_size=8), st.booleans(), st.none() | figures
)
any_snapshot = st.builds(
    Snapshot,
    time_ns=st.integers(0, 2**61),
    elapsed_s=seconds,
    target=targets,
    filters=st.builds(Filters, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1),
        st.integers(1, 10**6), seconds),
    totals=counters,
    sites=st.lists(sites, max_size=6, unique_by=lambda each: each.stack_id).map(tuple),
    lost=st.dictionaries(st.text(max_size=5), st.integers(0, 2**40), max_size=3),
    estimated=st.booleans(),
    note=names,
    refusals=st.lists(st.builds(Refusal, *[st.text(max_size=3)] * 4), max_size=2).map(tuple),
    processes=st.lists(st.builds(ProcessState, targets, counters, names), max_size=2).map(tuple),
    system=st.none() | st.builds(System, figures, figures),
    growth=st.none() | st.builds(Growth, st.none() | figures),
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_snapshot, min_size=1, max_size=5))
def test_any_snapshots_come_back_equal(tmp_path: Path, snapshots: list[Snapshot]) -> None:
    path = tmp_path / "any"
    path.unlink(missing_ok=True)
    record(path, snapshots)
    assert replayed(path) == snapshots


def test_every_field_of_the_model_is_recorded() -> None:
    # rows and tables are written field by field: who adds a field has to add it there
    assert [each.name for each in fields(Site)] == [
        "stack_id", "counters", "frames", "oldest_s", "oldest_exact", "truncated", "pid", "cache",
        "lifetimes",
    ]  # fmt: skip
    assert [each.name for each in fields(Frame)] == [
        "address", "module", "symbol", "offset", "file", "line", "inlined", "module_path",
    ]  # fmt: skip
    assert [each.name for each in fields(Counters)] == list(encoding._FIGURES)


@pytest.mark.parametrize("key_every", [(1, 1), (2, 3), (30, 300)])
def test_stacks_come_and_go_over_many_keys(
    tmp_path: Path, key_every: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_KEY_LEAST", key_every[0])
    monkeypatch.setattr(recording, "_KEY_MOST", key_every[1])
    shots = history(40)
    path = record(tmp_path / "r", shots)
    assert replayed(path) == shots
    source = ReplaySource(path)
    for number in (39, 0, 17, 16, 17, 18, 3, 38):
        source.seek(number)
        assert source.snapshot() == shots[number]
    assert [(t.time_ns, t.elapsed_s, t.bytes, t.lost, t.sites) for t in source.ticks] == [
        (s.time_ns, s.elapsed_s, s.totals.bytes, s.lost["truncated"], len(s.sites)) for s in shots
    ]


def test_many_stacks_are_written_in_several_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaktop.source.encoding._AT_ONCE", 3)
    monkeypatch.setattr(recording, "_STACKS_AT_ONCE", 2)
    shots = history(12)
    assert replayed(record(tmp_path / "r", shots)) == shots


def test_a_stack_that_only_grows_older_costs_nothing(tmp_path: Path) -> None:
    def size(count: int) -> int:
        same = [
            snapshot(s, *(site(i, oldest_s=(s * 10**9 - i) * 1e-9) for i in range(1000)))
            for s in range(10, 10 + count)
        ]
        return record(tmp_path / str(count), same).stat().st_size

    assert (size(29) - size(2)) / 27 < 200


def test_an_order_of_its_own_is_kept(tmp_path: Path) -> None:
    first = [site(i) for i in range(6)]
    shots = [snapshot(1, *first), snapshot(2, *reversed(first)), snapshot(3, *first[2:], first[0])]
    assert replayed(record(tmp_path / "r", shots)) == shots


def test_a_stack_that_becomes_another(tmp_path: Path) -> None:
    shots = [
        snapshot(1, site(1), site(2)),
        snapshot(2, site(1, truncated=True), site(2, frames=(LIBC,))),
        snapshot(3, site(1), site(2, cache="kmalloc-64")),
    ]
    assert replayed(record(tmp_path / "r", shots)) == shots


DETAIL = StackDetail(
    1,
    1_769_860_801_000_000_000,
    Histogram((0.0, 1.0), (160, 0), (10, 0)),
    Histogram((0.0, 1.0, 2.0), (0, 160, 0), (0, 10, 0)),
    1.9,
    None,
    0.5,
)
TRACING = Tracing((TracedLibrary(HOSTILE, (TracedFunction("malloc", 4, "push rbx"),)),), way="x")
MEMORY = Memory(97 << 20, MappingProxyType({"stacks": 17 << 20}))
MAPPING = CodeMapping(123, 0x5603282B1000, 0x5603282B2000, 4096, HOSTILE, "ab12")


def facts(path: Path, count: int = 10) -> Path:
    """Record names and details of stack 1 that come between snapshots, and change."""
    out = writer(path)
    out.tell(tracing=TRACING)
    for second in range(count):
        out.snapshot(snapshot(second, site(1), site(2)))
        if second == 2:
            out.names({1: (MAIN, LIBC)}, lines=False)
            out.detail(DETAIL)
        if second == 4:
            out.names({1: NAMED}, lines=True)
            out.tell(memory=MEMORY, problems={"leak": "stripped"}, mappings=[MAPPING])
        if second == 6:
            out.names({1: NAMED[1:]}, lines=True)
            out.detail(replace(DETAIL, oldest_s=5.0))
    out.end("enough")
    return path


@pytest.mark.parametrize("key_every", [1, 300])
def test_what_is_known_beside_snapshots(
    tmp_path: Path, key_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_KEY_MOST", key_every)
    source = ReplaySource(facts(tmp_path / "r"))

    def at(number: int) -> ReplaySource:
        source.seek(number)
        source.snapshot()
        return source

    assert at(5).tracing == TRACING
    assert at(5).memory() == MEMORY
    assert at(5).problems() == {"leak": "stripped"}
    assert at(2).problems() == {}
    assert list(at(9).mappings()) == [MAPPING]
    assert at(4).resolve([1, 2], lines=True) == {1: NAMED}
    assert at(9).resolve([1, 7], lines=True) == {1: NAMED[1:]}
    assert at(9).resolve([1], lines=False) == {1: (MAIN, LIBC)}
    assert at(2).resolve([1], lines=False) == {1: (MAIN, LIBC)}
    assert at(5).detail(1) == DETAIL
    assert at(7).detail(1).oldest_s == 5.0
    with pytest.raises(SourceError, match="not recorded by then"):
        at(1).detail(1)
    with pytest.raises(SourceError, match="not recorded by then"):
        at(9).detail(2)
    if key_every == 300:  # what was learned soon after is better than addresses
        assert at(0).resolve([1], lines=False) == {1: (MAIN, LIBC)}


def test_names_without_lines_come_from_those_with(tmp_path: Path) -> None:
    out = writer(tmp_path / "r")
    out.snapshot(snapshot(1, site(1)))
    out.names({1: NAMED}, lines=True)
    out.end("enough")
    source = ReplaySource(tmp_path / "r")
    source.snapshot()
    assert source.resolve([1], lines=False) == {1: NAMED[1:]}


def test_what_a_recording_does_not_have_is_refused(tmp_path: Path) -> None:
    source = ReplaySource(record(tmp_path / "r", history(2)))
    source.snapshot()
    for refused in (
        lambda: source.blocks([1], 0, 10),
        lambda: source.read_block(1, 2, 3),
        lambda: source.log(1),
        lambda: source.apply(Filters()),
        source.memory,
    ):
        with pytest.raises(SourceError):
            refused()
    assert list(source.events()) == []


def test_after_the_last_snapshot_it_stays(tmp_path: Path) -> None:
    shots = history(2)
    source = ReplaySource(record(tmp_path / "r", shots))
    assert [source.snapshot() for _ in range(4)] == [*shots, shots[1], shots[1]]


def test_a_limit_ends_the_recording_and_it_is_whole(tmp_path: Path) -> None:
    out = writer(tmp_path / "r", limit=6000)
    shots = history(200)
    for each in shots:
        out.snapshot(each)
    assert out.why_ended is not None
    assert "--record-limit" in out.why_ended
    assert (tmp_path / "r").stat().st_size == out.size <= 6000
    got = replayed(tmp_path / "r")
    assert 0 < len(got) < 200
    assert got == shots[: len(got)]
    source = ReplaySource(tmp_path / "r")
    assert source.damage is None
    assert ending_line(source) is None


def test_a_full_disk_ends_the_recording_and_it_is_readable(tmp_path: Path) -> None:
    shots = history(20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        out = writer(tmp_path / "r")
        for each in shots:
            out.snapshot(each)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out.why_ended is not None
    assert out.why_ended.endswith("r takes no more: File too large")
    got = all_of(tmp_path / "r")
    assert 0 < len(got) < 20
    assert prefix_of(got, shots)


def prefix_of(got: Sequence[Snapshot], shots: Sequence[Snapshot]) -> bool:
    return list(got) == list(shots[: len(got)])


def all_of(path: Path) -> list[Snapshot]:
    """Return what can be had of a file; the only error is the one of this room."""
    try:
        source = ReplaySource(path)
    except RecordingError:
        return []
    got = []
    try:
        for _ in range(len(source.ticks)):
            got.append(source.snapshot())
            source.resolve([1, 2], lines=True)
    except RecordingError:
        assert ending_line(source)
    finally:
        source.close()
    return got


def test_any_truncation_leaves_what_is_before_it(tmp_path: Path) -> None:
    shots = history(8)
    data = record(tmp_path / "r", shots).read_bytes()
    seen = set()
    for size in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:size])
        got = all_of(tmp_path / "cut")
        assert prefix_of(got, shots)
        seen.add(len(got))
    assert seen == set(range(9))


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bytes_leave_what_is_before_them(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "r"
    shots = history(8)
    if not path.exists():
        record(path, shots)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(1, 255))
    (tmp_path / "flipped").write_bytes(whole)
    assert prefix_of(all_of(tmp_path / "flipped"), shots)


def test_damage_is_said_and_what_is_before_it_shown(tmp_path: Path) -> None:
    shots = history(8)
    path = record(tmp_path / "r", shots)
    reader = blocks.BlockReader(path)
    data = bytearray(path.read_bytes())
    data[reader.blocks[len(reader.blocks) // 2].offset + 3] ^= 1
    path.write_bytes(data)
    source = ReplaySource(path)
    assert source.broken
    assert 0 < len(source.ticks) < 8
    assert "damaged at byte" in (ending_line(source) or "")


def test_a_recording_that_was_cut_off_says_so(tmp_path: Path) -> None:
    out = writer(tmp_path / "r")
    for each in history(3):
        out.snapshot(each)
    source = ReplaySource(tmp_path / "r")  # as after kill -9
    assert len(source.ticks) == 3
    assert not source.broken
    assert "still being written; the 3 snapshots before that can be shown" in (
        ending_line(source) or ""
    )
    assert "[red]" in opening_line(source)


def test_another_version(tmp_path: Path) -> None:
    shots = history(3)
    path = record(tmp_path / "r", shots)
    data = bytearray(path.read_bytes())
    at = len(SIGNATURE)
    data[at : at + 4] = struct.pack("<HH", MAJOR + 1, 0)
    (tmp_path / "newer").write_bytes(data)
    with pytest.raises(RecordingError, match=f"version {MAJOR + 1}.0.*newer leaktop"):
        ReplaySource(tmp_path / "newer")
    data[at : at + 4] = struct.pack("<HH", MAJOR, MINOR + 1)
    (tmp_path / "minor").write_bytes(data)
    assert replayed(tmp_path / "minor") == shots


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no recording"),
        (b"\x7fELF" + bytes(100), "is no recording"),
        (SIGNATURE.replace(b"\r\n", b"\n"), "is no recording"),
        (SIGNATURE + struct.pack("<HH", MAJOR, MINOR), "damaged from its first block on"),
    ],
)
def test_no_recording(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(RecordingError, match=said):
        ReplaySource(tmp_path / "r")


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, said in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "is no file|Is a directory"),
        (tmp_path / "fifo", "is no file"),
        (Path("/dev/zero"), "is no file"),
    ):
        with pytest.raises(RecordingError, match=said):
            ReplaySource(path)


def put_together(path: Path, *parts: bytes) -> Path:
    header = packed(Kind.HEADER, {"target": {"pid": 1, "comm": "x"}, "started_ns": 0})
    path.write_bytes(
        SIGNATURE
        + struct.pack("<HH", MAJOR, MINOR)
        + header
        + packed(Kind.KEY, {})
        + b"".join(parts)
    )
    return path


REST: Mapping[str, Any] = {
    "target": {"pid": 1, "comm": "x"},
    "filters": {},
    "totals": {"bytes": 1},
}


def tick(**other: Any) -> Tick:
    return replace(Tick(10**18, 1.0, 1, 0, 0, False), **other)


def test_what_a_later_minor_version_says_besides_is_left_out(tmp_path: Path) -> None:
    unknown = struct.pack("<II", 3, zlib.crc32(b"\x63abc")) + b"\x63abc"
    rest = {**REST, "aura": [1], "target": {"pid": 1, "comm": "x", "mood": "good"}}
    tables = {
        "frames": [[4096, 0, 0, None, 0, None, False, 0, "later"]],
        "stacks": [[7, [0], False, None, 0, "later"]],
        "weather": 1,
    }
    rows = {
        "stack": [0],
        "figures": [[5], [1], [], [], [], [], [9]],
        "oldest": [None],
        "exact": [True],
    }
    path = put_together(
        tmp_path / "r",
        unknown,
        packed(Kind.FACTS, tables),
        packed(Kind.ROWS, rows),
        packed(Kind.TICK, {"snapshot": rest, "x": 1}, tick(sites=1)),
    )
    (got,) = replayed(path)
    assert got.sites == (Site(7, Counters(5, 1), (Frame(4096),)),)


def test_hostile_sizes_are_bounded(tmp_path: Path) -> None:
    bomb = zlib.compress(b'"' + b"x" * (blocks.TEXT_MAX + 10) + b'"')
    body = bytes([Kind.FACTS]) + bomb
    head = struct.pack("<II", len(body) - 1, zlib.crc32(body))
    path = put_together(tmp_path / "r", head + body, packed(Kind.TICK, {"snapshot": REST}, tick()))
    assert all_of(path) == []
    huge = struct.pack("<IIB", 2**32 - 1, 0, Kind.FACTS)
    path = put_together(tmp_path / "s", packed(Kind.TICK, {"snapshot": REST}, tick()), huge)
    source = ReplaySource(path)
    assert source.broken
    assert len(source.ticks) == 1


deep: Any = []
for _ in range(900):
    deep = [deep]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False,
        allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
        max_size=2),
    max_leaves=6,
)  # fmt: skip


def mutated(draw: Callable[..., Any], value: Any) -> Any:
    """Return a document with one of its values exchanged."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: mutated(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutated(draw, value[at]), *value[at + 1 :]]
    return draw(json_values)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=120,
)
@given(st.data())
def test_documents_that_somebody_has_made_up(tmp_path: Path, data: st.DataObject) -> None:
    facts(tmp_path / "r") if not (tmp_path / "r").exists() else None
    reader = blocks.BlockReader(tmp_path / "r")
    made: list[bytes] = []
    chosen = data.draw(st.integers(0, len(reader.blocks) - 1))
    ticks = iter(reader.ticks)
    for number, block in enumerate(reader.blocks):
        document, _ = reader.document(block)
        if number == chosen:
            document = mutated(data.draw, document)
        made.append(packed(block.kind, document, next(ticks) if block.kind is Kind.TICK else None))
    path = tmp_path / "made"
    path.write_bytes(SIGNATURE + struct.pack("<HH", MAJOR, MINOR) + b"".join(made))
    shown(path)


def shown(path: Path) -> None:
    """Show all that there is of a file, in both forms."""
    from leaktop.model import SortKey
    from leaktop.report import BatchOptions, run_batch

    try:
        source = ReplaySource(path)
    except RecordingError:
        return
    for as_json in (False, True):
        options = BatchOptions(0.0, len(source.ticks), 10, SortKey.BYTES, as_json)
        source.seek(0)
        if len(source.ticks) == 0:
            return
        try:
            run_batch(source, options, io.StringIO(), io.StringIO())
        except RecordingError:
            return


def test_deep_documents(tmp_path: Path) -> None:
    text = zlib.compress(b"[" * 100_000)
    body = bytes([Kind.FACTS]) + text
    path = put_together(
        tmp_path / "r",
        struct.pack("<II", len(body) - 1, zlib.crc32(body)) + body,
        packed(Kind.TICK, {"snapshot": REST}, tick()),
    )
    assert all_of(path) == []
    path = put_together(
        tmp_path / "s", packed(Kind.TICK, {"snapshot": {**REST, "lost": deep}}, tick())
    )
    assert all_of(path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"elapsed_s": float("nan")},
        {"elapsed_s": -1.0},
        {"elapsed_s": float("inf")},
    ],
)
def test_times_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]) -> None:
    first = packed(Kind.TICK, {"snapshot": REST}, tick())
    path = put_together(tmp_path / "r", first, packed(Kind.TICK, {}, tick(**wrong)))
    source = ReplaySource(path)
    assert len(source.ticks) == 1
    assert source.broken


def test_decoder_needs_what_the_encoder_says() -> None:
    encoder, decoder = Encoder(), Decoder()
    documents = list(encoder.snapshot(snapshot(1, site(1))))
    assert [kind for kind, _, _ in documents] == [Kind.FACTS, Kind.ROWS, Kind.TICK]
    with pytest.raises(RecordingError):
        decoder.rows(documents[1][1])
    assert json.dumps([document for _, document, _ in documents]).isascii()


def test_recording_knows_why_it_ended(tmp_path: Path) -> None:
    assert Recording(record(tmp_path / "r", history(2))).why_ended == "enough"
