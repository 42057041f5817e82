"""The command line, and the only place that puts a source and an output together.

bcc and textual are imported inside functions, so that ``--help`` is instant.
"""

import argparse
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from leaktop import __version__
from leaktop.format import clean, parse_bytes
from leaktop.model import UNLIMITED, Filters, Process, SortKey
from leaktop.source import Source, SourceError

if TYPE_CHECKING:
    from leaktop.command import Command
    from leaktop.picking import Picking

DONE, FAILED, USAGE, NO_TARGET = 0, 1, 2, 4
DELAY_MIN_S, DELAY_MAX_S = 0.1, 3600.0
CAPACITY_MAX = 50_000_000
RATE_MAX = 1_000_000
PID_MAX = 2**22
"""PID_MAX_LIMIT of 64-bit kernels (include/linux/threads.h)."""

_OF_BLOCKS = (
    "--min-size",
    "--max-size",
    "--older",
    "--object",
    "--symbols-prefix",
    "--probe-at-entry",
    "--max-allocs",
    "--trace",
    "--show-allocs",
)
"""Options that say nothing to growth mode."""

EPILOG = """\
keys: ? lists them. Exit codes: 0 done, 1 failed while running, 2 usage, 3 no privilege or no BPF,
4 no such target, or a command that cannot be started. Bytes take k, M or G. Without a terminal on
standard output, -b is implied.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run leaktop and return its exit code."""
    _replace_closed_streams()
    options = parse(arguments)
    try:
        if not _names_a_target(options):
            return _run_screen(None, options)
        source, command = _source(options)
        try:
            if options.batch:
                return _run_batch(source, options, command)
            return _run_screen(source, options, command)
        finally:
            _say_if_it_runs_on(command)
    except SourceError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return DONE


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; exits with code 2 and a message of one or two lines."""
    parser = _Parser(
        prog="leaktop",
        description="Show live which call stacks of a running process hold memory that is "
        "never given back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_tracing(parser)
    _add_output(parser)
    parser.add_argument("--version", action="version", version=f"leaktop {__version__}")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    ours, theirs = _split_at_command(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(ours)
    options.command = _command(parser, options, theirs)
    _check(parser, options)
    if options.json or options.trace or options.show_allocs or not sys.stdout.isatty():
        options.batch = True
    return options


def _add_tracing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to trace").add_argument
    add("-p", "--pid", type=_pids, metavar="PID[,PID...]", help="the process, or several")
    add("--name", metavar="NAME", help="all processes of this name, also those still to come")
    add(
        "-c",
        "--command-line",
        metavar="'CMD ARG...'",
        help="start this command and trace it from its first allocation; so does: "
        "leaktop [options] -- CMD ARG...",
    )
    add("--follow", action="store_true", help="also the processes that these start")
    add("-k", "--kernel", action="store_true", help="the kernel; with -p what it does for PID")
    add("--percpu", action="store_true", help="with -k: per-CPU memory too")
    add(
        "--wa-missing-free",
        action="store_true",
        help="with -k: a new block at the address of one that is held is the free that was not "
        "seen, and no loss",
    )
    add(
        "--growth",
        action="store_true",
        help="watch page faults, brk and mmap instead of the allocator: which code makes the "
        "process grow, freed since or not, without a probe in its code; growth, not leaks",
    )
    add("-z", "--min-size", type=_size, default=0, metavar="BYTES", help="only blocks this large")
    add(
        "-Z",
        "--max-size",
        type=_size,
        default=UNLIMITED,
        metavar="BYTES",
        help="only blocks no larger than this",
    )
    add(
        "-s",
        "--sample-rate",
        type=_whole(1, RATE_MAX),
        default=1,
        metavar="N",
        help="trace one allocation of N, chosen at random; figures become estimates (default 1)",
    )
    add(
        "-o",
        "--older",
        type=_whole(0, 10**10),
        default=0,
        metavar="MS",
        help="count only blocks held for at least this many milliseconds; "
        "each tick then reads every live block",
    )
    add(
        "-O",
        "--object",
        metavar="PATH",
        help="trace the allocator of this file only, as the process maps it",
    )
    add(
        "--symbols-prefix",
        metavar="PREFIX",
        help="the allocator's functions begin so: je_ for je_malloc",
    )
    add(
        "--probe-at-entry",
        action="store_true",
        help="probe each function's first instruction, not the one that is cheapest to probe",
    )
    add(
        "--max-allocs",
        type=_whole(1, CAPACITY_MAX),
        default=1_000_000,
        metavar="N",
        help="live allocations that there is room for (default 1000000; about 80 bytes each)",
    )
    add(
        "--max-stacks",
        type=_whole(1, CAPACITY_MAX),
        default=16_384,
        metavar="N",
        help="call stacks to hold at most (default 16384; about 1 KB each)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to show").add_argument
    add("-b", "--batch", action="store_true", help="print snapshots as text, without a screen")
    add("--json", action="store_true", help="print snapshots as JSON, one object a line")
    add("-n", "--iterations", type=_whole(1, 10**9), metavar="N", help="stop after N snapshots")
    add(
        "-d",
        "--delay",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="time between snapshots (default 1)",
    )
    add(
        "-T",
        "--top",
        type=_whole(1, 10**6),
        default=10,
        metavar="N",
        help="stacks to print in a batch snapshot (default 10)",
    )
    add(
        "--sort",
        type=_sort_key,
        default=SortKey.BYTES,
        metavar="KEY",
        help="sort by bytes, count, growth or age (default bytes)",
    )
    add(
        "-t",
        "--trace",
        action="store_true",
        help="print each allocation and free, and snapshots between them, without a screen",
    )
    add(
        "-a",
        "--show-allocs",
        action="store_true",
        help="list the live allocations of each stack printed, without a screen",
    )
    add("--no-color", action="store_true", help="no colours; so does NO_COLOR in the environment")
    add("--ascii", action="store_true", help="only ASCII on the screen")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    _check_kernel(parser, options)
    if options.words:
        first = clean(options.words[0], 60)
        parser.error(
            f"to trace a running process: leaktop -p {first}"
            if first.isdecimal()
            else f"to start and trace a command: leaktop -- {first}"
        )
    if options.command and not (options.pid is None and options.name is None):
        parser.error("give a process (-p PID, --name NAME) or a command, not both")
    if options.pid is not None and options.name is not None:
        parser.error("give processes by PID (-p) or by name (--name), not both")
    if options.name == "":
        parser.error("--name needs a name, as ps -e shows it")
    if not _names_a_target(options) and not _has_picker(options):
        parser.error(
            "which process? leaktop -p PID (find it with: pgrep -a NAME), --name NAME, "
            "or leaktop -- CMD to start one"
        )
    if options.growth:
        _check_growth(parser, options)
    if options.min_size > options.max_size:
        parser.error(
            f"no block is at least {options.min_size} (-z) and at most {options.max_size} (-Z) "
            "bytes; exchange them"
        )


def _check_kernel(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    of_kernel = {"--percpu": options.percpu, "--wa-missing-free": options.wa_missing_free}
    of_processes = {
        "--name": options.name is not None,
        "--follow": options.follow,
        "-O": options.object is not None,
        "--symbols-prefix": options.symbols_prefix is not None,
        "--probe-at-entry": options.probe_at_entry,
        "-t": options.trace,
        "-a": options.show_allocs,
    }
    for name, given in of_kernel.items():
        if given and not options.kernel:
            parser.error(f"{name} is about the kernel's memory: leaktop -k {name}")
    for name, given in of_processes.items():
        if given and options.kernel:
            parser.error(f"{name} is about processes' own memory, not the kernel's (-k)")
    if options.kernel and options.command:
        parser.error("-k takes no command; what the kernel does for a process: leaktop -k -p PID")
    if options.kernel and options.pid is not None and len(options.pid) > 1:
        parser.error("-k takes one process at most: leaktop -k -p PID")


def _names_a_target(options: argparse.Namespace) -> bool:
    given = (options.pid, options.name, options.command)
    return options.kernel or any(each is not None for each in given)


def _has_picker(options: argparse.Namespace) -> bool:
    """Tell whether there is a terminal in which a process can be picked."""
    if options.batch or options.json or options.trace or options.show_allocs:
        return False
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


# What comes behind "--" is the command's, however much it looks like an option of ours.
def _split_at_command(arguments: Sequence[str]) -> tuple[list[str], list[str] | None]:
    words = list(arguments)
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _command(
    parser: argparse.ArgumentParser, options: argparse.Namespace, words: list[str] | None
) -> list[str] | None:
    if options.command_line is not None:
        if words is not None:
            parser.error("give the command with -c or behind --, not both")
        try:
            words = shlex.split(options.command_line)
        except ValueError as error:
            parser.error(f"-c: {str(error).lower()} in the command")
    if words is not None and not (words and words[0]):
        parser.error("which command? leaktop -- CMD ARG...")
    if words is not None and any("\0" in word for word in words):
        parser.error("the command has a null character in it")
    return words


def _check_growth(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.pid is None or len(options.pid) > 1 or options.follow or options.kernel:
        parser.error("--growth watches one process: leaktop --growth -p PID")
    for option in _OF_BLOCKS:
        name = option.removeprefix("--").replace("-", "_")
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--growth watches pages, {option} is about blocks: leave out one of them")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"leaktop: {clean(message)}\nleaktop: see leaktop --help\n")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(given: str) -> int:
        if not given.isascii() or not given.isdecimal() or not least <= int(given[:20]) <= most:
            raise argparse.ArgumentTypeError(
                f"'{clean(given, 40)}' is no whole number from {least} to {most}"
            )
        return int(given)

    return convert


def _pids(given: str) -> list[int]:
    one = _whole(1, PID_MAX)
    return list(dict.fromkeys(one(each) for each in given.split(",")))


def _size(given: str) -> int:
    try:
        return parse_bytes(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not DELAY_MIN_S <= value <= DELAY_MAX_S:
        raise argparse.ArgumentTypeError(
            f"'{clean(given, 40)}' is no time from {DELAY_MIN_S:g} to {DELAY_MAX_S:g} seconds"
        )
    return value


def _sort_key(given: str) -> SortKey:
    try:
        return SortKey(given)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{clean(given, 40)}' is none of {', '.join(SortKey)}"
        ) from None


def _filters(options: argparse.Namespace) -> Filters:
    return Filters(
        min_size=options.min_size,
        max_size=options.max_size,
        sample_rate=options.sample_rate,
        older_s=options.older / 1000,
    )


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


def _live_source(options: argparse.Namespace) -> Source:
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

    def make() -> Source:
        from leaktop.tracer.loading import Loading  # noqa: PLC0415
        from leaktop.tracer.objects import Capacity  # noqa: PLC0415

        capacity = Capacity(allocs=options.max_allocs, stacks=options.max_stacks)
        if options.growth:
            from leaktop.tracer.growth import GrowthSource  # noqa: PLC0415

            return GrowthSource(pids[0], _filters(options), capacity)
        loading = Loading(capacity)  # goes on while the rest is imported
        from leaktop.tracer.allocators import Choice  # noqa: PLC0415
        from leaktop.tracer.live import LiveSource  # noqa: PLC0415

        choice = Choice(options.object, options.symbols_prefix, at_entry=options.probe_at_entry)
        filters, log_all = _filters(options), options.trace
        try:
            return LiveSource(pids, filters, loading, choice, finders, log_all=log_all)
        except SourceError:
            loading.discard()
            raise

    return DeferredSource(pids, make)


def _kernel_source(options: argparse.Namespace) -> Source:
    from leaktop.tracer.kmem import KernelSource, Scope  # noqa: PLC0415
    from leaktop.tracer.objects import Capacity  # noqa: PLC0415

    pid = options.pid[0] if options.pid else None
    scope = Scope(pid, options.percpu, options.wa_missing_free)
    capacity = Capacity(allocs=options.max_allocs, stacks=options.max_stacks)
    return KernelSource(_filters(options), scope, capacity)


def _run_batch(source: Source, options: argparse.Namespace, command: "Command | None") -> int:
    from leaktop.report import BatchOptions, run_batch  # noqa: PLC0415

    batch = BatchOptions(
        delay_s=options.delay,
        iterations=options.iterations,
        top=options.top,
        sort=options.sort,
        as_json=options.json,
        trace=options.trace,
        show_allocs=options.show_allocs,
    )
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may not have every letter of a name
        sys.stdout.reconfigure(errors="replace")
    try:
        run_batch(source, batch, sys.stdout, sys.stderr, command)
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


def _picking(options: argparse.Namespace) -> "Picking":
    from leaktop.picking import Picking  # noqa: PLC0415
    from leaktop.processes import ProcessSampler, is_still_there  # noqa: PLC0415
    from leaktop.tracer.privilege import what_is_missing  # noqa: PLC0415

    def open_source(process: Process) -> Source:
        source = _live_source(argparse.Namespace(**{**vars(options), "pid": [process.pid]}))
        # as the source holds the process by now, it is the very one that was picked
        if not is_still_there(process):
            source.close()
            raise SourceError(f"process {process.pid} ({process.comm}) has exited")
        return source

    return Picking(ProcessSampler().read, open_source, what_is_missing())


def _run_screen(
    source: Source | None, options: argparse.Namespace, command: "Command | None" = None
) -> int:
    if options.no_color:
        os.environ["NO_COLOR"] = "1"
    from leaktop.app import LeaktopApp  # noqa: PLC0415

    app = LeaktopApp(
        source,
        picking=_picking(options) if source is None else None,
        command=command,
        filters=_filters(options),
        delay_s=options.delay,
        sort=options.sort,
        ascii_only=options.ascii,
        iterations=options.iterations,
    )
    with _screen_apart_from_stderr():
        code = app.run()
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
