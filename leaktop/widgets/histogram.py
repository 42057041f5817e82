"""Bytes and blocks by band of age or size, as two bars a band."""

from collections.abc import Callable

from textual.strip import Strip

from leaktop import format as fmt
from leaktop.bands import fold
from leaktop.model import Histogram
from leaktop.widgets.lines import LinesView
from leaktop.widgets.trend import bar

LABEL = 11
_FIGURE = 7


class HistogramView(LinesView):
    """One histogram under its title."""

    def __init__(
        self,
        title: str,
        label: Callable[[float, float | None], str],
        *,
        id: str,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self._title = title
        self._label = label
        self._histogram: Histogram | None = None
        self._estimated = False
        self._note = ""

    def show(self, histogram: Histogram | None, *, estimated: bool = False, note: str = "") -> None:
        """Show a histogram, or ``note`` where there is none."""
        self._histogram, self._estimated, self._note = histogram, estimated, note
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the title or one band."""
        width = max(0, (self.size.width - LABEL - 2 * _FIGURE - 3) // 2)
        if y == 0:
            line = self.builder(self.style("heading"))
            line.cell(f" {self._title}", LABEL)
            line.cell("BYTES", _FIGURE, right=True).put(" " * (width + 1))
            return line.cell("BLOCKS", _FIGURE, right=True).strip()
        line = self.builder()
        folded = None
        if self._histogram is not None:
            folded = fold(self._histogram, self.size.height - 1)
        if folded is None or not folded.counts:
            text = self._note if folded is None else "no blocks held"
            return line.put(f"   {text}" if y == 1 else "", self.style("dim")).strip()
        index = y - 1
        if index >= len(folded.counts):
            return line.strip()
        low = folded.edges[index]
        high = folded.edges[index + 1] if index + 1 < len(folded.edges) else None
        line.cell(self._label(low, high), LABEL, self.style("dim"), right=True)
        for in_words, values, style in (
            (fmt.format_bytes, folded.bytes, "good"),
            (fmt.format_count, folded.counts, "warn"),
        ):
            figure = in_words(values[index], estimated=self._estimated)
            part = values[index] / max(1, *values)
            line.cell(figure, _FIGURE, right=True).put(" ")
            line.cell(bar(part, width, ascii_only=self.ascii_only), width, self.style(style))
        return line.strip()
