"""A recording on the screen: the time line and its keys, and recording by a key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from leaktop import player
from leaktop.app import LeaktopApp
from leaktop.excerpt import Reader
from leaktop.history import History
from leaktop.judge import Judge
from leaktop.model import Filters, Snapshot
from leaktop.screens.detail import DetailScreen
from leaktop.source.blocks import RecordingError
from leaktop.source.recording import Header, RecordingWriter
from leaktop.source.replay import ReplaySource
from leaktop.source.timeline import Playback
from leaktop.widgets.status_bar import Stage
from tests.ui.driving import NEVER, Driver, driving
from tests.ui.scripted import (
    LEAK,
    LINES,
    MEMORY,
    NAMES,
    START_NS,
    TARGET,
    TRACING,
    detail,
    leaky_source,
    sites_at,
    snapshot,
)

SECONDS = 200


@pytest.fixture(autouse=True)
def _plays_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "_gap_s", lambda _: NEVER)


@pytest.fixture(scope="module")
def shots() -> list[Snapshot]:
    return [
        snapshot(
            float(second),
            sites_at(second),
            lost={"truncated": 7 if second > 150 else 0},
            note="it exited" if second == SECONDS else None,
        )
        for second in range(1, SECONDS + 1)
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, shots: list[Snapshot]) -> Path:
    file = tmp_path_factory.mktemp("recordings") / "r.leaktop"
    out = RecordingWriter(file, file.open("xb"), Header(TARGET, 0), 1 << 30)
    out.tell(tracing=TRACING, memory=MEMORY, problems={"libunknown.so.1": "stripped"})
    for number, each in enumerate(shots):
        out.snapshot(each)
        if number == 1:
            out.names(NAMES, lines=False)
            out.names(LINES, lines=True)
        if number == 20:
            out.detail(replace(detail(LEAK), time_ns=START_NS + 60 * 10**9))
    out.end("enough")
    return file


@asynccontextmanager
async def replaying(path: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Driver]:
    source = ReplaySource(path)
    app = LeaktopApp(source, filters=Filters(), play=partial(player.Player, source))
    async with app.run_test(size=size) as pilot:
        driver = Driver(app, source, pilot)  # type: ignore[arg-type]
        await at(driver, 0)
        await driver.named()
        yield driver


def playback(driver: Driver) -> Playback:
    found = driver.app.session.status.playback
    assert found is not None
    return found


async def at(driver: Driver, number: int) -> None:
    """Wait until a snapshot is shown, and nothing else."""

    def there() -> bool:
        reading = driver.app.session.status.reading
        here = playback(driver)
        return (
            here.number == number
            and reading is not None
            and reading.snapshot.elapsed_s == here.ticks[number].elapsed_s
        )

    await driver.until(there)


async def test_steps_jumps_and_ends(path: Path, shots: list[Snapshot]) -> None:
    async with replaying(path) as driver:
        for keys, number in (
            (["right"], 1),
            (["right_square_bracket"], 61),
            (["full_stop", "full_stop", "full_stop"], 64),
            (["left"], 63),
            (["left_square_bracket"], 3),
            (["left_square_bracket"], 0),
            (["left"], 0),
            (["right_curly_bracket"], SECONDS - 1),
            (["right", "comma"], SECONDS - 2),
            (["left_curly_bracket"], 0),
        ):
            await driver.press(*keys)
            await at(driver, number)
            reading = driver.app.session.status.reading
            assert reading is not None
            assert reading.snapshot == shots[number]


async def test_figures_after_a_jump_are_as_if_all_had_been_played(
    path: Path, shots: list[Snapshot]
) -> None:
    history, judge = History(), Judge()
    played = [judge.of(history.add(each)) for each in shots]
    async with replaying(path) as driver:
        for key, number in (
            ("right_curly_bracket", SECONDS - 1),
            ("left_square_bracket", SECONDS - 61),
            ("right", SECONDS - 60),
            ("left_square_bracket", SECONDS - 120),
        ):
            await driver.press(key)
            await at(driver, number)
            reading = driver.app.session.status.reading
            assert reading is not None
            assert (reading.rates, reading.growth) == (played[number].rates, played[number].growth)
            assert dict(reading.verdicts) == dict(played[number].verdicts)


def test_a_jump_is_made_in_bounds_of_time(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(player, "_ROWS_AGAIN", 100)
    ticks = ReplaySource(path).ticks
    # never less than what growth needs
    assert player._first_needed(ticks, 150) == 130
    monkeypatch.setattr(player, "_ROWS_AGAIN", 80 * 8)
    assert player._first_needed(ticks, 150) == 70
    assert player._first_needed(ticks, 0) == 0


async def test_it_plays_by_itself_to_its_end_and_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replaying(path) as driver:
        assert playback(driver).playing
        await driver.press("space")
        await driver.until(lambda: not playback(driver).playing)
        assert "paused" in driver.text()
        monkeypatch.setattr(player, "_gap_s", lambda _: 0.0)
        await driver.press("x", "space")
        await at(driver, SECONDS - 1)
        assert playback(driver).speed == 4
        await driver.until(lambda: not playback(driver).playing)
        assert "at its end" in driver.text()
        monkeypatch.setattr(player, "_gap_s", lambda _: NEVER)
        await driver.press("p")
        await at(driver, 0)
        assert playback(driver).playing


def test_gaps_are_those_of_the_recording(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    ticks = ReplaySource(path).ticks
    assert player._gap_s(Playback(ticks)) == 1.0
    assert player._gap_s(Playback(ticks, speed=16)) == 1 / 16
    assert player._gap_s(Playback([ticks[0], ticks[100]])) == 3.0
    assert player._gap_s(Playback(ticks, SECONDS - 1)) == 0.0


async def test_what_the_screen_says(path: Path) -> None:
    async with replaying(path) as driver:
        await driver.press("right_square_bracket")
        await at(driver, 60)
        text = driver.text()
        assert "[replay]" in text
        assert "1m01s of 3m20s" in text
        assert "snapshot 61/200" in text
        assert "2026-01-31 12:01:01" in text
        assert "session_open" in text
        assert "!" in text.splitlines()[-3]  # something was lost there
        assert "Space play" in text
        await driver.press("right_curly_bracket")
        await at(driver, SECONDS - 1)
        assert "GONE: it exited" in driver.text()
        assert driver.app.session.status.stage is Stage.GONE
        await driver.press("left")
        await at(driver, SECONDS - 2)
        assert "GONE" not in driver.text()
        assert "truncated 7" in driver.text()


async def test_a_stack_of_a_recording(path: Path) -> None:
    async with replaying(path, size=(120, 40)) as driver:
        await driver.press("right_square_bracket", "right_square_bracket")
        await at(driver, 120)
        while driver.selected != LEAK:
            await driver.press("down")
        await driver.press("enter")
        screen = driver.app.screen
        assert isinstance(screen, DetailScreen)
        await driver.until(lambda: screen.has_detail and bool(screen._lines))
        text = driver.text()
        assert "session.c:88" in text
        assert "1m01s ago" in text
        await driver.press("full_stop")
        await at(driver, 121)
        assert driver.app.screen is screen
        await driver.press("left_curly_bracket")
        await driver.until(lambda: "not recorded by then" in driver.text())
        assert " ago" not in driver.text()
        await driver.press("a")
        await driver.until(lambda: "a recording has no single blocks" in driver.text())
        await driver.press("l")
        await driver.until(lambda: "a recording has no single blocks" in driver.text())


async def test_what_was_not_traced_cannot_be_had(path: Path) -> None:
    async with replaying(path) as driver:
        await driver.press("plus")
        await driver.until(lambda: "a recording has only what was traced then" in driver.text())
        await driver.press("R")
        await driver.until(lambda: "this is a recording" in driver.text())


async def test_a_damaged_one_shows_what_is_before_that(
    path: Path, tmp_path: Path, shots: list[Snapshot]
) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    async with replaying(tmp_path / "damaged", size=(120, 24)) as driver:
        await driver.until(lambda: "it is damaged at byte" in driver.text())
        await driver.press("right_curly_bracket")
        last = len(playback(driver).ticks) - 1
        assert 0 < last < SECONDS - 1
        await at(driver, last)
        reading = driver.app.session.status.reading
        assert reading is not None
        assert reading.snapshot == shots[last]


async def test_a_part_that_nothing_can_be_made_of_ends_it(path: Path) -> None:
    async with replaying(path) as driver:
        source = driver.source
        assert isinstance(source, ReplaySource)
        moment = source._recording.moment

        def hostile(number: int) -> object:
            if number >= 50:
                raise RecordingError("the recording says what cannot be")
            return moment(number)

        source._recording.moment = hostile  # type: ignore[method-assign, assignment]
        await driver.press("right_square_bracket")
        await driver.until(lambda: playback(driver).number == 49)
        assert len(playback(driver).ticks) == 50
        assert playback(driver).damage == "the recording says what cannot be"


def test_source_files_are_read_with_nobody_elses_rights(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = player.Player(ReplaySource(path), lambda _: None).reader
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
    assert reader() is None
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    assert reader() == Reader(65534, 65534)


async def test_a_key_records_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with driving(leaky_source(), size=(160, 24)) as driver:
        await driver.press("R")
        await driver.until(lambda: "REC " in driver.text())
        await driver.tick()
        await driver.press("R")
        await driver.until(lambda: "recorded 1 snapshot, " in driver.text())
        assert "REC " not in driver.text()
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("leaktop-leaky-4242-")
    source = ReplaySource(file)
    assert source.damage is None
    assert source.snapshot().sites == tuple(sites_at(60))


async def test_quitting_ends_a_recording_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with driving(leaky_source()) as driver:
        await driver.press("R")
        await driver.until(lambda: "REC " in driver.text())
        await driver.tick()
        await driver.press("q")
    (file,) = tmp_path.iterdir()
    source = ReplaySource(file)
    assert source.damage is None
    source.snapshot()
    assert source.resolve([LEAK], lines=True) == {LEAK: LINES[LEAK]}


async def test_a_recording_that_cannot_be_made_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    async with driving(leaky_source(), size=(160, 24)) as driver:
        await driver.press("R")
        await driver.until(lambda: "! not recorded: " in driver.text())
