"""The whole program in a real pseudo-terminal, on a real process."""

import re
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.live.conftest import StartTarget
from tests.live.harness import TargetProcess, wait_until
from tests.live.terminal import ENTER, ESCAPE, Terminal
from tests.live.traces import assert_no_probe_left, changed_code

pytestmark = pytest.mark.live

Open = Callable[..., Terminal]


@pytest.fixture
def open_terminal() -> Iterator[Open]:
    opened: list[Terminal] = []

    def start(target: TargetProcess, columns: int = 80, rows: int = 24) -> Terminal:
        arguments = ("-p", str(target.pid), "-d", "0.2")
        opened.append(Terminal(*arguments, columns=columns, rows=rows))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def blocks_held(text: str) -> float | None:
    """The number of blocks that the status bar gives, None where it gives none yet."""
    found = re.search(r"blocks ~?([\d.,]+)([kKM]?)", text)
    if found is None:
        return None
    return float(found[1].replace(",", "")) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6}[found[2]]


def test_from_the_table_to_the_line_and_through_the_filters(
    start_target: StartTarget, open_terminal: Open
) -> None:
    target = start_target("phases")
    terminal = open_terminal(target)
    terminal.wait_for(r"\[tracing\]")
    target.tell("leak 10 1000")
    truth = target.tell("leak 5 20")
    (site,) = truth.sites
    terminal.wait_for(r"9\.86K +15 .* leak_phase \[phases\]")

    terminal.press(ENTER)
    terminal.wait_for(rf"leak_phase\+0x[0-9a-f]+ \[phases\] +phases\.c:{site.line}\b")
    text = terminal.wait_for(r"AGE +BYTES +BLOCKS")
    assert "SOURCE" in text
    assert "void *block = malloc(size)" in text
    assert re.search(r"main\+0x", text)
    terminal.press(ESCAPE)
    terminal.wait_for(r"▸ +9\.86K +15 ")

    # What is too small from now on is left out; what is held already stays.
    terminal.press("z")
    terminal.wait_for(r"min size")
    # The prompt holds the limit in force.
    terminal.press("\x15", "4k", ENTER)
    terminal.wait_for(r"min 4(\.00)?[kK]\b")
    target.tell("leak 100 100")
    target.tell("leak 3 5000")
    terminal.wait_until(lambda text: blocks_held(text) == 18, "3 of 103 blocks are counted")

    terminal.press("+", "+", "+")
    terminal.wait_for(r"sample 1 in 10\b")
    target.tell("leak 4000 5000")
    # One in ten is kept, so the estimate's standard error is 190 blocks: six of them.
    terminal.wait_until(
        lambda text: abs((blocks_held(text) or 0) - 4018) < 1140, "about 4018 blocks"
    )
    assert re.search(r"blocks ~", terminal.text())

    terminal.press("q")
    assert terminal.wait() == 0
    assert_no_probe_left(target.pid)
    # Unharmed: it still computes and ends as it should, which start_target checks.
    target.tell("churn 1000 10")


def test_nothing_is_said_but_the_screen(start_target: StartTarget, open_terminal: Open) -> None:
    target = start_target("phases")
    terminal = open_terminal(target)
    terminal.wait_for(r"\[tracing\]")
    terminal.press("q")
    assert terminal.wait() == 0
    # It left the alternate screen, showed the cursor again, and wrote nothing after that.
    assert terminal.raw.rfind(b"\x1b[?1049l") > terminal.raw.rfind(b"\x1b[?1049h")
    assert terminal.raw.rfind(b"\x1b[?25h") > terminal.raw.rfind(b"\x1b[?25l")
    assert b"Traceback" not in terminal.raw


def test_target_that_exits_stays_on_screen(start_target: StartTarget, open_terminal: Open) -> None:
    target = start_target("phases")
    terminal = open_terminal(target)
    terminal.wait_for(r"\[tracing\]")
    truth = target.tell("leak 8 512")
    terminal.wait_for(r"leak_phase \[phases\]")
    target.say("exit 0")
    terminal.wait_for(r"exited")
    assert "leak_phase [phases]" in terminal.text()
    terminal.press(ENTER)
    terminal.wait_for(rf"phases\.c:{truth.sites[0].line}\b")
    terminal.press("q")
    assert terminal.wait() == 0


