"""Recordings: snapshots, and what is known beside them, in a file that any later leaktop reads.

A recording is a row of segments. Each begins with a key, from which on nothing before it matters:
so a jump reads one segment, and memory is bounded by the largest one, however long the recording.
"""

import platform
import socket
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import msgspec

from leaktop import __version__
from leaktop.model import (
    CodeMapping,
    Frame,
    Histogram,
    Memory,
    Snapshot,
    StackDetail,
    Target,
    Tracing,
)
from leaktop.source.blocks import (
    Block,
    BlockReader,
    BlockWriter,
    Kind,
    RecordingError,
    packed,
)
from leaktop.source.encoding import Decoder, Document, Encoder, Number, converted
from leaktop.source.timeline import Tick

_END_SPARE = 512  # bytes of the limit kept for the last block
_KEY_LEAST, _KEY_MOST = 30, 300  # snapshots from key to key
_SEGMENT_MAX = 16 << 20  # bytes after which the next key comes
_SEGMENT_READ_MAX = 1 << 30  # bytes of documents that are read of a segment
_STACKS_AT_ONCE = 5000
_BANDS_MAX = 1024

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Header:
    """Who was recorded, where and by whom."""

    target: Target
    started_ns: int
    """Wall clock, nanoseconds since the epoch."""
    leaktop: str = __version__
    host: str = ""
    kernel: str = ""
    machine: str = ""

    @classmethod
    def of(cls, target: Target) -> "Header":
        """Return the header of a recording that begins here and now."""
        system = platform.uname()
        return cls(
            target,
            time.time_ns(),
            __version__,
            socket.gethostname(),
            f"{system.system} {system.release}",
            system.machine,
        )


class _Facts(msgspec.Struct):
    # what is known beside snapshots; the tables are in the same document
    names: list[tuple[Number, list[Number]]] = []
    lines: list[tuple[Number, list[Number]]] = []
    details: list[StackDetail] = []
    tracing: Tracing | None = None
    problems: dict[str, str] | None = None
    memory: Memory | None = None
    mappings: list[CodeMapping] | None = None


@dataclass
class _Known:
    # all that was told so far, for the next key
    names: dict[int, tuple[Frame, ...]] = field(default_factory=dict)
    lines: dict[int, tuple[Frame, ...]] = field(default_factory=dict)
    details: dict[int, StackDetail] = field(default_factory=dict)
    other: Document = field(default_factory=dict)


class RecordingWriter:
    """Writes a recording, one call after the other.

    Once it has ended, ``why_ended`` says why, and more calls do nothing.
    """

    def __init__(self, path: Path, stream: BinaryIO, header: Header, limit: int) -> None:
        """Own ``stream``, a new file at ``path``, and let it have ``limit`` bytes at most.

        Raises RecordingError.
        """
        self.why_ended: str | None = None
        self._limit = limit
        self._file = BlockWriter(path, stream, limit)
        self._encoder = Encoder()
        self._known = _Known()
        self._ticks = 0  # since the key
        self._key_size = self._size_at_key = 0
        self._append(Kind.HEADER, msgspec.to_builtins(header))

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._file.path

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.size

    def snapshot(self, snapshot: Snapshot) -> None:
        """Write the next snapshot."""
        is_key = self._key_is_due()
        if is_key:
            self._begin_segment(snapshot)
        for kind, document, tick in self._encoder.snapshot(snapshot):
            self._append(kind, document, tick)
        self._ticks += 1
        if is_key:
            self._repeat_known()
            self._key_size = self.size - self._size_at_key

    def names(self, frames: Mapping[int, tuple[Frame, ...]], *, lines: bool) -> None:
        """Write what the frames of stacks are called; with ``lines`` as ``Source.resolve``."""
        known = self._known.lines if lines else self._known.names
        fresh = {i: each for i, each in frames.items() if known.get(i) != each}
        known.update(fresh)
        self._write_names("lines" if lines else "names", fresh)

    def lacks_names(self, stack_id: int, *, lines: bool) -> bool:
        """Tell whether nothing was written yet of what a stack's frames are called."""
        return stack_id not in (self._known.lines if lines else self._known.names)

    def detail(self, detail: StackDetail) -> None:
        """Write what the blocks of a stack say."""
        self._known.details[detail.stack_id] = detail
        self._append(Kind.FACTS, {"details": [msgspec.to_builtins(detail)]})

    def tell(self, **facts: Tracing | Mapping[str, str] | Memory | Sequence[CodeMapping]) -> None:
        """Write ``tracing``, ``problems``, ``memory`` or ``mappings``, as far as they are new."""
        plain = {name: msgspec.to_builtins(each, enc_hook=dict) for name, each in facts.items()}
        fresh = {k: v for k, v in plain.items() if self._known.other.get(k) != v}
        self._known.other |= fresh
        if fresh:
            self._append(Kind.FACTS, fresh)

    def end(self, why: str) -> None:
        """Write why the recording ends, and close the file."""
        if self.why_ended is None:
            self.why_ended = why
            try:
                self._file.append(packed(Kind.END, {"why": why}))
            except RecordingError as error:
                self.why_ended = str(error)
            self._file.close()

    def discard(self) -> None:
        """Remove the file: there was nothing to record."""
        self.why_ended = "nothing was recorded"
        self._file.discard()

    def _append(self, kind: Kind, document: Document, tick: Tick | None = None) -> None:
        if self.why_ended is not None:
            return
        try:
            if not self._file.append(packed(kind, document, tick), _END_SPARE):
                self.end(f"it has reached --record-limit, {self._limit} bytes")
        except RecordingError as error:
            self.end(str(error))

    def _key_is_due(self) -> bool:
        segment = self.size - self._size_at_key
        if not self._key_size or segment > _SEGMENT_MAX:
            return True
        since = segment - self._key_size
        return self._ticks >= (_KEY_LEAST if since > self._key_size else _KEY_MOST)

    def _begin_segment(self, snapshot: Snapshot) -> None:
        self._encoder = Encoder()
        self._ticks = 0
        self._size_at_key = self.size
        self._append(Kind.KEY, self._known.other)
        held = {site.stack_id for site in snapshot.sites}
        for each in (self._known.names, self._known.lines, self._known.details):
            for stack_id in [i for i in each if i not in held]:
                del each[stack_id]

    def _repeat_known(self) -> None:
        self._write_names("names", self._known.names)
        self._write_names("lines", self._known.lines)
        if details := [msgspec.to_builtins(each) for each in self._known.details.values()]:
            self._append(Kind.FACTS, {"details": details})

    def _write_names(self, kind: str, frames: Mapping[int, tuple[Frame, ...]]) -> None:
        todo = iter(frames.items())
        while some := list(islice(todo, _STACKS_AT_ONCE)):
            numbers = [[stack_id, self._encoder.numbers(each)] for stack_id, each in some]
            self._append(Kind.FACTS, {**self._encoder.tables(), kind: numbers})


