"""What the command printed that leaktop started."""

from textual import events
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.command import Command
from leaktop.widgets.rows import RowsView

_CATCH_UP_S = 0.2


class OutputPane(RowsView):
    """Scrolls through the output, and follows its end while that is in sight."""

    def __init__(self, command: Command) -> None:
        super().__init__(id="output")
        assert command.output is not None
        self._command = command
        self._output = command.output
        self._seen = -1
        self._total = self._dropped = 0
        self._visible: list[str] = []
        self._follows = True

    def on_mount(self) -> None:
        """Look for more output now and then, rather than at each line that comes."""
        self.set_interval(_CATCH_UP_S, self.catch_up)

    def catch_up(self) -> None:
        """Show what came since."""
        if self.display and self.is_attached and self._output.size != self._seen:
            self._load()

    @property
    def row_count(self) -> int:
        """Places that the text can be scrolled to."""
        return max(1, self._total - self._dropped - self.page + 1)

    @property
    def position(self) -> str:
        """Which lines are on the screen, of all that came."""
        if self._total - self._dropped <= self.page:
            return ""
        first = self._dropped + self.top
        return f"{first + 1}-{min(self._total, first + self.page)}/{self._total}"

    def settle(self) -> None:
        """Put the line reached on top."""
        self.index = min(self.index, self.row_count - 1)
        self.top = self.index

    def select(self, index: int) -> None:
        """Scroll to a line; at the last one, go with what comes."""
        self._follows = index >= self.row_count - 1
        self.index = max(0, index)
        self._load()

    def on_resize(self) -> None:
        """Show as much as fits now."""
        super().on_resize()
        self._load()

    def action_open(self) -> None:
        """Do nothing: there is nothing to open."""

    def on_click(self, event: events.Click) -> None:
        """Do nothing: there is nothing to select."""

    def heading(self) -> Strip:
        """Draw the title."""
        line = self.builder(self.style("heading"))
        line.put(f" OUTPUT of {fmt.clean(self._command.name, 30)}")
        if self._dropped:
            line.put(f", first {fmt.format_count(self._dropped)} lines dropped")
        return line.cell(self.position + " ", line.left, right=True).strip()

    def line(self, y: int) -> Strip:
        """Draw the title or a line of the output."""
        if y == 0:
            return self.heading()
        line = self.builder()
        if y <= len(self._visible):
            line.put(f" {self._visible[y - 1]}")
        elif y == 1:
            line.put(" nothing was printed so far", self.style("dim"))
        return line.strip()

    # Lines that are dropped meanwhile move the text, not the reader.
    def _load(self) -> None:
        output = self._output
        self._seen = output.size
        before, self._dropped = self._dropped, output.dropped
        self._total = max(output.total, self._dropped)
        if self._follows:
            self.index = self.row_count - 1
        else:
            self.index = max(0, self.index - (self._dropped - before))
        self.settle()
        self._visible = output.lines(self._dropped + self.top, self.page)
        self.repaint()
