"""The sessions of one run: the one that is shown, those that are being left, and new ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.screen import Screen

from leaktop import messages as say
from leaktop.collector import Collector
from leaktop.ignoring import Ignoring
from leaktop.model import Filters
from leaktop.modes import Opening
from leaktop.recorder import Recordings
from leaktop.screens.help import Settings
from leaktop.session import Session
from leaktop.source import Source

if TYPE_CHECKING:
    from leaktop.player import Play


class Sessions:
    """Makes sessions of sources; ``current`` is the one that is shown."""

    def __init__(
        self,
        app: App[int],
        limits: Filters,
        delay_s: float,
        *,
        settings: Settings,
        ignoring: Ignoring,
        exports: Sequence[Path],
        recordings: Recordings,
        play: "Play | None",
        say_ending: Callable[[str], None],
    ) -> None:
        """``say_ending`` shows what is being left; empty: no more."""
        self.current: Session | None = None
        self.limits = limits
        """The filters of exact tracing."""
        self._app = app
        self._delay_s = delay_s
        self._settings = settings
        self._ignoring = ignoring
        self._exports = exports
        self._recordings = recordings
        self._play = play
        self._say_ending = say_ending
        self._collectors: list[Collector] = []
        self._ending: dict[object, str] = {}

    @property
    def top(self) -> Screen[Any] | None:
        """The screen on top; None on the way out."""
        stack = self._app.screen_stack
        return stack[-1] if stack else None

    def new(self, source: Source, opening: Opening | None) -> Session:
        """Return a session of a source, which is not started yet."""

        # of one that is to take another's place nothing is drawn yet
        def screens() -> Sequence[Screen[Any]]:
            return self._app.screen_stack if self.current is session else ()

        session = Session(
            source,
            self.limits if opening is None else opening.filters,
            self._delay_s,
            self._app.post_message,
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

    def let_go(self, session: Session) -> None:
        """Have it detach, which goes on in its own thread; that says so at the end."""
        self._ending[session.collector] = session.label
        session.collector.ask_to_stop()
        self._tell_ending()

    def has_closed(self, message: say.Closed) -> bool:
        """Learn that a source is closed; returns whether it is one that was let go."""
        if self._ending.pop(message.collector, None) is None:
            return False
        self._tell_ending()
        return True

    def exported(self) -> Iterator[say.Exported]:
        """Wait until all is written that was to be written on leaving; say what became of it."""
        for collector in self._collectors if self._exports else ():
            collector.wait()
            yield from collector.written

    def _tell_ending(self) -> None:
        self._say_ending(", ".join(self._ending.values()))
