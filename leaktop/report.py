"""Batch output: text that reads like memleak's, or one JSON object a line."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from leaktop.command import Command, describe_end
from leaktop.descriptors import wait_readable
from leaktop.format import clean
from leaktop.gate import Grown, Limit, growth_between
from leaktop.model import LOSSES, Site, Snapshot, SortKey, Target, Tracing
from leaktop.single_blocks import EVENTS_MAX, BlockPage, Event
from leaktop.source import Source

if TYPE_CHECKING:
    from leaktop.analyze import Reading
    from leaktop.exporting import Trends
    from leaktop.ignore import Entry, Ignored, Sieve

DONE, FAILED, TOO_MUCH = 0, 1, 5
"""Exit codes; the last where it grew more than is let pass."""
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
    ignore: "Sequence[Entry]" = ()
    """Stacks that are not printed, only counted."""
    exports: Sequence[Path] = ()
    """Files to write after the last snapshot."""
    fail_over: Limit | None = None
    """How much growth is let pass; None: any."""
    opening: str | None = None
    """What to say first, where it is not what is traced."""


def run_batch(
    source: Source,
    options: BatchOptions,
    out: TextIO,
    messages: TextIO,
    command: Command | None = None,
) -> int:
    """Trace, print a snapshot each delay to ``out``, and stop; return the exit code.

    Ends after the given iterations, when the target exits, or on SIGINT or SIGTERM; the latter two
    with a last snapshot. A ``command`` is passed the first such signal, and only the second ends
    the run before the command. Raises SourceError, BrokenPipeError when nobody reads ``out``, and
    OutFileError where an export cannot be written.
    """
    with _stop_signals(command) as stop:
        try:
            source.start(lambda step: None)
            opening = options.opening or ready_line(source.target, source.tracing)
            _say(clean(opening), messages)
            if command is not None:
                command.go()
            run = _print_snapshots(source, options, stop, out, messages)
            grown = _judge(source, options, run, messages, whole=command is not None)
            _export(source, options, run, messages)
        finally:
            source.close()
        last = run.last.snapshot
        if command is not None and last.note and not _tells_end(last, command):
            _wait_for(command, stop, messages)
    if grown is None:
        return DONE
    return TOO_MUCH if grown.too_much else _code_of(command, messages)


@dataclass(frozen=True, slots=True)
class _Run:
    first: Snapshot
    last: "Reading"
    history: "Trends"
    ignored: Collection[int]  # ids of stacks, of the first and the last


def _judge(
    source: Source, options: BatchOptions, run: _Run, messages: TextIO, *, whole: bool
) -> Grown | None:
    """Say how much it grew, and where that is too much which stacks did."""
    if options.fail_over is None:
        return None
    last = run.last.snapshot
    first = None if whole or run.first is last else run.first
    grown = growth_between(first, last, options.fail_over, run.ignored)
    _say(str(grown), messages)
    if grown.too_much:
        from leaktop.report_text import grown_text  # noqa: PLC0415

        top = list(grown.stacks)[: options.top]
        frames = source.resolve(top, lines=True)
        sites = [site for site in last.sites if site.stack_id in top]
        messages.write(grown_text(grown, sites, frames))
        messages.flush()
    return grown


def _export(source: Source, options: BatchOptions, run: _Run, messages: TextIO) -> None:
    if options.exports:
        from leaktop.exporting import collect, with_names, write_export  # noqa: PLC0415

        export = collect(source, run.last, run.history, options.exports)
        export = with_names(source, export, {})
        for path in options.exports:
            _say(clean(str(write_export(export, path)), 4096), messages)


# A command that failed has not shown that it does not leak.
def _code_of(command: Command | None, messages: TextIO) -> int:
    if command is None or not command.status:
        return DONE
    _say(f"{clean(command.name)} {describe_end(command.status)}: no proof against a leak", messages)
    return FAILED


def _print_snapshots(
    source: Source, options: BatchOptions, stop: "_Stop", out: TextIO, messages: TextIO
) -> _Run:
    # numpy and much else, once the source is at work
    from leaktop.analyze import ordered  # noqa: PLC0415
    from leaktop.history import History  # noqa: PLC0415
    from leaktop.ignore import IgnoreList, Sieve  # noqa: PLC0415
    from leaktop.judge import Judge  # noqa: PLC0415
    from leaktop.report_json import event_json, json_line  # noqa: PLC0415
    from leaktop.report_text import event_text, text  # noqa: PLC0415

    show_event = event_json if options.as_json else event_text
    show = json_line if options.as_json else text
    history, judge = History(), Judge()
    sieve = Sieve(IgnoreList(options.ignore))
    lost: Mapping[str, int] = {}
    due = time.monotonic()
    printed = 0
    first: Snapshot | None = None
    at_first: set[int] = set()
    while True:
        due += options.delay_s
        _wait(source, stop, due, out, show_event if options.trace else None)
        due = max(due, time.monotonic() - options.delay_s)  # a tick that was missed is dropped
        reading = judge.of(history.add(source.snapshot()))
        ignored = _sift(sieve, reading.snapshot.sites, source)
        top = ignored.rest(ordered(reading, options.sort))[: options.top]
        frames = source.resolve([site.stack_id for site in top], lines=True)
        blocks: Mapping[int, BlockPage] = {}
        if options.show_allocs:
            blocks = source.blocks([site.stack_id for site in top], 0, BLOCKS_MAX)
        print(show(reading, top, frames, blocks, ignored), file=out, flush=True)
        printed += 1
        if reading.snapshot.lost != lost and not options.as_json:
            lost = reading.snapshot.lost
            _print_losses(lost, messages)
        snapshot = reading.snapshot
        if first is None:
            first, at_first = snapshot, set(ignored.entries)
        if snapshot.note and not options.as_json:
            who = f"process {snapshot.target.pid} ({clean(snapshot.target.comm)})"
            if snapshot.processes:
                who = f"all {len(snapshot.processes)} processes:"
            _say(f"{who} {clean(snapshot.note)}", messages)
        if snapshot.note or stop.asked or printed == options.iterations:
            return _Run(first, reading, history, at_first | ignored.entries.keys())


def _sift(sieve: "Sieve", sites: Sequence[Site], source: Source) -> "Ignored":
    unknown = sieve.unknown(sites)
    return sieve.sift(sites, source.resolve(unknown, lines=False) if unknown else {})


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


def _wait(
    source: Source,
    stop: "_Stop",
    due: float,
    out: TextIO,
    show: Callable[[Event], str] | None,
) -> None:
    """Wait for a tick, or for the target's end or a signal; ``show`` the events that come."""
    while True:
        left = max(0.0, due - time.monotonic())
        woken = stop.wait(
            left if show is None else min(left, _EVENTS_EVERY_S), source.end_descriptor
        )
        events: Sequence[Event] = () if show is None else source.events()
        if show is not None and events:
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
        return wait_readable(watched, seconds)

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
