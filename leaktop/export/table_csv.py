"""A table for spreadsheets (RFC 4180): a row for each stack, the largest first."""

import csv
import io
from collections.abc import Iterator

from leaktop.analyze import frame_that_matters, ordered
from leaktop.export import Export
from leaktop.export.places import Places, missing_frames
from leaktop.format import clean
from leaktop.model import Site, SortKey

COLUMNS = (
    "stack",
    "pid",
    "comm",
    "bytes",
    "count",
    "allocs",
    "frees",
    "alloc_bytes",
    "growth_bytes_per_s",
    "oldest_s",
    "oldest_exact",
    "estimated",
    "truncated",
    "suspect",
    "reason",
    "cache",
    "function",
    "module",
    "file",
    "line",
    "frames",
)
"""Names as in the JSON; ``function`` and what follows are of the frame that matters."""


def render(export: Export) -> bytes:
    """Return the table."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    places = Places(export.mappings)
    for site in ordered(export.reading, SortKey.BYTES):
        table.writerow(_row(export, places, site))
    return text.getvalue().encode()


def _row(export: Export, places: Places, site: Site) -> Iterator[object]:
    reading, held, frames = export.reading, site.counters, export.frames_of(site)
    snapshot, pid = reading.snapshot, export.pid_of(site)
    comms = {each.target.pid: each.target.comm for each in snapshot.processes}
    verdict = reading.verdicts.get(site.stack_id)
    names = [places.name(pid, frame) for frame in frames]
    yield f"{site.stack_id:016x}"
    yield pid
    yield _text(comms.get(pid, snapshot.target.comm))
    yield from (held.bytes, held.count, held.allocs, held.frees, held.alloc_bytes)
    yield round(reading.growth.get(site.stack_id, 0.0), 3)
    yield None if site.oldest_s is None else round(site.oldest_s, 3)
    yield from (_truth(site.oldest_exact), _truth(snapshot.estimated), _truth(site.truncated))
    yield from (None, None) if verdict is None else (verdict.score, _text(verdict.reason))
    yield _text(site.cache)
    if frames:
        frame = frame_that_matters(frames)
        yield _text(places.name(pid, frame))
        yield from (_text(frame.module), _text(frame.file), frame.line)
    else:
        yield from (None, None, None, None)
    yield _text(" < ".join([*names, *missing_frames(site)]), limit=30_000)


def _truth(value: bool) -> str:
    return "true" if value else "false"


# A spreadsheet would take a name that begins so for a formula, and run it (CWE-1236). A cell holds
# 32,767 characters.
def _text(name: str | None, limit: int = 512) -> str | None:
    if name is None:
        return None
    shown = clean(name, limit)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@")) else shown
