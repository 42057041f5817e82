"""However leaktop ends: no probe stays, and the target goes on as if nothing had been."""

import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartLeaktop, StartTarget, Trace
from tests.live.harness import (
    LEAKTOP,
    PATIENCE_S,
    Leaktop,
    command_lines_of_children,
    compiled_anew,
    environment,
    open_files,
    parse,
    wait_until,
)
from tests.live.judge import assert_exact, lost
from tests.live.traces import assert_no_probe_left, changed_code

pytestmark = pytest.mark.live

CHURNED = 20000
CHURN = f"churn {CHURNED} 64"


def pinned_objects() -> set[Path]:
    return set(Path("/sys/fs/bpf").rglob("*"))


def checksum_after(churns: int) -> int:
    """What phases.c computes from the blocks that it writes and reads."""
    checksum = 0
    for i in range(churns * CHURNED):
        checksum = (checksum * 31 + i % CHURNED % 256) % 2**64
    return checksum


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_batch_run_with_its_last_snapshot(
    how: signal.Signals, build: Builder, start_target: StartTarget, start_leaktop: StartLeaktop
) -> None:
    target = start_target("phases")
    # No tick comes by itself in an hour: the snapshot is the one of the end.
    leaktop = start_leaktop("-b", "--json", "-d", "3600", "-p", str(target.pid))
    leaktop.wait_ready(target.pid)
    assert changed_code(target.pid), "no breakpoint seen while tracing: the check is blind"
    target.tell(CHURN)
    truth = target.tell("leak 7 300")
    assert leaktop.stop(how) == 0
    assert_exact(parse(leaktop.out.seen[-1]), truth, build("phases"), "phases.c")
    assert len(leaktop.err.seen) == 1, leaktop.err.seen
    assert_no_probe_left(target.pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_sudden_end(how: signal.Signals, start_target: StartTarget, trace: Trace) -> None:
    pinned = pinned_objects()
    target = start_target("phases")
    leaktop = trace(target)
    assert changed_code(target.pid)
    # Amid the work, with calls under way.
    target.say(CHURN)
    leaktop.stop(how)
    target.truth()
    assert_no_probe_left(target.pid)
    assert pinned_objects() == pinned
    assert target.tell(CHURN).checksum == checksum_after(2)
    assert "Traceback" not in "\n".join(leaktop.err.seen)


def is_compiling(leaktop: Leaktop) -> bool:
    return any("compile_child" in line for line in command_lines_of_children(leaktop.process.pid))


def is_loading(leaktop: Leaktop) -> bool:
    return "anon_inode:bpf-map" in open_files(leaktop.process.pid)


REACHED = {
    "compiling": is_compiling,
    "loading": is_loading,
}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("stage", [*REACHED, "attaching"])
def test_end_while_attaching(
    stage: str, how: signal.Signals, start_target: StartTarget, start_leaktop: StartLeaktop
) -> None:
    target = start_target("phases")
    leaktop = start_leaktop("-b", "--json", *compiled_anew(), "-p", str(target.pid))
    for name, reached in REACHED.items():
        wait_until(partial(reached, leaktop), name)
        if name == stage:
            break
    else:
        wait_until(lambda: bool(changed_code(target.pid)), "first probe attached")
    code = leaktop.stop(how)
    # Until it has begun to trace it may die of the signal.
    assert code in (0, -how), leaktop.err.seen
    assert "Traceback" not in "\n".join(leaktop.err.seen)
    assert_no_probe_left(target.pid)
    assert target.tell(CHURN).checksum == checksum_after(1)


def test_target_that_exits(build: Builder, start_target: StartTarget, trace: Trace) -> None:
    target = start_target("phases")
    leaktop = trace(target)
    truth = target.tell("leak 12 1000")
    leaktop.snapshot_from_now()
    target.say("exit 0")
    assert leaktop.wait() == 0
    last = parse(leaktop.out.seen[-1])
    gone = {"alive": False, "exit_code": None, "signal": None}  # only its parent learns how
    assert last["target"] == {"pid": target.pid, "comm": "phases", **gone}
    # Its symbols and its figures outlive it.
    assert_exact(last, truth, build("phases"), "phases.c")
    assert [parse(line)["target"]["alive"] for line in leaktop.out.seen].count(False) == 1


def test_target_that_is_killed(start_target: StartTarget, trace: Trace, build: Builder) -> None:
    process = subprocess.Popen(
        [build("phases")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"ready {process.pid}\n"
    leaktop = Leaktop("-b", "--json", "-d", "3600", "-p", str(process.pid))
    try:
        leaktop.wait_ready(process.pid)
        process.kill()
        process.communicate()
        # Noticed at once, not at the next tick an hour on.
        assert leaktop.wait() == 0
        assert parse(leaktop.out.seen[-1])["target"]["alive"] is False
    finally:
        leaktop.close()


@pytest.mark.parametrize("when", ["starting", *REACHED])
def test_target_that_exits_while_attaching(
    when: str, start_leaktop: StartLeaktop, build: Builder
) -> None:
    process = subprocess.Popen(
        [build("phases")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    leaktop = start_leaktop("-b", "--json", *compiled_anew(), "-p", str(process.pid))
    if when in REACHED:
        wait_until(partial(REACHED[when], leaktop), when)
    process.kill()
    process.communicate()
    code = leaktop.wait()
    text = "\n".join(leaktop.err.seen)
    # It may be gone before, or only after tracing has begun.
    assert code in (0, 4), text
    assert "Traceback" not in text
    assert 1 <= len(leaktop.err.seen) <= 2, text
    if code == 4:
        assert str(process.pid) in text
    else:
        assert parse(leaktop.out.seen[-1])["target"]["alive"] is False


def test_iterations(start_target: StartTarget, start_leaktop: StartLeaktop) -> None:
    target = start_target("phases")
    leaktop = start_leaktop("-b", "--json", "-n", "3", "-d", "0.1", "-p", str(target.pid))
    assert leaktop.wait() == 0
    snapshots = [parse(line) for line in leaktop.out.seen]
    assert len(snapshots) == 3
    assert [s["elapsed_s"] for s in snapshots] == sorted(s["elapsed_s"] for s in snapshots)
    assert all(s["version"] == 1 for s in snapshots)
    assert all(lost(s) == {} for s in snapshots)
    assert_no_probe_left(target.pid)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_reader_that_leaves_early(form: list[str], start_target: StartTarget) -> None:
    target = start_target("phases")
    leaktop = subprocess.Popen(
        [*LEAKTOP, "-b", "-d", "0.1", *form, "-p", str(target.pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment(),
    )
    head = subprocess.run(
        ["head", "-n", "1"], stdin=leaktop.stdout, capture_output=True, text=True, check=True
    )
    assert head.stdout
    assert leaktop.stdout is not None
    leaktop.stdout.close()
    assert leaktop.stderr is not None
    errors = leaktop.stderr.read()
    assert leaktop.wait(PATIENCE_S) == 0, errors
    assert errors.count("\n") == 1, errors
    assert_no_probe_left(target.pid)


def test_text_names_the_leak(start_target: StartTarget, start_leaktop: StartLeaktop) -> None:
    target = start_target("phases")
    leaktop = start_leaktop("-b", "-d", "3600", "-p", str(target.pid))
    leaktop.wait_ready(target.pid)
    target.tell("leak 64 64")
    assert leaktop.stop() == 0
    text = "\n".join(leaktop.out.seen)
    assert "4096 bytes in 64 allocations from stack" in text
    assert "leak_phase+" in text
    assert "main+" in text
