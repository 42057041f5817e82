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
        self._whole_name = ""
        self._problems: Sequence[str] = ()
        self._lines: list[tuple[str, str]] = []
        self.display = False

    def show(self, name: str, problems: Sequence[str]) -> None:
        """Show a name, on as many lines as it takes, and ``problems``, one line each."""
        self._whole_name, self._problems = name, problems
        self._wrap()

    def on_mount(self) -> None:
        """Show what came before there was a screen."""
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
        if not self.is_mounted:
            return
        size = self.app.size
        width = (self.size.width or size.width) - 2  # it has none while there is nothing to say
        most = _TALL if size.height >= _TALL_SCREEN else _SHORT
        name, problems = chop_cells(self._whole_name, max(10, width)), list(self._problems)
        room = most - bool(problems)
        if len(name) > room:
            name[room - 1 :] = [f"{name[room - 1][:-1]}…"]
        room = most - len(name)
        if len(problems) > room:
            more = len(problems) - room + 1
            problems[room - 1 :] = [f"{more} more modules without names or lines: see ?"]
        lines = [("strong", text) for text in name] + [("dim", text) for text in problems]
        if lines != self._lines:
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
