"""The process picker in a real pseudo-terminal, on real processes."""

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.live.conftest import Builder, OpenTerminal, StartTarget
from tests.live.harness import LEAKTOP, wait_until
from tests.live.terminal import ENTER, ESCAPE, Terminal
from tests.live.traces import assert_no_probe_left, changed_code

pytestmark = pytest.mark.live

NOBODY = "65534"


def filter_for(terminal: Terminal, text: str) -> None:
    terminal.press("/")
    terminal.wait_for(r"filter /")
    terminal.press(text, ENTER)
    terminal.wait_for(rf"text /{re.escape(text)} ")


def test_from_the_list_to_the_stacks_and_back(
    start_target: StartTarget, open_terminal: OpenTerminal
) -> None:
    target = start_target("phases")
    terminal = open_terminal()
    terminal.wait_for(r"which process\?")
    filter_for(terminal, str(target.pid))
    terminal.wait_for(rf"▸ +{target.pid} .* phases")
    # It is measured, and what it takes is seen to grow, before anything is attached.
    target.tell("leak 64 1000000")
    terminal.wait_for(rf"▸ +{target.pid} .* ~?\+[\d.]+[MG] .* phases")
    assert changed_code(target.pid) == []

    terminal.press(ENTER)
    terminal.wait_for(r"\[tracing\]")
    target.tell("leak 10 1000")
    terminal.wait_for(r"▸ +9\.77K +10 .* leak_phase \[phases\]")
    assert changed_code(target.pid)

    terminal.press(ESCAPE)
    terminal.wait_for(rf"which process\?(?s:.*)▸ +{target.pid} .* phases")
    assert_no_probe_left(target.pid)
    terminal.wait_for(r"detaching from", gone=True)

    # And once more: nothing of the first session is left in the second one's figures.
    terminal.press(ENTER)
    terminal.wait_for(r"\[tracing\]")
    target.tell("leak 7 500")
    terminal.wait_for(r"▸ +3\.42K +7 .* leak_phase \[phases\]")
    terminal.press("q")
    assert terminal.wait() == 0
    assert_no_probe_left(target.pid)
    assert b"Traceback" not in terminal.raw
    target.tell("churn 1000 10")


@pytest.fixture
def bare(build: Builder) -> Iterator[int]:
    """The PID of a program without an allocator."""
    with subprocess.Popen(
        [build("bare")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate()
        assert process.returncode == 0


def test_what_cannot_be_traced_is_said_and_the_list_goes_on(
    bare: int, start_target: StartTarget, open_terminal: OpenTerminal
) -> None:
    other = start_target("phases")
    terminal = open_terminal(columns=120)
    terminal.wait_for(r"which process\?")
    filter_for(terminal, str(bare))
    terminal.wait_for(rf"▸ +{bare} ")
    terminal.press(ENTER)
    terminal.wait_for(r"! NOT ATTACHED: .*\b(allocat|malloc)")
    terminal.press(ESCAPE, ESCAPE)
    terminal.wait_for(r"NOT ATTACHED", gone=True)

    filter_for(terminal, str(other.pid))
    terminal.wait_for(rf"▸ +{other.pid} ")
    terminal.press(ENTER)
    terminal.wait_for(r"\[tracing\]")
    # The target's end is said where it is traced, and the list is there again.
    other.say("quit")
    terminal.wait_for(r"exited")
    terminal.press(ESCAPE)
    terminal.wait_for(r"which process\?")
    terminal.press("q")
    assert terminal.wait() == 0


def test_stopping_while_it_attaches(start_target: StartTarget, open_terminal: OpenTerminal) -> None:
    target = start_target("phases")
    terminal = open_terminal()
    terminal.wait_for(r"which process\?")
    filter_for(terminal, str(target.pid))
    terminal.wait_for(rf"▸ +{target.pid} ")
    terminal.press(ENTER)
    terminal.wait_for(r"attaching to|\[tracing\]")
    terminal.press(ESCAPE)
    terminal.wait_for(r"which process\?")
    terminal.wait_for(r"attaching to|detaching from", gone=True)
    terminal.press("q")
    assert terminal.wait() == 0
    assert_no_probe_left(target.pid)


def test_hang_up_of_what_was_picked(start_target: StartTarget, open_terminal: OpenTerminal) -> None:
    target = start_target("phases")
    terminal = open_terminal()
    filter_for(terminal, str(target.pid))
    terminal.wait_for(rf"▸ +{target.pid} ")
    terminal.press(ENTER)
    terminal.wait_for(r"\[tracing\]")
    terminal.hang_up()
    wait_until(lambda: not terminal.process.isalive(), "leaktop ends with its terminal")
    assert_no_probe_left(target.pid)


def test_without_privilege_the_list_says_what_attaching_needs(open_terminal: OpenTerminal) -> None:
    # The one capability lets nobody read a checkout in root's folder, and does not help to trace.
    as_nobody = (
        *("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"),
        *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
    )
    terminal = open_terminal(command=(*as_nobody, *LEAKTOP), columns=160)
    terminal.wait_for(r"! tracing another process needs CAP_BPF, .*: run it with sudo")
    terminal.wait_for(rf"(?m)^.? +{os.getpid()} ")
    terminal.press(ENTER)
    terminal.wait_for(r"! NOT ATTACHED: .*CAP_BPF")
    terminal.press("q")
    assert terminal.wait() == 0
