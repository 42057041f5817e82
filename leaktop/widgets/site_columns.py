"""The columns of the table of stacks, by name: what each shows, how wide, and when."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from leaktop import format as fmt
from leaktop.config import unknown
from leaktop.marks import Mark
from leaktop.model import Frame, Site, SortKey, Target
from leaktop.widgets.columns import Column
from leaktop.widgets.verdict import mark, style_of

MEDIUM = 72
"""Cells from which WHERE can spare some for one more column."""
WIDE = 120
"""Cells from which the table shows more columns."""

_COMM = 16
_WHERE_LEAST = 24  # cells that columns asked for by name leave to the frame


@dataclass(frozen=True, slots=True)
class Rows:
    """What the table shows."""

    sites: Sequence[Site] = ()
    growth: Mapping[int, float] = field(default_factory=dict)
    """Of every stack there is, also of those that a filter hides."""
    suspicion: Mapping[int, float] = field(default_factory=dict)
    """Scores by stack id; empty where leaks are not judged."""
    names: Mapping[int, tuple[Frame, ...]] = field(default_factory=dict)
    sort: SortKey = SortKey.BYTES
    reverse: bool = False
    innermost: bool = False
    """WHERE shows the innermost frame rather than the one that matters."""
    estimated: bool = False
    pages: bool = False
    """They are of growth mode: new pages, not blocks."""
    mark: Mark | None = None
    """Since when bytes and blocks are counted, where not since the start."""
    processes: Mapping[int, Target] = field(default_factory=dict)
    """By PID, where there are several: then each row says whose it is."""
    ignored: Container[int] = ()
    """Which stacks the user does not want to see; here they are all the same."""
    empty: str = ""
    """What to say where there are no sites."""


class Room(Enum):
    """How wide the table has to be for a column."""

    ANY = "any"
    MEDIUM = "medium"
    """``MEDIUM``, or any width where the column is asked for by name."""
    SPARE = "spare"
    """``WIDE``, or any width where the column is asked for by name."""
    NARROW = "narrow"
    """Narrower than ``WIDE``; from there on another of the same name takes its place."""
    WIDE = "wide"


Figure = Callable[[Rows, Site], str]


def _plain(_: Rows, __: Site) -> str:
    return ""


def _always(_: Rows) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class SiteColumn:
    """One column. Of several with one name at most one is ever shown."""

    name: str
    """What the configuration calls it."""
    column: Column
    figure: Figure
    """Returns what it says of a stack."""
    applies: Callable[[Rows], bool] = _always
    """Tells whether it says anything of these rows."""
    room: Room = Room.ANY
    since: Column | None = None
    """Takes the place of ``column`` where the figure is a change since a mark."""
    style: Figure = _plain
    """Returns the component style of what it says; empty: the line's own."""


def _of_blocks(rows: Rows) -> bool:
    return not rows.pages


def _of_pages(rows: Rows) -> bool:
    return rows.pages


def _of_several(rows: Rows) -> bool:
    return bool(rows.processes) and not rows.pages


def _bytes(rows: Rows, site: Site) -> str:
    if rows.mark is not None:
        return fmt.format_growth(rows.mark.bytes_since(site), estimated=rows.estimated)
    return fmt.format_bytes(site.counters.bytes, estimated=rows.estimated)


def _count(rows: Rows, site: Site) -> str:
    if rows.mark is not None:
        return fmt.format_change(rows.mark.count_since(site), estimated=rows.estimated)
    return fmt.format_count(site.counters.count, estimated=rows.estimated)


def _growth(rows: Rows, site: Site) -> str:
    return fmt.format_growth(rows.growth.get(site.stack_id, 0.0), estimated=rows.estimated)


def _oldest(_: Rows, site: Site) -> str:
    return fmt.format_age(site.oldest_s, exact=site.oldest_exact)


def _suspect(rows: Rows, site: Site) -> str:
    return mark(rows.suspicion.get(site.stack_id, 0.0))


def _style_of_suspect(rows: Rows, site: Site) -> str:
    return style_of(rows.suspicion.get(site.stack_id, 0.0))


