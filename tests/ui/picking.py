"""A machine with processes, made up, and an app that begins with the picker."""

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from leaktop.app import LeaktopApp
from leaktop.candidates import Estimate, Process, Processes
from leaktop.model import Filters
from leaktop.modes import Modes, Opening
from leaktop.picking import Picking
from leaktop.screens.picker import PickerScreen
from leaktop.source import SourceError
from tests.ui.driving import NEVER, Driver
from tests.ui.scripted import Gate, ScriptedSource, leaky_source

MB = 1 << 20


def process(
    pid: int, rss: float, growth: float | None = 0.0, command: str = "", **more: object
) -> Process:
    """A process of ``rss`` MB that grows by ``growth`` MB a minute."""
    trend = [int(MB * (rss + (growth or 0) * (t - 59) / 60)) for t in range(60)]
    known = Process(
        pid,
        start_time=pid * 100,
        comm=command.partition(" ")[0][:15],
        rss=int(rss * MB),
        user="root",
        command=command,
        age_s=3600.0 * (pid % 50),
        growth=None if growth is None else growth * MB,
        span_s=59.0,
        trend=trend if growth is not None else trend[-1:],
    )
    return replace(known, **more)  # type: ignore[arg-type]


LEAKY = process(4242, 48, 12.5, "leaky --rate 5", folder="/opt/app/", user="app", threads=4)
CACHE = process(
    977, 912, 3.25, "java -Xmx2g -jar cache.jar", folder="/usr/bin/", user="app", threads=61
)
DATABASE = process(801, 1400, -2, "postgres: checkpointer ", user="postgres-main", comm="postgres")
SHELL = process(1200, 5.5, 0, "bash", folder="/bin/")
HOSTILE = process(6666, 10, 0.25, "evil \x1b[31m[bold]\u202ex\n", user="\x1b[2J", comm="e\x1b[0m")
NAMELESS = process(31, 2, 0, "", comm="agetty", user="")
YOUNG = process(7001, 3, 1, "make -j8", folder="/usr/bin/", span_s=3.0)
NEW = process(7002, 30, None, "cc1 -quiet main.c", folder="/usr/lib/gcc/x86_64-linux-gnu/12/")
ALL = (LEAKY, CACHE, DATABASE, SHELL, HOSTILE, NAMELESS, YOUNG, NEW)


CHEAP = Estimate(1200.0, 2e-6, 0.25)
DEAR = Estimate(210_000.0, 1.6e-6, 0.95)


class Machine:
    """What ``Picking`` and ``Modes`` are made of; every call can be held and watched by a test."""

    def __init__(self, processes: Sequence[Process] = ALL) -> None:
        self.processes = list(processes)
        self.reads = 0
        self.sources: list[ScriptedSource] = []
        self.opened: list[Process] = []
        self.modes: list[bool] = []
        """In growth mode or not, each that was opened."""
        self.filters: list[Filters] = []
        self.estimated: list[Process] = []
        self.estimate: Estimate | SourceError = SourceError("not to be told")
        self.estimate_gate = Gate()
        self.stopped = 0
        self.refusal: SourceError | None = None
        self.open_gate = Gate()
        self.held: Gate | None = None

    def read(self) -> Processes:
        self.reads += 1
        return Processes(list(self.processes), 8 << 30, 3 << 30)

    def open_source(self, wanted: Opening) -> ScriptedSource:
        self.opened.append(wanted.process)
        self.modes.append(wanted.growth)
        self.filters.append(wanted.filters)
        self.open_gate()
        if self.refusal is not None:
            raise self.refusal
        return self.sources.pop(0) if self.sources else leaky_source()

    def estimate_of(self, wanted: Process, stop: threading.Event) -> Estimate:
        self.estimated.append(wanted)
        self.estimate_gate()
        self.stopped += stop.is_set()
        if isinstance(self.estimate, SourceError):
            raise self.estimate
        return self.estimate

    def modes_of(self, process: Process | None = None, **more: object) -> Modes:
        return Modes(self.open_source, self.estimate_of, lambda: 2e-6, process, **more)  # type: ignore[arg-type]


class PickerDriver(Driver):
    """Drives an app that began with the picker."""

    def __init__(self, app: LeaktopApp, machine: Machine, pilot: object) -> None:
        super().__init__(app, leaky_source(), pilot)  # type: ignore[arg-type]
        self.machine = machine

    @property
    def picker(self) -> PickerScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, PickerScreen)
        return screen

    @property
    def pids(self) -> list[int]:
        return [each.pid for each in self.picker.table._rows.processes]

    @property
    def picked(self) -> int:
        selected = self.picker.table.selected
        assert selected is not None
        return selected.pid

    async def read(self) -> None:
        """Have the processes read, and wait until the picker has them."""
        before = self.picker._latest
        assert self.app._attaching is not None
        self.app._attaching.watcher.read_now()
        await self.until(lambda: self.picker._latest is not before)

    async def attached(self, source: ScriptedSource) -> None:
        """Attach to the selected process by ``source``, and wait for the table of stacks."""
        self.source = source
        self.machine.sources.append(source)
        await self.press("enter")
        await self.until(lambda: len(self.app.screen_stack) == 2)


def make_picker(machine: Machine, *, warning: str = "", ascii_only: bool = False) -> LeaktopApp:
    picking = Picking(machine.read, warning, delay_s=NEVER)
    return LeaktopApp(
        picking=picking,
        modes=machine.modes_of(),
        filters=Filters(),
        delay_s=NEVER,
        ascii_only=ascii_only,
    )


@asynccontextmanager
async def picking_from(
    machine: Machine, *, size: tuple[int, int] = (80, 24), warning: str = ""
) -> AsyncIterator[PickerDriver]:
    app = make_picker(machine, warning=warning)
    async with app.run_test(size=size) as pilot:
        driver = PickerDriver(app, machine, pilot)
        await driver.until(lambda: driver.picker._latest is not None)
        yield driver
