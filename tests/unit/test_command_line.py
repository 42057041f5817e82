"""The command line beyond its refusals (test_cli.py): what it asks for, and how a run ends."""

import argparse
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pexpect
import pytest

from leaktop import cli
from leaktop.arguments import filters_of, parse
from leaktop.gate import Limit
from leaktop.model import UNLIMITED, Filters, SortKey, Target
from leaktop.source import SourceError
from tests.unit.test_report import HOSTILE, UNSAFE, Scripted, site, snapshot

USAGE = 2
# A whole run of the program on a scripted source; only what traces is replaced.
RUN = """
import sys
from leaktop import cli
from tests.unit.test_command_line import source
cli._live_source = lambda options: source
sys.exit(cli.main(sys.argv[1:]))
"""
ROOT = Path(__file__).parents[2]
NAME = "\u03c0::leaky"
source = Scripted(snapshot(site()))
source.target = Target(123, NAME)
READY = f"tracing 123 ({NAME}): 1 function in libc.so.6"


def run(
    *arguments: str,
    stdout: int | IO[Any] = subprocess.PIPE,
    shell: str = "",
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; `shell` redirects its output."""
    command = [sys.executable, "-c", RUN, "-p", "123", *arguments]
    if shell:
        command = ["sh", "-c", f'"$@" {shell}', "sh", *command]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


def parsed(*arguments: str) -> argparse.Namespace:
    return parse(["-p", "123", *arguments])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Return what is said on stderr."""
    with pytest.raises(SystemExit) as left:
        parse(arguments)
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (USAGE, "")
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("leaktop: ")
    return lines


# ---- what is asked for ----


def test_defaults() -> None:
    options = parsed()
    assert options.config.problems == ()
    assert vars(options) == {
        "config": options.config,
        "pid": [123],
        "name": None,
        "follow": False,
        "kernel": False,
        "percpu": False,
        "wa_missing_free": False,
        "growth": False,
        "min_size": 0,
        "max_size": UNLIMITED,
        "sample_rate": 1,
        "older": 0,
        "object": None,
        "symbols_prefix": None,
        "probe_at_entry": False,
        "max_allocs": 1_000_000,
        "max_stacks": 16_384,
        "record": None,
        "record_limit": 256 << 20,
        "replay": None,
        "diff": None,
        "batch": True,  # standard output is no terminal here
        "json": False,
        "iterations": None,
        "delay": 1.0,
        "top": 10,
        "sort": SortKey.BYTES,
        "trace": False,
        "show_allocs": False,
        "export": [],
        "fail_over": None,
        "no_color": False,
        "ascii": False,
        "command_line": None,
        "command": None,
        "words": [],
    }
    assert filters_of(options) == Filters()


def test_a_limit_on_growth_wants_no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    given = parsed("--fail-over", "64k/s")
    assert (given.fail_over, given.batch) == (Limit(65536, per_s=True), True)
    assert parsed().batch is False


def test_exports_are_several(tmp_path: Path) -> None:
    paths = [tmp_path / "a.svg", tmp_path / "b.html"]
    given = parsed(*(f"--export={path}" for path in paths))
    assert given.export == paths
    assert parsed().export == []


def test_long_options_are_those_of_the_letters() -> None:
    short = parsed(*("-z", "4k", "-Z", "1M", "-s", "10", "-o", "1500", "-n", "3", "-d", "0.5"))
    long = parsed(
        *("--min-size=4k", "--max-size=1M", "--sample-rate=10", "--older=1500"),
        *("--iterations=3", "--delay=0.5"),
    )
    assert vars(short) == vars(long)
    assert filters_of(short) == Filters(4096, 1 << 20, 10, 1.5)
    assert (short.iterations, short.delay) == (3, 0.5)


@pytest.mark.parametrize(
    ("given", "size"),
    [("0", 0), ("512", 512), ("4k", 4096), ("4K", 4096), ("1.5M", 3 << 19), ("2G", 2 << 30)],
)
def test_sizes(given: str, size: int) -> None:
    assert parsed("-z", given).min_size == size


def test_equal_sizes_are_a_range() -> None:
    options = parsed("-z", "64", "-Z", "64")
    assert (options.min_size, options.max_size) == (64, 64)


@pytest.mark.parametrize("key", list(SortKey))
def test_sort(key: SortKey) -> None:
    assert parsed("--sort", key.value).sort is key


@pytest.mark.parametrize(("given", "delay"), [("0.1", 0.1), ("3600", 3600.0), ("1e1", 10.0)])
def test_delays_up_to_the_bounds(given: str, delay: float) -> None:
    assert parsed("-d", given).delay == delay


@pytest.mark.parametrize(("arguments", "batch"), [([], False), (["-b"], True), (["--json"], True)])
def test_on_a_terminal_the_screen_is_the_default(
    arguments: list[str], batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert parsed(*arguments).batch is batch
    os.close(leader)


# ---- refusals that need a look at the words ----


def test_a_bare_pid_is_pointed_to_p(capsys: pytest.CaptureFixture[str]) -> None:
    assert "leaktop -p 4711" in refusal(capsys, "4711")[0]


def test_a_bare_command_is_pointed_to_the_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    # without them, options of the command would be taken for ours
    assert "leaktop -- sleep" in refusal(capsys, "sleep", "10")[0]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["-b", "--", "ls", "-l", "--", "-b"], ["ls", "-l", "--", "-b"]),
        (["--", "./a b", "", "-p", "1"], ["./a b", "", "-p", "1"]),
        (["-c", "ls -l 'a b' \"\" c\\ d"], ["ls", "-l", "a b", "", "c d"]),
        (["--command-line=x | y > z"], ["x", "|", "y", ">", "z"]),
    ],
)
def test_a_command_is_taken_as_it_is(arguments: list[str], command: list[str]) -> None:
    options = parse(arguments)
    assert (options.command, options.pid) == (command, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--"], "which command"),
        (["--", ""], "which command"),
        (["-c", ""], "which command"),
        (["-c", "  "], "which command"),
        (["-c", "a 'b"], "quotation"),
        (["-c", "ls", "--", "ls"], "not both"),
        (["-p", "1", "-c", "ls"], "not both"),
        (["--name", "ls", "--", "ls"], "not both"),
        (["-c", "a\0b"], "null"),
    ],
)
def test_commands_that_are_none(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, *arguments)[0]


