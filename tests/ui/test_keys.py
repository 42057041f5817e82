"""Each key does what the help says."""

from dataclasses import replace

import pytest
from textual import events
from textual.widgets import Input

from leaktop.model import UNLIMITED, Filters, SortKey
from leaktop.screens.detail import DetailScreen
from leaktop.screens.help import HelpScreen, HelpText
from leaktop.screens.main import MainScreen
from leaktop.widgets.filter_bar import SAMPLE_RATES, next_rate
from leaktop.widgets.frames import FramesView
from tests.ui.driving import Driver, driving
from tests.ui.scripted import (
    CACHE,
    CHURN,
    CUT,
    JEMALLOC,
    LEAK,
    LIBC,
    PYTHON,
    STRINGS,
    TRACING,
    UNNAMED,
    ScriptedSource,
    leaky_source,
    many_sites,
    sites_at,
    snapshot,
)

BY_BYTES = [CACHE, LEAK, STRINGS, PYTHON, CHURN, UNNAMED, CUT]


MOVEMENT = (
    (["down"], 1),
    (["j", "j"], 2),
    (["j", "j", "k"], 1),
    (["down", "up"], 0),
    (["up"], 0),
    (["G"], 199),
    (["end"], 199),
    (["G", "j"], 199),
    (["G", "g"], 0),
    (["G", "home"], 0),
    (["pagedown"], 18),
    (["pagedown", "pagedown", "pageup"], 18),
    (["pageup"], 0),
)


async def test_movement() -> None:
    source = ScriptedSource([snapshot(5.0, many_sites(200, 5))])
    async with driving(source) as driver:
        table = driver.main.table
        assert table.page == 18
        for keys, index in MOVEMENT:
            table.select(0)
            await driver.press(*keys)
            assert (keys, table.index) == (keys, index)
            assert index in table.visible_rows
            assert f"▸{'':2}" in driver.text()


async def test_enter_opens_and_escape_goes_back() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("j")
        screen = await driver.opened()
        assert screen.site.stack_id == LEAK
        text = driver.text()
        assert "inlined: note_new" in text
        assert "session_open+0x1f" in text
        assert "session.c:88" in text
        await driver.press("escape")
        assert isinstance(driver.app.screen, MainScreen)
        assert driver.selected == LEAK


async def test_escape_never_quits() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("escape", "escape", "enter", "escape", "escape")
        assert driver.app.is_running
        assert isinstance(driver.app.screen, MainScreen)


async def test_s_cycles_the_sort_column() -> None:
    async with driving(leaky_source()) as driver:
        assert driver.order == BY_BYTES
        seen = []
        for _ in range(5):
            await driver.press("s")
            seen.append(driver.main.sort)
        assert seen == [*list(SortKey)[1:], SortKey.BYTES]
        await driver.press("s")
        assert driver.order[:2] == [LEAK, CACHE]
        assert "BLOCKS▼" in driver.text()


async def test_angle_brackets_move_the_sort_column() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("greater_than_sign")
        assert "BLOCKS▼" in driver.text()
        await driver.press("less_than_sign", "less_than_sign")
        assert "SUSPECT▼" in driver.text()


async def test_r_reverses() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("r")
        assert driver.order == BY_BYTES[::-1]
        assert "BYTES▲" in driver.text()
        await driver.press("r")
        assert driver.order == BY_BYTES


async def test_f_shows_the_innermost_frame_instead_of_the_one_that_matters() -> None:
    async with driving(leaky_source(), size=(100, 24)) as driver:
        text = driver.text()
        assert " WHERE  " in text
        assert " metrics::Registry<…>::intern " in text
        assert "operator new" not in text
        await driver.press("f")
        text = driver.text()
        assert " WHERE: innermost frame " in text
        assert " operator new [libstdc++.so.6]" in text
        assert " PyObject_Malloc [libpython3.11.so.1.0" in text
        assert driver.order == BY_BYTES
        # It stays so on the way through other screens, and from tick to tick.
        await driver.press("enter", "escape")
        await driver.tick()
        assert " operator new " in driver.text()
        await driver.press("f")
        assert "operator new" not in driver.text()


