"""The process picker: what runs on this machine, what grows first."""

from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from leaktop.analyze import ordered_processes, process_text, text_filter
from leaktop.candidates import Process, Processes, ProcessSort
from leaktop.widgets.filter_bar import FilterBar
from leaktop.widgets.key_hints import KeyHints
from leaktop.widgets.picker_bar import PatternLine, PickerBar, PickerStatus
from leaktop.widgets.process_table import WIDE, ProcessRows, ProcessTable
from leaktop.widgets.rows import RowsView

_HINTS = (
    ("Enter", "attach"),
    ("s", "sort"),
    ("r", "reverse"),
    ("/", "filter"),
    ("Space", "pause"),
    ("?", "help"),
    ("q", "quit"),
)
_WIDE_ONLY = (ProcessSort.THREADS, ProcessSort.AGE)


class PickerScreen(Screen[None]):
    """All processes in order; owns the order, the text filter and the pause."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,greater_than_sign", "sort(1)", show=False),
        Binding("less_than_sign", "sort(-1)", show=False),
        Binding("r", "reverse", show=False),
        Binding("slash", "edit", show=False),
        Binding("space,p", "pause", show=False),
        Binding("escape", "clear", show=False),
    ]

    class Picked(Message):
        """One process is to be attached to."""

        def __init__(self, process: Process) -> None:
            super().__init__()
            self.process = process

    class Cancelled(Message):
        """Esc with nothing left to clear: attaching is to end, and what failed was read."""

    class Resumed(Message):
        """The picker is on top again."""

    def __init__(self, warning: str) -> None:
        """``warning``: what attaching needs and is not there."""
        super().__init__()
        self.sort = ProcessSort.GROWTH
        self.reverse = False
        self.pattern = ""
        self.status = PickerStatus(warning=warning)
        self._latest: Processes | None = None
        self._bar = PickerBar()
        self._line = PatternLine()
        self._filter = FilterBar(self._line)
        self.table = ProcessTable()

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._bar
        yield self._filter
        yield self.table
        yield KeyHints(_HINTS)

    def on_mount(self) -> None:
        """Show what there is before the first reading."""
        self.table.focus()
        self._update()

    def on_screen_resume(self) -> None:
        """Say that what waited for the picker may go on."""
        self.post_message(self.Resumed())

    def show(self, listing: Processes) -> None:
        """Show the processes as they are now, unless it is paused."""
        self._latest = listing
        if not self.status.paused:
            self._change(listing=listing)

    def note(self, **changes: str) -> None:
        """Show what is going on: fields of ``PickerStatus``."""
        self._change(**changes)

    def _change(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]
        self._update()

    def _update(self) -> None:
        self._bar.show(self.status)
        listing = self.status.listing or Processes()
        found = listing.processes
        if self.pattern:
            keep = text_filter(self.pattern)
            found = [process for process in found if keep(process_text(process))]
        self._line.show(self.pattern, len(found), len(listing.processes))
        self.table.show(
            ProcessRows(
                processes=ordered_processes(found, self.sort, reverse=self.reverse),
                existing={process.key for process in listing.processes},
                memory_total=listing.memory_total,
                sort=self.sort,
                reverse=self.reverse,
                empty=self._why_empty(listing),
            )
        )

    def _why_empty(self, listing: Processes) -> str:
        if self.status.listing is None:
            return "reading /proc ..."
        if listing.processes:
            return f"no process matches /{self.pattern} (Esc shows all)"
        return "/proc shows no process"

    @on(RowsView.Opened)
    def _opened(self) -> None:
        if (process := self.table.selected) is not None:
            self.post_message(self.Picked(process))

    @on(ProcessTable.SortClicked)
    def _sort_clicked(self, event: ProcessTable.SortClicked) -> None:
        self.reverse = event.key is self.sort and not self.reverse
        self.sort = event.key
        self._update()

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        shown = self.size.width >= WIDE
        keys = [key for key in ProcessSort if shown or key not in _WIDE_ONLY or key is self.sort]
        self.sort = keys[(keys.index(self.sort) + step) % len(keys)]
        self._update()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self.reverse = not self.reverse
        self._update()

    def action_pause(self) -> None:
        """Freeze the list, or let it go on."""
        self._change(paused=not self.status.paused)
        if not self.status.paused and self._latest is not None:
            self.show(self._latest)

    def action_clear(self) -> None:
        """Stop attaching; else drop the text filter; else what failed."""
        if self.pattern and not self.status.attaching:
            self._set_pattern("")
        else:
            self.post_message(self.Cancelled())

    def action_edit(self) -> None:
        """Edit the text filter in place."""
        self._filter.edit("text", self.pattern)

    @on(FilterBar.Changed)
    def _edited(self, event: FilterBar.Changed) -> None:
        self._set_pattern(event.text)

    @on(FilterBar.Submitted)
    def _submitted(self) -> None:
        self._end_edit()

    @on(FilterBar.Cancelled)
    def _edit_cancelled(self) -> None:
        self._set_pattern("")
        self._end_edit()

    def _end_edit(self) -> None:
        self._filter.close()
        self.table.focus()

    def _set_pattern(self, pattern: str) -> None:
        if pattern != self.pattern:
            self.pattern = pattern
            self._update()
