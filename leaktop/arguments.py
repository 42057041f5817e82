"""The command line: what it says, and what is wrong with it."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from leaktop import __version__
from leaktop.config import DELAY_MAX_S, DELAY_MIN_S, load
from leaktop.format import clean, parse_bytes
from leaktop.gate import Limit, parse_limit
from leaktop.model import RECORDING_BYTES, UNLIMITED, Filters, SortKey

USAGE = 2
"""Exit code for a command line that is wrong."""

DEFAULT_DELAY_S = 1.0
CAPACITY_MAX = 50_000_000
RATE_MAX = 1_000_000
RECORD_LEAST = 64 << 10
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

_OF_TRACING = (
    "--pid",
    "--name",
    "--command",
    "--follow",
    "--kernel",
    "--percpu",
    "--wa-missing-free",
    "--growth",
    "--min-size",
    "--max-size",
    "--sample-rate",
    "--older",
    "--object",
    "--symbols-prefix",
    "--probe-at-entry",
    "--max-allocs",
    "--max-stacks",
    "--trace",
    "--show-allocs",
    "--record",
    "--record-limit",
)
"""Options that say nothing to recordings, which have what was traced."""

EPILOG = """\
keys: ? lists them. Exit codes: 0 done, 1 failed while running, 2 usage, 3 no privilege or no BPF,
4 no such target, or a command that cannot be started, 5 grew above --fail-over. Bytes take k, M or
G. Without a terminal on standard output, -b is implied. Defaults of your own:
~/.config/leaktop/config.toml.
"""


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
    _add_recordings(parser)
    _add_output(parser)
    parser.add_argument("--version", action="version", version=f"leaktop {__version__}")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    ours, theirs = _split_at_command(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(ours)
    options.command = _command(parser, options, theirs)
    _check(parser, options)
    _settle(options)
    if _wants_batch(options) or not sys.stdout.isatty():
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


def _add_recordings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("recordings").add_argument
    add(
        "--record",
        type=_path,
        metavar="FILE",
        help="write all that is seen to a new file, to be looked at later; so does the key R",
    )
    add(
        "--record-limit",
        type=_size,
        default=RECORDING_BYTES,
        metavar="BYTES",
        help="end the recording at this size, and trace on (default 256M)",
    )
    add(
        "--replay",
        type=_path,
        metavar="FILE",
        help="show a recording, on any machine, without root",
    )
    add(
        "--diff",
        type=_path,
        nargs=2,
        metavar=("A", "B"),
        help="what two recordings hold at their ends: which stacks have more, and which less, in B",
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
        metavar="KEY",
        help="sort by bytes, count, growth, age or suspect (default bytes)",
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
    add(
        "--export",
        type=_export_path,
        action="append",
        default=[],
        metavar="FILE",
        help="at the end, write what is held as FILE, several times too; its name says the format: "
        ".svg or .html for a browser, .pb.gz (pprof), .speedscope.json, .folded, .csv or .json",
    )
    add(
        "--fail-over",
        type=_limit,
        metavar="BYTES[/s]",
        help="exit with 5 where outstanding memory grew by more, from the first snapshot to the "
        "last; of a command, all that it still held; without a screen",
    )
    add("--no-color", action="store_true", help="no colours; so does NO_COLOR in the environment")
    add("--ascii", action="store_true", help="only ASCII on the screen")


# What the command line leaves open the user's configuration says.
def _settle(options: argparse.Namespace) -> None:
    options.config = config = load()
    if options.delay is None:
        options.delay = DEFAULT_DELAY_S if config.delay_s is None else config.delay_s
    if options.sort is None:
        options.sort = config.sort or SortKey.BYTES


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.replay is not None or options.diff is not None:
        _check_replay(parser, options)
        return
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
    if not names_a_target(options) and not _has_picker(options):
        parser.error(
            "which process? leaktop -p PID (find it with: pgrep -a NAME), --name NAME, "
            "or leaktop -- CMD to start one"
        )
    if options.record is not None and not names_a_target(options):
        parser.error("--record needs to know whom: leaktop --record FILE -p PID, or press R there")
    if options.record_limit < RECORD_LEAST:
        parser.error("--record-limit is too small for anything: 64k at least")
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


def _check_replay(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    ours = "--diff" if options.replay is None else "--replay"
    if options.replay is not None and options.diff is not None:
        parser.error("--replay shows one recording, --diff compares two: leave out one of them")
    if options.words:
        parser.error(f"{ours}: what is {clean(options.words[0], 60)} for?")
    for option in _OF_TRACING:
        name = option.removeprefix("--").replace("-", "_")
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"{option} is about tracing, {ours} about what was traced: leave out one")


def names_a_target(options: argparse.Namespace) -> bool:
    """Tell whether the command line says what to trace."""
    given = (options.pid, options.name, options.command)
    return options.kernel or any(each is not None for each in given)


def _wants_batch(options: argparse.Namespace) -> bool:
    gate = options.fail_over is not None
    return bool(options.json or options.trace or options.show_allocs or gate)


def _has_picker(options: argparse.Namespace) -> bool:
    """Tell whether there is a terminal in which a process can be picked."""
    if options.batch or _wants_batch(options):
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


def _limit(given: str) -> Limit:
    try:
        return parse_limit(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _export_path(given: str) -> Path:
    from leaktop.export import ExportError  # noqa: PLC0415  (few ask for it)
    from leaktop.export.formats import format_of  # noqa: PLC0415
    from leaktop.outfile import OutFileError, check  # noqa: PLC0415

    path = Path(given)
    try:
        format_of(path)
        check(path)
    except (ExportError, OutFileError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def _path(given: str) -> Path:
    if not given or "\0" in given:
        raise argparse.ArgumentTypeError("a file has a name")
    return Path(given)


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


def filters_of(options: argparse.Namespace) -> Filters:
    """Return which allocations are to be traced."""
    return Filters(
        min_size=options.min_size,
        max_size=options.max_size,
        sample_rate=options.sample_rate,
        older_s=options.older / 1000,
    )
