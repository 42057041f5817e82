"""What the user's configuration changes on the screen."""

from pathlib import Path

import pytest

from leaktop.config import Config
from tests.ui.driving import driving, make_app
from tests.ui.scripted import leaky_source

FILE = Path("/home/me/.config/leaktop/config.toml")


def test_theme_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    nord = Config(FILE, theme="nord")
    assert make_app(leaky_source(), config=nord).theme == "nord"
    assert make_app(leaky_source(), config=Config(theme="terminal")).theme == "ansi-dark"
    monkeypatch.setenv("TEXTUAL_THEME", "dracula")
    assert make_app(leaky_source(), config=nord).theme != "nord"


def test_no_color_beats_a_theme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert make_app(leaky_source(), config=Config(FILE, theme="nord")).theme == "ansi-dark"


async def test_columns_of_the_configuration() -> None:
    async with driving(leaky_source(), config=Config(columns=("frees", "bytes"))) as driver:
        titles = next(line for line in driver.text().splitlines() if "WHERE" in line)
        assert titles.split()[:3] == ["FREES", "BYTES▼", "WHERE"]


async def test_what_is_wrong_is_said_until_the_help_was_read() -> None:
    config = Config(
        FILE, columns=("bites", "bytes"), theme="nrod", problems=("delay: 0 is no time",)
    )
    async with driving(leaky_source(), size=(100, 60), config=config) as driver:
        assert "config.toml: delay: 0 is no time (and 2 more: see ?)" in driver.text()
        await driver.press("question_mark", "G")
        for said in (
            f"{FILE}: sort, columns, theme and delay",
            "! delay: 0 is no time",
            "! columns: 'bites': there is no such name; do you mean bytes?",
            "! theme: 'nrod': there is no such name; do you mean nord?",
        ):
            assert said in driver.text()
        await driver.press("escape")
        assert "config.toml" not in driver.text()


async def test_nothing_is_said_where_nothing_is_wrong() -> None:
    async with driving(leaky_source(), config=Config(FILE, theme="nord")) as driver:
        assert "config.toml" not in driver.text()
