"""What the command line asks for, and the only place that puts a source and an output together.

bcc and textual are imported inside functions, so that ``--help`` is instant.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leaktop.arguments import filters_of, names_a_target, parse
from leaktop.candidates import Estimate, Process
from leaktop.config import Config
from leaktop.format import clean
from leaktop.model import Filters
from leaktop.source import Source, SourceError

if TYPE_CHECKING:
    import threading

    from leaktop.command import Command
    from leaktop.modes import Modes, Opening
    from leaktop.picking import Picking
    from leaktop.player import Play
    from leaktop.report import BatchOptions
    from leaktop.tracer.loading import Loading
    from leaktop.tracer.objects import Capacity
    from leaktop.tracer.probes import Choice

DONE, FAILED, NO_TARGET = 0, 1, 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run leaktop and return its exit code."""
    _replace_closed_streams()
    options = parse(arguments)
    if options.batch:
        _say_problems(options.config)
    try:
        if options.replay is not None or options.diff is not None:
            return _diff(options) if options.replay is None else _replay(options)
        if not names_a_target(options):
            return _run_screen(None, options)
        source, command = _source(options)
        try:
            if options.batch:
                return _run_batch(_recorded(source, options), _batch(options), command)
            return _run_screen(source, options, command)
        finally:
            _say_if_it_runs_on(command)
    except SourceError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return DONE


def _say_problems(config: Config) -> None:
    for problem in config.problems:
        with suppress(OSError):  # nobody reads
            sys.stderr.write(f"leaktop: {clean(f'{config.path}: {problem}')}\n")


def _source(options: argparse.Namespace) -> "tuple[Source, Command | None]":
    if options.command is None:
        return _live_source(options), None
    from leaktop.tracer.command import CommandSource  # noqa: PLC0415

    def make(pid: int) -> Source:
        return _live_source(argparse.Namespace(**{**vars(options), "pid": [pid]}))

    size = None if options.batch else os.get_terminal_size(sys.stdout.fileno())
    terminal = None if size is None else (size.columns, size.lines)
    source = CommandSource(options.command, make, terminal=terminal)
    return source, source.command


def _say_if_it_runs_on(command: "Command | None") -> None:
    if command is not None and command.leave():
        said = f"leaktop: {clean(command.name)} ({command.pid}) runs on, no longer traced\n"
        with suppress(OSError):  # nobody reads
            sys.stderr.write(said)


def _choice(options: argparse.Namespace) -> "Choice":
    from leaktop.tracer.probes import Choice  # noqa: PLC0415

    return Choice(options.object, options.symbols_prefix, at_entry=options.probe_at_entry)


def _live_source(options: argparse.Namespace, filters: Filters | None = None) -> Source:
    filters = filters_of(options) if filters is None else filters
    from leaktop.tracer.deferred import DeferredSource  # noqa: PLC0415
    from leaktop.tracer.finder import Finders, Named, Offspring  # noqa: PLC0415

    if options.kernel:
        return DeferredSource(options.pid or (), lambda: _kernel_source(options), kernel=True)
    pids, finders = options.pid, Finders()
    if options.name is not None:
        finders.add(Named(options.name))
        pids = finders.find(())
        if not pids:
            raise SourceError(
                f"no process is named {options.name}; ps -e -o pid,comm shows the names there are",
                NO_TARGET,
            )
    if options.follow:
        finders.add(Offspring())

    begun: list[Loading] = []

    def make() -> Source:
        if options.growth:
            from leaktop.tracer.growth import GrowthSource  # noqa: PLC0415

            return GrowthSource(pids[0], filters, _capacity(options))
        loading = begun.pop() if begun else _begin_loading(options)
        from leaktop.tracer.live import LiveSource  # noqa: PLC0415

        choice, log_all = _choice(options), options.trace
        try:
            return LiveSource(pids, filters, loading, choice, finders, log_all=log_all)
        except SourceError:
            loading.discard()
            raise

    source = DeferredSource(pids, make)
    if options.batch and not options.growth:  # a screen comes first
        begun.append(_begin_loading(options))
    return source


def _begin_loading(options: argparse.Namespace) -> "Loading":
    from leaktop.tracer.loading import Loading  # noqa: PLC0415

    return Loading(_capacity(options))  # goes on while the rest is imported


