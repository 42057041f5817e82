"""Bytes and blocks by band of age or size, as two bars a band."""

from collections.abc import Callable

from textual.strip import Strip

from leaktop import format as fmt
from leaktop.model import Histogram
from leaktop.widgets.lines import LinesView
from leaktop.widgets.trend import bar

LABEL = 11
_FIGURE = 7


def age_label(low: float, high: float | None) -> str:
    """Return a band of seconds as ``<1s``, ``1s-10s``, ``>1h``."""
    return _label(low, high, _short_age)


def size_label(low: float, high: float | None) -> str:
    """Return a band of bytes as ``16-31``, ``1K-2K``."""
    if high is not None and high <= 1024:  # noqa: PLR2004  (whole bytes: the last one can be named)
        return f"{low:.0f}" if high - low <= 1 else f"{low:.0f}-{high - 1:.0f}"
    return _label(low, high, lambda value: fmt.format_bytes(value).replace(".00", ""))


def fold(histogram: Histogram, rows: int) -> Histogram:
    """Return at most ``rows`` bands: empty ends go, then those with fewest blocks are merged."""
    held = [i for i, count in enumerate(histogram.counts) if count]
    if not held or rows < 1:
        return Histogram((), (), ())
    starts = list(range(held[0], held[-1] + 1))
    end = held[-1] + 1
    counts = [histogram.counts[i] for i in starts]
    while len(starts) > rows:
        least = min(range(1, len(starts)), key=lambda i: counts[i - 1] + counts[i])
        counts[least - 1] += counts.pop(least)
        del starts[least]
    spans = list(zip(starts, [*starts[1:], end], strict=True))
    # The edge after the last band held says where that one ends, unless it is open.
    return Histogram(
        tuple(histogram.edges[i] for i in [*starts, end] if i < len(histogram.edges)),
        tuple(sum(histogram.bytes[low:high]) for low, high in spans),
        tuple(counts),
    )


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


def _label(low: float, high: float | None, text: Callable[[float], str]) -> str:
    if high is None:
        return f">{text(low)}"
    return f"<{text(high)}" if low <= 0 else f"{text(low)}-{text(high)}"


def _short_age(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    text = fmt.format_age(seconds).replace(".0s", "s")
    for zero in ("00s", "00m", "00h"):
        text = text.removesuffix(zero) if len(text) > len("00s") else text
    return text
