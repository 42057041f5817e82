"""What worker threads tell the screen, one small message each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from textual.message import Message

from leaktop.analyze import Reading
from leaktop.candidates import Estimate, Processes
from leaktop.excerpt import Excerpt
from leaktop.model import Filters, Frame, Memory, StackDetail, Tracing, Trend
from leaktop.recorder import Recorded
from leaktop.single_blocks import BlockPage, Event, LiveBlock
from leaktop.source import Source, SourceError
from leaktop.source.timeline import Playback
from leaktop.tree_thread import BuiltTree


class Said(Message):
    """What a collector says; ``collector`` is the one, so that late words can be told apart."""

    collector: object = None


class Progress(Said):
    """One step of attaching, in a few words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def can_replace(self, message: Message) -> bool:
        """Let a later step replace one not shown yet."""
        return isinstance(message, Progress)


class Ready(Said):
    """Counting has begun, or takes in more code."""

    def __init__(self, tracing: Tracing) -> None:
        super().__init__()
        self.tracing = tracing


class MemoryRead(Said):
    """What leaktop itself takes, as it was asked for."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory


class SnapshotReady(Said):
    """A tick was read; ``trend`` is that of the total outstanding bytes."""

    def __init__(self, reading: Reading, trend: Trend) -> None:
        super().__init__()
        self.reading = reading
        self.trend = trend

    def can_replace(self, message: Message) -> bool:
        """Let a newer tick replace one not shown yet."""
        return isinstance(message, SnapshotReady)


class SymbolsReady(Said):
    """Frames with names, by stack id; no frames where the source does not know the stack.

    ``problems`` says why modules have no names or lines (see ``Source.problems``).
    """

    def __init__(
        self, frames: Mapping[int, tuple[Frame, ...]], problems: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.frames = frames
        self.problems = problems


class LinesReady(Said):
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


class DetailReady(Said):
    """What one stack's live blocks say; ``error`` says why there is no ``detail``."""

    def __init__(
        self,
        stack_id: int,
        detail: StackDetail | None,
        trend: Trend,
        error: str | None = None,
    ) -> None:
        super().__init__()
        self.stack_id = stack_id
        self.detail = detail
        self.trend = trend
        self.error = error


class BlocksReady(Said):
    """Some of one stack's live blocks; ``error`` says why there is no ``page``."""

    def __init__(self, stack_id: int, page: BlockPage | None, error: str = "") -> None:
        super().__init__()
        self.stack_id = stack_id
        self.page = page
        self.error = error


class BlockRead(Said):
    """What the first bytes of a block were; ``error`` says why there are none."""

    def __init__(self, block: LiveBlock, data: bytes, error: str = "") -> None:
        super().__init__()
        self.block = block
        self.data = data
        self.error = error


class EventsReady(Said):
    """What one stack did: the last of ``count`` events; ``error`` says why it is not logged."""

    def __init__(self, stack_id: int, events: Sequence[Event], count: int, error: str = "") -> None:
        super().__init__()
        self.stack_id = stack_id
        self.events = events
        self.count = count
        self.error = error


class Exported(Said):
    """A file was written; ``error`` says why it was not."""

    def __init__(self, text: str, *, error: bool = False) -> None:
        super().__init__()
        self.text = text
        self.error = error


class StackCopied(Said):
    """One stack as ``text``, which is in the file ``path`` too; ``error`` says why it is not."""

    def __init__(self, text: str, path: Path | None, error: str = "") -> None:
        super().__init__()
        self.text = text
        self.path = path
        self.error = error


class FiltersApplied(Said):
    """The source uses these filters from now on."""

    def __init__(self, filters: Filters) -> None:
        super().__init__()
        self.filters = filters


class FiltersRefused(Said):
    """The source keeps the filters it had."""

    def __init__(self, error: str) -> None:
        super().__init__()
        self.error = error


class TreeReady(Said):
    """A call tree was built."""

    def __init__(self, built: BuiltTree) -> None:
        super().__init__()
        self.built = built

    def can_replace(self, message: Message) -> bool:
        """Let a newer tree replace one not shown yet."""
        return isinstance(message, TreeReady)


class TargetGone(Said):
    """The target is no longer traced; the last snapshot stays."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class SourceFailed(Said):
    """The source cannot start, or cannot go on where ``started``."""

    def __init__(self, error: SourceError, *, started: bool) -> None:
        super().__init__()
        self.error = error
        self.started = started


class Played(Said):
    """A recording is shown elsewhere, or goes on otherwise."""

    def __init__(self, playback: Playback) -> None:
        super().__init__()
        self.playback = playback


class RecordingChanged(Said):
    """A recording has begun, grown or ended."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__()
        self.recorded = recorded

    def can_replace(self, message: Message) -> bool:
        """Let a later one replace one not shown yet."""
        return isinstance(message, RecordingChanged)


class Closed(Said):
    """The source is closed: nothing is attached any more."""


class SourceOpened(Message):
    """The source that was to be opened is there, and not started."""

    def __init__(self, opening: object, source: Source) -> None:
        super().__init__()
        self.opening = opening
        self.source = source


class OpenFailed(Message):
    """What was to be opened cannot be traced."""

    def __init__(self, opening: object, error: SourceError) -> None:
        super().__init__()
        self.opening = opening
        self.error = error


class NotKept(Message):
    """A change of the configuration could not be written; it lasts as long as this run."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Estimated(Message):
    """What exact tracing would cost a process; None where that cannot be told."""

    def __init__(self, estimating: object, estimate: Estimate | None) -> None:
        super().__init__()
        self.estimating = estimating
        self.estimate = estimate


class CostMeasured(Message):
    """The seconds that exact tracing adds to a call on this host."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class ProcessesRead(Message):
    """The processes of the machine were read."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def can_replace(self, message: Message) -> bool:
        """Let a newer reading replace one not shown yet."""
        return isinstance(message, ProcessesRead)
