"""The table of stacks: drawn line by line, so its cost is what is visible, not what there is."""

from collections.abc import Mapping, Sequence
from itertools import islice

from rich.cells import cell_len
from rich.style import Style
from textual.message import Message
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.analyze import frame_that_matters, is_plumbing
from leaktop.model import Frame, Site, SortKey
from leaktop.names import short_name
from leaktop.widgets.columns import Column, column_at, put_titles
from leaktop.widgets.frames import module_text, no_stack
from leaktop.widgets.lines import LineBuilder
from leaktop.widgets.rows import KeyedRowsView
from leaktop.widgets.site_columns import WIDE, Rows, SiteColumn, chosen

_CALLERS = 6
_CACHE_CELLS = 24
_IGNORED = "(ignored) "
_CALLERS_LEAST = 36  # cells for WHERE and CALLED FROM together


class SiteTable(KeyedRowsView):
    """The stacks in order; the selection stays on its stack while rows move."""

    class SortClicked(Message):
        """A column's heading was clicked."""

        def __init__(self, key: SortKey) -> None:
            super().__init__()
            self.key = key

    def __init__(self, wanted: Sequence[str] = ()) -> None:
        """``wanted``: names of columns, in order; without them the usual ones."""
        super().__init__()
        self._wanted = wanted
        self._rows = Rows()
        self._columns: tuple[SiteColumn, ...] = ()

    @property
    def selected(self) -> Site | None:
        """The selected stack."""
        return self._rows.sites[self.index] if self._rows.sites else None

    @property
    def visible_sites(self) -> Sequence[Site]:
        """The stacks on the screen, from the top."""
        return [self._rows.sites[i] for i in self.visible_rows]

    def show(self, rows: Rows) -> None:
        """Show other rows; a stack that is gone hands the selection to its neighbour.

        One that is only filtered out lends it, and has it back when it is shown again.
        """
        self._rows = rows
        self._choose_columns()
        self.follow([site.stack_id for site in rows.sites], rows.growth)

    def show_names(self, names: Mapping[int, tuple[Frame, ...]]) -> None:
        """Paint the rows again whose names came."""
        if any(site.stack_id in names for site in self.visible_sites):
            self.repaint()

    def on_resize(self) -> None:
        """Show the columns that there is room for."""
        self._choose_columns()
        super().on_resize()

    def _choose_columns(self) -> None:
        self._columns = chosen(self._rows, self.size.width, self._wanted)

    def heading(self) -> Strip:
        """Draw the titles; the sort column carries an arrow."""
        line = self.builder(self.style("heading"))
        line.put(" ")
        put_titles(line, self._titles, self._rows.sort, rising=self._rows.reverse)
        position = self.position
        where = "WHERE: innermost frame" if self._rows.innermost else "WHERE"
        line.put("   ").cell(where, self._where_width(line, len(position)))
        if self._with_callers:
            line.cell("CALLED FROM", line.left - len(position) - 1)
        return line.put(position).strip()

    def heading_clicked(self, x: int) -> None:
        """Ask for the order by the column at ``x``."""
        column = column_at(self._titles, x)
        if column is not None and isinstance(column.key, SortKey):
            self.post_message(self.SortClicked(column.key))

    def row(self, index: int, *, selected: bool) -> Strip:
        """Draw one stack."""
        site = self._rows.sites[index]
        ignored = site.stack_id in self._rows.ignored
        plain = self.style("dim") if ignored else None
        line = self.builder(self.style("cursor") if selected else plain)
        line.put("▸" if selected else " ")
        for each in self._columns:
            style = "" if selected else each.style(self._rows, site)
            figure = each.figure(self._rows, site)
            line.cell(figure, each.column.width, self.style(style) if style else None, right=True)
        self._put_names(line, site, plain=selected)
        return line.strip()

    @property
    def _titles(self) -> list[Column]:
        return [each.column for each in self._columns]

    @property
    def _room(self) -> int:  # what the columns leave
        return self.size.width - 1 - sum(each.column.width for each in self._columns) - 3

    @property
    def _with_callers(self) -> bool:
        return self.size.width >= WIDE and self._room >= _CALLERS_LEAST

    # On the cursor's own background the colours of the other text may not be readable.
    def _put_names(self, line: LineBuilder, site: Site, *, plain: bool) -> None:
        dim = None if plain else self.style("dim")
        frames = self._rows.names.get(site.stack_id) or site.frames
        cut = site.truncated and frames
        line.put(" … " if cut else "   ", None if plain else self.style("warn"))
        if not frames:
            line.put(f"({no_stack(site.stack_id)})", dim)
            return
        width = self._where_width(line, 0)
        if site.stack_id in self._rows.ignored:
            line.put(_IGNORED, dim)
            width -= len(_IGNORED)
        raw = self._rows.innermost
        frame = frames[0] if raw else frame_that_matters(frames)
        _put_frame(line, frame, width, dim, site.cache)
        if self._with_callers:
            at = next(i for i, other in enumerate(frames) if other is frame)
            callers = (f for f in frames[at + 1 :] if raw or not is_plumbing(f.symbol or ""))
            names = [_name(caller, 0) for caller in islice(callers, _CALLERS)]
            line.put(" ".join(f"← {name}" for name in names), dim)

    def _where_width(self, line: LineBuilder, kept: int) -> int:
        if self._with_callers:
            return self._room * 45 // 100
        return line.left - kept

    def empty_line(self, y: int) -> Strip:
        """Say why there is no row."""
        line = self.builder()
        if y == 2 and not self._rows.sites:  # noqa: PLR2004
            line.put(f"   {self._rows.empty}", self.style("dim"))
        return line.strip()


def _name(frame: Frame, width: int) -> str:
    return fmt.clean(short_name(frame.symbol, width)) if frame.symbol else f"{frame.address:#x}"


# The module stays readable where the name is long: the name is cut first.
def _put_frame(
    line: LineBuilder, frame: Frame, width: int, dim: Style | None, cache: str | None = None
) -> None:
    left = line.left - width
    module = module_text(frame)
    if cache:  # of a kernel's own function that says more than that it is one
        module = f" ({fmt.clean(cache, _CACHE_CELLS)})"
    room = max(width - len(module) - 1, width // 2)
    name = line.safe(_name(frame, room))
    line.cell(name, min(room, cell_len(name)))
    line.put(module[: max(0, line.left - left - 1)], dim)
    line.cell("", line.left - left)
