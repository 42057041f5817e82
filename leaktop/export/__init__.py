"""A reading in the formats of other tools: pure, bytes out.

What a format is called and which file names mean it is in ``formats``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from leaktop.analyze import Reading
from leaktop.model import CodeMapping, Frame, Site, StackDetail, Trend

__all__ = ["Export", "ExportError"]


class ExportError(Exception):
    """Something cannot be exported; the text says what, and what can be, in one line."""


@dataclass(frozen=True, slots=True)
class Export:
    """All that an exported file may say. Sizes are bytes, times seconds."""

    reading: Reading
    frames: Mapping[int, Sequence[Frame]] = field(default_factory=dict)
    """By stack id, innermost first, with lines and inlined calls where they are known."""
    mappings: Sequence[CodeMapping] = ()
    """The code that the frames lie in, as far as it is known."""
    trend: Trend = field(default_factory=Trend)
    """Outstanding bytes at each of the last ticks, oldest first."""
    trends: Mapping[int, Trend] = field(default_factory=dict)
    """The same of each stack, by its id."""
    details: Mapping[int, StackDetail] = field(default_factory=dict)
    """Ages and sizes of what some stacks hold, by id."""

    def frames_of(self, site: Site) -> Sequence[Frame]:
        """Return the frames of a stack, with names where there are any."""
        return self.frames.get(site.stack_id) or site.frames

    def pid_of(self, site: Site) -> int:
        """Return the process that a stack is of: the target where nothing else is known."""
        return self.reading.snapshot.target.pid if site.pid is None else site.pid
