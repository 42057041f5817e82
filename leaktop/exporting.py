"""Gets together what an exported file says, and writes it; for the threads that have a source."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from leaktop.analyze import Reading, ordered
from leaktop.export import Export
from leaktop.export.formats import format_of
from leaktop.model import Frame, SortKey, StackDetail
from leaktop.outfile import write
from leaktop.source import Source, SourceError

DETAILED = 10
"""Stacks, the largest ones, whose ages and sizes are read where a format shows them."""
DETAILS_S = 2.0
"""Time after which no more of them are read: each reads all live blocks."""


class Trends(Protocol):
    """The last ticks, as ``history.History`` keeps them."""

    def trend(self) -> Sequence[int]:
        """Return the total outstanding bytes at each tick kept, oldest first."""
        ...

    def trend_of(self, stack_id: int) -> Sequence[int]:
        """Return the outstanding bytes of one stack at each tick kept, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written."""

    path: Path
    what: str
    """Its format."""
    size: int
    """Bytes."""

    def __str__(self) -> str:
        """Say so in a few words."""
        return f"{self.what} written to {self.path}"


def collect(source: Source, reading: Reading, history: Trends, paths: Iterable[Path]) -> Export:
    """Ask for what these files need but for names, in the thread that reads snapshots."""
    wanted = any(format_of(path).details for path in paths)
    return Export(
        reading,
        mappings=source.mappings(),
        trend=history.trend(),
        trends={each.stack_id: history.trend_of(each.stack_id) for each in reading.snapshot.sites}
        if wanted
        else {},
        details=_details(source, reading) if wanted else {},
    )


def with_names(source: Source, export: Export, known: Mapping[int, Sequence[Frame]]) -> Export:
    """Return the export with names and lines; ``known`` names where there are no others."""
    ids = [site.stack_id for site in export.reading.snapshot.sites]
    frames = {**known, **source.resolve(ids, lines=True)}
    return Export(
        export.reading,
        {each: frames[each] for each in ids if each in frames},
        export.mappings,
        export.trend,
        export.trends,
        export.details,
    )


def write_export(export: Export, path: Path) -> Written:
    """Write one file. Raises OutFileError, and ExportError where its name says no format."""
    chosen = format_of(path)
    data = chosen.render(export)
    write(path, data)
    return Written(path, chosen.what, len(data))


def _details(source: Source, reading: Reading) -> Mapping[int, StackDetail]:
    found: dict[int, StackDetail] = {}
    until = time.monotonic() + DETAILS_S
    for site in ordered(reading, SortKey.BYTES)[:DETAILED]:
        try:
            found[site.stack_id] = source.detail(site.stack_id)
        except SourceError:  # pages, not blocks
            break
        if time.monotonic() > until:
            break
    return found
