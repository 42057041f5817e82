"""A source that records what another one says.

What goes through is handed to a thread of its own, which encodes, writes and, while it has nothing
else to do, asks for names of stacks that nobody has asked for yet. So neither ticks nor the screen
wait for the disk; only a disk that stands still for long costs snapshots, and these are counted.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from leaktop.format import format_bytes
from leaktop.model import (
    RECORDING_BYTES,
    CodeMapping,
    Frame,
    Memory,
    Site,
    Snapshot,
    StackDetail,
    Target,
    Tracing,
)
from leaktop.source import Source, SourceError
from leaktop.source.relayed import RelayedSource

if TYPE_CHECKING:
    from leaktop.source.recording import RecordingWriter

_QUEUED = 64
_PATIENCE_S = 1.0  # how long a tick waits for the disk
_NAMES_AT_ONCE = 32
_WITH_LINES = 50  # largest stacks whose lines are asked for
_LAST_NAMES_S = 1.0  # how long the rest of the names may take at the end
_LAST_WRITES_S = 10.0
_DETAILS_EVERY_S = 10.0
_DETAILS_OF = 20  # largest stacks whose blocks are looked at
_DETAILS_ONCE_S = 0.05  # and no longer than this at a tick
_DETAILS_SHARE = 5  # after blocks were looked at for t, rest at least this many t
_MEMORY_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Recordings:
    """What the command line says of recordings."""

    limit: int = RECORDING_BYTES
    """Bytes of one."""
    path: Path | None = None
    """Of the one that begins with tracing."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What there is of a recording."""

    path: Path
    size: int = 0
    """Bytes."""
    snapshots: int = 0
    why_ended: str | None = None
    """None while it goes on."""
    failed: bool = False
    """It has ended, and nobody asked for that."""
    missed: int = 0
    """Snapshots that the disk was too slow for."""


@dataclass(frozen=True, slots=True)
class _Begin:
    path: Path
    target: Target


@dataclass(frozen=True, slots=True)
class _Named:
    frames: Mapping[int, tuple[Frame, ...]]
    lines: bool


@dataclass(frozen=True, slots=True)
class _End:
    why: str
    last: bool = False


@dataclass(frozen=True, slots=True)
class _Mapped:
    mappings: Sequence[CodeMapping]


_Said = Snapshot | StackDetail | Tracing | Memory | _Mapped | _Named | _Begin | _End


class Recorder(RelayedSource):
    """A Source (see ``leaktop.source``) that can be recorded, from its start or at any time."""

    def __init__(
        self,
        source: Source,
        tell: Callable[[Recorded], object],
        *,
        path: Path | None,
        limit: int,
    ) -> None:
        """Own ``source``. ``path``: record from the start on. ``limit``: bytes of a recording.

        ``tell`` is called whenever there is more of the recording, from any thread.
        """
        self._source = source
        self._path = path
        self._asking = threading.Lock()  # names are asked for by one thread at a time
        self._scribe = _Scribe(self.resolve_unrecorded, source.problems, tell, limit)
        self._tracing: Tracing | None = None
        self._due: list[int] = []  # stacks whose blocks are to be looked at
        self._next_round = self._next_detail = self._next_memory = 0.0

    @property
    def _relayed(self) -> Source:
        return self._source

    @property
    def recording(self) -> bool:
        """Whether a recording goes on."""
        return self._scribe.recording

    def start(self, progress: Callable[[str], None]) -> None:
        """Make the file, where one was asked for from the start on; then see Source."""
        if self._path is not None:
            self._scribe.begin(self._path, self.target)
        try:
            self._source.start(progress)
        except BaseException:
            self._scribe.discard()
            raise

    def toggle(self) -> None:
        """Begin a recording in the current folder, or end the one that goes on; returns at once."""
        if self.recording:
            self._scribe.say(_End("it was ended by a key"))
        else:
            self._tracing, self._next_round, self._next_memory = None, 0.0, 0.0
            self._scribe.say(_Begin(Path(file_name(self.target)), self.target))

    def snapshot(self) -> Snapshot:
        """See Source."""
        snapshot = self._source.snapshot()
        if self.recording:
            self._scribe.say(snapshot)
            self._look_around(snapshot)
        return snapshot

    def detail(self, stack_id: int) -> StackDetail:
        """See Source."""
        detail = self._source.detail(stack_id)
        if self.recording:
            self._scribe.say(detail)
        return detail

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """See Source."""
        found = self.resolve_unrecorded(stack_ids, lines=lines)
        if self.recording:
            self._scribe.say(_Named(found, lines))
        return found

    def resolve_unrecorded(
        self, stack_ids: Iterable[int], *, lines: bool
    ) -> Mapping[int, tuple[Frame, ...]]:
        """See ``Source.resolve``."""
        with self._asking:
            return self._source.resolve(stack_ids, lines=lines)

    def finish(self) -> None:
        """End the recording and wait until it is whole, for a while; any thread may call."""
        self._scribe.close("leaktop was ended")

    def close(self) -> None:
        """End the recording, then see Source."""
        self.finish()
        self._source.close()

    # What only the thread that reads snapshots may ask for.
    def _look_around(self, snapshot: Snapshot) -> None:
        if (tracing := self._source.tracing) is not self._tracing:
            self._tracing = tracing
            self._scribe.say(tracing)
            self._next_round = 0.0
        now = time.monotonic()
        if now >= self._next_memory:
            self._next_memory = now + _MEMORY_EVERY_S
            with suppress(SourceError):
                self._scribe.say(self._source.memory())
        if now >= self._next_round:
            self._next_round = now + _DETAILS_EVERY_S
            self._scribe.say(_Mapped(self._source.mappings()))
            self._due = [site.stack_id for site in _largest(snapshot, _DETAILS_OF)]
        if now >= self._next_detail:
            self._look_at_blocks(now)

    def _look_at_blocks(self, began: float) -> None:
        while self._due and time.monotonic() < began + _DETAILS_ONCE_S:
            try:
                self._scribe.say(self._source.detail(self._due.pop(0)))
            except SourceError:  # not everywhere are there blocks to look at
                self._due.clear()
        ended = time.monotonic()
        self._next_detail = ended + _DETAILS_SHARE * (ended - began)


