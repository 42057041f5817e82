"""Exports by key and on leaving, and one stack copied as text."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from leaktop.handing_on import CLIPBOARD_MAX
from leaktop.screens.detail import DetailScreen
from leaktop.screens.saving import SavingScreen
from leaktop.source import SourceError
from tests.ui.driving import Driver, driving
from tests.ui.scripted import LEAK, leaky_source


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("SUDO_UID", "PKEXEC_UID", "DOAS_USER", "TMUX"):
        monkeypatch.delenv(name, raising=False)


async def asked(driver: Driver, name: str) -> None:
    """Press e, and type another name."""
    await driver.pilot.press("e")
    assert isinstance(driver.app.screen, SavingScreen)
    await driver.pilot.press("ctrl+u", *name)


def said(driver: Driver) -> str:
    return driver.app.session.status.notice


async def told(driver: Driver, words: str) -> None:
    await driver.until(lambda: words in said(driver))
    await driver.pilot.pause()
    assert words in driver.text()


async def test_e_proposes_a_flame_graph_named_after_the_target(tmp_path: Path) -> None:
    async with driving(leaky_source()) as driver:
        await driver.pilot.press("e")
        assert "leaktop-leaky-4242-20260131-120100.svg" in driver.text()
        await driver.pilot.press("enter")
        await told(driver, "flame graph written to /")
        path = tmp_path / "leaktop-leaky-4242-20260131-120100.svg"
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert "session_open" in path.read_text()  # names and lines, looked up or not so far
        assert "session.c:88" in path.read_text()


async def test_the_name_says_the_format(tmp_path: Path) -> None:
    async with driving(leaky_source()) as driver:
        await asked(driver, "x.json")
        await driver.pilot.press("enter")
        await told(driver, "JSON written to")
        assert len(json.loads((tmp_path / "x.json").read_text())["stacks"]) == 7


async def test_another_ending_is_refused_in_place(tmp_path: Path) -> None:
    async with driving(leaky_source()) as driver:
        await asked(driver, "x.png")
        await driver.pilot.press("enter")
        assert isinstance(driver.app.screen, SavingScreen)
        assert "! no format for 'x.png': its name has to end in .svg" in driver.text()
        await driver.pilot.press("escape")
        assert driver.app.screen_stack[-1] is driver.main
        assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").symlink_to("/etc/passwd")
    async with driving(leaky_source()) as driver:
        await asked(driver, "x.csv")
        await driver.pilot.press("enter")
        await told(driver, "x.csv cannot be written: it is a symbolic link")


async def test_a_paused_screen_is_exported_as_it_is(tmp_path: Path) -> None:
    source = leaky_source(60)
    source.snapshots.append(leaky_source(90).snapshots[0])
    async with driving(source) as driver:
        await driver.pilot.press("p")
        await driver.tick()
        await asked(driver, "x.json")
        await driver.pilot.press("enter")
        await told(driver, "JSON written to")
        assert json.loads((tmp_path / "x.json").read_text())["elapsed_s"] == 60.0


async def test_ticks_go_on_while_names_are_looked_up(tmp_path: Path) -> None:
    source = leaky_source()
    async with driving(source) as driver:
        await driver.until(lambda: len(driver.app.session.names) == 7)
        source.gates["resolve"].shut()
        await asked(driver, "x.html")
        await driver.pilot.press("enter")
        await driver.until(source.gates["resolve"].reached.is_set)
        await told(driver, "writing x.html ...")
        await driver.tick()
        source.gates["resolve"].open()
        await told(driver, "report written to")


async def test_a_failed_source_still_gives_what_was_read(tmp_path: Path) -> None:
    source = leaky_source()
    async with driving(source) as driver:
        source.failures["snapshot"] = SourceError("the kernel took it away")
        driver.app.session.collector.tick_now()
        await driver.until(lambda: driver.app.session.status.progress.startswith("the kernel"))
        await asked(driver, "x.html")
        await driver.pilot.press("enter")
        await told(driver, "report written to")
        assert source.threads.get("detail") is None


async def test_y_copies_the_selected_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", "/tmp/tmux")
    async with driving(leaky_source()) as driver:
        await driver.pilot.press("down")
        assert driver.selected == LEAK
        await driver.pilot.press("y")
        await told(driver, "in tmux: set -g set-clipboard on")
        path = tmp_path / "leaktop-leaky-4242-9f31.txt"
        assert driver.app.clipboard == path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
        assert str(path) in said(driver)
        assert "#1  session_open+0x1f [leaky+0x1178] /src/leaky/session.c:88" in path.read_text()
        assert f"/usr/bin/leaky {'c0ffee' * 6}" in path.read_text()


async def test_y_copies_the_stack_that_is_looked_at() -> None:
    async with driving(leaky_source()) as driver:
        await driver.pilot.press("down", "enter")
        assert isinstance(driver.app.screen, DetailScreen)
        await driver.pilot.press("y")
        await told(driver, "copied, where the terminal takes it (OSC 52)")
        assert "stack 0000000000009f31" in driver.app.clipboard


async def test_without_a_file_it_is_copied_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "leaktop-leaky-4242-cac4e.txt").symlink_to("/etc/passwd")
    async with driving(leaky_source()) as driver:
        await driver.pilot.press("y")
        await told(driver, "copied")
        assert "it is a symbolic link" in said(driver)
        assert "cache_put" in driver.app.clipboard


async def test_a_clipboard_is_bounded() -> None:
    source = leaky_source()
    frame = source.lines[LEAK][1]
    source.lines[LEAK] = tuple([frame] * 2000)
    async with driving(source) as driver:
        await driver.pilot.press("down", "y")
        await told(driver, "copied")
        assert len(driver.app.clipboard.encode()) == CLIPBOARD_MAX


async def test_before_the_first_snapshot_there_is_nothing_to_hand_on() -> None:
    async with driving(leaky_source(), ticked=False) as driver:
        await driver.pilot.press("e", "y")
        assert driver.app.screen is driver.main


async def test_exports_are_written_on_leaving(tmp_path: Path) -> None:
    paths = [tmp_path / "x.folded", tmp_path / "no" / "x.svg"]
    async with driving(leaky_source(), exports=paths) as driver:
        await driver.pilot.press("q")
    (good, bad) = driver.app.exported()
    assert (good.text, good.error) == (f"folded stacks written to {paths[0]}", False)
    assert bad.error
    assert "No such file" in bad.text
    assert "session_open;note_new 1152000" in paths[0].read_text()


async def test_without_a_snapshot_nothing_is_written_on_leaving(tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    async with driving(leaky_source(), ticked=False, exports=[path]) as driver:
        await driver.traced()
    (only,) = driver.app.exported()
    assert (only.text, only.error) == (f"{path} was not written: nothing has been read yet", True)
