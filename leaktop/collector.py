"""The threads that feed the screen, as it knows them: one reads ticks, one names frames."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from textual.message import Message

from leaktop.analyze import Reading
from leaktop.excerpt import Reader
from leaktop.exported import Names
from leaktop.feed import Feed
from leaktop.messages import Exported, Said
from leaktop.model import Filters, Site
from leaktop.naming import SymbolThread
from leaktop.single_blocks import LiveBlock
from leaktop.source import Source
from leaktop.ticking import TickThread

JOIN_S = 0.3
"""How long ``stop`` waits for the source to detach; the tick thread goes on by itself."""


class Collector:
    """Reads ``source`` and posts messages until stopped; every method returns at once."""

    def __init__(
        self,
        source: Source,
        post: Callable[[Message], object],
        delay_s: float,
        exports: Sequence[Path] = (),
    ) -> None:
        """Own ``source``; before it is closed, write the files ``exports``."""
        self._feed = Feed(source, post, self)
        self._delay_s = delay_s
        self._exports = exports
        self._symbols = SymbolThread(self._feed, self.reader)
        self._ticks = self.make_ticks()

    def make_ticks(self) -> TickThread:
        """Return the thread that reads ticks."""
        return TickThread(self._feed, self._delay_s, self._exports, self.do_apart)

    def reader(self) -> Reader | None:
        """Return on whose behalf source files are read, None where none are."""
        return Reader.of_process(self._feed.source.target.pid)

    @property
    def written(self) -> Sequence[Exported]:
        """What became of the files; complete once ``wait`` has returned."""
        return self._ticks.written

    def start(self) -> None:
        """Start both threads, once; the source attaches in its own."""
        if self._ticks.ident is None:
            self._symbols.start()
            self._ticks.start()

    def stop(self) -> None:
        """Tell both threads to end and wait for the source to be closed, ``JOIN_S`` at most."""
        self.ask_to_stop()
        if self._ticks.is_alive():
            self._ticks.join(JOIN_S)

    def wait(self) -> None:
        """Wait for the source to be closed; only after it was asked to stop."""
        if self._ticks.is_alive():
            self._ticks.join()

    def ask_to_stop(self) -> None:
        """Begin to stop without waiting."""
        self._feed.stopping.set()
        self._ticks.wake()
        self._symbols.wake()

    def apply(self, filters: Filters) -> None:
        """Have the source use other filters; of several at once only the last counts."""
        self._ticks.request(filters=filters)

    def watch(self, stack_id: int | None) -> None:
        """Read the live blocks of this stack now and at every tick; None ends it."""
        self._ticks.request(watch=(stack_id,))

    def list_blocks(self, wanted: tuple[int, int, int] | None) -> None:
        """List live blocks now and at every tick: of which stack, from which on, how many.

        None ends it.
        """
        self._ticks.request(listed=(wanted,))

    def read_block(self, block: LiveBlock) -> None:
        """Read the first bytes of a block."""
        self._ticks.request(content=block)

    def log(self, stack_id: int | None) -> None:
        """Tell what this stack does from now on; None ends it."""
        self._ticks.request(log=(stack_id,))

    def export(self, reading: Reading, path: Path, names: Names) -> None:
        """Write a reading to a file, with ``names`` where there are no better ones."""
        self._ticks.request(export=(reading, path, names))

    def copy(self, reading: Reading, site: Site, names: Names) -> None:
        """Put one stack in words."""
        self._ticks.request(copy=(reading, site, names))

    def tick_now(self) -> None:
        """Read a snapshot at once rather than at the next tick."""
        self._ticks.request(tick=True)

    def want_memory(self) -> None:
        """Have what leaktop itself takes read now."""
        self._ticks.request(memory=True)

    def want_names(self, first: Sequence[int], rest: Iterable[int]) -> None:
        """Have these stacks named, ``first`` before ``rest``; replaces what was wanted before."""
        self._symbols.request(names=(list(first), list(rest)))

    def do_apart(self, job: Callable[[], None]) -> None:
        """Have something done that takes names, in the thread that knows them."""
        self._symbols.request(job=job)

    def want_lines(self, stack_id: int) -> None:
        """Have the lines, inlined calls and source text of one stack read before anything else."""
        self._symbols.request(lines=stack_id)

    def post(self, message: Said) -> None:
        """Post to the screen, unless it is done with this source."""
        self._feed.post(message)
