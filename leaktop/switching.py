"""Changes the mode in which a process is traced, and asks what should be asked before.

The other mode's source is opened and started beside the one in use, and takes its place once it
counts: until then nothing of the old one is lost, whatever goes wrong.
"""

from collections.abc import Callable

from textual.app import App
from textual.message import Message

from leaktop import messages as say
from leaktop.candidates import Estimate
from leaktop.format import clean, format_age, format_estimate
from leaktop.model import Filters
from leaktop.modes import Modes, Opening, open_apart
from leaktop.screens.main import MainScreen
from leaktop.screens.question import QuestionScreen
from leaktop.session import Session
from leaktop.sessions import Sessions
from leaktop.source import Source, SourceError
from leaktop.widgets.status_bar import Stage

ONE_MODE = "growth mode and exact tracing are two ways to trace one process (-p PID, or one picked)"
"""Why the mode of what else is traced cannot be changed."""


def name_of(*, growth: bool) -> str:
    """Return what a mode is called."""
    return "growth mode" if growth else "exact tracing"


def why_not(session: Session, modes: Modes | None) -> str:
    """Return why a session's mode cannot be changed; empty where it can."""
    if modes is None or session.opening is None:
        return modes.fixed if modes is not None and modes.fixed else ONE_MODE
    if session.status.stage is Stage.TRACING:
        return ""
    started = session.status.stage is not Stage.STARTING
    return "the target is no longer traced" if started else "it is still attaching"


class Switch:
    """One change of mode under way."""

    def __init__(
        self,
        modes: Modes,
        old: Session,
        filters: Filters,
        new_session: Callable[[Source, Opening], Session],
        post: Callable[[Message], object],
    ) -> None:
        """Begin; ``filters`` are those of the other mode."""
        assert old.opening is not None
        self.old = old
        self.opening = Opening(old.opening.process, not old.opening.growth, filters)
        self.session: Session | None = None
        """The one that is to take the old one's place, once it is there."""
        self._new_session = new_session
        self._say("opening the process")
        open_apart(modes, self.opening, post)

    def opened(self, source: Source) -> None:
        """Start the source."""
        self.session = self._new_session(source, self.opening)
        self.session.collector.start()

    def concerns(self, message: say.Said) -> bool:
        """Whether a message is of the session to come."""
        return self.session is not None and message.collector is self.session.collector

    def take(self, message: say.Said) -> Session | None:
        """Learn what the session to come says; return it once it counts."""
        assert self.session is not None
        self.session.take(message)
        if isinstance(message, say.Progress):
            self._say(clean(message.text))
        return self.session if isinstance(message, say.Ready) else None

    def failed(self, error: SourceError) -> None:
        """Say that the old mode goes on, and why."""
        self.old.show_activity("")
        why = clean(" ".join(str(error).splitlines()))
        self.old.refuse(f"{name_of(growth=self.opening.growth)} cannot begin: {why}")

    def cancel(self) -> None:
        """Leave it at the old mode."""
        self.old.show_activity("")
        if self.session is not None:
            self.session.collector.ask_to_stop()

    def _say(self, step: str) -> None:
        self.old.show_activity(
            f"to {name_of(growth=self.opening.growth)}: {step} ... (Esc: stay with "
            f"{name_of(growth=not self.opening.growth)})"
        )


class Switching:
    """The change of mode that is under way, if there is one."""

    def __init__(self, app: App[int], modes: Modes | None, sessions: Sessions) -> None:
        self._app = app
        self._modes = modes
        self._sessions = sessions
        self._switch: Switch | None = None

    @property
    def under_way(self) -> bool:
        """Whether there is one."""
        return self._switch is not None

    def want(self) -> None:
        """Change the mode, ask whether to, or say why not."""
        if (session := self._sessions.current) is None or self._switch is not None:
            return
        if why := why_not(session, self._modes):
            session.refuse(why)
        elif (question := ask_to_leave(session)) is not None:
            self._app.push_screen(question, self._answered)
        else:
            self._begin(session)

    def _answered(self, key: str | None) -> None:
        session = self._sessions.current
        if key is not None and session is not None and not why_not(session, self._modes):
            self._begin(session)

    def _begin(self, session: Session) -> None:
        assert self._modes is not None
        assert session.opening is not None
        session.refuse("")
        if not session.opening.growth:
            self._sessions.limits = session.status.filters
        filters = self._sessions.limits if session.opening.growth else Filters()
        self._switch = Switch(
            self._modes, session, filters, self._sessions.new, self._app.post_message
        )

    def opened(self, message: say.SourceOpened) -> bool:
        """Start what was opened; returns whether it was for this."""
        if self._switch is None or message.opening is not self._switch.opening:
            return False
        self._switch.opened(message.source)
        return True

    def open_failed(self, message: say.OpenFailed) -> bool:
        """Stay with the old mode; returns whether it was this that failed."""
        if self._switch is None or message.opening is not self._switch.opening:
            return False
        self.end(message.error)
        return True

    def take(self, message: say.Said) -> bool:
        """Learn what the session to come says; returns whether it has taken its place."""
        switch = self._switch
        if switch is None or not switch.concerns(message):
            return False
        if isinstance(message, say.SourceFailed):
            self.end(message.error)
        elif (session := switch.take(message)) is not None:
            self._switch, self._sessions.current = None, session
            while not isinstance(self._sessions.top, MainScreen):  # what is open of the old one's
                self._app.pop_screen()
            self._sessions.let_go(switch.old)
            session.show_activity(f"ending {name_of(growth=not switch.opening.growth)} ...")
            return True
        return False

    def end(self, error: SourceError | None = None) -> None:
        """Stay with the old mode: because of an ``error``, or as somebody wishes."""
        if (switch := self._switch) is not None:
            self._switch = None
            if error is None:
                switch.cancel()
            else:
                switch.failed(error)


def ask_to_leave(session: Session) -> QuestionScreen | None:
    """Return what to ask before exact tracing ends for growth mode; None where nothing is lost."""
    latest = session.latest
    if session.opening is None or session.opening.growth or latest is None:
        return None
    counted = format_age(latest.reading.snapshot.elapsed_s)
    return QuestionScreen(
        f"growth mode begins at nothing: what exact tracing has in {counted} is let go of.",
        (("enter", "Enter", "growth mode"), ("escape", "Esc", "stay with exact tracing")),
    )


def offer(label: str, estimate: Estimate) -> QuestionScreen:
    """Return the question by which mode to begin with a process."""
    return QuestionScreen(
        f"exact tracing would slow {label} {format_estimate(estimate)}. Growth mode takes next "
        "to nothing: which code makes it grow, by pages. X goes on from there to exact tracing.",
        (
            ("enter", "Enter", "growth mode"),
            ("x", "x", "exact anyway"),
            ("escape", "Esc", "neither"),
        ),
    )
