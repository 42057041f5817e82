"""Targets as they are: real processes of the test's own, and those that are none."""

import contextlib
import ctypes
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leaktop.tracer import TracerError
from leaktop.tracer.allocators import (
    Allocator,
    find_allocators,
    require_allocator,
)
from leaktop.tracer.probes import Choice
from leaktop.tracer.target import TargetProcess

PF_KTHREAD = 0x00200000
PATIENCE_S = 30.0
Start = Callable[..., "subprocess.Popen[bytes]"]
Hold = Callable[[int], TargetProcess]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)


def wait_for_comm(pid: int, comm: str) -> None:
    path = Path(f"/proc/{pid}/comm")
    wait_until(lambda: path.read_text() == f"{comm}\n", f"{pid} runs {comm}")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program, which is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def sleeper(start: Start) -> "subprocess.Popen[bytes]":
    process = start("sleep", "1000")
    wait_for_comm(process.pid, "sleep")
    return process


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Make a target, which is closed with the test."""
    held: list[TargetProcess] = []

    def make(pid: int) -> TargetProcess:
        held.append(TargetProcess(pid))
        return held[-1]

    yield make
    for target in held:
        target.close()


def refused(act: Callable[[], object], code: int, *words: str) -> None:
    with pytest.raises(TracerError) as refusal:
        act()
    assert refusal.value.exit_code == code
    assert len(str(refusal.value).splitlines()) <= 2
    for word in words:
        assert word in str(refusal.value)


def test_a_running_process(sleeper: "subprocess.Popen[bytes]", hold: Hold) -> None:
    target = hold(sleeper.pid)
    assert (target.pid, target.comm) == (sleeper.pid, "sleep")
    assert target.why_over() is None
    assert (target.resident() or 0) > 0


def test_resident_is_what_the_kernel_says(hold: Hold) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    shown = hold(os.getpid()).resident()
    assert shown is not None
    assert shown % page == 0
    # a Python interpreter with pytest is a few MB at least and no TB
    assert 2**20 < shown < 2**40


def test_no_such_process() -> None:
    pid = int(Path("/proc/sys/kernel/pid_max").read_text())  # PIDs end below it
    refused(lambda: TargetProcess(pid), 4, str(pid), "pgrep")


def test_a_kernel_thread() -> None:
    stat = Path("/proc/2/stat")
    if not stat.exists() or not int(stat.read_text().rpartition(")")[2].split()[6]) & PF_KTHREAD:
        pytest.skip("kernel threads are not visible in this PID namespace")
    refused(lambda: TargetProcess(2), 4, "2 (kthreadd)", "kernel thread")


def test_a_thread_is_no_process() -> None:
    stop, started = threading.Event(), threading.Event()
    tids = []

    def run() -> None:
        tids.append(threading.get_native_id())
        started.set()
        stop.wait()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        refused(lambda: TargetProcess(tids[0]), 4, str(tids[0]), f"-p {os.getpid()}")
    finally:
        stop.set()
        thread.join()


def test_a_process_that_exits(sleeper: "subprocess.Popen[bytes]", hold: Hold) -> None:
    target = hold(sleeper.pid)
    target.refresh()
    assert target.knows(code := [code_address(target)])
    sleeper.kill()
    wait_until(lambda: target.why_over() is not None, "it is seen that the process ended")
    # first a zombie, whose memory is gone; then nothing at all
    for _ in range(2):
        assert target.why_over() == "exited"
        assert target.resident() is None
        target.refresh()
        assert target.knows(code), "its mappings are still known"
        sleeper.wait()


def allocators_of(
    target: TargetProcess, progress: Callable[[str], None] = lambda _: None
) -> list[Allocator]:
    found = find_allocators(target, Choice(), (), progress)
    require_allocator(target, Choice(), found)
    return found


def test_a_process_that_ended_before_it_was_looked_at(
    sleeper: "subprocess.Popen[bytes]", hold: Hold
) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    target = hold(sleeper.pid)
    target.refresh()
    refused(lambda: allocators_of(target), 4, str(sleeper.pid), "exited")


def test_another_program_in_the_same_process(start: Start, hold: Hold) -> None:
    process = start("sh", "-c", "read line; exec sleep 1000")
    wait_for_comm(process.pid, "sh")
    target = hold(process.pid)
    assert target.why_over() is None
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    wait_for_comm(process.pid, "sleep")
    why = target.why_over()
    assert why is not None
    assert "another program" in why
    assert "sleep" in why


def test_another_name_is_the_same_program(start: Start, hold: Hold) -> None:
    rename = (
        "import sys\n"
        "for name in sys.stdin.buffer.raw:\n"
        "    open('/proc/self/comm', 'wb').write(name[:-1])\n"
        "    print('renamed', flush=True)\n"
    )
    process = start(sys.executable, "-c", rename)
    assert process.stdin is not None
    assert process.stdout is not None
    for name in (b"plain", b") R 1 (x", b"\xff\xfe", b"\x1b[2J"):
        process.stdin.write(name + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"renamed\n"
        target = hold(process.pid)
        assert target.comm == os.fsdecode(name)
        assert target.why_over() is None


def code_address(target: TargetProcess) -> int:
    """An address inside the target's own program."""
    for line in Path(f"/proc/{target.pid}/maps").read_text().splitlines():
        fields = line.split()
        if "x" in fields[1] and len(fields) > 5 and fields[5].startswith("/"):
            return int(fields[0].partition("-")[0], 16) + 1
    raise AssertionError("it maps no code")


