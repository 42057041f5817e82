"""The threads that feed the screen: one reads ticks, one names frames.

The tick thread owns the source: it alone starts, reads, changes and closes it, and it closes it on
every way out. It is no daemon: where leaktop is not a process of its own, the interpreter waits
until everything is detached, whatever became of the screen. The symbol thread only reads files and
holds nothing: it is a daemon, so slow debug information never delays an exit.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.message import Message

from leaktop.analyze import Reading
from leaktop.excerpt import Reader, excerpts
from leaktop.exported import Names, copied, written
from leaktop.exporting import collect
from leaktop.messages import (
    BlockRead,
    BlocksReady,
    Closed,
    DetailReady,
    EventsReady,
    Exported,
    FiltersApplied,
    FiltersRefused,
    LinesReady,
    MemoryRead,
    Progress,
    Ready,
    Said,
    SnapshotReady,
    SourceFailed,
    SymbolsReady,
    TargetGone,
)
from leaktop.model import EVENTS_MAX, Event, Filters, Frame, LiveBlock, Site, Tracing
from leaktop.source import Source, SourceError

if TYPE_CHECKING:
    from leaktop.history import History
    from leaktop.judge import Judge

JOIN_S = 0.3
"""How long ``stop`` waits for the source to detach; the tick thread goes on by itself."""

_FIRST_TICK_S = 0.25
_DETAIL_SHARE = 5  # after a detail that took t, rest at least this many t
_NAMES_AT_ONCE = 32
_LOG_EVERY_S = 0.25
_LOG_READS = 3  # at once: as many as empty the ring
_LOG_LINES = 1000  # the last ones, which the screen gets


class Collector:
    """Reads ``source`` and posts messages until stopped; every method returns at once."""

    def __init__(
        self,
        source: Source,
        post: Callable[[Message], object],
        delay_s: float,
        exports: Sequence[Path] = (),
    ) -> None:
        """Own ``source``; before it is closed, write the files ``exports``."""
        self.exports = exports
        self.written: list[Exported] = []
        """What became of them; complete once ``wait`` has returned."""
        self._source = source
        self._post_message = post
        self._delay_s = delay_s
        self._ticks = self.make_ticks()
        self._symbols = _SymbolThread(self)
        self.stopping = threading.Event()

    def make_ticks(self) -> "TickThread":
        """Return the thread that reads ticks."""
        return TickThread(self)

    def reader(self) -> Reader | None:
        """Return on whose behalf source files are read, None where none are."""
        return Reader.of_process(self._source.target.pid)

    def start(self) -> None:
        """Start both threads, once; the source attaches in its own."""
        if self._ticks.ident is None:
            self._symbols.start()
            self._ticks.start()

    def stop(self) -> None:
        """Tell both threads to end and wait for the source to be closed, ``JOIN_S`` at most."""
        self.ask_to_stop()
        if self._ticks.is_alive():
            self._ticks.join(JOIN_S)

    def wait(self) -> None:
        """Wait for the source to be closed; only after it was asked to stop."""
        if self._ticks.is_alive():
            self._ticks.join()

    def ask_to_stop(self) -> None:
        """Begin to stop without waiting."""
        self.stopping.set()
        self._ticks.wake()
        self._symbols.wake()

    def apply(self, filters: Filters) -> None:
        """Have the source use other filters; of several at once only the last counts."""
        self._ticks.request(filters=filters)

    def watch(self, stack_id: int | None) -> None:
        """Read the live blocks of this stack now and at every tick; None ends it."""
        self._ticks.request(watch=(stack_id,))

    def list_blocks(self, wanted: tuple[int, int, int] | None) -> None:
        """List live blocks now and at every tick: of which stack, from which on, how many.

        None ends it.
        """
        self._ticks.request(listed=(wanted,))

    def read_block(self, block: LiveBlock) -> None:
        """Read the first bytes of a block."""
        self._ticks.request(content=block)

    def log(self, stack_id: int | None) -> None:
        """Tell what this stack does from now on; None ends it."""
        self._ticks.request(log=(stack_id,))

    def export(self, reading: Reading, path: Path, names: Names) -> None:
        """Write a reading to a file, with ``names`` where there are no better ones."""
        self._ticks.request(export=(reading, path, names))

    def copy(self, reading: Reading, site: Site, names: Names) -> None:
        """Put one stack in words."""
        self._ticks.request(copy=(reading, site, names))

    def tick_now(self) -> None:
        """Read a snapshot at once rather than at the next tick."""
        self._ticks.request(tick=True)

    def want_memory(self) -> None:
        """Have what leaktop itself takes read now."""
        self._ticks.request(memory=True)

    def want_names(self, first: Sequence[int], rest: Iterable[int]) -> None:
        """Have these stacks named, ``first`` before ``rest``; replaces what was wanted before."""
        self._symbols.request(names=(list(first), list(rest)))

    def do_apart(self, job: Callable[[], None]) -> None:
        """Have something done that takes names, in the thread that knows them."""
        self._symbols.request(job=job)

    def want_lines(self, stack_id: int) -> None:
        """Have the lines, inlined calls and source text of one stack read before anything else."""
        self._symbols.request(lines=stack_id)

    @property
    def source(self) -> Source:
        """Where the snapshots come from."""
        return self._source

    @property
    def delay_s(self) -> float:
        """Seconds from tick to tick."""
        return self._delay_s

    def post(self, message: Said) -> None:
        """Post to the screen, unless it is done with this source."""
        if not self.stopping.is_set():
            self._say(message)

    def post_closed(self) -> None:
        """Post that the source is closed; who left it may wait for that."""
        with contextlib.suppress(RuntimeError):  # the screen's loop has ended
            self._say(Closed())

    def _say(self, message: Said) -> None:
        message.collector = self
        self._post_message(message)


@dataclass(frozen=True, slots=True)
class _Wishes:
    # What the screen asked for since the tick thread looked last.
    filters: Filters | None = None
    watch: tuple[int | None] | None = None
    tick: bool = False
    memory: bool = False
    listed: tuple[tuple[int, int, int] | None] | None = None
    content: LiveBlock | None = None
    log: tuple[int | None] | None = None
    export: tuple[Reading, Path, Names] | None = None
    copy: tuple[Reading, Site, Names] | None = None
    moves: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return self != _Wishes()


class TickThread(threading.Thread):
    """Owns a source, and reads it until its owner is stopping."""

    def __init__(self, owner: Collector) -> None:
        super().__init__(name="leaktop-ticks", daemon=False)
        self._owner = owner
        self._source = owner.source
        self._changed = threading.Condition()
        self._wishes = _Wishes()
        # The rest is this thread's own.
        self._history: History
        self._judge: Judge
        self._watched: int | None = None
        self._listed: tuple[int, int, int] | None = None
        self._detail_due = 0.0
        self._logged: int | None = None
        self._log_due = 0.0
        self._tracing: Tracing | None = None
        self._gone = False
        self._reading: Reading | None = None

    def request(self, **wishes: object) -> None:
        """Wish for some of the fields of ``_Wishes``; each replaces what was wished for before."""
        with self._changed:
            self._wishes = replace(self._wishes, **wishes)  # type: ignore[arg-type]
            self._changed.notify()

    def ask(self, move: object) -> None:
        """Wish for a move, after those that were wished for before."""
        with self._changed:
            self._wishes = replace(self._wishes, moves=(*self._wishes.moves, move))
            self._changed.notify()

    def wake(self) -> None:
        """Look whether to stop."""
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        """Start the source, read it, close it."""
        # numpy, after the first paint
        from leaktop.history import History  # noqa: PLC0415
        from leaktop.judge import Judge  # noqa: PLC0415

        self._history, self._judge = History(), Judge()
        started = False
        try:
            self._source.start(lambda text: self._owner.post(Progress(text)))
            started = True
            self._tell_what_is_traced()
            self.loop()
        except Exception as error:
            self._owner.post(SourceFailed(_source_error(error), started=started))
            if started:
                self.loop(failed=True)
        finally:
            self._export_at_the_end()
            # What even close cannot undo goes with the process: the kernel drops its probes.
            with contextlib.suppress(Exception):
                self._source.close()
            self._owner.post_closed()

    def loop(self, *, failed: bool = False) -> None:
        """Read ticks and grant wishes until stopped.

        A ``failed`` source is asked nothing more, but is closed only on leaving.
        """
        due = time.monotonic() + min(self._owner.delay_s, _FIRST_TICK_S)
        while not self._owner.stopping.is_set():
            until = due if self._logged is None else min(due, self._log_due)
            wishes = self.take(None if failed or self._gone else until)
            if self._owner.stopping.is_set():
                return
            if failed:
                self._refuse(wishes)
                continue
            tick = self.grant(wishes) or wishes.tick
            now = time.monotonic()
            if not self._gone and (tick or now >= due):
                self.read()
                # A tick that took longer than the delay drops the ones it missed.
                due = self._next_due(due)
                if time.monotonic() >= self._detail_due:
                    self.look_closer()
            if self._logged is not None and time.monotonic() >= self._log_due:
                self._tell_events()
                self._log_due = time.monotonic() + _LOG_EVERY_S

    def _refuse(self, wishes: _Wishes) -> None:
        why = "tracing failed"
        if wishes.watch is not None and (watched := wishes.watch[0]) is not None:
            self._owner.post(DetailReady(watched, None, self._history.trend_of(watched), why))
        self._hand_on(wishes, failed=True)
        if wishes.listed is not None and wishes.listed[0] is not None:
            self._owner.post(BlocksReady(wishes.listed[0][0], None, why))
        if wishes.content is not None:
            self._owner.post(BlockRead(wishes.content, b"", why))
        if wishes.log is not None and wishes.log[0] is not None:
            self._owner.post(EventsReady(wishes.log[0], (), 0, why))

    def look_closer(self) -> None:
        """Read the live blocks of the stack that is looked at."""
        self._detail()
        self._list()

    def grant(self, wishes: _Wishes) -> bool:
        """Do what was wished for; returns whether that is a reason to read a tick now."""
        changed = wishes.filters is not None and self._apply(wishes.filters)
        if wishes.watch is not None:
            self._watched = wishes.watch[0]
            self._detail()
        self._hand_on(wishes)
        if wishes.listed is not None:
            self._listed = wishes.listed[0]
            self._list()
        if wishes.content is not None:
            self._read_block(wishes.content)
        if wishes.log is not None:
            self._log(wishes.log[0])
        if wishes.memory:
            with contextlib.suppress(SourceError):  # nothing hangs on it
                self._owner.post(MemoryRead(self._source.memory()))
        return changed

    # What has to be asked of the source is asked here, and the rest done apart.
    def _hand_on(self, wishes: _Wishes, *, failed: bool = False) -> None:
        source, history, owner = self._source, self._history, self._owner
        if wishes.export is not None:
            reading, path, names = wishes.export
            export = collect(source, reading, history, [path], failed=failed)
            owner.do_apart(lambda: owner.post(written(source, export, path, names)))
        if wishes.copy is not None:
            reading, site, known = wishes.copy
            shown = collect(source, reading, history)
            owner.do_apart(lambda: owner.post(copied(source, shown, site, known)))

    def _export_at_the_end(self) -> None:
        paths, reading = self._owner.exports, self._reading
        for path in paths:
            if reading is None:
                text = f"{path} was not written: nothing has been read yet"
                self._owner.written.append(Exported(text, error=True))
                continue
            export = collect(self._source, reading, self._history, [path])
            self._owner.written.append(written(self._source, export, path, {}))

    def _next_due(self, due: float) -> float:
        now = time.monotonic()
        if now < due:
            return due
        return due + self._owner.delay_s * (1 + (now - due) // self._owner.delay_s)

    def take(self, due: float | None) -> _Wishes:
        """Wait for wishes, until ``due`` at most, and take them."""
        with self._changed:
            while not (self._wishes or self._owner.stopping.is_set()):
                left = None if due is None else due - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            taken, self._wishes = self._wishes, _Wishes()
            return taken

    def read(self) -> None:
        """Read a tick and tell the screen."""
        snapshot = self._source.snapshot()
        self._tell_what_is_traced()
        reading = self._reading = self._judge.of(self._history.add(snapshot))
        self._owner.post(SnapshotReady(reading, self._history.trend()))
        if snapshot.note is not None:
            self._gone = True
            self._owner.post(TargetGone(snapshot.note))

    # Not only at the start: the target may load code that is traced, too.
    def _tell_what_is_traced(self) -> None:
        tracing = self._source.tracing
        if tracing is not self._tracing:
            self._tracing = tracing
            self._owner.post(Ready(tracing))

    def _apply(self, filters: Filters) -> bool:
        try:
            self._source.apply(filters)
        except SourceError as error:
            self._owner.post(FiltersRefused(str(error)))
            return False
        self._owner.post(FiltersApplied(filters))
        return True

    # Reading every block of a stack may take long at a million of them, so it pauses in proportion.
    def _detail(self) -> None:
        stack_id = self._watched
        if stack_id is None:
            return
        began = time.monotonic()
        trend = self._history.trend_of(stack_id)
        try:
            detail = self._source.detail(stack_id)
        except SourceError as error:
            self._owner.post(DetailReady(stack_id, None, trend, str(error)))
        else:
            self._owner.post(DetailReady(stack_id, detail, trend))
        self._rest(began)

    def _list(self) -> None:
        if self._listed is None:
            return
        began = time.monotonic()
        stack_id, offset, count = self._listed
        try:
            page = self._source.blocks([stack_id], offset, count)[stack_id]
        except SourceError as error:
            self._owner.post(BlocksReady(stack_id, None, str(error)))
        else:
            self._owner.post(BlocksReady(stack_id, page))
        self._rest(began)

    def _rest(self, began: float) -> None:
        ended = time.monotonic()
        self._detail_due = ended + _DETAIL_SHARE * (ended - began) - self._owner.delay_s

    def _read_block(self, block: LiveBlock) -> None:
        try:
            if block.pid is None:
                raise SourceError("its process is no longer traced")
            data = self._source.read_block(block.pid, block.address, block.size)
        except SourceError as error:
            self._owner.post(BlockRead(block, b"", str(error)))
        else:
            self._owner.post(BlockRead(block, data))

    def _log(self, stack_id: int | None) -> None:
        try:
            self._source.log(stack_id)
        except SourceError as error:
            self._logged = None
            if stack_id is not None:
                self._owner.post(EventsReady(stack_id, (), 0, str(error)))
        else:
            self._logged, self._log_due = stack_id, 0.0

    def _tell_events(self) -> None:
        assert self._logged is not None
        newest: deque[Event] = deque(maxlen=_LOG_LINES)
        count = 0
        for _ in range(_LOG_READS):
            events = self._source.events()
            newest.extend(events)
            count += len(events)
            if len(events) < EVENTS_MAX:
                break
        if count:
            self._owner.post(EventsReady(self._logged, tuple(newest), count))


class _SymbolThread(threading.Thread):
    def __init__(self, owner: Collector) -> None:
        super().__init__(name="leaktop-symbols", daemon=True)
        self._owner = owner
        self._source = owner.source
        self._changed = threading.Condition()
        self._first: list[int] = []
        self._rest: list[int] = []
        self._lines: int | None = None
        self._jobs: deque[Callable[[], None]] = deque()

    def request(
        self,
        *,
        names: tuple[list[int], list[int]] | None = None,
        lines: int | None = None,
        job: Callable[[], None] | None = None,
    ) -> None:
        with self._changed:
            if job is not None:
                self._jobs.append(job)
            if names is not None:
                self._first, self._rest = names
            if lines is not None:
                self._lines = lines
            self._changed.notify()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        # At once, since the target may exit.
        reader = self._owner.reader()
        while True:
            with self._changed:
                while not (self._jobs or self._first or self._rest or self._lines is not None):
                    if self._owner.stopping.is_set():
                        return
                    self._changed.wait()
                if self._owner.stopping.is_set():
                    return
                job = self._jobs.popleft() if self._jobs else None
                lines: int | None = None
                names: list[int] = []
                if job is None:
                    lines, self._lines = self._lines, None
                if job is None and lines is None:
                    queue = self._first or self._rest
                    names = queue[:_NAMES_AT_ONCE]
                    del queue[:_NAMES_AT_ONCE]
            if job is not None:
                job()
            elif lines is not None:
                self._read_lines(lines, reader)
            else:
                found = self._resolve(names, lines=False)
                frames = {i: found.get(i, ()) for i in names}
                self._owner.post(SymbolsReady(frames, self._source.problems()))

    def _read_lines(self, stack_id: int, reader: Reader | None) -> None:
        frames = self._resolve([stack_id], lines=True).get(stack_id, ())
        text = {} if reader is None else excerpts(frames, reader)
        self._owner.post(LinesReady(stack_id, frames, text, self._source.problems()))

    # A stack that no name can be had for is shown by its addresses, whatever the reason.
    def _resolve(self, stack_ids: list[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        try:
            return self._source.resolve(stack_ids, lines=lines)
        except Exception:
            return {}


def _source_error(error: Exception) -> SourceError:
    if isinstance(error, SourceError):
        return error
    kind = type(error).__name__
    return SourceError(f"internal error ({kind}: {error}); please report it")