def test_hang_up_ends_it_and_takes_the_probes_out(
    start_target: StartTarget, open_terminal: Open
) -> None:
    target = start_target("phases")
    terminal = open_terminal(target)
    terminal.wait_for(r"\[tracing\]")
    assert changed_code(target.pid)
    terminal.hang_up()
    wait_until(lambda: not terminal.process.isalive(), "leaktop ends with its terminal")
    assert_no_probe_left(target.pid)
    target.tell("churn 1000 10")


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_quitting_while_it_attaches(
    key: str, start_target: StartTarget, open_terminal: Open
) -> None:
    target = start_target("phases")
    terminal = open_terminal(target)
    terminal.wait_for(r"\bcompiling|attaching|\[tracing\]")
    terminal.press(key)
    assert terminal.wait() == 0
    assert b"Traceback" not in terminal.raw
    assert_no_probe_left(target.pid)


def test_terminal_that_is_too_small(start_target: StartTarget, open_terminal: Open) -> None:
    target = start_target("phases")
    terminal = open_terminal(target, columns=40, rows=8)
    terminal.wait_for(r"too small")
    terminal.resize(80, 24)
    terminal.wait_for(r"\[tracing\]")
    target.tell("leak 3 100")
    terminal.wait_for(r"leak_phase \[phases\]")
    terminal.resize(30, 5)
    terminal.wait_for(r"too small")
    terminal.press("q")
    assert terminal.wait() == 0


def test_failure_to_start_is_said_without_a_screen() -> None:
    terminal = Terminal("-p", "4194304")
    try:
        assert terminal.wait() == 4
        assert b"leaktop: " in terminal.raw
        assert b"4194304" in terminal.raw
        assert b"\x1b[?1049h" not in terminal.raw
    finally:
        terminal.close()


_BUGGY = r"""
import sys
from leaktop.screens.main import MainScreen
from leaktop.widgets.site_table import SiteTable
from leaktop.cli import main
def fail(*unused):
    raise ZeroDivisionError("no \x1b[2J\nsuch luck")
if sys.argv[1] == "handler":
    MainScreen.action_reverse = fail
else:
    MainScreen.action_reverse = lambda self: setattr(SiteTable, "line", fail) or self.refresh()
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("where", ["handler", "drawing"])
def test_a_bug_in_the_screen_is_said_and_leaves_nothing(
    where: str, start_target: StartTarget
) -> None:
    target = start_target("phases")
    terminal = Terminal(
        *("-p", str(target.pid), "-d", "0.2"), command=(sys.executable, "-c", _BUGGY, where)
    )
    try:
        terminal.wait_for(r"\[tracing\]")
        assert changed_code(target.pid)
        terminal.press("r")
        assert terminal.wait() == 1
        screen, _, after = terminal.raw.rpartition(b"\x1b[?1049l")
        assert b"\x1b[?1049h" in screen
        said = b"leaktop: internal error (ZeroDivisionError: no ?[2J"
        assert said in after
        assert b"\x1b[?25h" in terminal.raw
        assert b"Traceback" not in terminal.raw
        assert_no_probe_left(target.pid)
        target.tell("churn 1000 10")
    finally:
        terminal.close()


def test_no_color_and_ascii(start_target: StartTarget) -> None:
    target = start_target("phases")
    terminal = Terminal(
        *("-p", str(target.pid), "-d", "0.2", "--ascii"), extra_environment={"NO_COLOR": "1"}
    )
    try:
        terminal.wait_for(r"\[tracing\]")
        target.tell("leak 3 100")
        terminal.wait_for(r"leak_phase \[phases\]")
        terminal.press(ENTER)
        terminal.wait_for(r"phases\.c:\d+")
        terminal.press("q")
        assert terminal.wait() == 0
        assert terminal.raw.isascii()
        colours = re.compile(
            rb"\x1b\[[\d;]*?\b(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;[25])\b[\d;]*m"
        )
        assert colours.findall(terminal.raw) == []
    finally:
        terminal.close()
