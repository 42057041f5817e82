"""What is shown while the terminal is too small for anything else."""

from textual.app import ComposeResult
from textual.screen import Screen
from textual.strip import Strip

from leaktop.widgets.lines import LinesView

LEAST_WIDTH = 60
LEAST_HEIGHT = 12


class _Notice(LinesView):
    def line(self, y: int) -> Strip:
        line = self.builder()
        middle = max(0, self.size.height // 2 - 1)
        if y == middle:
            line.put("terminal too small:")
        elif y == middle + 1:
            line.put(f"needs {LEAST_WIDTH}x{LEAST_HEIGHT}, q quits")
        return line.strip()


class TooSmallScreen(Screen[None]):
    """Covers everything until the terminal is large enough."""

    def compose(self) -> ComposeResult:
        """Lay out the notice."""
        yield _Notice()
