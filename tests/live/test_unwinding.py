"""Stacks of programs without frame pointers, frame by frame as the programs know them."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartTarget, Trace
from tests.live.harness import Json, TargetProcess, require, wait_until
from tests.live.judge import assert_exact, lost

pytestmark = pytest.mark.live

STACK_DEPTH_MAX = 127
# Between the return address of the allocator's call and that of the call that notes the stack.
NEAR = 64
# Stacks that no single copy holds: too deep, too large, on two stacks.
MAY_BE_CUT = ("descend", "large_frame", "on_signal")


StartFile = Callable[..., TargetProcess]


@pytest.fixture
def start_file() -> Iterator[StartFile]:
    """Start a target by its path; at the end of the test it has to end well."""
    started: list[TargetProcess] = []

    def start(file: Path, *args: object) -> TargetProcess:
        started.append(TargetProcess(file, *map(str, args)))
        return started[-1]

    yield start
    for target in started:
        target.close()


@dataclass(frozen=True, slots=True)
class Noted:
    """An allocation as the program noted it itself."""

    function: str
    bytes: int
    inner: int
    signals: int
    frames: tuple[int, ...]

    def is_stack(self, frames: list[Json], *, truncated: bool) -> bool:
        """Whether these are the frames, or where they are cut the inner ones of them."""
        ours = [int(frame["address"], 16) for frame in frames][max(0, self.inner) :]
        theirs = self.frames[1 + max(0, -self.inner) :]
        if not ours or not 0 < theirs[0] - ours[0] < NEAR:
            return False
        caller = frames[max(0, self.inner)]
        # of what is not exported a stripped file says nothing
        if self.function not in (caller["symbol"] or self.function * ("strip" in caller["module"])):
            return False
        if len(ours) != len(theirs) and not (truncated and len(ours) < len(theirs)):
            return False
        beyond = [one - other for one, other in zip(ours[1:], theirs[1:], strict=False)]
        # An interrupted address is counted as one further.
        return set(beyond) <= {0, 1} and (truncated or sum(beyond) == self.signals)


def round_of(target: TargetProcess, without: Collection[str] = (), say: str = "go") -> list[Noted]:
    """Let the target allocate once from everywhere; but for what is inside other allocations."""
    target.say(say)
    noted = [
        Noted(**{**found, "frames": tuple(found["frames"])})
        for found in json.loads(target.lines.next())
    ]
    return [each for each in noted if each.function not in without]


def physical(stack: Json) -> list[Json]:
    """The frames that are on the stack, without the calls inlined into them."""
    return [frame for frame in stack["frames"] if not frame["inlined"]]


def describe(frames: Iterable[Json]) -> str:
    return "\n".join(
        f"  {f['address']} {f['symbol']}+{f['offset']} [{f['module']}]" for f in frames
    )


def shown(snapshot: Json, without: Collection[str]) -> list[Json]:
    """The stacks that none of these functions is on."""
    return [
        stack
        for stack in snapshot["stacks"]
        if not {frame["symbol"] for frame in stack["frames"]} & set(without)
    ]


def assert_stacks(snapshot: Json, noted: list[Noted], without: Collection[str] = ()) -> None:
    """Check a first round: each block noted under its stack, whole or said to be cut."""
    blocks = 0
    for stack in shown(snapshot, without):
        frames, cut = physical(stack), stack["truncated"]
        size = stack["bytes"] // stack["count"]
        found = [e for e in noted if e.bytes == size and e.is_stack(frames, truncated=cut)]
        assert found, f"nobody noted this stack of {size} bytes, cut={cut}:\n{describe(frames)}"
        if cut:
            assert found[0].function in MAY_BE_CUT, describe(frames)
        else:
            assert stack["count"] == len(found) == 1
        blocks += stack["count"]
    assert blocks == len(noted)
    assert losses(snapshot) == {"truncated": cut_blocks(snapshot)}


def assert_next_round(
    before: Json, now: Json, noted: list[Noted], without: Collection[str]
) -> None:
    """Check a later round: one more block for each whole stack, and none for any other."""
    counts = {stack["id"]: stack["count"] for stack in before["stacks"]}
    grown = [stack for stack in shown(now, without) if stack["count"] > counts.get(stack["id"], 0)]
    assert len(grown) == len(noted)
    for stack in grown:
        frames, cut = physical(stack), stack["truncated"]
        assert stack["count"] == counts.get(stack["id"], 0) + 1
        size = stack["bytes"] // stack["count"]
        found = [e for e in noted if e.bytes == size and e.is_stack(frames, truncated=cut)]
        assert len(found) == 1, f"{size} bytes, cut={cut}:\n{describe(frames)}"
        assert cut == (len(found[0].frames) > STACK_DEPTH_MAX), describe(frames)
    deep = sum(len(each.frames) > STACK_DEPTH_MAX for each in noted)
    assert losses(now) == {"truncated": losses(before)["truncated"] + deep}


def losses(snapshot: Json) -> dict[str, int]:
    """What was lost of stacks and blocks.

    Not counted: calls of operator new that exceptions ended, and a static program's allocator that
    gives back memory of its own.
    """
    beside = ("missed_returns", "unmatched_unmaps")
    return {name: count for name, count in lost(snapshot).items() if name not in beside}


def cut_blocks(snapshot: Json) -> int:
    return sum(stack["count"] for stack in snapshot["stacks"] if stack["truncated"])


@pytest.mark.parametrize(
    "binary", ["unwinding-O2", "unwinding-O3", "unwinding-stripped", "unwinding-static"]
)
def test_every_frame(binary: str, start_target: StartTarget, trace: Trace) -> None:
    # a program that defines operator new: what its handler allocates is inside that call
    without = ("on_no_memory",) if binary == "unwinding-static" else ()
    target = start_target(binary)
    leaktop = trace(target)
    noted = round_of(target, without)
    snapshot = leaktop.snapshot_from_now()
    assert_stacks(snapshot, noted, without)
    for _ in range(5):  # a question carries 16 KB of a stack; the deepest here is of 60
        noted = round_of(target, without)
        before, snapshot = snapshot, leaktop.snapshot_from_now()
    assert_next_round(before, snapshot, noted, without)
    assert leaktop.stop() == 0


# ---- allocators that take the C library's place ----

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
ALLOCATORS = {
    "jemalloc": LIBRARIES / "libjemalloc.so.2",
    "tcmalloc": LIBRARIES / "libtcmalloc_minimal.so.4",
    "mimalloc": LIBRARIES / "libmimalloc.so.2",
}


# Without pvalloc and reallocarray: where an allocator has none it is the C library's that answers.
FUNCTIONS = (
    "malloc",
    "calloc",
    "realloc",
    "free",
    "mmap",
    "munmap",
    "mremap",
    "posix_memalign",
    "memalign",
    "aligned_alloc",
    "valloc",
)


@pytest.fixture
def start_preloaded(build: Builder, start_file: StartFile) -> StartFile:
    """Start a target with an allocator of its own."""

    def start(library: Path, name: str, *args: str) -> TargetProcess:
        return start_file(Path("/usr/bin/env"), f"LD_PRELOAD={library}", build(name), *args)

    return start


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_preloaded_allocator(
    allocator: str, build: Builder, start_preloaded: StartFile, trace: Trace
) -> None:
    require(ALLOCATORS[allocator])
    target = start_preloaded(ALLOCATORS[allocator], "functions", *FUNCTIONS)
    leaktop = trace(target)
    truth = target.tell()
    assert_exact(leaktop.snapshot_from_now(), truth, build("functions"), "functions.c")
    assert leaktop.stop() == 0


@pytest.mark.parametrize("allocator", [*ALLOCATORS, "static"])
def test_operators(
    allocator: str,
    build: Builder,
    start_target: StartTarget,
    start_preloaded: StartFile,
    trace: Trace,
) -> None:
    if allocator == "static":
        target = start_target("operators-static")
    else:
        require(ALLOCATORS[allocator])
        # mimalloc as Debian builds it does not throw: it ends the program
        calm = ("calm",) if allocator == "mimalloc" else ()
        target = start_preloaded(ALLOCATORS[allocator], "operators", *calm)
    leaktop = trace(target)
    target.tell()
    leaktop.snapshot_from_now()
    truth = target.tell()
    binary = build("operators-static" if allocator == "static" else "operators")
    assert_exact(leaktop.snapshot_from_now(), truth, binary, "operators.cpp")
    assert leaktop.stop() == 0


# ---- files that are not what they were ----

SYSTEM_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def decoys(folder: Path, build: Builder) -> None:
    """Put files of the right names there whose code is another's."""
    for name in ("unwinding-O2", "libunwinding_library.so"):
        shutil.copy(build("recursion"), folder / f"{name}.new")
        (folder / f"{name}.new").rename(folder / name)


