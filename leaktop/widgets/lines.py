"""The base of what leaktop draws: lines built as strips, of which only changed ones are painted."""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from leaktop.format import clean, to_ascii

_LINE_LIMIT = 1024


class LineBuilder:
    """Builds one line of exactly ``width`` cells; all text is made harmless on its way in."""

    def __init__(self, width: int, base: Style, *, ascii_only: bool) -> None:
        self._segments: list[Segment] = []
        self._left = width
        self._base = base
        self._ascii = ascii_only

    @property
    def left(self) -> int:
        """Cells not used yet."""
        return self._left

    def put(self, text: str, style: Style | None = None) -> "LineBuilder":
        """Add text as long as it is, cut with ``…`` where the line ends."""
        text = self.safe(text)
        return self._add(text, min(cell_len(text), self._left), style)

    def cell(
        self, text: str, width: int, style: Style | None = None, *, right: bool = False
    ) -> "LineBuilder":
        """Add text in a field of ``width`` cells, cut with ``…`` where it does not fit."""
        text = self.safe(text)
        if right:
            text = " " * (width - cell_len(text)) + text
        return self._add(text, min(width, self._left), style)

    def safe(self, text: str) -> str:
        """Return ``text`` as this line may show it."""
        text = clean(text, _LINE_LIMIT)
        return to_ascii(text) if self._ascii else text

    def strip(self) -> Strip:
        """Return the line, filled up with spaces; runs of one style are one, to save bytes."""
        if self._left:
            self._segments.append(Segment(" " * self._left, self._base))
        return Strip(self._segments).simplify()

    def _add(self, text: str, width: int, style: Style | None) -> "LineBuilder":
        if width > 0:
            if cell_len(text) > width:
                text = set_cell_size(text, width - 1) + (">" if self._ascii else "…")
            style = self._base if style is None else self._base + style
            self._segments.append(Segment(set_cell_size(text, width), style))
            self._left -= width
        return self


class LinesView(Widget):
    """Draws ``line(y)`` for each visible line, and paints again only from where a line changed.

    Subclasses give ``line`` and call ``repaint`` when what they show has changed.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"dim", "strong", "good", "warn", "bad", "title", "heading", "cursor"}  # noqa: RUF012

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._painted: dict[int, Strip] = {}

    def line(self, y: int) -> Strip:
        """Return the line at ``y`` of the widget, as wide as the widget."""
        raise NotImplementedError

    @property
    def ascii_only(self) -> bool:
        """Whether only ASCII may be shown."""
        return bool(getattr(self.app, "ascii_only", False))

    def builder(self, style: Style | None = None) -> LineBuilder:
        """Return an empty line of this widget's width."""
        base = self.rich_style if style is None else self.rich_style + style
        return LineBuilder(self.size.width, base, ascii_only=self.ascii_only)

    def style(self, name: str) -> Style:
        """Return one of the component styles, without what it inherits."""
        return self.get_component_rich_style(name, partial=True)

    def repaint(self) -> None:
        """Paint the lines that differ from what is on the screen, and no others."""
        if not (self.is_mounted and self.is_attached):
            return  # not on the screen yet, or on its way out
        changed: list[Region] = []
        for y in range(self.size.height):
            before, now = self._painted.get(y), self.line(y)
            if before is None or before.cell_length != now.cell_length:
                changed.append(Region(0, y, self.size.width, 1))
            elif (span := _difference(before, now)) is not None:
                changed.append(Region(span[0], y, span[1] - span[0], 1))
            self._painted[y] = now
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        """Return one visible line; called by Textual for lines to paint."""
        strip = self._painted.get(y)
        if strip is None or strip.cell_length != self.size.width:
            strip = self._painted[y] = self.line(y)
        return strip

    def notify_style_update(self) -> None:
        """Drop lines drawn in another theme."""
        self._painted.clear()
        super().notify_style_update()

    def on_resize(self) -> None:
        """Drop lines drawn at another size."""
        self._painted.clear()
        self.refresh()


# First and last cell that differ, None where none does.
def _difference(before: Strip, now: Strip) -> tuple[int, int] | None:
    if before == now:
        return None
    old, new = _cells(before), _cells(now)
    if len(old) != len(new):  # wide characters: cells and characters are no longer the same
        return 0, now.cell_length
    first = next((i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]), 0)
    last = len(new)
    while last > first + 1 and old[last - 1] == new[last - 1]:
        last -= 1
    if len(new) != now.cell_length:
        return 0, now.cell_length
    return first, last


def _cells(strip: Strip) -> Sequence[tuple[str, Style | None]]:
    return [(char, segment.style) for segment in strip for char in segment.text]
