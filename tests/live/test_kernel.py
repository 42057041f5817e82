"""Kernel memory that this very process makes the kernel allocate, to the byte."""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leaktop.tracer.kernel import MapSpec, create_map
from tests.live.conftest import StartLeaktop
from tests.live.harness import LEAKTOP, Json, Leaktop, parse, run_leaktop, wait_until
from tests.live.judge import NOTHING
from tests.live.terminal import ENTER, ESCAPE, Terminal

pytestmark = pytest.mark.live

PAGE = os.sysconf("SC_PAGE_SIZE")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
F_SETPIPE_SZ = 1031  # include/uapi/linux/fcntl.h
PIPE_BUFFER = 40  # bytes of struct pipe_buffer on 64-bit machines
ARRAY, PERCPU_ARRAY = 2, 6  # enum bpf_map_type

Trace = Callable[..., Leaktop]


@pytest.fixture
def trace_kernel(start_leaktop: StartLeaktop) -> Trace:
    """Start `leaktop -k --json` on what the kernel does for this process, until it counts."""

    def attached(*args: str) -> Leaktop:
        leaktop = start_leaktop(
            *("-k", "-p", str(os.getpid()), "-b", "--json", "-d", "0.1", "-T", "10000"), *args
        )
        line = leaktop.err.next()
        assert line.startswith(f"leaktop: tracing the kernel for {os.getpid()} ("), line
        assert line.endswith(" tracepoints"), line
        return leaktop

    return attached


@contextmanager
def pipes(count: int, size: int) -> Iterator[list[tuple[int, int]]]:
    """Pipes grown to a size in bytes."""
    made = [os.pipe() for _ in range(count)]
    try:
        for _, writer in made:
            assert fcntl.fcntl(writer, F_SETPIPE_SZ, size) == size
        yield made
    finally:
        for ends in made:
            for end in ends:
                os.close(end)


@contextmanager
def eventfds(count: int) -> Iterator[None]:
    made = [os.eventfd(0) for _ in range(count)]
    try:
        yield
    finally:
        for each in made:
            os.close(each)


def names(stack: Json) -> list[str]:
    return [frame["symbol"] or "" for frame in stack["frames"]]


def under(snapshot: Json, function: str, caller: str) -> tuple[int, int]:
    """Bytes and blocks of the stacks on which one function is called, indirectly, by another."""
    found = [
        stack
        for stack in snapshot["stacks"]
        if function in names(stack) and caller in names(stack)[names(stack).index(function) :]
    ]
    return sum(stack["bytes"] for stack in found), sum(stack["count"] for stack in found)


def direct(snapshot: Json, function: str) -> list[Json]:
    """The stacks that begin with a function: it called the allocator."""
    return [stack for stack in snapshot["stacks"] if names(stack)[:1] == [function]]


def in_pages(snapshot: Json, caller: str) -> tuple[int, int]:
    """Bytes and blocks of the stacks on which a function has pages allocated, one at a time."""
    found = [
        stack
        for stack in snapshot["stacks"]
        if caller in names(stack) and any("alloc_pages" in name for name in names(stack))
    ]
    return sum(stack["bytes"] for stack in found), sum(stack["count"] for stack in found)


def slab_size(cache: str) -> int:
    return int(Path(f"/sys/kernel/slab/{cache}/slab_size").read_text())


def processors() -> int:
    """How many processors there may ever be."""
    first, _, last = Path("/sys/devices/system/cpu/possible").read_text().strip().partition("-")
    return int(last or first) - int(first) + 1


def wait_for_none(leaktop: Leaktop, function: str, caller: str) -> None:
    wait_until(
        lambda: under(leaktop.snapshot(), function, caller) == (0, 0), f"{function} holds nothing"
    )


