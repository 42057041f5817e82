"""The filters in force, and the place where they are edited."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

from leaktop.format import clean, to_ascii
from leaktop.widgets.lines import LinesView
from leaktop.widgets.prompt import Prompt

FIELDS = {"min": " min size ", "max": " max size ", "text": " filter / "}
"""What can be edited, and its prompt."""

SAMPLE_RATES = (1, *(int(f"{digit}{'0' * zeros}") for zeros in range(6) for digit in (2, 5, 10)))
"""What + and - go through: 1, 2, 5, 10, 20, 50 up to a million."""

_HINTS = {
    "min": "bytes or k, M, G; empty: no limit; Enter applies, Esc keeps the old",
    "max": "bytes or k, M, G; empty: no limit; Enter applies, Esc keeps the old",
    "text": "regex, ! inverts; Enter keeps it, Esc clears it",
}


class FilterBar(Horizontal):
    """One line: the filters, or while one is edited its input in their place."""

    class Changed(Message):
        """The text of ``field`` changed while it is edited."""

        def __init__(self, field: str, text: str) -> None:
            super().__init__()
            self.field = field
            self.text = text

    class Submitted(Changed):
        """Enter: ``field`` is to take ``text``; the bar stays until ``close`` or ``refuse``."""

    class Cancelled(Message):
        """Esc: ``field`` is edited no longer."""

        def __init__(self, field: str) -> None:
            super().__init__()
            self.field = field

    def __init__(self, line: LinesView) -> None:
        """``line`` shows the filters."""
        super().__init__()
        self._field = ""
        self._line = line
        self._prompt = Label("", id="prompt", markup=False)
        self._input = Prompt(compact=True, select_on_focus=False, disabled=True, max_length=200)
        self._input.cursor_blink = False  # a blink is bytes to the terminal
        self._says = Label("", id="says", markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the line and the prompt that takes its place."""
        yield self._line
        yield self._prompt
        yield self._input
        yield self._says

    def edit(self, field: str, text: str) -> None:
        """Begin to edit ``field``, one of ``FIELDS``."""
        self._field = field
        self.add_class("editing")
        self._prompt.update(FIELDS[field])
        self._say(_HINTS[field], error=False)
        self._input.disabled = False
        with self._input.prevent(Input.Changed):
            self._input.value = text
        self._input.cursor_position = len(text)
        self._input.focus()

    def refuse(self, reason: str) -> None:
        """Say in place what is wrong, and go on editing."""
        self._say(reason, error=True)

    def close(self) -> None:
        """End editing."""
        self._field = ""
        self.remove_class("editing")
        self._input.disabled = True

    def _say(self, text: str, *, error: bool) -> None:
        text = clean(f" ! {text}" if error else f" {text}")
        self._says.update(to_ascii(text) if getattr(self.app, "ascii_only", False) else text)
        self._says.set_class(error, "error")

    @on(Input.Changed)
    def _text_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self._field:
            self._say(_HINTS[self._field], error=False)
            self.post_message(self.Changed(self._field, event.value))

    @on(Input.Submitted)
    def _text_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._field:
            self.post_message(self.Submitted(self._field, event.value))

    @on(Prompt.Left)
    def _left(self, event: Prompt.Left) -> None:
        event.stop()
        field = self._field
        self.close()
        self.post_message(self.Cancelled(field))


def next_rate(rate: int, step: int) -> int:
    """Return the next sample rate up (1) or down (-1) in 1, 2, 5, 10, 20, 50, 100 and so on."""
    if step > 0:
        return next((value for value in SAMPLE_RATES if value > rate), SAMPLE_RATES[-1])
    return next((value for value in reversed(SAMPLE_RATES) if value < rate), SAMPLE_RATES[0])
