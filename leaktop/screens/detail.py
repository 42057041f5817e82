"""One stack: its frames with source, its trend, the ages and sizes of what it holds."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.bands import age_label, size_label
from leaktop.excerpt import Excerpt
from leaktop.marks import Mark
from leaktop.messages import BlockRead, BlocksReady, DetailReady, EventsReady, LinesReady
from leaktop.model import Counters, Frame, Site, StackDetail, Trend
from leaktop.screens.live import LiveScreen, Names, Wish
from leaktop.single_blocks import LiveBlock
from leaktop.widgets.blocks import BlocksView, ContentView
from leaktop.widgets.chart import ChartView
from leaktop.widgets.frames import FramesView, SourceView, no_stack
from leaktop.widgets.histogram import HistogramView
from leaktop.widgets.key_hints import KeyHints
from leaktop.widgets.lifetimes import LifetimesView
from leaktop.widgets.lines import LineBuilder, LinesView
from leaktop.widgets.log import LogView
from leaktop.widgets.notes import NotesView, problems_of
from leaktop.widgets.rows import RowsView
from leaktop.widgets.status_bar import FilterLine, Status, StatusBar
from leaktop.widgets.time_line import TimeLine
from leaktop.widgets.trend import trend_text
from leaktop.widgets.verdict import VerdictLine

_CACHE_CELLS = 24
_TREND_CELLS = 120
_LATE_S = 3.0  # ages and sizes that are this old say so


class Pane(Enum):
    """What takes the room of the frames."""

    FRAMES = "frames"
    BLOCKS = "blocks"
    CONTENT = "content"
    LOG = "log"


_COMMON = (("Space", "pause"), ("?", "help"), ("q", "quit"))
_HINTS = {
    Pane.FRAMES: (("↑↓", "frame"), ("a", "blocks"), ("l", "log"), ("+ -", "sample"), *_COMMON),
    Pane.BLOCKS: (("↑↓", "block"), ("Enter", "content"), ("l", "log"), *_COMMON),
    Pane.CONTENT: (("a", "blocks"), ("l", "log"), *_COMMON),
    Pane.LOG: (("↑↓", "look back"), ("G", "follow"), ("a", "blocks"), *_COMMON),
}


_OF_BLOCKS = ("blocks", "log")


def _hints(pane: Pane, *, ascii_only: bool) -> list[tuple[str, str]]:
    keys = [("j k" if ascii_only and key == "↑↓" else key, word) for key, word in _HINTS[pane]]
    return [("Esc", "back"), *keys]


class StackHead(LinesView):
    """Two lines of figures on one stack."""

    def __init__(self) -> None:
        super().__init__()
        self._site: Site | None = None
        self._held = True
        self._growth = 0.0
        self._estimated = False
        self._pages = False
        self._since: tuple[Mark, float] | None = None
        self._ignored = False
        self._time_ns = 0
        self._detail: StackDetail | None = None
        self._trend = Trend()

    def show_site(
        self,
        site: Site,
        growth: float,
        *,
        held: bool,
        estimated: bool,
        pages: bool,
        ignored: bool,
        time_ns: int,
    ) -> None:
        """Show the figures of a tick; not ``held``: those of when it held something.

        ``pages``: they are of growth mode. ``ignored``: the user does not want to see it in tables.
        ``time_ns``: of the tick.
        """
        self._site, self._growth, self._held, self._estimated = site, growth, held, estimated
        self._pages, self._ignored, self._time_ns = pages, ignored, time_ns
        self.repaint()

    def show_mark(self, mark: Mark | None, elapsed_s: float) -> None:
        """Show the change since a mark, in a line of its own."""
        self._since = None if mark is None else (mark, elapsed_s)
        self.styles.height = 2 if mark is None else 3
        self.repaint()

    def show_detail(self, detail: StackDetail | None, trend: Trend) -> None:
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
            if self._ignored:
                line.put("  ignored", self.style("warn"))
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
        if y == 2 and self._since is not None:  # noqa: PLR2004
            self._put_change(line, site, *self._since)
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
        late_s = (self._time_ns - detail.time_ns) / 1e9 if detail else 0.0
        if late_s > _LATE_S:
            line.put(f"  {fmt.format_age(late_s)} ago", self.style("warn"))
        line.put("  allocs ", dim).put(fmt.format_count(counters.allocs, estimated=mark))
        line.put("  frees ", dim).put(fmt.format_count(counters.frees, estimated=mark))
        if detail and detail.bytes_error:
            sign = "+-" if self.ascii_only else "±"
            line.put("  error ", dim).put(sign + fmt.format_bytes(detail.bytes_error))
        self._put_trend(line)
        return line.strip()

    def _put_change(self, line: LineBuilder, site: Site, since: Mark, elapsed_s: float) -> None:
        dim, mark = self.style("dim"), self._estimated
        held = site.counters if self._held else Counters()
        bytes_, count = since.change(site.stack_id, held)
        passed = elapsed_s - since.elapsed_s
        line.put(" since the mark ", dim).put(fmt.format_growth(bytes_, estimated=mark))
        line.put(" in ", dim).put(fmt.format_change(count, estimated=mark))
        line.put(" new pages" if self._pages else " blocks", dim)
        if passed > 0:
            line.put("  on average ", dim)
            line.put(fmt.format_growth(bytes_ / passed, estimated=mark) + "/s")

    def _put_trend(self, line: LineBuilder) -> None:
        dim, room = self.style("dim"), min(_TREND_CELLS, line.left - 9)
        if self._trend.values and room > 1:
            blocks, span = trend_text(self._trend, room, ascii_only=self.ascii_only)
            line.put("  trend ", dim).put(blocks, self.style("good")).put(span, dim)


class DetailScreen(LiveScreen):
    """Everything known of one stack."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,left,h,backspace", "leave", show=False),
        Binding("a", "blocks", show=False),
        Binding("l", "log", show=False),
        Binding("i", "ignore", show=False),
    ]

    class BlocksWanted(Wish):
        """Live blocks are to be listed: of which stack, from which on, how many; None: no more."""

        def __init__(self, wanted: tuple[int, int, int] | None) -> None:
            super().__init__()
            self.wanted = wanted

    class ContentWanted(Wish):
        """The first bytes of a block are to be read."""

        def __init__(self, block: LiveBlock) -> None:
            super().__init__()
            self.block = block

    class LogWanted(Wish):
        """What a stack does is to be logged; None: no more."""

        def __init__(self, stack_id: int | None) -> None:
            super().__init__()
            self.stack_id = stack_id

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
        self._time_line = TimeLine()
        self._filter_line = FilterLine()
        self._head = StackHead()
        self._verdict = VerdictLine()
        self._view = FramesView(id="frames")
        self._notes = NotesView()
        self._source = SourceView()
        self._pane = Pane.FRAMES
        self._paused = False
        self._blocks = BlocksView()
        self._content = ContentView()
        self._log = LogView()
        self._keys = KeyHints(())
        self._ages = HistogramView("AGE", age_label, id="ages")
        self._sizes = HistogramView("SIZE", size_label, id="sizes")
        self._lifetimes = LifetimesView()
        self._chart = ChartView("NEW PAGES of this stack since counting started")
        self._pages = False
        for view in (self._ages, self._sizes):
            view.show(None, note="reading the live blocks ...")

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._bar
        yield self._filter_line
        yield self._head
        yield self._verdict
        with Container(id="body"):
            with Vertical(id="left"):
                yield self._view
                yield self._notes
                yield self._source
            yield self._blocks
            yield self._content
            yield self._log
            with Container(id="right"):
                yield self._ages
                yield self._sizes
                yield self._lifetimes
                yield self._chart
        yield self._time_line
        yield self._keys

    def on_mount(self) -> None:
        """Let the keys move through the frames."""
        self._show_pane(Pane.FRAMES)

    def show(self, status: Status, names: Names) -> None:
        """Show the state of things."""
        self._bar.show(status)
        self._filter_line.show(status)
        self._time_line.show(status.playback)
        reading = status.reading
        lost = reading.snapshot.lost if reading else {}
        self._paused = status.paused
        self._log.show(paused=status.paused, dropped=lost.get("events_dropped", 0))
        held = False
        if reading is not None:
            self._estimated = reading.snapshot.estimated
            for site in reading.snapshot.sites:
                if site.stack_id == self.site.stack_id:
                    self.site, held = site, True
                    break
        self._show_pages(pages=bool(reading and reading.snapshot.growth))
        self._head.show_site(
            self.site,
            reading.growth.get(self.site.stack_id, 0.0) if reading else 0.0,
            held=held,
            estimated=self._estimated,
            pages=self._pages,
            ignored=self.site.stack_id in status.ignored.entries,
            time_ns=reading.snapshot.time_ns if reading else 0,
        )
        self._head.show_mark(status.mark, reading.snapshot.elapsed_s if reading else 0.0)
        verdicts = reading.verdicts if reading else {}
        self._verdict.show(verdicts.get(self.site.stack_id), judged=bool(verdicts))
        self._lifetimes.show(self.site.lifetimes, estimated=self._estimated)
        self.query_one("#right").set_class(self._lifetimes.display, "with-lifetimes")
        self._frames = names.get(self.site.stack_id) or self.site.frames
        self._show_frames()

    @property
    def stack(self) -> Site:
        """The stack that is looked at."""
        return self.site

    # Pages have no ages, no sizes, and are no blocks.
    def _show_pages(self, *, pages: bool) -> None:
        if pages != self._pages:
            self._pages = pages
            self.set_class(pages, "pages")
            self._show_hints()

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
        self._chart.show(message.trend.values)
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

    def show_blocks(self, message: BlocksReady) -> None:
        """Show live blocks; while paused only those that were not here."""
        if not self._paused or self._blocks.lacks:
            self._blocks.show(message.page, fmt.clean(message.error))

    def show_content(self, message: BlockRead) -> None:
        """Show the first bytes of the block that was opened."""
        if message.block == self._content.block:
            self._content.show(message.data, fmt.clean(message.error))

    def show_events(self, message: EventsReady) -> None:
        """Show what the stack did."""
        self._log.add(message.events, message.count, fmt.clean(message.error))

    def _show_pane(self, pane: Pane) -> None:
        before, self._pane = self._pane, pane
        views = {
            Pane.FRAMES: self._view,
            Pane.BLOCKS: self._blocks,
            Pane.CONTENT: self._content,
            Pane.LOG: self._log,
        }
        self.query_one("#left").display = pane is Pane.FRAMES
        for other in (Pane.BLOCKS, Pane.CONTENT, Pane.LOG):
            views[other].display = other is pane
        self.query_one("#body").set_class(pane is not Pane.FRAMES, "single")
        self.set_focus(views[pane] if views[pane].can_focus else None)
        self._show_hints()
        if before is Pane.LOG:
            self.post_message(self.LogWanted(None))
        if before is Pane.BLOCKS:
            self.post_message(self.BlocksWanted(None))
        if pane is Pane.LOG:
            self._log.begin()
            self.post_message(self.LogWanted(self.site.stack_id))
        if pane is Pane.BLOCKS:
            self._blocks.begin()

    def _show_hints(self) -> None:
        hints = _hints(self._pane, ascii_only=self._view.ascii_only)
        self._keys.show([each for each in hints if not (self._pages and each[1] in _OF_BLOCKS)])

    @on(BlocksView.Wanted)
    def _blocks_wanted(self, message: BlocksView.Wanted) -> None:
        if self._pane is Pane.BLOCKS:
            self.post_message(
                self.BlocksWanted((self.site.stack_id, message.offset, message.count))
            )

    @on(RowsView.Opened)
    def _open_block(self) -> None:
        block = self._blocks.selected
        if self._pane is Pane.BLOCKS and block is not None:
            self._show_pane(Pane.CONTENT)
            self._content.begin(block)
            self.post_message(self.ContentWanted(block))

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
        """Go one step back, in the end to the table."""
        if self._pane is Pane.FRAMES:
            self.dismiss()
        else:
            self._show_pane(Pane.BLOCKS if self._pane is Pane.CONTENT else Pane.FRAMES)

    def action_blocks(self) -> None:
        """Show the live blocks, or the frames again."""
        self._show_pane(Pane.FRAMES if self._pane is Pane.BLOCKS else Pane.BLOCKS)

    def action_ignore(self) -> None:
        """Ignore this stack, or no longer."""
        self.post_message(self.IgnoreToggled(self.site))

    def action_log(self) -> None:
        """Show what the stack does from now on, or the frames again."""
        self._show_pane(Pane.FRAMES if self._pane is Pane.LOG else Pane.LOG)
