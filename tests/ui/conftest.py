"""The screen is driven by the tests: no tick comes unless asked for."""

import pytest

from leaktop import collector


@pytest.fixture(autouse=True)
def _only_asked_for_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_FIRST_TICK_S", 3600.0)
    for name in ("NO_COLOR", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)
