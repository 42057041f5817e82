"""Growth mode and exact tracing: from one to the other, and the picker's offer."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from leaktop.model import Counters, Filters
from leaktop.screens.detail import DetailScreen
from leaktop.screens.main import MainScreen
from leaktop.screens.question import QuestionScreen
from leaktop.source import SourceError
from tests.ui.driving import Driver, driving
from tests.ui.picking import CHEAP, DEAR, LEAKY, Machine, PickerDriver, picking_from
from tests.ui.scripted import (
    TARGET,
    ScriptedSource,
    growing_source,
    leaky_source,
    sites_at,
    snapshot,
)


@asynccontextmanager
async def traced_in(
    machine: Machine, source: ScriptedSource, *, growth: bool
) -> AsyncIterator[Driver]:
    modes = machine.modes_of(LEAKY, growth=growth)
    async with driving(source, modes=modes) as driver:
        yield driver


def mode_of(driver: Driver) -> bool | None:
    opening = driver.app.session.opening
    return None if opening is None else opening.growth


async def test_from_growth_to_exact_and_back() -> None:
    machine, first = Machine(), growing_source()
    async with traced_in(machine, first, growth=True) as driver:
        assert "[growth]" in driver.text()
        exact = leaky_source()
        machine.sources.append(exact)
        first.gates["close"].shut()
        await driver.press("X")
        await driver.until(lambda: mode_of(driver) is False)
        # one key is enough; what takes its time says so
        assert (machine.opened, machine.modes) == ([LEAKY], [False])
        assert "ending growth mode ..." in driver.text()
        first.gates["close"].open()
        await driver.until(lambda: driver.app.session.status.activity == "")
        assert first.closed == 1
        await driver.tick()
        assert "[tracing]" in driver.text()
        assert "ending" not in driver.text()

        # the other way something would be lost, so that it asks
        machine.sources.append(growing_source())
        await driver.press("X")
        assert "what exact tracing has in 1m00s is let go of" in driver.text()
        await driver.press("escape")
        assert mode_of(driver) is False
        await driver.press("X", "enter")
        await driver.until(lambda: mode_of(driver) is True)
        await driver.until(lambda: exact.closed == 1)
        await driver.tick()
        assert "[growth]" in driver.text()
        assert machine.modes == [False, True]


async def test_filters_are_of_their_mode() -> None:
    machine = Machine()
    async with traced_in(machine, leaky_source(), growth=False) as driver:
        await driver.press("z", *"4k", "enter", "plus")
        wanted = Filters(min_size=4096, sample_rate=2)
        assert driver.app.session.status.filters == wanted
        machine.sources += [growing_source(), leaky_source()]
        await driver.press("X", "enter")
        await driver.until(lambda: mode_of(driver) is True)
        await driver.press("X")
        await driver.until(lambda: mode_of(driver) is False)
        assert machine.filters == [Filters(), wanted]
        assert driver.app.session.status.filters == wanted


def _not_opened(machine: Machine) -> None:
    machine.refusal = SourceError("process 4242 \x1b[2J\nhas exited", exit_code=4)


def _not_started(machine: Machine) -> None:
    source = leaky_source()
    source.failures["start"] = SourceError("process 4242 \x1b[2J has exited")
    machine.sources.append(source)


@pytest.mark.parametrize("prepare", [_not_opened, _not_started])
async def test_what_fails_leaves_the_old_mode(prepare: Callable[[Machine], None]) -> None:
    machine, source = Machine(), growing_source()
    async with traced_in(machine, source, growth=True) as driver:
        prepare(machine)
        await driver.press("X")
        await driver.until(lambda: driver.app.session.status.refused != "")
        says = "! not changed: exact tracing cannot begin: process 4242 ?[2J has exited"
        assert says in driver.text()
        assert mode_of(driver) is True
        await driver.tick()
        assert source.closed == 0
        await driver.press("escape")
        assert "not changed" not in driver.text()
        machine.refusal = None
        await driver.press("X")  # and it may be tried again
        await driver.until(lambda: mode_of(driver) is False)


async def test_escape_stays_with_the_old_mode() -> None:
    machine, source = Machine(), growing_source()
    async with traced_in(machine, source, growth=True) as driver:
        exact = leaky_source()
        exact.gates["start"].shut()
        machine.sources.append(exact)
        await driver.press("X")
        await driver.until(lambda: "13 functions" in driver.app.session.status.activity)
        assert "to exact tracing: attaching 13 functions ... (Esc: stay" in driver.text()
        await driver.press("X")  # one at a time
        assert len(machine.opened) == 1
        await driver.tick()  # the old one goes on meanwhile
        await driver.press("escape")
        assert "to exact tracing" not in driver.text()
        exact.gates["start"].open()
        await driver.until(lambda: exact.closed == 1)
        assert mode_of(driver) is True
        assert source.closed == 0


async def test_a_stack_of_the_old_mode_that_is_open_closes() -> None:
    machine = Machine()
    async with traced_in(machine, growing_source(), growth=True) as driver:
        exact = leaky_source()
        exact.gates["start"].shut()
        machine.sources.append(exact)
        await driver.press("X")
        await driver.press("enter")
        assert isinstance(driver.app.screen, DetailScreen)
        exact.gates["start"].open()
        await driver.until(lambda: mode_of(driver) is False)
        assert isinstance(driver.app.screen, MainScreen)


async def test_quitting_while_it_changes_closes_both() -> None:
    machine, source, exact = Machine(), growing_source(), leaky_source()
    async with traced_in(machine, source, growth=True) as driver:
        exact.gates["start"].shut()
        machine.sources.append(exact)
        await driver.press("X")
        await driver.until(exact.gates["start"].reached.is_set)
        await driver.press("q")
        exact.gates["start"].open()
        await driver.until(lambda: exact.closed == 1 and source.closed == 1)


async def test_what_has_one_mode_says_why() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("X")
        assert "! not changed: growth mode and exact tracing are two ways" in driver.text()
    why = "growth mode is of one process, not of several"
    async with driving(leaky_source(), modes=Machine().modes_of(fixed=why)) as driver:
        await driver.press("X")
        assert f"! not changed: {why}" in driver.text()


async def test_what_is_over_has_no_other_mode() -> None:
    machine, source = Machine(), leaky_source()
    source.snapshots = [snapshot(60.0, sites_at(60), note="leaky (4242) exited after 60 s")]
    async with traced_in(machine, source, growth=False) as driver:
        await driver.press("X")
        assert "! not changed: the target is no longer traced" in driver.text()
        assert machine.opened == []


async def _question(driver: PickerDriver) -> str:
    await driver.press("enter")
    await driver.until(lambda: isinstance(driver.app.screen, QuestionScreen))
    return " ".join(driver.text().split())


async def test_a_process_that_would_be_slowed_is_offered_growth_mode() -> None:
    machine = Machine()
    machine.estimate = DEAR
    async with picking_from(machine) as driver:
        machine.estimate_gate.shut()
        await driver.press("enter")
        await driver.until(machine.estimate_gate.reached.is_set)
        assert "measuring what exact tracing would cost 4242 (leaky) ... (Esc" in driver.text()
        machine.estimate_gate.open()
        await driver.until(lambda: isinstance(driver.app.screen, QuestionScreen))
        text = " ".join(driver.text().split())
        assert "exact tracing would slow 4242 (leaky) by about 35 %" in text
        assert "(210k calls/s x 1.6 us)" in text
        assert machine.opened == []
        machine.sources.append(growing_source())
        await driver.press("enter")
        await driver.until(lambda: isinstance(driver.app.screen, MainScreen))
        assert machine.modes == [True]
        machine.sources.append(leaky_source())
        await driver.press("X")  # one key goes on to exact tracing
        await driver.until(lambda: mode_of(driver) is False)
        await driver.press("escape")
        assert driver.app.screen_stack == [driver.picker]


async def test_exact_all_the_same() -> None:
    machine = Machine()
    machine.estimate = DEAR
    async with picking_from(machine) as driver:
        await _question(driver)
        await driver.press("j", "x")
        await driver.until(lambda: isinstance(driver.app.screen, MainScreen))
        assert machine.modes == [False]


async def test_neither() -> None:
    machine = Machine()
    machine.estimate = DEAR
    async with picking_from(machine) as driver:
        await _question(driver)
        await driver.press("escape")
        assert driver.app.screen_stack == [driver.picker]
        assert driver.picker.status.attaching == ""
        assert machine.opened == []
        await _question(driver)


async def test_a_process_that_is_hardly_slowed_is_traced_at_once() -> None:
    machine, source = Machine(), leaky_source()
    machine.estimate = CHEAP
    source.gates["start"].shut()
    machine.sources.append(source)
    async with picking_from(machine) as driver:
        await driver.press("enter")
        await driver.until(lambda: "13 functions" in driver.picker.status.attaching)
        says = "attaching to 4242 (leaky), slowing it by less than 1 %: attaching 13 functions"
        assert says in " ".join(driver.text().split())
        source.gates["start"].open()
        await driver.until(lambda: isinstance(driver.app.screen, MainScreen))
        assert machine.modes == [False]


async def test_escape_ends_the_estimate() -> None:
    machine = Machine()
    machine.estimate = DEAR
    async with picking_from(machine) as driver:
        machine.estimate_gate.shut()
        await driver.press("enter")
        await driver.until(machine.estimate_gate.reached.is_set)
        await driver.press("escape")
        assert "measuring" not in driver.text()
        machine.estimate_gate.open()
        await driver.until(lambda: machine.stopped == 1)
        assert driver.app.screen_stack == [driver.picker]
        # its answer came too late for this one
        machine.estimate = CHEAP
        await driver.attached(leaky_source())
        assert machine.modes == [False]


async def test_what_tracing_costs_is_said_where_it_is_much() -> None:
    machine, source = Machine(), leaky_source()
    source.snapshots = [
        replace(
            snapshot(float(second), sites_at(second)),
            target=replace(TARGET, busy_s=0.9 * second),
            totals=Counters(1 << 20, 1000, 150_000 * second, 150_000 * second),
        )
        for second in range(1, 5)
    ]
    async with traced_in(machine, source, growth=False) as driver:
        await driver.until(lambda: driver.app._costing.of_a_call is not None)
        await driver.tick()
        await driver.tick()
        # 0.3 s a second are tracing's, 0.6 s its own
        says = "! slowed by about 50 % (150k calls/s x 2.0 us): X growth, + sample"
        assert says in driver.text()
        await driver.press("question_mark")
        assert "Tracing slows it by about 50 %" in driver.text()
        await driver.press("escape")
        machine.sources.append(growing_source())
        await driver.press("X", "enter")
        await driver.until(lambda: mode_of(driver) is True)
        await driver.tick()
        assert "! slowed" not in driver.text()


async def test_the_chart_of_a_stack_s_pages() -> None:
    machine = Machine()
    async with traced_in(machine, growing_source(range(1, 9)), growth=True) as driver:
        for _ in range(7):
            await driver.tick()
        await driver.press("j", "j")
        screen = await driver.opened()
        await driver.until(lambda: len(screen._chart._values) == 8)
        lines = driver.text().split("\n")
        first = next(i for i, line in enumerate(lines) if "NEW PAGES of this stack" in line)
        chart = [line[8:16] for line in lines[first + 1 : -1]]
        # what the leak took grows evenly from the first tick to the last, which is the greatest
        assert [len(line.rstrip()) for line in chart] == [8] * len(chart)
        assert chart[0].startswith("   ")
        assert chart[0].endswith("█")
        assert set(chart[-1][2:]) == {"█"}
        assert lines[first + 1].startswith("   148K")
        assert "blocks" not in lines[-1]
        assert "log" not in lines[-1]