class _Versions(Generic[_Key, _Value]):
    # what was told of each key, and at which snapshot

    def __init__(self) -> None:
        self._told: dict[_Key, tuple[list[int], list[_Value]]] = {}

    def add(self, key: _Key, tick: int, value: _Value) -> None:
        ticks, values = self._told.setdefault(key, ([], []))
        ticks.append(tick)
        values.append(value)

    def at(self, key: _Key, tick: int, *, ahead: bool) -> _Value | None:
        """Return what was told last by then, or else first thereafter where ``ahead``."""
        ticks, values = self._told.get(key, ((), ()))
        number = bisect_right(ticks, tick) - 1
        if number < 0 and not (ahead and ticks):
            return None
        return values[max(0, number)]


class _Segment:
    # from one key to the next: its facts are read at once, its snapshots one by one

    def __init__(self, reader: BlockReader, blocks: Sequence[Block], first: int) -> None:
        self.names: _Versions[int, tuple[Frame, ...]] = _Versions()
        self.lines: _Versions[int, tuple[Frame, ...]] = _Versions()
        self.details: _Versions[int, StackDetail] = _Versions()
        self.tracing: _Versions[None, Tracing] = _Versions()
        self.problems: _Versions[None, dict[str, str]] = _Versions()
        self.memory: _Versions[None, Memory] = _Versions()
        self.mappings: _Versions[None, list[CodeMapping]] = _Versions()
        self._reader, self._blocks, self._first = reader, blocks, first
        self._decoder = Decoder()
        self._at = 0  # block that is read next
        self._tick = first - 1  # snapshot that was read last
        self._read = 0
        tick = first
        seen = 0
        for block in blocks:
            if block.kind is Kind.TICK:
                tick = first + seen
                seen += 1
            elif block.kind in (Kind.KEY, Kind.FACTS):
                self._learn(self._document(block), tick)

    def snapshot(self, number: int, tick: Tick) -> Snapshot:
        if number < self._tick or self._tick < self._first:
            self._decoder.restart()
            self._at, self._tick = 0, self._first - 1
        while self._tick < number:
            block = self._blocks[self._at]
            self._at += 1
            if block.kind is Kind.ROWS:
                self._decoder.rows(self._document(block, again=True))
            elif block.kind is Kind.TICK:
                self._decoder.rest(self._document(block, again=True))
                self._tick += 1
        return self._decoder.snapshot(tick)

    def _document(self, block: Block, *, again: bool = False) -> Any:
        document, size = self._reader.document(block)
        self._read += 0 if again else size
        if self._read > _SEGMENT_READ_MAX:
            raise RecordingError("the recording says more at once than can be read")
        return document

    def _learn(self, document: Any, tick: int) -> None:
        self._decoder.add(document)
        facts = converted(document, _Facts)
        for told, versions in ((facts.names, self.names), (facts.lines, self.lines)):
            for stack_id, numbers in told:
                versions.add(stack_id, tick, self._decoder.frames(numbers))
        for detail in facts.details:
            if not (_is_sane(detail.ages) and _is_sane(detail.sizes)):
                raise RecordingError("the recording says what cannot be")
            self.details.add(detail.stack_id, tick, detail)
        if facts.tracing is not None:
            self.tracing.add(None, tick, facts.tracing)
        if facts.problems is not None:
            self.problems.add(None, tick, facts.problems)
        if facts.memory is not None:
            self.memory.add(None, tick, facts.memory)
        if facts.mappings is not None:
            self.mappings.add(None, tick, facts.mappings)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a recording says of one of its snapshots."""

    number: int
    snapshot: Snapshot
    tracing: Tracing
    problems: Mapping[str, str]
    memory: Memory | None
    mappings: Sequence[CodeMapping]


class Recording:
    """Reads a recording; memory is bounded by its largest segment. Not for several threads."""

    def __init__(self, path: Path) -> None:
        """Open a file and check it. Raises RecordingError where nothing can be made of it.

        ``ticks``: of each snapshot that is whole. ``damage`` says what is wrong behind the last
        one, and ``why_ended`` what ended the recording; one of them is None.
        """
        self._reader = BlockReader(path)
        try:
            self.header = converted(self._reader.document(self._reader.blocks[0])[0], Header)
            self.ticks: list[Tick] = self._reader.ticks
            self.damage, self.broken = self._reader.damage, self._reader.broken
            self.why_ended = self._end()
            if not self.ticks:
                raise RecordingError(f"{path} has no snapshot in it")
            self._bounds = self._find_segments()
        except BaseException:
            self._reader.close()
            raise
        self._current: tuple[int, _Segment] | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._reader.path

    def moment(self, number: int) -> Moment:
        """Return what there is of a snapshot; costs O(stacks) for the one after the last asked for.

        Raises RecordingError where nothing can be made of it.
        """
        segment = self._segment(number)
        return Moment(
            number,
            segment.snapshot(number, self.ticks[number]),
            segment.tracing.at(None, number, ahead=True) or Tracing(),
            segment.problems.at(None, number, ahead=False) or {},
            segment.memory.at(None, number, ahead=True),
            segment.mappings.at(None, number, ahead=True) or (),
        )

    def frames(self, number: int, stack_id: int, *, lines: bool) -> tuple[Frame, ...] | None:
        """Return what a stack's frames are called, as it was known at a snapshot, or else later.

        What was never asked for comes from the other kind of names, as far as it goes.
        """
        segment = self._segment(number)
        wanted, other = segment.names, segment.lines
        if lines:
            wanted, other = other, wanted
        found = wanted.at(stack_id, number, ahead=True)
        if found is not None:
            return found
        found = other.at(stack_id, number, ahead=True)
        if found is None or lines:
            return found
        return tuple(frame for frame in found if not frame.inlined)

    def detail(self, number: int, stack_id: int) -> StackDetail | None:
        """Return what the blocks of a stack said when they were read last before a snapshot."""
        return self._segment(number).details.at(stack_id, number, ahead=False)

    def cut(self, number: int, why: str) -> None:
        """Have the recording end before a snapshot of which nothing can be made."""
        self.ticks = self.ticks[:number]
        self.damage, self.broken, self.why_ended = why, True, None

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _segment(self, number: int) -> _Segment:
        which = bisect_right(self._bounds, number, key=lambda bound: bound[0]) - 1
        if self._current is None or self._current[0] != which:
            self._current = None  # the memory of one at a time
            first, begin, end = self._bounds[which]
            blocks = self._reader.blocks[begin:end]
            self._current = which, _Segment(self._reader, blocks, first)
        return self._current[1]

    # Number of its first snapshot, and where its blocks begin and end.
    def _find_segments(self) -> list[tuple[int, int, int]]:
        begins: list[tuple[int, int]] = []
        ticks = 0
        for at, block in enumerate(self._reader.blocks):
            if block.kind is Kind.KEY:
                if begins and begins[-1][0] == ticks:
                    begins.pop()
                begins.append((ticks, at))
            elif block.kind is Kind.TICK:
                if not begins:
                    raise RecordingError(f"{self.path} begins in the midst of a recording")
                ticks += 1
        ends = [at for _, at in begins[1:]] + [len(self._reader.blocks)]
        return [(first, at, end) for (first, at), end in zip(begins, ends, strict=True)]

    def _end(self) -> str | None:
        last = self._reader.blocks[-1]
        if last.kind is not Kind.END:
            return None
        why = self._reader.document(last)[0]
        return str(why.get("why", ""))[:_BANDS_MAX] if isinstance(why, dict) else ""


def _is_sane(histogram: Histogram) -> bool:
    count = len(histogram.edges)
    return 0 < count <= _BANDS_MAX and count == len(histogram.bytes) == len(histogram.counts)
