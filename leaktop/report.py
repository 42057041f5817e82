"""Batch output: text that reads like memleak's, or one JSON object a line."""

import json
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

from leaktop.analyze import Reading, ordered
from leaktop.command import Command, describe_end, signal_name
from leaktop.format import clean
from leaktop.model import (
    EVENTS_MAX,
    LOSSES,
    UNLIMITED,
    BlockPage,
    Counters,
    Event,
    Frame,
    LiveBlock,
    Site,
    Snapshot,
    SortKey,
    Target,
    Tracing,
)
from leaktop.source import Source

JSON_VERSION = 1
"""Changes when a field changes its meaning or goes; new fields do not change it."""
BLOCKS_MAX = 1000
"""Live blocks listed of each stack."""
_EVENTS_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a batch run prints, and how often."""

    delay_s: float
    iterations: int | None
    """Snapshots to print; None: until a signal, or until the target exits."""
    top: int
    sort: SortKey
    as_json: bool
    trace: bool = False
    """Print each event; the source has to log all stacks."""
    show_allocs: bool = False
    """List the live blocks of each stack that is printed."""


def run_batch(
    source: Source,
    options: BatchOptions,
    out: TextIO,
    messages: TextIO,
    command: Command | None = None,
) -> None:
    """Trace, print a snapshot each delay to ``out``, and stop.

    Ends after the given iterations, when the target exits, or on SIGINT or SIGTERM; the latter two
    with a last snapshot. A ``command`` is passed the first such signal, and only the second ends
    the run before the command. Raises SourceError, and BrokenPipeError when nobody reads ``out``.
    """
    with _stop_signals(command) as stop:
        try:
            source.start(lambda step: None)
            _say(clean(ready_line(source.target, source.tracing)), messages)
            if command is not None:
                command.go()
            last = _print_snapshots(source, options, stop, out, messages)
        finally:
            source.close()
        if command is not None and last.note and not _tells_end(last, command):
            _wait_for(command, stop, messages)


def _print_snapshots(
    source: Source, options: BatchOptions, stop: "_Stop", out: TextIO, messages: TextIO
) -> Snapshot:
    # returns the last one
    from leaktop.history import History  # noqa: PLC0415  (numpy, once the source is at work)

    history = History()
    lost: Mapping[str, int] = {}
    due = time.monotonic()
    printed = 0
    while True:
        due += options.delay_s
        _wait(source, options, stop, due, out)
        due = max(due, time.monotonic() - options.delay_s)  # a tick that was missed is dropped
        reading = history.add(source.snapshot())
        top = ordered(reading, options.sort)[: options.top]
        frames = source.resolve([site.stack_id for site in top], lines=True)
        blocks: Mapping[int, BlockPage] = {}
        if options.show_allocs:
            blocks = source.blocks([site.stack_id for site in top], 0, BLOCKS_MAX)
        show = json_line if options.as_json else text
        print(show(reading, top, frames, blocks), file=out, flush=True)
        printed += 1
        if reading.snapshot.lost != lost and not options.as_json:
            lost = reading.snapshot.lost
            _print_losses(lost, messages)
        snapshot = reading.snapshot
        if snapshot.note and not options.as_json:
            who = f"process {snapshot.target.pid} ({clean(snapshot.target.comm)})"
            if snapshot.processes:
                who = f"all {len(snapshot.processes)} processes:"
            _say(f"{who} {clean(snapshot.note)}", messages)
        if snapshot.note or stop.asked or printed == options.iterations:
            return snapshot


def _tells_end(snapshot: Snapshot, command: Command) -> bool:
    targets = (snapshot.target, *(each.target for each in snapshot.processes))
    known = [each for each in targets if each.exit_code is not None or each.signal is not None]
    return any(each.pid == command.pid for each in known)


# A command that can no longer be traced, but runs on, has our terminal and our standard input.
def _wait_for(command: Command, stop: "_Stop", messages: TextIO) -> None:
    while command.running and not stop.asked:
        stop.wait(None, command.descriptor)
    if (status := command.status) is not None:
        _say(f"{clean(command.name)} ({command.pid}) {describe_end(status)}", messages)


def _wait(source: Source, options: BatchOptions, stop: "_Stop", due: float, out: TextIO) -> None:
    """Wait for a tick, or for the target's end or a signal; print the events that come."""
    show = event_json if options.as_json else event_text
    while True:
        left = max(0.0, due - time.monotonic())
        woken = stop.wait(
            min(left, _EVENTS_EVERY_S) if options.trace else left, source.end_descriptor
        )
        events: Sequence[Event] = source.events() if options.trace else ()
        if events:
            print("\n".join(map(show, events)), file=out, flush=True)
        late = time.monotonic() >= due
        if (woken or late) and (late or len(events) < EVENTS_MAX):
            return


