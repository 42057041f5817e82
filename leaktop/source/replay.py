"""A recording as a source: needs no privilege, no BPF, and not the machine that it is of."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

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
from leaktop.source import SourceError, WithoutBlocks
from leaktop.source.blocks import RecordingError
from leaktop.source.recording import Header, Moment, Recording
from leaktop.source.timeline import Tick


class ReplaySource(WithoutBlocks):
    """A Source (see ``leaktop.source``) that plays a recording, one snapshot after the other."""

    _NO_BLOCKS = "a recording has no single blocks"

    def __init__(self, path: Path) -> None:
        """Open a recording. Raises RecordingError where nothing can be made of it."""
        self._recording = Recording(path)
        self._lock = threading.RLock()
        self._moment: Moment | None = None
        self._next = 0

    @property
    def header(self) -> Header:
        """Who was recorded, where and by whom."""
        return self._recording.header

    @property
    def path(self) -> Path:
        """Where the recording is."""
        return self._recording.path

    @property
    def ticks(self) -> Sequence[Tick]:
        """What a time line needs to know of each snapshot there is."""
        return self._recording.ticks

    @property
    def damage(self) -> str | None:
        """Why there are no more of them, where the recording has no proper end."""
        return self._recording.damage

    @property
    def broken(self) -> bool:
        """Whether it is more than a recording that was cut off, or is still being written."""
        return self._recording.broken

    @property
    def number(self) -> int:
        """Of the snapshot that was read last."""
        return self._next - 1

    @property
    def target(self) -> Target:
        """The process, as it was when the recording began."""
        return self._recording.header.target

    @property
    def tracing(self) -> Tracing:
        """What was traced."""
        return self._here().tracing

    @property
    def end_descriptor(self) -> int | None:
        """None: nothing ends."""
        return None

    def start(self, progress: Callable[[str], None]) -> None:
        """Do nothing: all is there."""

    def seek(self, number: int) -> None:
        """Have ``snapshot`` go on with this one, or the nearest that there is."""
        self._next = max(0, min(number, len(self.ticks) - 1))

    def snapshot(self) -> Snapshot:
        """Return the next one, and the last again and again.

        Raises RecordingError where nothing can be made of it; then the recording ends before it.
        """
        with self._lock:
            number = min(self._next, len(self.ticks) - 1)
            self._moment = self._read(number)
            self._next = number + 1
            return self._moment.snapshot

    def detail(self, stack_id: int) -> StackDetail:
        """Return what the blocks of a stack said when they were looked at last."""
        with self._lock:
            detail = self._recording.detail(self._here().number, stack_id)
        if detail is None:
            raise SourceError("ages and sizes of this stack were not recorded by then")
        return detail

    def memory(self) -> Memory:
        """Return what the leaktop that recorded took."""
        memory = self._here().memory
        if memory is None:
            raise SourceError("what leaktop itself took was not recorded")
        return memory

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """Return what frames were called at that time, as far as it was known then or later."""
        try:
            with self._lock:
                number = self._here().number
                found = {
                    stack_id: self._recording.frames(number, stack_id, lines=lines)
                    for stack_id in stack_ids
                }
        except RecordingError:
            return {}
        return {stack_id: frames for stack_id, frames in found.items() if frames is not None}

    def problems(self) -> Mapping[str, str]:
        """Return why modules had no names or lines."""
        moment = self._moment
        return {} if moment is None else moment.problems

    def mappings(self) -> Sequence[CodeMapping]:
        """Return the code that was mapped."""
        moment = self._moment
        return () if moment is None else moment.mappings

    def apply(self, filters: Filters) -> None:
        """Raise SourceError: what was not traced is not there."""
        raise SourceError("a recording has only what was traced then")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._recording.close()

    def _here(self) -> Moment:
        with self._lock:
            if self._moment is None:
                self._moment = self._read(min(self._next, len(self.ticks) - 1))
            return self._moment

    def _read(self, number: int) -> Moment:
        try:
            return self._recording.moment(number)
        except RecordingError as error:
            self._recording.cut(number, str(error))
            raise


def opening_line(source: ReplaySource) -> str:
    """Return what is replayed: ``replaying FILE: PID (COMM) on HOST, N snapshots over TIME``."""
    header, ticks = source.header, source.ticks
    began = datetime.fromtimestamp(ticks[0].time_ns / 1e9).astimezone()
    on_host = f" on {header.host}" if header.host else ""
    who = f"{header.target.pid} ({header.target.comm})" if header.target.pid else "the kernel"
    count = f"{len(ticks)} snapshot{'' if len(ticks) == 1 else 's'}"
    return f"replaying {source.path}: {who}{on_host}, {count} from {began:%Y-%m-%d %H:%M:%S} on"


def ending_line(source: ReplaySource) -> str | None:
    """Return what is wrong with a recording, and what of it there is; None where nothing is."""
    if source.damage is None:
        return None
    count = f"{len(source.ticks)} snapshot{'' if len(source.ticks) == 1 else 's'}"
    return f"{source.path}: {source.damage}; the {count} before that can be shown"
