"""`make demo`, as the README tells to try it; `make` has done the set-up before these tests."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.harness import ROOT, Leaktop, parse, run_leaktop, wait_until
from tests.live.terminal import ENTER, Terminal

pytestmark = pytest.mark.live

DEMO = (str(ROOT / "scripts" / "demo.sh"),)
LEAK = "open_session"


@pytest.fixture
def start_demo() -> Iterator[Callable[..., Leaktop]]:
    started: list[Leaktop] = []

    def start(*args: str) -> Leaktop:
        started.append(Leaktop(*args, command=DEMO))
        return started[-1]

    yield start
    for demo in started:
        demo.close()


def example_pid(text: str) -> int:
    found = re.search(r"tracing (\d+) \(leaky\)|leaktop +(\d+) leaky", text)
    assert found is not None, text
    return int(found[1] or found[2])


def assert_ends(pid: int) -> None:
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the example ends")


def test_without_a_terminal_three_snapshots(start_demo: Callable[..., Leaktop]) -> None:
    demo = start_demo()
    assert demo.wait() == 0
    text = "\n".join(demo.out.seen)
    assert text.count("stacks with outstanding allocations:") == 3
    # The churn holds nothing for long; the cache and the leak do.
    assert f"{LEAK}+" in text
    assert "cache_load+" in text
    assert_ends(example_pid("\n".join(demo.err.seen)))


def test_arguments_are_passed_on_and_figures_tell_leak_from_cache(
    start_demo: Callable[..., Leaktop],
) -> None:
    demo = start_demo("--json", "-n", "2")
    assert demo.wait() == 0
    first, second = (parse(line) for line in demo.out.seen)

    def held(snapshot: dict[str, object], function: str) -> int:
        stacks = snapshot["stacks"]
        assert isinstance(stacks, list)
        return sum(s["count"] for s in stacks if s["frames"][0]["symbol"] == function)

    assert 0 < held(first, LEAK) < held(second, LEAK)
    # The bounded cache: 1000 pages of two blocks, and one page more while another makes room.
    assert held(second, "cache_load") <= 2002
    assert second["totals"]["allocs"] > 10 * second["totals"]["count"]
    assert not any(second["lost"].values())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_example_ends_with_the_demo(
    how: signal.Signals, start_demo: Callable[..., Leaktop]
) -> None:
    demo = start_demo("-n", "1000000", "--json")
    line = ""
    while "tracing" not in line:
        line = demo.err.next()
    pid = example_pid(line)
    demo.stop(how)
    assert_ends(pid)


def test_where_tracing_is_not_permitted_a_recording_is_shown() -> None:
    # as in a container: root without what BPF needs
    confined = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-all", *DEMO)
    demo = run_leaktop("--json", command=confined)
    assert demo.code == 0
    text = "\n".join(demo.err)
    assert "needs CAP_BPF" in text
    assert "demo: so this is a recording of it" in text
    assert [parse(line)["target"]["comm"] for line in demo.out] == ["leaky"] * 3


def test_on_a_terminal_the_screen() -> None:
    terminal = Terminal(command=DEMO)
    try:
        terminal.wait_for(rf"{LEAK} \[leaky\]")
        text = terminal.wait_for(r"cache_load \[leaky\]")
        pid = example_pid(text)
        terminal.press(ENTER)
        terminal.wait_for(r"leaky\.c:\d+")
        terminal.press("q")
        assert terminal.wait() == 0
        assert_ends(pid)
    finally:
        terminal.close()