class _Scribe(threading.Thread):
    # Writes what it is told; knows which names are still to be asked for.

    def __init__(
        self,
        resolve: Callable[..., Mapping[int, tuple[Frame, ...]]],
        problems: Callable[[], Mapping[str, str]],
        tell: Callable[[Recorded], object],
        limit: int,
    ) -> None:
        super().__init__(name="leaktop-recorder", daemon=True)
        self.recording = False
        self._resolve, self._problems, self._tell, self._limit = resolve, problems, tell, limit
        self._said: queue.Queue[_Said] = queue.Queue(_QUEUED)
        self._missed = 0
        # The rest is this thread's own.
        self._writer: RecordingWriter | None = None
        self._snapshots = 0
        self._latest: Snapshot | None = None
        self._tried: set[tuple[int, bool]] = set()

    def begin(self, path: Path, target: Target) -> None:
        """Make the file at once. Raises SourceError."""
        self._open(path, target)
        self.start()

    def say(self, said: _Said) -> None:
        """Have something written."""
        if self.ident is None:
            self.start()
        if not self.is_alive():
            return
        try:
            self._said.put(said, timeout=_PATIENCE_S)
        except queue.Full:
            self._missed += isinstance(said, Snapshot)

    def discard(self) -> None:
        """Remove the file: there was nothing to record."""
        if self._writer is not None:
            self._writer.discard()
            self._writer, self.recording = None, False

    def close(self, why: str) -> None:
        """End the recording, and wait for that."""
        if self.is_alive():
            self.say(_End(why, last=True))
            self.join(_LAST_WRITES_S)

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # a recording is never worth what it is of
            if self._writer is not None:
                self._writer.end(f"internal error ({type(error).__name__}); please report it")
                self._report()

    def _work(self) -> None:
        while True:
            try:
                said = self._said.get(block=not self._has_more_to_name())
            except queue.Empty:
                self._name_some()
                continue
            if isinstance(said, _Begin):
                self._begin(said)
            elif isinstance(said, _End):
                self._end(said.why)
                if said.last:
                    return
            elif self._writer is not None:
                self._write(self._writer, said)

    def _begin(self, said: _Begin) -> None:
        if self._writer is not None:
            return
        try:
            self._open(said.path, said.target)
        except SourceError as error:
            self._tell(Recorded(said.path, why_ended=str(error), failed=True))

    def _open(self, path: Path, target: Target) -> None:
        from leaktop.source.recording import Header, RecordingWriter  # noqa: PLC0415

        self._writer = RecordingWriter(path, _new_file(path), Header.of(target), self._limit)
        self._snapshots = self._missed = 0
        self._latest = None
        self._tried.clear()
        self.recording = True
        self._report()

    def _write(self, writer: "RecordingWriter", said: _Said) -> None:
        if isinstance(said, Snapshot):
            writer.snapshot(said)
            self._latest = said
            self._snapshots += writer.why_ended is None
        elif isinstance(said, _Named):
            writer.names(said.frames, lines=said.lines)
        elif isinstance(said, StackDetail):
            writer.detail(said)
        elif isinstance(said, Tracing):
            writer.tell(tracing=said)
        elif isinstance(said, Memory):
            writer.tell(memory=said)
        elif isinstance(said, _Mapped):
            writer.tell(mappings=said.mappings)
        if isinstance(said, Snapshot):
            self._report()

    def _end(self, why: str) -> None:
        writer = self._writer
        if writer is None:
            return
        until = time.monotonic() + _LAST_NAMES_S
        while self._has_more_to_name() and time.monotonic() < until:
            self._name_some()
        if self._writer is not None:
            writer.end(self._latest.note if self._latest and self._latest.note else why)
            self._report(asked=True)

    # Tells how far it is, and lets go of a recording that has ended.
    def _report(self, *, asked: bool = False) -> None:
        writer = self._writer
        if writer is None:
            return
        why = writer.why_ended
        if why is not None:
            self._writer, self.recording = None, False
        failed = why is not None and not asked
        self._tell(Recorded(writer.path, writer.size, self._snapshots, why, failed, self._missed))

    def _has_more_to_name(self) -> bool:
        return self._writer is not None and bool(self._to_name())

    # Stacks to ask for next, and whether with lines: first names, then lines of the largest.
    def _to_name(self) -> tuple[list[int], bool] | None:
        writer, snapshot = self._writer, self._latest
        if writer is None or snapshot is None:
            return None
        for lines in (False, True):
            sites = _largest(snapshot, _WITH_LINES) if lines else snapshot.sites
            todo = [
                site.stack_id
                for site in sites
                if (site.stack_id, lines) not in self._tried
                and writer.lacks_names(site.stack_id, lines=lines)
            ]
            if todo:
                return todo[: 1 if lines else _NAMES_AT_ONCE], lines
        return None

    def _name_some(self) -> None:
        wanted = self._to_name()
        if wanted is None or self._writer is None:
            return
        stack_ids, lines = wanted
        self._tried.update((stack_id, lines) for stack_id in stack_ids)
        with suppress(Exception):  # a stack without names has its addresses
            self._writer.names(self._resolve(stack_ids, lines=lines), lines=lines)
            self._writer.tell(problems=self._problems())


