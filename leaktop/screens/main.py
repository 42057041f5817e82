"""The main screen: status, filters and the table of stacks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from leaktop import format as fmt
from leaktop.analyze import Reading, haystack, ordered, text_filter
from leaktop.command import Command
from leaktop.ignore import NOTHING_IGNORED
from leaktop.model import UNLIMITED, Filters, Frame, Site, SortKey, Target
from leaktop.screens.live import LiveScreen, Names, Wish
from leaktop.widgets.filter_bar import FilterBar
from leaktop.widgets.frames import FramesView, no_stack
from leaktop.widgets.key_hints import KeyHints
from leaktop.widgets.output_pane import OutputPane
from leaktop.widgets.rows import RowsView
from leaktop.widgets.site_columns import Rows
from leaktop.widgets.site_table import SiteTable
from leaktop.widgets.status_bar import FilterLine, Stage, Status, StatusBar
from leaktop.widgets.time_line import TimeLine
from leaktop.widgets.verdict import VerdictLine

_HINTS = (
    ("Enter", "open"),
    ("s", "sort"),
    ("r", "reverse"),
    ("f", "frame"),
    ("t", "tree"),
    ("m d", "mark, grown"),
    ("/", "filter"),
    ("z Z", "min and max size"),
    ("+ -", "sample rate"),
    ("i", "ignore"),
    ("X", "mode"),
    ("e", "export"),
    ("Space", "pause"),
    ("?", "help"),
    ("q", "quit"),
)
_SHORT_HINTS = (
    ("Enter", "open"),
    ("s", "sort"),
    ("r", "rev"),
    ("/", "filter"),
    ("zZ", "size"),
    ("+-", "rate"),
    ("p", "pause"),
    ("?", "help"),
    ("q", "quit"),
    ("f", "frame"),  # last, since there is no room for all of them at 80 columns
)
_RESUME_S = 0.25
_REPLAY_HINTS = (
    ("Space", "play"),
    ("← →", "step"),
    ("[ ]", "a minute"),
    ("{ }", "begin and end"),
    ("x", "speed"),
    *(hint for hint in _HINTS if hint[0] not in ("z Z", "+ -", "Space")),
)
_SHORT_REPLAY_HINTS = (
    ("Space", "play"),
    ("←→", "step"),
    ("[]", "1m"),
    ("{}", "ends"),
    ("x", "speed"),
    ("Enter", "open"),
    ("/", "filter"),
    ("?", "help"),
    ("q", "quit"),
)


class MainScreen(LiveScreen):
    """All stacks in order; owns the order and the text filter."""

    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,greater_than_sign", "sort(1)", show=False),
        Binding("less_than_sign", "sort(-1)", show=False),
        Binding("r", "reverse", show=False),
        Binding("f", "innermost", show=False),
        Binding("slash", "edit('text')", show=False),
        Binding("z", "edit('min')", show=False),
        Binding("Z", "edit('max')", show=False),
        Binding("t", "tree", show=False),
        Binding("o", "output", show=False),
        Binding("i", "ignore", show=False),
        Binding("X", "switch", show=False),
        Binding("escape", "clear", show=False),
    ]

    class FiltersEdited(Wish):
        """Other filters are wanted."""

        def __init__(self, filters: Filters) -> None:
            super().__init__()
            self.filters = filters

    class TreeOpened(Wish):
        """The call tree is to be looked at."""

    class SwitchWanted(Message):
        """The other mode is wanted."""

    class Left(Message):
        """Esc with nothing left to clear."""

    def __init__(
        self,
        status: Status,
        sort: SortKey,
        command: Command | None = None,
        *,
        picked: bool = False,
        columns: Sequence[str] = (),
    ) -> None:
        """Show ``status``.

        ``command``: the target, where leaktop started it; its output can be shown. Where the target
        was ``picked``, Esc leads back to the picker. ``columns``: names of those wanted, in order.
        """
        super().__init__()
        self._back = (("Esc", "processes"),) if picked else ()
        self.sort = sort
        self.reverse = False
        self.innermost = False
        self.pattern = ""
        self._status = status
        self._names: Names = {}
        self._ordered_for: tuple[object, ...] = (None,)
        self._order: Sequence[Site] = ()
        self._texts: dict[int, tuple[Sequence[Frame], str]] = {}
        self._processes: Mapping[int, Target] = {}
        self._resume_pending = False
        self._bar = StatusBar()
        self._time_line = TimeLine()
        self._line = FilterLine()
        self._filters = FilterBar(self._line)
        self.table = SiteTable(columns)
        self._stack = FramesView(id="peek", title="STACK of the selected row, innermost first")
        self._stack.can_focus = False
        self._verdict = VerdictLine()
        self._output = OutputPane(command) if command and command.output else None

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._bar
        yield self._filters
        yield self.table
        yield self._stack
        yield self._verdict
        yield self._time_line
        if self._status.playback is not None:
            arrows = {"← →": ", .", "←→": ",."} if self._bar.ascii_only else {}
            hints = [
                [(arrows.get(key, key), word) for key, word in each]
                for each in (_REPLAY_HINTS, _SHORT_REPLAY_HINTS)
            ]
            yield KeyHints(*hints)
        elif self._output is None:
            yield KeyHints((*self._back, *_HINTS), (*self._back, *_SHORT_HINTS))
        else:
            yield self._output
            shorter = [hint for hint in _SHORT_HINTS if hint[0] != "r"]
            yield KeyHints((("o", "output"), *_HINTS), (("o", "out"), *shorter))

    def on_mount(self) -> None:
        """Show what there is before the first snapshot."""
        self.table.focus()
        self.show(self._status, {})

    def show(self, status: Status, names: Names) -> None:
        """Show the state of things."""
        self._status, self._names = replace(status, pattern=self.pattern), names
        self._bar.show(self._status)
        self._line.show(self._status)
        self._time_line.show(self._status.playback)
        self._show_rows()

    @property
    def stack(self) -> Site | None:
        """The stack that is selected."""
        return self.table.selected

    def show_names(self, fresh: Names) -> None:
        """Show names that came since; with a text filter they may bring rows in or out."""
        self.table.show_names(fresh)
        self._peek()
        if self.pattern:
            self.resume_soon()

    def resume_soon(self) -> None:
        """Ask for the state of things a little later: names come in many small lots."""
        if not self._resume_pending:
            self._resume_pending = True
            self.set_timer(_RESUME_S, self._resume)

    def _resume(self) -> None:
        self._resume_pending = False
        self.post_message(self.Resumed())

    def _show_rows(self) -> None:
        status, reading = self._status, self._status.reading
        sites: Sequence[Site] = ()
        if reading is not None:
            sites = self._passing(self._ordered(reading))
        self.table.show(
            Rows(
                sites=sites,
                growth=reading.growth if reading else {},
                suspicion=reading.suspicion if reading else {},
                names=self._names,
                sort=self.sort,
                reverse=self.reverse,
                innermost=self.innermost,
                estimated=bool(reading and reading.snapshot.estimated),
                pages=bool(reading and reading.snapshot.growth),
                mark=status.mark,
                processes=self._processes,
                ignored=status.ignored.entries,
                empty=self._why_empty(status),
            )
        )
        self._peek()
        self.post_message(self.NamesWanted())

    # Between two ticks the state changes more than once (a recording grows, say), and to sort
    # thousands of stacks is most of what showing it costs.
    def _ordered(self, reading: Reading) -> Sequence[Site]:
        mark = self._status.mark
        asked = (reading, self.sort, self.reverse, mark)
        if not all(map(is_, asked, self._ordered_for)):
            self._ordered_for = asked
            self._order = ordered(reading, self.sort, reverse=self.reverse, mark=mark)
        return self._order

    def shown(self, status: Status, names: Names) -> Sequence[Site]:
        """Return the stacks of ``status`` that the table would show, in no order."""
        self._status, self._names = replace(status, pattern=self.pattern), names
        return () if status.reading is None else self._passing(status.reading.snapshot.sites)

    def _passing(self, sites: Sequence[Site]) -> Sequence[Site]:
        status = self._status
        states = () if status.reading is None else status.reading.snapshot.processes
        self._processes = {each.target.pid: each.target for each in states}
        hidden = NOTHING_IGNORED if status.show_ignored else status.ignored
        sites = hidden.rest(sites)
        if status.only_grown and (mark := status.mark) is not None:
            sites = [site for site in sites if mark.grew(site)]
        return self._matching(sites)

    def _matching(self, sites: Sequence[Site]) -> Sequence[Site]:
        if not self.pattern:
            self._texts.clear()
            return sites
        keep = text_filter(self.pattern)
        kept, texts = [], {}
        for site in sites:
            frames = self._names.get(site.stack_id) or site.frames
            known = self._texts.get(site.stack_id)
            if known is None or known[0] is not frames:
                process = self._processes.get(site.pid or 0)
                known = (frames, haystack(frames, process, site.cache))
            texts[site.stack_id] = known
            if keep(known[1]):
                kept.append(site)
        self._texts = texts
        return kept

    def _why_empty(self, status: Status) -> str:
        if status.stage is Stage.STARTING:
            return f"{status.progress or 'attaching'} ..."
        if status.reading is None:
            return "waiting for the first snapshot" if status.stage is Stage.TRACING else ""
        if status.reading.snapshot.sites:
            return self._why_hidden(status)
        if status.reading.snapshot.growth is not None:
            return "no page fault has brought a new page since"
        return "nothing that was allocated since is still held"

    def _why_hidden(self, status: Status) -> str:
        if self.pattern:
            return f"no stack matches /{self.pattern} (Esc shows all)"
        if status.only_grown:
            return "nothing has grown since the mark (d shows all)"
        return "all that is held is ignored (I shows it)"

    def _peek(self) -> None:
        site = self.table.selected
        frames = () if site is None else self._names.get(site.stack_id) or site.frames
        self._stack.show(
            frames,
            truncated=bool(site and site.truncated),
            empty=no_stack(site.stack_id) if site else "",
        )
        verdicts = reading.verdicts if (reading := self._status.reading) else {}
        verdict = verdicts.get(site.stack_id) if site else None
        self._verdict.show(verdict, judged=bool(verdicts))

    @on(RowsView.Moved)
    def _moved(self) -> None:
        self._peek()
        self.post_message(self.NamesWanted())

    @on(RowsView.Opened)
    def _opened(self) -> None:
        if (site := self.table.selected) is not None:
            self.post_message(self.StackOpened(site))

    @on(SiteTable.SortClicked)
    def _sort_clicked(self, event: SiteTable.SortClicked) -> None:
        if event.key is self.sort:
            self.reverse = not self.reverse
        self.sort = event.key
        self._show_rows()

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        keys = list(SortKey)
        self.sort = keys[(keys.index(self.sort) + step) % len(keys)]
        self._show_rows()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self.reverse = not self.reverse
        self._show_rows()

    def action_innermost(self) -> None:
        """Show the innermost frame of each stack, or again the one that matters."""
        self.innermost = not self.innermost
        self._show_rows()

    def action_tree(self) -> None:
        """Look at the stacks as a tree of calls."""
        self.post_message(self.TreeOpened())

    def action_ignore(self) -> None:
        """Ignore the selected stack, or no longer."""
        if (site := self.table.selected) is not None:
            self.post_message(self.IgnoreToggled(site))

    def action_output(self) -> None:
        """Show the command's output, or hide it; while it has the focus, keys scroll it."""
        if self._output is not None:
            self.toggle_class("with-output")
            shown = self.has_class("with-output")
            (self._output if shown else self.table).focus()

    def action_switch(self) -> None:
        """Go from exact tracing to growth mode, or back."""
        self.post_message(self.SwitchWanted())

    def action_clear(self) -> None:
        """Hide the output where it has the focus, else drop the text filter, else leave."""
        if self._output is not None and self._output.has_focus:
            self.action_output()
        elif self.pattern:
            self._set_pattern("")
        else:
            self.post_message(self.Left())

    def action_edit(self, field: str) -> None:
        """Edit a filter in place."""
        filters = self._status.filters
        limit = "" if filters.max_size == UNLIMITED else _exact(filters.max_size)
        least = _exact(filters.min_size) if filters.min_size else ""
        text = {"min": least, "max": limit, "text": self.pattern}[field]
        self._filters.edit(field, text)

    @on(FilterBar.Changed)
    def _edited(self, event: FilterBar.Changed) -> None:
        if event.field == "text":
            self._set_pattern(event.text)

    @on(FilterBar.Submitted)
    def _submitted(self, event: FilterBar.Submitted) -> None:
        if event.field != "text":
            try:
                filters = _with_limit(self._status.filters, event.field, event.text.strip())
            except ValueError as error:
                self._filters.refuse(str(error))
                return
            self.post_message(self.FiltersEdited(filters))
        self._end_edit()

    @on(FilterBar.Cancelled)
    def _cancelled(self, event: FilterBar.Cancelled) -> None:
        if event.field == "text":
            self._set_pattern("")
        self._end_edit()

    def _end_edit(self) -> None:
        self._filters.close()
        self.table.focus()

    def _set_pattern(self, pattern: str) -> None:
        if pattern != self.pattern:
            self.pattern = pattern
            self.show(self._status, self._names)


# Raises ValueError with a text for people.
def _with_limit(filters: Filters, field: str, text: str) -> Filters:
    if field == "min":
        filters = replace(filters, min_size=fmt.parse_bytes(text) if text else 0)
    else:
        unlimited = text.lower() in ("", "none")
        filters = replace(filters, max_size=UNLIMITED if unlimited else fmt.parse_bytes(text))
    if filters.min_size > filters.max_size:
        raise ValueError(
            f"min {_exact(filters.min_size)} is above max {_exact(filters.max_size)}: "
            "no size would pass"
        )
    return filters


# The shortest text that parse_bytes turns back into the same number.
def _exact(size: int) -> str:
    for unit, factor in (("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
