"""The help of the process picker: keys, columns, and what attaching does."""

from collections.abc import Iterator
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from leaktop.screens.help import Line, TextView, sections
from leaktop.widgets.key_hints import KeyHints

_SECTIONS = (
    ("KEYS", (
        ("↑ ↓ j k", "one row up or down; PgUp PgDn a page; g Home first row, G End last row"),
        ("Enter", "attach to the process; leaktop then shows which call stacks hold its memory."
         " First it counts what the process allocates, for a second: where exact tracing would slow"
         " it by more than 10 %, it offers growth mode"),
        ("Esc", "from the stacks back to this list, which detaches; here: stop attaching, or drop"
         " the text filter. It never quits"),
        ("s < >", "sort by the next or previous column; so does a click on a heading"),
        ("r", "reverse the order"),
        ("/", "show only processes with matching text: a regular expression on PID, user, name and"
         " command line, ! inverts; upper case in it makes case count. Enter keeps it, Esc"
         " clears it"),
        ("Space p", "freeze the list"),
        ("? F1", "this help"),
        ("q Ctrl+C", "quit"),
    )),
    ("COLUMNS", (
        ("RSS", "resident memory as the kernel counts it; %MEM: its part of the machine's"),
        ("GROWTH/min", "change of RSS a minute, the slope over the last 60 seconds; ~ where it was"
         " watched for less than 10 seconds, empty until it was seen twice"),
        ("TREND", "RSS over those 60 seconds, from its least to its greatest; steady where it"
         " varies by less than 5 %"),
        ("THR, AGE", "threads, and the time since the process was started"),
        ("COMMAND", "the command line, in [brackets] the name where there is none"),
    )),
    ("NOT LISTED", (
        ("", "kernel threads, which have no memory of their own,"
         " processes that have ended, and leaktop itself"),
    )),
)  # fmt: skip


class _PickerHelp(TextView):
    def text(self, width: int) -> Iterator[Line]:
        yield "dim", "Which process? One that leaks grows, and goes on growing.", ""
        yield from sections(_SECTIONS, width)


class PickerHelpScreen(Screen[None]):
    """Help over the picker."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,enter", "leave", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._help = _PickerHelp()

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._help
        yield KeyHints((("Esc", "back"), ("PgUp PgDn", "scroll"), ("q", "quit")))

    def on_mount(self) -> None:
        """Let the keys scroll."""
        self._help.focus()

    def action_leave(self) -> None:
        """Go back."""
        self.dismiss()
