"""The top of the picker: how many processes, the memory of the machine, and what is going on."""

import textwrap
from dataclasses import dataclass

from rich.cells import cell_len
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.candidates import Processes
from leaktop.widgets.lines import LinesView

_ALERT_LINES = 3


@dataclass(frozen=True, slots=True)
class PickerStatus:
    """All that the top of the picker says."""

    listing: Processes | None = None
    paused: bool = False
    warning: str = ""
    """What attaching needs and is not there."""
    attaching: str = ""
    """The process that is being attached to, and the step."""
    detaching: str = ""
    """Those that were left and are still being detached from."""
    failed: str = ""
    """Why attaching failed."""


class PickerBar(LinesView):
    """One line of figures, and one for each thing that needs attention."""

    def __init__(self) -> None:
        super().__init__()
        self._status = PickerStatus()
        self._alerts: list[tuple[str, str]] = []

    def show(self, status: PickerStatus) -> None:
        """Show ``status``."""
        self._status = status
        self._wrap()
        self.repaint()

    def on_resize(self) -> None:
        """Wrap what needs attention to the new width."""
        self._wrap()
        super().on_resize()

    # What to do about it comes last in a message, so none is cut while three lines are enough.
    def _wrap(self) -> None:
        width = max(20, self.size.width - 2)
        self._alerts = [
            (style, line)
            for style, text in _alerts(self._status)
            for line in textwrap.wrap(text, width, max_lines=_ALERT_LINES, subsequent_indent="  ")
        ]
        height = 1 + len(self._alerts)
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height

    def line(self, y: int) -> Strip:
        """Draw the line at ``y``."""
        line = self.builder()
        if y > 0:
            if y - 1 < len(self._alerts):
                style, text = self._alerts[y - 1]
                line.put(f" {text}", self.style(style))
            return line.strip()
        dim, listing = self.style("dim"), self._status.listing
        line.put(" leaktop ", self.style("title")).put(" which process?", self.style("strong"))
        if listing is not None:
            line.put(f"   {fmt.format_count(len(listing.processes))}").put(" processes", dim)
            if listing.memory_total:
                line.put(f"   {fmt.format_bytes(listing.memory_available)}").put(" of ", dim)
                line.put(fmt.format_bytes(listing.memory_total)).put(" available", dim)
        if self._status.paused:
            state = "[PAUSED]"
            line.put(" " * max(1, line.left - cell_len(state) - 1))
            line.put(state, self.style("warn"))
        return line.strip()


class PatternLine(LinesView):
    """The text filter in force, and how many it lets through."""

    def __init__(self) -> None:
        super().__init__()
        self._pattern = ""
        self._shown = self._all = 0

    def show(self, pattern: str, shown: int, among: int) -> None:
        """Show the filter ``pattern``, which lets ``shown`` through."""
        self._pattern, self._shown, self._all = pattern, shown, among
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the line."""
        line = self.builder().put(" text ", self.style("dim"))
        if not self._pattern:
            return line.put("none").strip()
        line.put(f"/{self._pattern} ", self.style("warn"))
        return line.put(f" {self._shown} of {self._all} processes", self.style("dim")).strip()


def _alerts(status: PickerStatus) -> list[tuple[str, str]]:
    alerts = []
    if status.warning:
        alerts.append(("warn", f"! {status.warning}"))
    if status.detaching:
        alerts.append(("dim", f"detaching from {status.detaching} ..."))
    if status.failed:
        alerts.append(("bad", f"! NOT ATTACHED: {status.failed}"))
    if status.attaching:
        alerts.append(("strong", f"{status.attaching} ... (Esc stops it)"))
    return alerts
