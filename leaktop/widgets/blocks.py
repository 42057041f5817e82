"""The live blocks of one stack, of which there may be a million, and what one of them holds."""

from textual.message import Message
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.single_blocks import BlockPage, LiveBlock
from leaktop.widgets.lines import LinesView
from leaktop.widgets.rows import RowsView

_ADDRESS, _SIZE, _AGE, _THREAD, _WEIGHT = 18, 14, 10, 10, 9  # cells


class BlocksView(RowsView):
    """A row a block, oldest first; only those about the visible ones are here."""

    class Wanted(Message):
        """Other blocks are in sight than are here."""

        def __init__(self, offset: int, count: int) -> None:
            super().__init__()
            self.offset = offset
            self.count = count

    def __init__(self) -> None:
        super().__init__(id="blocks")
        self._held: BlockPage | None = None
        self._note = ""
        self._asked: tuple[int, int] | None = None
        self._anew = False

    def begin(self) -> None:
        """Ask for what is in sight, and have it read at every tick from now on."""
        self._asked, self._anew = None, True
        self._ask()

    def show(self, page: BlockPage | None, note: str = "") -> None:
        """Show a page; the selection stays on its block. ``note``: why there is none."""
        selected = self.selected
        self._note = note
        if page is not None:
            self._held = page
            for i, block in enumerate(page.blocks, page.offset):
                if selected and (block.pid, block.address) == (selected.pid, selected.address):
                    self.top, self.index = max(0, self.top + i - self.index), i
                    break
            self.index = min(self.index, max(0, page.total - 1))
        self.settle()
        self.repaint()

    @property
    def lacks(self) -> bool:
        """Whether rows in sight are not here."""
        return self._held is None or any(self._block(row) is None for row in self.visible_rows)

    @property
    def selected(self) -> LiveBlock | None:
        """The block of the selected row, if it is here."""
        return self._block(self.index)

    @property
    def row_count(self) -> int:
        """How many blocks the stack holds."""
        return 0 if self._held is None else self._held.total

    def heading(self) -> Strip:
        """Draw the names of the columns, and which rows are in sight."""
        line = self.builder(self.style("heading")).put(" ")
        line.cell("ADDRESS", _ADDRESS).cell("SIZE", _SIZE, right=True)
        line.cell("AGE", _AGE, right=True).cell("THREAD", _THREAD, right=True)
        return line.cell(f"{self.position} ", line.left, right=True).strip()

    def row(self, index: int, *, selected: bool) -> Strip:
        """Draw the line of a block."""
        line = self.builder(self.style("cursor") if selected else None).put(" ")
        block = self._block(index)
        if block is None:
            return line.put("...", self.style("dim")).strip()
        line.cell(f"{block.address:#x}", _ADDRESS).cell(str(block.size), _SIZE, right=True)
        line.cell(fmt.format_age(block.age_s), _AGE, right=True)
        line.cell(str(block.thread), _THREAD, right=True)
        if block.weight > 1:
            line.cell(f"x{block.weight}", _WEIGHT, right=True)
        return line.strip()

    def empty_line(self, y: int) -> Strip:
        """Say why there is nothing."""
        line = self.builder()
        if y == 1 and not self.row_count:
            reading = "reading the live blocks ..." if self._held is None else "nothing is held now"
            line.put(f" {self._note or reading}", self.style("dim"))
        return line.strip()

    def settle(self) -> None:
        """Keep the selected row in sight, and ask for the blocks that are."""
        super().settle()
        self._ask()

    def _block(self, index: int) -> LiveBlock | None:
        page = self._held
        if page is None or not 0 <= index - page.offset < len(page.blocks):
            return None
        return page.blocks[index - page.offset]

    def _ask(self) -> None:
        if not (self.display and self.size.height):  # then it is asked for with the size
            return
        # a screenful more on either side, so that most keys find theirs
        wanted = (max(0, self.top - self.page), 3 * self.page)
        if (self._anew or self.lacks) and wanted != self._asked:
            self._asked, self._anew = wanted, False
            self.post_message(self.Wanted(*wanted))


class ContentView(LinesView):
    """The first bytes of a block."""

    def __init__(self) -> None:
        super().__init__(id="content")
        self.block: LiveBlock | None = None
        self._data = b""
        self._note = ""

    def begin(self, block: LiveBlock) -> None:
        """Show that a block is being read."""
        self.block, self._data, self._note = block, b"", "reading ..."
        self.repaint()

    def show(self, data: bytes, note: str) -> None:
        """Show what was read, or why nothing was."""
        self._data, self._note = data, note
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the heading or a line of bytes."""
        line = self.builder(self.style("heading") if y == 0 else None).put(" ")
        block = self.block
        if block is None:
            return line.strip()
        if y == 0:
            line.put(f"{block.address:#x}  {block.size} bytes, thread {block.thread}")
            part = "" if len(self._data) == block.size else f"first {len(self._data)} bytes "
            return line.cell(part, line.left, right=True).strip()
        start = (y - 1) * fmt.DUMP_BYTES
        if start < len(self._data):
            line.put(fmt.format_dump(start, self._data[start:]))
        elif y == 1:
            line.put(self._note, self.style("dim"))
        return line.strip()
