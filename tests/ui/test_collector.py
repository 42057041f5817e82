"""The threads end in order from every state, and ask the source only from where they may."""

import threading
from collections.abc import Callable

import pytest
from textual.message import Message

from leaktop import messages as say
from leaktop.app import LeaktopApp
from leaktop.collector import Collector
from leaktop.model import Filters
from leaktop.source import SourceError
from tests.ui.driving import NEVER, driving
from tests.ui.scripted import LEAK, ScriptedSource, leaky_source, sites_at, snapshot


class Inbox:
    """Takes messages and lets a test wait for one."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._came = threading.Condition()

    def __call__(self, message: Message) -> None:
        with self._came:
            self.messages.append(message)
            self._came.notify_all()

    def wait(self, kind: type[Message], count: int = 1) -> Message:
        with self._came:
            assert self._came.wait_for(lambda: len(self.all(kind)) >= count, timeout=60)
        return self.all(kind)[count - 1]

    def all(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kind)]


def collect(source: ScriptedSource) -> tuple[Collector, Inbox]:
    inbox = Inbox()
    collector = Collector(source, inbox, NEVER)
    collector.start()
    return collector, inbox


def join(collector: Collector) -> None:
    """Wait for the tick thread, which closes the source last."""
    collector._ticks.join(60)
    assert not collector._ticks.is_alive()


def test_stop_before_start_and_twice() -> None:
    source = leaky_source()
    collector = Collector(source, lambda _: None, NEVER)
    collector.stop()
    collector.stop()
    assert source.closed == 0


def test_start_twice_is_once() -> None:
    collector, inbox = collect(leaky_source())
    collector.start()
    inbox.wait(say.Ready)
    collector.stop()
    join(collector)
    assert len(inbox.all(say.Ready)) == 1


@pytest.mark.parametrize("state", ["start", "snapshot", "detail"])
def test_stop_returns_while_the_source_is_busy(state: str) -> None:
    source = leaky_source()
    source.gates[state].shut()
    collector, inbox = collect(source)
    if state != "start":
        inbox.wait(say.Ready)
        collector.tick_now() if state == "snapshot" else collector.watch(LEAK)
    assert source.gates[state].reached.wait(60)
    collector.stop()
    assert collector._ticks.is_alive()
    assert source.closed == 0
    posted = len(inbox.messages)
    # Once the source answers, it is closed, and nobody is told anything more but that.
    source.gates[state].open()
    join(collector)
    assert source.closed == 1
    assert [type(message) for message in inbox.messages[posted:]] == [say.Closed]


def _idle(collector: Collector, source: ScriptedSource, inbox: Inbox) -> None:
    inbox.wait(say.Ready)


def _ticked(collector: Collector, source: ScriptedSource, inbox: Inbox) -> None:
    collector.tick_now()
    inbox.wait(say.SnapshotReady)


def _gone(collector: Collector, source: ScriptedSource, inbox: Inbox) -> None:
    source.snapshots = [snapshot(61.0, sites_at(61), note="exited")]
    collector.tick_now()
    inbox.wait(say.TargetGone)


def _failed(collector: Collector, source: ScriptedSource, inbox: Inbox) -> None:
    source.failures["snapshot"] = SourceError("broken")
    collector.tick_now()
    failure = inbox.wait(say.SourceFailed)
    assert isinstance(failure, say.SourceFailed)
    assert failure.started


@pytest.mark.parametrize("reach", [_idle, _ticked, _gone, _failed])
def test_stop_closes_the_source(
    reach: Callable[[Collector, ScriptedSource, Inbox], None],
) -> None:
    source = leaky_source()
    collector, inbox = collect(source)
    reach(collector, source, inbox)
    collector.stop()
    join(collector)
    assert source.closed == 1
    collector._symbols.join(60)
    assert not collector._symbols.is_alive()


def test_failing_to_start_closes_and_ends() -> None:
    source = leaky_source()
    source.failures["start"] = SourceError("no", 4)
    collector, inbox = collect(source)
    failure = inbox.wait(say.SourceFailed)
    assert isinstance(failure, say.SourceFailed)
    assert not failure.started
    join(collector)
    assert source.closed == 1
    collector.stop()


def test_even_a_failing_close_ends_the_thread() -> None:
    source = leaky_source()
    source.failures["close"] = SourceError("cannot detach")
    collector, inbox = collect(source)
    inbox.wait(say.Ready)
    collector.stop()
    join(collector)
    assert source.closed == 1


def test_slow_names_never_delay_a_tick_or_the_end() -> None:
    source = leaky_source()
    source.gates["resolve"].shut()
    collector, inbox = collect(source)
    collector.want_names([LEAK], [])
    assert source.gates["resolve"].reached.wait(60)
    inbox.wait(say.Ready)
    for count in (1, 2, 3):
        collector.tick_now()
        inbox.wait(say.SnapshotReady, count)
    collector.stop()
    join(collector)
    assert source.closed == 1
    assert collector._symbols.daemon
    source.gates["resolve"].open()


def test_threads_keep_to_their_calls() -> None:
    source = leaky_source()
    collector, inbox = collect(source)
    collector.want_names([LEAK], [1, 2])
    collector.want_lines(LEAK)
    collector.apply(Filters(sample_rate=2))
    inbox.wait(say.FiltersApplied)
    collector.watch(LEAK)
    inbox.wait(say.DetailReady)
    inbox.wait(say.LinesReady)
    inbox.wait(say.SymbolsReady)
    collector.stop()
    join(collector)
    tick_calls = [
        source.threads[name] for name in ("start", "snapshot", "detail", "apply", "close")
    ]
    assert all(threads == tick_calls[0] for threads in tick_calls)
    assert len(source.threads["resolve"]) == 1
    assert source.threads["resolve"].isdisjoint(tick_calls[0])
    assert threading.get_ident() not in source.threads["resolve"] | tick_calls[0]


def test_of_many_filters_the_last_counts() -> None:
    source = leaky_source()
    source.gates["start"].shut()
    collector, inbox = collect(source)
    for rate in (2, 5, 10):
        collector.apply(Filters(sample_rate=rate))
    source.gates["start"].open()
    inbox.wait(say.FiltersApplied)
    collector.stop()
    join(collector)
    assert source.applied == [Filters(sample_rate=10)]


def test_ticks_come_by_themselves() -> None:
    source = ScriptedSource([snapshot(float(t), sites_at(t)) for t in range(1, 20)])
    inbox = Inbox()
    collector = Collector(source, inbox, 0.001)
    collector.start()
    inbox.wait(say.SnapshotReady, 20)
    collector.stop()
    join(collector)
    readings = [m.reading for m in inbox.all(say.SnapshotReady) if isinstance(m, say.SnapshotReady)]
    assert [r.snapshot.elapsed_s for r in readings[:19]] == [float(t) for t in range(1, 20)]


def test_a_source_that_cannot_name_shows_addresses() -> None:
    source = leaky_source()
    source.failures["resolve"] = RuntimeError("broken debug information")
    collector, inbox = collect(source)
    collector.want_names([LEAK], [])
    message = inbox.wait(say.SymbolsReady)
    assert isinstance(message, say.SymbolsReady)
    assert message.frames == {LEAK: ()}
    collector.stop()
    join(collector)


async def test_a_crashing_screen_closes_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    source = leaky_source()

    def crash(self: LeaktopApp) -> None:
        raise RuntimeError("a bug in the screen")

    with pytest.raises(RuntimeError, match="a bug in the screen"):  # noqa: PT012
        async with driving(source) as driver:
            monkeypatch.setattr(LeaktopApp, "action_help", crash)
            await driver.pilot.press("question_mark")
            await driver.until(lambda: not driver.app.is_running)
    join(driver.app.session.collector)
    assert source.closed == 1
