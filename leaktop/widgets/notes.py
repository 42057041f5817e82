"""What the rows of a stack have no room for: a whole name, and why others are missing."""

from collections.abc import Mapping, Sequence

from rich.cells import chop_cells
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.model import Frame
from leaktop.widgets.lines import LinesView

_SHORT, _TALL = 3, 8  # lines at most
_TALL_SCREEN = 36


class NotesView(LinesView):
    """A few lines below the frames; there is no such view where there is nothing to say."""

    def __init__(self) -> None:
        super().__init__(id="notes")
        self._name = ""
        self._problems: Sequence[str] = ()
        self._lines: list[tuple[str, str]] = []
        self.display = False

    def show(self, name: str, problems: Sequence[str]) -> None:
        """Show a name, on as many lines as it takes, and ``problems``, one line each."""
        if (name, problems) != (self._name, self._problems):
            self._name, self._problems = name, problems
            self._wrap()

    def on_resize(self) -> None:
        """Wrap to the new width."""
        super().on_resize()
        self._wrap()

    def line(self, y: int) -> Strip:
        """Draw the line at ``y``."""
        line = self.builder()
        if y < len(self._lines):
            style, text = self._lines[y]
            line.put(f" {text}", self.style(style))
        return line.strip()

    def _wrap(self) -> None:
        size = self.app.size
        width = max(10, (self.size.width or size.width) - 2)
        lines = [("strong", part) for part in chop_cells(self._name, width)]
        lines += [("dim", text) for text in self._problems]
        most = _TALL if size.height >= _TALL_SCREEN else _SHORT
        if len(lines) > most:
            more = len(lines) - most + 1
            lines[most - 1 :] = [("dim", f"… {more} more lines, see ?")]
        self._lines = lines
        self.display = bool(lines)
        self.styles.height = len(lines)
        self.repaint()


def problems_of(frames: Sequence[Frame], problems: Mapping[str, str]) -> list[str]:
    """Return the ``problems`` of modules on a stack, in its order, as lines of text.

    Those of files such as a perf map count where a frame in no module has no name.
    """
    modules = dict.fromkeys(frame.module for frame in frames if frame.module)
    found = [name for name in modules if name in problems]
    if any(not f.symbol and (not f.module or f.module.startswith("[")) for f in frames):
        found += [name for name in problems if name.startswith("/")]
    return [f"{fmt.clean(name)}: {fmt.clean(problems[name])}" for name in found]