def _capacity(options: argparse.Namespace) -> "Capacity":
    from leaktop.tracer.objects import Capacity  # noqa: PLC0415

    return Capacity(allocs=options.max_allocs, stacks=options.max_stacks)


def _kernel_source(options: argparse.Namespace) -> Source:
    from leaktop.tracer.kmem import KernelSource, Scope  # noqa: PLC0415

    pid = options.pid[0] if options.pid else None
    scope = Scope(pid, options.percpu, options.wa_missing_free)
    return KernelSource(filters_of(options), scope, _capacity(options))


def _recorded(source: Source, options: argparse.Namespace) -> Source:
    if options.record is None:
        return source
    from leaktop.recorder import Recorded, Recorder, how_it_goes  # noqa: PLC0415

    def tell(recorded: Recorded) -> None:
        if recorded.why_ended is not None or not recorded.snapshots:
            with suppress(OSError):  # nobody reads
                sys.stderr.write(f"leaktop: {clean(how_it_goes(recorded))}\n")

    return Recorder(source, tell, path=options.record, limit=options.record_limit)


def _replay(options: argparse.Namespace) -> int:
    from leaktop.source.replay import ReplaySource, ending_line, opening_line  # noqa: PLC0415

    source = ReplaySource(options.replay)
    if not options.batch:
        from leaktop.player import Player  # noqa: PLC0415

        return _run_screen(source, options, play=partial(Player, source))
    count = len(source.ticks)
    batch = replace(
        _batch(options),
        delay_s=0.0,
        iterations=min(options.iterations or count, count),
        opening=opening_line(source),
    )
    try:
        code = _run_batch(source, batch)
    except SourceError:  # a part of it that nothing can be made of
        code = FAILED
    ending = ending_line(source)
    if ending is None:
        return code
    return _fail(ending, FAILED) if source.broken else _fail(ending, code)


def _diff(options: argparse.Namespace) -> int:
    from leaktop.report_diff import End, changes, diff_json, diff_text  # noqa: PLC0415
    from leaktop.source.replay import ReplaySource, ending_line  # noqa: PLC0415

    def end_of(path: Path) -> End:
        source = ReplaySource(path)
        try:
            if (ending := ending_line(source)) is not None:
                _fail(ending, FAILED)  # but its last snapshot that is whole can be compared
            return End.of(source)
        finally:
            source.close()

    before, after = map(end_of, options.diff)
    modes = before.snapshot.mode, after.snapshot.mode
    if modes[0] != modes[1]:
        raise SourceError(f"these recordings have nothing in common: {modes[0]} and {modes[1]}")
    found = changes(before, after, options.sort)
    show = diff_json if options.json else diff_text

    def printed() -> int:
        print(show(before, after, found, options.top), flush=True)
        return DONE

    return _printed(printed)


def _batch(options: argparse.Namespace) -> "BatchOptions":
    from leaktop.report import BatchOptions  # noqa: PLC0415

    return BatchOptions(
        delay_s=options.delay,
        iterations=options.iterations,
        top=options.top,
        sort=options.sort,
        as_json=options.json,
        trace=options.trace,
        show_allocs=options.show_allocs,
        ignore=options.config.ignore,
        exports=options.export,
        fail_over=options.fail_over,
    )


def _run_batch(source: Source, batch: "BatchOptions", command: "Command | None" = None) -> int:
    from leaktop.report import run_batch  # noqa: PLC0415

    return _printed(lambda: run_batch(source, batch, sys.stdout, sys.stderr, command))


def _printed(show: "Callable[[], int]") -> int:
    """Run what prints to standard output and returns an exit code."""
    from leaktop.outfile import OutFileError  # noqa: PLC0415

    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may not have every letter of a name
        sys.stdout.reconfigure(errors="replace")
    try:
        return show()
    except OutFileError as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:  # the reader has had enough
        _drop_unwritten()
    except OSError as error:
        _drop_unwritten()
        return _fail(f"standard output cannot be written: {error.strerror}", FAILED)
    return DONE


