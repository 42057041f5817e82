"""What a source over another source hands on as it is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

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
from leaktop.source import Source


class RelayedSource(ABC):
    """The part of a Source (see ``leaktop.source``) that another one answers."""

    @property
    @abstractmethod
    def _relayed(self) -> Source:
        """The other source. Raises SourceError where there is none yet."""

    @property
    def target(self) -> Target:
        """See Source."""
        return self._relayed.target

    @property
    def end_descriptor(self) -> int | None:
        """See Source."""
        return self._relayed.end_descriptor

    @property
    def tracing(self) -> Tracing:
        """See Source."""
        return self._relayed.tracing

    def snapshot(self) -> Snapshot:
        """See Source."""
        return self._relayed.snapshot()

    def detail(self, stack_id: int) -> StackDetail:
        """See Source."""
        return self._relayed.detail(stack_id)

    def blocks(self, stack_ids: Iterable[int], offset: int, count: int) -> Mapping[int, BlockPage]:
        """See Source."""
        return self._relayed.blocks(stack_ids, offset, count)

    def read_block(self, pid: int, address: int, size: int) -> bytes:
        """See Source."""
        return self._relayed.read_block(pid, address, size)

    def log(self, stack_id: int | None) -> None:
        """See Source."""
        self._relayed.log(stack_id)

    def events(self) -> Sequence[Event]:
        """See Source."""
        return self._relayed.events()

    def memory(self) -> Memory:
        """See Source."""
        return self._relayed.memory()

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """See Source."""
        return self._relayed.resolve(stack_ids, lines=lines)

    def problems(self) -> Mapping[str, str]:
        """See Source."""
        return self._relayed.problems()

    def mappings(self) -> Sequence[CodeMapping]:
        """See Source."""
        return self._relayed.mappings()

    def apply(self, filters: Filters) -> None:
        """See Source."""
        self._relayed.apply(filters)
