"""The thread that names frames.

It only reads files and holds nothing: it is a daemon, so slow debug information never delays an
exit.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping

from leaktop.excerpt import Reader, excerpts
from leaktop.feed import Feed
from leaktop.messages import LinesReady, SymbolsReady
from leaktop.model import Frame

_NAMES_AT_ONCE = 32


class SymbolThread(threading.Thread):
    """Resolves what is asked for, the most urgent first, until the feed is stopping."""

    def __init__(self, feed: Feed, reader: Callable[[], Reader | None]) -> None:
        """``reader`` returns on whose behalf source files are read."""
        super().__init__(name="leaktop-symbols", daemon=True)
        self._feed = feed
        self._source = feed.source
        self._reader = reader
        self._changed = threading.Condition()
        self._first: list[int] = []
        self._rest: list[int] = []
        self._lines: int | None = None
        self._jobs: deque[Callable[[], None]] = deque()

    def request(
        self,
        *,
        names: tuple[list[int], list[int]] | None = None,
        lines: int | None = None,
        job: Callable[[], None] | None = None,
    ) -> None:
        """Ask for names, of the first list before the second, in place of those asked for before.

        Before them come the lines of one stack, and before these jobs, in order.
        """
        with self._changed:
            if job is not None:
                self._jobs.append(job)
            if names is not None:
                self._first, self._rest = names
            if lines is not None:
                self._lines = lines
            self._changed.notify()

    def wake(self) -> None:
        """Look whether to stop."""
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        """Do what is asked for."""
        # At once, since the target may exit.
        reader = self._reader()
        while True:
            with self._changed:
                while not (self._jobs or self._first or self._rest or self._lines is not None):
                    if self._feed.stopping.is_set():
                        return
                    self._changed.wait()
                if self._feed.stopping.is_set():
                    return
                job = self._jobs.popleft() if self._jobs else None
                lines: int | None = None
                names: list[int] = []
                if job is None:
                    lines, self._lines = self._lines, None
                if job is None and lines is None:
                    queue = self._first or self._rest
                    names = queue[:_NAMES_AT_ONCE]
                    del queue[:_NAMES_AT_ONCE]
            if job is not None:
                job()
            elif lines is not None:
                self._read_lines(lines, reader)
            else:
                found = self._resolve(names, lines=False)
                frames = {i: found.get(i, ()) for i in names}
                self._feed.post(SymbolsReady(frames, self._source.problems()))

    def _read_lines(self, stack_id: int, reader: Reader | None) -> None:
        frames = self._resolve([stack_id], lines=True).get(stack_id, ())
        text = {} if reader is None else excerpts(frames, reader)
        self._feed.post(LinesReady(stack_id, frames, text, self._source.problems()))

    # A stack that no name can be had for is shown by its addresses, whatever the reason.
    def _resolve(self, stack_ids: list[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        try:
            return self._source.resolve(stack_ids, lines=lines)
        except Exception:
            return {}