def _drop_unwritten() -> None:
    """Let go of output that cannot be written: Python would try again, and complain, at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            unread = os.open(os.devnull, os.O_WRONLY)
            os.dup2(unread, stream.fileno())
            os.close(unread)


def _replace_closed_streams() -> None:
    """Put /dev/null where a standard stream is closed (``>&-``).

    Else the next file to be opened would get its descriptor, and what is printed with it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004
        pass
    os.close(descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115


def _picking() -> "Picking":
    from leaktop.picking import Picking  # noqa: PLC0415
    from leaktop.processes import ProcessSampler  # noqa: PLC0415
    from leaktop.tracer.privilege import what_is_missing  # noqa: PLC0415

    return Picking(ProcessSampler().read, what_is_missing())


def _modes(options: argparse.Namespace) -> "Modes":
    from leaktop.modes import Modes  # noqa: PLC0415
    from leaktop.processes import is_still_there, look_at  # noqa: PLC0415

    def open_source(opening: "Opening") -> Source:
        process = opening.process
        source = _live_source(
            argparse.Namespace(**{**vars(options), "pid": [process.pid], "growth": opening.growth}),
            opening.filters,
        )
        # as the source holds the process by now, it is the very one that was meant
        if not is_still_there(process):
            source.close()
            raise SourceError(f"process {process.pid} ({process.comm}) has exited")
        return source

    def estimate(process: Process, stop: "threading.Event") -> Estimate:
        from leaktop.tracer.estimate import estimate_slowdown  # noqa: PLC0415

        found = estimate_slowdown(process.pid, _choice(options), stop)
        if not is_still_there(process):
            raise SourceError(f"process {process.pid} ({process.comm}) has exited")
        return found

    def cost_of_a_call() -> float:
        from leaktop.tracer.estimate import costs_here  # noqa: PLC0415

        return costs_here().pair_s

    fixed = _why_one_mode(options)
    process = None if fixed or not names_a_target(options) else look_at(options.pid[0])
    return Modes(open_source, estimate, cost_of_a_call, process, options.growth, fixed)


def _why_one_mode(options: argparse.Namespace) -> str:
    if options.kernel:
        return "growth mode is of one process, not of the kernel (-k)"
    if options.command:
        return "of a command that leaktop started the mode stays; trace it by -p PID instead"
    if options.name is not None or options.follow or len(options.pid or ()) > 1:
        return "growth mode is of one process, not of several"
    return ""


def _run_screen(
    source: Source | None,
    options: argparse.Namespace,
    command: "Command | None" = None,
    play: "Play | None" = None,
) -> int:
    if options.no_color:
        os.environ["NO_COLOR"] = "1"
    from leaktop.app import LeaktopApp  # noqa: PLC0415
    from leaktop.recorder import Recordings  # noqa: PLC0415

    app = LeaktopApp(
        source,
        picking=_picking() if source is None else None,
        modes=_modes(options),
        command=command,
        filters=filters_of(options),
        delay_s=options.delay,
        sort=options.sort,
        ascii_only=options.ascii,
        iterations=options.iterations,
        config=options.config,
        exports=options.export,
        recordings=Recordings(options.record_limit, options.record),
        play=play,
    )
    with _screen_apart_from_stderr():
        code = app.run()
    for each in app.exported():
        print(f"leaktop: {clean(each.text, 4096)}", file=sys.stderr)
        code = code or FAILED * each.error
    if app.failure is not None:
        return _fail(app.failure, code or FAILED)
    return code or DONE


@contextmanager
def _screen_apart_from_stderr() -> Iterator[None]:
    """Give the screen a descriptor of its own: what native libraries print must not land on it."""
    terminal = os.dup(2)
    unseen = os.open(os.devnull, os.O_WRONLY)
    before = sys.__stderr__
    with open(terminal, "w", encoding=sys.stderr.encoding, errors="replace") as screen:  # noqa: PTH123
        sys.__stderr__ = screen  # type: ignore[misc]  # where textual's driver writes
        os.dup2(unseen, 2)
        try:
            yield
        finally:
            screen.flush()
            os.dup2(terminal, 2)
            os.close(unseen)
            sys.__stderr__ = before  # type: ignore[misc]


def _fail(message: str, code: int) -> int:
    lines = message.splitlines()  # the message may name the target: one or two lines, harmless
    print("leaktop: " + "\n".join(clean(line) for line in lines[:2]), file=sys.stderr)
    return code