def ready_line(target: Target, tracing: Tracing) -> str:
    """Return ``tracing PID (COMM): N functions in LIBRARY``, and what is not traced.

    Of several processes their number and names; of the kernel ``tracing the kernel: N
    tracepoints``, or ``the kernel for PID (COMM)``. In growth mode ``watching PID (COMM) grow: page
    faults, brk, mmap``.
    """
    if tracing.tracepoints:
        whose = f" for {target.pid} ({target.comm})" if target.pid else ""
        parts = [f"{len(tracing.tracepoints)} tracepoints"]
        parts += [f"not {each}" for each in tracing.left_out]
        return f"tracing the kernel{whose}: {'; '.join(parts)}"
    if tracing.growth:
        return f"watching {target.pid} ({target.comm}) grow: {tracing.growth}"
    refused = [f"not {each}" for each in tracing.refusals]
    left_out = [f"not {each}" for library in tracing.libraries for each in library.left_out]
    what = "; ".join([", ".join(map(str, tracing.libraries)), *refused, *left_out])
    if tracing.processes:
        names = ", ".join(dict.fromkeys(each.comm for each in tracing.processes))
        return f"tracing {len(tracing.processes)} processes ({names}): {what}"
    return f"tracing {target.pid} ({target.comm}): {what}"


def _print_losses(lost: Mapping[str, int], messages: TextIO) -> None:
    for name, count in lost.items():
        if count:
            _say(f"lost: {name} {count}: {LOSSES.get(name, '')}", messages)


# In one piece, which print does not do: a command may be writing to the same file.
def _say(text: str, messages: TextIO) -> None:
    messages.write(f"leaktop: {text}\n")
    messages.flush()


class _Stop:
    # Whether a signal asked to end. A pipe, since a handler runs in the midst of whatever this
    # thread does: with threading.Event it would wait for a lock that this thread holds.

    def __init__(self, command: Command | None) -> None:
        self.asked = False
        self._command = command
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def take(self, number: int) -> None:
        command, self._command = self._command, None
        if command is not None and command.running:
            if not (number == signal.SIGINT and _in_foreground()):
                command.send(number)
            return
        self.asked = True
        with suppress(BlockingIOError):  # full: it was asked often enough
            os.write(self._writer, b"\0")

    def wait(self, seconds: float | None, other: int | None) -> bool:
        # or until another descriptor is readable; returns whether either was
        watched = [self._reader] if other is None else [self._reader, other]
        return bool(select.select(watched, [], [], seconds)[0])

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


# Whether ^C at our terminal goes to us, and so to the commands of our process group, too.
def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextmanager
def _stop_signals(command: Command | None) -> Iterator[_Stop]:
    stop = _Stop(command)
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: stop.take(number)) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
        stop.close()


