"""Small drawings within the report: trends and histograms."""

from collections.abc import Callable
from xml.etree.ElementTree import Element

from leaktop import format as fmt
from leaktop.bands import fold
from leaktop.export.markup import SVG, element, within
from leaktop.model import Histogram, Trend

_WIDTH, _HEIGHT, _BANDS = 240, 36, 10
_LEAST_RANGE = 0.05  # of the greatest: a steady value looks steady


def trend(shown: Trend) -> Element:
    """Return outstanding bytes over time as a line, the last value at the right."""
    values = shown.values
    low, high = min(values), max(values)
    span = max(high - low, high * _LEAST_RANGE, 1)
    step = (_WIDTH - 4) / max(1, len(values) - 1)
    points = [
        f"{2 + i * step:.1f},{2 + (_HEIGHT - 4) * (1 - (value - low) / span):.1f}"
        for i, value in enumerate(values)
    ]
    figure = element("figure", class_="trend")
    image = within(figure, "svg", xmlns=SVG, width=_WIDTH, height=_HEIGHT, class_="spark")
    words = f"from {fmt.format_bytes(values[0])} to {fmt.format_bytes(values[-1])}"
    within(image, "title", words)
    within(image, "polyline", points=" ".join(points))
    within(figure, "figcaption", f"{words}, over the last {fmt.format_age(shown.span_s)}")
    return figure


def histogram(
    title: str, shown: Histogram, label: Callable[[float, float | None], str], *, estimated: bool
) -> Element:
    """Return bytes and blocks by band as a table with bars."""
    folded = fold(shown, _BANDS)
    table = element("table", class_="bands")
    head = within(within(table, "thead"), "tr")
    for name in (title, "bytes", "", "blocks"):
        within(head, "th", name)
    body, most = within(table, "tbody"), max(1, *folded.bytes, 1)
    for i, held in enumerate(folded.bytes):
        high = folded.edges[i + 1] if i + 1 < len(folded.edges) else None
        row = within(body, "tr")
        within(row, "td", label(folded.edges[i], high))
        within(row, "td", fmt.format_bytes(held, estimated=estimated), class_="n")
        bar = within(row, "td", class_="bar")
        within(bar, "span", style=f"width:{100 * held / most:.1f}%")
        within(row, "td", fmt.format_count(folded.counts[i], estimated=estimated), class_="n")
    return table
