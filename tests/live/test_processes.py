"""Several processes at once: each with its own books, whatever their addresses and comings."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartLeaktop, StartTarget
from tests.live.harness import Json, Leaktop, TargetProcess, Truth, run_leaktop, wait_until
from tests.live.judge import FIGURES, expected_sites, found_sites, lost, totals
from tests.live.traces import assert_no_probe_left

pytestmark = pytest.mark.live

JSON = ("-b", "--json", "-d", "0.2", "-T", "1000")


def of_process(snapshot: Json, pid: int) -> Json:
    """The part of a snapshot that is about one process."""
    stacks = [stack for stack in snapshot["stacks"] if stack["pid"] == pid]
    (target,) = (each for each in snapshot["targets"] if each["pid"] == pid)
    return {"stacks": stacks, "totals": {figure: target[figure] for figure in FIGURES}}


def assert_books(snapshot: Json, truths: dict[int, Truth]) -> None:
    """Every process holds what it says, and nothing else is held."""
    assert lost(snapshot) == {}
    assert {stack["pid"] for stack in snapshot["stacks"]} <= set(truths)
    for pid, truth in truths.items():
        mine = of_process(snapshot, pid)
        assert found_sites(mine) == expected_sites(truth)
        assert mine["totals"] == {figure: truth.total(figure) for figure in FIGURES}
    total = {figure: sum(truth.total(figure) for truth in truths.values()) for figure in FIGURES}
    assert totals(snapshot) == total


def wait_tracing(leaktop: Leaktop) -> str:
    while not (line := leaktop.err.next()).startswith("leaktop: tracing "):
        pass
    return line


class FixedTarget(TargetProcess):
    """A target without address randomisation: two of them hold blocks at the same addresses."""

    def __init__(self, binary: Path) -> None:
        super().__init__(Path("/usr/bin/setarch"), "--addr-no-randomize", str(binary))


def test_two_processes_with_the_same_addresses(build: Builder, start_leaktop: StartLeaktop) -> None:
    twins = [FixedTarget(build("phases")) for _ in range(2)]
    one, other = twins
    leaktop = start_leaktop(*JSON, "-p", f"{one.pid},{other.pid}")
    assert "2 processes (phases)" in wait_tracing(leaktop)
    truths = {one.pid: one.tell("leak 10 100"), other.pid: other.tell("leak 7 300")}
    assert_books(leaktop.snapshot_from_now(), truths)
    # what one frees the other still holds
    truths[one.pid] = one.tell("drop")
    assert_books(leaktop.snapshot_from_now(), truths)
    truths[other.pid] = other.tell("grow 3 50000")
    snapshot = leaktop.snapshot_from_now()
    assert_books(snapshot, truths)
    assert [target["comm"] for target in snapshot["targets"]] == ["phases", "phases"]
    assert leaktop.stop() == 0
    for twin in twins:
        assert_no_probe_left(twin.pid)
        twin.close()


def test_a_process_that_ends_keeps_its_rows(
    start_target: StartTarget, start_leaktop: StartLeaktop
) -> None:
    staying, leaving = start_target("phases"), start_target("phases")
    leaktop = start_leaktop(*JSON, "-p", f"{leaving.pid},{staying.pid}")
    wait_tracing(leaktop)
    truths = {leaving.pid: leaving.tell("leak 5 200"), staying.pid: staying.tell("leak 6 100")}
    leaving.close()
    wait_until(lambda: not alive(leaktop.snapshot())[leaving.pid], "its end noticed")
    truths[staying.pid] = staying.tell("leak 1 1000")
    snapshot = leaktop.snapshot_from_now()
    assert_books(snapshot, truths)
    assert alive(snapshot) == {leaving.pid: False, staying.pid: True}
    staying.close()
    # with the last one the run ends, and says what they held
    assert leaktop.wait() == 0
    assert_books(parse_last(leaktop), truths)


def alive(snapshot: Json) -> dict[int, bool]:
    return {target["pid"]: target["alive"] for target in snapshot["targets"]}


def parse_last(leaktop: Leaktop) -> Json:
    from tests.live.harness import parse

    return parse(leaktop.out.seen[-1])


def test_fifty_of_one_name_coming_and_going(
    build: Builder, tmp_path: Path, start_leaktop: StartLeaktop
) -> None:
    binary = tmp_path / f"many{os.getpid()}"
    shutil.copy(build("phases"), binary)
    crowd = [TargetProcess(binary) for _ in range(20)]
    leaktop = start_leaktop(*JSON, "--name", binary.name)
    assert "20 processes" in wait_tracing(leaktop)
    truths = {}
    for number, target in enumerate(crowd):
        truths[target.pid] = target.tell(f"leak {number + 1} 64")
    assert_books(leaktop.snapshot_from_now(), truths)
    for target in crowd[:10]:
        target.close()
    late = [TargetProcess(binary) for _ in range(30)]
    wanted = {target.pid for target in late}
    wait_until(lambda: wanted <= set(alive(leaktop.snapshot())), "the new ones traced")
    for number, target in enumerate(late):
        truths[target.pid] = target.tell(f"leak {number + 1} 100")
    snapshot = leaktop.snapshot_from_now()
    assert_books(snapshot, truths)
    assert sum(alive(snapshot).values()) == 40
    for target in crowd[10:] + late:
        target.close()
    # more of the name may come, so it goes on
    wait_until(lambda: not any(alive(leaktop.snapshot()).values()), "all ends noticed")
    assert leaktop.stop() == 0
    assert_books(parse_last(leaktop), truths)


def test_a_program_that_another_replaces(
    build: Builder, start_leaktop: StartLeaktop, start_target: StartTarget
) -> None:
    target = start_target("becoming", str(build("phases")))
    leaktop = start_leaktop(*JSON, "-p", str(target.pid))
    leaktop.wait_ready(target.pid)
    target.tell("leak")
    assert leaktop.snapshot_from_now()["totals"]["count"] == 5
    target.say("become")
    assert target.lines.next() == f"ready {target.pid}"
    wait_until(lambda: is_traced_anew(leaktop.snapshot()), "the new program traced")
    truth = target.tell("leak 9 700")
    snapshot = leaktop.snapshot_from_now()
    assert found_sites(snapshot) == expected_sites(truth)
    assert totals(snapshot) == {figure: truth.total(figure) for figure in FIGURES}
    assert snapshot["target"]["comm"] == "phases"
    assert lost(snapshot) == {}
    assert leaktop.stop() == 0
    assert_no_probe_left(target.pid)


def is_traced_anew(snapshot: Json) -> bool:
    return bool(snapshot["target"]["comm"] == "phases" and snapshot["totals"]["count"] == 0)


def test_children_are_followed(start_target: StartTarget, start_leaktop: StartLeaktop) -> None:
    target = start_target("family")
    leaktop = start_leaktop(*JSON, "--follow", "-p", str(target.pid))
    leaktop.wait_ready(target.pid)
    target.say("child")
    child = int(target.lines.next().removeprefix("child "))
    wait_until(lambda: child in alive(leaktop.snapshot()), "the child traced")
    mine = target.tell("leak 3 500")
    target.say("child-leak 4 600")
    theirs = target.truth()
    assert_books(leaktop.snapshot_from_now(), {target.pid: mine, child: theirs})
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not alive(leaktop.snapshot())[child], "its end noticed")
    assert leaktop.stop() == 0


def test_nobody_of_that_name() -> None:
    run_leaktop("-b", "--name", "no-such-name").assert_refused(4, "no-such-name")


def test_one_of_several_that_is_not_there(start_target: StartTarget) -> None:
    target = start_target("phases")
    pid = int(Path("/proc/sys/kernel/pid_max").read_text())
    run_leaktop("-b", "-p", f"{target.pid},{pid}").assert_refused(4, str(pid))