def test_pipes_grown_and_filled(trace_kernel: Trace) -> None:
    leaktop = trace_kernel()
    count, size = 20, 1 << 20
    with pipes(count, size) as made:
        for _, writer in made:
            assert os.write(writer, bytes(size)) == size
        snapshot = leaktop.snapshot_from_now()
        # a ring of one pipe_buffer a page: too large for a slab, so whole pages, counted once
        ring = size // PAGE * PIPE_BUFFER
        pages = 1 << (ring - 1).bit_length()
        assert under(snapshot, "pipe_resize_ring", "pipe_fcntl") == (count * pages, count)
        assert under(snapshot, "anon_pipe_write", "vfs_write") == (
            count * size,
            count * size // PAGE,
        )
        assert snapshot["mode"] == "kernel"
        assert snapshot["target"]["pid"] == os.getpid()
        assert snapshot["system"]["available"] > 0
    wait_for_none(leaktop, "pipe_resize_ring", "pipe_fcntl")
    wait_for_none(leaktop, "anon_pipe_write", "vfs_write")
    assert leaktop.stop() == 0


def files(snapshot: Json) -> list[Json]:
    """The stacks on which eventfd(2) makes files."""
    return [
        stack
        for stack in direct(snapshot, "alloc_empty_file")
        if "__x64_sys_eventfd2" in names(stack)
    ]


def test_slab_objects_by_cache(trace_kernel: Trace) -> None:
    leaktop = trace_kernel()
    count = 300
    with eventfds(count):
        snapshot = leaktop.snapshot_from_now()
        (context,) = direct(snapshot, "do_eventfd")
        # struct eventfd_ctx has 48 bytes
        assert (context["bytes"], context["count"]) == (count * slab_size("kmalloc-64"), count)
        (file,) = files(snapshot)
        assert file["cache"] == "filp"
        assert (file["bytes"], file["count"]) == (count * slab_size("filp"), count)
    wait_until(
        lambda: not direct(snapshot := leaktop.snapshot(), "do_eventfd") and not files(snapshot),
        "all are freed",
    )


def test_lifetimes(trace_kernel: Trace) -> None:
    leaktop = trace_kernel()
    count = 300
    with eventfds(1):
        with eventfds(count):
            leaktop.snapshot_from_now()  # a tick of 0.2 s lies between
        wait_until(
            lambda: direct(leaktop.snapshot(), "do_eventfd")[0]["frees"] == count, "they are freed"
        )
        (context,) = direct(leaktop.snapshot(), "do_eventfd")
        held = {band["from_s"]: band["frees"] for band in context["lifetimes"]}
        assert sum(frees for from_s, frees in held.items() if from_s > 0.1) == count


def test_a_bpf_map_is_freed_by_another_process(trace_kernel: Trace) -> None:
    leaktop = trace_kernel()
    entries, maps = 64, 3
    spec = MapSpec("leaktop_test", ARRAY, 4, PAGE, entries, 0, ())
    made = [create_map(spec) for _ in range(maps)]
    try:
        snapshot = leaktop.snapshot_from_now()
        # mapped page by page; the map's own structure lies in front
        pages = maps * (entries + 1)
        assert in_pages(snapshot, "array_map_alloc") == (pages * PAGE, pages)
    finally:
        for each in made:
            os.close(each)
    # by a worker of the kernel
    wait_until(lambda: in_pages(leaktop.snapshot(), "array_map_alloc") == (0, 0), "freed")


def test_a_huge_page_is_given_back_piece_by_piece(trace_kernel: Trace) -> None:
    if "[never]" in HUGE_PAGES.read_text():
        pytest.skip(f"{HUGE_PAGES} says never")
    leaktop = trace_kernel("-z", "2M")  # not the tables of pages
    size, huge = 8 << 20, 2 << 20

    def held() -> int:
        snapshot = leaktop.snapshot_from_now()
        return under(snapshot, "do_huge_pmd_anonymous_page", "exc_page_fault")[0]

    before = held()
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, PAGE):
            memory[at] = 1
        whole = held() - before
        assert whole in (size, size - huge)  # as many as it has aligned
        # else khugepaged may put the pieces into huge pages of its own, and free these
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, size, huge):
            memory.madvise(mmap.MADV_FREE, at, PAGE)  # splits it: base pages from now on
        assert held() - before == whole
        for page in (1024, 1025, 1026, 1124):
            memory.madvise(mmap.MADV_DONTNEED, page * PAGE, PAGE)
        assert held() - before == whole - 4 * PAGE
    wait_until(lambda: held() == before, "all pages are freed")


