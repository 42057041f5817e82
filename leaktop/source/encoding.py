"""Snapshots as documents of JSON types, each saying only what is new since the one before.

Frames, their strings and the stacks are in tables, and what follows refers to them by number. A row
of a stack has differences to its row before. Ages become births where that loses nothing, so a
stack that only grows older has no new row.
"""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import fields, replace
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from leaktop.model import LIFETIME_EDGES_S, Counters, Frame, Site, Snapshot
from leaktop.source.blocks import Kind, RecordingError
from leaktop.source.timeline import Tick

_AT_ONCE = 10_000  # stacks in a document
_NS = 1e-9
_FIGURE_MAX = 2**62
_ADDRESS_MAX = 2**64
_NUMBER_MAX = 1e15
_NAME_MAX = 64 << 10
_TABLE_MAX = 4_000_000  # entries of a table

_OWN = {"sites", "time_ns", "elapsed_s"}  # what a snapshot has in rows, or in its Tick
_OTHER_FIELDS = [each.name for each in fields(Snapshot) if each.name not in _OWN]
_FIGURES = ("bytes", "count", "allocs", "frees", "calls", "alloc_bytes")  # only to be added to
_figures_of = attrgetter(*_FIGURES)

Wanted = TypeVar("Wanted")
Document = dict[str, Any]
Packed = tuple[Kind, Document, Tick | None]
Number = Annotated[int, msgspec.Meta(ge=0)]
"""Of an entry of a table; in references to strings 1 more, since 0 is none."""


class FrameRow(msgspec.Struct, array_like=True):
    """A ``Frame``."""

    address: int
    module: Number = 0
    symbol: Number = 0
    offset: int | None = None
    file: Number = 0
    line: int | None = None
    inlined: bool = False
    module_path: Number = 0


class StackRow(msgspec.Struct, array_like=True):
    """What of a ``Site`` stays as it is; ``frames`` are numbers."""

    stack_id: int
    frames: list[Number]
    truncated: bool = False
    pid: int | None = None
    cache: Number = 0


class Tables(msgspec.Struct, omit_defaults=True):
    """What is added to the tables."""

    strings: list[str] = []
    frames: list[FrameRow] = []
    stacks: list[StackRow] = []


class Rows(msgspec.Struct, omit_defaults=True):
    """New rows, column by column; figures are differences to the row before.

    ``oldest`` has differences of births, nanoseconds since counting started, as integers; an age
    that is no whole nanosecond as it is. ``lifetimes`` has null where they are as before.
    """

    stack: list[Number] = []
    figures: list[list[int]] = []
    """A column for each figure of ``model.Counters``; columns of zeros are empty."""
    oldest: list[int | float | None] = []
    exact: list[bool] = []
    lifetimes: list[list[int] | None] = []


class Rest(msgspec.Struct):
    """What ends a snapshot: stacks that are gone, their order where it is new, other fields."""

    gone: list[Number] = []
    order: list[Number] | None = None
    snapshot: dict[str, Any] = {}


class _Row(NamedTuple):
    figures: tuple[int, ...]
    oldest: int | float | None
    exact: bool
    lifetimes: tuple[int, ...]


_ZERO = (0,) * len(_FIGURES)
_NO_ROW = _Row(_ZERO, None, True, ())


