"""The process picker: the list, and the way to the stacks and back."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from textual.message import Message

from leaktop.candidates import Processes
from leaktop.messages import SourceFailed
from leaktop.model import Filters
from leaktop.picking import Picking, Watcher
from leaktop.screens.help import HelpScreen
from leaktop.screens.main import MainScreen
from leaktop.screens.picker_help import PickerHelpScreen
from leaktop.screens.too_small import TooSmallScreen
from leaktop.source import SourceError
from leaktop.widgets.status_bar import Stage
from tests.ui.driving import NEVER, driving
from tests.ui.picking import (
    ALL,
    CACHE,
    DATABASE,
    LEAKY,
    MB,
    SHELL,
    Machine,
    PickerDriver,
    picking_from,
)
from tests.ui.scripted import leaky_source, sites_at, snapshot

BY_GROWTH = [4242, 977, 7001, 6666, 7002, 1200, 31, 801]


async def test_growing_ones_come_first_then_large_ones() -> None:
    async with picking_from(Machine()) as driver:
        assert driver.pids == BY_GROWTH
        assert driver.picked == 4242


@pytest.mark.parametrize(
    ("keys", "order", "heading"),
    [
        (["s"], [31, 1200, 7002, 6666, 977, 4242, 7001, 801], "COMMAND▲"),
        (["less_than_sign"], [801, 977, 4242, 7002, 6666, 1200, 7001, 31], "RSS▼"),
        (["s", "s"], [31, 801, 977, 1200, 4242, 6666, 7001, 7002], "PID▲"),
        (["s", "s", "r"], [7002, 7001, 6666, 4242, 1200, 977, 801, 31], "PID▼"),
        (["r"], [801, 7002, 1200, 31, 6666, 7001, 977, 4242], "GROWTH/min▲"),
    ],
)
async def test_order(keys: list[str], order: list[int], heading: str) -> None:
    async with picking_from(Machine()) as driver:
        await driver.press(*keys)
        assert driver.pids == order
        assert heading in driver.text()


async def test_wide_terminals_show_and_sort_by_more() -> None:
    async with picking_from(Machine(), size=(160, 30)) as driver:
        text = driver.text()
        assert "/opt/app/leaky --rate 5" in text
        assert all(title in text for title in ("%MEM", "THR", "AGE"))
        await driver.press("less_than_sign")
        assert "AGE▼" in driver.text()
        await driver.press("less_than_sign")
        assert driver.pids[0] == 977
        assert "THR▼" in driver.text()


@pytest.mark.parametrize(("title", "first"), [("RSS", 801), ("COMMAND", None), ("PID", 31)])
async def test_a_click_on_a_heading_sorts_and_another_reverses(
    title: str, first: int | None
) -> None:
    async with picking_from(Machine()) as driver:
        heading = next(line for line in driver.text().split("\n") if "GROWTH/min" in line)
        at = heading.index(title)
        for _ in range(2):
            await driver.pilot.click(driver.picker.table, offset=(at, 0))
            await driver.pilot.pause()
            order = driver.pids
            assert first is None or first in (order[0], order[-1])
        assert driver.picker.reverse


async def test_a_click_beside_the_sortable_columns_does_nothing() -> None:
    async with picking_from(Machine()) as driver:
        heading = next(line for line in driver.text().split("\n") if "GROWTH/min" in line)
        await driver.pilot.click(driver.picker.table, offset=(heading.index("TREND"), 0))
        assert driver.pids == BY_GROWTH


async def test_selection_is_on_top_until_moved_and_then_stays_on_its_process() -> None:
    machine = Machine()
    async with picking_from(machine) as driver:
        machine.processes = [replace(SHELL, growth=99.0 * MB), *ALL[:3]]
        await driver.read()
        assert driver.picked == SHELL.pid
        await driver.press("j")
        assert driver.picked == 4242
        machine.processes = [replace(LEAKY, growth=-5.0 * MB), SHELL, CACHE, DATABASE]
        await driver.read()
        assert driver.pids[-1] == 4242
        assert driver.picked == 4242
        # Another process of the same number is not the one that was selected.
        machine.processes = [replace(LEAKY, start_time=1, growth=50.0 * MB), SHELL, CACHE]
        await driver.read()
        assert driver.picked == SHELL.pid


async def test_filter_is_live_and_inverts_and_says_how_many() -> None:
    async with picking_from(Machine()) as driver:
        await driver.press("slash", *"ja", "v")
        assert driver.pids == [977]
        await driver.press("enter")
        assert "text /jav  1 of 8 processes" in driver.text()
        await driver.press("slash", "home", "exclamation_mark", "enter")
        assert driver.pids == [pid for pid in BY_GROWTH if pid != 977]
        await driver.press("escape")
        assert driver.pids == BY_GROWTH


@pytest.mark.parametrize(
    ("pattern", "pids"),
    [("^4242$", [4242]), ("postgres-main", [801]), ("agetty", [31]), ("/opt/", [4242]),
     ("^(app|cc1)", [4242, 977, 7002]), ("[", [6666])],
)  # fmt: skip
async def test_what_the_filter_searches(pattern: str, pids: list[int]) -> None:
    machine = Machine()
    machine.processes[-1] = replace(machine.processes[-1], folder="", command="cc1")
    async with picking_from(machine) as driver:
        await driver.press("slash", *pattern, "enter")
        assert driver.pids == pids


async def test_why_there_is_no_row() -> None:
    machine = Machine()
    async with picking_from(machine) as driver:
        await driver.press("slash", *"zzz", "enter")
        assert "no process matches /zzz (Esc shows all)" in driver.text()
        await driver.press("enter")
        assert machine.opened == []
        await driver.press("escape")
        machine.processes = []
        await driver.read()
        assert "/proc shows no process" in driver.text()


async def test_pause_freezes_the_list() -> None:
    machine = Machine()
    async with picking_from(machine) as driver:
        await driver.press("space")
        assert "[PAUSED]" in driver.text()
        frozen = driver.text()
        machine.processes = [SHELL]
        await driver.read()
        assert driver.text() == frozen
        await driver.press("p")
        assert driver.pids == [SHELL.pid]
        assert "[PAUSED]" not in driver.text()


async def test_names_do_no_harm() -> None:
    for size in ((80, 24), (200, 50)):
        async with picking_from(Machine(), size=size) as driver:
            text = driver.text().replace("\n", "")
            assert text.isprintable()
            assert "evil ?[31m[bold]?x?" in text
            assert "[agetty]" in text
            assert "postgres+" in text


async def test_growth_is_said_from_the_second_look_on() -> None:
    async with picking_from(Machine()) as driver:
        lines = {
            line.split()[0]: line for line in driver.text().replace("▸", " ").split("\n")[3:11]
        }
        assert "+12.5M" in lines["4242"]
        assert "~+1.00M" in lines["7001"]
        assert lines["7002"].split()[2:4] == ["30.0M", "cc1"]
        assert "-2.00M" in lines["801"]


async def test_enter_attaches_and_escape_comes_back_and_detaches() -> None:
    async with picking_from(Machine()) as driver:
        source = leaky_source()
        await driver.attached(source)
        assert driver.machine.opened == [LEAKY]
        await driver.tick()
        assert "Esc processes" in driver.text()
        await driver.press("slash", *"handle", "enter")
        await driver.press("escape")  # drops the filter first
        assert isinstance(driver.app.screen, MainScreen)
        source.gates["close"].shut()
        await driver.press("escape")
        # The list is there at once, whatever detaching takes.
        assert driver.app.screen_stack == [driver.picker]
        await driver.until(source.gates["close"].reached.is_set)
        assert "detaching from 4242 (leaky) ..." in driver.text()
        source.gates["close"].open()
        await driver.until(lambda: driver.picker.status.detaching == "")
        assert "detaching" not in driver.text()
        assert source.closed == 1
        assert driver.picked == 4242
        assert driver.app.is_running


async def test_from_a_stack_escape_leads_back_step_by_step() -> None:
    async with picking_from(Machine()) as driver:
        await driver.attached(leaky_source())
        await driver.tick()
        await driver.opened()
        await driver.press("escape")
        assert isinstance(driver.app.screen, MainScreen)
        await driver.press("escape")
        assert driver.app.screen_stack == [driver.picker]
        await driver.press("escape", "escape")
        assert driver.app.is_running


async def test_escape_with_a_given_process_leads_nowhere() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("escape", "escape")
        assert isinstance(driver.app.screen, MainScreen)
        assert "Esc processes" not in driver.text()
        assert driver.source.closed == 0


async def test_attaching_shows_each_step_and_escape_stops_it() -> None:
    async with picking_from(Machine()) as driver:
        source = leaky_source()
        source.gates["start"].shut()
        driver.machine.sources.append(source)
        await driver.press("enter")
        await driver.until(lambda: "attaching 13 functions" in driver.picker.status.attaching)
        assert "attaching to 4242 (leaky): attaching 13 functions ..." in driver.text()
        await driver.press("j", "enter")  # one at a time
        assert driver.machine.opened == [LEAKY]
        await driver.press("escape")
        assert "attaching to" not in driver.text()
        assert "detaching from 4242 (leaky) ..." in driver.text()
        source.gates["start"].open()
        await driver.until(lambda: driver.picker.status.detaching == "")
        assert source.closed == 1
        assert driver.app.screen_stack == [driver.picker]


async def test_a_process_that_takes_long_to_open_holds_nothing_up() -> None:
    async with picking_from(Machine()) as driver:
        source = leaky_source()
        driver.machine.sources.append(source)
        driver.machine.open_gate.shut()
        await driver.press("enter")
        await driver.until(driver.machine.open_gate.reached.is_set)
        await driver.press("j")
        assert driver.picked == 977
        assert "attaching to 4242 (leaky) ..." in driver.text()
        await driver.press("escape")
        driver.machine.open_gate.open()
        await driver.until(lambda: source.closed == 1)
        assert "start" not in source.threads
        assert driver.app.screen_stack == [driver.picker]


def _no_such_process(machine: Machine) -> None:
    machine.refusal = SourceError("process 4242 \x1b[2J\nhas exited", exit_code=4)


def _no_allocator(machine: Machine) -> None:
    source = leaky_source()
    source.failures["start"] = SourceError("4242 (leaky) \x1b[2J has no malloc")
    machine.sources.append(source)


def _bug(machine: Machine) -> None:
    source = leaky_source()
    source.failures["start"] = ZeroDivisionError("\x1b[2J")
    machine.sources.append(source)


@pytest.mark.parametrize("fail", [_no_such_process, _no_allocator, _bug])
async def test_what_cannot_be_traced_is_said_and_the_list_goes_on(
    fail: Callable[[Machine], None],
) -> None:
    machine = Machine()
    fail(machine)
    async with picking_from(machine) as driver:
        await driver.press("enter")
        await driver.until(lambda: driver.picker.status.failed != "")
        text = driver.text()
        assert "! NOT ATTACHED: " in text
        assert "\x1b" not in text
        assert driver.app.failure is None
        await driver.read()
        machine.refusal = None
        await driver.press("escape")
        assert "NOT ATTACHED" not in driver.text()
        await driver.attached(leaky_source())
    assert driver.app.failure is None
    assert driver.app.return_value in (None, 0)


async def test_tracing_that_fails_stays_on_the_screen_until_it_is_left() -> None:
    async with picking_from(Machine()) as driver:
        source = leaky_source()
        source.failures["snapshot"] = SourceError("the map is gone")
        await driver.attached(source)
        driver.app.session.collector.tick_now()
        await driver.until(lambda: driver.app.session.status.stage is Stage.FAILED)
        assert "! FAILED: the map is gone" in driver.text()
        await driver.press("escape")
        assert driver.app.screen_stack == [driver.picker]
        await driver.until(lambda: source.closed == 1)
        assert driver.app.failure is None


async def test_late_words_of_a_session_that_was_left_are_not_its_successors() -> None:
    async with picking_from(Machine()) as driver:
        first, second = leaky_source(), leaky_source()
        await driver.attached(first)
        await driver.tick()
        left = driver.app.session.collector
        await driver.press("escape")
        second.snapshots = [snapshot(5.0, sites_at(5))]
        await driver.attached(second)
        # A message that was on its way when Esc was pressed.
        before = driver.app.session.status
        late = SourceFailed(SourceError("late"), started=True)
        late.collector = left
        driver.app.post_message(late)
        await driver.pilot.pause()
        assert driver.app.session.status == before
        await driver.tick()
        reading = driver.app.session.status.reading
        assert reading is not None
        assert reading.snapshot.elapsed_s == 5.0


async def test_the_same_process_again_begins_anew() -> None:
    async with picking_from(Machine()) as driver:
        await driver.attached(leaky_source())
        await driver.press("plus")
        assert driver.app.session.status.filters == Filters(sample_rate=2)
        await driver.press("escape")
        await driver.attached(leaky_source())
        assert driver.app.session.status.filters == Filters()
        assert driver.machine.opened == [LEAKY, LEAKY]


@pytest.mark.parametrize("cover", ["help", "small"])
async def test_the_stacks_wait_for_what_covers_the_list(cover: str) -> None:
    async with picking_from(Machine()) as driver:
        source = leaky_source()
        source.gates["start"].shut()
        driver.machine.sources.append(source)
        await driver.press("enter")
        await driver.until(source.gates["start"].reached.is_set)
        if cover == "help":
            await driver.press("question_mark")
            assert isinstance(driver.app.screen, PickerHelpScreen)
        else:
            await driver.pilot.resize_terminal(40, 8)
            assert isinstance(driver.app.screen, TooSmallScreen)
        source.gates["start"].open()
        await driver.until(lambda: driver.app.session.status.stage is Stage.TRACING)
        assert not isinstance(driver.app.screen, MainScreen)
        if cover == "help":
            await driver.press("escape")
        else:
            await driver.pilot.resize_terminal(80, 24)
        await driver.until(lambda: isinstance(driver.app.screen, MainScreen))
        assert len(driver.app.screen_stack) == 2


async def test_help_of_the_list_and_of_the_stacks() -> None:
    async with picking_from(Machine()) as driver:
        await driver.press("question_mark")
        assert "attach to the process" in driver.text()
        await driver.press("escape")
        await driver.attached(leaky_source())
        await driver.press("question_mark")
        assert isinstance(driver.app.screen, HelpScreen)


async def test_keys_of_the_stacks_do_nothing_to_the_list() -> None:
    async with picking_from(Machine()) as driver:
        await driver.press("plus", "minus", "z", "f")
        assert driver.app.screen_stack == [driver.picker]


async def test_nothing_is_read_while_one_is_traced() -> None:
    async with picking_from(Machine()) as driver:
        assert driver.app._attaching is not None
        watcher = driver.app._attaching.watcher
        await driver.attached(leaky_source())
        assert not watcher._wanted
        await driver.press("escape")
        assert watcher._wanted


async def test_what_is_missing_is_said_and_the_list_is_there() -> None:
    warning = "tracing another process needs CAP_BPF: run it with sudo"
    async with picking_from(Machine(), warning=warning) as driver:
        assert f"! {warning}" in driver.text()
        assert driver.pids == BY_GROWTH


async def test_what_to_do_is_not_cut_off() -> None:
    words = "tracing another process needs CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_SOMETHING_LONG"
    async with picking_from(Machine(), warning=f"{words}: run it with sudo") as driver:
        assert "run it with sudo" in driver.text()
        await driver.pilot.resize_terminal(160, 24)
        await driver.until(lambda: f"! {words}: run it with sudo" in driver.text())
        assert driver.picker.table.row_count == 8


async def _from_the_list(driver: PickerDriver) -> None:
    pass


async def _from_the_stacks(driver: PickerDriver) -> None:
    await driver.attached(leaky_source())


async def _while_attaching(driver: PickerDriver) -> None:
    driver.source = leaky_source()
    driver.machine.sources.append(driver.source)
    driver.machine.open_gate.shut()
    await driver.press("enter")
    await driver.until(driver.machine.open_gate.reached.is_set)


@pytest.mark.parametrize("where", [_from_the_list, _from_the_stacks, _while_attaching])
async def test_quitting(where: Callable[[PickerDriver], object]) -> None:
    machine = Machine()
    async with picking_from(machine) as driver:
        await where(driver)  # type: ignore[misc]
        await driver.pilot.press("q")
        await driver.until(lambda: not driver.app.is_running)
    machine.open_gate.open()
    assert driver.app.return_value == 0
    if machine.opened:
        wait_for(lambda: driver.source.closed == 1)


def test_watcher_reads_when_it_is_due_and_when_it_is_asked() -> None:
    readings = threading.Semaphore(0)
    posted: list[Message] = []

    def read() -> Processes:
        readings.release()
        return Processes()

    watcher = Watcher(Picking(read, delay_s=0.001), posted.append)
    watcher.start()
    for _ in range(3):
        assert readings.acquire(timeout=60)
    watcher.stop()
    watcher._thread.join(60)
    assert not watcher._thread.is_alive()
    assert len(posted) >= 3

    watcher = Watcher(Picking(read, delay_s=NEVER), posted.append)
    watcher.want(False)
    watcher.start()
    posted.clear()
    watcher.want(True)  # it has been due since it was started
    wait_for(lambda: len(posted) == 1)
    watcher.want(False)
    watcher.read_now()
    wait_for(lambda: len(posted) == 2)
    watcher.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.002)
