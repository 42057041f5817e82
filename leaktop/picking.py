"""What the process picker works with: how processes are read, once a second."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from textual.message import Message

from leaktop.candidates import Processes
from leaktop.messages import ProcessesRead


@dataclass(frozen=True, slots=True)
class Picking:
    """What the picker is given."""

    read: Callable[[], Processes]
    """Returns the processes as they are now; never raises, is only called by a worker thread."""
    warning: str = ""
    """What attaching needs and this process has not, in a line; empty where nothing is missing."""
    delay_s: float = 1.0
    """Seconds from one reading to the next."""


class Watcher:
    """Reads the processes in a thread of its own while it is wanted; posts ``ProcessesRead``."""

    def __init__(self, picking: Picking, post: Callable[[Message], object]) -> None:
        self._picking = picking
        self._post = post
        self._changed = threading.Condition()
        self._wanted = True
        self._now = False
        self._stopping = False
        # It only reads files, so it is not waited for.
        self._thread = threading.Thread(target=self._run, name="leaktop-processes", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def want(self, wanted: bool) -> None:
        """Read on, or no more until it is wanted again."""
        with self._changed:
            self._wanted = wanted
            self._changed.notify()

    def read_now(self) -> None:
        """Read at once rather than when it is due."""
        with self._changed:
            self._now = True
            self._changed.notify()

    def stop(self) -> None:
        """Have the thread end, without waiting."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _run(self) -> None:
        due = time.monotonic()
        while self._wait_until(due):
            self._post(ProcessesRead(self._picking.read()))
            # A reading that took longer than the delay drops the ones it missed.
            due = max(due + self._picking.delay_s, time.monotonic())

    # False when it is to end.
    def _wait_until(self, due: float) -> bool:
        with self._changed:
            while not self._stopping:
                left = due - time.monotonic()
                if self._now or (self._wanted and left <= 0):
                    self._now = False
                    return True
                self._changed.wait(left if self._wanted else None)
            return False