class Encoder:
    """Turns snapshots into documents, from tables that begin empty."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {}
        self._frames: dict[Frame, int] = {}
        self._stacks: dict[int, tuple[int, Site]] = {}
        self._stack_count = 0
        self._fresh = Tables()
        self._rows: dict[int, _Row] = {}
        self._other: Document = {}

    def numbers(self, frames: Sequence[Frame]) -> list[int]:
        """Return the numbers of some frames; new ones are in the next ``tables``."""
        return [self._frame(each) for each in frames]

    def tables(self) -> Document:
        """Return what is new in the tables since they were asked for last."""
        fresh, self._fresh = self._fresh, Tables()
        return dict(msgspec.to_builtins(fresh))

    def snapshot(self, snapshot: Snapshot) -> Iterator[Packed]:
        """Yield a snapshot's documents, the one of ``Kind.TICK`` last."""
        elapsed_ns = _whole_ns(snapshot.elapsed_s)
        order: list[int] = []
        changed: list[tuple[int, _Row, _Row]] = []
        for site in snapshot.sites:
            number, row = self._stack(site), _row(site, elapsed_ns)
            order.append(number)
            before = self._rows.get(number)
            # a birth may equal an age
            if row != before or type(row.oldest) is not type(before.oldest):
                changed.append((number, row, before or _NO_ROW))
                self._rows[number] = row
            if len(changed) >= _AT_ONCE:
                yield from self._documents(changed)
                changed = []
        yield from self._documents(changed)
        rest: Document = {"snapshot": self._changes(snapshot)}
        here = set(order)
        if gone := [number for number in self._rows if number not in here]:
            rest["gone"] = gone
            for number in gone:
                del self._rows[number]
        if list(self._rows) != order:
            rest["order"] = order
            self._rows = {number: self._rows[number] for number in order}
        yield Kind.TICK, rest, tick_of(snapshot)

    def _documents(self, changed: list[tuple[int, _Row, _Row]]) -> Iterator[Packed]:
        if tables := self.tables():
            yield Kind.FACTS, tables, None
        if changed:
            yield Kind.ROWS, dict(msgspec.to_builtins(_columns(changed))), None

    def _changes(self, snapshot: Snapshot) -> Document:
        now = {
            name: msgspec.to_builtins(getattr(snapshot, name), enc_hook=dict)
            for name in _OTHER_FIELDS
        }
        before, self._other = self._other, now
        return {k: v for k, v in now.items() if k not in before or before[k] != v}

    def _stack(self, site: Site) -> int:
        known = self._stacks.get(site.stack_id)
        if known is not None and _same_stack(known[1], site):
            return known[0]
        number, self._stack_count = self._stack_count, self._stack_count + 1
        self._stacks[site.stack_id] = number, site
        self._fresh.stacks.append(
            StackRow(
                site.stack_id,
                self.numbers(site.frames),
                site.truncated,
                site.pid,
                self._string(site.cache),
            )
        )
        return number

    def _frame(self, frame: Frame) -> int:
        if (known := self._frames.get(frame)) is not None:
            return known
        row = FrameRow(
            frame.address,
            self._string(frame.module),
            self._string(frame.symbol),
            frame.offset,
            self._string(frame.file),
            frame.line,
            frame.inlined,
            self._string(frame.module_path),
        )
        self._fresh.frames.append(row)
        return self._frames.setdefault(frame, len(self._frames))

    def _string(self, text: str | None) -> int:
        if text is None:
            return 0
        if text not in self._strings:
            self._strings[text] = len(self._strings) + 1
            self._fresh.strings.append(text)
        return self._strings[text]


