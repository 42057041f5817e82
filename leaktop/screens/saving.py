"""Asks for the name of a file to write."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Input

from leaktop import format as fmt
from leaktop.widgets.lines import LinesView
from leaktop.widgets.prompt import Prompt

_NAME_MAX = 4096


class _Heading(LinesView):
    def __init__(self, text: str) -> None:
        super().__init__(id="saving-what")
        self._text, self._style = text, "heading"

    def refuse(self, reason: str) -> None:
        self._text, self._style = f"! {fmt.clean(reason)}", "bad"
        self.repaint()

    def line(self, y: int) -> Strip:
        return self.builder(self.style(self._style)).put(f" {self._text}").strip()


class SavingScreen(ModalScreen[Path | None]):
    """Two lines over what was on the screen; the result is the path, None where it was left."""

    CSS: ClassVar[str] = """
    SavingScreen { background: transparent; align: left bottom; }
    #saving-name { height: 1; width: 1fr; background: $background; color: $foreground; }
    """

    def __init__(self, what: str, name: str, check: Callable[[Path], str]) -> None:
        """Ask for ``what``, with a ``name`` to edit; ``check`` says why a path will not do."""
        super().__init__()
        self._heading = _Heading(what)
        self._file = Prompt(name, compact=True, select_on_focus=False, max_length=_NAME_MAX)
        self._file.id = "saving-name"
        self._file.cursor_blink = False  # a blink is bytes to the terminal
        self._check = check

    def compose(self) -> ComposeResult:
        """Lay out the question."""
        yield self._heading
        yield self._file

    def on_mount(self) -> None:
        """Let the name be edited."""
        self._file.cursor_position = len(self._file.value)
        self._file.focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        path = Path(event.value.strip()).expanduser()
        if reason := self._check(path):
            self._heading.refuse(reason)
        else:
            self.dismiss(path)

    @on(Prompt.Left)
    def _left(self) -> None:
        self.dismiss(None)
