"""A list of rows with one selected: movement by key and wheel, shared by all the lists."""

from collections.abc import Container, Hashable, Mapping, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from leaktop.widgets.lines import LinesView


class RowsView(LinesView, can_focus=True):
    """One heading line and below it as many rows as fit, the selected one always among them.

    Subclasses give ``heading``, ``row`` and ``row_count``.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "go(0)", show=False),
        Binding("end,G", "go(-1)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Moved(Message):
        """Another row is selected, or other rows are visible."""

        def __init__(self, rows: "RowsView") -> None:
            super().__init__()
            self.rows = rows

    class Opened(Message):
        """Enter or a second click on the selected row."""

        def __init__(self, rows: "RowsView") -> None:
            super().__init__()
            self.rows = rows

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self.index = 0
        self.top = 0

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def heading(self) -> Strip:
        """Return the line above the rows."""
        raise NotImplementedError

    def row(self, index: int, *, selected: bool) -> Strip:
        """Return the line of the row ``index``."""
        raise NotImplementedError

    def empty_line(self, y: int) -> Strip:
        """Return the line at ``y`` where there is no row."""
        return self.builder().strip()

    def heading_clicked(self, x: int) -> None:
        """Do what a click on the heading at column ``x`` means."""

    def line(self, y: int) -> Strip:
        """Draw the heading or a row."""
        if y == 0:
            return self.heading()
        index = self.top + y - 1
        if index < self.row_count:
            return self.row(index, selected=index == self.index)
        return self.empty_line(y)

    @property
    def page(self) -> int:
        """Rows that fit."""
        return max(1, self.size.height - 1)

    @property
    def visible_rows(self) -> Sequence[int]:
        """Indices of the rows on the screen."""
        return range(self.top, min(self.row_count, self.top + self.page))

    @property
    def position(self) -> str:
        """Which rows are on the screen, as ``3-20/312``; empty where all are."""
        if self.row_count <= self.page:
            return ""
        return f"{self.top + 1}-{min(self.row_count, self.top + self.page)}/{self.row_count}"

    def select(self, index: int) -> None:
        """Select a row, bring it in sight and say so."""
        self.index = min(max(0, index), max(0, self.row_count - 1))
        self.settle()
        self.repaint()
        self.post_message(self.Moved(self))

    def settle(self) -> None:
        """Keep the selected row in sight and no room empty that could show a row."""
        self.top = min(self.top, self.index)
        self.top = max(self.top, self.index - self.page + 1)
        self.top = max(0, min(self.top, self.row_count - self.page))

    def on_resize(self) -> None:
        """Keep the selected row in sight."""
        super().on_resize()
        self.settle()
        self.post_message(self.Moved(self))

    def action_move(self, by: int) -> None:
        """Move the selection."""
        self.select(self.index + by)

    def action_page(self, by: int) -> None:
        """Move the selection by what fits on the screen."""
        self.select(self.index + by * self.page)

    def action_go(self, index: int) -> None:
        """Select the first row, or with -1 the last."""
        self.select(index if index >= 0 else self.row_count - 1)

    def action_open(self) -> None:
        """Open the selected row."""
        if self.row_count:
            self.post_message(self.Opened(self))

    def on_click(self, event: events.Click) -> None:
        """Select a row; open it where it was selected."""
        if event.y == 0:
            self.heading_clicked(event.x)
            return
        index = self.top + event.y - 1
        if index >= self.row_count:
            return
        if index == self.index:
            self.action_open()
        else:
            self.select(index)

    def on_mouse_scroll_down(self) -> None:
        """Move down by the wheel."""
        self.select(self.index + 3)

    def on_mouse_scroll_up(self) -> None:
        """Move up by the wheel."""
        self.select(self.index - 3)


class KeyedRowsView(RowsView):
    """Rows that are known by keys: the selection stays on its key while rows move."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._keys: Sequence[Hashable] = ()
        self._selected: Hashable = None

    @property
    def row_count(self) -> int:
        """How many rows are shown."""
        return len(self._keys)

    def follow(self, keys: Sequence[Hashable], existing: Container[Hashable]) -> None:
        """Take other rows; a key that is gone hands the selection to its neighbour.

        One that exists but is not among ``keys`` lends it, and has it back when it is shown again.
        """
        before, self._keys = self._keys, keys
        self.index = self._find(before, {key: i for i, key in enumerate(keys)})
        if self._selected not in existing:
            self._remember()
        self.settle()
        self.repaint()

    def forget(self) -> None:
        """Let the selection go to the first row."""
        self._selected = None

    def select(self, index: int) -> None:
        """Select a row and remember its key."""
        self.index = min(max(0, index), max(0, self.row_count - 1))
        self._remember()
        super().select(index)

    def _remember(self) -> None:
        self._selected = self._keys[self.index] if self._keys else self._selected

    # Where the selected key is now; where it is not, the nearest of those below it, then above.
    def _find(self, before: Sequence[Hashable], index: Mapping[Hashable, int]) -> int:
        if self._selected is None:
            return 0
        if self._selected in index:
            return index[self._selected]
        for key in [*before[self.index :], *reversed(before[: self.index])]:
            if key in index:
                return index[key]
        return 0
