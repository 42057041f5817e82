"""What the collector's threads tell the screen, one small message each."""

from collections.abc import Mapping, Sequence

from textual.message import Message

from leaktop.analyze import Reading
from leaktop.excerpt import Excerpt
from leaktop.model import (
    BlockPage,
    Event,
    Filters,
    Frame,
    LiveBlock,
    Memory,
    StackDetail,
    Tracing,
)
from leaktop.source import SourceError


class Progress(Message):
    """One step of attaching, in a few words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def can_replace(self, message: Message) -> bool:
        """Let a later step replace one not shown yet."""
        return isinstance(message, Progress)


class Ready(Message):
    """Counting has begun, or takes in more code."""

    def __init__(self, tracing: Tracing) -> None:
        super().__init__()
        self.tracing = tracing


class MemoryRead(Message):
    """What leaktop itself takes, as it was asked for."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory


class SnapshotReady(Message):
    """A tick was read; ``trend`` is the total's outstanding bytes over the last ticks."""

    def __init__(self, reading: Reading, trend: Sequence[int]) -> None:
        super().__init__()
        self.reading = reading
        self.trend = trend

    def can_replace(self, message: Message) -> bool:
        """Let a newer tick replace one not shown yet."""
        return isinstance(message, SnapshotReady)


class SymbolsReady(Message):
    """Frames with names, by stack id; no frames where the source does not know the stack.

    ``problems`` says why modules have no names or lines (see ``Source.problems``).
    """

    def __init__(
        self, frames: Mapping[int, tuple[Frame, ...]], problems: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.frames = frames
        self.problems = problems


class LinesReady(Message):
    """One stack's frames with lines and inlined calls, and source text by index of the frame.

    ``problems`` says why modules have no names or lines (see ``Source.problems``).
    """

    def __init__(
        self,
        stack_id: int,
        frames: tuple[Frame, ...],
        excerpts: Mapping[int, Excerpt],
        problems: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.stack_id = stack_id
        self.frames = frames
        self.excerpts = excerpts
        self.problems = problems


class DetailReady(Message):
    """What one stack's live blocks say; ``error`` says why there is no ``detail``."""

    def __init__(
        self,
        stack_id: int,
        detail: StackDetail | None,
        trend: Sequence[int],
        error: str | None = None,
    ) -> None:
        super().__init__()
        self.stack_id = stack_id
        self.detail = detail
        self.trend = trend
        self.error = error


class BlocksReady(Message):
    """Some of one stack's live blocks; ``error`` says why there is no ``page``."""

    def __init__(self, stack_id: int, page: BlockPage | None, error: str = "") -> None:
        super().__init__()
        self.stack_id = stack_id
        self.page = page
        self.error = error


class BlockRead(Message):
    """What the first bytes of a block were; ``error`` says why there are none."""

    def __init__(self, block: LiveBlock, data: bytes, error: str = "") -> None:
        super().__init__()
        self.block = block
        self.data = data
        self.error = error


class EventsReady(Message):
    """What one stack did: the last of ``count`` events; ``error`` says why it is not logged."""

    def __init__(self, stack_id: int, events: Sequence[Event], count: int, error: str = "") -> None:
        super().__init__()
        self.stack_id = stack_id
        self.events = events
        self.count = count
        self.error = error


class FiltersApplied(Message):
    """The source uses these filters from now on."""

    def __init__(self, filters: Filters) -> None:
        super().__init__()
        self.filters = filters


class FiltersRefused(Message):
    """The source keeps the filters it had."""

    def __init__(self, error: str) -> None:
        super().__init__()
        self.error = error


class TargetGone(Message):
    """The target is no longer traced; the last snapshot stays."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class SourceFailed(Message):
    """The source cannot start, or cannot go on where ``started``."""

    def __init__(self, error: SourceError, *, started: bool) -> None:
        super().__init__()
        self.error = error
        self.started = started
