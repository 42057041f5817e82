"""The call tree: drawn line by line, so its cost is what is visible, not what there is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.message import Message
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.calls import Call, Kind, Node, Order, Row
from leaktop.names import short_name
from leaktop.widgets.columns import Column, column_at, put_titles
from leaktop.widgets.lines import LineBuilder
from leaktop.widgets.rows import KeyedRowsView

_WITH_GROWTH = 100  # cells from which there is room for it
_MODULE_CELLS = 64


@dataclass(frozen=True, slots=True)
class TreeRows:
    """What the tree shows."""

    rows: Sequence[Row] = ()
    total: int = 0
    """Bytes of all stacks."""
    order: Order = Order.TOTAL
    bottom_up: bool = False
    estimated: bool = False
    pages: bool = False
    """They are of growth mode: new pages, not blocks."""
    changes: bool = False
    """Bytes and blocks are changes since a mark."""
    empty: str = ""
    """What to say where there are no rows."""


class CallTreeView(KeyedRowsView):
    """The visible lines of a call tree; the selection stays on its call while figures move."""

    class SortClicked(Message):
        """A column's heading was clicked."""

        def __init__(self, order: Order) -> None:
            super().__init__()
            self.order = order

    def __init__(self) -> None:
        super().__init__(id="tree")
        self._shown = TreeRows()

    @property
    def selected(self) -> Row | None:
        """The selected line."""
        return self._shown.rows[self.index] if self._shown.rows else None

    def show(self, shown: TreeRows) -> None:
        """Show other lines."""
        self._shown = shown
        keys = [row.node.id for row in shown.rows]
        self.follow(keys, set(keys))

    def above(self, depth: int) -> int:
        """Return the index of the line at ``depth`` that leads to the selected one."""
        rows = self._shown.rows
        index = self.index
        while index > 0 and rows[index].node.depth > depth:
            index -= 1
        return index

    @property
    def _columns(self) -> tuple[Column, ...]:
        sign = "+" if self._shown.changes else ""
        growth = (Column("GROWTH/s", 10, Order.GROWTH),)
        return (
            Column(f"{sign}TOTAL", 8, Order.TOTAL),
            Column("%", 5),
            Column(f"{sign}OWN", 8, Order.OWN),
            Column(sign + ("PAGES" if self._shown.pages else "BLOCKS"), 9, Order.COUNT),
            *(growth if self.size.width >= _WITH_GROWTH else ()),
        )

    def heading(self) -> Strip:
        """Draw the titles; the sort column carries an arrow."""
        line = self.builder(self.style("heading")).put(" ")
        put_titles(line, self._columns, self._shown.order, rising=False)
        way = "WHO ALLOCATES, and its callers" if self._shown.bottom_up else "CALLS from the top"
        position = self.position
        return line.put("  ").cell(way, line.left - len(position) - 1).put(position).strip()

    def heading_clicked(self, x: int) -> None:
        """Ask for the order by the column at ``x``."""
        column = column_at(self._columns, x)
        if column is not None and isinstance(column.key, Order):
            self.post_message(self.SortClicked(column.key))

    def row(self, index: int, *, selected: bool) -> Strip:
        """Draw one call."""
        row, shown = self._shown.rows[index], self._shown
        node, mark = row.node, shown.estimated
        line = self.builder(self.style("cursor") if selected else None)
        line.put("▸" if selected else " ")
        size = fmt.format_growth if shown.changes else fmt.format_bytes
        count = fmt.format_change if shown.changes else fmt.format_count
        figures = (
            size(node.bytes, estimated=mark),
            _share(node, shown.total),
            size(node.own_bytes, estimated=mark) if node.own_bytes or node.own_count else "-",
            count(node.count, estimated=mark),
            fmt.format_growth(node.growth, estimated=mark),
        )
        for column, text in zip(self._columns, figures, strict=False):
            line.cell(text, column.width, right=True)
        self._put_call(line.put("  "), row, plain=selected)
        return line.strip()

    # On the cursor's own background the colours of the other text may not be readable.
    def _put_call(self, line: LineBuilder, row: Row, *, plain: bool) -> None:
        dim = None if plain else self.style("dim")
        guides = row.guides
        if len(guides) > line.left // 2:  # the last ones say most
            guides = "…" + guides[1 - line.left // 2 :]
        sign = " " if row.node.is_leaf else "▾" if row.is_open else "▸"
        line.put(guides, dim).put(sign + " ")
        call = row.node.call
        module = _module(call)
        room = max(line.left - cell_len(module), line.left // 2)
        name = line.safe(_name(call, room))
        special = call.kind not in (Kind.FUNCTION, Kind.ADDRESS)
        line.cell(name, min(room, cell_len(name)), dim if special else None)
        line.put(module, dim)

    def empty_line(self, y: int) -> Strip:
        """Say why there is no row."""
        line = self.builder()
        if y == 2 and not self._shown.rows:  # noqa: PLR2004
            line.put(f"   {self._shown.empty}", self.style("dim"))
        return line.strip()


def _share(node: Node, total: int) -> str:
    if total <= 0 or not 0 <= node.bytes <= total:
        return "-"
    percent = 100 * node.bytes / total
    return f"{percent:.0f}" if percent >= 1 or not node.bytes else "<1"


def _name(call: Call, room: int) -> str:
    match call.kind:
        case Kind.FUNCTION:
            return fmt.clean(short_name(call.name, room))
        case Kind.CACHE:
            return fmt.clean(f"cache {call.name}")
        case Kind.CUT:
            return "… not known further: the stack was cut"
        case Kind.NO_STACK:
            return "(no stack)"
    return fmt.clean(call.name)


def _module(call: Call) -> str:
    if not call.module:
        return ""
    module = fmt.clean(call.module, _MODULE_CELLS)
    return f" {module}" if module.startswith("[") else f" [{module}]"