def test_an_unknown_sort_key_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "-p", "1", "--sort", "colour")[0]
    for word in ("--sort", "colour", *SortKey):
        assert word in said


@pytest.mark.parametrize("option", ["--min", "--iter", "--jso", "--pi"])
def test_options_are_written_out(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    # an abbreviation in a script would change its meaning with the next option
    assert option in refusal(capsys, "-p", "1", f"{option}=1")[0]


@pytest.mark.parametrize("option", ["-p", "-z", "-Z", "-s", "-o", "-n", "-d", "-T", "--sort"])
def test_an_option_without_its_value(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert option in refusal(capsys, "-p", "1", option)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--{HOSTILE}"],
        ["-p", HOSTILE],
        ["-p", "1", "-z", HOSTILE],
        ["-p", "1", "-d", HOSTILE],
        ["-p", "1", "--sort", HOSTILE],
        ["--", HOSTILE],
        ["--" + "x" * 100_000],
        ["-p", "9" * 100_000],
        ["-z", "9" * 100_000, "-p", "1"],
        ["-p", "\u0661"],
    ],
)
def test_hostile_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = "\n".join(refusal(capsys, *arguments))
    assert UNSAFE.search(said) is None
    assert len(said) < 1000


# ---- how a run ends ----


def test_a_run_prints_what_it_was_asked_for() -> None:
    done = run("--json", "-n", "2", "-d", "0.1")
    assert done.returncode == 0
    assert done.stderr == f"leaktop: {READY}\n"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["totals"]["bytes"] for line in lines] == [4096, 4096]


def test_a_screen_ends_after_as_many_snapshots_too() -> None:
    arguments = ["-c", RUN, "-p", "123", "-n", "2", "-d", "0.1"]
    screen = pexpect.spawn(
        sys.executable,
        arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        dimensions=(24, 80),
        timeout=60,
    )
    shown = screen.read()
    screen.close()
    assert screen.exitstatus == 0
    assert b"\x1b[?1049h" in shown
    assert b"4.00K" in shown


def test_output_that_nobody_reads_any_more_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = run("-d", "0.1", stdout=closed)
    assert (done.returncode, done.stderr) == (0, f"leaktop: {READY}\n")


def test_head_takes_one_line() -> None:
    done = run("--json", "-d", "0.1", shell="| head -1")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == f"leaktop: {READY}\n"


def test_nobody_reads_the_messages_either() -> None:
    done = run("-d", "0.1", shell="2>&1 | head -1")
    assert (done.stdout, done.stderr) == (f"leaktop: {READY}\n", "")


def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("-d", "0.1", stdout=full)
    assert done.returncode == 1
    ready, error = done.stderr.splitlines()
    assert ready == f"leaktop: {READY}"
    assert "No space left" in error


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_closed_standard_output(closed: str) -> None:
    done = run("-n", "1", "-d", "0.1", shell=closed)
    assert (done.returncode, done.stderr) == (0, f"leaktop: {READY}\n")


def test_closed_standard_error_does_not_send_messages_among_the_data() -> None:
    done = run("--json", "-n", "1", "-d", "0.1", shell="2>&-")
    assert done.returncode == 0
    json.loads(done.stdout)


def test_names_that_the_locale_cannot_write() -> None:
    done = run("-n", "1", "-d", "0.1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "160 bytes in 10 allocations" in done.stdout


class Failing(Scripted):
    """A source that cannot start."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(snapshot())
        self._error = error

    def start(self, progress: object) -> None:
        raise self._error


def failing(
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str]:
    scripted = Failing(error)
    monkeypatch.setattr(cli, "_live_source", lambda _: scripted)
    code = cli.main(["-p", "123", "-b"])
    said = capsys.readouterr()
    assert said.out == ""
    assert scripted.calls == ["close"]
    return code, said.err


@pytest.mark.parametrize("code", [1, 3, 4])
def test_errors_have_the_exit_code_that_they_carry(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = SourceError("it does not work: do that", code)
    assert failing(error, monkeypatch, capsys) == (code, "leaktop: it does not work: do that\n")


def test_errors_that_name_the_target_are_harmless(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = SourceError(f"no allocator in 123 ({HOSTILE}\n\n\n)", 4)
    code, said = failing(error, monkeypatch, capsys)
    assert code == 4
    assert len(said.splitlines()) == 2
    assert UNSAFE.search(said) is None


def test_ctrl_c_before_anything_runs_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_live_source", interrupted)
    assert cli.main(["-p", "123", "-b"]) == 0
    assert capsys.readouterr() == ("", "")


def test_main_leaves_open_streams_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (sys.stdout, sys.stderr)
    failing(SourceError("no", 3), monkeypatch, capsys)
    assert (sys.stdout, sys.stderr) == before
    assert isinstance(sys.stdout, io.TextIOBase)