def test_sizes_and_sampling(trace_kernel: Trace) -> None:
    leaktop = trace_kernel("-s", "10", "-z", "50", "-Z", "64")
    with pipes(50, 1 << 20), eventfds(800):
        snapshot = leaktop.snapshot_from_now()
        (context,) = direct(snapshot, "do_eventfd")
        # 80 are kept, give or take 8.5 (one standard error): six of them
        assert context["count"] % 10 == 0
        assert 290 < context["count"] < 1310
        assert context["bytes"] == 64 * context["count"]
        assert context["estimated"] is True
        assert under(snapshot, "pipe_resize_ring", "pipe_fcntl") == (0, 0)
        assert files(snapshot) == []
    wait_until(lambda: not direct(leaktop.snapshot(), "do_eventfd"), "all are freed")


def test_younger_blocks_are_left_out(trace_kernel: Trace) -> None:
    leaktop = trace_kernel("-o", "3600000", "-Z", "100")
    with eventfds(10):
        assert leaktop.snapshot_from_now()["stacks"] == []


def test_per_cpu_memory(trace_kernel: Trace) -> None:
    leaktop = trace_kernel("--percpu", "--wa-missing-free")
    entries, value = 500, 8
    made = create_map(MapSpec("leaktop_test", PERCPU_ARRAY, 4, value, entries, 0, ()))
    try:
        snapshot = leaktop.snapshot_from_now()
        (held,) = direct(snapshot, "bpf_map_alloc_percpu")
        assert held["count"] == entries
        # where memory is accounted to cgroups, a pointer for each 4 bytes besides
        # (pcpu_obj_full_size, mm/percpu-internal.h)
        each = value * processors()
        assert held["bytes"] in (entries * each, entries * (each + value // 4 * 8))
        assert snapshot["lost"]["missed_frees"] == 0
    finally:
        os.close(made)
    wait_until(lambda: not direct(leaktop.snapshot(), "bpf_map_alloc_percpu"), "all are freed")


def test_nothing_of_leaktop_itself() -> None:
    words = " ".join((*LEAKTOP, "-k", "--json", "-n", "2", "-d", "0.1", "-p"))
    done = run_leaktop(command=("sh", "-c", f"exec {words} $$"))
    assert done.code == 0, done.err
    for line in done.out:
        totals = parse(line)["totals"]
        assert totals == {**NOTHING, "allocs": 0, "frees": 0, "alloc_bytes": 0}


def without(*capabilities: str) -> tuple[str, ...]:
    """A command that runs another as root less some capabilities, where no tracefs is mounted."""
    less = ",".join(f"-{capability}" for capability in capabilities)
    hidden = "umount -q /sys/kernel/tracing /sys/kernel/debug 2>/dev/null;"
    run = f"exec setpriv --bounding-set={less} --inh-caps={less}"
    return ("unshare", "-m", "sh", "-c", f'{hidden} {run} "$@"', "sh", *LEAKTOP)


def test_hidden_addresses_are_said() -> None:
    done = run_leaktop("-k", "-b", "-n", "1", "-d", "0.1", command=without("syslog"))
    assert done.code == 0, done.err
    assert "count twice" in done.err[0]
    assert "CAP_SYSLOG" in done.err[0]


def test_no_tracefs_is_one_command_away() -> None:
    done = run_leaktop("-k", "-b", command=without("sys_admin"))
    done.assert_refused(3, "mount -t tracefs nodev /sys/kernel/tracing")


def test_on_the_screen() -> None:
    terminal = Terminal("-k", "-p", str(os.getpid()), "-d", "0.2")
    try:
        terminal.wait_for(r"\[tracing\]")
        with pipes(20, 1 << 20):
            terminal.wait_for(rf"kernel for {os.getpid()} .* avail [\d.]+G +slab ")
            terminal.wait_for(r"320K +20 .* pipe_resize_ring \[kernel\]")
            terminal.press("/", "pipe_resize", ENTER)
            terminal.press(ENTER)
            terminal.wait_for(r"pipe_resize_ring\+0x[0-9a-f]+ \[kernel\]")
            terminal.wait_for(r"16.0K-32.0K +320K ")
            terminal.press(ESCAPE)
        terminal.wait_for(r"no stack matches /pipe_resize|nothing that was allocated")
    finally:
        terminal.close()