async def test_f_shows_all_callers_of_the_innermost_frame() -> None:
    async with driving(leaky_source(), size=(300, 50)) as driver:
        assert "← std::vector" not in driver.text()
        await driver.press("f")
        chain = "← std::vector<…>::push_back ← metrics::Registry<…>::intern ← metrics::flush "
        assert chain in driver.text()


@pytest.mark.parametrize(("width", "shown"), [(80, False), (100, True), (200, True)])
async def test_hints_name_f_where_there_is_room(width: int, shown: bool) -> None:
    async with driving(leaky_source(), size=(width, 24)) as driver:
        hints = driver.text().split("\n")[-1]
        assert (" f frame " in hints) is shown
        assert " q quit " in hints


async def test_heading_click_sorts_and_then_reverses() -> None:
    async with driving(leaky_source()) as driver:
        await driver.pilot.click(driver.main.table, offset=(24, 0))
        await driver.pilot.pause()
        assert driver.main.sort is SortKey.GROWTH
        await driver.pilot.click(driver.main.table, offset=(24, 0))
        await driver.pilot.pause()
        assert driver.main.reverse
        await driver.pilot.click(driver.main.table, offset=(60, 0))
        assert driver.main.sort is SortKey.GROWTH


async def test_click_selects_and_a_second_one_opens() -> None:
    async with driving(leaky_source()) as driver:
        await driver.pilot.click(driver.main.table, offset=(40, 3))
        await driver.pilot.pause()
        assert driver.selected == STRINGS
        await driver.pilot.click(driver.main.table, offset=(40, 3))
        await driver.pilot.pause()
        assert isinstance(driver.app.screen, DetailScreen)


async def test_slash_filters_live_and_enter_keeps() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("slash", *"handle")
        assert driver.order == [CACHE, LEAK, CHURN]
        await driver.press("enter")
        assert driver.order == [CACHE, LEAK, CHURN]
        assert "/handle" in driver.text()
        await driver.press("j")
        assert driver.selected == LEAK
        await driver.press("escape")
        assert driver.order == BY_BYTES


async def test_escape_while_typing_clears_the_filter() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("slash", *"nothing_at_all")
        assert driver.order == []
        assert "no stack matches /nothing_at_all" in driver.text()
        await driver.press("escape")
        assert driver.order == BY_BYTES
        await driver.press("j")
        assert driver.selected == LEAK


async def test_exclamation_mark_inverts_and_bad_regex_is_text() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("slash", "exclamation_mark", *"leaky")
        assert set(driver.order) == {STRINGS, PYTHON, UNNAMED, CUT}
        await driver.press("escape", "slash", *"new", "left_parenthesis")
        assert driver.order == [STRINGS]


@pytest.mark.parametrize(
    ("keys", "filters"),
    [
        (["z", *"4k", "enter"], Filters(min_size=4096)),
        (["Z", *"1M", "enter"], Filters(max_size=1 << 20)),
        (["Z", *"1M", "enter", "Z", "ctrl+u", "enter"], Filters(max_size=UNLIMITED)),
        (["z", *"64", "enter", "Z", *"64", "enter"], Filters(min_size=64, max_size=64)),
        (["plus"], Filters(sample_rate=2)),
        (["plus", "plus", "plus", "minus"], Filters(sample_rate=5)),
    ],
)
async def test_filters_are_applied_while_running(keys: list[str], filters: Filters) -> None:
    async with driving(leaky_source()) as driver:
        await driver.press(*keys)
        await driver.until(lambda: driver.source.applied[-1:] == [filters])
        assert driver.app.session.status.filters == filters


async def test_invalid_size_says_so_in_place_and_keeps_the_old() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("z", *"4x", "enter")
        assert "'4x' is no size" in driver.text()
        assert driver.app.session.status.filters == Filters()
        await driver.press("escape")
        assert "no size" not in driver.text()
        assert driver.source.applied == []


