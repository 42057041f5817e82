"""Commands and their output: real processes and real terminals, but nothing is traced."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.command import (
    OUTPUT_LINES_MAX,
    Command,
    Output,
    describe_end,
    open_terminal,
    readable,
    shown,
    signal_name,
)

Start = Callable[..., Command]
PATIENCE_S = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command with its output in a terminal."""
    started: list[Command] = []

    def run(*words: str) -> Command:
        ours, theirs = open_terminal(80, 24)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        started.append(Command(process, shown(words), Output(ours)))
        return started[-1]

    yield run
    for command in started:
        command.send(signal.SIGKILL)
        wait_until(lambda: not command.running)  # noqa: B023


def fed(*chunks: bytes) -> Output:
    reader, writer = os.pipe()
    output = Output(reader)
    for chunk in chunks:
        os.write(writer, chunk)
    os.close(writer)
    output.wait(PATIENCE_S)
    return output


# ---- output ----


def test_lines_however_they_come() -> None:
    output = fed(b"one\ntw", b"o\n", b"\nthree")
    assert (output.total, output.dropped) == (4, 0)
    assert output.lines(0, 10) == ["one", "two", "", "three"]
    assert output.lines(1, 2) == ["two", ""]
    assert output.lines(3, 2) == ["three"]
    assert output.lines(4, 2) == []


def test_only_the_last_lines_are_kept() -> None:
    count = OUTPUT_LINES_MAX + 123
    output = fed(*(b"%d\n" % i for i in range(count)))
    assert (output.total, output.dropped) == (count, 123)
    assert output.lines(0, 2) == ["123", "124"]
    assert output.lines(count - 1, 2) == [str(count - 1)]


def test_long_lines_are_cut_and_cost_no_memory() -> None:
    output = fed(*[b"x" * 65536] * 20, b"\nnext")
    first, second = output.lines(0, 2)
    assert (set(first), len(first), second) == ({"x"}, 1000, "next")


def test_size_grows_with_each_byte_that_shows() -> None:
    reader, writer = os.pipe()
    output, before = Output(reader), -1
    for chunk in (b"a", b"b", b"\n", b"\n", b"c"):
        assert output.size > before
        before = output.size
        os.write(writer, chunk)
        wait_until(lambda: output.size > before)  # noqa: B023
    os.close(writer)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07x\x1b]8;;http://a\x1b\\link", "xlink"),
        (b"\x1b(B\x1b=x\x1b7", "x"),
        (b"10%\r20%\r", "20%"),
        (b"line\r", "line"),
        (b"a\tb", "a       b"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\x1b[31", "\x1b[31"),  # what is no sequence is shown, as far as the terminal may see it
    ],
)
def test_readable(raw: bytes, text: str) -> None:
    assert readable(raw) == text


@given(st.binary(max_size=1000))
def test_anything_is_readable(raw: bytes) -> None:
    readable(raw)


def test_sequences_that_never_end_take_no_time() -> None:
    for raw in (b"\x1b[" * 500, b"\x1b]" * 500, b"\x1b[" + b"0" * 998, b"\x1b" * 1000):
        readable(raw)


# ---- the command ----


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with code 0"),
        (255, "exited with code 255"),
        (-11, "was ended by SIGSEGV"),
        (-40, "was ended by signal 40"),
    ],
)
def test_describe_end(status: int, text: str) -> None:
    assert describe_end(status) == text
    assert signal_name(15) == "SIGTERM"


def test_output_comes_at_once_and_its_code_is_known(start: Start) -> None:
    command = start("sh", "-c", "echo a; echo b >&2; read x; exit 3")
    wait_until(lambda: not command.running)
    assert (command.status, command.name) == (3, "sh")
    assert command.output is not None
    command.output.wait(PATIENCE_S)
    assert command.output.lines(0, 5) == ["a", "b"]


def test_the_name_that_it_ended_with(start: Start) -> None:
    command = start("sh", "-c", "exec sleep 0")
    wait_until(lambda: not command.running)
    assert (command.status, command.last_comm) == (0, "sleep")


def test_signals_reach_it_and_do_no_harm_later(start: Start) -> None:
    command = start("sleep", "1000")
    assert command.running
    command.send(signal.SIGTERM)
    wait_until(lambda: not command.running)
    assert command.status == -signal.SIGTERM
    command.send(signal.SIGTERM)
    assert not command.leave()


def test_its_terminal_is_not_the_controlling_one(start: Start) -> None:
    command = start("setsid", "sh", "-c", "cat < /dev/tty || echo none")
    wait_until(lambda: not command.running)
    assert command.output is not None
    command.output.wait(PATIENCE_S)
    assert command.output.lines(0, 5)[-1] == "none"


LEAVES = """
import os, subprocess, sys
from leaktop.command import Command, Output, open_terminal
ours, theirs = open_terminal(80, 24)
process = subprocess.Popen(sys.argv[1:], stdout=theirs, start_new_session=True)
os.close(theirs)
command = Command(process, "sh", Output(ours))
assert command.leave() and command.leave()
os._exit(0)
"""


def test_what_runs_on_finds_its_output_open(tmp_path: Path) -> None:
    # it prints more than a terminal holds, once who started it is gone
    script = f"""
        read x < {tmp_path}/go
        i=0
        while [ $i -lt 3000 ] && echo 0123456789; do i=$((i+1)); done
        echo $i > {tmp_path}/part && mv {tmp_path}/part {tmp_path}/printed
    """
    os.mkfifo(tmp_path / "go")
    subprocess.run([sys.executable, "-c", LEAVES, "sh", "-c", script], check=True)
    (tmp_path / "go").write_text("go\n")
    wait_until((tmp_path / "printed").exists)
    assert (tmp_path / "printed").read_text() == "3000\n"
