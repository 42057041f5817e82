"""Measure the screen on a real pseudo-terminal: key to paint, and bytes to the terminal a tick.

Run as ``python bench/screen.py [--json FILE]``. The screen runs in a process of its own over
prepared snapshots; what it writes is stamped as it arrives and read back with pyte afterwards.
Key to paint: from writing ``j`` to the arrival of the bytes that put the cursor on the next row,
at random moments while 10,000 stacks tick at 1 Hz. Bytes a tick: every block grows older and some
stacks grow, 200 stacks, 80x24, no keys.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pty
import random
import select
import signal
import statistics
import struct
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pyte

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from leaktop.app import LeaktopApp
from leaktop.model import Filters, Frame, Snapshot
from tests.ui.scripted import ScriptedSource, many_sites, snapshot

COLUMNS, ROWS = 80, 24
KEYS = 40
TICKS = 20
BURST_GAP_S = 0.2


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


class Terminal:
    """A child on a pseudo-terminal whose output is stamped."""

    def __init__(self, stacks: int) -> None:
        self.chunks: list[tuple[float, bytes]] = []
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(sys.executable, [sys.executable, __file__, "--child", str(stacks)])
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def read_for(self, seconds: float) -> None:
        """Take what comes within ``seconds``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                try:
                    data = os.read(self._fd, 1 << 16)
                except OSError:
                    return
                self.chunks.append((time.monotonic(), data))

    def press(self, key: str) -> float:
        """Write a key and return when."""
        now = time.monotonic()
        os.write(self._fd, key.encode())
        return now

    def close(self) -> None:
        """End the child."""
        self.press("q")
        self.read_for(1.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


def key_to_paint_ms(stacks: int) -> list[float]:
    """Return how long each ``j`` took to move the cursor's row on the terminal."""
    terminal = Terminal(stacks)
    terminal.read_for(6.0)
    chance = random.Random(1)
    pressed = []
    for _ in range(KEYS):
        pressed.append(terminal.press("j"))
        terminal.read_for(chance.uniform(0.25, 0.45))
    terminal.close()

    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    painted: list[float] = []
    for stamp, data in terminal.chunks:
        before = _selected(screen)
        stream.feed(_readable(data))
        after = _selected(screen)
        if stamp > pressed[0] and len(painted) < KEYS and after and after != before:
            painted.append(stamp)
    return [
        (min(p for p in painted if p > press) - press) * 1000
        for press in pressed
        if any(p > press for p in painted)
    ]


def bytes_a_tick(stacks: int) -> list[int]:
    """Return the bytes of each burst of output, a burst being one tick."""
    terminal = Terminal(stacks)
    terminal.read_for(5.0)
    terminal.chunks.clear()
    terminal.read_for(TICKS)
    chunks = list(terminal.chunks)
    terminal.close()
    bursts: list[int] = []
    last = 0.0
    for stamp, data in chunks:
        if stamp - last > BURST_GAP_S:
            bursts.append(0)
        bursts[-1] += len(data)
        last = stamp
    return bursts


# The row the cursor mark is on, with its text: at the end of the screen only the text moves.
def _selected(screen: pyte.Screen) -> str:
    for y, line in enumerate(screen.display):
        if line.startswith("▸"):
            return f"{y} {line[38:]}"
    return ""


# pyte takes the kitty keyboard and private mode sequences for text.
def _readable(data: bytes) -> bytes:
    for sequence in (b"\x1b[>25u", b"\x1b[<u", b"\x1b[?2026$p", b"\x1b[?2048$p"):
        data = data.replace(sequence, b"")
    return data


def main() -> None:
    """Run the child, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    arguments = parser.parse_args()
    if arguments.child:
        LeaktopApp(TickingSource(arguments.child), filters=Filters(), delay_s=1.0).run()
        return
    keys = key_to_paint_ms(10_000)
    ticks = bytes_a_tick(200)
    figures = {
        "key_to_paint_ms_median": round(statistics.median(keys), 1),
        "key_to_paint_ms_worst": round(max(keys), 1),
        "keys": len(keys),
        "bytes_a_tick_median": statistics.median(ticks),
        "bytes_a_tick_worst": max(ticks),
        "ticks": len(ticks),
    }
    for name, value in figures.items():
        print(f"{name:24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
