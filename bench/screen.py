"""The screen on a real pseudo-terminal: first paint, quit, key to paint, and bytes a tick.

First paint and quit: from the command line, and from the key, on a real target that holds 200
stacks; the same run counts the bytes to the terminal a tick at 1 Hz, while every block grows older
and one stack in ten grows. Key to paint: from writing ``j`` to the arrival of the bytes that put
the cursor on the next row, at random moments while 10,000 prepared stacks tick at 1 Hz.
"""

import random
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common import HERE, LEAKTOP, Figure, Samples, Target, begin, build
from terminal import Terminal, bursts, has_rows, painted, selected

sys.path.insert(0, str(HERE.parent))

from leaktop.app import LeaktopApp
from leaktop.model import Filters, Frame, Snapshot
from tests.ui.scripted import ScriptedSource, many_sites, snapshot

STACKS = 200
SETTLE_S, TICKS = 4, 20
"""Seconds for names to come in before ticks are looked at, and ticks."""
SCRIPTED_STACKS, KEYS = 10_000, 40
CHILD = "--scripted"


class TickingSource(ScriptedSource):
    """Makes each snapshot from the one before: every age and a tenth of the sizes change."""

    def __init__(self, stacks: int) -> None:
        sites = many_sites(stacks, 1)
        names = {
            site.stack_id: (Frame(0x1000, "big", f"function_{site.stack_id}", 1), *site.frames[1:])
            for site in sites
        }
        super().__init__([snapshot(1.0, sites)], names=names)
        self._last = self.snapshots[0]

    def snapshot(self) -> Snapshot:
        """Return the next second."""
        second = self._last.elapsed_s + 1
        sites = [
            replace(
                site,
                oldest_s=(site.oldest_s or 0.0) + 1,
                counters=replace(
                    site.counters, bytes=site.counters.bytes + 64 * (site.stack_id % 10 == 0)
                ),
            )
            for site in self._last.sites
        ]
        self._last = snapshot(second, sites)
        return self._last


def key_to_paint_ms(keys: int) -> list[float]:
    """Return how long each ``j`` took to move the cursor's row on the terminal."""
    terminal = Terminal([sys.executable, __file__, CHILD])
    terminal.wait_for(has_rows)
    terminal.read_for(SETTLE_S)
    chance = random.Random(1)
    pressed = []
    for _ in range(keys):
        pressed.append(terminal.press("j"))
        terminal.read_for(chance.uniform(0.25, 0.45))
    terminal.quit()

    moved: list[float] = []
    for stamp, _data in terminal.chunks[terminal.fed :]:
        before = selected(terminal.screen)
        terminal.feed()
        after = selected(terminal.screen)
        if stamp > pressed[0] and len(moved) < keys and after and after != before:
            moved.append(stamp)
    return [
        (min(each for each in moved if each > press) - press) * 1000
        for press in pressed
        if any(each > press for each in moved)
    ]


def one_run(samples: Samples, program: Path, ticks: int) -> None:
    """Start the screen on a steady target, watch it tick, and quit."""
    with Target(program, STACKS, STACKS) as target:
        target.ask("steady")
        terminal = Terminal([*LEAKTOP, "-p", str(target.pid)])
        try:
            samples.add("first paint", terminal.wait_for(painted) - terminal.started)
            samples.add("first stacks", terminal.wait_for(has_rows) - terminal.started)
            terminal.read_for(SETTLE_S)
            before = len(terminal.chunks)
            terminal.read_for(ticks)
            sizes = bursts(terminal.chunks[before:])
            samples.add("bytes a tick", statistics.median(sizes))
            samples.add("most bytes a tick", max(sizes))
            samples.add("quit", terminal.quit())
        finally:
            terminal.kill()


def main() -> None:
    """Be the scripted child, or measure, print, write."""
    if sys.argv[1:] == [CHILD]:
        import leaktop.__main__  # noqa: F401, PLC0415  (sets Python up as for the program)

        LeaktopApp(TickingSource(SCRIPTED_STACKS), filters=Filters(), delay_s=1.0).run()
        return
    run = begin("screen", __doc__, rounds=5)
    samples = Samples()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder), "stacks")
        for number in range(run.rounds):
            run.progress(f"first paint to quit, {number + 1} of {run.rounds}")
            one_run(samples, program, 5 if run.quick else TICKS)
    for what, name, unit, most in (
        ("command line to the first paint", "first paint", "s", 0.6),
        ("command line to the first stacks on the screen", "first stacks", "s", None),
        ("quit", "quit", "s", 0.3),
        ("bytes to the terminal a tick, 80x24, steady target", "bytes a tick", "B", 1500),
        ("the most bytes in one tick", "most bytes a tick", "B", None),
    ):
        run.say(Figure(what, samples.median(name), unit, target=most, parts=samples.parts(name)))
    run.progress("key to paint")
    keys = key_to_paint_ms(10 if run.quick else KEYS)
    parts = {"milliseconds": keys}
    run.say(
        Figure("key to paint, 10,000 stacks, median", statistics.median(keys), "ms", parts=parts)
    )
    run.say(Figure("key to paint, 10,000 stacks, worst", max(keys), "ms"))
    run.write()


if __name__ == "__main__":
    main()
