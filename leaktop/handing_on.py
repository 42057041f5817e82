"""What the user takes along: files that are written, and what is copied to the clipboard."""

from functools import partial
from pathlib import Path

from textual.app import App

from leaktop import messages as say
from leaktop.export import ExportError
from leaktop.export.formats import FORMATS, format_of
from leaktop.exporting import default_name
from leaktop.screens.live import LiveScreen
from leaktop.screens.saving import SavingScreen
from leaktop.session import Session
from leaktop.sessions import Sessions

_NOTICE_S = 10.0  # how long a notice is shown
CLIPBOARD_MAX = 50_000
"""Bytes that are copied at most: terminals take OSC 52 up to some 74,000 bytes of base64."""


class HandingOn:
    """Asks what to write, and does with it what only the application can."""

    def __init__(self, app: App[int], sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    def export(self) -> None:
        """Ask for a file's name, and write what is shown to it."""
        session = self._sessions.current
        if (
            session is None
            or session.status.reading is None
            or not isinstance(self._sessions.top, LiveScreen)
        ):
            return
        name = default_name(session.status.reading.snapshot, FORMATS[0].endings[0])
        endings = " ".join(each.endings[0] for each in FORMATS)
        what = f"export to file, Enter writes it, Esc leaves; formats: {endings}"
        self._app.push_screen(SavingScreen(what, name, _no_format), self._name_given)

    def _name_given(self, path: Path | None) -> None:
        if path is not None and self._sessions.current is not None:
            self._sessions.current.export(path)

    def copy(self) -> None:
        """Copy the stack that is selected, or looked at, as text."""
        site = top.stack if isinstance(top := self._sessions.top, LiveScreen) else None
        if self._sessions.current is not None and site is not None:
            self._sessions.current.copy(site)

    def follow(self, session: Session, message: say.Said) -> None:
        """Fill the clipboard, and let what ``session`` tells of this be forgotten in a while."""
        if isinstance(message, say.StackCopied):
            text = message.text.encode("utf-8", "replace")[:CLIPBOARD_MAX]
            self._app.copy_to_clipboard(text.decode("utf-8", "ignore"))
        if isinstance(message, say.Exported | say.StackCopied):
            self._app.set_timer(_NOTICE_S, partial(session.forget, session.status.notice))
        elif isinstance(message, say.RecordingChanged) and message.recorded.why_ended is not None:
            self._app.set_timer(_NOTICE_S, partial(session.forget_recording, message.recorded))


def _no_format(path: Path) -> str:
    try:
        format_of(path)
    except ExportError as error:
        return str(error)
    return ""
