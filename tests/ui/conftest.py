"""The screen is driven by the tests: no tick comes unless asked for, no key waits for time."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from typing import cast

import pytest
import textual.app
import textual.pilot

from leaktop import ticking


@pytest.fixture(autouse=True)
def _only_asked_for_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticking, "_FIRST_TICK_S", 3600.0)
    for name in ("NO_COLOR", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _same_clock_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(autouse=True)
def _idle_is_nothing_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the app for idle once its loop has nothing to run.

    Textual waits, twice a key, until the process has used next to no processor for 20 ms, which is
    most of the time that tests would take, and a guess: another thread, or a busy machine, counts.
    """
    for module in (textual.app, textual.pilot):
        monkeypatch.setattr(module, "wait_for_idle", nothing_to_run)


async def nothing_to_run(min_sleep: float = 0, max_sleep: float = 0) -> None:
    loop = asyncio.get_running_loop()
    ready = cast("deque[asyncio.Handle]", loop._ready)  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    while ready:
        await asyncio.sleep(0)
