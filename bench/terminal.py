"""A program on a real pseudo-terminal, whose output is stamped as it arrives."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence

import pyte

COLUMNS, ROWS = 80, 24
PATIENCE_S = 60.0
BURST_GAP_S = 0.2
CURSOR = "▸"
"""What the table puts before the selected row."""


class Terminal:
    """A child on a pseudo-terminal of 80x24."""

    def __init__(self, command: Sequence[str]) -> None:
        self.chunks: list[tuple[float, bytes]] = []
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.fed = 0
        self.started = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(command[0], list(command))
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def read_for(self, seconds: float) -> bool:
        """Take what comes within ``seconds``; False once the child has closed the terminal."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0] and not self._read():
                return False
        return True

    def wait_for(
        self, seen: Callable[[pyte.Screen], bool], meanwhile: Callable[[], object] = lambda: None
    ) -> float:
        """Read until the screen is like that; return when what made it so arrived.

        ``meanwhile`` is called each time that it is not so yet.
        """
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            while self.fed < len(self.chunks):
                stamp = self.feed()
                if seen(self.screen):
                    return stamp
            meanwhile()
            if select.select([self._fd], [], [], 1.0)[0] and not self._read():
                break
        sys.exit("this was never seen on the screen:\n" + "\n".join(self.screen.display))

    def feed(self) -> float:
        """Draw one more chunk of what came; return when it arrived."""
        stamp, data = self.chunks[self.fed]
        self.fed += 1
        self._stream.feed(_readable(data))
        return stamp

    def press(self, key: str) -> float:
        """Write a key and return when."""
        now = time.monotonic()
        os.write(self._fd, key.encode())
        return now

    def quit(self) -> float:
        """Press q; return the seconds until the child has gone."""
        pressed = self.press("q")
        while self._read() and time.monotonic() - pressed < PATIENCE_S:
            pass
        os.waitpid(self.pid, 0)
        passed = time.monotonic() - pressed
        os.close(self._fd)
        return passed

    def kill(self) -> None:
        """End the child, whatever it does."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        self.chunks.append((time.monotonic(), data))
        return bool(data)


def painted(screen: pyte.Screen) -> bool:
    """Whether there is anything on the screen."""
    return any(line.strip() for line in screen.display)


def selected(screen: pyte.Screen) -> str:
    """Return the row the cursor mark is on, with its text; empty where there is none yet.

    At the end of the screen only the text moves.
    """
    for y, line in enumerate(screen.display):
        if line.startswith(CURSOR):
            return f"{y} {line[38:]}"
    return ""


def has_rows(screen: pyte.Screen) -> bool:
    """Whether the table shows a stack."""
    return bool(selected(screen))


def bursts(chunks: Sequence[tuple[float, bytes]]) -> list[int]:
    """Return the bytes of each burst of output, a burst being one tick."""
    sizes: list[int] = []
    last = 0.0
    for stamp, data in chunks:
        if stamp - last > BURST_GAP_S:
            sizes.append(0)
        sizes[-1] += len(data)
        last = stamp
    return sizes


# pyte takes the kitty keyboard and private mode sequences for text.
def _readable(data: bytes) -> bytes:
    for sequence in (b"\x1b[>25u", b"\x1b[<u", b"\x1b[?2026$p", b"\x1b[?2048$p"):
        data = data.replace(sequence, b"")
    return data
