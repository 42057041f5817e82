"""Commands that leaktop starts: traced from the beginning, ended by nobody but their user."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartLeaktop
from tests.live.harness import (
    LEAKTOP,
    Json,
    Leaktop,
    Truth,
    TruthSite,
    command_lines_of_children,
    compiled_anew,
    parse,
    run_leaktop,
    wait_until,
)
from tests.live.judge import expected_sites, found_sites, lost
from tests.live.terminal import Terminal
from tests.live.traces import assert_no_probe_left

pytestmark = pytest.mark.live

FINAL_ONLY = ("--json", "-d", "3600", "-T", "100")


@pytest.fixture
def command(build: Builder) -> str:
    return str(build("command"))


@pytest.fixture
def end_later() -> Iterator[Callable[[int], None]]:
    """Take PIDs of commands that are to outlive leaktop, and end them after the test."""
    pids: list[int] = []
    yield pids.append
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def truth_of(lines: list[str]) -> Truth:
    (line,) = (line for line in lines if line.startswith('{"checksum"'))
    found = parse(line)
    return Truth(found["checksum"], tuple(TruthSite(**site) for site in found["sites"]))


def assert_final(snapshot: Json, truth: Truth, **end: object) -> None:
    """Check that all that the command did was seen, and how it ended."""
    assert found_sites(snapshot) == expected_sites(truth)
    for figure in ("bytes", "count", "allocs", "frees"):
        assert snapshot["totals"][figure] == truth.total(figure)
    assert lost(snapshot) == {}
    told = {name: snapshot["target"][name] for name in ("alive", "exit_code", "signal")}
    assert told == {"alive": False, "exit_code": None, "signal": None, **end}


# ---- from the first allocation to the last ----


def test_command_that_exits_at_once(command: str) -> None:
    done = run_leaktop(*FINAL_ONLY, "--", command, "exit", "3", "an argument", "", "--json", "-p")
    assert done.code == 0, done.err
    (last,) = map(parse, done.out)
    assert_final(last, truth_of(done.err), exit_code=3)
    said = [line for line in done.err if line.startswith("argument")]
    assert said == ["argument an argument", "argument ", "argument --json", "argument -p"]
    # The constructor's blocks are under it, not under main.
    functions = {stack["frames"][0]["symbol"] for stack in last["stacks"]}
    assert functions == {"early", "leak"}


def test_command_line_in_one_word_is_found_by_path(command: str) -> None:
    path = os.pathsep.join(["/nowhere", str(Path(command).parent), os.environ["PATH"]])
    done = run_leaktop(
        *FINAL_ONLY, "-c", "command exit 4 'two words'", extra_environment={"PATH": path}
    )
    assert_final(parse(done.out[-1]), truth_of(done.err), exit_code=4)
    assert "argument two words" in done.err


def test_command_that_a_signal_ends(command: str) -> None:
    done = run_leaktop(*FINAL_ONLY, "--", command, "kill", str(int(signal.SIGSEGV)))
    assert_final(parse(done.out[-1]), truth_of(done.err), signal="SIGSEGV")


def test_script_and_text(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\necho "script $1"\nexit 5\n')
    script.chmod(0o755)
    done = run_leaktop("-b", "-d", "3600", "--", str(script), "x y")
    assert done.code == 0
    assert "script x y" in done.err
    assert any(line.endswith("(script) exited with code 5") for line in done.err), done.err


def test_command_that_becomes_another_twice(command: str, start_leaktop: StartLeaktop) -> None:
    again = f"exec sh -c 'exec {command} wait'"
    leaktop = start_leaktop("--json", "-d", "0.1", "--", "sh", "-c", again)
    pid = ready(leaktop)
    wait_until(lambda: leaktop.snapshot()["target"]["comm"] == "command", "it is traced anew")
    assert leaktop.stop(signal.SIGTERM) == 0
    assert "got 15" in leaktop.err.seen
    gone = {"pid": pid, "comm": "command", "alive": False, "exit_code": 7, "signal": None}
    assert parse(leaktop.out.seen[-1])["target"] == gone


def test_command_that_becomes_what_cannot_be_traced(
    build: Builder, start_leaktop: StartLeaktop, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "input")
    becomes = f"exec {build('bare')} < {tmp_path}/input"
    leaktop = start_leaktop("-b", "-d", "0.1", "--", "sh", "-c", becomes)
    # Opening a FIFO waits for the other side, so the shell is traced before it is another program.
    with (tmp_path / "input").open("w"):
        while "no allocator" not in leaktop.err.next():
            pass
        # It has our terminal and our input: leaktop stays until it ends.
        assert leaktop.process.poll() is None
    assert leaktop.wait() == 0
    assert leaktop.err.seen[-1].endswith("exited with code 0")


def test_children_of_a_command(command: str) -> None:
    script = f"{command} exit 0; {command} exit 0 & wait; exit 9"
    done = run_leaktop("--json", "-d", "0.1", "--follow", "--", "sh", "-c", script)
    last = parse(done.out[-1])
    assert (last["target"]["comm"], last["target"]["exit_code"]) == ("sh", 9)
    assert not any(each["alive"] for each in last["targets"])


def test_command_that_became_another_between_ticks(command: str) -> None:
    done = run_leaktop("-b", "-d", "3600", "--", "sh", "-c", f"exec {command} exit 6")
    assert done.code == 0
    assert "exited with code 6 as command: where that is another program" in done.err[-1]


# ---- signals, and who ends what ----


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_the_command_s(how: signal.Signals, command: str) -> None:
    # In the foreground of a terminal, SIGINT would be taken for ^C, which reaches the command too.
    leaktop = Leaktop(*FINAL_ONLY, "--", command, "wait", command=("setsid", *LEAKTOP))
    try:
        pid = ready(leaktop)
        # Nothing of ptrace is left, so it may be debugged.
        assert "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text()
        assert leaktop.stop(how) == 0
        assert f"got {int(how)}" in leaktop.err.seen
        assert_final(parse(leaktop.out.seen[-1]), truth_of(leaktop.err.seen), exit_code=7)
    finally:
        leaktop.close()


def test_interrupt_key(command: str) -> None:
    terminal = Terminal("-b", "-d", "3600", "--", command, "wait")
    try:
        wait_until(lambda: "ready " in terminal.text(), "the command waits")
        terminal.press("\x03")
        assert terminal.wait() == 0
        assert b"got 2\r\n" in terminal.raw
        assert b"(command) exited with code 7" in terminal.raw
        assert b"5000 bytes in 5 allocations" in terminal.raw
    finally:
        terminal.close()


def ready(leaktop: Leaktop) -> int:
    """Wait for the command and return its PID."""
    while not (line := leaktop.err.next()).startswith("ready "):
        pass
    return int(line.split()[1])


def test_command_that_ignores_signals_is_left_alone(
    command: str, start_leaktop: StartLeaktop, end_later: Callable[[int], None]
) -> None:
    leaktop = start_leaktop(*FINAL_ONLY, "--", command, "ignore")
    pid = ready(leaktop)
    end_later(pid)
    leaktop.process.send_signal(signal.SIGTERM)
    assert ready(leaktop) == pid
    assert "ignores 15" in leaktop.err.seen
    leaktop.process.send_signal(signal.SIGTERM)
    assert leaktop.process.wait() == 0
    last = parse(leaktop.out.rest()[-1])
    assert last["target"]["alive"]
    assert last["totals"]["count"] == 8
    while not (line := leaktop.err.next()).endswith("runs on, no longer traced"):
        pass
    assert f"({pid})" in line
    assert is_alive(pid)
    assert_no_probe_left(pid)


def test_iterations_end_before_the_command(
    command: str, start_leaktop: StartLeaktop, end_later: Callable[[int], None]
) -> None:
    leaktop = start_leaktop("--json", "-n", "1", "-d", "0.1", "--", command, "wait")
    pid = ready(leaktop)
    end_later(pid)
    assert leaktop.process.wait() == 0
    assert is_alive(pid)


def test_leaktop_that_dies_before_the_command_begins(
    command: str, start_leaktop: StartLeaktop
) -> None:
    leaktop = start_leaktop("--json", *compiled_anew(), "--", command, "exit", "0")
    leader = leaktop.process.pid
    wait_until(lambda: any("compile_child" in c for c in command_lines_of_children(leader)), "held")
    held = children(leader, "command")
    assert len(held) == 1
    assert leaktop.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not is_alive(held[0]), "what was never let go ends, too")
    assert leaktop.err.seen == []


def children(pid: int, name: str) -> list[int]:
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in listed.read_text().split()]
    return [child for child in found if Path(f"/proc/{child}/comm").read_text().strip() == name]


# ---- what cannot be run ----


def test_commands_that_cannot_be_started(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("echo never\n")
    run_leaktop("-b", "--", str(text)).assert_refused(4, str(text), "not executable", "chmod")
    text.chmod(0o755)
    run_leaktop("-b", "--", str(text)).assert_refused(4, str(text), "#!", "-- sh")
    text.write_text("#!/no/such/interpreter\n")
    run_leaktop("-b", "--", str(text)).assert_refused(4, str(text), "interpreter")
    run_leaktop("-b", "--", str(tmp_path)).assert_refused(4, str(tmp_path), "directory")
    run_leaktop("-b", "--", "no-such-command").assert_refused(4, "no-such-command", "PATH")
    run_leaktop("-b", "--", "./nothing").assert_refused(4, "./nothing", "no such file")


def test_library_that_is_missing(build: Builder, tmp_path: Path) -> None:
    alone = shutil.copy(build("unwinding-O2"), tmp_path)
    done = run_leaktop("-b", "--", str(alone))
    assert (done.code, done.out) == (4, [])
    linker, ours = done.err
    assert "libunwinding_library.so" in linker
    assert ours == "leaktop: the command exited with code 127 before its program began"


def test_command_without_an_allocator_is_not_run(build: Builder) -> None:
    run_leaktop("-b", "--", str(build("bare"))).assert_refused(
        4, "malloc", "bare", "the command was not run"
    )


def test_32_bit_program(tmp_path: Path) -> None:
    source, program = tmp_path / "tiny.c", tmp_path / "tiny"
    source.write_text("void _start(void) { for (;;) ; }\n")
    subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-static", "-o", program, source], check=True, timeout=60
    )
    done = run_leaktop("-b", "--", str(program))
    # A kernel without 32-bit programs refuses it before.
    done.assert_refused(4)
    assert "32-bit program" in done.err[0] or "no program of this machine" in done.err[0]


# ---- on the screen ----


@pytest.fixture
def screen(command: str) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*args: str) -> Terminal:
        opened.append(Terminal("-d", "0.2", "--", command, *args))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def test_output_question_and_final_state(screen: Callable[..., Terminal]) -> None:
    terminal = screen("wait")
    terminal.wait_for(r"leak \[command\]")
    terminal.press("o")
    pid = int(terminal.wait_for(r"ready \d+").split("ready ")[1].split()[0])
    terminal.press("q")
    terminal.wait_for(rf"\({pid}\) still runs")
    terminal.press("\x1b")
    terminal.wait_for("still runs", gone=True)
    terminal.press("q")
    terminal.wait_for("still runs")
    terminal.press("e")
    text = terminal.wait_for("exited with code 7")
    # What is left is what it held at exit: the destructor freed one of eight.
    terminal.wait_for(r"blocks 7 ")
    assert "leak [command]" in text
    terminal.wait_for("got 15")
    terminal.press("q")
    assert terminal.wait() == 0
    assert not is_alive(pid)


def test_command_that_ignores_being_asked(screen: Callable[..., Terminal]) -> None:
    terminal = screen("ignore")
    terminal.wait_for(r"leak \[command\]")
    terminal.press("o", "q", "e")
    terminal.wait_for("SIGTERM was sent")
    terminal.press("e")
    terminal.wait_for("was ended by SIGKILL")
    assert "ignores 15" in terminal.text()
    terminal.press("q")
    assert terminal.wait() == 0


def test_command_that_runs_on_can_write(
    screen: Callable[..., Terminal], tmp_path: Path, end_later: Callable[[int], None]
) -> None:
    told = tmp_path / "told"
    terminal = screen("write", str(told))
    terminal.wait_for(r"leak \[command\]")
    (pid,) = children(terminal.process.pid, "command")
    end_later(pid)
    terminal.press("q")
    terminal.wait_for("still runs")
    terminal.press("d")
    assert terminal.wait() == 0
    assert b"runs on, no longer traced" in terminal.raw
    for times in range(1, 4):
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: told.exists() and told.read_text() == "yes\n" * times, "written")  # noqa: B023
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), "it ends as it is told")


def test_command_that_is_left_before_it_is_traced(tmp_path: Path) -> None:
    done = tmp_path / "done"
    terminal = Terminal(*compiled_anew(), "-c", f"sh -c 'echo here; echo done > {done}'")
    try:
        wait_until(
            lambda: any(
                "compile_child" in c for c in command_lines_of_children(terminal.process.pid)
            ),
            "compiling",
        )
        assert not done.exists()
        terminal.press("q")
        terminal.wait_for("still runs")
        terminal.press("d")
        assert terminal.wait() == 0
        wait_until(done.exists, "it runs, untraced")
    finally:
        terminal.close()


def test_terminal_that_hangs_up(screen: Callable[..., Terminal]) -> None:
    terminal = screen("ignore")
    terminal.wait_for(r"leak \[command\]")
    (pid,) = children(terminal.process.pid, "command")
    terminal.hang_up()
    wait_until(lambda: not is_alive(pid), "the command is told as by its own terminal")