async def test_min_above_max_says_so_in_place() -> None:
    async with driving(leaky_source(), filters=Filters(max_size=1024)) as driver:
        await driver.press("z", *"4k", "enter")
        assert "min 4k is above max 1k" in driver.text()
        await driver.press("ctrl+u", *"512", "enter")
        await driver.until(lambda: driver.source.applied == [Filters(512, 1024)])


async def test_escape_while_editing_a_size_keeps_the_old() -> None:
    async with driving(leaky_source(), filters=Filters(min_size=4096)) as driver:
        await driver.press("z")
        assert driver.app.screen.query_one(Input).value == "4k"
        await driver.press("ctrl+u", *"9", "escape")
        assert driver.app.session.status.filters == Filters(min_size=4096)
        assert driver.source.applied == []


async def test_minus_stops_at_one() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("minus")
        assert driver.source.applied == []


def test_sample_rates() -> None:
    assert SAMPLE_RATES[:8] == (1, 2, 5, 10, 20, 50, 100, 200)
    assert next_rate(3, 1) == 5
    assert next_rate(3, -1) == 2
    assert next_rate(10**6, 1) == 10**6
    assert next_rate(10**9, -1) == 10**6


@pytest.mark.parametrize("key", ["space", "p"])
async def test_pause_freezes_the_screen_while_tracing_goes_on(key: str) -> None:
    ticks = [snapshot(float(t), sites_at(t)) for t in (60, 61, 62)]
    source = leaky_source()
    source.snapshots = ticks
    async with driving(source) as driver:
        await driver.press(key)
        assert "[PAUSED]" in driver.text()
        frozen = driver.text()
        await driver.tick()
        assert driver.text() == frozen
        assert driver.source.played == 2
        await driver.press(key)
        await driver.until(lambda: driver.source.played == 3)
        await driver.until(lambda: driver.app.session.status.reading is not None
                  and driver.app.session.status.reading.snapshot.elapsed_s == 62.0)  # fmt: skip
        assert "[tracing]" in driver.text()


async def test_keys_that_come_at_once_are_taken_in_their_order() -> None:
    source = leaky_source()
    async with driving(source, filters=Filters(min_size=4096)) as driver:
        await driver.press("z")
        assert driver.app.screen.query_one(Input).value == "4k"
        for key in ("backspace", "backspace", "3", "k", "enter"):
            driver.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await driver.until(lambda: bool(source.applied))
        assert source.applied[-1].min_size == 3 << 10


@pytest.mark.parametrize("key", ["question_mark", "f1"])
async def test_help(key: str) -> None:
    async with driving(leaky_source(lost={"truncated": 7})) as driver:
        await driver.press(key)
        assert isinstance(driver.app.screen, HelpScreen)
        text = driver.text()
        assert "9 functions in libc.so.6" in text
        await driver.press("end")
        assert "blocks replaced by a new one" in driver.text()
        view = driver.app.screen.query_one(HelpText)
        lines = [f"{key}{text}" for _, key, text in view._lines]
        assert any(line.startswith("truncated") and " 7: " in line for line in lines)
        await driver.press(key)
        assert isinstance(driver.app.screen, MainScreen)


async def test_help_says_what_is_traced_and_what_has_no_names() -> None:
    source = leaky_source()
    left_out = replace(LIBC, name="le\x1b[5maky", left_out=("_Znwm: it ends in a computed jump",))
    source.tracing = replace(TRACING, libraries=(left_out, JEMALLOC))
    source.unnamed = {"libz.so.1": "no lines: damaged", "a\x1b.so": "no symbols"}
    async with driving(source) as driver:
        await driver.press("question_mark")
        lines = [line.rstrip() for line in driver.text().split("\n")]
        assert lines[1:13] == [
            " TRACED",
            " 4242 (leaky), by uprobe session links:",
            "   9 functions in le?[5maky",
            "   1 function in libjemalloc.so.2",
            "   ! not free in libjemalloc.so.2: what it frees looks held: Invalid argument",
            "     (is another tracer attached?)",
            "   not _Znwm: it ends in a computed jump",
            "",
            " WITHOUT NAMES OR LINES",
            " a?.so: no symbols",
            " libz.so.1: no lines: damaged",
            "",
        ]


