"""One tracing session as the screen knows it: what a collector has said so far, and what is shown.

A session begins with a source and ends when it is left; late words of one that was left are not
its successor's (see ``messages.Said``).
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from textual.message import Message
from textual.screen import Screen

from leaktop import messages as say
from leaktop.analyze import cost_between
from leaktop.collector import Collector
from leaktop.format import clean
from leaktop.ignore import IgnoreList, Sieve
from leaktop.marks import START, mark_of
from leaktop.model import Filters, Frame, Memory, Site, Snapshot, Tracing
from leaktop.modes import Opening
from leaktop.recorder import Recorded, Recorder, Recordings
from leaktop.screens.detail import DetailScreen
from leaktop.screens.help import NO_SETTINGS, Facts, HelpScreen, Settings
from leaktop.screens.live import LiveScreen
from leaktop.screens.main import MainScreen
from leaktop.screens.tree import TreeScreen, TreeState
from leaktop.source import Source
from leaktop.source.timeline import Move, MoveKind
from leaktop.tree_thread import BuiltTree, TreeThread, TreeWish
from leaktop.widgets.status_bar import Stage, Status

if TYPE_CHECKING:
    from leaktop.player import Play, Player

_Kept = TypeVar("_Kept")
_KEPT_DETAILS = 64
_SPARE_NAMES = 4096
NOTHING = IgnoreList()


class Session:
    """The state of one source, handed to whichever of its screens is on top."""

    def __init__(
        self,
        source: Source,
        filters: Filters,
        delay_s: float,
        post: Callable[[Message], object],
        screens: Callable[[], Sequence[Screen[Any]]],
        *,
        settings: Settings = NO_SETTINGS,
        ignored: IgnoreList = NOTHING,
        exports: Sequence[Path] = (),
        opening: Opening | None = None,
        recordings: Recordings,
        play: "Play | None" = None,
    ) -> None:
        """``screens`` returns what is on the screen, the one on top last.

        ``ignored``: stacks that the user does not want to see; ``exports``: files to write when it
        is left; ``opening``: what the source was opened for, where it has two modes. ``play`` makes
        the collector where ``source`` is a recording.
        """
        self.status = Status(source.target, filters, notice=settings.notice)
        self.recorder: Recorder | None = None
        self.player: Player | None = None
        self.collector: Collector
        self._post = post
        if play is not None:
            self.collector = self.player = play(post, exports)
            self.status = replace(self.status, playback=self.player.begin)
        else:
            self.recorder = Recorder(
                source, self._recorded, path=recordings.path, limit=recordings.limit
            )
            self.collector = Collector(self.recorder, post, delay_s, exports)
        self.latest: say.SnapshotReady | None = None
        self.names: dict[int, tuple[Frame, ...]] = {}
        self.shown = 0
        """How many snapshots were shown."""
        self._settings = settings
        self._sieve = Sieve(ignored)
        self.opening = opening
        self.cost_of_a_call: float | None = None
        """Seconds that exact tracing adds to a call of the allocator, once that is known."""
        self._before: Snapshot | None = None
        self._screens = screens
        self._tree_state = TreeState()
        self._trees: TreeThread | None = None
        self._tracing: Tracing | None = None
        self._memory: Memory | None = None
        self._problems: Mapping[str, str] = {}
        self._details: OrderedDict[int, say.DetailReady] = OrderedDict()
        self._lines: OrderedDict[int, say.LinesReady] = OrderedDict()

    @property
    def label(self) -> str:
        """The target in a few words."""
        target = self.status.target
        return clean(f"{target.pid} ({target.comm})")

    @property
    def facts(self) -> Facts:
        """What the help says of it."""
        reading = self.status.reading
        lost = reading.snapshot.lost if reading is not None else {}
        return Facts(
            self.status.target,
            self._tracing,
            self._memory,
            self._problems,
            lost,
            self._settings,
            self.status.estimate,
        )

    @singledispatchmethod
    def take(self, message: say.Said) -> None:
        """Learn what the collector says, and show it."""

    @take.register
    def _(self, message: say.Progress) -> None:
        self._change(progress=clean(message.text))

    @take.register
    def _(self, message: say.Ready) -> None:
        self._tracing = message.tracing
        self._tell_help()
        self._change(stage=Stage.TRACING, progress="")

    @take.register
    def _(self, message: say.MemoryRead) -> None:
        self._memory = message.memory
        self._tell_help()

    @take.register
    def _(self, message: say.SnapshotReady) -> None:
        self.latest = message
        before, self._before = self._before, message.reading.snapshot
        if before is not None and self.cost_of_a_call is not None:
            estimate = cost_between(before, self._before, self.cost_of_a_call)
            self.status = replace(self.status, estimate=estimate)
        self._drop_old_names(message)
        if not self.status.paused:
            self._show_latest()
            self.shown += 1

    @take.register
    def _(self, message: say.Played) -> None:
        self._change(playback=message.playback)

    @take.register
    def _(self, message: say.RecordingChanged) -> None:
        self._change(recorded=message.recorded)

    @take.register
    def _(self, message: say.SymbolsReady) -> None:
        self.names.update(message.frames)
        self._learn_problems(message.problems)
        if isinstance(top := self._top, LiveScreen):
            top.show_names(message.frames)
            if any(map(self._sieve.is_ignored, message.frames.values())):
                top.resume_soon()

    @take.register
    def _(self, message: say.LinesReady) -> None:
        self._learn_problems(message.problems)
        if message.frames:
            _keep(self._lines, message.stack_id, message)
            if (screen := self._detail_of(message.stack_id)) is not None:
                screen.show_lines(message)

    @take.register
    def _(self, message: say.DetailReady) -> None:
        if message.detail is not None:
            _keep(self._details, message.stack_id, message)
        elif self.player is not None:  # what was read later must not stay
            self._details.pop(message.stack_id, None)
            if (screen := self._detail_of(message.stack_id)) is not None:
                screen.has_detail = False
        if (screen := self._detail_of(message.stack_id)) is not None and not (
            self.status.paused and screen.has_detail
        ):
            screen.show_detail(message)

    @take.register
    def _(self, message: say.BlocksReady) -> None:
        if (screen := self._detail_of(message.stack_id)) is not None:
            screen.show_blocks(message)

    @take.register
    def _(self, message: say.BlockRead) -> None:
        for screen in self._screens():
            if isinstance(screen, DetailScreen):
                screen.show_content(message)

    @take.register
    def _(self, message: say.EventsReady) -> None:
        if (screen := self._detail_of(message.stack_id)) is not None:
            screen.show_events(message)

    @take.register
    def _(self, message: say.Exported) -> None:
        self.tell(f"! {message.text}" if message.error else message.text)

    @take.register
    def _(self, message: say.StackCopied) -> None:
        where = f"also in {message.path}" if message.path else f"! {message.error}"
        hint = "; in tmux: set -g set-clipboard on" if "TMUX" in os.environ else ""
        self.tell(f"copied, where the terminal takes it (OSC 52){hint}; {where}")

    @take.register
    def _(self, message: say.TreeReady) -> None:
        for screen in self._screens():
            if isinstance(screen, TreeScreen):
                screen.show_tree(message.built)

    @take.register
    def _(self, _: say.FiltersApplied) -> None:
        self._change(refused="")

    @take.register
    def _(self, message: say.FiltersRefused) -> None:
        reading = self.latest.reading if self.latest else None
        filters = reading.snapshot.filters if reading else self.status.filters
        self._change(refused=clean(message.error), filters=filters)

    @take.register
    def _(self, message: say.TargetGone) -> None:
        if self.player is None:  # else it is there again before its end
            self._change(stage=Stage.GONE, progress=clean(message.reason))

    @take.register
    def _(self, message: say.SourceFailed) -> None:
        if message.started:
            self._change(stage=Stage.FAILED, progress=clean(str(message.error)))

    def export(self, path: Path) -> None:
        """Write what is shown to a file."""
        if self.status.reading is not None:
            self.tell(f"writing {path} ...")
            self.collector.export(self.status.reading, path, dict(self.names))

    def copy(self, site: Site) -> None:
        """Put one stack in words, which come as ``StackCopied``."""
        if self.status.reading is not None:
            self.collector.copy(self.status.reading, site, dict(self.names))

    def stack_left(self) -> None:
        """Read no more of a stack than of all the others."""
        self.collector.watch(None)
        self.collector.list_blocks(None)
        self.collector.log(None)

    def apply(self, filters: Filters) -> None:
        """Trace by other filters from now on."""
        if filters == self.status.filters:
            return
        if self.status.stage in (Stage.GONE, Stage.FAILED):
            self._change(refused="the target is no longer traced")
            return
        self._change(filters=filters, refused="")
        self.collector.apply(filters)

    def ignore(self, ignored: IgnoreList) -> None:
        """Show the table without these stacks from now on."""
        self._sieve.replace(ignored)
        self.update()

    def toggle_ignored(self) -> None:
        """Show the ignored stacks, too, or hide them again."""
        self._change(show_ignored=not self.status.show_ignored)

    def tell(self, notice: str) -> None:
        """Show a line, in place of the one before."""
        self._change(notice=clean(notice))

    def forget(self, notice: str) -> None:
        """Show this line no more."""
        if self.status.notice == clean(notice):
            self._change(notice="")

    def refuse(self, why: str) -> None:
        """Show why something that was asked for is not done."""
        self._change(refused=why)

    def show_activity(self, text: str) -> None:
        """Show what is going on besides; empty: no more."""
        self._change(activity=text)

    def move(self, move: Move) -> None:
        """Go elsewhere on a recording."""
        if self.player is not None:
            self.player.move(move)

    def toggle_recording(self) -> None:
        """Begin a recording in the current folder, or end the one that goes on."""
        if self.recorder is None:
            self._change(refused="this is a recording; copy its file")
        else:
            self.recorder.toggle()

    def forget_recording(self, recorded: Recorded) -> None:
        """Say no more of a recording that has ended."""
        if self.status.recorded is recorded:
            self._change(recorded=None)

    def stop(self) -> None:
        """End the recording and detach, waiting for a moment."""
        if self.recorder is not None:
            self.recorder.finish()
        self.collector.stop()

    def pause(self) -> None:
        """Freeze what is shown, or let it go on; so a recording plays, or does not."""
        if self.player is not None:
            self.player.move(Move(MoveKind.PLAY))
            return
        self._change(paused=not self.status.paused)
        if not self.status.paused and self.latest is not None:
            self._show_latest()
            self.collector.tick_now()

    def set_mark(self) -> None:
        """Show changes since what is shown now."""
        if (reading := self.status.reading) is not None:
            self._change(mark=mark_of(reading.snapshot))

    def clear_mark(self) -> None:
        """Show again what is held."""
        self._change(mark=None, only_grown=False)

    def toggle_grown(self) -> None:
        """Show only what grew since the mark, or since the start without one; or all again."""
        mark = self.status.mark
        if not self.status.only_grown:
            self._change(mark=mark or START, only_grown=True)
        else:
            self._change(mark=None if mark is START else mark, only_grown=False)

    def open(self, site: Site) -> DetailScreen:
        """Return the screen of one stack with all that is known of it; ask for the rest."""
        reading, stack_id = self.status.reading, site.stack_id
        screen = DetailScreen(site, estimated=bool(reading and reading.snapshot.estimated))
        if stack_id in self._lines:
            screen.show_lines(self._lines[stack_id])
        if stack_id in self._details:
            screen.show_detail(self._details[stack_id])
        screen.show_problems(self._problems)
        self.collector.watch(stack_id)
        self.collector.want_lines(stack_id)
        return screen

    def open_tree(self, table: MainScreen) -> TreeScreen:
        """Return the screen of the call tree of what ``table`` shows."""
        self._trees = thread = TreeThread(self._tell_tree)
        thread.start()
        return TreeScreen(self._tree_state, table.shown, table.pattern, thread.stop)

    def want_tree(self, wish: TreeWish) -> None:
        """Have a call tree built, which comes as ``TreeReady``."""
        if self._trees is not None:
            self._trees.request(wish)

    # In the thread of the trees.
    def _tell_tree(self, built: BuiltTree) -> None:
        self.collector.post(say.TreeReady(built))

    def want_names(self) -> None:
        """Have the stacks named that have no names yet, those in sight first."""
        reading = self.status.reading
        top = self._top
        if reading is None or not isinstance(top, MainScreen | TreeScreen):
            return
        visible = top.table.visible_sites if isinstance(top, MainScreen) else ()
        first = [site.stack_id for site in visible if site.stack_id not in self.names]
        rest = [s.stack_id for s in reading.snapshot.sites if s.stack_id not in self.names]
        if rest:
            self.collector.want_names(first, set(rest).difference(first))

    def update(self) -> None:
        """Show the state of things."""
        if isinstance(top := self._top, LiveScreen):
            if (reading := self.status.reading) is not None:
                ignored = self._sieve.sift(reading.snapshot.sites, self.names)
                self.status = replace(self.status, ignored=ignored)
            top.show(self.status, self.names)

    def _show_latest(self) -> None:
        if self.latest is not None:
            reading = self.latest.reading
            lost = {name: count for name, count in reading.snapshot.lost.items() if count}
            if self.player is not None:
                note = reading.snapshot.note
                stage = Stage.TRACING if note is None else Stage.GONE
                self.status = replace(self.status, stage=stage, progress=clean(note or ""))
            self._change(reading=reading, trend=self.latest.trend, losses=lost)

    def _change(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]
        self.update()

    # Called by the recorder's thread.
    def _recorded(self, recorded: Recorded) -> None:
        message = say.RecordingChanged(recorded)
        message.collector = self.collector
        with suppress(RuntimeError):  # the screen's loop has ended
            self._post(message)

    # None on the way out.
    @property
    def _top(self) -> Screen[Any] | None:
        screens = self._screens()
        return screens[-1] if screens else None

    def _tell_help(self) -> None:
        if isinstance(top := self._top, HelpScreen):
            top.show(self.facts)

    def _detail_of(self, stack_id: int) -> DetailScreen | None:
        for screen in self._screens():
            if isinstance(screen, DetailScreen) and screen.site.stack_id == stack_id:
                return screen
        return None

    def _learn_problems(self, problems: Mapping[str, str]) -> None:
        if problems != self._problems:
            self._problems = problems
            for screen in self._screens():
                if isinstance(screen, DetailScreen):
                    screen.show_problems(problems)

    # Stacks come and go for ever; names are kept for those that are there.
    def _drop_old_names(self, message: say.SnapshotReady) -> None:
        sites = message.reading.snapshot.sites
        if len(self.names) > 2 * len(sites) + _SPARE_NAMES:
            held = {site.stack_id for site in sites}
            self.names = {i: frames for i, frames in self.names.items() if i in held}


def _keep(kept: "OrderedDict[int, _Kept]", key: int, value: _Kept) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT_DETAILS:
        kept.popitem(last=False)
