"""A row of figures as columns of blocks, over several lines."""

from collections.abc import Sequence

from textual.strip import Strip

from leaktop import format as fmt
from leaktop.widgets.lines import LinesView
from leaktop.widgets.trend import thinned

_BLOCKS = " ▁▂▃▄▅▆▇█"
_AXIS = 8


class ChartView(LinesView):
    """The bytes of the last ticks from 0 up, under a title."""

    def __init__(self, title: str) -> None:
        super().__init__(id="chart")
        self._title = title
        self._values: Sequence[int] = ()

    def show(self, values: Sequence[int]) -> None:
        """Show values, oldest first."""
        self._values = values
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the title or one line of the columns."""
        rows = self.size.height - 1
        if y == 0:
            return self.builder(self.style("heading")).put(f" {self._title}").strip()
        line = self.builder()
        greatest = max(self._values, default=0)
        if not greatest:
            return line.strip()
        label = greatest if y == 1 else 0 if y == rows else None
        text = "" if label is None else fmt.format_bytes(label)
        line.cell(text, _AXIS - 1, self.style("dim"), right=True).put(" ")
        below = rows - y
        for value in thinned(self._values, max(1, self.size.width - _AXIS - 1)):
            eighths = round(value / greatest * rows * 8) - below * 8
            line.put(self._cell(max(0, min(8, eighths))), self.style("good"))
        return line.strip()

    def _cell(self, eighths: int) -> str:
        if self.ascii_only:
            return "#" if eighths >= 4 else " "  # noqa: PLR2004  (half a cell)
        return _BLOCKS[eighths]
