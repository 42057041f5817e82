"""The call tree on the screen."""

from dataclasses import replace

import pytest

from leaktop.model import Counters, Frame, Growth, ProcessState
from leaktop.screens.detail import DetailScreen
from leaktop.screens.main import MainScreen
from leaktop.screens.tree import TreeScreen
from tests.ui.driving import Driver, driving
from tests.ui.scripted import (
    CACHE,
    CHURN,
    LEAK,
    NAMES,
    STRINGS,
    TARGET,
    ScriptedSource,
    leaky_source,
    many_sites,
    site,
    sites_at,
    snapshot,
)


async def opened(driver: Driver) -> TreeScreen:
    """Open the tree and wait until it is built with all names."""
    await driver.press("t")
    screen = driver.app.screen
    assert isinstance(screen, TreeScreen)
    await driver.until(lambda: screen.settled and screen._built.named)  # type: ignore[union-attr]
    return screen


async def rebuilt(driver: Driver, *keys: str) -> None:
    """Press keys after which another tree is built, and wait for it."""
    screen = driver.app.screen
    assert isinstance(screen, TreeScreen)
    before = screen._built
    await driver.press(*keys)
    await driver.until(lambda: screen.settled and screen._built is not before)


def tree_of(driver: Driver) -> TreeScreen:
    screen = driver.app.screen
    assert isinstance(screen, TreeScreen)
    return screen


def lines(driver: Driver) -> list[str]:
    """Return what the tree shows of calls: lines, fold and name."""
    view = tree_of(driver).calls
    rows = view._shown.rows
    signs = ((" " if row.node.is_leaf else "-" if row.is_open else "+") for row in rows)
    return [
        f"{row.guides}{sign}{row.node.call.name}" for sign, row in zip(signs, rows, strict=True)
    ]


def selected(driver: Driver) -> str:
    row = tree_of(driver).calls.selected
    assert row is not None
    return row.node.call.name


START_LINES = [
    "-main",
    "└-serve",
    " └-handle_request",
    "  └ cache_put",
]


async def test_the_heaviest_way_is_unfolded_at_first() -> None:
    async with driving(leaky_source()) as driver:
        await opened(driver)
        assert lines(driver)[:4] == START_LINES
        assert "+_start" in lines(driver)
        text = driver.text()
        assert "TOTAL▼    %     OWN   BLOCKS" in text
        assert "12.0M   89       -     3072  ▾ main [leaky]" in text
        assert "12.0M   89   12.0M     3072    └  cache_put [leaky]" in text


async def test_folding_by_keys() -> None:
    async with driving(leaky_source()) as driver:
        await opened(driver)
        await driver.press("j", "j", "left")
        assert lines(driver)[:3] == ["-main", "└-serve", " └+handle_request"]
        await driver.press("left")
        assert selected(driver) == "serve"
        await driver.press("left", "left", "left")
        assert (selected(driver), lines(driver)[0]) == ("main", "+main")
        await driver.press("left", "left")
        assert selected(driver) == "main"
        # What leads on without a choice is unfolded at once.
        await driver.press("right")
        assert lines(driver)[:4] == START_LINES[:2] + START_LINES[2:]
        await driver.press("right")
        assert selected(driver) == "serve"
        await driver.press("enter")
        assert lines(driver)[:2] == ["-main", "└+serve"]
        await driver.press("enter")
        assert lines(driver)[:4] == START_LINES


async def test_all_is_unfolded_and_folded() -> None:
    async with driving(leaky_source(), size=(100, 40)) as driver:
        await opened(driver)
        await rebuilt(driver, "E")
        assert all("+" not in line for line in lines(driver))
        assert sum("handle_request" in line for line in lines(driver)) == 3
        await driver.press("G")
        await driver.press("C")
        assert all(line[0] in "+ " for line in lines(driver))
        assert selected(driver) == lines(driver)[-1][1:]
        await rebuilt(driver, "asterisk")
        assert all("+" not in line for line in lines(driver))


async def test_the_other_end() -> None:
    async with driving(leaky_source()) as driver:
        await opened(driver)
        await driver.press("C")
        await rebuilt(driver, "r")
        assert lines(driver)[:5] == [
            "-cache_put",
            "└-handle_request",
            " └-serve",
            "  └ main",
            "+session_open",
        ]
        assert "WHO ALLOCATES, and its callers" in driver.text()
        # Each end has folds of its own, and they are kept.
        await rebuilt(driver, "r")
        assert all(line[0] in "+ " for line in lines(driver))
        await driver.press("escape")
        assert isinstance(driver.app.screen, MainScreen)
        await opened(driver)
        assert all(line[0] in "+ " for line in lines(driver))


