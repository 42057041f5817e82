"""The top of the screen: the target, what it holds, how fast it goes, what was lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from rich.cells import cell_len
from textual.strip import Strip

from leaktop import format as fmt
from leaktop.analyze import Reading
from leaktop.candidates import Estimate
from leaktop.ignore import NOTHING_IGNORED, Ignored
from leaktop.marks import Mark
from leaktop.model import UNLIMITED, Filters, System, Target, Trend
from leaktop.recorder import Recorded, how_it_goes
from leaktop.source.timeline import Playback
from leaktop.widgets.lines import LineBuilder, LinesView
from leaktop.widgets.trend import trend_text

_TREND_CELLS = 60
GROWTH_NOTE = "growth, not leaks: only rss shows what was freed"
"""What the figures of growth mode are, in less than a line."""


class Stage(Enum):
    """How far tracing has come."""

    STARTING = "attaching"
    TRACING = "tracing"
    GONE = "target gone"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Status:
    """All that the top of the screen says."""

    target: Target
    filters: Filters
    stage: Stage = Stage.STARTING
    progress: str = ""
    """The step of attaching, or why tracing ended."""
    reading: Reading | None = None
    trend: Trend = field(default_factory=Trend)
    paused: bool = False
    pattern: str = ""
    refused: str = ""
    """Why the last change of the filters or of the mode was not taken."""
    ignored: Ignored = NOTHING_IGNORED
    """What is held by stacks that the user does not want to see; the totals have it."""
    show_ignored: bool = False
    notice: str = ""
    """What there is to say to the user; empty where there is nothing."""
    estimate: Estimate | None = None
    """What tracing costs the process now, where that is known."""
    activity: str = ""
    """What is going on besides."""
    losses: Mapping[str, int] = field(default_factory=dict)
    """Those above zero."""
    mark: Mark | None = None
    """Since when changes are shown, where they are."""
    only_grown: bool = False
    """Only stacks are shown that have grown since ``mark``."""
    recorded: Recorded | None = None
    """The recording that goes on, or has just ended."""
    playback: Playback | None = None
    """Where on a recording it is that is shown; None where it is live."""


class StatusBar(LinesView):
    """Two lines of figures, one of filters, and one for each thing that needs attention."""

    def __init__(self) -> None:
        super().__init__()
        self._status: Status | None = None
        self._alerts: list[tuple[str, str]] = []

    def show(self, status: Status) -> None:
        """Show ``status``."""
        self._status = status
        self._alerts = _alerts(status)
        height = 2 + len(self._alerts)
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the line at ``y``."""
        line = self.builder()
        status = self._status
        if status is None:
            return line.strip()
        if y == 0:
            self._target_line(line, status)
        elif y == 1:
            self._rates_line(line, status)
        elif y - 2 < len(self._alerts):
            style, text = self._alerts[y - 2]
            line.put(f" {text}", self.style(style))
        return line.strip()

    def _target_line(self, line: LineBuilder, status: Status) -> None:
        dim, strong = self.style("dim"), self.style("strong")
        state, state_style = _state(status)
        reading = status.reading
        target = status.target if reading is None else reading.snapshot.target
        recorded = status.recorded
        rec = ""
        if recorded is not None and recorded.why_ended is None:
            rec = f"REC {fmt.format_bytes(recorded.size)} "
        room = line.left - cell_len(rec + state) - 2
        line.put(" leaktop ", self.style("title"))
        processes = () if reading is None else reading.snapshot.processes
        if processes:
            alive = sum(each.target.alive for each in processes)
            line.put(f" {alive} of {len(processes)} processes ")
        else:
            line.put(_whose(target, None if reading is None else reading.snapshot.system))
        line.put(fmt.clean(target.comm, 20), strong)
        if reading is not None:
            of_processes = [each.target for each in processes] or [target]
            for name, size in _memory(of_processes, reading.snapshot.system):
                line.put(f"  {name} ", dim).put(size)
            held, growth = reading.snapshot.totals.bytes, reading.snapshot.growth
            if growth is not None and growth.rss_change is not None:
                line.put(f" ({fmt.format_growth(growth.rss_change)})")
            line.put("  held " if growth is None else "  new ", dim)
            line.put(fmt.format_bytes(held, estimated=reading.snapshot.estimated), strong)
            cells = min(_TREND_CELLS, room - (self.size.width - line.left) - 1)
            if cells > 1:
                blocks, span = trend_text(status.trend, cells, ascii_only=self.ascii_only)
                line.put(" ").put(blocks, self.style("good")).put(span, dim)
        gap = line.left - cell_len(rec + state) - 1
        line.put(" " * max(1, gap)).put(rec, self.style("bad")).put(state, self.style(state_style))

    def _rates_line(self, line: LineBuilder, status: Status) -> None:
        dim = self.style("dim")
        reading = status.reading
        if reading is None:
            line.put(f" {status.progress or 'attaching'}", dim)
            return
        snapshot, rates = reading.snapshot, reading.rates
        mark = snapshot.estimated
        growing = fmt.format_growth(rates.bytes_per_s, estimated=mark) + "/s"
        for name, text in _page_figures(reading, growing) or (
            ("growing ", growing),
            ("allocs ", fmt.format_rate(rates.allocs_per_s, estimated=mark) + "/s"),
            ("frees ", fmt.format_rate(rates.frees_per_s, estimated=mark) + "/s"),
            ("blocks ", fmt.format_count(snapshot.totals.count, estimated=mark)),
            ("stacks ", fmt.format_count(len(snapshot.sites))),
        ):
            line.put(f" {name}", dim).put(text).put(" ")
        if line.left > len("for 99m59s "):
            line.put(" for ", dim).put(fmt.format_age(snapshot.elapsed_s))


