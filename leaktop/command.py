"""A command that leaktop started: its end, its output, and what may be done to it.

It belongs to its user: it is ended only where somebody asked for that, and where leaktop ends
first, its output stays open.
"""

import os
import re
import signal
import subprocess
import termios
import threading
import tty
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Protocol

from leaktop.descriptors import wait_readable

OUTPUT_LINES_MAX = 10_000
"""Lines of output that are kept; older ones are dropped, and counted."""
_LINE_MAX = 1000  # bytes of a line that are kept
_READ_MAX = 64 << 10

# Control sequences: CSI, OSC, and those of two bytes (ECMA-48, 5.4, 8.3.89, 5.3).
_SEQUENCES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^_`-~])"
)


class Output:
    """The last lines that come out of a descriptor, read by a thread of its own until it ends.

    Any thread may call.
    """

    def __init__(self, descriptor: int) -> None:
        """Own ``descriptor`` and read it."""
        self._descriptor = descriptor
        self._changed = threading.Lock()
        self._lines: deque[bytes] = deque(maxlen=OUTPUT_LINES_MAX)
        self._open_line = b""
        self._total = 0
        self._ended = threading.Event()
        threading.Thread(target=self._read, name="leaktop-output", daemon=True).start()

    @property
    def total(self) -> int:
        """Lines that have come, the one not ended yet included."""
        with self._changed:
            return self._total + bool(self._open_line)

    @property
    def dropped(self) -> int:
        """How many of them are not kept any more; line numbers go from here to ``total``."""
        with self._changed:
            return self._total - len(self._lines)

    @property
    def size(self) -> int:
        """Grows with all that comes, a line that goes on included."""
        with self._changed:
            return self._total * (_LINE_MAX + 1) + len(self._open_line)

    def lines(self, first: int, count: int) -> list[str]:
        """Return ``count`` lines from number ``first`` on, as text without control sequences.

        They may still hold characters that must not reach a terminal: see ``format.clean``.
        """
        with self._changed:
            start = max(0, first - (self._total - len(self._lines)))
            found = list(islice(self._lines, start, start + count))
            if len(found) < count and self._open_line and start <= len(self._lines):
                found.append(self._open_line)
        return [readable(line) for line in found]

    def wait(self, seconds: float) -> None:
        """Wait for the last of it, this long at most: a child may hold the other end."""
        self._ended.wait(seconds)

    def hand_over(self) -> None:
        """Let a process of its own read on, so that the command can write when leaktop is gone.

        A write to a terminal that nobody holds fails (EIO).
        """
        with suppress(OSError):  # there is no cat: then that is how it is
            subprocess.Popen(
                ["cat"],  # noqa: S607  (whichever the user has)
                stdin=self._descriptor,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._descriptor, _READ_MAX)
            except OSError:  # EIO: no process holds the other side of the terminal any more
                some = b""
            if not some:
                self._ended.set()
                return
            self._take(some)

    def _take(self, some: bytes) -> None:
        *ended, rest = some.split(b"\n")
        with self._changed:
            if ended:
                ended[0] = self._open_line + ended[0]
                self._lines.extend(line[:_LINE_MAX] for line in ended)
                self._total += len(ended)
                self._open_line = b""
            self._open_line = (self._open_line + rest)[:_LINE_MAX]


def readable(line: bytes) -> str:
    """Return a line of output as text: without control sequences, tabs as spaces.

    Of what overwrote itself (a bar that goes forward with carriage returns) the last state stays.
    """
    text = _SEQUENCES.sub("", line.decode("utf-8", "replace"))
    return text.rstrip("\r").rsplit("\r", 1)[-1].expandtabs(8)


class Hold(Protocol):
    """What keeps a process from running."""

    def go(self) -> None:
        """Let it run; returns at once."""
        ...

    def wait_until_over(self) -> None:
        """Wait until it is no longer held."""
        ...


class Command:
    """A process that leaktop started. Any thread may call."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        name: str,
        output: Output | None,
        hold: Hold | None = None,
    ) -> None:
        """Take a child that is not waited for elsewhere; ``output`` where leaktop reads it.

        ``hold``: what holds it until it is traced.
        """
        self.pid = process.pid
        self.name = name
        self.output = output
        self.last_comm: str | None = None
        """The kernel's name for it when it ended; it changes with the program (exec)."""
        self._process = process
        self._hold = hold
        self._pidfd = os.pidfd_open(process.pid)
        self._left = False

    @property
    def status(self) -> int | None:
        """Its exit code, or less than 0: minus the signal that ended it; None while it runs."""
        if self._process.returncode is None and not self.running:
            with suppress(OSError):
                self.last_comm = os.fsdecode(Path(f"/proc/{self.pid}/comm").read_bytes())[:-1]
            self._process.wait()
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether it has not exited yet; takes no lock, so that signal handlers may ask."""
        return not wait_readable([self._pidfd], 0)

    @property
    def descriptor(self) -> int:
        """Becomes readable when it exits (pidfd_open(2))."""
        return self._pidfd

    def go(self) -> None:
        """Let it run, where it is held; returns at once."""
        if self._hold is not None:
            self._hold.go()

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def leave(self) -> bool:
        """See to it that it can run on without leaktop; whether it still runs. May be called twice.

        One that is still held runs from now on, untraced.
        """
        if not self.running:
            return False
        if self._hold is not None:
            self._hold.go()
            self._hold.wait_until_over()
        if self.output is not None and not self._left:
            self.output.hand_over()
        self._left = True
        return True


def describe_end(status: int) -> str:
    """Return how a process ended, for people: ``exited with code 3``, ``was ended by SIGSEGV``."""
    if status >= 0:
        return f"exited with code {status}"
    return f"was ended by {signal_name(-status)}"


def signal_name(number: int) -> str:
    """Return ``SIGTERM``, or ``signal 40`` for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def open_terminal(columns: int, rows: int) -> tuple[int, int]:
    """Return both ends of a new terminal for a command's output: ours, and the command's.

    A terminal and no pipe, so that programs write each line at once, rather than a page late and
    not at all when they crash. It is nobody's controlling terminal and sends no signals.
    """
    ours, theirs = os.openpty()
    tty.setraw(theirs)  # no carriage returns, no echo
    termios.tcsetwinsize(theirs, (rows, columns))
    return ours, theirs


def shown(words: Sequence[str]) -> str:
    """Return the name of a command, by its first word."""
    return words[0].rsplit("/", 1)[-1]
