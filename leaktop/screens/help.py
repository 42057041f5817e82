"""The help screen: keys, columns, signs, losses, and what is traced."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.strip import Strip

from leaktop import __version__
from leaktop import format as fmt
from leaktop.model import LOSSES
from leaktop.widgets.key_hints import KeyHints
from leaktop.widgets.rows import RowsView

KEYS = (
    ("↑ ↓ j k", "one row up or down; PgUp PgDn a page; g Home first row, G End last row"),
    ("Enter", "open a stack: frames, source lines, ages and sizes of what it holds"),
    ("Esc", "go back; on the table: drop the text filter. It never quits"),
    ("s < >", "sort by the next or previous column; so does a click on a heading"),
    ("r", "reverse the order"),
    ("/", "show only stacks with matching text: a regular expression, ! inverts;"
     " upper case in it makes case count. Enter keeps it, Esc clears it"),
    ("z Z", "least and greatest size traced, as in 4k or 1.5M; empty: no limit"),
    ("+ -", "trace one of more, or of fewer, allocations: 1, 2, 5, 10, 20, 50, 100 ..."),
    ("Space p", "freeze the screen; tracing goes on"),
    ("? F1", "this help"),
    ("q Ctrl+C", "quit; the target goes on untouched"),
)  # fmt: skip

COLUMNS = (
    ("BYTES", "held now by blocks that this stack allocated since counting started"),
    ("BLOCKS", "how many blocks that is"),
    ("GROWTH/s", "change of BYTES a second, over the last 10 seconds"),
    ("OLDEST", "age of the oldest block held; ≤ where only an upper bound is known"),
    ("ALLOCS", "allocations since counting started; FREES: how many of them were freed"),
    ("WHERE", "the innermost function that is no allocator or C++ library code, and its module"),
    ("held", "outstanding bytes of all stacks, and their trend over the last ticks"),
    ("rss", "resident memory of the target as the kernel counts it"),
)

SIGNS = (
    ("~", "an estimate: sampling is or was on, each block kept counts for those passed over"),
    ("…", "before a name: the stack could not be followed to its outermost frame"),
    ("?", "in a name: a character that is not shown because it could harm the terminal"),
)

_KEY_WIDTH = 11


class HelpText(RowsView):
    """Scrolls through the help; there is nothing to select."""

    def __init__(self, ready_line: str, lost: Mapping[str, int]) -> None:
        super().__init__()
        self._ready_line = ready_line
        self._lost = lost
        self._lines: list[tuple[str, str, str]] = []

    def on_resize(self) -> None:
        """Wrap the text to the new width."""
        self._lines = list(_text(self._ready_line, self._lost, max(20, self.size.width - 2)))
        super().on_resize()

    @property
    def row_count(self) -> int:
        """Places that the text can be scrolled to."""
        return max(1, len(self._lines) - self.page + 1)

    @property
    def position(self) -> str:
        """Which lines are on the screen."""
        if len(self._lines) <= self.page:
            return ""
        last = min(len(self._lines), self.top + self.page)
        return f"{self.top + 1}-{last}/{len(self._lines)}"

    def settle(self) -> None:
        """Put the line reached on top."""
        self.index = min(self.index, self.row_count - 1)
        self.top = self.index

    def heading(self) -> Strip:
        """Draw the title."""
        line = self.builder(self.style("heading")).put(f" leaktop {__version__}: help")
        return line.cell(self.position + " ", line.left, right=True).strip()

    def line(self, y: int) -> Strip:
        """Draw the title or a line of the text."""
        if y == 0:
            return self.heading()
        line = self.builder()
        if (index := self.top + y - 1) < len(self._lines):
            style, key, text = self._lines[index]
            line.put(" ").cell(key, len(key), self.style(style))
            line.put(text)
        return line.strip()


class HelpScreen(Screen[None]):
    """Help over whatever was on the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,enter", "leave", show=False),
    ]

    def __init__(self, ready_line: str, lost: Mapping[str, int]) -> None:
        super().__init__()
        self._ready_line = ready_line
        self._lost = lost

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield HelpText(self._ready_line, self._lost)
        yield KeyHints((("Esc", "back"), ("PgUp PgDn", "scroll"), ("q", "quit")))

    def on_mount(self) -> None:
        """Let the keys scroll."""
        self.query_one(HelpText).focus()

    def action_leave(self) -> None:
        """Go back."""
        self.dismiss()


# Lines as (style, key, text).
def _text(ready_line: str, lost: Mapping[str, int], width: int) -> Iterator[tuple[str, str, str]]:
    yield "title", "TRACED", ""
    traced = fmt.clean(ready_line) or "nothing yet: still attaching"
    yield from (("dim", "", text) for text in textwrap.wrap(traced, width))
    for title, entries in (("KEYS", KEYS), ("COLUMNS", COLUMNS), ("SIGNS", SIGNS)):
        yield "dim", "", ""
        yield "title", title, ""
        for key, text in entries:
            yield from _entry(key, text, width, _KEY_WIDTH)
    yield "dim", "", ""
    yield "title", "LOSSES", ""
    yield from (
        ("dim", "", text)
        for text in textwrap.wrap(
            "What could not be accounted is counted by name, here and in the top lines; "
            "with none of them the figures are exact.",
            width,
        )
    )
    key_width = max(map(len, LOSSES)) + 2
    for name in [*LOSSES, *(name for name in lost if name not in LOSSES)]:
        count = lost.get(name, 0)
        text = LOSSES.get(name, "not described")
        yield from _entry(name, f"{fmt.format_count(count)}: {text}", width, key_width)


def _entry(key: str, text: str, width: int, key_width: int) -> Iterator[tuple[str, str, str]]:
    wrapped = textwrap.wrap(text, max(20, width - key_width))
    for i, part in enumerate(wrapped):
        yield "strong", (key if i == 0 else "").ljust(key_width), part
