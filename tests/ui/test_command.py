"""What the screen adds where leaktop started the target: its output, and a question at the end."""

import signal
from collections.abc import Iterator

import pytest

from leaktop.command import OUTPUT_LINES_MAX
from leaktop.screens.leaving import LeavingScreen
from leaktop.widgets.status_bar import Stage
from tests.ui.driving import driving
from tests.ui.scripted import leaky_source, sites_at, snapshot
from tests.ui.started import Started, pane


@pytest.fixture
def started() -> Iterator[Started]:
    one = Started()
    yield one
    one.end()


def numbers(first: int, last: int) -> str:
    return "".join(f"line {i}.\n" for i in range(first, last + 1))


async def test_output_is_shown_and_hidden(started: Started) -> None:
    async with driving(leaky_source(), command=started.command) as driver:
        assert "o out" in driver.text()
        assert "q quit" in driver.text()
        assert "OUTPUT" not in driver.text()
        await driver.press("o")
        assert "OUTPUT of leaky?[2J" in driver.text()
        assert "nothing was printed so far" in driver.text()
        selected = driver.selected
        started.write("\x1b[31mred\x1b[0m \x1b[2J\u202e \x07\n")
        await started.written(driver, 1)
        assert " red ? ?" in driver.text()
        await driver.press("j", "enter")
        assert (driver.app.screen, driver.selected) == (driver.main, selected)
        await driver.press("escape")
        assert "OUTPUT" not in driver.text()
        await driver.press("j")
        assert driver.selected != selected


async def test_output_follows_its_end_unless_scrolled(started: Started) -> None:
    async with driving(leaky_source(), command=started.command) as driver:
        await driver.press("o")
        started.write(numbers(1, 100))
        await started.written(driver, 100)
        assert "line 100." in driver.text()
        await driver.press("pageup", "k")
        shown = pane(driver)._visible
        assert "line 100." not in driver.text()
        started.write(numbers(101, 150))
        await started.written(driver, 150)
        assert pane(driver)._visible == shown
        await driver.press("G")
        assert "line 150." in driver.text()
        started.write("line 151.\nlast without an end")
        await started.written(driver, 152)
        assert "last without an end" in driver.text()
        await driver.press("g")
        assert pane(driver)._visible[0] == "line 1."


async def test_what_is_dropped_moves_the_text_and_not_the_reader(started: Started) -> None:
    async with driving(leaky_source(), command=started.command) as driver:
        await driver.press("o")
        started.write(numbers(1, OUTPUT_LINES_MAX))
        await started.written(driver, OUTPUT_LINES_MAX)
        await driver.press("pageup")
        shown = pane(driver)._visible
        started.write(numbers(OUTPUT_LINES_MAX + 1, OUTPUT_LINES_MAX + 500))
        await started.written(driver, OUTPUT_LINES_MAX + 500)
        assert pane(driver)._visible == shown
        assert "first 500 lines dropped" in driver.text()
        await driver.press("g")
        assert pane(driver)._visible[0] == "line 501."


async def test_keys_reach_the_table_again_by_tab(started: Started) -> None:
    async with driving(leaky_source(), command=started.command) as driver:
        await driver.press("o", "tab")
        selected = driver.selected
        await driver.press("j")
        assert driver.selected != selected
        assert "OUTPUT" in driver.text()


async def test_without_a_command_there_is_no_output() -> None:
    async with driving(leaky_source()) as driver:
        before = driver.text()
        await driver.press("o")
        assert driver.text() == before
        await driver.press("q")
        assert driver.app.return_code == 0


async def test_quitting_asks_and_can_be_taken_back(started: Started) -> None:
    async with driving(leaky_source(), command=started.command) as driver:
        await driver.press("q")
        assert f"leaky?[2J ({started.command.pid}) still runs" in driver.text()
        await driver.press("q", "ctrl+c")
        assert len(driver.app.screen_stack) == 2
        await driver.press("escape")
        assert driver.app.screen is driver.main
        assert started.command.running


@pytest.mark.parametrize("size", [(60, 12), (80, 24)])
async def test_the_question_fits(size: tuple[int, int], started: Started) -> None:
    async with driving(leaky_source(), command=started.command, size=size) as driver:
        await driver.press("q")
        for word in ("still runs", "e end it (SIGTERM)", "d quit, let it run on", "Esc stay"):
            assert word in driver.text()


async def test_a_small_terminal_can_be_quit(started: Started) -> None:
    source = leaky_source()
    async with driving(source, command=started.command, size=(30, 5), ticked=False) as driver:
        await driver.press("q")
        assert isinstance(driver.app.screen, LeavingScreen)
        await driver.press("d")
        assert driver.app.return_code == 0


async def test_quitting_leaves_it_running(started: Started) -> None:
    async with driving(leaky_source(), command=started.command) as driver:
        await driver.press("q", "d")
    assert driver.app.return_code == 0
    assert started.command.running


async def test_ending_it_leaves_its_final_state_on_the_screen(started: Started) -> None:
    source = leaky_source()
    note = "was ended by SIGKILL"
    source.snapshots.append(snapshot(61.0, sites_at(61), note=note))
    async with driving(source, command=started.command) as driver:
        await driver.press("q", "e")
        assert "SIGTERM was sent" in driver.text()
        assert "SIGKILL" in driver.text()
        assert started.command.running
        await driver.press("e")
        # The question goes by itself, and the last state is read at once.
        await driver.until(lambda: driver.app.screen is driver.main)
        await driver.until(lambda: driver.app.session.status.stage is Stage.GONE)
        assert note in driver.text()
        assert started.command.status == -signal.SIGKILL
        await driver.press("q")
        assert driver.app.return_code == 0


async def test_after_its_end_nothing_is_asked(started: Started) -> None:
    async with driving(leaky_source(), command=started.command) as driver:
        started.command.send(signal.SIGKILL)
        await driver.until(lambda: not started.command.running)
        await driver.press("q")
        assert driver.app.return_code == 0
