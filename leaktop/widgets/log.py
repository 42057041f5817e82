"""What one stack does: the last allocations and frees, the newest at the bottom."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from textual.strip import Strip

from leaktop import format as fmt
from leaktop.single_blocks import Event, EventKind
from leaktop.widgets.rows import RowsView

KEPT = 1000
"""Events that are kept to look back at."""
_TIME, _KIND, _SIZE, _ADDRESS, _THREAD, _WEIGHT = 17, 6, 11, 18, 10, 9  # cells


class LogView(RowsView):
    """A row an event; while the last one is selected, what comes is."""

    def __init__(self) -> None:
        super().__init__(id="log")
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._coming: deque[Event] = deque(maxlen=KEPT)
        self._seen = 0
        self._dropped = 0
        self._dropped_before = 0
        self._note = ""
        self._paused = False

    def begin(self) -> None:
        """Forget what was logged before."""
        self._events.clear()
        self._coming.clear()
        self._seen, self._dropped_before, self._note = 0, self._dropped, ""
        self.index = self.top = 0
        self.repaint()

    def add(self, events: Sequence[Event], count: int, note: str) -> None:
        """Show events, the last of ``count`` that came; while paused, once that ends.

        ``note``: why there is no log.
        """
        self._coming.extend(events)
        self._seen += count
        self._note = note
        self._flush()

    def show(self, *, paused: bool, dropped: int) -> None:
        """Take note of pauses, and of the events that found no room in all."""
        self._paused, self._dropped = paused, dropped
        self._flush()

    @property
    def row_count(self) -> int:
        """How many events are here."""
        return len(self._events)

    def heading(self) -> Strip:
        """Draw the names of the columns, and how many events came."""
        line = self.builder(self.style("heading")).put(" ")
        line.cell("TIME", _TIME).cell("WHAT", _KIND).cell("SIZE", _SIZE, right=True)
        line.put("  ").cell("ADDRESS", _ADDRESS).cell("THREAD", _THREAD, right=True)
        came, lost = fmt.format_count(self._seen), self._dropped - self._dropped_before
        says = f"{came}, {fmt.format_count(lost)} lost " if lost else f"{came} events "
        return line.cell(says, line.left, right=True).strip()

    def row(self, index: int, *, selected: bool) -> Strip:
        """Draw the line of an event."""
        line = self.builder(self.style("cursor") if selected else None).put(" ")
        event = self._events[index]
        when = datetime.fromtimestamp(event.time_ns // 1000 / 1e6).astimezone()
        kind = None if selected or event.kind is EventKind.ALLOC else self.style("good")
        line.cell(f"{when:%H:%M:%S.%f}", _TIME).cell(event.kind, _KIND, kind)
        line.cell(str(event.size), _SIZE, right=True).put("  ")
        line.cell(f"{event.address:#x}", _ADDRESS).cell(str(event.thread), _THREAD, right=True)
        if event.weight > 1:
            line.cell(f"x{event.weight}", _WEIGHT, right=True)
        return line.strip()

    def empty_line(self, y: int) -> Strip:
        """Say that nothing came yet."""
        line = self.builder()
        if y == 1 and not self._events:
            waiting = "nothing yet: what this stack allocates and frees comes here"
            line.put(f" {self._note or waiting}", self.style("dim"))
        return line.strip()

    def _flush(self) -> None:
        if not self._paused and self._coming:
            follows = self.index >= self.row_count - 1
            gone = max(0, self.row_count + len(self._coming) - KEPT)
            self._events.extend(self._coming)
            self._coming.clear()
            self.top = max(0, self.top - gone)
            self.index = self.row_count - 1 if follows else max(0, self.index - gone)
            self.settle()
        self.repaint()