async def test_help_before_anything_is_traced() -> None:
    source = leaky_source()
    source.gates["start"].shut()
    async with driving(source, ticked=False) as driver:
        await driver.press("question_mark")
        assert "nothing yet: still attaching" in driver.text()
        assert "WITHOUT NAMES" not in driver.text()
        source.gates["start"].open()


async def test_help_says_what_is_traced_later() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        await driver.press("question_mark")
        assert "libjemalloc" not in driver.text()
        source.tracing = replace(TRACING, libraries=(LIBC, JEMALLOC))
        await driver.tick()
        assert "   1 function in libjemalloc.so.2 " in driver.text()


def help_lines(driver: Driver) -> list[str]:
    view = driver.app.screen.query_one(HelpText)
    return [f"{key}{text}" for _, key, text in view._lines]


async def test_help_says_where_each_probe_is() -> None:
    source = leaky_source(tracing=replace(TRACING, libraries=(LIBC, JEMALLOC)))
    async with driving(source) as driver:
        await driver.press("question_mark")
        lines = help_lines(driver)
        assert "  free            +9, push rbp" in lines
        assert "  malloc          entry, push r12" in lines
        assert any(line.startswith("  munmap          entry: nothing that") for line in lines)
        assert any(line.startswith("  free    refused: Invalid argument") for line in lines)


async def test_help_says_what_leaktop_takes_each_time_that_it_is_opened() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        assert source.asked_for_memory == 0
        for times in (1, 2):
            await driver.press("question_mark")
            await driver.until(lambda: "  block_sets        64.0M" in help_lines(driver))
            assert any("97.0M resident" in line for line in help_lines(driver))
            assert source.asked_for_memory == times
            await driver.press("escape")
        assert source.threads["memory"] == source.threads["snapshot"]


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
@pytest.mark.parametrize("before", [[], ["enter"], ["question_mark"]])
async def test_quit_from_everywhere(key: str, before: list[str]) -> None:
    async with driving(leaky_source()) as driver:
        await driver.press(*before)
        await driver.pilot.press(key)
        await driver.until(lambda: not driver.app.is_running)
    assert driver.app.return_value == 0
    assert driver.source.closed == 1


async def test_ctrl_c_quits_while_typing() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("slash", "q")
        assert driver.app.is_running
        await driver.pilot.press("ctrl+c")
        await driver.until(lambda: not driver.app.is_running)
    assert driver.app.return_value == 0


async def test_keys_in_the_detail_view() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("j")
        screen = await driver.opened()
        frames = screen.query_one(FramesView)
        await driver.press("j", "down")
        assert frames.index == 2
        await driver.press("G")
        assert frames.selected is not None
        assert frames.selected.symbol == "_start"
        await driver.press("g")
        assert frames.index == 0
        await driver.press("plus")
        await driver.until(lambda: driver.source.applied == [Filters(sample_rate=2)])
        await driver.press("space")
        assert "[PAUSED]" in driver.text()


async def test_keys_before_the_first_snapshot_do_no_harm() -> None:
    source = leaky_source()
    source.gates["start"].shut()
    async with driving(source, ticked=False) as driver:
        await driver.until(source.gates["start"].reached.is_set)
        await driver.press("j", "k", "G", "g", "pagedown", "enter", "s", "r", "space", "space")
        await driver.press("slash", "x", "escape", "plus", "question_mark", "escape")
        assert "attaching 13 functions" in driver.text()
        source.gates["start"].open()
        await driver.tick()
        assert source.applied == [Filters(sample_rate=2)]
