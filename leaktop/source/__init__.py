"""Where snapshots come from; knows neither bcc nor the screen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from leaktop.model import (
    CodeMapping,
    Filters,
    Frame,
    Memory,
    Snapshot,
    StackDetail,
    Target,
    Tracing,
)
from leaktop.single_blocks import BlockPage, Event


class SourceError(Exception):
    """A source cannot start or go on; the text says what happened and what to do next.

    ``exit_code`` is the process's exit code where this ends it: 1 failed while running, 3 no
    privilege or no BPF, 4 no such target.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Source(Protocol):
    """One stream of snapshots.

    All are called from one thread, the collector's, but for ``resolve``, called from one other, so
    that slow debug information never delays a tick, and ``problems``. Neither is the screen's.
    """

    @property
    def target(self) -> Target:
        """The process, as known before ``start``."""
        ...

    @property
    def tracing(self) -> Tracing:
        """What is traced since ``start``; another value once the target has loaded more code."""
        ...

    @property
    def end_descriptor(self) -> int | None:
        """A descriptor that becomes readable when the target ends; None where nothing tells."""
        ...

    def start(self, progress: Callable[[str], None]) -> None:
        """Attach and begin to count; ``progress`` is told each step in a few words.

        Raises SourceError, with nothing left attached.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Read the counters now; costs O(stacks). Raises SourceError."""
        ...

    def detail(self, stack_id: int) -> StackDetail:
        """Read the live blocks of one stack; costs O(allocations). Raises SourceError."""
        ...

    def blocks(self, stack_ids: Iterable[int], offset: int, count: int) -> Mapping[int, BlockPage]:
        """Read some of the live blocks of each stack, oldest first; costs O(allocations).

        Raises SourceError.
        """
        ...

    def read_block(self, pid: int, address: int, size: int) -> bytes:
        """Read the first bytes of a block as they are now, ``BLOCK_BYTES_MAX`` at most.

        Less where not all of it can be read. Raises SourceError where nothing can.
        """
        ...

    def log(self, stack_id: int | None) -> None:
        """Have what one stack does from now on logged, and no other; None ends it.

        Raises SourceError.
        """
        ...

    def events(self) -> Sequence[Event]:
        """Take the oldest events logged, ``EVENTS_MAX`` at most, in order.

        Those that found no room are counted as ``events_dropped``. Raises SourceError.
        """
        ...

    def memory(self) -> Memory:
        """Ask what leaktop itself takes. Raises SourceError."""
        ...

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """Name the frames of stacks seen in a snapshot; unknown ids are left out.

        With ``lines`` the frames also carry file, line and the calls inlined at them, and so
        there may be more of them than in ``Site.frames``. Without, only names: cheap. Never raises.
        """
        ...

    def problems(self) -> Mapping[str, str]:
        """Return why modules have no names or lines: module name to a one-line reason.

        Also why a perf map is not used, by its path. Any thread may call, but may have to wait for
        names being looked up. Never raises.
        """
        ...

    def mappings(self) -> Sequence[CodeMapping]:
        """Return the code that frames of the last snapshot's stacks may lie in, by PID and address.

        None before ``start`` and after ``close``. Never raises.
        """
        ...

    def apply(self, filters: Filters) -> None:
        """Use other filters for allocations from now on. Raises SourceError."""
        ...

    def close(self) -> None:
        """Detach; safe to call at any time and more than once."""
        ...


class WithoutBlocks:
    """The part of a Source that does not look at single blocks; ``_NO_BLOCKS`` says why not."""

    _NO_BLOCKS = "single blocks are not looked at here"

    def blocks(self, stack_ids: Iterable[int], offset: int, count: int) -> Mapping[int, BlockPage]:
        """Raise SourceError."""
        raise SourceError(self._NO_BLOCKS)

    def read_block(self, pid: int, address: int, size: int) -> bytes:
        """Raise SourceError."""
        raise SourceError(self._NO_BLOCKS)

    def log(self, stack_id: int | None) -> None:
        """Raise SourceError, unless it is to end what never began."""
        if stack_id is not None:
            raise SourceError(self._NO_BLOCKS)

    def events(self) -> Sequence[Event]:
        """Return none."""
        return ()
