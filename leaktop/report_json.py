"""Snapshots and events as JSON, one object a line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from leaktop.analyze import Reading
from leaktop.command import signal_name
from leaktop.ignore import NOTHING_IGNORED, Ignored
from leaktop.model import (
    LIFETIME_EDGES_S,
    UNLIMITED,
    Counters,
    Frame,
    Site,
    Snapshot,
    Target,
    Verdict,
)
from leaktop.single_blocks import BlockPage, Event, LiveBlock

JSON_VERSION = 1
"""Changes when a field changes its meaning or goes; new fields do not change it."""


def event_json(event: Event) -> str:
    """Return one event as a JSON object on one line."""
    document = {
        "version": JSON_VERSION,
        "event": str(event.kind),
        "time": json_time(event.time_ns, "microseconds"),
        "pid": event.pid,
        "thread": event.thread,
        "address": f"{event.address:#x}",
        "size": event.size,
        "weight": event.weight,
        "stack": None if event.stack_id is None else f"{event.stack_id:016x}",
    }
    return json.dumps(document, separators=(",", ":"))


def json_line(
    reading: Reading,
    top: Sequence[Site],
    frames: Mapping[int, Sequence[Frame]],
    blocks: Mapping[int, BlockPage] = MappingProxyType({}),
    ignored: Ignored = NOTHING_IGNORED,
) -> str:
    """Return one snapshot as a JSON object on one line. ``blocks``: to list, by stack.

    ``ignored``: what is in the totals and not among ``top``.
    """
    return json.dumps(
        snapshot_document(reading, top, frames, blocks, ignored), separators=(",", ":")
    )


def snapshot_document(
    reading: Reading,
    top: Sequence[Site],
    frames: Mapping[int, Sequence[Frame]],
    blocks: Mapping[int, BlockPage] = MappingProxyType({}),
    ignored: Ignored = NOTHING_IGNORED,
) -> dict[str, Any]:
    """Return one snapshot as the object that ``json_line`` prints."""
    snapshot, totals = reading.snapshot, reading.snapshot.totals
    filters, in_pages = snapshot.filters, snapshot.growth is not None
    return {
        "version": JSON_VERSION,
        "time": json_time(snapshot.time_ns, "milliseconds"),
        "elapsed_s": round(snapshot.elapsed_s, 3),
        "mode": snapshot.mode,
        "target": json_target(snapshot.target),
        "targets": [
            {**json_target(each.target), **_json_counters(each.totals), "note": each.note}
            for each in snapshot.processes
        ],
        "filters": {
            "min_size": filters.min_size,
            "max_size": None if filters.max_size == UNLIMITED else filters.max_size,
            "sample_rate": filters.sample_rate,
            "older_s": filters.older_s,
        },
        **_json_growth(snapshot),
        "totals": _json_counters(totals, in_pages=in_pages),
        "ignored": {
            "bytes": ignored.bytes,
            "count": ignored.count,
            "stacks": len(ignored.entries),
        },
        "rates": {
            "allocs_per_s": round(reading.rates.allocs_per_s, 3),
            "frees_per_s": None if in_pages else round(reading.rates.frees_per_s, 3),
            "bytes_per_s": round(reading.rates.bytes_per_s, 3),
        },
        **({} if snapshot.system is None else {"system": asdict(snapshot.system)}),
        "lost": dict(snapshot.lost),
        "probes_refused": [
            {
                "function": _unicode(each.function),
                "library": _unicode(each.library),
                "effect": each.effect,
                "reason": each.reason,
            }
            for each in snapshot.refusals
        ],
        "stacks": [
            {
                **_json_stack(reading, site, frames.get(site.stack_id, site.frames)),
                **_json_blocks(blocks.get(site.stack_id)),
            }
            for site in top
        ],
    }


def json_time(time_ns: int, precision: str) -> str:
    """Return nanoseconds since the epoch as ISO 8601 has it, in UTC."""
    when = datetime.fromtimestamp(time_ns // 1000 / 1e6, UTC)
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


def _json_blocks(page: BlockPage | None) -> dict[str, Any]:
    # nothing where blocks are not listed
    if page is None:
        return {}
    return {
        "allocations": [_json_block(each) for each in page.blocks],
        "allocations_total": page.total,
    }


def _json_block(block: LiveBlock) -> dict[str, Any]:
    return {
        "address": f"{block.address:#x}",
        "size": block.size,
        "age_s": round(block.age_s, 3),
        "thread": block.thread,
        "weight": block.weight,
    }


def json_target(target: Target) -> dict[str, Any]:
    """Return a target's JSON object."""
    return {
        "pid": target.pid,
        "comm": _unicode(target.comm),
        "alive": target.alive,
        "exit_code": target.exit_code,
        "signal": target.signal and signal_name(target.signal),
    }


def _json_growth(snapshot: Snapshot) -> dict[str, Any]:
    if snapshot.growth is None:
        return {}
    return {"rss": {"bytes": snapshot.target.rss, "change": snapshot.growth.rss_change}}


def _json_counters(counters: Counters, *, in_pages: bool = False) -> dict[str, int | None]:
    figures: dict[str, int | None] = {
        "bytes": counters.bytes,
        "count": counters.count,
        "allocs": counters.allocs,
        "frees": None if in_pages else counters.frees,
        "alloc_bytes": None if in_pages else counters.alloc_bytes,
    }
    if in_pages:
        figures["calls"] = counters.calls
    return figures


def _json_stack(reading: Reading, site: Site, frames: Sequence[Frame]) -> dict[str, Any]:
    return {
        "id": f"{site.stack_id:016x}",
        "pid": site.pid,
        **_json_counters(site.counters, in_pages=reading.snapshot.growth is not None),
        "growth_bytes_per_s": round(reading.growth.get(site.stack_id, 0.0), 3),
        "oldest_s": None if site.oldest_s is None else round(site.oldest_s, 3),
        "oldest_exact": site.oldest_exact,
        **_json_lifetimes(site.lifetimes),
        **_json_verdict(reading.verdicts.get(site.stack_id)),
        "estimated": reading.snapshot.estimated,
        "truncated": site.truncated,
        **({} if reading.snapshot.system is None else {"cache": _unicode(site.cache)}),
        "frames": [json_frame(frame) for frame in frames],
    }


def json_frame(frame: Frame) -> dict[str, Any]:
    """Return a frame's JSON object."""
    return {
        "address": f"{frame.address:#x}",
        "symbol": _unicode(frame.symbol),
        "offset": frame.offset,
        "module": _unicode(frame.module),
        "file": _unicode(frame.file),
        "line": frame.line,
        "inlined": frame.inlined,
    }


def _json_verdict(verdict: Verdict | None) -> dict[str, Any]:
    # nothing where leaks are not judged
    if verdict is None:
        return {}
    return {"suspect": round(verdict.score, 3), "suspect_reason": verdict.reason}


def _json_lifetimes(frees: Sequence[int]) -> dict[str, Any]:
    # nothing where they are not counted; else the bands that have any, by where they begin
    if not frees:
        return {}
    bands = zip(LIFETIME_EDGES_S, frees, strict=True)
    return {"lifetimes": [{"from_s": edge, "frees": count} for edge, count in bands if count]}


# Bytes that are no UTF-8 reach us as lone surrogates, which strict JSON readers refuse.
def _unicode(name: str | None) -> str | None:
    return None if name is None else name.encode("utf-8", "replace").decode("utf-8")
