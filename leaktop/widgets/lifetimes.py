"""How long the blocks that a stack freed had been held."""

from collections.abc import Sequence

from textual.strip import Strip

from leaktop import format as fmt
from leaktop.bands import age_label, fold
from leaktop.model import LIFETIME_EDGES_S, Histogram
from leaktop.widgets.histogram import LABEL
from leaktop.widgets.lines import LinesView
from leaktop.widgets.trend import bar

_FIGURE = 7


class LifetimesView(LinesView):
    """Frees by band of lifetime, one bar a band."""

    def __init__(self) -> None:
        super().__init__(id="lifetimes")
        self._histogram: Histogram | None = None
        self._estimated = False

    def show(self, frees: Sequence[int], *, estimated: bool) -> None:
        """Show ``Site.lifetimes``; no view where they are not counted."""
        self.display, self._estimated = bool(frees), estimated
        counts = tuple(frees)
        self._histogram = Histogram(LIFETIME_EDGES_S, counts, counts) if frees else None
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the title or one band."""
        if y == 0:
            line = self.builder(self.style("heading"))
            line.cell(" LIFETIME", LABEL)
            return line.cell("FREED", _FIGURE, right=True).strip()
        line = self.builder()
        if self._histogram is None:
            return line.strip()
        folded = fold(self._histogram, self.size.height - 1)
        if not folded.counts:
            return line.put("   nothing freed" if y == 1 else "", self.style("dim")).strip()
        if y > len(folded.counts):
            return line.strip()
        low, count = folded.edges[y - 1], folded.counts[y - 1]
        high = folded.edges[y] if y < len(folded.edges) else None
        line.cell(age_label(low, high), LABEL, self.style("dim"), right=True)
        figure = fmt.format_count(count, estimated=self._estimated)
        line.cell(figure, _FIGURE, right=True).put(" ")
        part = count / max(1, *folded.counts)
        line.put(bar(part, line.left, ascii_only=self.ascii_only), self.style("warn"))
        return line.strip()