def _page_figures(reading: Reading, growing: str) -> Sequence[tuple[str, str]]:
    # of growth mode; none of others
    snapshot, mark = reading.snapshot, reading.snapshot.estimated
    if snapshot.growth is None:
        return ()
    return (
        ("growing ", growing),
        ("faults ", fmt.format_rate(reading.rates.allocs_per_s, estimated=mark) + "/s"),
        ("pages ", fmt.format_count(snapshot.totals.count, estimated=mark)),
        ("calls ", fmt.format_count(snapshot.totals.calls, estimated=mark)),
        ("stacks ", fmt.format_count(len(snapshot.sites))),
    )


class FilterLine(LinesView):
    """The filters in force, in one line."""

    def __init__(self) -> None:
        super().__init__()
        self._status: Status | None = None

    def show(self, status: Status) -> None:
        """Show the filters of ``status``."""
        self._status = status
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the line."""
        line = self.builder()
        if self._status is None:
            return line.strip()
        for name, text, active in _filter_fields(self._status):
            line.put(f" {name} ", self.style("dim"))
            line.put(f"{text} ", self.style("warn") if active else None)
        if _in_growth_mode(self._status):
            line.put(f" {GROWTH_NOTE}", self.style("warn"))
        return line.strip()


def _in_growth_mode(status: Status) -> bool:
    return status.reading is not None and status.reading.snapshot.growth is not None


def _filter_fields(status: Status) -> list[tuple[str, str, bool]]:
    filters, pattern = status.filters, status.pattern
    limit = "none" if filters.max_size == UNLIMITED else fmt.format_bytes(filters.max_size)
    rate = filters.sample_rate
    fields = [
        ("min", fmt.format_bytes(filters.min_size), filters.min_size > 0),
        ("max", limit, filters.max_size != UNLIMITED),
        ("sample", "all" if rate == 1 else f"1 in {rate}", rate > 1),
    ]
    if filters.older_s:
        fields.append(("older than", fmt.format_age(filters.older_s), True))
    if _in_growth_mode(status):  # pages have no sizes and no ages
        fields = fields[2:3]
    if status.ignored.entries:
        fields.append(("ignored", _ignored(status), True))
    fields.append(("text", f"/{pattern}" if pattern else "none", bool(pattern)))
    return fields


def _ignored(status: Status) -> str:
    estimated = status.reading is not None and status.reading.snapshot.estimated
    held = fmt.format_bytes(status.ignored.bytes, estimated=estimated)
    stacks = len(status.ignored.entries)
    shown = ", shown" if status.show_ignored else ""
    return f"{held} in {stacks} stack{'' if stacks == 1 else 's'}{shown}"


def _state(status: Status) -> tuple[str, str]:
    if status.stage in (Stage.GONE, Stage.FAILED):
        return f"[{status.stage.value.upper()}]", "bad"
    if status.paused:
        return "[PAUSED]", "warn"
    if status.playback is not None:
        return "[replay]", "warn"
    if status.stage is Stage.TRACING and _in_growth_mode(status):
        return "[growth]", "good"
    return f"[{status.stage.value}]", "good" if status.stage is Stage.TRACING else "warn"


def _whose(target: Target, system: System | None) -> str:
    if not target.pid:
        return " "
    return f" {target.pid} " if system is None else f" kernel for {target.pid} "


def _memory(targets: Sequence[Target], system: System | None) -> list[tuple[str, str]]:
    if system is None:
        return [("rss", _resident(targets))]
    return [("avail", fmt.format_bytes(system.available)), ("slab", fmt.format_bytes(system.slab))]


def _resident(targets: Sequence[Target]) -> str:
    known = [target.rss for target in targets if target.rss is not None]
    return fmt.format_bytes(sum(known)) if known else "-"


# What has changed since the mark, in less than a line.
def _since(status: Status) -> str:
    mark, reading = status.mark, status.reading
    if mark is None or reading is None:
        return ""
    snapshot = reading.snapshot
    bytes_, count = mark.total_change(snapshot.totals)
    passed, estimated = snapshot.elapsed_s - mark.elapsed_s, snapshot.estimated
    if not mark.elapsed_s:
        since = "since the start"
    elif passed >= 0:
        since = f"since the mark {fmt.format_age(passed)} ago"
    else:  # in a recording that was wound back
        since = f"until the mark {fmt.format_age(-passed)} ahead"
    parts = [
        fmt.format_growth(bytes_, estimated=estimated),
        fmt.format_change(count, estimated=estimated)
        + (" pages" if snapshot.growth else " blocks"),
    ]
    if passed > 0:
        parts.append(fmt.format_growth(bytes_ / passed, estimated=estimated) + "/s")
    shown = "only what grew (d: all)" if status.only_grown else "d: only what grew"
    return f"{since}: {', '.join(parts)}; {shown}"


def _alerts(status: Status) -> list[tuple[str, str]]:
    alerts = [("title", text)] if (text := _since(status)) else []
    if status.stage is Stage.GONE:
        alerts.append(("bad", f"! GONE: {status.progress}; its last state stays here"))
    elif status.stage is Stage.FAILED:
        alerts.append(("bad", f"! FAILED: {status.progress}"))
    refusals = () if status.reading is None else status.reading.snapshot.refusals
    if refusals:
        names = ", ".join(f"{each.function} in {each.library}" for each in refusals)
        effect = refusals[0].effect if len(refusals) == 1 else "figures are wrong"
        alerts.append(("bad", fmt.clean(f"! NOT TRACED (see ?): {names}: {effect}")))
    if status.losses:
        parts = ", ".join(f"{n} {fmt.format_count(v)}" for n, v in status.losses.items())
        alerts.append(("bad", f"! LOST (see ?): {parts}"))
    if status.estimate is not None and status.estimate.much and status.stage is Stage.TRACING:
        slowed = fmt.format_estimate(status.estimate)
        alerts.append(("warn", f"! slowed {slowed}: X growth, + sample"))
    if status.recorded is not None and status.recorded.why_ended is not None:
        style, sign = ("bad", "! ") if status.recorded.failed else ("good", "")
        alerts.append((style, fmt.clean(sign + how_it_goes(status.recorded))))
    if status.refused:
        alerts.append(("warn", f"! not changed: {status.refused}"))
    if status.notice:
        alerts.append(("warn", status.notice))
    if status.activity:
        alerts.append(("strong", status.activity))
    return alerts
