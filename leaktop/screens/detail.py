"""One stack: its frames with source, its trend, the ages and sizes of what it holds."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.excerpt import Excerpt
from leaktop.messages import DetailReady, LinesReady
from leaktop.model import Frame, Site, StackDetail
from leaktop.screens.live import LiveScreen, Names
from leaktop.widgets.frames import FramesView, SourceView, no_stack
from leaktop.widgets.histogram import HistogramView, age_label, size_label
from leaktop.widgets.key_hints import KeyHints
from leaktop.widgets.lines import LineBuilder, LinesView
from leaktop.widgets.notes import NotesView, problems_of
from leaktop.widgets.rows import RowsView
from leaktop.widgets.status_bar import FilterLine, Status, StatusBar
from leaktop.widgets.trend import sparkline

_HINTS = (
    ("Esc", "back"),
    ("↑↓", "frame"),
    ("+ -", "sample"),
    ("Space", "pause"),
    ("?", "help"),
    ("q", "quit"),
)
_ASCII_HINTS = (("Esc", "back"), ("j k", "frame"), *_HINTS[2:])
_CACHE_CELLS = 24


class StackHead(LinesView):
    """Two lines of figures on one stack."""

    def __init__(self) -> None:
        super().__init__()
        self._site: Site | None = None
        self._held = True
        self._growth = 0.0
        self._estimated = False
        self._pages = False
        self._detail: StackDetail | None = None
        self._trend: Sequence[int] = ()

    def show_site(
        self, site: Site, growth: float, *, held: bool, estimated: bool, pages: bool
    ) -> None:
        """Show the figures of the last tick; not ``held``: those of when it held something.

        ``pages``: they are of growth mode.
        """
        self._site, self._growth, self._held, self._estimated = site, growth, held, estimated
        self._pages = pages
        self.repaint()

    def show_detail(self, detail: StackDetail | None, trend: Sequence[int]) -> None:
        """Show what the live blocks and the last ticks say."""
        self._detail, self._trend = detail, trend
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the line at ``y``."""
        line = self.builder()
        site, detail, mark = self._site, self._detail, self._estimated
        if site is None:
            return line.strip()
        dim, counters = self.style("dim"), site.counters
        if y == 0:
            line.put(" stack ", dim).put(f"{site.stack_id:x}"[:8])
            if site.cache:
                line.put("  cache ", dim).put(fmt.clean(site.cache, _CACHE_CELLS))
            if not self._held:
                line.put("  holds nothing now; it held", self.style("warn"))
            line.put("  ").put(
                fmt.format_bytes(counters.bytes, estimated=mark), self.style("strong")
            )
            line.put(" in ", dim).put(fmt.format_count(counters.count, estimated=mark))
            average = counters.bytes / counters.count if counters.count else 0
            if self._pages:
                line.put(" new pages", dim)
            else:
                line.put(" blocks of ", dim).put(fmt.format_bytes(average))
            line.put("  growth ", dim)
            line.put(fmt.format_growth(self._growth, estimated=mark) + "/s")
            return line.strip()
        if self._pages:
            line.put(" faults ", dim).put(fmt.format_count(counters.allocs, estimated=mark))
            line.put("  calls of brk and mmap ", dim)
            line.put(fmt.format_count(counters.calls, estimated=mark))
            self._put_trend(line)
            return line.strip()
        exact = detail.oldest_s if detail else None
        oldest = fmt.format_age(site.oldest_s, exact=site.oldest_exact)
        line.put(" oldest ", dim).put(oldest if exact is None else fmt.format_age(exact))
        if detail and detail.newest_s is not None:
            line.put("  newest ", dim).put(fmt.format_age(detail.newest_s))
        line.put("  allocs ", dim).put(fmt.format_count(counters.allocs, estimated=mark))
        line.put("  frees ", dim).put(fmt.format_count(counters.frees, estimated=mark))
        if detail and detail.bytes_error:
            sign = "+-" if self.ascii_only else "±"
            line.put("  error ", dim).put(sign + fmt.format_bytes(detail.bytes_error))
        self._put_trend(line)
        return line.strip()

    def _put_trend(self, line: LineBuilder) -> None:
        if self._trend:
            blocks = sparkline(self._trend, max(8, line.left - 9), ascii_only=self.ascii_only)
            line.put("  trend ", self.style("dim")).put(blocks, self.style("good"))


