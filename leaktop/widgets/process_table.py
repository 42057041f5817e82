"""The table of processes: drawn line by line, so its cost is what is visible, not what there is."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from textual.message import Message
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.analyze import rises
from leaktop.candidates import Process, ProcessSort
from leaktop.widgets.columns import Column, column_at, put_titles
from leaktop.widgets.lines import LineBuilder
from leaktop.widgets.rows import KeyedRowsView
from leaktop.widgets.trend import sparkline

WIDE = 120
"""Cells from which the table shows more columns."""

_SETTLED_S = 10.0  # what was watched for less is called an estimate
_GAP = 2
_PID = Column("PID", 8, ProcessSort.PID)
_USER = Column(" USER", 10, ProcessSort.USER, right=False)
_RSS = Column("RSS", 6, ProcessSort.RSS)
_GROWTH = Column("GROWTH/min", 12, ProcessSort.GROWTH)
_COLUMNS = (_PID, _USER, _RSS, _GROWTH)
_WIDE_COLUMNS = (
    *(_PID, _USER, _RSS),
    Column("%MEM", 7),
    Column("THR", 6, ProcessSort.THREADS),
    Column("AGE", 8, ProcessSort.AGE),
    _GROWTH,
)
_TREND, _WIDE_TREND = 10, 30


@dataclass(frozen=True, slots=True)
class ProcessRows:
    """What the table shows."""

    processes: Sequence[Process] = ()
    existing: Container[object] = ()
    """Keys of every process there is, also of those that a filter hides."""
    memory_total: int = 0
    sort: ProcessSort = ProcessSort.GROWTH
    reverse: bool = False
    empty: str = ""
    """What to say where there are no processes."""


class ProcessTable(KeyedRowsView):
    """The processes in order; once it was moved, the selection stays on its process.

    Before that it is on the first row, whichever process that is.
    """

    class SortClicked(Message):
        """A column's heading was clicked."""

        def __init__(self, key: ProcessSort) -> None:
            super().__init__()
            self.key = key

    def __init__(self) -> None:
        super().__init__()
        self._rows = ProcessRows()
        self._moved = False

    @property
    def selected(self) -> Process | None:
        """The selected process."""
        return self._rows.processes[self.index] if self._rows.processes else None

    def show(self, rows: ProcessRows) -> None:
        """Show other rows."""
        self._rows = rows
        if not self._moved:
            self.forget()
        self.follow([process.key for process in rows.processes], rows.existing)

    def select(self, index: int) -> None:
        """Select a row, which is followed from now on."""
        self._moved = True
        super().select(index)

    def action_open(self) -> None:
        """Open the selected row, and stay on it."""
        self.select(self.index)
        super().action_open()

    @property
    def _wide(self) -> bool:
        return self.size.width >= WIDE

    @property
    def _columns(self) -> tuple[Column, ...]:
        return _WIDE_COLUMNS if self._wide else _COLUMNS

    @property
    def _trend_column(self) -> Column:
        return Column("TREND", _WIDE_TREND if self._wide else _TREND, right=False)

    def heading(self) -> Strip:
        """Draw the titles; the sort column carries an arrow."""
        line = self.builder(self.style("heading")).put(" ")
        sort, rising = self._rows.sort, rises(self._rows.sort, reverse=self._rows.reverse)
        put_titles(line, self._columns, sort, rising=rising)
        line.put(" " * _GAP)
        put_titles(line, [self._trend_column], sort, rising=rising)
        line.put(" " * _GAP)
        position = self.position
        command = Column("COMMAND", line.left - len(position) - 1, ProcessSort.COMMAND, right=False)
        put_titles(line, [command], sort, rising=rising)
        return line.cell(position + " ", line.left, right=True).strip()

    def heading_clicked(self, x: int) -> None:
        """Ask for the order by the column at ``x``."""
        rest = [Column("", _GAP), self._trend_column, Column("", _GAP)]
        command = Column("COMMAND", self.size.width, ProcessSort.COMMAND)
        column = column_at([*self._columns, *rest, command], x)
        if column is not None and isinstance(column.key, ProcessSort):
            self.post_message(self.SortClicked(column.key))

    def row(self, index: int, *, selected: bool) -> Strip:
        """Draw one process."""
        process = self._rows.processes[index]
        line = self.builder(self.style("cursor") if selected else None)
        line.put("▸" if selected else " ")
        for column in self._columns:
            self._put_figure(line, column, process, plain=selected)
        cells = self._trend_column.width
        trend = ""
        if len(process.trend) > 1:
            trend = sparkline(process.trend, cells, ascii_only=self.ascii_only)
        style = self.style("good" if process.growth else "dim")
        line.put(" " * _GAP).cell(trend, cells, None if selected else style).put(" " * _GAP)
        self._put_command(line, process, plain=selected)
        return line.strip()

    def _put_figure(
        self, line: LineBuilder, column: Column, process: Process, *, plain: bool
    ) -> None:
        style = None
        match column.key:
            case ProcessSort.PID:
                text = str(process.pid)
            case ProcessSort.USER:
                text = f" {_user(process.user, column.width - 1)}"
            case ProcessSort.RSS:
                text = fmt.format_bytes(process.rss)
            case ProcessSort.GROWTH:
                text = _growth(process)
                style = self.style("strong") if (process.growth or 0.0) > 0 else None
            case ProcessSort.THREADS:
                text = fmt.format_count(process.threads)
            case ProcessSort.AGE:
                text = fmt.format_age(process.age_s)
            case _:
                text = _percent(process.rss, self._rows.memory_total)
        line.cell(text, column.width, None if plain else style, right=column.right)

    # The folder is what tells processes apart least: it is shown where there is room.
    def _put_command(self, line: LineBuilder, process: Process, *, plain: bool) -> None:
        dim = None if plain else self.style("dim")
        if not process.command:
            line.put(f"[{process.comm}]", dim)
            return
        if self._wide:
            line.put(process.folder, dim)
        line.put(process.command)

    def empty_line(self, y: int) -> Strip:
        """Say why there is no row."""
        line = self.builder()
        if y == 2 and not self._rows.processes:  # noqa: PLR2004
            line.put(f"   {self._rows.empty}", self.style("dim"))
        return line.strip()


def _growth(process: Process) -> str:
    if process.growth is None:
        return ""
    early = process.span_s < _SETTLED_S and process.growth != 0
    return fmt.format_growth(process.growth, estimated=early)


# As top and ps have it: a name that is cut ends in a plus.
def _user(name: str, room: int) -> str:
    name = fmt.clean(name)
    return name if len(name) <= room else f"{name[: room - 1]}+"


def _percent(rss: int, total: int) -> str:
    return f"{100 * rss / total:.1f}" if total else ""