def event_text(event: Event) -> str:
    """Return one event as a line of text."""
    when = datetime.fromtimestamp(event.time_ns // 1000 / 1e6).astimezone()
    stack = "?" if event.stack_id is None else f"{event.stack_id:016x}"
    weight = f" x{event.weight}" if event.weight > 1 else ""
    return (
        f"[{when:%H:%M:%S.%f}] {event.pid or '?'}/{event.thread} {event.kind} {event.size} bytes "
        f"at {event.address:#x}{weight} stack {stack}"
    )


def event_json(event: Event) -> str:
    """Return one event as a JSON object on one line."""
    document = {
        "version": JSON_VERSION,
        "event": str(event.kind),
        "time": _json_time(event.time_ns, "microseconds"),
        "pid": event.pid,
        "thread": event.thread,
        "address": f"{event.address:#x}",
        "size": event.size,
        "weight": event.weight,
        "stack": None if event.stack_id is None else f"{event.stack_id:016x}",
    }
    return json.dumps(document, separators=(",", ":"))


def text(
    reading: Reading,
    top: Sequence[Site],
    frames: Mapping[int, Sequence[Frame]],
    blocks: Mapping[int, BlockPage] = MappingProxyType({}),
) -> str:
    """Return one snapshot in memleak's words: a heading, then each stack's sum and frames.

    ``blocks``: live blocks to list, by stack.
    """
    snapshot = reading.snapshot
    when = datetime.fromtimestamp(snapshot.time_ns / 1e9).astimezone()
    lines = [f"[{when:%H:%M:%S}] Top {len(top)} stacks with {_what(snapshot)}:"]
    lines += [f"\t[not traced: {clean(str(each))}]" for each in snapshot.refusals]
    names = {each.target.pid: each.target.comm for each in snapshot.processes}
    for site in top:
        held = site.counters
        of = f" of {site.pid} ({clean(names[site.pid])})" if site.pid in names else ""
        lines.append(f"\t{_figures(snapshot, held)} from stack{of}")
        if site.cache:
            lines.append(f"\t\t[of slab cache {clean(site.cache)}]")
        lines += [f"\t\t{frame_text(frame)}" for frame in frames.get(site.stack_id, site.frames)]
        if not site.frames:
            lines.append("\t\t[no room for its stack: see --max-stacks]")
        elif site.truncated:
            lines.append("\t\t[the stack goes on: it was cut here]")
        if site.stack_id in blocks:
            lines += _block_lines(blocks[site.stack_id])
    return "\n".join(lines)


def _what(snapshot: Snapshot) -> str:
    if snapshot.growth is None:
        return "outstanding allocations"
    change = snapshot.growth.rss_change
    resident = "" if change is None else f"; resident memory {change:+} bytes"
    return f"new pages (growth, not leaks{resident})"


def _figures(snapshot: Snapshot, held: Counters) -> str:
    mark = "~" if snapshot.estimated else ""
    if snapshot.growth is None:
        return f"{mark}{held.bytes} bytes in {mark}{held.count} allocations"
    parts = []
    if held.count or not held.calls:
        parts.append(f"{mark}{held.bytes} bytes in {mark}{held.count} new pages")
    if held.calls:
        parts.append(f"{mark}{held.calls} calls of brk or mmap")
    return " and ".join(parts)


def _block_lines(page: BlockPage) -> Iterator[str]:
    for each in page.blocks:
        weight = f" x{each.weight}" if each.weight > 1 else ""
        yield (
            f"\t\taddr = {each.address:x} size = {each.size} age = {each.age_s:.3f}s "
            f"thread = {each.thread}{weight}"
        )
    if page.total > len(page.blocks):
        yield f"\t\t[{page.total - len(page.blocks)} younger allocations not listed]"


def frame_text(frame: Frame) -> str:
    """Return a frame as memleak prints it, ``main+0x6d [allocs]``, and where in the source."""
    if frame.symbol is None:
        name = f"{frame.address:#x}"
    elif frame.offset is None:
        name = clean(frame.symbol)
    else:
        name = f"{clean(frame.symbol)}+{frame.offset:#x}"
    module = clean(frame.module or "unknown")
    parts = [name, module if module.startswith("[") else f"[{module}]"]
    if frame.file:
        parts.append(f"({clean(frame.file)}:{frame.line or '?'})")
    if frame.inlined:
        parts.append("(inlined)")
    return " ".join(parts)


def json_line(
    reading: Reading,
    top: Sequence[Site],
    frames: Mapping[int, Sequence[Frame]],
    blocks: Mapping[int, BlockPage] = MappingProxyType({}),
) -> str:
    """Return one snapshot as a JSON object on one line. ``blocks``: to list, by stack."""
    snapshot, totals = reading.snapshot, reading.snapshot.totals
    filters, in_pages = snapshot.filters, snapshot.growth is not None
    document: dict[str, Any] = {
        "version": JSON_VERSION,
        "time": _json_time(snapshot.time_ns, "milliseconds"),
        "elapsed_s": round(snapshot.elapsed_s, 3),
        "mode": snapshot.mode,
        "target": _json_target(snapshot.target),
        "targets": [
            {**_json_target(each.target), **_json_counters(each.totals), "note": each.note}
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
    return json.dumps(document, separators=(",", ":"))


def _json_time(time_ns: int, precision: str) -> str:
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


def _json_target(target: Target) -> dict[str, Any]:
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
        "estimated": reading.snapshot.estimated,
        "truncated": site.truncated,
        **({} if reading.snapshot.system is None else {"cache": _unicode(site.cache)}),
        "frames": [
            {
                "address": f"{frame.address:#x}",
                "symbol": _unicode(frame.symbol),
                "offset": frame.offset,
                "module": _unicode(frame.module),
                "file": _unicode(frame.file),
                "line": frame.line,
                "inlined": frame.inlined,
            }
            for frame in frames
        ],
    }


# Bytes that are no UTF-8 reach us as lone surrogates, which strict JSON readers refuse.
def _unicode(name: str | None) -> str | None:
    return None if name is None else name.encode("utf-8", "replace").decode("utf-8")