class Decoder:
    """Turns documents back into snapshots. All methods raise RecordingError."""

    def __init__(self) -> None:
        self._strings: list[str | None] = [None]
        self._frames: list[Frame] = []
        self._stacks: list[tuple[int, tuple[Frame, ...], bool, int | None, str | None]] = []
        self._rows: dict[int, _Row] = {}
        self._other: Document = {}

    def add(self, document: Document) -> None:
        """Take what is new in the tables."""
        fresh = converted(document, Tables)
        if any(len(text) > _NAME_MAX for text in fresh.strings):
            raise _nonsense()
        self._strings += fresh.strings
        for row in fresh.frames:
            self._frames.append(self._frame(row))
        for each in fresh.stacks:
            if not 0 <= each.stack_id < _ADDRESS_MAX:
                raise _nonsense()
            self._stacks.append(
                (
                    each.stack_id,
                    self.frames(each.frames),
                    each.truncated,
                    each.pid,
                    self._string(each.cache),
                )
            )
        if max(len(self._strings), len(self._frames), len(self._stacks)) > _TABLE_MAX:
            raise _nonsense()

    def frames(self, numbers: Sequence[int]) -> tuple[Frame, ...]:
        """Return the frames of these numbers."""
        try:
            return tuple([self._frames[number] for number in numbers])
        except IndexError:
            raise _nonsense() from None

    def restart(self) -> None:
        """Begin again with the first snapshot; the tables stay."""
        self._rows, self._other = {}, {}

    def rows(self, document: Document) -> None:
        """Take new rows of the next snapshot."""
        rows = converted(document, Rows)
        count = len(rows.stack)
        if len(rows.figures) > len(_FIGURES):
            del rows.figures[len(_FIGURES) :]  # of a later minor version
        figures = [column or [0] * count for column in rows.figures]
        figures += [[0] * count for _ in range(len(_FIGURES) - len(figures))]
        lifetimes = rows.lifetimes or [None] * count
        columns: list[Sized] = [*figures, rows.oldest, rows.exact, lifetimes]
        if any(len(column) != count for column in columns):
            raise _nonsense()
        if count and max(rows.stack) >= len(self._stacks):
            raise _nonsense()
        for number, changes, oldest, exact, lived in zip(
            rows.stack,
            zip(*figures, strict=True),
            rows.oldest,
            rows.exact,
            lifetimes,
            strict=True,
        ):
            before = self._rows.get(number, _NO_ROW)
            self._rows[number] = _added(before, changes, oldest, exact, lived)

    def rest(self, document: Document) -> None:
        """Take what ends a snapshot."""
        rest = converted(document, Rest)
        for number in rest.gone:
            self._rows.pop(number, None)
        if rest.order is not None:
            if len(rest.order) != len(self._rows) or set(rest.order) != set(self._rows):
                raise _nonsense()
            self._rows = {number: self._rows[number] for number in rest.order}
        self._other.update(rest.snapshot)

    def snapshot(self, tick: Tick) -> Snapshot:
        """Return the snapshot that the documents so far say."""
        other = {"time_ns": tick.time_ns, "elapsed_s": tick.elapsed_s, "sites": []}
        snapshot = converted(self._other | other, Snapshot)
        if snapshot.filters.sample_rate < 1 or len(self._rows) != tick.sites:
            raise _nonsense()
        elapsed_ns = _whole_ns(tick.elapsed_s)
        sites = tuple([self._site(*each, elapsed_ns) for each in self._rows.items()])
        if len({site.stack_id for site in sites}) != len(sites):
            raise _nonsense()
        return replace(snapshot, sites=sites)

    def _site(self, number: int, row: _Row, elapsed_ns: int | None) -> Site:
        stack_id, frames, truncated, pid, cache = self._stacks[number]
        oldest = row.oldest
        if isinstance(oldest, int):
            if elapsed_ns is None:
                raise _nonsense()
            oldest = (elapsed_ns - oldest) * _NS
        return Site(
            stack_id,
            Counters(*row.figures),
            frames,
            oldest,
            row.exact,
            truncated,
            pid,
            cache,
            row.lifetimes,
        )

    def _frame(self, row: FrameRow) -> Frame:
        for each in (row.address, row.offset or 0, row.line or 0):
            if not -_ADDRESS_MAX < each < _ADDRESS_MAX:
                raise _nonsense()
        return Frame(
            row.address,
            self._string(row.module),
            self._string(row.symbol),
            row.offset,
            self._string(row.file),
            row.line,
            row.inlined,
            self._string(row.module_path),
        )

    def _string(self, number: int) -> str | None:
        try:
            return self._strings[number]
        except IndexError:
            raise _nonsense() from None


def tick_of(snapshot: Snapshot) -> Tick:
    """Return what a time line needs to know of a snapshot."""
    return Tick(
        snapshot.time_ns,
        snapshot.elapsed_s,
        snapshot.totals.bytes,
        sum(snapshot.lost.values()),
        len(snapshot.sites),
        snapshot.note is not None,
    )


