"""What ends leaktop: the user, signals, and a terminal that hangs up."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable

from textual.app import App

from leaktop.command import Command
from leaktop.screens.leaving import LeavingScreen
from leaktop.sessions import Sessions
from leaktop.widgets.status_bar import Stage

_HANGUP_S = 2.0


class Leaving:
    """Asks what has to be asked, tells the command that leaktop started, and leaves."""

    def __init__(
        self,
        app: App[int],
        command: Command | None,
        sessions: Sessions,
        leave: Callable[[], None],
    ) -> None:
        self._app = app
        self._command = command
        self._sessions = sessions
        self._leave = leave

    def quit(self) -> None:
        """Leave; ask first what is to become of a command that runs."""
        if self._command is None or not self._command.running:
            self._leave()
        elif not isinstance(self._sessions.top, LeavingScreen):
            self._app.push_screen(LeavingScreen(self._command), self._answered)

    def _answered(self, leave: bool | None) -> None:
        session = self._sessions.current
        if leave:
            self._leave()
        elif session is not None and session.status.stage is Stage.TRACING:
            session.collector.tick_now()

    def on_signals(self) -> None:
        """Leave in order on signals and when the terminal hangs up, where they can be had."""
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end_by_signal, number)
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)

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
