"""A stack's live blocks, what is in one, and the log of what it does, by keys."""

from dataclasses import replace

from leaktop import ticking
from leaktop.screens.detail import DetailScreen
from leaktop.screens.main import MainScreen
from leaktop.single_blocks import EVENTS_MAX
from leaktop.source import SourceError
from leaktop.widgets.blocks import BlocksView, ContentView
from leaktop.widgets.log import KEPT, LogView
from tests.ui.driving import Driver, driving
from tests.ui.scripted import LEAK, happened, leaky_source, live_blocks, sites_at, snapshot


async def _listed(driver: Driver) -> BlocksView:
    await driver.press("j")
    screen = await driver.opened()
    assert screen.site.stack_id == LEAK
    await driver.press("a")
    return await _loaded(driver)


async def _loaded(driver: Driver) -> BlocksView:
    blocks = driver.app.screen.query_one(BlocksView)
    await driver.until(lambda: blocks.row_count > 0 and not blocks.lacks)
    return blocks


async def _logging(driver: Driver) -> LogView:
    await driver.press("j")
    await driver.opened()
    await driver.press("l")
    await driver.until(lambda: driver.source.logged == [LEAK])
    return driver.app.screen.query_one(LogView)


async def test_blocks_come_by_pages() -> None:
    source = leaky_source()
    source.held[LEAK] = everything = live_blocks(100_000)
    async with driving(source) as driver:
        blocks = await _listed(driver)
        assert f"{everything[0].address:#x}" in driver.text()
        assert "1-16/100000" in driver.text()
        for key, index in (("pagedown", 16), ("end", 99_999), ("pageup", 99_983), ("home", 0)):
            await driver.press(key)
            await _loaded(driver)
            assert blocks.index == index
            assert blocks.selected == everything[index]
            assert f"{everything[index].address:#x}" in driver.text()
        assert all(count <= 3 * blocks.page for _, _, count in source.pages_read)


async def test_selection_stays_on_its_block_while_others_go() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        blocks = await _listed(driver)
        await driver.press(*["down"] * 5)
        chosen = blocks.selected
        source.held[LEAK] = live_blocks(400)[3:]
        await driver.tick()
        await driver.until(lambda: blocks.row_count == 397)
        assert blocks.selected == chosen
        assert blocks.index == 2
        source.held[LEAK] = []
        await driver.tick()
        await driver.until(lambda: "nothing is held now" in driver.text())


async def test_enter_shows_what_is_in_a_block_and_escape_goes_back_step_by_step() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        await _listed(driver)
        await driver.press("down", "enter")
        await driver.until(lambda: "|GET /index.html |" in driver.text())
        assert "0020  1b 5b 33 31 6d" in driver.text()
        assert "\x1b" not in driver.text()
        await driver.press("escape")
        blocks = await _loaded(driver)
        assert blocks.index == 1
        before = len(source.pages_read)
        await driver.tick()  # the list is read again
        await driver.until(lambda: len(source.pages_read) > before)
        await driver.press("escape")
        assert "serve" in driver.text()
        assert isinstance(driver.app.screen, DetailScreen)
        before = len(source.pages_read)
        await driver.tick()  # and now no more
        assert len(source.pages_read) == before
        await driver.press("escape")
        assert isinstance(driver.app.screen, MainScreen)


async def test_what_cannot_be_read_says_why() -> None:
    source = leaky_source()
    source.content = {}
    async with driving(source) as driver:
        await _listed(driver)
        await driver.press("enter")
        await driver.until(lambda: "nothing can be read at 0x55d000001000" in driver.text())
        source.failures["blocks"] = SourceError("the kernel's map cannot be read: \x1b[2J")
        source.held = {}
        await driver.press("escape", "escape", "escape")
        await driver.press("j")
        await driver.opened()
        await driver.press("a")
        await driver.until(lambda: "the kernel's map cannot be read: ?[2J" in driver.text())


async def test_block_whose_process_is_gone_is_not_read() -> None:
    source = leaky_source()
    source.held[LEAK] = [replace(each, pid=None) for each in live_blocks(3)]
    async with driving(source) as driver:
        await _listed(driver)
        await driver.press("enter")
        await driver.until(lambda: "its process is no longer traced" in driver.text())
        assert "read_block" not in source.threads


async def test_log_follows_until_one_looks_back() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        log = await _logging(driver)
        assert "nothing yet" in driver.text()
        events = happened(60, LEAK)
        source.happened = events[:40]
        await driver.until(lambda: log.row_count == 40)
        assert f"{events[39].address:#x}" in driver.text().split("\n")[-2]
        await driver.press("up", "up")
        source.happened = events[40:]
        await driver.until(lambda: log.row_count == 80)
        assert log.index == 37
        assert f"{events[79].address:#x}" not in driver.text()
        await driver.press("G")
        assert f"{events[79].address:#x}" in driver.text().split("\n")[-2]
        assert "80 events" in driver.text()
        await driver.press("escape")
        await driver.until(lambda: source.logged == [LEAK, None])


async def test_log_stands_still_while_paused() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        log = await _logging(driver)
        source.happened = happened(10, LEAK)
        await driver.until(lambda: log.row_count == 14)
        await driver.press("space")
        source.happened = happened(10, LEAK)
        await driver.until(lambda: log._seen == 28)
        assert log.row_count == 14
        await driver.press("space")
        assert log.row_count == 28


async def test_a_flood_leaves_the_newest_and_what_was_lost_is_said() -> None:
    source = leaky_source()
    source.snapshots = [
        snapshot(60.0 + i, sites_at(60), lost={"events_dropped": lost})
        for i, lost in enumerate((5, 5, 12))
    ]
    async with driving(source) as driver:
        await driver.tick()
        log = await _logging(driver)
        flood = happened(9000, LEAK)
        assert len(flood) > EVENTS_MAX
        source.happened = list(flood)
        await driver.until(lambda: log._seen == len(flood))
        assert log.row_count == KEPT == ticking._LOG_LINES
        assert f"{flood[-1].address:#x}" in driver.text()
        await driver.tick()
        assert "12000, 7 lost" in driver.text()
        await driver.press("home")
        assert log._events[0] == flood[-KEPT]


async def test_log_that_cannot_be_had_says_why() -> None:
    source = leaky_source()
    source.failures["log"] = SourceError("no log here")
    async with driving(source) as driver:
        await driver.press("j")
        await driver.opened()
        await driver.press("l")
        await driver.until(lambda: "no log here" in driver.text())


async def test_leaving_the_stack_ends_its_log() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        await _logging(driver)
        await driver.press("a")
        await driver.until(lambda: source.logged[-1] is None)
        await driver.press("a", "l")
        await driver.until(lambda: source.logged[-1] == LEAK)
        await driver.press("l")
        assert "serve" in driver.text()
        await driver.until(lambda: source.logged[-1] is None)


async def test_nothing_of_it_is_done_on_the_screens_thread() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        await _listed(driver)
        await driver.press("enter")
        content = driver.app.screen.query_one(ContentView)
        await driver.until(lambda: "GET" in content.line(1).text)
        await driver.press("l")
        await driver.until(lambda: "events" in source.threads)
        for call in ("blocks", "read_block", "log", "events"):
            assert source.threads[call] == source.threads["snapshot"]