def file_name(target: Target) -> str:
    """Return the name of a recording that begins now: ``leaktop-COMM-PID-DATE.leaktop``."""
    comm = re.sub(r"[^A-Za-z0-9_-]+", "_", target.comm) or "_"
    return f"leaktop-{comm[:32]}-{target.pid}-{time.strftime('%Y%m%d-%H%M%S')}.leaktop"


def how_it_goes(recorded: Recorded) -> str:
    """Return what there is to say of a recording that has begun or ended."""
    path, why = recorded.path, recorded.why_ended
    if why is None:
        return f"recording to {path}"
    if not recorded.snapshots and recorded.failed:
        return f"not recorded: {why}"
    count = f"{recorded.snapshots} snapshot{'' if recorded.snapshots == 1 else 's'}"
    said = f"recorded {count}, {format_bytes(recorded.size)}, in {path}"
    if recorded.failed:
        said += f", and no more: {why}"
    if recorded.missed:
        said += f"; {recorded.missed} are missing: the disk was too slow"
    return said


def _new_file(path: Path) -> BinaryIO:
    from leaktop.outfile import OutFileError, create  # noqa: PLC0415

    if os.path.lexists(path):
        raise SourceError(
            f"{path} exists, and recordings replace nothing: remove it, or give another name"
        )
    try:
        stream = create(path)
    except OutFileError as error:
        raise SourceError(str(error)) from None
    with suppress(OSError):  # file systems of other systems know no modes
        os.fchmod(stream.fileno(), 0o600)
    return stream


def _largest(snapshot: Snapshot, count: int) -> list[Site]:
    return sorted(snapshot.sites, key=lambda site: -site.counters.bytes)[:count]
