"""Asks something, in a few lines over what was on the screen."""

import textwrap
from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.screen import ModalScreen
from textual.strip import Strip

from leaktop.widgets.lines import LinesView

_LINES_MAX = 5
Answer = tuple[str, str, str]
"""The key as Textual names it, as people do, and what it means."""


class _Lines(LinesView):
    def __init__(self, text: str, answers: Sequence[Answer]) -> None:
        super().__init__(id="question")
        self._text, self._answers = text, answers
        self._lines: list[str] = []

    def on_resize(self) -> None:
        """Wrap to the new width."""
        width = max(20, self.size.width - 2)
        self._lines = textwrap.wrap(self._text, width, max_lines=_LINES_MAX)
        self.styles.height = len(self._lines) + 1
        super().on_resize()

    def line(self, y: int) -> Strip:
        if y < len(self._lines):
            return self.builder(self.style("heading")).put(f" {self._lines[y]}").strip()
        line = self.builder()
        for _, key, text in self._answers:
            line.put(f" {key}", self.style("strong")).put(f" {text} ")
        return line.strip()


class QuestionScreen(ModalScreen[str | None]):
    """A question and keys that answer it; the result is the key, None for Esc."""

    def __init__(self, text: str, answers: Sequence[Answer]) -> None:
        """``text`` has nothing harmful in it; Esc is always an answer, and need not be given."""
        super().__init__()
        self._keys = {key for key, _, _ in answers}
        self._lines = _Lines(text, answers)

    def compose(self) -> ComposeResult:
        """Lay out the question."""
        yield self._lines

    def on_key(self, event: events.Key) -> None:
        """Take an answer; other keys do nothing but those of the application."""
        if event.key == "escape":
            self.dismiss(None)
        elif event.key in self._keys:
            self.dismiss(event.key)