def converted(document: Any, wanted: type[Wanted]) -> Wanted:
    """Return a document of JSON types as what it stands for.

    Fields that are not known are left out. Raises RecordingError where it is anything else, or has
    a figure that no figure can be.
    """
    if wanted not in (Tables, Rows):  # which are checked entry by entry
        _check(document)
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError:
        raise _nonsense() from None


def _check(document: Any) -> None:
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, str):
            if len(value) > _NAME_MAX:
                raise _nonsense()
        elif isinstance(value, int):
            if not -_ADDRESS_MAX < value < _ADDRESS_MAX:
                raise _nonsense()
        elif isinstance(value, float) and not -_NUMBER_MAX < value < _NUMBER_MAX:
            raise _nonsense()


def _nonsense() -> RecordingError:
    return RecordingError("the recording says what cannot be")


# Times are made of whole nanoseconds by one multiplication, so most can be had back.
def _whole_ns(seconds: float) -> int | None:
    whole = round(seconds / _NS)
    return whole if whole * _NS == seconds else None


def _row(site: Site, elapsed_ns: int | None) -> _Row:
    held, oldest = site.counters, site.oldest_s
    if oldest is not None and elapsed_ns is not None:
        age_ns = _whole_ns(oldest)
        oldest = float(oldest) if age_ns is None else elapsed_ns - age_ns
    return _Row(_figures_of(held), oldest, site.oldest_exact, site.lifetimes)


def _same_stack(one: Site, other: Site) -> bool:
    return (
        (one.frames is other.frames or one.frames == other.frames)
        and one.truncated == other.truncated
        and one.pid == other.pid
        and one.cache == other.cache
    )


def _columns(changed: Sequence[tuple[int, _Row, _Row]]) -> Rows:
    figures = [
        [now.figures[i] - before.figures[i] for _, now, before in changed]
        for i in range(len(_FIGURES))
    ]
    lifetimes = [
        None if now.lifetimes == before.lifetimes else _differences(now.lifetimes, before.lifetimes)
        for _, now, before in changed
    ]
    return Rows(
        [number for number, _, _ in changed],
        [column if any(column) else [] for column in figures],
        [
            now.oldest - before.oldest
            if isinstance(now.oldest, int) and isinstance(before.oldest, int)
            else now.oldest
            for _, now, before in changed
        ],
        [now.exact for _, now, _ in changed],
        lifetimes if any(each is not None for each in lifetimes) else [],
    )


def _differences(now: tuple[int, ...], before: tuple[int, ...]) -> list[int]:
    if len(now) != len(before):
        return list(now)
    return [a - b for a, b in zip(now, before, strict=True)]


def _added(
    before: _Row,
    changes: tuple[int, ...],
    oldest: int | float | None,
    exact: bool,
    lived: list[int] | None,
) -> _Row:
    figures = tuple([a + b for a, b in zip(before.figures, changes, strict=True)])
    if isinstance(oldest, int):
        oldest += before.oldest if isinstance(before.oldest, int) else 0
        sane = -_FIGURE_MAX < oldest < _FIGURE_MAX
    else:
        sane = oldest is None or 0 <= oldest < _NUMBER_MAX
    lifetimes = before.lifetimes
    if lived is not None:
        if len(lived) == len(lifetimes):
            lifetimes = tuple([a + b for a, b in zip(lifetimes, lived, strict=True)])
        else:
            lifetimes = tuple(lived)
        if len(lifetimes) not in (0, len(LIFETIME_EDGES_S)):
            raise _nonsense()
    all_figures = figures + lifetimes
    if not sane or min(all_figures) <= -_FIGURE_MAX or max(all_figures) >= _FIGURE_MAX:
        raise _nonsense()
    return _Row(figures, oldest, exact, lifetimes)
