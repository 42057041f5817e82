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
from typing import TYPE_CHECKING, Any, ClassVar

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
from leaktop.format import clean, format_slowdown
from leaktop.ignoring import Ignoring, notice_of
from leaktop.model import Filters, Process, SortKey
from leaktop.modes import Estimating, Modes, Opening, measure_cost_apart, open_apart
from leaktop.picking import Picking, Watcher
from leaktop.recorder import Recordings
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
from leaktop.source.timeline import Move, MoveKind
from leaktop.switching import Switch, ask_to_leave, name_of, offer, why_not
from leaktop.terminal import TerminalDriver
from leaktop.theme import choose_theme
from leaktop.widgets.filter_bar import next_rate
from leaktop.widgets.site_columns import column_problems
from leaktop.widgets.status_bar import Stage

if TYPE_CHECKING:
    from leaktop.player import Play

_DEFAULTS = Config()
_NOTICE_S = 10.0
_HANGUP_S = 2.0
_OFTEN_A_S = 2000
"""Allocations a second from which on it is looked into what tracing costs."""
_SAID_S = 10.0  # how long the end of a recording is told
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
    snapshots. ``command`` is the target where leaktop started it. ``modes`` opens what is picked,
    and the other mode of what is traced. Where ``source`` is a recording, ``play`` makes the
    collector.
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
        Binding("R", "record", show=False),
        # of a recording
        Binding("left,comma", "move('step', -1)", show=False),
        Binding("right,full_stop", "move('step', 1)", show=False),
        Binding("left_square_bracket", "move('jump', -60)", show=False),
        Binding("right_square_bracket", "move('jump', 60)", show=False),
        Binding("left_curly_bracket", "move('end', -1)", show=False),
        Binding("right_curly_bracket", "move('end', 1)", show=False),
        Binding("x", "move('speed')", show=False),
    ]

    def __init__(
        self,
        source: Source | None = None,
        *,
        picking: Picking | None = None,
        modes: Modes | None = None,
        command: Command | None = None,
        filters: Filters,
        delay_s: float = 1.0,
        sort: SortKey = SortKey.BYTES,
        ascii_only: bool = False,
        iterations: int | None = None,
        config: Config = _DEFAULTS,
        exports: Sequence[Path] = (),
        recordings: Recordings = Recordings(),  # noqa: B008  (frozen)
        play: "Play | None" = None,
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
        self._recordings = recordings
        self._play = play
        self._exit_code = 0
        self._tracing_modes = modes
        self._session = None if source is None else self._new_session(source, self._first())
        self._switch: Switch | None = None
        self._picker: PickerScreen | None = None
        self._watcher: Watcher | None = None
        if source is None and picking is not None:
            self._picker = PickerScreen(picking.warning or self._settings.notice)
            self._watcher = Watcher(picking, self.post_message)
        self._estimating: Estimating | None = None
        self._opening: Opening | None = None
        self._slowdown = ""
        self._cost_of_a_call: float | None = None
        self._measuring_cost = False
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
            self._session.stop()

    @on(say.Said)
    def _said(self, message: say.Said) -> None:
        if isinstance(message, say.Closed):
            self._source_closed(message)
        if self._switch is not None and self._switch.concerns(message):
            self._switch_said(self._switch, message)
        if (session := self._session) is None or message.collector is not session.collector:
            return  # late words of a session that was left
        session.take(message)
        if isinstance(message, say.SnapshotReady):
            self._want_cost(session, message)
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
        elif isinstance(message, say.RecordingChanged) and message.recorded.why_ended is not None:
            self.set_timer(_SAID_S, partial(session.forget_recording, message.recorded))
        self._show_attaching()

    # Only once there is something to be told: until then leaktop leaves itself alone.
    def _want_cost(self, session: Session, message: say.SnapshotReady) -> None:
        modes, opening = self._tracing_modes, session.opening
        exact = opening is not None and not opening.growth
        if exact:
            session.cost_of_a_call = self._cost_of_a_call
        often = message.reading.rates.allocs_per_s > _OFTEN_A_S
        if modes is not None and exact and often and not self._measuring_cost:
            self._measuring_cost = True
            measure_cost_apart(modes, self.post_message)

    @on(say.CostMeasured)
    def _cost_measured(self, message: say.CostMeasured) -> None:
        self._cost_of_a_call = message.seconds

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
            self.push_screen(session.open_tree(top))

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
        busy = self._estimating or self._opening or self._session
        if self._tracing_modes is not None and busy is None:
            label = _label(message.process)
            self._note(attaching=f"measuring what exact tracing would cost {label}", failed="")
            self._estimating = Estimating(self._tracing_modes, message.process, self.post_message)

    @on(say.Estimated)
    def _estimated(self, message: say.Estimated) -> None:
        estimating, estimate = self._estimating, message.estimate
        if estimating is None or message.estimating is not estimating:
            return  # no longer wanted
        self._slowdown = f", slowing it {format_slowdown(estimate)}" if estimate else ""
        if estimate is None or not estimate.much:
            self._open(estimating.process, growth=False)
        else:
            self._note(attaching="")
            question = offer(_label(estimating.process), estimate)
            self.push_screen(question, self._offered)

    def _offered(self, key: str | None) -> None:
        if (estimating := self._estimating) is None or key is None:
            self._left()
        else:
            self._open(estimating.process, growth=key == "enter")

    def _open(self, process: Process, *, growth: bool) -> None:
        assert self._tracing_modes is not None
        self._estimating = None
        if growth:
            self._slowdown = ""
        self._opening = Opening(process, growth, Filters() if growth else self._limits)
        self._note(attaching=f"attaching to {_label(process)}{self._slowdown}")
        open_apart(self._tracing_modes, self._opening, self.post_message)

    @on(say.OpenFailed)
    def _open_failed(self, message: say.OpenFailed) -> None:
        if self._switch is not None and message.opening is self._switch.opening:
            self._end_switch(message.error)
        elif message.opening is self._opening:
            self._opening = None
            self._note_failure(message.error)

    @on(say.SourceOpened)
    def _source_opened(self, message: say.SourceOpened) -> None:
        if self._switch is not None and message.opening is self._switch.opening:
            self._switch.opened(message.source)
        elif self._opening is not None and message.opening is self._opening:
            opening, self._opening = self._opening, None
            self._session = self._new_session(message.source, opening)
            self._session.collector.start()
        else:  # no longer wanted
            threading.Thread(target=message.source.close, daemon=True).start()

    @on(MainScreen.SwitchWanted)
    def _switch_wanted(self) -> None:
        if (session := self._session) is None or self._switch is not None:
            return
        if why := why_not(session, self._tracing_modes):
            session.refuse(why)
        elif (question := ask_to_leave(session)) is not None:
            self.push_screen(question, self._switch_answered)
        else:
            self._begin_switch(session)

    def _switch_answered(self, key: str | None) -> None:
        if (
            key is not None
            and self._session is not None
            and not why_not(self._session, self._tracing_modes)
        ):
            self._begin_switch(self._session)

    def _begin_switch(self, session: Session) -> None:
        assert self._tracing_modes is not None
        assert session.opening is not None
        session.refuse("")
        if not session.opening.growth:
            self._limits = session.status.filters
        filters = self._limits if session.opening.growth else Filters()
        self._switch = Switch(
            self._tracing_modes, session, filters, self._new_session, self.post_message
        )

    def _switch_said(self, switch: Switch, message: say.Said) -> None:
        if isinstance(message, say.SourceFailed):
            self._end_switch(message.error)
        elif (session := switch.take(message)) is not None:
            self._switch, old, self._session = None, switch.old, session
            while not isinstance(self._top, MainScreen):  # what is open of the old one's
                self.pop_screen()
            self._let_go(old)
            session.show_activity(f"ending {name_of(growth=not switch.opening.growth)} ...")
            self._cover(self.size)

    def _end_switch(self, error: SourceError | None) -> None:
        if (switch := self._switch) is not None:
            self._switch = None
            if error is None:
                switch.cancel()
            else:
                switch.failed(error)

    @on(PickerScreen.Cancelled)
    @on(MainScreen.Left)
    def _left(self) -> None:
        """Leave the session that was picked, or is about to be; before that a change of mode."""
        if self._switch is not None:
            self._end_switch(None)
            return
        if self._picker is None or self._watcher is None:
            if self._session is not None:
                self._session.refuse("")  # it was read
            return
        if isinstance(self._top, MainScreen):
            self.pop_screen()
        self._opening = None
        if self._estimating is not None:
            self._estimating.stop()
            self._estimating = None
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

    def action_record(self) -> None:
        """Begin to record, or end it."""
        if self._session is not None:
            self._session.toggle_recording()

    def action_move(self, kind: str, amount: int = 0) -> None:
        """Go elsewhere on a recording."""
        if self._session is not None:
            self._session.move(Move(MoveKind(kind), amount))

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

    # Textual would print a traceback where nobody sees it, and end as if nothing had happened.
    def _handle_exception(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = f"internal error ({type(error).__name__}: {error}); please report it"
        super()._handle_exception(error)

    # None on the way out.
    @property
    def _top(self) -> Screen[None] | None:
        return self.screen_stack[-1] if self.screen_stack else None

    def _new_session(self, source: Source, opening: Opening | None) -> Session:
        # of one that is to take another's place nothing is drawn yet
        def screens() -> Sequence[Screen[Any]]:
            return self.screen_stack if self._session is session else ()

        limits = self._limits if opening is None else opening.filters
        session = Session(
            source,
            limits,
            self._delay_s,
            self.post_message,
            screens,
            settings=self._settings,
            ignored=self._ignoring.list,
            exports=self._exports,
            opening=opening,
            recordings=self._recordings,
            play=self._play,
        )
        self._recordings = replace(self._recordings, path=None)  # a file is of one session
        self._collectors.append(session.collector)
        return session

    # What the given source was opened for, where it has two modes.
    def _first(self) -> Opening | None:
        if self._tracing_modes is None or self._tracing_modes.process is None:
            return None
        return Opening(self._tracing_modes.process, self._tracing_modes.growth, self._limits)

    # Shows the picker how far attaching has come, and once it has, the table of stacks.
    @on(PickerScreen.Resumed)
    def _show_attaching(self) -> None:
        session, picker = self._session, self._picker
        if session is None or picker is None or self._top is not picker:
            return
        if session.status.stage is Stage.STARTING:
            step = session.status.progress
            label = f"{session.label}{self._slowdown}"
            self._note(attaching=f"attaching to {label}" + (f": {step}" if step else ""))
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
            if self._session is not None and self._switch is None:
                self._session.show_activity("")

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
        self._end_switch(None)
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


def _label(process: Process) -> str:
    return clean(f"{process.pid} ({process.comm})")
