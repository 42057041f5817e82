"""The time line of a recording: what was held, and where on it the screen is."""

from datetime import datetime

from textual.strip import Strip

from leaktop import format as fmt
from leaktop.source.timeline import Playback, Tick
from leaktop.widgets.lines import LinesView
from leaktop.widgets.trend import sparkline


class TimeLine(LinesView):
    """Two lines; takes no room where there is no recording."""

    def __init__(self) -> None:
        super().__init__()
        self._playback: Playback | None = None

    def show(self, playback: Playback | None) -> None:
        """Show where the screen is on the recording."""
        self._playback = playback
        self.set_class(playback is not None, "shown")
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the trend with the position on it, or that in figures."""
        line = self.builder()
        if self._playback is None:
            return line.strip()
        return self._track(self._playback) if y == 0 else self._figures(self._playback)

    # A cell stands for some snapshots, or a snapshot for some cells.
    def _track(self, playback: Playback) -> Strip:
        line = self.builder()
        ticks, cells = playback.ticks, line.left
        last = len(ticks) - 1
        here = playback.number * (cells - 1) // last if last else 0
        shown = [ticks[cell * last // max(1, cells - 1)] for cell in range(cells)]
        blocks = sparkline([tick.bytes for tick in shown], cells, ascii_only=self.ascii_only)
        before = ticks[0]
        for cell, (block, tick) in enumerate(zip(blocks, shown, strict=True)):
            mark = "!" if tick.lost > before.lost else "†" if tick.gone > before.gone else ""
            style = "bad" if mark else "good" if cell <= here else "dim"
            line.put(mark or block, self.style("cursor" if cell == here else style))
            before = tick
        return line.strip()

    def _figures(self, playback: Playback) -> Strip:
        line = self.builder()
        dim, ticks = self.style("dim"), playback.ticks
        here: Tick = ticks[playback.number]
        ended = playback.number == len(ticks) - 1
        state = "playing" if playback.playing else "at its end" if ended else "paused"
        line.put(f" {state}", self.style("good" if playback.playing else "warn"))
        if playback.speed > 1:
            line.put(f" {playback.speed}x", self.style("warn"))
        line.put("  at ", dim).put(fmt.format_age(here.elapsed_s), self.style("strong"))
        line.put(" of ", dim).put(fmt.format_age(ticks[-1].elapsed_s))
        line.put("  snapshot ", dim).put(f"{playback.number + 1}/{len(ticks)}")
        when = datetime.fromtimestamp(here.time_ns / 1e9).astimezone()
        line.put("  ").put(f"{when:%Y-%m-%d %H:%M:%S}", dim)
        if playback.damage is not None:
            line.put(f"  ! {playback.damage}", self.style("bad"))
        return line.strip()
