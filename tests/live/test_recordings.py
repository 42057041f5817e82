"""What was recorded live is shown again as it was, whatever ended the recording, and by anybody."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import StartLeaktop, StartTarget, Trace
from tests.live.harness import LEAKTOP, environment, parse, run_leaktop, wait_until
from tests.live.terminal import ENTER, Terminal

pytestmark = pytest.mark.live

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which everybody may look."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_live_and_replayed_are_equal_to_the_byte(
    start_target: StartTarget, trace: Trace, folder: Path
) -> None:
    path = folder / "r.leaktop"
    target = start_target("phases")
    leaktop = trace(target, "--record", str(path))
    for phase in ("leak 1000 24", "drop", "leak 50 100000", "leak 7 1"):
        target.tell(phase)
        leaktop.snapshot_from_now()
    assert leaktop.stop() == 0
    live = leaktop.out.seen
    assert len(live) >= 8
    assert "recorded" in leaktop.err.seen[-1]

    path.chmod(0o644)
    # without root, and so without BPF
    replayed = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *LEAKTOP,
         "--replay", str(path), "--json", "-T", "100"],
        cwd="/", env=environment(dict.fromkeys(("HOME", "XDG_CONFIG_HOME"), "/nonexistent")),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert replayed.stdout.splitlines() == live
    (said,) = replayed.stderr.splitlines()
    assert f"{target.pid} (phases)" in said
    assert f"{len(live)} snapshots" in said

    # all stacks are named, not only those that were printed
    ours = run_leaktop("--replay", str(path), "--json", "-T", "1000", "-n", "2")
    assert [parse(line)["time"] for line in ours.out] == [parse(line)["time"] for line in live[:2]]


def test_what_was_written_before_a_kill_is_there(
    start_target: StartTarget, start_leaktop: StartLeaktop, folder: Path
) -> None:
    path = folder / "r.leaktop"
    target = start_target("phases")
    leaktop = start_leaktop(*("-p", str(target.pid), "--json", "-d", "0.1", "--record", str(path)))
    leaktop.wait_ready(target.pid)
    target.tell("leak 1000 24")
    leaktop.snapshot_from_now()
    printed = [leaktop.out.next() for _ in range(3)]
    # a snapshot is printed and handed on to be written at once
    size = path.stat().st_size
    wait_until(lambda: path.stat().st_size > size, "more is written")
    assert leaktop.stop(signal.SIGKILL) == -signal.SIGKILL
    found = run_leaktop("--replay", str(path), "--json")
    assert found.code == 0
    assert set(printed) <= set(found.out)
    assert "still being written" in found.err[-1]


def test_under_sudo_the_file_is_the_callers(start_target: StartTarget, folder: Path) -> None:
    path = folder / "r.leaktop"
    target = start_target("phases")
    caller = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)}
    options = ("-p", str(target.pid), "-b", "-n", "1", "-d", "0.1", "--record", str(path))
    assert run_leaktop(*options, extra_environment=caller).code == 0
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY, NOBODY, 0o600)
    run_leaktop(*options).assert_refused(1, "exists", "remove it")


def test_on_a_terminal(start_target: StartTarget, folder: Path) -> None:
    target = start_target("phases")
    path = folder / "r.leaktop"
    terminal = Terminal("-p", str(target.pid), "-d", "0.1", "--record", str(path))
    try:
        terminal.wait_for(r"REC \d.*\[tracing\]")
        target.tell("leak 1000 24")
        terminal.wait_for(r"leak_phase \[phases\]")
        terminal.press("q")
        assert terminal.wait() == 0
    finally:
        terminal.close()
    terminal = Terminal("--replay", str(path))
    try:
        terminal.wait_for(r"\[replay\]")
        terminal.press("}")
        terminal.wait_for("at its end")
        terminal.wait_for(r"leak_phase \[phases\]")
        terminal.press(ENTER)
        terminal.wait_for(r"phases\.c:\d+")
        terminal.press("q")
        assert terminal.wait() == 0
    finally:
        terminal.close()
