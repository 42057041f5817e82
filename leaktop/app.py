"""The application: holds the state of things and hands it to the screen on top."""

import asyncio
import os
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, TypeVar

from textual import events, on
from textual.app import App
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.screen import Screen

from leaktop import messages as say
from leaktop.collector import Collector
from leaktop.format import clean
from leaktop.model import Filters, Frame, Memory, SortKey, Tracing
from leaktop.screens.detail import DetailScreen
from leaktop.screens.help import Facts, HelpScreen
from leaktop.screens.live import LiveScreen
from leaktop.screens.main import MainScreen
from leaktop.screens.too_small import LEAST_HEIGHT, LEAST_WIDTH, TooSmallScreen
from leaktop.source import Source
from leaktop.terminal import TerminalDriver
from leaktop.widgets.filter_bar import next_rate
from leaktop.widgets.status_bar import Stage, Status

_Kept = TypeVar("_Kept")
_KEPT_DETAILS = 64
_SPARE_NAMES = 4096
_HANGUP_S = 2.0
# How long a tick may keep the interpreter while a key waits for it, several times for each key.
_SWITCH_S = 0.0005


class LeaktopApp(App[int]):
    """Shows what ``source`` reads; ``run`` returns the exit code of the process.

    Nothing is attached before the first paint, and everything is detached before the process can
    end. Where the source fails, ``failure`` is the message to print once the screen is gone. With
    ``iterations`` it quits by itself when it has shown so many snapshots.
    """

    CSS_PATH = "app.tcss"
    TITLE = "leaktop"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", show=False, priority=False),
        Binding("question_mark,f1", "help", show=False),
        Binding("space,p", "pause", show=False),
        Binding("plus", "rate(1)", show=False),
        Binding("minus", "rate(-1)", show=False),
    ]

    def __init__(
        self,
        source: Source,
        *,
        filters: Filters,
        delay_s: float = 1.0,
        sort: SortKey = SortKey.BYTES,
        ascii_only: bool = False,
        iterations: int | None = None,
    ) -> None:
        # For NO_COLOR Textual makes colours grey; it sends none only in the terminal's own.
        plain = "NO_COLOR" in os.environ
        super().__init__(driver_class=TerminalDriver, ansi_color=True if plain else None)
        if plain or "TEXTUAL_THEME" not in os.environ:
            self.theme = "ansi-dark"
        self.animation_level = "none"
        self.ascii_only = ascii_only
        self.failure: str | None = None
        self.collector = Collector(source, self.post_message, delay_s)
        self._source = source
        self._sort = sort
        self._status = Status(source.target, filters)
        self._latest: say.SnapshotReady | None = None
        self._iterations = iterations
        self._shown = 0
        self._tracing: Tracing | None = None
        self._memory: Memory | None = None
        self._problems: Mapping[str, str] = {}
        self._names: dict[int, tuple[Frame, ...]] = {}
        self._details: OrderedDict[int, say.DetailReady] = OrderedDict()
        self._lines: OrderedDict[int, say.LinesReady] = OrderedDict()
        self._exit_code = 0

    @property
    def status(self) -> Status:
        """What the screen says."""
        return self._status

    def get_default_screen(self) -> Screen[None]:
        """Return the table of stacks."""
        return MainScreen(self._status, self._sort)

    def on_mount(self) -> None:
        """End in order on signals and when the terminal hangs up; let keys go before ticks."""
        sys.setswitchinterval(_SWITCH_S)
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._leave)
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def on_ready(self) -> None:
        """Begin to attach: the first paint is out."""
        self._cover(self.size)
        self.collector.start()

    def on_unmount(self) -> None:
        """Detach, also when the screen crashed."""
        self.collector.stop()

    @on(say.Progress)
    def _progressed(self, message: say.Progress) -> None:
        self._change(progress=clean(message.text))

    @on(say.Ready)
    def _ready_to_trace(self, message: say.Ready) -> None:
        self._tracing = message.tracing
        self._tell_help()
        self._change(stage=Stage.TRACING, progress="")

    @on(say.MemoryRead)
    def _memory_read(self, message: say.MemoryRead) -> None:
        self._memory = message.memory
        self._tell_help()

    @on(say.SnapshotReady)
    def _snapshot_came(self, message: say.SnapshotReady) -> None:
        self._latest = message
        self._drop_old_names(message)
        if not self._status.paused:
            self._show_latest()
            self._shown += 1
            if self._shown == self._iterations:
                self.screen.call_after_refresh(self._leave)

    @on(say.SymbolsReady)
    def _names_came(self, message: say.SymbolsReady) -> None:
        self._names.update(message.frames)
        self._learn_problems(message.problems)
        if isinstance(top := self._top, LiveScreen):
            top.show_names(message.frames)

    @on(say.LinesReady)
    def _lines_came(self, message: say.LinesReady) -> None:
        self._learn_problems(message.problems)
        if message.frames:
            _keep(self._lines, message.stack_id, message)
            if (screen := self._detail_of(message.stack_id)) is not None:
                screen.show_lines(message)

    @on(say.DetailReady)
    def _detail_came(self, message: say.DetailReady) -> None:
        if message.detail is not None:
            _keep(self._details, message.stack_id, message)
        if (screen := self._detail_of(message.stack_id)) is not None and not (
            self._status.paused and screen.has_detail
        ):
            screen.show_detail(message)

    @on(say.BlocksReady)
    def _blocks_came(self, message: say.BlocksReady) -> None:
        if (screen := self._detail_of(message.stack_id)) is not None:
            screen.show_blocks(message)

    @on(say.BlockRead)
    def _block_read(self, message: say.BlockRead) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, DetailScreen):
                screen.show_content(message)

    @on(say.EventsReady)
    def _events_came(self, message: say.EventsReady) -> None:
        if (screen := self._detail_of(message.stack_id)) is not None:
            screen.show_events(message)

    @on(DetailScreen.BlocksWanted)
    def _blocks_wanted(self, message: DetailScreen.BlocksWanted) -> None:
        self.collector.list_blocks(message.wanted)

    @on(DetailScreen.ContentWanted)
    def _content_wanted(self, message: DetailScreen.ContentWanted) -> None:
        self.collector.read_block(message.block)

    @on(DetailScreen.LogWanted)
    def _log_wanted(self, message: DetailScreen.LogWanted) -> None:
        self.collector.log(message.stack_id)

    @on(say.FiltersApplied)
    def _filters_applied(self) -> None:
        self._change(refused="")

    @on(say.FiltersRefused)
    def _filters_refused(self, message: say.FiltersRefused) -> None:
        reading = self._latest.reading if self._latest else None
        filters = reading.snapshot.filters if reading else self._status.filters
        self._change(refused=clean(message.error), filters=filters)

    @on(say.TargetGone)
    def _target_gone(self, message: say.TargetGone) -> None:
        self._change(stage=Stage.GONE, progress=clean(message.reason))

    @on(say.SourceFailed)
    def _source_failed(self, message: say.SourceFailed) -> None:
        self.failure = str(message.error)
        self._exit_code = message.error.exit_code
        if message.started:
            self._change(stage=Stage.FAILED, progress=clean(self.failure))
        else:
            self._leave()

    @on(LiveScreen.Resumed)
    def _resumed(self) -> None:
        self._update()

    @on(MainScreen.NamesWanted)
    def _names_wanted(self) -> None:
        reading = self._status.reading
        if reading is None or not isinstance(top := self._top, MainScreen):
            return
        visible = top.table.visible_sites
        first = [site.stack_id for site in visible if site.stack_id not in self._names]
        rest = [s.stack_id for s in reading.snapshot.sites if s.stack_id not in self._names]
        if rest:
            self.collector.want_names(first, set(rest).difference(first))

    @on(MainScreen.FiltersEdited)
    def _filters_edited(self, message: MainScreen.FiltersEdited) -> None:
        self._apply(message.filters)

    @on(MainScreen.StackOpened)
    def _stack_opened(self, message: MainScreen.StackOpened) -> None:
        reading, stack_id = self._status.reading, message.site.stack_id
        screen = DetailScreen(message.site, estimated=bool(reading and reading.snapshot.estimated))
        if stack_id in self._lines:
            screen.show_lines(self._lines[stack_id])
        if stack_id in self._details:
            screen.show_detail(self._details[stack_id])
        screen.show_problems(self._problems)
        self.collector.watch(stack_id)
        self.collector.want_lines(stack_id)
        self.push_screen(screen, lambda _: self._stack_left())

    def _stack_left(self) -> None:
        self.collector.watch(None)
        self.collector.list_blocks(None)
        self.collector.log(None)

    async def action_quit(self) -> None:
        """Quit."""
        self._leave()

    def action_help(self) -> None:
        """Show the help."""
        self.collector.want_memory()
        self.push_screen(HelpScreen(self._facts))

    def action_pause(self) -> None:
        """Freeze the screen, or let it go on."""
        self._change(paused=not self._status.paused)
        if not self._status.paused and self._latest is not None:
            self._show_latest()
            self.collector.tick_now()

    def action_rate(self, step: int) -> None:
        """Trace one of more, or fewer, allocations."""
        rate = next_rate(self._status.filters.sample_rate, step)
        self._apply(replace(self._status.filters, sample_rate=rate))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Allow nothing but to quit while the terminal is too small."""
        return action == "quit" or not isinstance(self._top, TooSmallScreen)

    def on_resize(self, event: events.Resize) -> None:
        """Cover the screen while the terminal is too small."""
        self._cover(event.size)

    def _cover(self, size: Size) -> None:
        small = size.width < LEAST_WIDTH or size.height < LEAST_HEIGHT
        covered = isinstance(self._top, TooSmallScreen)
        if small and not covered and self._top is not None:
            self.push_screen(TooSmallScreen())
        elif covered and not small:
            self.pop_screen()

    def _apply(self, filters: Filters) -> None:
        if filters == self._status.filters:
            return
        if self._status.stage in (Stage.GONE, Stage.FAILED):
            self._change(refused="the target is no longer traced")
            return
        self._change(filters=filters, refused="")
        self.collector.apply(filters)

    def _show_latest(self) -> None:
        if self._latest is not None:
            reading = self._latest.reading
            lost = {name: count for name, count in reading.snapshot.lost.items() if count}
            self._change(reading=reading, trend=self._latest.trend, losses=lost)

    def _change(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._update()

    def _update(self) -> None:
        if isinstance(top := self._top, LiveScreen):
            top.show(self._status, self._names)

    # None on the way out.
    @property
    def _top(self) -> Screen[None] | None:
        return self.screen_stack[-1] if self.screen_stack else None

    @property
    def _facts(self) -> Facts:
        reading = self._status.reading
        lost = reading.snapshot.lost if reading is not None else {}
        return Facts(self._status.target, self._tracing, self._memory, self._problems, lost)

    def _tell_help(self) -> None:
        if isinstance(top := self._top, HelpScreen):
            top.show(self._facts)

    def _detail_of(self, stack_id: int) -> DetailScreen | None:
        for screen in self.screen_stack:
            if isinstance(screen, DetailScreen) and screen.site.stack_id == stack_id:
                return screen
        return None

    def _learn_problems(self, problems: Mapping[str, str]) -> None:
        if problems != self._problems:
            self._problems = problems
            for screen in self.screen_stack:
                if isinstance(screen, DetailScreen):
                    screen.show_problems(problems)

    # Stacks come and go for ever; names are kept for those that are there.
    def _drop_old_names(self, message: say.SnapshotReady) -> None:
        sites = message.reading.snapshot.sites
        if len(self._names) > 2 * len(sites) + _SPARE_NAMES:
            held = {site.stack_id for site in sites}
            self._names = {i: frames for i, frames in self._names.items() if i in held}

    def _leave(self) -> None:
        self.collector.ask_to_stop()
        if isinstance(self._driver, TerminalDriver):
            self._driver.ending = True
        self.exit(self._exit_code)

    # With the terminal gone its writer may block for ever, so the process does not depend on it.
    def _hang_up(self) -> None:
        self._leave()
        timer = threading.Timer(_HANGUP_S, os._exit, (128 + signal.SIGHUP,))
        timer.daemon = True
        timer.start()


def _keep(kept: "OrderedDict[int, _Kept]", key: int, value: _Kept) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT_DETAILS:
        kept.popitem(last=False)
