"""What is shown while the terminal is too small for anything else."""

from typing import Any

from textual.app import App, ComposeResult
from textual.geometry import Size
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


def cover(app: App[Any], size: Size) -> None:
    """Cover the screen on top where a terminal of this size is too small; uncover it where not."""
    if not app.screen_stack:  # on the way out
        return
    small = size.width < LEAST_WIDTH or size.height < LEAST_HEIGHT
    covered = isinstance(app.screen_stack[-1], TooSmallScreen)
    if small and not covered:
        app.push_screen(TooSmallScreen())
    elif covered and not small:
        app.pop_screen()
