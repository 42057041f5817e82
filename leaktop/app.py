"""The application: holds the state of things and hands it to the screen on top."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import App
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.screen import Screen

from leaktop import messages as say
from leaktop.collector import Collector
from leaktop.command import Command
from leaktop.config import Config
from leaktop.export import ExportError
from leaktop.export.formats import FORMATS, format_of
from leaktop.exporting import default_name
from leaktop.format import clean
from leaktop.ignoring import Ignoring, notice_of
from leaktop.model import Filters, Process, SortKey
from leaktop.picking import Picking, Watcher, open_apart
from leaktop.screens.detail import DetailScreen
from leaktop.screens.help import HelpScreen, Settings
from leaktop.screens.leaving import LeavingScreen
from leaktop.screens.live import LiveScreen
from leaktop.screens.main import MainScreen
from leaktop.screens.picker import PickerScreen
from leaktop.screens.picker_help import PickerHelpScreen
from leaktop.screens.saving import SavingScreen
from leaktop.screens.too_small import LEAST_HEIGHT, LEAST_WIDTH, TooSmallScreen
from leaktop.screens.tree import TreeScreen
from leaktop.session import Session
from leaktop.source import Source, SourceError
from leaktop.terminal import TerminalDriver
from leaktop.theme import choose_theme
from leaktop.widgets.filter_bar import next_rate
from leaktop.widgets.site_columns import column_problems
from leaktop.widgets.status_bar import Stage

_DEFAULTS = Config()
_NOTICE_S = 10.0
_HANGUP_S = 2.0
# How long a tick may keep the interpreter while a key waits for it, several times for each key.
_SWITCH_S = 0.0005

CLIPBOARD_MAX = 50_000
"""Bytes that are copied at most: terminals take OSC 52 up to some 74,000 bytes of base64."""


class LeaktopApp(App[int]):
    """Shows what ``source`` reads; ``run`` returns the exit code of the process.

    Without a source it begins with the picker, which opens the source of what is picked and comes
    back when that is left. Nothing is attached before the first paint, and everything is detached
    before the process can end. Where the given source fails, ``failure`` is the message to print
    once the screen is gone. With ``iterations`` it quits by itself when it has shown so many
    snapshots. ``command`` is the target where leaktop started it.
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
        Binding("m", "mark", show=False),
        Binding("M", "clear_mark", show=False),
        Binding("d", "grown", show=False),
        Binding("I", "show_ignored", show=False),
        Binding("e", "export", show=False),
        Binding("y", "copy", show=False),
    ]

    def __init__(
        self,
        source: Source | None = None,
        *,
        picking: Picking | None = None,
        command: Command | None = None,
        filters: Filters,
        delay_s: float = 1.0,
        sort: SortKey = SortKey.BYTES,
        ascii_only: bool = False,
        iterations: int | None = None,
        config: Config = _DEFAULTS,
        exports: Sequence[Path] = (),
    ) -> None:
        # For NO_COLOR Textual makes colours grey; it sends none only in the terminal's own.
        plain = "NO_COLOR" in os.environ
        super().__init__(driver_class=TerminalDriver, ansi_color=True if plain else None)
        self._config = config
        self._ignoring = Ignoring(config.ignore, self.post_message)
        theme, wrong = choose_theme(config.theme, self.available_themes)
        if theme is not None:
            self.theme = theme
        self._settings = Settings(
            config.path, [*config.problems, *column_problems(config.columns), *wrong]
        )
        self.animation_level = "none"
        self.ascii_only = ascii_only
        self.failure: str | None = None
        self._limits = filters
        self._delay_s = delay_s
        self._command = command
        self._sort = sort
        self._iterations = iterations
        self._exports = exports
        self._collectors: list[Collector] = []
        self._exit_code = 0
        self._session = None if source is None else self._new_session(source)
        self._picking = picking
        self._picker: PickerScreen | None = None
        self._watcher: Watcher | None = None
        if source is None and picking is not None:
            self._picker = PickerScreen(picking.warning or self._settings.notice)
            self._watcher = Watcher(picking, self.post_message)
        self._opening: Process | None = None
        self._ending: dict[object, str] = {}

    @property
    def session(self) -> Session:
        """What is traced; there is one unless the picker is on the screen."""
        assert self._session is not None
        return self._session

    def get_default_screen(self) -> Screen[None]:
        """Return the table of stacks, or the picker."""
        if self._picker is not None:
            return self._picker
        return MainScreen(
            self.session.status, self._sort, self._command, columns=self._config.columns
        )

    def on_mount(self) -> None:
        """End in order on signals and when the terminal hangs up; let keys go before ticks."""
        sys.setswitchinterval(_SWITCH_S)
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end_by_signal, number)
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    @on(events.Ready)  # by its type: a collector's Ready has the same name
    def _painted(self) -> None:
        """Begin to attach, or to read the processes: the first paint is out."""
        self._cover(self.size)
        if self._watcher is not None:
            self._watcher.start()
        if self._session is not None:
            self._session.collector.start()

    def on_unmount(self) -> None:
        """Detach, also when the screen crashed."""
        self._ask_to_stop()
        if self._session is not None:
            self._session.collector.stop()

    @on(say.Said)
    def _said(self, message: say.Said) -> None:
        if isinstance(message, say.Closed):
            self._source_closed(message)
        if (session := self._session) is None or message.collector is not session.collector:
            return  # late words of a session that was left
        session.take(message)
        if isinstance(message, say.Ready) and self._command is not None:
            self._command.go()
        if isinstance(message, say.SnapshotReady) and session.shown == self._iterations:
            self.screen.call_after_refresh(self._leave)
        elif isinstance(message, say.SourceFailed):
            self._source_failed(message)
        elif isinstance(message, say.StackCopied):
            text = message.text.encode("utf-8", "replace")[:CLIPBOARD_MAX]
            self.copy_to_clipboard(text.decode("utf-8", "ignore"))
        if isinstance(message, say.Exported | say.StackCopied):
            self.set_timer(_NOTICE_S, partial(session.forget, session.status.notice))
        self._show_attaching()

    @on(DetailScreen.BlocksWanted)
    def _blocks_wanted(self, message: DetailScreen.BlocksWanted) -> None:
        self.session.collector.list_blocks(message.wanted)

    @on(DetailScreen.ContentWanted)
    def _content_wanted(self, message: DetailScreen.ContentWanted) -> None:
        self.session.collector.read_block(message.block)

    @on(DetailScreen.LogWanted)
    def _log_wanted(self, message: DetailScreen.LogWanted) -> None:
        self.session.collector.log(message.stack_id)

    def _source_failed(self, message: say.SourceFailed) -> None:
        if self._picker is None:
            self.failure = str(message.error)
            self._exit_code = message.error.exit_code
            if not message.started:
                self._leave()
        elif not message.started:
            self._session = None
            self._note_failure(message.error)

    @on(LiveScreen.Resumed)
    def _resumed(self) -> None:
        if self._session is not None:
            self._session.update()

    @on(LiveScreen.NamesWanted)
    def _names_wanted(self) -> None:
        if self._session is not None:
            self._session.want_names()

    @on(MainScreen.FiltersEdited)
    def _filters_edited(self, message: MainScreen.FiltersEdited) -> None:
        if self._session is not None:
            self._session.apply(message.filters)

    @on(LiveScreen.StackOpened)
    def _stack_opened(self, message: LiveScreen.StackOpened) -> None:
        if (session := self._session) is not None:
            self.push_screen(session.open(message.site), lambda _: session.stack_left())

    @on(MainScreen.TreeOpened)
    def _tree_opened(self) -> None:
        if (session := self._session) is not None and isinstance(top := self._top, MainScreen):
            self.push_screen(session.open_tree(top), lambda _: session.tree_left())

    @on(TreeScreen.Wanted)
    def _tree_wanted(self, message: TreeScreen.Wanted) -> None:
        if self._session is not None:
            self._session.want_tree(message.wish)

    @on(LiveScreen.IgnoreToggled)
    def _ignore_toggled(self, message: LiveScreen.IgnoreToggled) -> None:
        if (session := self._session) is None:
            return
        stack_id = message.site.stack_id
        matched = session.status.ignored.entries.get(stack_id)
        frames = session.names.get(stack_id)
        if frames is not None:
            frames = frames or message.site.frames
        toggled = self._ignoring.toggle(frames or (), matched)
        session.ignore(self._ignoring.list)
        self._tell(session, notice_of(toggled, session.status.ignored))

    @on(say.NotKept)
    def _not_kept(self, message: say.NotKept) -> None:
        if self._session is not None:
            self._tell(self._session, f"not kept for the next run: {message.reason}")

    def _tell(self, session: Session, notice: str) -> None:
        session.tell(notice)
        self.set_timer(_NOTICE_S, lambda: session.forget(notice))

    @on(say.ProcessesRead)
    def _processes_read(self, message: say.ProcessesRead) -> None:
        if self._picker is not None:
            self._picker.show(message.processes)

    @on(PickerScreen.Picked)
    def _picked(self, message: PickerScreen.Picked) -> None:
        if self._picking is not None and self._opening is None and self._session is None:
            self._opening = process = message.process
            label = clean(f"{process.pid} ({process.comm})")
            self._note(attaching=f"attaching to {label}", failed="")
            open_apart(self._picking, process, self.post_message)

    @on(say.OpenFailed)
    def _open_failed(self, message: say.OpenFailed) -> None:
        if message.process is self._opening:
            self._opening = None
            self._note_failure(message.error)

    @on(say.SourceOpened)
    def _source_opened(self, message: say.SourceOpened) -> None:
        if message.process is self._opening:
            self._opening = None
            self._session = self._new_session(message.source)
            self._session.collector.start()
        else:  # no longer wanted
            threading.Thread(target=message.source.close, daemon=True).start()

    @on(PickerScreen.Cancelled)
    @on(MainScreen.Left)
    def _left(self) -> None:
        """Leave the session that was picked, or is about to be."""
        if self._picker is None or self._watcher is None:
            return
        if isinstance(self._top, MainScreen):
            self.pop_screen()
        self._opening = None
        if self._session is not None:
            self._let_go(self._session)
            self._session = None
        self._note(attaching="", failed="")
        self._watcher.want(True)

    async def action_quit(self) -> None:
        """Quit; ask first what is to become of a command that runs."""
        if self._command is None or not self._command.running:
            self._leave()
        elif not isinstance(self._top, LeavingScreen):
            self.push_screen(LeavingScreen(self._command), self._answered)

    def action_help(self) -> None:
        """Show the help."""
        if isinstance(self._top, PickerScreen):
            self.push_screen(PickerHelpScreen())
        elif self._session is not None:
            self._session.collector.want_memory()
            self._session.forget(self._session.status.notice)
            self.push_screen(HelpScreen(self._session.facts))

    def action_pause(self) -> None:
        """Freeze the screen, or let it go on."""
        if self._session is not None:
            self._session.pause()

    def action_mark(self) -> None:
        """Show changes since now."""
        if self._session is not None:
            self._session.set_mark()

    def action_clear_mark(self) -> None:
        """Show again what is held."""
        if self._session is not None:
            self._session.clear_mark()

    def action_grown(self) -> None:
        """Show only what grew since the mark, or all again."""
        if self._session is not None:
            self._session.toggle_grown()

    def action_show_ignored(self) -> None:
        """Show the stacks that are ignored, or hide them again."""
        if self._session is not None:
            self._session.toggle_ignored()

    def action_export(self) -> None:
        """Ask for a file's name, and write what is shown to it."""
        session, top = self._session, self._top
        if session is None or session.status.reading is None or not isinstance(top, LiveScreen):
            return
        name = default_name(session.status.reading.snapshot, FORMATS[0].endings[0])
        endings = " ".join(each.endings[0] for each in FORMATS)
        what = f"export to file, Enter writes it, Esc leaves; formats: {endings}"
        self.push_screen(SavingScreen(what, name, _no_format), self._name_given)

    def _name_given(self, path: Path | None) -> None:
        if path is not None and self._session is not None:
            self._session.export(path)

    def action_copy(self) -> None:
        """Copy the stack that is selected, or looked at, as text."""
        site = top.stack if isinstance(top := self._top, LiveScreen) else None
        if self._session is not None and site is not None:
            self._session.copy(site)

    def exported(self) -> Iterator[say.Exported]:
        """Wait until all is written that was to be written on leaving; say what became of it."""
        for collector in self._collectors if self._exports else ():
            collector.wait()
            yield from collector.written

    def action_rate(self, step: int) -> None:
        """Trace one of more, or fewer, allocations."""
        if (session := self._session) is not None:
            filters = session.status.filters
            rate = next_rate(filters.sample_rate, step)
            session.apply(replace(filters, sample_rate=rate))

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

    # None on the way out.
    @property
    def _top(self) -> Screen[None] | None:
        return self.screen_stack[-1] if self.screen_stack else None

    def _new_session(self, source: Source) -> Session:
        session = Session(
            source,
            self._limits,
            self._delay_s,
            self.post_message,
            lambda: self.screen_stack,
            settings=self._settings,
            ignored=self._ignoring.list,
            exports=self._exports,
        )
        self._collectors.append(session.collector)
        return session

    # Shows the picker how far attaching has come, and once it has, the table of stacks.
    @on(PickerScreen.Resumed)
    def _show_attaching(self) -> None:
        session, picker = self._session, self._picker
        if session is None or picker is None or self._top is not picker:
            return
        if session.status.stage is Stage.STARTING:
            step = session.status.progress
            self._note(attaching=f"attaching to {session.label}" + (f": {step}" if step else ""))
            return
        self._note(attaching="")
        if self._watcher is not None:
            self._watcher.want(False)
        self.push_screen(
            MainScreen(session.status, self._sort, picked=True, columns=self._config.columns)
        )

    # Detaching goes on in the session's own thread, which says so at the end.
    def _let_go(self, session: Session) -> None:
        self._ending[session.collector] = session.label
        session.collector.ask_to_stop()
        self._note_ending()

    def _source_closed(self, message: say.Closed) -> None:
        if self._ending.pop(message.collector, None) is not None:
            self._note_ending()

    def _note_ending(self) -> None:
        self._note(detaching=", ".join(self._ending.values()))

    def _note_failure(self, error: SourceError) -> None:
        self._note(attaching="", failed=" ".join(str(error).splitlines()))

    def _note(self, **changes: str) -> None:
        if self._picker is not None:
            self._picker.note(**changes)

    def _ask_to_stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        if self._session is not None:
            self._session.collector.ask_to_stop()

    def _leave(self) -> None:
        self._ask_to_stop()
        if isinstance(self._driver, TerminalDriver):
            self._driver.ending = True
        self.exit(self._exit_code)

    def _answered(self, leave: bool | None) -> None:
        if leave:
            self._leave()
        elif self._session is not None and self._session.status.stage is Stage.TRACING:
            self._session.collector.tick_now()

    # A command that leaktop started gets what leaktop gets, as it would from the same terminal.
    def _end_by_signal(self, number: signal.Signals) -> None:
        if self._command is not None:
            self._command.send(number)
            self._command.leave()
        self._leave()

    # With the terminal gone its writer may block for ever, so the process does not depend on it.
    def _hang_up(self) -> None:
        self._end_by_signal(signal.SIGHUP)
        timer = threading.Timer(_HANGUP_S, os._exit, (128 + signal.SIGHUP,))
        timer.daemon = True
        timer.start()


def _no_format(path: Path) -> str:
    try:
        format_of(path)
    except ExportError as error:
        return str(error)
    return ""
