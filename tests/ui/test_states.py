"""What the screen says as tracing starts, loses, fails and ends."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from leaktop import excerpt
from leaktop.app import LeaktopApp
from leaktop.model import Filters, Refusal
from leaktop.screens.main import MainScreen
from leaktop.screens.too_small import TooSmallScreen
from leaktop.source import SourceError
from leaktop.widgets.status_bar import Stage
from tests.ui.driving import driving
from tests.ui.scripted import CACHE, LEAK, LINES, leaky_source, sites_at, snapshot

GONE = "leaky (4242) exited after 61 s"


async def test_nothing_is_attached_before_the_first_paint() -> None:
    source = leaky_source()
    painted_first: list[bool] = []
    start = source.start

    def watched(progress: object) -> None:
        painted_first.append(app._driver is not None and app._dom_ready)
        start(progress)  # type: ignore[arg-type]

    source.start = watched  # type: ignore[method-assign]
    app = LeaktopApp(source, filters=Filters())
    async with app.run_test():
        while not painted_first:
            await asyncio.sleep(0.002)
    assert painted_first == [True]


async def test_attaching_shows_progress() -> None:
    source = leaky_source()
    source.gates["start"].shut()
    async with driving(source, ticked=False) as driver:
        await driver.until(source.gates["start"].reached.is_set)
        await driver.until(lambda: driver.app.session.status.progress == "attaching 13 functions")
        text = driver.text()
        assert "[attaching]" in text
        assert "attaching 13 functions ..." in text
        source.gates["start"].open()
        await driver.traced()
        assert "waiting for the first snapshot" in driver.text()


@pytest.mark.parametrize("before", [[], ["enter"], ["question_mark"]])
async def test_it_ends_after_as_many_snapshots_as_wanted(before: list[str]) -> None:
    source = leaky_source()
    source.snapshots = [snapshot(float(t), sites_at(t)) for t in (60, 61, 62)]
    async with driving(source, iterations=3) as driver:
        await driver.press(*before)
        await driver.tick()
        assert driver.app.is_running
        driver.app.session.collector.tick_now()
        await driver.until(lambda: not driver.app.is_running)
        # The last one was on the screen.
        reading = driver.app.session.status.reading
        assert reading is not None
        assert reading.snapshot.elapsed_s == 62.0
    assert driver.app.return_value == 0
    assert (source.played, source.closed) == (3, 1)


async def test_snapshots_that_a_pause_hides_do_not_count() -> None:
    async with driving(leaky_source(), iterations=2) as driver:
        await driver.press("space")
        for _ in range(3):
            await driver.tick()
        assert driver.app.is_running
        await driver.pilot.press("space")
        await driver.until(lambda: not driver.app.is_running)
    assert driver.app.return_value == 0


@pytest.mark.parametrize("code", [1, 3, 4])
async def test_failing_to_start_ends_with_the_code_and_the_message(code: int) -> None:
    source = leaky_source()
    source.failures["start"] = SourceError("no process 4242: see ps -e", code)
    async with driving(source, ticked=False) as driver:
        await driver.until(lambda: not driver.app.is_running)
    assert driver.app.return_value == code
    assert driver.app.failure == "no process 4242: see ps -e"
    assert source.closed == 1


async def test_a_bug_in_the_source_is_no_traceback() -> None:
    source = leaky_source()
    source.failures["start"] = ZeroDivisionError("x")
    async with driving(source, ticked=False) as driver:
        await driver.until(lambda: not driver.app.is_running)
    assert driver.app.return_value == 1
    assert driver.app.failure == "internal error (ZeroDivisionError: x); please report it"


async def test_failing_while_running_keeps_what_was_there() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        source.failures["snapshot"] = SourceError("the ring buffer is gone")
        driver.app.session.collector.tick_now()
        await driver.until(lambda: driver.app.session.status.stage is Stage.FAILED)
        text = driver.text()
        assert "[FAILED]" in text
        assert "! FAILED: the ring buffer is gone" in text
        assert "cache_put" in text
        await driver.press("j", "enter")
        await driver.until(lambda: "tracing failed" in driver.text())
        await driver.press("escape", "plus")
        assert "not changed: the target is no longer traced" in driver.text()
        await driver.pilot.press("q")
        await driver.until(lambda: not driver.app.is_running)
    assert driver.app.return_value == 1
    assert driver.app.failure == "the ring buffer is gone"


async def test_a_target_that_is_gone_stays_explorable() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(61.0, sites_at(61), note=GONE)]
    async with driving(source) as driver:
        await driver.press("j")
        await driver.opened()
        await driver.tick()
        await driver.until(lambda: driver.app.session.status.stage is Stage.GONE)
        text = driver.text()
        assert f"! GONE: {GONE}" in text
        assert "[TARGET GONE]" in text
        assert "inlined: note_new" in text
        assert "10s-30s" in text

        # No more ticks, yet what was open before can be opened again, and others too.
        played = source.played
        del source.details[LEAK]
        await driver.press("escape", "enter")
        assert "10s-30s" in driver.text()
        await driver.press("escape", "g")
        assert (await driver.opened()).site.stack_id == CACHE
        await driver.press("escape", "slash", *"parse", "enter", "s", "r")
        assert "parse_header" in driver.text()
        driver.app.session.collector.tick_now()
        await driver.press("plus")
        assert source.played == played
        assert source.applied == []
        await driver.pilot.press("q")
        await driver.until(lambda: not driver.app.is_running)
    assert driver.app.return_value == 0


async def test_a_target_that_goes_while_paused_says_so() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(61.0, [], note=GONE)]
    async with driving(source) as driver:
        await driver.press("space")
        await driver.tick()
        await driver.until(lambda: driver.app.session.status.stage is Stage.GONE)
        assert GONE in driver.text()
        assert "cache_put" in driver.text()
        await driver.press("space")
        assert "cache_put" not in driver.text()


async def test_what_is_not_traced_is_said_with_what_is_wrong_without_it() -> None:
    one = Refusal("free", "libc\x1b.so.6", "Invalid argument", "what it frees looks held")
    other = Refusal("munmap", "libc.so.6", "Invalid argument", "what it unmaps looks held")
    source = leaky_source(refusals=(one,))
    async with driving(source) as driver:
        said = "! NOT TRACED (see ?): free in libc?.so.6: what it frees looks held"
        assert said in driver.text()
        source.snapshots.append(snapshot(61.0, sites_at(61), refusals=(one, other)))
        await driver.tick()
        said = "! NOT TRACED (see ?): free in libc?.so.6, munmap in libc.so.6: figures are wrong"
        assert said[:78] in driver.text()


async def test_losses_are_named_and_counted() -> None:
    lost = {"truncated": 12, "stacks_full": 0, "missed_frees": 3}
    async with driving(leaky_source(lost=lost)) as driver:
        assert "! LOST (see ?): truncated 12, missed_frees 3" in driver.text()
        assert "stacks_full" not in driver.text()


async def test_estimates_are_marked() -> None:
    async with driving(leaky_source(estimated=True)) as driver:
        text = driver.text()
        assert "~12.0M" in text
        assert "held ~13.5M" in text
        await driver.opened()
        assert "~2400" in driver.text()


async def test_filters_that_are_refused_stay_as_they_were() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        source.failures["apply"] = SourceError("the map is read-only")
        await driver.press("plus")
        await driver.until(lambda: "not changed: the map is read-only" in driver.text())
        assert "sample all" in driver.text()


async def test_a_stack_that_vanishes_while_open_says_so() -> None:
    source = leaky_source()
    rest = [s for s in sites_at(61) if s.stack_id != LEAK]
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(61.0, rest)]
    async with driving(source) as driver:
        await driver.press("j")
        await driver.opened()
        await driver.tick()
        assert "holds nothing now; it held" in driver.text()
        assert "session_open" in driver.text()


async def test_detail_that_cannot_be_read_says_why() -> None:
    source = leaky_source()
    source.details.clear()
    async with driving(source) as driver:
        await driver.press("j", "enter")
        await driver.until(lambda: "holds nothing" in driver.text())
        assert "session_open" in driver.text()


async def test_source_lines_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path.resolve() / "session.c"
    path.write_text("".join(f"line {n}\x1b[31m;\n" for n in range(1, 200)))
    reader = excerpt.Reader(os.getuid(), os.getgid())
    monkeypatch.setattr(excerpt.Reader, "of_process", classmethod(lambda *_: reader))
    source = leaky_source()
    source.lines = {
        LEAK: tuple(f if not f.line else replace(f, file=str(path)) for f in LINES[LEAK])
    }
    async with driving(source) as driver:
        await driver.press("j")
        await driver.opened()
        assert "▸   31 line 31?[31m;" in driver.text()
        await driver.press("j")
        assert "▸   88 line 88?[31m;" in driver.text()


async def test_too_small_until_enlarged_and_q_quits() -> None:
    async with driving(leaky_source()) as driver:
        await driver.pilot.resize_terminal(59, 24)
        await driver.until(lambda: isinstance(driver.app.screen, TooSmallScreen))
        assert "needs 60x12" in driver.text()
        await driver.press("question_mark", "enter", "plus", "space")
        assert isinstance(driver.app.screen, TooSmallScreen)
        assert driver.source.applied == []
        await driver.pilot.resize_terminal(60, 12)
        await driver.until(lambda: isinstance(driver.app.screen, MainScreen))
        assert "cache_put" in driver.text()
        await driver.pilot.resize_terminal(30, 5)
        await driver.until(lambda: isinstance(driver.app.screen, TooSmallScreen))
        await driver.pilot.press("q")
        await driver.until(lambda: not driver.app.is_running)


async def test_too_small_from_the_start() -> None:
    async with driving(leaky_source(), size=(40, 10), ticked=False) as driver:
        await driver.traced()
        await driver.tick(named=False)
        assert isinstance(driver.app.screen, TooSmallScreen)
        await driver.pilot.resize_terminal(80, 24)
        await driver.until(lambda: isinstance(driver.app.screen, MainScreen))
        await driver.named()
        assert "cache_put" in driver.text()


@pytest.mark.parametrize("keys", [[], ["enter"], ["question_mark"]])
async def test_resizing(keys: list[str]) -> None:
    async with driving(leaky_source()) as driver:
        await driver.press(*keys)
        for width, height in ((200, 50), (60, 12), (121, 36), (80, 24)):
            await driver.pilot.resize_terminal(width, height)
            compositor = driver.app.screen._compositor
            await driver.until(lambda c=compositor, s=(width, height): c.size == s)  # type: ignore[misc]
            lines = driver.text().split("\n")
            assert len(lines) == height
            assert {len(line) for line in lines} == {width}


async def test_ascii_shows_nothing_else() -> None:
    source = leaky_source(estimated=True, lost={"truncated": 2})
    for size in ((80, 24), (200, 50)):
        async with driving(source, size=size, ascii_only=True) as driver:
            for keys in ([], ["j"], ["slash", "x"], ["escape"], ["enter"], ["question_mark"]):
                await driver.press(*keys)
                assert driver.text().isascii()


async def test_no_color_sends_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with driving(leaky_source(lost={"truncated": 2})) as driver:
        for keys in ([], ["enter"], ["escape", "question_mark"]):
            await driver.press(*keys)
            strips = driver.app.screen._compositor.render_strips()
            colours = {
                colour.name
                for strip in strips
                for segment in strip
                if segment.style
                for colour in (segment.style.color, segment.style.bgcolor)
                if colour is not None
            }
            assert colours <= {"default"}