async def test_the_selection_stays_on_its_call_while_figures_move() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(700.0, sites_at(700))]
    async with driving(source) as driver:
        await opened(driver)
        await driver.press("j", "j", "j")
        assert selected(driver) == "cache_put"
        before = lines(driver)
        await rebuilt_by_tick(driver)
        assert selected(driver) == "cache_put"
        # The leak is first now; what is unfolded stays unfolded.
        assert lines(driver)[0] == "+_start"
        assert sorted(lines(driver)) == sorted(before)
        assert "700" not in lines(driver)


async def rebuilt_by_tick(driver: Driver) -> None:
    screen = tree_of(driver)
    before = screen._built
    await driver.tick()
    await driver.until(lambda: screen.settled and screen._built is not before)


async def test_a_last_call_opens_its_stack() -> None:
    async with driving(leaky_source()) as driver:
        await opened(driver)
        await driver.press("j", "j", "j", "enter")
        screen = driver.app.screen
        assert isinstance(screen, DetailScreen)
        assert screen.site.stack_id == CACHE
        await driver.press("escape")
        assert isinstance(driver.app.screen, TreeScreen)
        assert selected(driver) == "cache_put"
        await driver.press("t")
        assert isinstance(driver.app.screen, MainScreen)


async def test_of_several_stacks_in_one_call_the_largest_is_opened() -> None:
    frames = {
        i: (Frame(0x1000 + i, "app", "leak"), Frame(0x2000, "app", "main")) for i in (1, 2, 3)
    }
    sites = [site(i, 100 * i % 250, 1, frames[i]) for i in frames]
    source = ScriptedSource([snapshot(5.0, sites)], names=frames)
    async with driving(source) as driver:
        await opened(driver)
        assert lines(driver) == ["-main", "└ leak"]
        await driver.press("j", "enter")
        screen = driver.app.screen
        assert isinstance(screen, DetailScreen)
        assert screen.site.stack_id == 2


async def test_text_filter_mark_and_growth_apply() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(70.0, sites_at(70))]
    async with driving(source, size=(100, 24)) as driver:
        await driver.press("slash", *"session", "enter")
        screen = await opened(driver)
        assert "session_open" in lines(driver)[-1]
        assert lines(driver)[0] == "-_start"
        assert "text /session" in driver.text()
        await rebuilt(driver, "m")
        await rebuilt_by_tick(driver)
        assert "+TOTAL▼    %    +OWN  +BLOCKS  GROWTH/s" in driver.text()
        assert "+188K  100   +188K    +4000    +18.8K " in driver.text()
        assert screen._built is not None
        assert screen._built.tree.root.bytes == 48 * 4000
        await driver.press("escape", "escape")
        await opened(driver)
        await rebuilt(driver, "d")
        assert {s.stack_id for s in tree_of(driver)._built.wish.sites} == {LEAK, CHURN}  # type: ignore[union-attr]
        await rebuilt(driver, "d")
        assert len(tree_of(driver)._built.wish.sites) == 7  # type: ignore[union-attr]


async def test_orders() -> None:
    async with driving(leaky_source(), size=(120, 24)) as driver:
        await opened(driver)
        await driver.press("C")
        assert lines(driver)[0] == "+main"
        await driver.press("s", "s")
        assert "BLOCKS▼" in driver.text()
        assert lines(driver)[0] == "+_start"
        await driver.press("less_than_sign", "less_than_sign")
        assert "TOTAL▼" in driver.text()
        await driver.pilot.click("#tree", offset=(38, 0))
        await driver.pilot.pause()
        assert "GROWTH/s▼" in driver.text()


async def test_allocators_are_shown_when_asked_for() -> None:
    async with driving(leaky_source(), size=(100, 40)) as driver:
        await opened(driver)
        await rebuilt(driver, "E")
        assert not any("operator new" in line for line in lines(driver))
        await rebuilt(driver, "f")
        await rebuilt(driver, "E")
        assert any("operator new" in line for line in lines(driver))


async def test_names_that_come_late() -> None:
    source = leaky_source()
    source.gates["resolve"].shut()
    async with driving(source, ticked=False) as driver:
        await driver.traced()
        await driver.tick(named=False)
        await driver.press("t")
        screen = tree_of(driver)
        await driver.until(lambda: screen._built is not None)
        assert "0x5603282b1000" in lines(driver)[-1] or "0x" in lines(driver)[0]
        source.gates["resolve"].open()
        await driver.until(lambda: screen._built is not None and screen._built.named)
        assert lines(driver)[:4] == START_LINES