class DetailScreen(LiveScreen):
    """Everything known of one stack."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,left,h,backspace", "leave", show=False),
    ]

    def __init__(self, site: Site, *, estimated: bool) -> None:
        super().__init__()
        self.site = site
        self._estimated = estimated
        self._frames: Sequence[Frame] = ()
        self._lines: Sequence[Frame] = ()
        self._excerpts: Mapping[int, Excerpt] = {}
        self._problems: Mapping[str, str] = {}
        self.has_detail = False
        self._bar = StatusBar()
        self._filter_line = FilterLine()
        self._head = StackHead()
        self._view = FramesView(id="frames")
        self._notes = NotesView()
        self._source = SourceView()
        self._ages = HistogramView("AGE", age_label, id="ages")
        self._sizes = HistogramView("SIZE", size_label, id="sizes")
        for view in (self._ages, self._sizes):
            view.show(None, note="reading the live blocks ...")

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._bar
        yield self._filter_line
        yield self._head
        with Container(id="body"):
            with Vertical(id="left"):
                yield self._view
                yield self._notes
                yield self._source
            with Container(id="right"):
                yield self._ages
                yield self._sizes
        ascii_only = bool(getattr(self.app, "ascii_only", False))
        yield KeyHints(_ASCII_HINTS if ascii_only else _HINTS)

    def on_mount(self) -> None:
        """Let the keys move through the frames."""
        self._view.focus()

    def show(self, status: Status, names: Names) -> None:
        """Show the state of things."""
        self._bar.show(status)
        self._filter_line.show(status)
        reading = status.reading
        held = False
        if reading is not None:
            self._estimated = reading.snapshot.estimated
            for site in reading.snapshot.sites:
                if site.stack_id == self.site.stack_id:
                    self.site, held = site, True
                    break
        self._head.show_site(
            self.site,
            reading.growth.get(self.site.stack_id, 0.0) if reading else 0.0,
            held=held,
            estimated=self._estimated,
            pages=bool(reading and reading.snapshot.growth),
        )
        self._frames = names.get(self.site.stack_id) or self.site.frames
        self._show_frames()

    def show_names(self, fresh: Names) -> None:
        """Show names that came since."""
        if fresh.get(self.site.stack_id):
            self._frames = fresh[self.site.stack_id]
            self._show_frames()

    def show_lines(self, message: LinesReady) -> None:
        """Show lines, inlined calls and source text."""
        self._lines, self._excerpts = message.frames, message.excerpts
        self._source.set_class(bool(message.excerpts), "shown")
        self._show_frames()

    def show_problems(self, problems: Mapping[str, str]) -> None:
        """Show why modules on the stack have no names or lines."""
        self._problems = problems
        self._show_selected()

    def show_detail(self, message: DetailReady) -> None:
        """Show the ages and sizes of the live blocks; what was there stays where there are none."""
        detail = message.detail
        if detail is None:
            if not self.has_detail:
                self._head.show_detail(None, message.trend)
                for view in (self._ages, self._sizes):
                    view.show(None, note=message.error or "")
            return
        self.has_detail = True
        self._head.show_detail(detail, message.trend)
        self._ages.show(detail.ages, estimated=self._estimated)
        self._sizes.show(detail.sizes, estimated=self._estimated)

    def _show_frames(self) -> None:
        frames = self._lines or self._frames
        self._view.show(
            frames,
            truncated=self.site.truncated,
            empty=f"{no_stack(self.site.stack_id)} (see ?)",
        )
        self._show_selected()

    @on(RowsView.Moved)
    def _show_selected(self) -> None:
        frames = self._lines or self._frames
        self._notes.show(self._view.cut_name, problems_of(frames, self._problems))
        self._source.show(self._view.selected, self._excerpts.get(self._view.index))

    def action_leave(self) -> None:
        """Go back to the table."""
        self.dismiss()
