"""Asks what is to become of the command that leaktop started, and that still runs."""

import signal
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.command import Command
from leaktop.widgets.lines import LinesView

_LOOK_S = 0.1


class _Question(LinesView):
    def __init__(self, command: Command) -> None:
        super().__init__(id="question")
        self._command = command
        self.asked = ""

    def line(self, y: int) -> Strip:
        line = self.builder(self.style("heading") if y == 0 else None)
        name = f"{fmt.clean(self._command.name, 30)} ({self._command.pid})"
        if y == 0:
            line.put(f" {name} still runs{self.asked and f': {self.asked} was sent'}")
        elif y == 1:
            number = "SIGKILL" if self.asked else "SIGTERM"
            answers = (("e", f"end it ({number})"), ("d", "quit, let it run on"), ("Esc", "stay"))
            for key, text in answers:
                line.put(f" {key}", self.style("strong")).put(f" {text} ")
        return line.strip()


class LeavingScreen(ModalScreen[bool]):
    """Two lines over what was on the screen; the result is whether to leave.

    It goes by itself once the command has ended, since then there is a final state to look at.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stay", show=False),
        Binding("e", "end", show=False),
        Binding("d", "leave", show=False),
    ]

    def __init__(self, command: Command) -> None:
        super().__init__()
        self._command = command
        self._question = _Question(command)

    def compose(self) -> ComposeResult:
        """Lay out the question."""
        yield self._question

    def on_mount(self) -> None:
        """Watch for its end."""
        self.set_interval(_LOOK_S, self._look)

    def action_stay(self) -> None:
        """Go back."""
        self.dismiss(False)

    def action_leave(self) -> None:
        """Quit and let the command run on."""
        self.dismiss(True)

    def action_end(self) -> None:
        """Ask the command to end; the second time, end it."""
        number = signal.SIGKILL if self._question.asked else signal.SIGTERM
        self._command.send(number)
        self._question.asked = number.name
        self._question.repaint()

    def _look(self) -> None:
        if not self._command.running and self.is_current:
            self.dismiss(False)
