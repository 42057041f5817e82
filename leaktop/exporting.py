"""Gets together what an exported file says, and writes it; for the threads that have a source."""

import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from leaktop.analyze import Reading, ordered
from leaktop.export import Export
from leaktop.export.formats import format_of
from leaktop.model import Frame, Site, Snapshot, SortKey, StackDetail, Target, Trend
from leaktop.outfile import write
from leaktop.source import Source, SourceError

DETAILED = 10
"""Stacks, the largest ones, whose ages and sizes are read where a format shows them."""
TRENDS = 500
"""Stacks, the largest ones, whose trends are told: as many as the report has rows."""
DETAILS_S = 2.0
"""Time after which no more of them are read: each reads all live blocks."""

_PRIVATE = 0o600


class Trends(Protocol):
    """The past, as ``history.History`` keeps it."""

    def trend(self) -> Trend:
        """Return how the total outstanding bytes came about."""
        ...

    def trends_of(self, stack_ids: Sequence[int]) -> Mapping[int, Trend]:
        """Return how the outstanding bytes of these stacks came about, by stack id."""
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
        return f"{self.what} written to {self.path.absolute()}"


def collect(
    source: Source,
    reading: Reading,
    history: Trends,
    paths: Iterable[Path] = (),
    *,
    failed: bool = False,
) -> Export:
    """Ask for what these files need but for names, in the thread that reads snapshots.

    A source that ``failed`` is asked for nothing that it has to read.
    """
    wanted = any(format_of(path).details for path in paths)
    largest = [s.stack_id for s in ordered(reading, SortKey.BYTES)[:TRENDS]] if wanted else []
    return Export(
        reading,
        mappings=source.mappings(),
        trend=history.trend(),
        trends=history.trends_of(largest),
        details={} if failed else _details(source, largest[:DETAILED]),
    )


def with_names(
    source: Source,
    export: Export,
    known: Mapping[int, Sequence[Frame]],
    stack_ids: Iterable[int] | None = None,
) -> Export:
    """Return the export with names and lines, of these stacks or all.

    ``known`` names where there are no others.
    """
    ids = [site.stack_id for site in export.reading.snapshot.sites]
    ids = ids if stack_ids is None else list(stack_ids)
    frames = {**known, **source.resolve(ids, lines=True)}
    return replace(export, frames={each: frames[each] for each in ids if each in frames})


def write_export(export: Export, path: Path) -> Written:
    """Write one file. Raises OutFileError, and ExportError where its name says no format."""
    chosen = format_of(path)
    data = chosen.render(export)
    write(path, data)
    return Written(path, chosen.what, len(data))


def default_name(snapshot: Snapshot, ending: str) -> str:
    """Return a file's name for what a snapshot shows: whose it is, and when that was."""
    when = datetime.fromtimestamp(snapshot.time_ns // 10**9).astimezone()
    return f"{_whose(snapshot.target)}-{when:%Y%m%d-%H%M%S}{ending}"


def write_stack(export: Export, site: Site, text: str) -> Path:
    """Write one stack as ``text`` to a file that only its user may read, and return where it is.

    Raises OutFileError.
    """
    name = f"{_whose(export.reading.snapshot.target)}-{site.stack_id:x}.txt"
    path = Path(tempfile.gettempdir()) / name
    write(path, text.encode("utf-8", "replace"), _PRIVATE)
    return path


def _whose(target: Target) -> str:
    # the process chose its name
    comm = re.sub(r"[^A-Za-z0-9_.-]", "_", target.comm[:32])
    return f"leaktop-{comm}" + (f"-{target.pid}" if target.pid else "")


def _details(source: Source, stack_ids: Iterable[int]) -> Mapping[int, StackDetail]:
    found: dict[int, StackDetail] = {}
    until = time.monotonic() + DETAILS_S
    for stack_id in stack_ids:
        try:
            found[stack_id] = source.detail(stack_id)
        except SourceError:  # pages, not blocks
            break
        if time.monotonic() > until:
            break
    return found
