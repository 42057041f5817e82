"""Growth mode and exact tracing of a real process: from one to the other, and what exact costs."""

import re
import threading

import pytest

from leaktop.tracer import TracerError
from leaktop.tracer.estimate import costs_here, estimate_slowdown
from leaktop.tracer.probes import Choice
from tests.live.conftest import OpenTerminal, StartTarget
from tests.live.terminal import ENTER, ESCAPE
from tests.live.traces import assert_no_probe_left, changed_code

pytestmark = pytest.mark.live


def test_one_key_goes_on_to_exact_tracing_and_back(
    start_target: StartTarget, open_terminal: OpenTerminal
) -> None:
    target = start_target("phases")
    terminal = open_terminal("--growth", "-p", str(target.pid))
    terminal.wait_for(r"\[growth\]")
    assert changed_code(target.pid) == []
    target.tell("leak 1000 4096")
    terminal.wait_for(r"leak_phase \[phases\]")

    terminal.press("X")
    terminal.wait_for(r"\[tracing\]")
    terminal.wait_for(r"ending growth mode", gone=True)
    assert changed_code(target.pid)
    target.tell("leak 10 1000")
    terminal.wait_for(r"▸ +9\.77K +10 .* leak_phase \[phases\]")

    terminal.press("X")
    terminal.wait_for(r"is let go of(?s:.*)Enter growth mode")
    terminal.press(ENTER)
    terminal.wait_for(r"\[growth\]")
    assert_no_probe_left(target.pid)
    target.tell("leak 2000 4096")
    terminal.wait_for(r"▸ +[\d.]+M .* leak_phase \[phases\]")
    terminal.press("q")
    assert terminal.wait() == 0
    assert b"Traceback" not in terminal.raw
    target.tell("churn 1000 10")


def test_what_has_ended_has_no_other_mode(
    start_target: StartTarget, open_terminal: OpenTerminal
) -> None:
    target = start_target("growing")
    terminal = open_terminal("--growth", "-p", str(target.pid), columns=120)
    terminal.wait_for(r"\[growth\]")
    target.say("quit")
    terminal.wait_for(r"target gone|GONE")
    terminal.press("X")
    terminal.wait_for(r"! not changed: the target is no longer traced")
    terminal.press("q")
    assert terminal.wait() == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_what_exact_tracing_costs_a_busy_process(start_target: StartTarget, threads: int) -> None:
    target = start_target("busy", str(threads))
    estimate = estimate_slowdown(target.pid, Choice(), threading.Event())
    # each does nothing but allocate: some 20 ns a pair, of which a probe makes a microsecond
    assert estimate.calls_per_s > 10_000
    assert estimate.slowdown > 1
    assert estimate.much
    assert estimate.call_cost_s == costs_here().pair_s
    assert_no_probe_left(target.pid)


def test_what_it_costs_an_idle_process(start_target: StartTarget) -> None:
    target = start_target("busy")
    stop = threading.Event()
    stop.set()
    estimate = estimate_slowdown(target.pid, Choice(), stop)
    assert estimate.calls_per_s == 0
    assert not estimate.much
    assert_no_probe_left(target.pid)


def test_where_it_cannot_be_told() -> None:
    with pytest.raises(TracerError, match="there is no process"):
        estimate_slowdown(4_194_304, Choice(), threading.Event())


def test_the_picker_offers_growth_mode(
    start_target: StartTarget, open_terminal: OpenTerminal
) -> None:
    target = start_target("busy", "1")
    terminal = open_terminal(columns=100)
    terminal.wait_for(r"which process\?")
    terminal.press("/")
    terminal.wait_for(r"filter /")
    terminal.press(f"^{target.pid}$", ENTER)
    terminal.wait_for(rf"▸ +{target.pid} .* busy")
    terminal.press(ENTER)
    text = terminal.wait_for(r"exact tracing would slow \d+ \(busy\) (several times|by about)")
    assert re.search(r"calls/s x [\d.]+ us", " ".join(text.split()))
    assert_no_probe_left(target.pid)
    terminal.press(ESCAPE)
    terminal.wait_for(r"exact tracing would slow", gone=True)
    terminal.press(ENTER)
    terminal.wait_for(r"exact anyway")
    terminal.press(ENTER)
    terminal.wait_for(r"\[growth\]")
    assert changed_code(target.pid) == []
    terminal.press("q")
    assert terminal.wait() == 0
