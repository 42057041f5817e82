"""The way from the picker to what is traced, and back.

What was picked is first estimated, then opened, then started; the picker stays on top until it
counts, so that a refusal is said there.
"""

import threading
from collections.abc import Callable

from textual.app import App

from leaktop import messages as say
from leaktop.candidates import Process
from leaktop.format import clean, format_slowdown
from leaktop.model import Filters
from leaktop.modes import Estimating, Modes, Opening, open_apart
from leaktop.picking import Picking, Watcher
from leaktop.screens.main import MainScreen
from leaktop.screens.picker import PickerScreen
from leaktop.session import Session
from leaktop.sessions import Sessions
from leaktop.source import SourceError
from leaktop.switching import offer
from leaktop.widgets.status_bar import Stage


class Attaching:
    """The picker, and how far attaching to what was picked has come."""

    def __init__(
        self,
        app: App[int],
        picking: Picking,
        modes: Modes,
        sessions: Sessions,
        *,
        table: Callable[[Session], MainScreen],
        notice: str,
    ) -> None:
        """``table`` makes the screen of what counts; ``notice`` is shown where there is room."""
        self.picker = PickerScreen(picking.warning or notice)
        self.watcher = Watcher(picking, app.post_message)
        self._app = app
        self._modes = modes
        self._sessions = sessions
        self._table = table
        self._estimating: Estimating | None = None
        self._opening: Opening | None = None
        self._slowdown = ""

    def pick(self, process: Process) -> None:
        """Begin to attach to a process, unless that or another is under way."""
        if (self._estimating or self._opening or self._sessions.current) is None:
            self.picker.note(
                attaching=f"measuring what exact tracing would cost {_label(process)}", failed=""
            )
            self._estimating = Estimating(self._modes, process, self._app.post_message)

    def estimated(self, message: say.Estimated) -> None:
        """Open what was estimated; ask by which mode where exact tracing would cost much."""
        estimating, estimate = self._estimating, message.estimate
        if estimating is None or message.estimating is not estimating:
            return  # no longer wanted
        self._slowdown = f", slowing it {format_slowdown(estimate)}" if estimate else ""
        if estimate is None or not estimate.much:
            self._open(estimating.process, growth=False)
        else:
            self.picker.note(attaching="")
            self._app.push_screen(offer(_label(estimating.process), estimate), self._answered)

    def _answered(self, key: str | None) -> None:
        if (estimating := self._estimating) is None or key is None:
            self.leave()
        else:
            self._open(estimating.process, growth=key == "enter")

    def _open(self, process: Process, *, growth: bool) -> None:
        self._estimating = None
        if growth:
            self._slowdown = ""
        self._opening = Opening(process, growth, Filters() if growth else self._sessions.limits)
        self.picker.note(attaching=f"attaching to {_label(process)}{self._slowdown}")
        open_apart(self._modes, self._opening, self._app.post_message)

    def opened(self, message: say.SourceOpened) -> bool:
        """Start what was opened; returns whether it was wanted."""
        if self._opening is None or message.opening is not self._opening:
            return False
        self._opening = None
        self._sessions.current = session = self._sessions.new(message.source, message.opening)
        session.collector.start()
        return True

    def open_failed(self, message: say.OpenFailed) -> None:
        """Say why what was picked cannot be opened."""
        if message.opening is self._opening:
            self._opening = None
            self._note_failure(message.error)

    def start_failed(self, error: SourceError) -> None:
        """Say why what was opened cannot be started."""
        self._sessions.current = None
        self._note_failure(error)

    def show_progress(self) -> None:
        """Show how far attaching has come, and once it has, the table of stacks."""
        session = self._sessions.current
        if session is None or self._sessions.top is not self.picker:
            return
        if session.status.stage is Stage.STARTING:
            step = session.status.progress
            label = f"{session.label}{self._slowdown}"
            self.picker.note(attaching=f"attaching to {label}" + (f": {step}" if step else ""))
            return
        self.picker.note(attaching="")
        self.watcher.want(False)
        self._app.push_screen(self._table(session))

    def leave(self) -> None:
        """Leave the session that was picked, or is about to be."""
        if isinstance(self._sessions.top, MainScreen):
            self._app.pop_screen()
        self._opening = None
        if self._estimating is not None:
            self._estimating.stop()
            self._estimating = None
        if (session := self._sessions.current) is not None:
            self._sessions.let_go(session)
            self._sessions.current = None
        self.picker.note(attaching="", failed="")
        self.watcher.want(True)

    def _note_failure(self, error: SourceError) -> None:
        self.picker.note(attaching="", failed=" ".join(str(error).splitlines()))


def discard(message: say.SourceOpened) -> None:
    """Close what was opened and is no longer wanted."""
    threading.Thread(target=message.source.close, daemon=True).start()


def _label(process: Process) -> str:
    return clean(f"{process.pid} ({process.comm})")
