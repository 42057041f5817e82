"""The list of processes: read from a /proc made by hand, and from the real one."""

import os
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leaktop import processes
from leaktop.candidates import Process
from leaktop.processes import (
    WINDOW_S,
    ProcessSampler,
    UserNames,
    growth_a_minute,
    is_still_there,
)

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS_S = os.sysconf("SC_CLK_TCK")
MINUTE = 60.0


class FakeProc:
    """A folder that looks like /proc, and the time since boot."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0
        self.reads: list[str] = []
        (root / "self").mkdir()
        (root / "meminfo").write_text("MemTotal:  2000 kB\nMemAvailable:  500 kB\nHuge: 3\n")

    def put(
        self,
        pid: int,
        pages: int,
        *,
        comm: str = "leaky",
        command: bytes = b"/opt/app/leaky\0--fast\0",
        uid: int = 0,
        started: float = 400.0,
        state: str = "S",
        flags: int = 4194304,
    ) -> None:
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        fields = ["0"] * 49
        fields[0], fields[6] = state, str(flags)
        fields[17], fields[19], fields[21] = "3", str(int(started * TICKS_S)), str(pages)
        (folder / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")
        (folder / "cmdline").write_bytes(command)
        (folder / "status").write_text(f"Name:\t{comm}\nUid:\t1\t{uid}\t1\t1\n")

    def end(self, pid: int) -> None:
        for file in (self.root / str(pid)).iterdir():
            file.unlink()
        (self.root / str(pid)).rmdir()

    def sampler(self, monkeypatch: pytest.MonkeyPatch) -> ProcessSampler:
        sampler = ProcessSampler(self.root, clock=lambda: self.now, user_name=lambda uid: f"u{uid}")
        text = sampler._text

        def noted(name: str) -> str | None:
            self.reads.append(name)
            return text(name)

        monkeypatch.setattr(sampler, "_text", noted)
        return sampler


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def read(sampler: ProcessSampler) -> dict[int, Process]:
    return {process.pid: process for process in sampler.read().processes}


def test_what_is_known_of_a_process(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.put(7, 100, uid=33)
    sampler = proc.sampler(monkeypatch)
    listing = sampler.read()
    assert (listing.memory_total, listing.memory_available) == (2000 * 1024, 500 * 1024)
    (process,) = listing.processes
    assert process == Process(
        pid=7,
        start_time=400 * TICKS_S,
        comm="leaky",
        rss=100 * PAGE,
        threads=3,
        user="u33",
        command="leaky --fast",
        folder="/opt/app/",
        age_s=600.0,
        growth=None,
        span_s=0.0,
        trend=array("q", [100 * PAGE]),
    )


def test_growth_is_that_of_a_minute(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = proc.sampler(monkeypatch)
    for second in range(200):
        proc.now = 1000.0 + second
        proc.put(7, 100 + 2 * second)
        proc.put(8, 100 + 50 * (second < 100))
        found = read(sampler)
        if second == 0:
            assert found[7].growth is None
        else:
            assert found[7].growth == pytest.approx(120 * PAGE)
    assert found[7].span_s == WINDOW_S
    assert list(found[7].trend) == [(100 + 2 * s) * PAGE for s in range(139, 200)]
    # What was before the window is forgotten.
    assert found[8].growth == 0.0


def test_history_is_bounded_however_often_it_is_read(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = proc.sampler(monkeypatch)
    for _ in range(300):
        proc.now += 0.01
        proc.put(7, 100)
        found = read(sampler)
    assert len(found[7].trend) == 64


def test_a_number_that_passes_on_begins_anew(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = proc.sampler(monkeypatch)
    proc.put(7, 100)
    before = read(sampler)[7]
    proc.now += 1
    proc.put(7, 900, started=1000.5, comm="other", command=b"other\0")
    after = read(sampler)[7]
    assert before.key != after.key
    assert after.growth is None
    assert after.command == "other"


def test_exec_is_noticed(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = proc.sampler(monkeypatch)
    proc.put(7, 100)
    read(sampler)
    proc.put(7, 100, comm="new", command=b"/usr/bin/new\0", uid=5)
    process = read(sampler)[7]
    assert (process.comm, process.command, process.user) == ("new", "new", "u5")


def test_a_title_and_a_user_that_change_are_noticed_in_time(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = proc.sampler(monkeypatch)
    proc.put(7, 100, comm="nginx", command=b"nginx: starting\0")
    assert read(sampler)[7].command == "nginx: starting"
    proc.put(7, 100, comm="nginx", command=b"nginx: worker process\0", uid=33)
    for _ in range(16):
        process = read(sampler)[7]
    assert (process.command, process.user) == ("nginx: worker process", "u33")


def test_who_is_left_out(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.put(2, 0, comm="kthreadd", flags=0x00208040)
    proc.put(8, 0, state="Z")
    proc.put(9, 5, state="R")
    proc.put(os.getpid(), 5)
    sampler = proc.sampler(monkeypatch)
    assert set(read(sampler)) == {9}
    # A kernel thread is not looked at each time, but its number may pass on.
    proc.reads.clear()
    read(sampler)
    assert "2/stat" not in proc.reads
    proc.put(2, 50, started=999.0)
    for _ in range(16):
        found = read(sampler)
    assert set(found) == {2, 9}


def test_what_ends_is_gone(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.put(7, 100)
    proc.put(8, 100)
    sampler = proc.sampler(monkeypatch)
    assert set(read(sampler)) == {7, 8}
    proc.end(7)
    assert set(read(sampler)) == {8}
    # In the middle of a reading: listed, but gone when it is looked at.
    (proc.root / "8" / "stat").unlink()
    assert read(sampler) == {}


def test_one_file_a_process(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = proc.sampler(monkeypatch)
    for pid in range(100, 150):
        proc.put(pid, 10)
    read(sampler)
    proc.reads.clear()
    for _ in range(16):
        read(sampler)
    stats = [name for name in proc.reads if name.endswith("/stat")]
    assert len(stats) == 16 * 50
    # Command lines and users once in sixteen readings.
    assert len(proc.reads) - len(stats) == 16 + 2 * 50


def test_what_is_not_reached_in_time_comes_first_next_time(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in range(100, 110):
        proc.put(pid, 10)
    sampler = proc.sampler(monkeypatch)
    moments = iter(range(1000))
    # Each look at the clock is a second: there is time for four processes, and to describe one.
    monkeypatch.setattr(processes, "READ_S", 6.0)
    monkeypatch.setattr("leaktop.processes.time.perf_counter", lambda: float(next(moments)))
    assert set(read(sampler)) == set(range(100, 104))
    assert set(read(sampler)) == set(range(100, 108))
    assert set(read(sampler)) == set(range(100, 110))
    for _ in range(10):
        found = read(sampler)
    assert all(process.command for process in found.values())


@pytest.mark.parametrize(
    ("cmdline", "folder", "command"),
    [
        (b"", "", ""),
        (b"\0\0", "", ""),
        (b"/usr/bin/python3\0-m\0http.server\0", "/usr/bin/", "python3 -m http.server"),
        (b"postgres: checkpointer \0\0\0\0", "", "postgres: checkpointer"),
        (b"/usr/sbin/sshd -D [listener]\0", "", "/usr/sbin/sshd -D [listener]"),
        (b"./a.out\0", "", "./a.out"),
        (b"\xff\xfe\x1b[31m\0x", "", "\udcff\udcfe\x1b[31m x"),
    ],
)
def test_command_lines(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch, cmdline: bytes, folder: str, command: str
) -> None:
    proc.put(7, 1, command=cmdline)
    process = read(proc.sampler(monkeypatch))[7]
    assert (process.folder, process.command) == (folder, command)


def test_what_may_not_be_read_is_left_empty(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.put(7, 1)
    (proc.root / "7" / "cmdline").unlink()
    (proc.root / "7" / "status").unlink()
    (proc.root / "meminfo").unlink()
    sampler = proc.sampler(monkeypatch)
    listing = sampler.read()
    (process,) = listing.processes
    assert (process.user, process.command, process.comm) == ("", "", "leaky")
    assert listing.memory_total == 0


def test_no_proc_at_all(tmp_path: Path) -> None:
    assert ProcessSampler(tmp_path / "none").read().processes == []


@pytest.mark.parametrize(
    ("times", "sizes", "growth"),
    [
        ([], [], None),
        ([5.0], [1], None),
        ([5.0, 5.0], [1, 2], None),
        ([5.0, 6.0], [0, 10], 600.0),
        ([0.0, 1.0, 2.0, 3.0], [7, 7, 7, 7], 0.0),
        ([0.0, 30.0, 60.0], [300, 200, 100], -200.0),
        # A gap, as after a trace: the moments count, not how many there are.
        ([0.0, 1.0, 50.0], [0, 10, 500], 600.0),
    ],
)
def test_slope(times: list[float], sizes: list[int], growth: float | None) -> None:
    found = growth_a_minute(array("d", times), array("q", sizes))
    assert found == (None if growth is None else pytest.approx(growth))


@contextmanager
def child(*code: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", *code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_real_process() -> None:
    code = "import sys; print(flush=True); sys.stdin.readline(); x = b'x' * (64 << 20); "
    code += "print(flush=True); sys.stdin.readline()"
    sampler = ProcessSampler()
    with child(code, "an argument") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = read(sampler)[process.pid]
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        after = read(sampler)[process.pid]
        assert before.growth is None
        assert after.rss - before.rss > 60 << 20
        assert after.growth is not None
        assert after.growth > 60 << 20
        assert after.command.endswith("an argument")
        assert after.folder.endswith("/")
        assert 0 <= before.age_s <= after.age_s < 3600
        assert is_still_there(after)
        assert not is_still_there(Process(process.pid, after.start_time - 1, "", 0))
        process.kill()
        process.wait()
        assert not is_still_there(after)
        assert process.pid not in read(sampler)
    assert os.getpid() not in read(sampler)


def test_users_have_names_once_they_are_known() -> None:
    gate, asked = threading.Event(), []

    def look_up(uid: int) -> str:
        gate.wait()
        asked.append(uid)
        if uid == 7:
            raise KeyError
        return f"user{uid}"

    names = UserNames(look_up)
    assert [names.name(uid) for uid in (7, 5, 5)] == ["7", "5", "5"]
    gate.set()
    wait_for(lambda: names.name(5) == "user5")
    assert names.name(7) == "7"
    assert asked == [7, 5]


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.002)
