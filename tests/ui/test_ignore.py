"""Stacks that the user does not want to see: i, I, and what is said of them."""

from pathlib import Path

import pytest

from leaktop.config import Config, load
from leaktop.ignore import Entry
from leaktop.screens.detail import DetailScreen
from leaktop.widgets.filter_bar import FilterBar
from tests.ui.driving import Driver, driving
from tests.ui.scripted import (
    CACHE,
    LEAK,
    PYTHON,
    STRINGS,
    UNNAMED,
    leaky_source,
    sites_at,
    snapshot,
)

CACHE_ENTRY = Entry(("leaky!cache_put", "..."))


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "leaktop" / "config.toml"


async def written(driver: Driver) -> None:
    writing = driver.app._granting._ignoring._writing
    assert writing is not None
    await driver.until(lambda: not writing.is_alive())


async def test_the_selected_stack_leaves_the_table_and_is_counted() -> None:
    async with driving(leaky_source()) as driver:
        assert driver.selected == CACHE
        held = driver.text().splitlines()[0]
        await driver.press("i")
        assert CACHE not in driver.order
        assert driver.selected == LEAK
        assert driver.text().splitlines()[0] == held
        assert "ignored 12.0M in 1 stack" in driver.text()
        assert "ignored: leaky!cache_put, 1 stack (I shows what is" in driver.text()
        await driver.tick()
        assert CACHE not in driver.order
        await written(driver)
        assert load().ignore == (CACHE_ENTRY,)


async def test_ignored_stacks_can_be_shown_and_taken_back() -> None:
    async with driving(leaky_source(), size=(100, 24)) as driver:
        everything = driver.order
        await driver.press("i", "I")
        assert driver.order == everything
        assert driver.selected == CACHE
        assert "(ignored) cache_put [leaky]" in driver.text()
        assert "ignored 12.0M in 1 stack, shown" in driver.text()
        await driver.press("i")
        assert "no longer ignored: leaky!cache_put" in driver.text()
        assert "(ignored)" not in driver.text()
        await driver.press("I")
        assert driver.order == everything
        assert "stack," not in driver.text()
        await written(driver)
        assert load().ignore == ()


async def test_i_again_and_again_goes_down_the_table() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("i", "i", "i")
        assert not {CACHE, LEAK, STRINGS} & set(driver.order)
        assert "in 3 stacks" in driver.text()
        await written(driver)
        assert [each.stack[-2] for each in load().ignore] == [
            "leaky!cache_put",
            "leaky!session_open",
            "libmetrics.so*!metrics::Registry<std::string, metrics::Counter>::intern",
        ]


async def test_a_later_run_ignores_them_from_the_start() -> None:
    config = Config(ignore=(CACHE_ENTRY, Entry(("...", "leaky!serve"), "requests")))
    async with driving(leaky_source(), config=config) as driver:
        await driver.until(lambda: driver.order[0] == STRINGS)
        assert "in 3 stacks" in driver.text()
        await driver.press("slash", *"ignored nothing", "escape", "I")
        assert set(driver.order[:2]) == {CACHE, LEAK}


async def test_all_may_be_ignored() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(60.0, [s for s in sites_at(60) if s.stack_id == CACHE])]
    async with driving(source) as driver:
        await driver.press("i")
        assert "all that is held is ignored (I shows it)" in driver.text()
        await driver.press("i", "enter", "I")
        assert driver.order == [CACHE]


async def test_a_stack_without_names_is_not_ignored() -> None:
    async with driving(leaky_source()) as driver:
        while driver.selected != UNNAMED:
            await driver.press("j")
        await driver.press("i")
        assert "not changed: no function on it has a name" in driver.text()
        assert UNNAMED in driver.order


async def test_before_its_names_are_here_a_stack_is_not_ignored() -> None:
    source = leaky_source()
    source.gates["resolve"].shut()
    async with driving(source, ticked=False) as driver:
        await driver.traced()
        await driver.tick(named=False)
        await driver.press("i")
        assert "not changed: its names are not here yet" in driver.text()
        source.gates["resolve"].open()
        await driver.named()


async def test_an_entry_for_more_than_one_stack_is_the_users_to_change() -> None:
    config = Config(ignore=(Entry(("*", "...", "_PyEval*"), "python"),))
    async with driving(leaky_source(), config=config) as driver:
        await driver.until(lambda: PYTHON not in driver.order)
        await driver.press("I")
        while driver.selected != PYTHON:
            await driver.press("j")
        await driver.press("i")
        assert "not changed: 'python' of config.toml is not for it alone" in driver.text()
        assert driver.app._granting._ignoring.list.entries == config.ignore


async def test_in_a_stack() -> None:
    async with driving(leaky_source()) as driver:
        screen = await driver.opened()
        assert isinstance(screen, DetailScreen)
        await driver.press("i")
        assert "stack cac4e  ignored" in driver.text()
        await driver.press("i")
        assert "stack cac4e  12.0M" in driver.text()
        await driver.press("i", "escape")
        assert CACHE not in driver.order
        await written(driver)


async def test_what_cannot_be_written_lasts_for_this_run(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("ignore = 3")
    async with driving(leaky_source(), size=(160, 24)) as driver:
        await driver.press("i")
        await driver.until(lambda: "not kept for the next run" in driver.text())
        assert f"{file} cannot be changed: ignore in it is no list" in driver.text()
        assert CACHE not in driver.order
    assert file.read_text() == "ignore = 3"


async def test_i_is_a_letter_in_a_filter() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("slash", "i", "I")
        assert driver.main.query_one(FilterBar).has_class("editing")
        assert not driver.app._granting._ignoring.list.entries