def test_files_replaced_while_running(
    build: Builder, tmp_path: Path, start_file: StartFile, trace: Trace
) -> None:
    for name in ("unwinding-O2", "libunwinding_library.so"):
        shutil.copy(build(name), tmp_path)
    target = start_file(tmp_path / "unwinding-O2")
    decoys(tmp_path, build)
    leaktop = trace(target)
    noted = round_of(target)
    assert_stacks(leaktop.snapshot_from_now(), noted)


def test_a_root_of_its_own(
    build: Builder, tmp_path: Path, start_file: StartFile, trace: Trace
) -> None:
    outside, root = tmp_path / "files", tmp_path / "root"
    inside = root / outside.relative_to("/")
    outside.mkdir()
    inside.mkdir(parents=True)
    for name in ("unwinding-O2", "libunwinding_library.so"):
        shutil.copy(build(name), inside)
    linked = subprocess.run(
        ["ldd", build("unwinding-O2")], check=True, capture_output=True, text=True
    )
    for library in map(Path, SYSTEM_LIBRARY.findall(linked.stdout)):
        if library.is_relative_to(build("unwinding-O2").parent):
            continue
        there = root / library.relative_to("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, there)
    # backtrace(3) opens it by itself
    (unwinder,) = Path("/lib").glob("*/libgcc_s.so.1")
    shutil.copy(unwinder, root / unwinder.relative_to("/"))
    decoys(outside, build)
    # without /proc the dynamic linker does not know where the program lies
    environment = f"LD_LIBRARY_PATH={outside}"
    program = outside / "unwinding-O2"
    target = start_file(Path("/usr/bin/env"), environment, "chroot", root, program)
    leaktop = trace(target)
    noted = round_of(target)
    assert_stacks(leaktop.snapshot_from_now(), noted)


def holding(snapshot: Json) -> list[Json]:
    """The stacks of what the library holds, not of what loading it does."""
    return [each for each in snapshot["stacks"] if each["frames"][0]["symbol"] == "reload_hold"]


def test_a_library_in_the_place_of_another(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("reloading")
    leaktop = trace(target)
    small, large = (str(build(f"libreload-{size}.so")) for size in ("small", "large"))
    for _ in range(6):  # until the library is nothing new
        noted = round_of(target, say=small)
        (first,) = holding(leaktop.snapshot_from_now())
        assert noted[0].is_stack(physical(first), truncated=False)
    counts = {first["id"]: first["count"]}

    def is_right() -> bool:
        (noted,) = round_of(target, say=large)
        stacks = holding(leaktop.snapshot_from_now())
        (grown,) = (each for each in stacks if each["count"] > counts.get(each["id"], 0))
        counts[grown["id"]] = grown["count"]
        return noted.is_stack(physical(grown), truncated=False) and not grown["truncated"]

    wait_until(is_right, "the new library's own rules are used")
    assert all(is_right() for _ in range(3))


# ---- other programs ----


@pytest.mark.parametrize("binary", ["unwinding_musl", "unwinding_musl-static"])
def test_musl(binary: str, start_target: StartTarget, trace: Trace) -> None:
    require(Path("/usr/bin/musl-gcc"))
    target = start_target(binary)
    leaktop = trace(target)
    target.say("go")
    expected = json.loads(target.lines.next())
    snapshot = leaktop.snapshot_from_now()
    assert len(snapshot["stacks"]) == len(expected)
    for stack in snapshot["stacks"]:
        names = [frame["symbol"] for frame in physical(stack)]
        known = expected[str(stack["bytes"])]
        assert len(names) >= len(known)
        assert all(one in (None, other) for one, other in zip(known, names, strict=False)), names


PYTHON = """
import json, os, re, sys
held = []
print("ready", os.getpid(), flush=True)
for line in sys.stdin:
    if line == "quit\\n":
        break
    for i in range(2000):
        held.append(json.loads('{"a": [1.5, "b%d"]}' % i))
        held.append(sorted(["z%d" % i, "y", "x"], key=lambda each: each + "k"))
        held.append(re.sub("b+", lambda found: found[0] * 3, "abbbc%d" % i))
        held.append(type("T", (), {"field": i})() if i % 50 == 0 else None)
    print("done", flush=True)
"""


def whole_count(snapshot: Json) -> int:
    return sum(stack["count"] for stack in snapshot["stacks"] if not stack["truncated"])


def test_python(start_file: StartFile, trace: Trace) -> None:
    python = Path("/usr/bin/python3")
    require(python)
    target = start_file(Path("/usr/bin/env"), "PYTHONMALLOC=malloc", python, "-c", PYTHON)
    leaktop = trace(target, "-T", "5000")
    for _ in range(2):
        target.say("go")
        target.lines.next()
    before = leaktop.snapshot_from_now()
    for _ in range(2):
        target.say("go")
        target.lines.next()
    now = leaktop.snapshot_from_now()
    allocations = now["totals"]["allocs"] - before["totals"]["allocs"]
    assert allocations > 10_000
    assert (now["lost"]["truncated"] - before["lost"]["truncated"]) * 1000 < allocations
    # of what was held since: at first, when nothing is known yet, more may be cut
    held = now["totals"]["count"] - before["totals"]["count"]
    assert held > 10_000
    assert (whole_count(now) - whole_count(before)) * 1000 > 999 * held
    for stack in now["stacks"]:
        if stack["truncated"]:
            continue
        assert stack["frames"][-1]["symbol"] == "_start", describe(stack["frames"])
