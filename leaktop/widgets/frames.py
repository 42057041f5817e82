"""One stack's frames, and the source around the selected one."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from rich.cells import cell_len
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.excerpt import Excerpt
from leaktop.model import Frame
from leaktop.names import short_name
from leaktop.widgets.lines import LinesView
from leaktop.widgets.rows import RowsView

_WIDE = 100
_BEFORE_NAME = 5
_UNFILED = 1  # the stack id of all that found no room in the table of stacks


class FramesView(RowsView):
    """The frames, innermost first; inlined calls are marked."""

    def __init__(self, *, id: str | None = None, title: str = "FRAMES, innermost first") -> None:  # noqa: A002
        super().__init__(id=id)
        self._title = title
        self._frames: Sequence[Frame] = ()
        self._truncated = False
        self._empty = ""

    def show(self, frames: Sequence[Frame], *, truncated: bool, empty: str = "") -> None:
        """Show a stack; a selected frame stays selected where inlined calls come in before it."""
        if frames != self._frames:
            self.index = self._find(frames)
        self._frames, self._truncated, self._empty = frames, truncated, empty
        self.index = min(self.index, max(0, self.row_count - 1))
        self.settle()
        self.repaint()

    def _find(self, frames: Sequence[Frame]) -> int:
        if not self.index or not self._frames:
            return 0
        if self.index >= len(self._frames):
            return len(frames)
        old = self._frames[self.index]
        for i, frame in enumerate(frames):
            if frame.address == old.address and frame.inlined == old.inlined:
                return i
        return min(self.index, max(0, len(frames) - 1))

    @property
    def row_count(self) -> int:
        """How many frames there are, and one more row where the stack was cut."""
        return len(self._frames) + self._is_cut

    @property
    def selected(self) -> Frame | None:
        """The selected frame."""
        return self._frames[self.index] if self.index < len(self._frames) else None

    @property
    def cut_name(self) -> str:
        """The selected frame's whole name, where its row has no room for it; else empty."""
        frame = self.selected
        if frame is None or not frame.symbol or not self.size.width:
            return ""
        if cell_len(_label(frame)) <= self._room(frame):
            return ""
        return fmt.clean(frame.symbol)

    @property
    def _is_cut(self) -> bool:
        return self._truncated and bool(self._frames)

    # Where there is too little room, the name is cut before the place, and the module goes.
    def _room(self, frame: Frame) -> int:
        left = self.size.width - _BEFORE_NAME
        return max(left - cell_len(self._place(frame)) - 2, left // 2)

    def _place(self, frame: Frame) -> str:
        return _place(frame, whole=self.size.width >= _WIDE)

    def heading(self) -> Strip:
        """Draw the title."""
        line = self.builder(self.style("heading"))
        line.put(f" {self._title}{', cut' if self._is_cut else ''}")
        return line.cell(self.position + " ", line.left, right=True).strip()

    def row(self, index: int, *, selected: bool) -> Strip:
        """Draw one frame."""
        selected = selected and self.can_focus
        dim = None if selected else self.style("dim")
        line = self.builder(self.style("cursor") if selected else None)
        line.put("▸" if selected else " ")
        if index == len(self._frames):
            style = None if selected else self.style("warn")
            return line.put("   … the stack goes on: it was cut here", style).strip()
        frame = self._frames[index]
        line.cell(str(index), _BEFORE_NAME - 2, dim, right=True).put(" ")
        place, room = self._place(frame), self._room(frame)
        name = line.safe(_label(frame))
        if cell_len(name) > room:
            name = line.safe(_label(frame, room))
        line.cell(name, min(cell_len(name), room))
        module = "" if frame.inlined else module_text(frame)
        if cell_len(module) <= line.left - cell_len(place) - 2:
            line.put(module, dim)
        line.cell(f" {place} ", line.left, None if selected else self.style("good"), right=True)
        return line.strip()

    def empty_line(self, y: int) -> Strip:
        """Say why there is no stack."""
        line = self.builder()
        if not self._frames and y == 1:
            line.put(f"   {self._empty}", self.style("dim"))
        return line.strip()


class SourceView(LinesView):
    """Source lines around a frame, its own one marked."""

    def __init__(self) -> None:
        super().__init__(id="source")
        self._frame: Frame | None = None
        self._excerpt: Excerpt | None = None

    def show(self, frame: Frame | None, excerpt: Excerpt | None) -> None:
        """Show the text around ``frame``, where there is any."""
        self._frame, self._excerpt = frame, excerpt
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the title or a source line."""
        frame, excerpt = self._frame, self._excerpt
        if y == 0:
            title = self.builder(self.style("heading"))
            place = "" if frame is None else _place(frame, whole=True)
            return title.put(f" SOURCE {place}").strip()
        line = self.builder()
        if frame is None or excerpt is None or frame.line is None:
            if y == 1:
                line.put(f"   {_no_source(frame)}", self.style("dim"))
            return line.strip()
        rows = self.size.height - 1
        own = frame.line - excerpt.first
        top = max(0, min(own - rows // 2, len(excerpt.lines) - rows))
        index = top + y - 1
        if index >= len(excerpt.lines):
            return line.strip()
        here = index == own
        line.put("▸" if here else " ", self.style("strong"))
        line.cell(f"{excerpt.first + index}", 5, self.style("dim"), right=True)
        return line.put(f" {excerpt.lines[index]}", self.style("strong") if here else None).strip()


def module_text(frame: Frame) -> str:
    """Return the module in brackets, which pseudo names such as ``[vdso]`` carry already."""
    if not frame.module:
        return ""
    module = fmt.clean(frame.module, 64)
    return f" {module}" if module.startswith("[") else f" [{module}]"


def no_stack(stack_id: int) -> str:
    """Return why a stack has no frames."""
    if stack_id == _UNFILED:
        return "no stack: the table of stacks was full"
    return "no stack: it could not be read"


# The name shortened where ``room`` is given, with what tells where in the function it is.
def _label(frame: Frame, room: int | None = None) -> str:
    if not frame.symbol:
        return f"{frame.address:#x}"
    before, after = ("inlined: ", "") if frame.inlined else ("", "")
    if frame.offset is not None and not frame.inlined:
        after = f"+{frame.offset:#x}"
    symbol = frame.symbol
    if room is not None:
        symbol = short_name(symbol, room - len(before) - len(after))
    return f"{before}{fmt.clean(symbol)}{after}"


def _place(frame: Frame, *, whole: bool) -> str:
    if not frame.file:
        return ""
    path = fmt.clean(frame.file) if whole else fmt.clean(PurePosixPath(frame.file).name, 40)
    return f"{path}:{frame.line}" if frame.line else path


def _no_source(frame: Frame | None) -> str:
    if frame is None:
        return ""
    if not frame.file:
        return "no debug information names a line here"
    return "the source file is not readable here"
