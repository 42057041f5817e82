"""A pseudo-terminal with leaktop in it, seen as a user sees it."""

import re
import signal
from collections.abc import Callable, Mapping, Sequence

import pexpect
import pyte

from tests.live.harness import LEAKTOP, PATIENCE_S, environment, wait_until

ENTER, ESCAPE = "\r", "\x1b"


class Terminal:
    """`leaktop` in a terminal of so many columns and rows; close it with `close` in any state."""

    def __init__(
        self,
        *args: str,
        command: Sequence[str] = LEAKTOP,
        columns: int = 80,
        rows: int = 24,
        extra_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        program, *rest = command
        self.process = pexpect.spawn(
            program,
            [*rest, *args],
            cwd="/",
            env={**environment(extra_environment), "TERM": "xterm-256color"},
            dimensions=(rows, columns),
            timeout=PATIENCE_S,
        )

    def text(self) -> str:
        """Return the screen as it is now."""
        self._read()
        return "\n".join(self.screen.display)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.process.send(key)

    def wait_for(self, pattern: str, *, gone: bool = False) -> str:
        """Return the screen once it shows `pattern`, or no more shows it."""
        found = re.compile(pattern)
        return self.wait_until(lambda text: bool(found.search(text)) is not gone, pattern)

    def wait_until(self, condition: Callable[[str], bool], what: str) -> str:
        """Return the screen once the condition holds for its text."""
        try:
            wait_until(lambda: condition(self.text()), what)
        except AssertionError:
            raise AssertionError(f"never seen: {what}; the screen:\n{self.text()}") from None
        return "\n".join(self.screen.display)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def wait(self) -> int:
        """Return the exit code, minus the signal's number where one ended it."""

        def ended() -> bool:
            self._read()
            return not self.process.isalive()

        wait_until(ended, "leaktop ends")
        self._read()
        if self.process.signalstatus is not None:
            return -int(self.process.signalstatus)
        return int(self.process.exitstatus)

    def hang_up(self) -> None:
        """Do what the end of an ssh session does: close the other side of the terminal."""
        self.process.ptyproc.fileobj.close()

    def close(self) -> None:
        if self.process.isalive():
            self.process.kill(signal.SIGKILL)
            wait_until(lambda: not self.process.isalive(), "leaktop is killed")
        self.process.close()

    def _read(self) -> None:
        try:
            while True:
                some = self.process.read_nonblocking(65536, timeout=0)
                self.raw += some
                self._stream.feed(some)
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass
