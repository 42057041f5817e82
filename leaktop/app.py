"""The application: holds the state of things and hands it to the screen on top."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from leaktop import messages as say
from leaktop.attaching import Attaching, discard
from leaktop.command import Command
from leaktop.config import Config
from leaktop.costing import Costing
from leaktop.format import internal_error
from leaktop.granting import ON_KEYS, Granting
from leaktop.handing_on import HandingOn
from leaktop.ignoring import Ignoring
from leaktop.leaving import Leaving
from leaktop.model import Filters, SortKey
from leaktop.modes import Modes
from leaktop.picking import Picking
from leaktop.recorder import Recordings
from leaktop.screens.help import HelpScreen, Settings
from leaktop.screens.live import Wish
from leaktop.screens.main import MainScreen
from leaktop.screens.picker import PickerScreen
from leaktop.screens.picker_help import PickerHelpScreen
from leaktop.screens.too_small import TooSmallScreen, cover
from leaktop.session import Session
from leaktop.sessions import Sessions
from leaktop.source import Source
from leaktop.source.timeline import Move, MoveKind
from leaktop.switching import Switching
from leaktop.terminal import TerminalDriver
from leaktop.theme import choose_theme
from leaktop.widgets.filter_bar import next_rate
from leaktop.widgets.site_columns import column_problems

if TYPE_CHECKING:
    from leaktop.player import Play

_DEFAULTS = Config()
# How long a tick may keep the interpreter while a key waits for it, several times for each key.
_SWITCH_S = 0.0005


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
        Binding("space,p", "ask('pause')", show=False),
        Binding("plus", "rate(1)", show=False),
        Binding("minus", "rate(-1)", show=False),
        Binding("m", "ask('mark')", show=False),
        Binding("M", "ask('clear_mark')", show=False),
        Binding("d", "ask('grown')", show=False),
        Binding("I", "ask('show_ignored')", show=False),
        Binding("e", "export", show=False),
        Binding("y", "copy", show=False),
        Binding("R", "ask('record')", show=False),
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
        ignoring = Ignoring(config.ignore, self.post_message)
        theme, wrong = choose_theme(config.theme, self.available_themes)
        if theme is not None:
            self.theme = theme
        settings = Settings(
            config.path, [*config.problems, *column_problems(config.columns), *wrong]
        )
        self.animation_level = "none"
        self.ascii_only = ascii_only
        self.failure: str | None = None
        self._command = command
        self._sort = sort
        self._iterations = iterations
        self._exit_code = 0
        self._sessions = Sessions(
            self,
            filters,
            delay_s,
            settings=settings,
            ignoring=ignoring,
            exports=exports,
            recordings=recordings,
            play=play,
            say_ending=self._say_ending,
        )
        self._attaching: Attaching | None = None
        if source is not None:
            opening = None if modes is None else modes.first(filters)
            self._sessions.current = self._sessions.new(source, opening)
        elif picking is not None:
            assert modes is not None
            self._attaching = Attaching(
                self, picking, modes, self._sessions, table=self._table, notice=settings.notice
            )
        self._switching = Switching(self, modes, self._sessions)
        self._costing = Costing(modes, self.post_message)
        self._handing_on = HandingOn(self, self._sessions)
        self._granting = Granting(self, self._sessions, ignoring)
        self._leaving = Leaving(self, command, self._sessions, self._leave)

    @property
    def session(self) -> Session:
        """What is traced; there is one unless the picker is on the screen."""
        assert self._session is not None
        return self._session

    @property
    def _session(self) -> Session | None:
        return self._sessions.current

    def get_default_screen(self) -> Screen[None]:
        """Return the table of stacks, or the picker."""
        return self._table(self.session) if self._attaching is None else self._attaching.picker

    def _table(self, session: Session) -> MainScreen:
        return MainScreen(
            session.status,
            self._sort,
            self._command,
            picked=self._attaching is not None,
            columns=self._config.columns,
        )

    def on_mount(self) -> None:
        """End in order on signals and when the terminal hangs up; let keys go before ticks."""
        sys.setswitchinterval(_SWITCH_S)
        self._leaving.on_signals()

    @on(events.Ready)  # by its type: a collector's Ready has the same name
    def _painted(self) -> None:
        """Begin to attach, or to read the processes: the first paint is out."""
        cover(self, self.size)
        if self._attaching is not None:
            self._attaching.watcher.start()
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
        if self._switching.take(message):
            cover(self, self.size)
        if (session := self._session) is None or message.collector is not session.collector:
            return  # late words of a session that was left
        session.take(message)
        if isinstance(message, say.SnapshotReady):
            self._costing.look_at(session, message)
        if isinstance(message, say.Ready) and self._command is not None:
            self._command.go()
        if isinstance(message, say.SnapshotReady) and session.shown == self._iterations:
            self.screen.call_after_refresh(self._leave)
        elif isinstance(message, say.SourceFailed):
            self._source_failed(message)
        self._handing_on.follow(session, message)
        self._show_attaching()

    def _source_closed(self, message: say.Closed) -> None:
        closed = self._sessions.has_closed(message)
        if closed and self._session is not None and not self._switching.under_way:
            self._session.show_activity("")

    def _source_failed(self, message: say.SourceFailed) -> None:
        if self._attaching is None:
            self.failure = str(message.error)
            self._exit_code = message.error.exit_code
            if not message.started:
                self._leave()
        elif not message.started:
            self._attaching.start_failed(message.error)

    @on(say.CostMeasured)
    def _cost_measured(self, message: say.CostMeasured) -> None:
        self._costing.measured(message)

    @on(Wish)
    def _wished(self, wish: Wish) -> None:
        if self._session is not None:
            self._granting.grant(wish, self._session)

    @on(say.NotKept)
    def _not_kept(self, message: say.NotKept) -> None:
        if self._session is not None:
            self._granting.tell(self._session, f"not kept for the next run: {message.reason}")

    @on(say.ProcessesRead)
    def _processes_read(self, message: say.ProcessesRead) -> None:
        if self._attaching is not None:
            self._attaching.picker.show(message.processes)

    @on(PickerScreen.Picked)
    def _picked(self, message: PickerScreen.Picked) -> None:
        if self._attaching is not None:
            self._attaching.pick(message.process)

    @on(say.Estimated)
    def _estimated(self, message: say.Estimated) -> None:
        if self._attaching is not None:
            self._attaching.estimated(message)

    @on(PickerScreen.Resumed)
    def _show_attaching(self) -> None:
        if self._attaching is not None:
            self._attaching.show_progress()

    def _say_ending(self, labels: str) -> None:
        if self._attaching is not None:
            self._attaching.picker.note(detaching=labels)

    @on(say.OpenFailed)
    def _open_failed(self, message: say.OpenFailed) -> None:
        if not self._switching.open_failed(message) and self._attaching is not None:
            self._attaching.open_failed(message)

    @on(say.SourceOpened)
    def _source_opened(self, message: say.SourceOpened) -> None:
        if self._switching.opened(message):
            return
        if self._attaching is None or not self._attaching.opened(message):
            discard(message)

    @on(MainScreen.SwitchWanted)
    def _switch_wanted(self) -> None:
        self._switching.want()

    @on(PickerScreen.Cancelled)
    @on(MainScreen.Left)
    def _left(self) -> None:
        """Leave the session that was picked, or is about to be; before that a change of mode."""
        if self._switching.under_way:
            self._switching.end()
        elif self._attaching is not None:
            self._attaching.leave()
        elif self._session is not None:
            self._session.refuse("")  # it was read

    async def action_quit(self) -> None:
        """Quit; ask first what is to become of a command that runs."""
        self._leaving.quit()

    def action_help(self) -> None:
        """Show the help."""
        if isinstance(self._sessions.top, PickerScreen):
            self.push_screen(PickerHelpScreen())
        elif self._session is not None:
            self._session.collector.want_memory()
            self._session.forget(self._session.status.notice)
            self.push_screen(HelpScreen(self._session.facts))

    def action_ask(self, name: str) -> None:
        """Ask the session for what ``granting.ON_KEYS`` has by this name."""
        if self._session is not None:
            ON_KEYS[name](self._session)

    def action_export(self) -> None:
        """Ask for a file's name, and write what is shown to it."""
        self._handing_on.export()

    def action_copy(self) -> None:
        """Copy the stack that is selected, or looked at, as text."""
        self._handing_on.copy()

    def exported(self) -> Iterator[say.Exported]:
        """Wait until all is written that was to be written on leaving; say what became of it."""
        return self._sessions.exported()

    def action_rate(self, step: int) -> None:
        """Trace one of more, or fewer, allocations."""
        if (session := self._session) is not None:
            filters = session.status.filters
            rate = next_rate(filters.sample_rate, step)
            session.apply(replace(filters, sample_rate=rate))

    def action_move(self, kind: str, amount: int = 0) -> None:
        """Go elsewhere on a recording."""
        if self._session is not None:
            self._session.move(Move(MoveKind(kind), amount))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Allow nothing but to quit while the terminal is too small."""
        return action == "quit" or not isinstance(self._sessions.top, TooSmallScreen)

    def on_resize(self, event: events.Resize) -> None:
        """Cover the screen while the terminal is too small."""
        cover(self, event.size)

    # Textual would print a traceback where nobody sees it, and end as if nothing had happened.
    def _handle_exception(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = internal_error(error)
        super()._handle_exception(error)

    def _ask_to_stop(self) -> None:
        if self._attaching is not None:
            self._attaching.watcher.stop()
        self._switching.end()
        if self._session is not None:
            self._session.collector.ask_to_stop()

    def _leave(self) -> None:
        self._ask_to_stop()
        if isinstance(self._driver, TerminalDriver):
            self._driver.ending = True
        self.exit(self._exit_code)
