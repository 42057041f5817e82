"""A mark, and what has changed since."""

from dataclasses import replace

from leaktop.marks import START
from leaktop.model import Growth
from tests.ui.driving import driving
from tests.ui.scripted import (
    CACHE,
    LEAK,
    LINES,
    STRINGS,
    ScriptedSource,
    leaky_source,
    site,
    sites_at,
    snapshot,
)

FRESH = 0xF4E5


def source() -> ScriptedSource:
    """Return a source whose leak grows; the strings go, and another stack comes."""
    played = leaky_source()
    new = site(FRESH, 100_000, 5, LINES[LEAK], oldest=3.0)
    later = [each for each in sites_at(70) if each.stack_id != STRINGS]
    played.snapshots = [snapshot(60.0, sites_at(60)), snapshot(70.0, [*later, new])]
    played.names = {**played.names, FRESH: played.names[LEAK]}
    return played


async def test_columns_show_the_change_since_the_mark() -> None:
    async with driving(source()) as driver:
        assert "since the" not in driver.text()
        await driver.press("m")
        assert "since the mark 0.0s ago: 0, 0 blocks; d: only what grew" in driver.text()
        assert "+BYTES▼  +BLOCKS" in driver.text()
        await driver.tick()
        text = driver.text()
        # The leak by 48 * 4000, the new stack by all of it, the churn by 512; without the strings.
        change = 48 * 4000 + 100_000 + (70 % 3 - 60 % 3) * 512 - 300_000
        assert (change, round(change / 1024, 2)) == (-7488, -7.31)
        assert "since the mark 10s ago: -7.31K, +2805 blocks, -749/s;" in text
        assert "    +188K    +4000" in text
        assert driver.order[:2] == [LEAK, FRESH]
        assert driver.order[-1] != STRINGS
        assert "intern" not in text
        await driver.press("s")
        assert "+BYTES +BLOCKS▼" in driver.text()
        assert driver.order[:2] == [LEAK, FRESH]
        await driver.press("M")
        assert "since the" not in driver.text()
        assert "  BYTES BLOCKS▼" in driver.text()


async def test_only_what_grew() -> None:
    async with driving(source()) as driver:
        await driver.press("m", "d")
        assert driver.order == []
        assert "nothing has grown since the mark (d shows all)" in driver.text()
        await driver.tick()
        assert driver.order == [LEAK, FRESH, 0xC4]
        assert "only what grew (d: all)" in driver.text()
        await driver.press("slash", *"parse", "enter")
        assert driver.order == [0xC4]
        await driver.press("escape", "d")
        assert CACHE in driver.order
        assert "d: only what grew" in driver.text()


async def test_without_a_mark_all_that_is_held_has_grown_since_the_start() -> None:
    async with driving(source()) as driver:
        await driver.press("d")
        assert driver.app.session.status.mark is START
        assert len(driver.order) == 7
        assert "since the start: +13.5M, +" in driver.text()
        await driver.press("d")
        assert driver.app.session.status.mark is None
        assert "since the" not in driver.text()


async def test_a_mark_is_set_on_what_is_shown() -> None:
    async with driving(source()) as driver:
        await driver.press("space")
        await driver.tick(named=False)
        await driver.press("m")
        assert "since the mark 0.0s ago: 0, 0 blocks" in driver.text()
        await driver.press("space")
        assert "since the mark 10s ago: -7.31K" in driver.text()


async def test_a_stack_says_how_it_changed() -> None:
    async with driving(source()) as driver:
        await driver.press("j", "m")
        await driver.opened()
        assert "since the mark 0 in 0 blocks" in driver.text()
        await driver.tick(named=False)
        assert " since the mark +188K in +4000 blocks  on average +18.8K/s" in driver.text()
        await driver.press("M")
        assert "since the mark" not in driver.text()
        assert driver.text().count("oldest") == 1


async def test_a_stack_that_is_gone_lost_what_it_held() -> None:
    async with driving(source()) as driver:
        await driver.press("j", "j", "m")
        await driver.opened()
        await driver.tick(named=False)
        assert "holds nothing now" in driver.text()
        assert " since the mark -293K in -1200 blocks" in driver.text()


async def test_estimates_pages_and_recordings_wound_back() -> None:
    played = source()
    grown = [replace(each, growth=Growth(1 << 20), estimated=True) for each in played.snapshots]
    played.snapshots = [*grown, grown[0]]
    async with driving(played) as driver:
        await driver.press("m")
        await driver.tick()
        assert "since the mark 10s ago: ~-7.31K, ~+2805 pages, ~-749/s" in driver.text()
        assert "+BYTES▼   +PAGES" in driver.text()
        assert "~+188K   ~+4000" in driver.text()
        await driver.press("m")
        await driver.tick()
        assert "until the mark 10s ahead: ~+7.31K, ~-2805 pages;" in driver.text()


async def test_before_the_first_snapshot_there_is_nothing_to_mark() -> None:
    async with driving(source(), ticked=False) as driver:
        await driver.press("m")
        assert driver.app.session.status.mark is None
        await driver.press("d")
        await driver.traced()
        await driver.tick()
        assert "since the start" in driver.text()