async def test_stacks_that_come_while_the_tree_is_open_are_named() -> None:
    source = leaky_source()
    later = [each for each in sites_at(61) if each.stack_id != STRINGS]
    source.snapshots = [snapshot(60.0, later), snapshot(61.0, sites_at(61))]
    async with driving(source) as driver:
        await opened(driver)
        await rebuilt_by_tick(driver)
        assert driver.app.session.names[STRINGS] == NAMES[STRINGS]


async def test_nothing_to_show() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        await driver.press("slash", *"no such thing", "enter", "t")
        screen = tree_of(driver)
        await driver.until(lambda: screen._built is not None)
        assert "no stack passes the filters of the table" in driver.text()
        await driver.press("enter", "left", "right", "E", "C", "j", "G", "s")
        assert lines(driver) == []
    async with driving(source, ticked=False) as driver:
        await driver.press("t")
        assert "merging the stacks ..." in driver.text()
        await driver.press("escape")


async def test_a_paused_tree_stays() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(70.0, sites_at(70))]
    async with driving(source) as driver:
        screen = await opened(driver)
        await rebuilt(driver, "space")
        await driver.tick()
        await rebuilt(driver, "r")
        assert screen._built is not None
        assert screen._built.tree.root.bytes == sum(s.counters.bytes for s in sites_at(60))
        await rebuilt(driver, "p")
        await driver.until(lambda: screen._built.tree.root.bytes > 13.4 * 2**20)  # type: ignore[union-attr]


async def test_several_processes_and_pages() -> None:
    targets = [replace(TARGET, pid=pid, comm=f"w{pid}") for pid in (7, 8)]
    source = leaky_source()
    sites = [replace(each, pid=7 + i % 2) for i, each in enumerate(sites_at(60))]
    states = tuple(ProcessState(each, Counters()) for each in targets)
    source.snapshots = [replace(snapshot(60.0, sites), processes=states, growth=Growth(1))]
    async with driving(source) as driver:
        await opened(driver)
        assert "PAGES" in driver.text()
        await driver.press("C")
        assert lines(driver) == ["+w8 8", "+w7 7"]


@pytest.mark.parametrize("ascii_only", [False, True])
async def test_deep_stacks_and_hostile_names(ascii_only: bool) -> None:
    deep = tuple(
        Frame(i, "a\x1b[0m", "[red]\x1b[31mé" + "x" * 90 if i % 2 else None) for i in range(127)
    )
    source = ScriptedSource([snapshot(5.0, [site(5, 9, 1, deep, truncated=True)])], names={5: deep})
    async with driving(source, ascii_only=ascii_only) as driver:
        await opened(driver)
        assert len(lines(driver)) == 128
        for keys in ([], ["G"]):
            await driver.press(*keys)
            shown = driver.text().split("\n")
            assert len(shown) == 24
            assert all(line.isprintable() and len(line) == 80 for line in shown)
            assert all(line.isascii() or not ascii_only for line in shown)
        assert ("> " if ascii_only else "…") in driver.text()


async def test_ten_thousand_stacks_draw_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    from leaktop.widgets.call_tree import CallTreeView

    row = CallTreeView.row

    def counted(self: CallTreeView, index: int, *, selected: bool) -> object:
        drawn.append(index)
        return row(self, index, selected=selected)

    monkeypatch.setattr(CallTreeView, "row", counted)
    sites = many_sites(10_000, 5)
    names = {
        s.stack_id: tuple(Frame(i, "big", f"f{s.stack_id % 10**i}") for i in range(4, 0, -1))
        for s in sites
    }
    async with driving(ScriptedSource([snapshot(5.0, sites)], names=names)) as driver:
        screen = await opened(driver)
        await rebuilt(driver, "E")
        assert 4000 < screen.calls.row_count <= 5000
        drawn.clear()
        await driver.press("j")
        assert len(drawn) <= 2 * screen.calls.page
        await driver.press("G")
        assert screen.calls.index == screen.calls.row_count - 1


@pytest.mark.parametrize("by_key", [True, False])
async def test_no_thread_is_left_behind(by_key: bool) -> None:
    async with driving(leaky_source()) as driver:
        await opened(driver)
        thread = driver.app.session._trees
        assert thread is not None
        if by_key:
            await driver.press("escape")
        else:  # as another mode's table takes its place
            driver.app.pop_screen()
        await driver.until(lambda: not thread.is_alive())
