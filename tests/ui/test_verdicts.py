"""Suspicion on the screen: column, mark, order, words, lifetimes."""

from leaktop.model import SortKey
from leaktop.screens.detail import DetailScreen
from leaktop.widgets.lifetimes import LifetimesView
from leaktop.widgets.verdict import VerdictLine
from tests.ui.driving import Driver, driving
from tests.ui.scripted import LEAK, ScriptedSource, leaky_source, site, sites_at, snapshot

REASON = "grows 19 KB/s for 69 s, no block ever freed"


def from_the_start() -> ScriptedSource:
    source = leaky_source()
    source.snapshots = [snapshot(float(at), sites_at(at)) for at in range(1, 71)]
    return source


async def to_the_end(driver: Driver) -> None:
    for _ in driver.source.snapshots[1:]:
        await driver.tick(named=False)


async def test_a_leak_is_marked_without_colour_and_explained_below_the_table() -> None:
    async with driving(from_the_start()) as driver:
        await to_the_end(driver)
        text = driver.text()
        row = next(line for line in text.split("\n") if "session_open" in line)
        assert " !! 0.8" in row
        await driver.press("s", "s", "s", "s")
        assert driver.main.sort is SortKey.SUSPECT
        assert driver.order[0] == LEAK
        assert "SUSPECT▼" in driver.text()
        await driver.press("g")
        assert REASON in driver.text()


async def test_the_detail_says_why_and_how_long_freed_blocks_were_held() -> None:
    async with driving(from_the_start()) as driver:
        await to_the_end(driver)
        await driver.press("g", "enter")
        screen = driver.app.screen
        assert isinstance(screen, DetailScreen)
        assert " LIFETIME    FREED" in driver.text()
        assert "2.1s-4.3s" in driver.text()
        assert "47250" in driver.text()
        assert screen.query_one(VerdictLine).display


async def test_there_is_no_verdict_and_no_lifetime_where_there_is_none() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(5.0, [])]
    async with driving(source) as driver:
        assert "suspect" not in driver.text()


async def test_ascii_has_signs_of_its_own() -> None:
    source = from_the_start()
    async with driving(source, ascii_only=True) as driver:
        await to_the_end(driver)
        assert driver.text().isascii()
        assert " !! 0.8" in driver.text()


async def test_a_stack_whose_lifetimes_are_not_counted_has_no_such_pane() -> None:
    source = leaky_source()
    bare = site(LEAK, 48, 1, ())
    source.snapshots = [snapshot(5.0, [bare.__class__(LEAK, bare.counters, ())])]
    async with driving(source) as driver:
        screen = await driver.opened()
        assert not screen.query_one(LifetimesView).display
