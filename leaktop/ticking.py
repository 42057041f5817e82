"""The thread that owns a source and reads its ticks.

It alone starts, reads, changes and closes the source, and it closes it on every way out. It is no
daemon: where leaktop is not a process of its own, the interpreter waits until everything is
detached, whatever became of the screen.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaktop.analyze import Reading
from leaktop.exported import Names, copied, written
from leaktop.exporting import collect
from leaktop.feed import Feed
from leaktop.format import internal_error
from leaktop.messages import (
    BlockRead,
    BlocksReady,
    DetailReady,
    EventsReady,
    Exported,
    FiltersApplied,
    FiltersRefused,
    MemoryRead,
    Progress,
    Ready,
    SnapshotReady,
    SourceFailed,
    TargetGone,
)
from leaktop.model import Filters, Site, Tracing
from leaktop.single_blocks import EVENTS_MAX, Event, LiveBlock
from leaktop.source import SourceError

if TYPE_CHECKING:
    from leaktop.history import History
    from leaktop.judge import Judge

_FIRST_TICK_S = 0.25
_DETAIL_SHARE = 5  # after a detail that took t, rest at least this many t
_LOG_EVERY_S = 0.25
_LOG_READS = 3  # at once: as many as empty the ring
_LOG_LINES = 1000  # the last ones, which the screen gets


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
    """Owns a source, and reads it until the feed is stopping."""

    def __init__(
        self,
        feed: Feed,
        delay_s: float,
        exports: Sequence[Path],
        do_apart: Callable[[Callable[[], None]], None],
    ) -> None:
        """Before the source is closed, write ``exports``.

        ``do_apart`` has a job done in the thread that names frames.
        """
        super().__init__(name="leaktop-ticks", daemon=False)
        self.written: list[Exported] = []
        """What became of the exports; complete once the thread has ended."""
        self._feed = feed
        self._source = feed.source
        self._delay_s = delay_s
        self._exports = exports
        self._do_apart = do_apart
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
            self._source.start(lambda text: self._feed.post(Progress(text)))
            started = True
            self._tell_what_is_traced()
            self.loop()
        except Exception as error:
            self._feed.post(SourceFailed(_source_error(error), started=started))
            if started:
                self.loop(failed=True)
        finally:
            self._export_at_the_end()
            # What even close cannot undo goes with the process: the kernel drops its probes.
            with contextlib.suppress(Exception):
                self._source.close()
            self._feed.post_closed()

    def loop(self, *, failed: bool = False) -> None:
        """Read ticks and grant wishes until stopped.

        A ``failed`` source is asked nothing more, but is closed only on leaving.
        """
        due = time.monotonic() + min(self._delay_s, _FIRST_TICK_S)
        while not self._feed.stopping.is_set():
            until = due if self._logged is None else min(due, self._log_due)
            wishes = self.take(None if failed or self._gone else until)
            if self._feed.stopping.is_set():
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
            self._feed.post(DetailReady(watched, None, self._history.trend_of(watched), why))
        self._hand_on(wishes, failed=True)
        if wishes.listed is not None and wishes.listed[0] is not None:
            self._feed.post(BlocksReady(wishes.listed[0][0], None, why))
        if wishes.content is not None:
            self._feed.post(BlockRead(wishes.content, b"", why))
        if wishes.log is not None and wishes.log[0] is not None:
            self._feed.post(EventsReady(wishes.log[0], (), 0, why))

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
                self._feed.post(MemoryRead(self._source.memory()))
        return changed

    # What has to be asked of the source is asked here, and the rest done apart.
    def _hand_on(self, wishes: _Wishes, *, failed: bool = False) -> None:
        source, history, feed = self._source, self._history, self._feed
        if wishes.export is not None:
            reading, path, names = wishes.export
            export = collect(source, reading, history, [path], failed=failed)
            self._do_apart(lambda: feed.post(written(source, export, path, names)))
        if wishes.copy is not None:
            reading, site, known = wishes.copy
            shown = collect(source, reading, history)
            self._do_apart(lambda: feed.post(copied(source, shown, site, known)))

    def _export_at_the_end(self) -> None:
        paths, reading = self._exports, self._reading
        for path in paths:
            if reading is None:
                text = f"{path} was not written: nothing has been read yet"
                self.written.append(Exported(text, error=True))
                continue
            export = collect(self._source, reading, self._history, [path])
            self.written.append(written(self._source, export, path, {}))

    def _next_due(self, due: float) -> float:
        now = time.monotonic()
        if now < due:
            return due
        return due + self._delay_s * (1 + (now - due) // self._delay_s)

    def take(self, due: float | None) -> _Wishes:
        """Wait for wishes, until ``due`` at most, and take them."""
        with self._changed:
            while not (self._wishes or self._feed.stopping.is_set()):
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
        self._feed.post(SnapshotReady(reading, self._history.trend()))
        if snapshot.note is not None:
            self._gone = True
            self._feed.post(TargetGone(snapshot.note))

    # Not only at the start: the target may load code that is traced, too.
    def _tell_what_is_traced(self) -> None:
        tracing = self._source.tracing
        if tracing is not self._tracing:
            self._tracing = tracing
            self._feed.post(Ready(tracing))

    def _apply(self, filters: Filters) -> bool:
        try:
            self._source.apply(filters)
        except SourceError as error:
            self._feed.post(FiltersRefused(str(error)))
            return False
        self._feed.post(FiltersApplied(filters))
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
            self._feed.post(DetailReady(stack_id, None, trend, str(error)))
        else:
            self._feed.post(DetailReady(stack_id, detail, trend))
        self._rest(began)

    def _list(self) -> None:
        if self._listed is None:
            return
        began = time.monotonic()
        stack_id, offset, count = self._listed
        try:
            page = self._source.blocks([stack_id], offset, count)[stack_id]
        except SourceError as error:
            self._feed.post(BlocksReady(stack_id, None, str(error)))
        else:
            self._feed.post(BlocksReady(stack_id, page))
        self._rest(began)

    def _rest(self, began: float) -> None:
        ended = time.monotonic()
        self._detail_due = ended + _DETAIL_SHARE * (ended - began) - self._delay_s

    def _read_block(self, block: LiveBlock) -> None:
        try:
            if block.pid is None:
                raise SourceError("its process is no longer traced")
            data = self._source.read_block(block.pid, block.address, block.size)
        except SourceError as error:
            self._feed.post(BlockRead(block, b"", str(error)))
        else:
            self._feed.post(BlockRead(block, data))

    def _log(self, stack_id: int | None) -> None:
        try:
            self._source.log(stack_id)
        except SourceError as error:
            self._logged = None
            if stack_id is not None:
                self._feed.post(EventsReady(stack_id, (), 0, str(error)))
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
            self._feed.post(EventsReady(self._logged, tuple(newest), count))


def _source_error(error: Exception) -> SourceError:
    return error if isinstance(error, SourceError) else SourceError(internal_error(error))
