"""Draw the pictures in docs/ anew, from the recording of examples/leaky.c that is shipped.

Run: .venv/bin/python scripts/pictures.py
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from textual.pilot import Pilot

from leaktop.app import LeaktopApp
from leaktop.model import Filters, SortKey
from leaktop.player import Player
from leaktop.screens.detail import DetailScreen
from leaktop.screens.main import MainScreen
from leaktop.source.replay import ReplaySource

ROOT = Path(__file__).parents[1]
SIZE = (100, 22)


async def main() -> None:
    """Play the recording through once and stop where there is something to see."""
    source = ReplaySource(ROOT / "examples" / "leaky.leaktop")
    app = LeaktopApp(
        source,
        filters=Filters(),
        sort=SortKey.BYTES,
        play=partial(Player, source),
    )

    def draw(name: str) -> None:
        path = ROOT / "docs" / f"{name}.svg"
        path.write_text(app.export_screenshot(title="leaktop", simplify=True))
        print(path.relative_to(ROOT))

    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.session.latest is not None)
        await pilot.press("space")
        for _ in range(20):
            await step(pilot, app, "full_stop")
        draw("main")
        await pilot.press("m")
        await step(pilot, app, "right_curly_bracket")
        await pilot.press("d")
        await settle(pilot)
        draw("grown")
        await pilot.press("d", "M", "less_than_sign")
        await until(pilot, lambda: main_screen(app).sort is SortKey.SUSPECT)
        await pilot.press("g")
        await settle(pilot)
        draw("suspect")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DetailScreen) and app.screen.has_detail)
        await settle(pilot)
        draw("detail")
        await pilot.press("escape", "t")
        await settle(pilot)
        draw("tree")


def main_screen(app: LeaktopApp) -> MainScreen:
    """Return the table's screen, which is on top."""
    assert isinstance(app.screen, MainScreen)
    return app.screen


async def step(pilot: Pilot[int], app: LeaktopApp, key: str) -> None:
    """Move along the time line, and wait for the snapshot there."""
    before = app.session.latest
    await pilot.press(key)
    await until(pilot, lambda: app.session.latest is not before)


async def settle(pilot: Pilot[int]) -> None:
    """Let names and lines come in, whose number nobody knows."""
    for _ in range(10):
        await pilot.pause(0.1)


async def until(pilot: Pilot[int], holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    while not holds():
        await pilot.pause(0.02)


if __name__ == "__main__":
    asyncio.run(main())
