"""Drives the app in tests: waits for what is to happen, never for time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from textual.pilot import Pilot

from leaktop.app import LeaktopApp
from leaktop.command import Command
from leaktop.config import Config
from leaktop.model import Filters, SortKey
from leaktop.screens.detail import DetailScreen
from leaktop.screens.main import MainScreen
from leaktop.widgets.status_bar import Stage
from tests.ui.scripted import ScriptedSource

NEVER = 3600.0


def make_app(
    source: ScriptedSource,
    *,
    filters: Filters | None = None,
    sort: SortKey = SortKey.BYTES,
    ascii_only: bool = False,
    iterations: int | None = None,
    command: Command | None = None,
    config: Config | None = None,
    exports: Sequence[Path] = (),
) -> LeaktopApp:
    return LeaktopApp(
        source,
        command=command,
        filters=filters or Filters(),
        delay_s=NEVER,
        sort=sort,
        ascii_only=ascii_only,
        iterations=iterations,
        config=config or Config(),
        exports=exports,
    )


class Driver:
    """An app, its source and its pilot."""

    def __init__(self, app: LeaktopApp, source: ScriptedSource, pilot: Pilot[int]) -> None:
        self.app = app
        self.source = source
        self.pilot = pilot

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.002)
        await self.pilot.pause()

    async def traced(self) -> None:
        await self.until(lambda: self.app.session.status.stage is Stage.TRACING)

    async def tick(self, *, named: bool = True) -> None:
        """Have the next snapshot read, and wait until it and its names are here."""
        before = self.app.session.latest
        self.app.session.collector.tick_now()
        await self.until(lambda: self.app.session.latest is not before)
        if named:
            await self.named()

    async def named(self) -> None:
        latest = self.app.session.latest
        assert latest is not None
        sites = latest.reading.snapshot.sites
        await self.until(lambda: all(site.stack_id in self.app.session.names for site in sites))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def opened(self) -> DetailScreen:
        """Open the selected stack and wait for all that can be had of it."""
        await self.press("enter")
        screen = self.app.screen
        assert isinstance(screen, DetailScreen)
        stack_id = screen.site.stack_id
        await self.until(
            lambda: (
                (not self.source.details.get(stack_id) or screen.has_detail)
                and (not self.source.lines.get(stack_id) or bool(screen._lines))
            )
        )
        return screen

    @property
    def main(self) -> MainScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, MainScreen)
        return screen

    @property
    def selected(self) -> int:
        site = self.main.table.selected
        assert site is not None
        return site.stack_id

    @property
    def order(self) -> list[int]:
        return [site.stack_id for site in self.main.table._rows.sites]

    def text(self) -> str:
        """Return all that is on the screen."""
        compositor = self.app.screen._compositor
        return "\n".join(strip.text for strip in compositor.render_strips())


@asynccontextmanager
async def driving(
    source: ScriptedSource,
    *,
    size: tuple[int, int] = (80, 24),
    ticked: bool = True,
    **options: object,
) -> AsyncIterator[Driver]:
    app = make_app(source, **options)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        driver = Driver(app, source, pilot)
        if ticked:
            await driver.traced()
            await driver.tick()
        yield driver
