"""The source that records another one: all that was said is in the file, whatever ends it."""

import resource
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from leaktop import recorder as recorder_module
from leaktop.model import RECORDING_BYTES, Frame, StackDetail, Target
from leaktop.recorder import Recorded, Recorder, file_name, how_it_goes
from leaktop.source import SourceError
from leaktop.source.replay import ReplaySource
from tests.ui.scripted import (
    BARE,
    CACHE,
    LEAK,
    LINES,
    MEMORY,
    NAMES,
    TRACING,
    UNNAMED,
    ScriptedSource,
    detail,
    many_sites,
    sites_at,
    snapshot,
)


class Told:
    """Takes what a recorder tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[Recorded] = []
        self._came = threading.Condition()

    def __call__(self, recorded: Recorded) -> None:
        with self._came:
            self.all.append(recorded)
            self._came.notify_all()

    def wait(self, condition: Callable[[Recorded], bool]) -> Recorded:
        with self._came:
            assert self._came.wait_for(lambda: any(map(condition, self.all)), timeout=60)
            return next(filter(condition, self.all))


def source_of(seconds: int, **other: object) -> ScriptedSource:
    return ScriptedSource(
        [snapshot(float(second), sites_at(second)) for second in range(1, seconds + 1)],
        names=NAMES,
        lines=LINES,
        details={i: detail(i) for i in LINES},
        unnamed={"libunknown.so.1": "stripped"},
        **other,  # type: ignore[arg-type]
    )


def recorder_of(
    source: ScriptedSource, path: Path | None, limit: int = RECORDING_BYTES
) -> tuple[Recorder, Told]:
    told = Told()
    return Recorder(source, told, path=path, limit=limit), told


def test_a_whole_run(tmp_path: Path) -> None:
    source = source_of(40)
    recorder, told = recorder_of(source, tmp_path / "r")
    recorder.start(lambda _: None)
    shots = [recorder.snapshot() for _ in range(40)]
    assert recorder.resolve([LEAK], lines=True) == {LEAK: LINES[LEAK]}
    recorder.close()
    assert source.closed == 1
    last = told.all[-1]
    assert (last.snapshots, last.why_ended, last.failed) == (40, "leaktop was ended", False)
    assert last.size == (tmp_path / "r").stat().st_size
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600

    replay = ReplaySource(tmp_path / "r")
    assert replay.target == source.target
    assert replay.damage is None
    assert [replay.snapshot() for _ in range(40)] == shots
    # also what nobody asked for
    assert replay.resolve(NAMES, lines=False) == NAMES
    assert replay.resolve(LINES, lines=True) == LINES
    assert replay.resolve([UNNAMED], lines=False) == {}
    assert replay.tracing == TRACING
    assert replay.memory() == MEMORY
    assert list(replay.mappings()) == list(source.mappings())
    assert replay.problems() == source.unnamed
    assert replay.detail(LEAK) == detail(LEAK)


def test_ages_are_looked_at_by_the_thread_that_reads_ticks(tmp_path: Path) -> None:
    source = source_of(3)
    recorder, _ = recorder_of(source, tmp_path / "r")
    recorder.start(lambda _: None)
    for _ in range(3):
        recorder.snapshot()
    recorder.close()
    here = threading.get_ident()
    for name in ("snapshot", "detail", "memory"):
        assert source.threads[name] == {here}


def test_names_are_asked_for_by_one_thread_at_a_time(tmp_path: Path) -> None:
    source = source_of(2)
    inside = threading.Semaphore(1)
    resolve = source.resolve

    def alone(stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        assert inside.acquire(blocking=False)
        try:
            return resolve(stack_ids, lines=lines)
        finally:
            inside.release()

    source.resolve = alone  # type: ignore[method-assign]
    recorder, _ = recorder_of(source, tmp_path / "r")
    recorder.start(lambda _: None)
    recorder.snapshot()
    for _ in range(200):
        recorder.resolve([CACHE], lines=True)
    recorder.close()
    replay = ReplaySource(tmp_path / "r")
    assert replay.resolve(LINES, lines=True) == LINES


def test_nothing_is_written_where_nothing_was_asked_for() -> None:
    source = source_of(2)
    recorder, told = recorder_of(source, None)
    recorder.start(lambda _: None)
    recorder.snapshot()
    recorder.close()
    assert told.all == []
    assert "detail" not in source.threads
    assert not recorder.recording


def test_a_key_begins_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorder, told = recorder_of(source_of(9), None)
    recorder.start(lambda _: None)
    recorder.snapshot()
    recorder.toggle()
    told.wait(lambda each: True)
    second = recorder.snapshot()
    recorder.toggle()
    ended = told.wait(lambda each: each.why_ended is not None)
    assert not recorder.recording
    assert (ended.snapshots, ended.failed) == (1, False)
    assert "recorded 1 snapshot, " in how_it_goes(ended)
    recorder.snapshot()
    recorder.close()
    assert ReplaySource(ended.path).snapshot() == second
    assert [each.name for each in tmp_path.iterdir()] == [ended.path.name]


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "cron")
    for each in (path, tmp_path / "link", tmp_path / "dangling"):
        source = source_of(1)
        recorder, _ = recorder_of(source, each)
        with pytest.raises(SourceError, match="exists, and recordings replace nothing"):
            recorder.start(lambda _: None)
        assert "start" not in source.threads  # nothing was attached
        recorder.close()
    assert path.read_bytes() == b"mine"
    assert not (tmp_path / "cron").exists()


def test_no_such_folder(tmp_path: Path) -> None:
    recorder, _ = recorder_of(source_of(1), tmp_path / "not" / "r")
    with pytest.raises(SourceError, match="No such file or directory"):
        recorder.start(lambda _: None)


def test_where_tracing_cannot_begin_no_file_stays(tmp_path: Path) -> None:
    source = source_of(1)
    source.failures["start"] = SourceError("no")
    recorder, _ = recorder_of(source, tmp_path / "r")
    with pytest.raises(SourceError, match=r"^no$"):
        recorder.start(lambda _: None)
    recorder.close()
    assert not (tmp_path / "r").exists()


def test_tracing_goes_on_where_the_limit_or_the_disk_ends_the_recording(tmp_path: Path) -> None:
    sites = [snapshot(float(second), many_sites(200, second)) for second in range(1, 60)]
    recorder, told = recorder_of(ScriptedSource(sites), tmp_path / "limited", 12_000)
    recorder.start(lambda _: None)
    shots = [recorder.snapshot() for _ in range(59)]
    ended = told.wait(lambda each: each.why_ended is not None)
    assert ended.failed
    assert "and no more: it has reached --record-limit" in how_it_goes(ended)
    recorder.close()
    replay = ReplaySource(tmp_path / "limited")
    assert replay.damage is None
    assert len(replay.ticks) == ended.snapshots < 59
    assert [replay.snapshot() for _ in replay.ticks] == shots[: ended.snapshots]

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder, told = recorder_of(ScriptedSource(sites), tmp_path / "full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        recorder.start(lambda _: None)
        shots = [recorder.snapshot() for _ in range(59)]
        ended = told.wait(lambda each: each.why_ended is not None)
        recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended.failed
    assert "takes no more: File too large" in how_it_goes(ended)
    replay = ReplaySource(tmp_path / "full")
    assert [replay.snapshot() for _ in replay.ticks] == shots[: len(replay.ticks)]


def test_a_disk_that_stands_still_costs_snapshots_that_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(recorder_module, "_QUEUED", 4)
    source = source_of(30)
    source.gates["resolve"].shut()  # holds the thread that writes
    recorder, told = recorder_of(source, tmp_path / "r")
    recorder.start(lambda _: None)
    recorder.snapshot()
    source.gates["resolve"].reached.wait(60)
    for _ in range(29):
        recorder.snapshot()
    source.gates["resolve"].open()
    recorder.close()
    last = told.all[-1]
    assert last.missed > 0
    assert last.snapshots + last.missed == 30
    assert f"{last.missed} are missing: the disk was too slow" in how_it_goes(last)


def test_a_source_that_raises_where_it_may_not_is_no_end(tmp_path: Path) -> None:
    source = source_of(3)
    source.failures["resolve"] = RuntimeError("broken")
    source.failures["detail"] = SourceError("gone")
    recorder, told = recorder_of(source, tmp_path / "r")
    recorder.start(lambda _: None)
    for _ in range(3):
        recorder.snapshot()
    recorder.close()
    assert told.all[-1].snapshots == 3
    replay = ReplaySource(tmp_path / "r")
    replay.seek(2)
    replay.snapshot()
    assert replay.resolve([UNNAMED], lines=True) == {}
    assert replay.snapshot().sites[-2].frames == BARE


def test_the_last_word_of_a_target_ends_it(tmp_path: Path) -> None:
    source = ScriptedSource([snapshot(1.0, sites_at(1), note="it exited")])
    recorder, told = recorder_of(source, tmp_path / "r")
    recorder.start(lambda _: None)
    recorder.snapshot()
    recorder.close()
    assert told.all[-1].why_ended == "it exited"


def test_a_detail_that_is_looked_at_is_recorded(tmp_path: Path) -> None:
    source = source_of(1)
    recorder, _ = recorder_of(source, tmp_path / "r")
    recorder.start(lambda _: None)
    recorder.snapshot()
    seen: StackDetail = recorder.detail(CACHE)
    recorder.close()
    replay = ReplaySource(tmp_path / "r")
    replay.snapshot()
    assert replay.detail(CACHE) == seen


def test_a_name_for_the_file_is_harmless() -> None:
    name = file_name(Target(7, "../../etc/\x1b[2J passwd\udcff"))
    assert name.startswith("leaktop-_etc_2J_passwd_-7-")
    assert name.endswith(".leaktop")
    assert "/" not in name