def malloc_of_this_process() -> int:
    # the library's own: of the program's names malloc may be a stub that leads there
    address = ctypes.cast(ctypes.CDLL("libc.so.6").malloc, ctypes.c_void_p).value
    assert address is not None
    return address


def test_locate(hold: Hold) -> None:
    target = hold(os.getpid())
    target.refresh()
    malloc = malloc_of_this_process()
    inside, nowhere = target.locate([malloc + 1, 0x10])
    assert inside.address == malloc + 1
    assert inside.module is not None
    assert inside.module.name.startswith("libc")
    assert inside.module.path.startswith("/")
    assert (nowhere.address, nowhere.module) == (0x10, None)
    assert target.knows([malloc])
    assert not target.knows([malloc, 0x10])
    assert target.knows([])


def test_locate_finds_the_byte_in_the_file(hold: Hold) -> None:
    target = hold(os.getpid())
    target.refresh()
    malloc = malloc_of_this_process()
    (found,) = target.locate([malloc + 1])
    assert found.module is not None
    with Path(found.module.path).open("rb") as file:
        file.seek(found.offset - 1)
        assert file.read(4) == ctypes.string_at(malloc, 4)


def test_an_address_just_past_its_code_belongs_to_it(hold: Hold) -> None:
    # the return address of a call that is the last instruction of a mapping
    target = hold(os.getpid())
    target.refresh()
    malloc = malloc_of_this_process()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= malloc < end:
            break
    at_end, at_start = target.locate([end, start])
    assert at_end.module is not None
    assert at_end.module.name.startswith("libc")
    assert at_start.module is None or at_start.offset != 0


def test_before_the_first_look_nothing_is_known(hold: Hold) -> None:
    target = hold(os.getpid())
    assert not target.knows([malloc_of_this_process()])
    assert target.locate([malloc_of_this_process()])[0].module is None
    assert target.trampoline == 0


def test_a_process_that_nobody_traces_has_no_trampoline(
    sleeper: "subprocess.Popen[bytes]", hold: Hold
) -> None:
    target = hold(sleeper.pid)
    target.refresh()
    assert target.trampoline == 0


def test_the_allocator_is_found_in_the_target_s_own_library(hold: Hold) -> None:
    target = hold(os.getpid())
    target.refresh()
    said: list[str] = []
    allocators = allocators_of(target, said.append)
    assert any("libc" in step for step in said)
    libc = next(a for a in allocators if a.module.name.startswith("libc"))
    malloc = malloc_of_this_process()
    assert libc.start <= malloc < libc.end
    offsets = {each.function.name: each.site.offset for each in libc.functions}
    assert {"malloc", "calloc", "realloc", "free", "mmap", "munmap", "mremap"} <= set(offsets)
    assert len(set(offsets.values())) == len(offsets)
    assert offsets["malloc"] == target.locate([malloc + 1])[0].offset - 1
    assert not [a for a in allocators if a.module.name.startswith("ld-")]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for a program without malloc")
def test_a_process_without_an_allocator(tmp_path: Path, start: Start, hold: Hold) -> None:
    source = tmp_path / "bare.c"
    source.write_text('void _start(void) { for (;;) __asm__ volatile("pause"); }\n')
    program = tmp_path / "bare"
    command = ["gcc", "-static", "-nostdlib", "-o", str(program), str(source)]
    subprocess.run(command, check=True)
    process = start(str(program))
    wait_for_comm(process.pid, "bare")
    target = hold(process.pid)
    target.refresh()
    words = ("malloc", str(process.pid), "bare")
    refused(lambda: allocators_of(target), 4, *words)


def test_close_twice_lets_go_of_every_file() -> None:
    def open_files() -> set[str]:
        links = set()
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # the one that lists them is gone by now
                links.add(f"{link.name} {link.readlink()}")
        return links

    gc.collect()  # what other tests left for it
    before = open_files()
    target = TargetProcess(os.getpid())
    target.refresh()
    allocators_of(target)
    assert open_files() > before
    target.close()
    target.close()
    gc.collect()  # readers of ELF files hold each other
    assert open_files() == before


def test_code_mappings_say_where_each_files_code_lies(
    sleeper: "subprocess.Popen[bytes]", hold: Hold
) -> None:
    target = hold(sleeper.pid)
    assert target.code_mappings() == []
    target.refresh()
    found = target.code_mappings()
    assert [each.start for each in found] == sorted(each.start for each in found)
    program = shutil.which("sleep")
    assert program is not None
    path = os.path.realpath(program)
    (own,) = [each for each in found if each.path == path]
    notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True)
    assert own.build_id is not None
    assert own.build_id in notes.stdout
    (mapping,) = [each for each in target.mappings if each.start == own.start]
    assert (own.pid, own.end, own.offset) == (sleeper.pid, mapping.end, mapping.file_offset)
    (vdso,) = [each for each in found if each.path == "[vdso]"]
    assert vdso.build_id
