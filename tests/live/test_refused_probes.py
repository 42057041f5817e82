"""Where another tracer keeps leaktop off instructions: other ones do, and what is left is said."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from leaktop.tracer.image import BPF_SOURCE
from leaktop.tracer.ways import WAY_VARIABLE
from tests.live.conftest import Builder, StartTarget, Trace
from tests.live.harness import TargetProcess, require, run_leaktop
from tests.live.judge import assert_exact
from tests.live.refuser import Refuser, all_places, entries

pytestmark = pytest.mark.live

LIBC = "libc.so.6"
# What memleak probes, at its first instruction, and what can be probed elsewhere: glibc's munmap is
# too short, and its calloc ends in a jump to whichever memset this CPU has.
PROBED = (
    *("malloc", "realloc", "free", "mmap", "mremap"),
    *("posix_memalign", "memalign", "valloc", "pvalloc", "reallocarray"),
)


@dataclass(frozen=True)
class Alone:
    """A target with a C library of its own, so that nobody else's probes are refused."""

    target: TargetProcess
    libc: Path
    refuse: Callable[[Iterable[int]], None]


@pytest.fixture
def start_alone(
    start_target: StartTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Alone]]:
    refusers: list[Refuser] = []

    def start(name: str, *arguments: str) -> Alone:
        (libc,) = {
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if line.endswith(f"/{LIBC}")
        }
        own = tmp_path / LIBC
        shutil.copy(libc, own)
        with monkeypatch.context() as only:
            only.setenv("LD_LIBRARY_PATH", str(tmp_path))
            target = start_target(name, *arguments)
        assert str(own) in Path(f"/proc/{target.pid}/maps").read_text()
        return Alone(
            target, own, lambda offsets: refusers.append(Refuser(own, target.pid, offsets))
        )

    yield start
    for refuser in refusers:
        refuser.close()


@pytest.mark.parametrize("way", ["", "multi", "perf"])
def test_figures_are_exact_from_other_instructions(
    way: str,
    build: Builder,
    start_alone: Callable[..., Alone],
    trace: Trace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(WAY_VARIABLE, way)
    alone = start_alone("functions", "all")
    alone.refuse(entries(alone.libc, *PROBED))
    leaktop = trace(alone.target)
    truth = alone.target.tell()
    snapshot = leaktop.snapshot_from_now()
    assert snapshot["probes_refused"] == []
    assert_exact(snapshot, truth, build("functions"), "functions.c")
    assert leaktop.stop() == 0


def test_sampled_calls_are_told_apart_from_other_instructions(
    start_alone: Callable[..., Alone], trace: Trace
) -> None:
    alone = start_alone("functions", "all")
    alone.refuse(entries(alone.libc, *PROBED))
    leaktop = trace(alone.target, "-z", "1G")
    alone.target.tell()
    snapshot = leaktop.snapshot_from_now()
    assert snapshot["totals"]["count"] == 0
    assert not any(snapshot["lost"].values())
    assert leaktop.stop() == 0


def test_a_refused_free_names_itself_and_the_rest_goes_on(
    start_alone: Callable[..., Alone], trace: Trace
) -> None:
    alone = start_alone("functions", "free")
    alone.refuse(all_places(alone.libc, "free"))
    leaktop = trace(alone.target)
    (ready,) = (line for line in leaktop.err.seen if "tracing" in line)
    effect = "what it frees looks held"
    assert f"; not free in {LIBC}: {effect}: Invalid argument" in ready
    truth = alone.target.tell()
    snapshot = leaktop.snapshot_from_now()
    (refused,) = snapshot["probes_refused"]
    assert (refused["function"], refused["library"], refused["effect"]) == ("free", LIBC, effect)
    # all that was allocated counts, and looks held
    assert snapshot["totals"]["allocs"] == truth.total("allocs")
    assert snapshot["totals"]["frees"] == 0
    assert snapshot["totals"]["count"] == truth.total("allocs")
    assert leaktop.stop() == 0


# ``bpfcc-tools`` is Debian's package of it; it needs kernel headers, which ours stand in for.
MEMLEAK = Path("/usr/sbin/memleak-bpfcc")
# What needs neither of the two that may be refused beside it.
APART = ("malloc", "realloc", "free", "posix_memalign", "memalign", "reallocarray")


@pytest.fixture
def start_memleak() -> Iterator[Callable[[Alone], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(alone: Alone) -> subprocess.Popen[str]:
        require(MEMLEAK)
        process = subprocess.Popen(
            ["/usr/bin/python3", "-u", MEMLEAK, "-O", alone.libc, "-p", str(alone.target.pid), "1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "BCC_KERNEL_SOURCE": str(BPF_SOURCE / "headers")},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_figures_are_exact_beside_memleak(
    build: Builder,
    start_alone: Callable[..., Alone],
    start_memleak: Callable[[Alone], subprocess.Popen[str]],
    trace: Trace,
) -> None:
    alone = start_alone("functions", *APART)
    memleak = start_memleak(alone)
    assert memleak.stdout is not None
    assert any("Top 10" in line for line in memleak.stdout), "memleak does not run here"
    leaktop = trace(alone.target)
    truth = alone.target.tell()
    snapshot = leaktop.snapshot_from_now()
    # on the first instructions that memleak holds; not that it always does
    assert {each["function"] for each in snapshot["probes_refused"]} <= {"calloc", "munmap"}
    assert_exact(snapshot, truth, build("functions"), "functions.c")
    assert memleak.poll() is None
    assert leaktop.stop() == 0


def test_figures_are_exact_where_memleak_comes_later(
    build: Builder,
    start_alone: Callable[..., Alone],
    start_memleak: Callable[[Alone], subprocess.Popen[str]],
    trace: Trace,
) -> None:
    alone = start_alone("functions", *APART)
    leaktop = trace(alone.target)
    memleak = start_memleak(alone)
    assert memleak.stdout is not None
    # it attaches, or ends since the kernel refuses it what is there with another counter
    any("Top 10" in line for line in memleak.stdout)
    truth = alone.target.tell()
    snapshot = leaktop.snapshot_from_now()
    assert snapshot["probes_refused"] == []
    assert_exact(snapshot, truth, build("functions"), "functions.c")
    assert leaktop.stop() == 0


def test_with_no_function_left_the_run_ends(start_alone: Callable[..., Alone]) -> None:
    alone = start_alone("functions", "malloc")
    alone.refuse(all_places(alone.libc))
    done = run_leaktop("-b", "-p", str(alone.target.pid))
    done.assert_refused(3, "malloc", LIBC, "other tracers")