def _calls(rows: Rows, site: Site) -> str:
    return fmt.format_count(site.counters.calls, estimated=rows.estimated)


def _allocs(rows: Rows, site: Site) -> str:
    return fmt.format_count(site.counters.allocs, estimated=rows.estimated)


def _frees(rows: Rows, site: Site) -> str:
    return fmt.format_count(site.counters.frees, estimated=rows.estimated)


def _pid(rows: Rows, site: Site) -> str:
    target = rows.processes.get(site.pid or 0)
    return "-" if target is None else f"{_mark(target)}{target.pid}"


def _process(rows: Rows, site: Site) -> str:
    target = rows.processes.get(site.pid or 0)
    if target is None:
        return "-"
    return f"{fmt.clean(target.comm, _COMM)} {_mark(target)}{target.pid}"


def _mark(target: Target) -> str:
    return "" if target.alive else "†"


COLUMNS = (
    SiteColumn(
        "bytes",
        Column("BYTES", 8, SortKey.BYTES),
        _bytes,
        since=Column("+BYTES", 8, SortKey.BYTES),
    ),
    SiteColumn(
        "blocks",
        Column("BLOCKS", 8, SortKey.COUNT),
        _count,
        _of_blocks,
        since=Column("+BLOCKS", 9, SortKey.COUNT),
    ),
    SiteColumn(
        "blocks",
        Column("PAGES", 8, SortKey.COUNT),
        _count,
        _of_pages,
        since=Column("+PAGES", 9, SortKey.COUNT),
    ),
    SiteColumn("growth", Column("GROWTH/s", 10, SortKey.GROWTH), _growth),
    SiteColumn("oldest", Column("OLDEST", 9, SortKey.AGE), _oldest, _of_blocks),
    SiteColumn(
        "suspect",
        Column("SUSPECT", 9, SortKey.SUSPECT),
        _suspect,
        _of_blocks,
        Room.MEDIUM,
        style=_style_of_suspect,
    ),
    SiteColumn("calls", Column("CALLS", 9), _calls, _of_pages),
    SiteColumn("allocs", Column("ALLOCS", 9), _allocs, _of_blocks, Room.SPARE),
    SiteColumn("allocs", Column("FAULTS", 9), _allocs, _of_pages, Room.SPARE),
    SiteColumn("frees", Column("FREES", 9), _frees, _of_blocks, Room.SPARE),
    SiteColumn("process", Column("PID", 9), _pid, _of_several, Room.NARROW),
    SiteColumn("process", Column("PROCESS", 26), _process, _of_several, Room.WIDE),
)
"""All columns, in the order in which they are shown unless another is asked for."""


def column_problems(wanted: Sequence[str]) -> list[str]:
    """Return which of the ``wanted`` columns do not exist, a line each."""
    names = list(dict.fromkeys(each.name for each in COLUMNS))
    strange = (name for name in wanted if name not in names)
    return [f"columns: '{fmt.clean(name, 40)}': {unknown(name, names)}" for name in strange]


def chosen(rows: Rows, width: int, wanted: Sequence[str] = ()) -> tuple[SiteColumn, ...]:
    """Return the columns for a table of ``width`` cells, from the left.

    ``wanted``: names, in the order wished for; what then leaves WHERE too little room is left out
    from the right.
    """
    rooms = (Room.ANY, *((Room.WIDE, Room.SPARE) if width >= WIDE else (Room.NARROW,)))
    if width >= MEDIUM:
        rooms = (*rooms, Room.MEDIUM)
    shown = [_at_mark(each, rows) for each in COLUMNS if each.applies(rows)]
    if not wanted:
        return tuple(each for each in shown if each.room in rooms)
    rooms = (*rooms, Room.MEDIUM, Room.SPARE)
    named = [e for name in wanted for e in shown if e.name == name and e.room in rooms]
    while named and 4 + sum(each.column.width for each in named) + _WHERE_LEAST > width:
        named.pop()
    return tuple(named)


def _at_mark(column: SiteColumn, rows: Rows) -> SiteColumn:
    if rows.mark is None or column.since is None:
        return column
    return replace(column, column=column.since)
