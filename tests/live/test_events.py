"""Single allocations: the log of what comes and goes, lists of what is held, and what is in it."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from leaktop.model import Filters, Site
from leaktop.single_blocks import BLOCK_BYTES_MAX, EVENTS_MAX, Event, LiveBlock
from leaktop.tracer.live import LiveSource
from tests.live.conftest import StartLeaktop, StartTarget
from tests.live.harness import TargetProcess, wait_until

Happened = list[list[Any]]
"""What a target says it did: kind, address, size, thread."""


def told(target: TargetProcess, phase: str) -> Happened:
    target.say(phase)
    happened: Happened = json.loads(target.lines.next())
    return happened


@contextmanager
def tracing(target: TargetProcess, *, log_all: bool = False) -> Iterator[LiveSource]:
    with closing(LiveSource([target.pid], Filters(), log_all=log_all)) as source:
        source.start(lambda step: None)
        yield source


def as_told(events: list[Event]) -> Happened:
    return [[str(each.kind), each.address, each.size, each.thread] for each in events]


def all_events(source: LiveSource, enough: Callable[[list[Event]], bool]) -> list[Event]:
    seen: list[Event] = []

    def read() -> bool:
        seen.extend(source.events())
        return enough(seen)

    wait_until(read, "the events")
    return seen


def only_site(source: LiveSource, count: int) -> Site:
    """The one stack that holds this many blocks."""
    (found,) = [each for each in source.snapshot().sites if each.counters.count == count]
    return found


def listed(source: LiveSource, stack_id: int, page: int) -> list[LiveBlock]:
    """All live blocks of a stack, asked for by pages."""
    found: list[LiveBlock] = []
    while True:
        got = source.blocks([stack_id], len(found), page)[stack_id]
        found += got.blocks
        if len(found) >= got.total:
            assert len(found) == got.total
            return found


def test_blocks_are_listed_exactly_oldest_first(start_target: StartTarget) -> None:
    target = start_target("listing")
    with tracing(target) as source:
        happened = told(target, "hold 1000 10")
        held = only_site(source, 1000)
        blocks = listed(source, held.stack_id, 300)
        assert [[each.address, each.size, each.thread] for each in blocks] == [
            each[1:] for each in happened
        ]
        assert {each.pid for each in blocks} == {target.pid}
        assert [each.age_s for each in blocks[:300]] == sorted(
            (each.age_s for each in blocks[:300]), reverse=True
        )
        thread = told(target, "thread")
        pages = source.blocks([each.stack_id for each in source.snapshot().sites], 0, 10)
        (block,) = [each for page in pages.values() for each in page.blocks if each.size == 777]
        assert [[block.address, block.size, block.thread]] == [each[1:] for each in thread]


def test_content_of_a_block(start_target: StartTarget) -> None:
    target = start_target("listing")
    with tracing(target) as source:
        happened = told(target, "hold 3 400")
        first, *_ = listed(source, only_site(source, 3).stack_id, 10)
        content = source.read_block(target.pid, first.address, first.size)
        assert first.address == happened[0][1]
        assert content.startswith(b"block 0\t\x1b[31m\0")
        assert len(content) == BLOCK_BYTES_MAX
        assert source.read_block(target.pid, first.address, 5) == b"block"


def test_log_has_every_event_in_order(start_target: StartTarget) -> None:
    target = start_target("listing")
    with tracing(target, log_all=True) as source:
        happened = told(target, "hold 50 100") + told(target, "change") + told(target, "thread")
        # the C library allocates for a thread, too, and frees that later or never
        thread = happened[-1][3]
        events = all_events(source, lambda seen: any(each.thread == thread for each in seen))
        mine = [each for each in as_told(events) if each in happened]
        assert mine == happened
        assert as_told(events)[: len(happened) - 1] == happened[:-1]
        assert {each.pid for each in events} == {target.pid}
        times = [each.time_ns for each in events]
        assert times == sorted(times)
        # each under the stack that allocated it
        held = only_site(source, 48)
        assert {each.stack_id for each in events[:50]} == {held.stack_id}
        assert source.snapshot().lost["events_dropped"] == 0


def test_one_stack_is_logged_and_no_other(start_target: StartTarget) -> None:
    target = start_target("listing")
    with tracing(target) as source:
        told(target, "hold 10 100")
        assert source.events() == []
        source.log(only_site(source, 10).stack_id)
        told(target, "churn 20")
        happened = told(target, "hold 5 100")
        assert as_told(all_events(source, lambda seen: len(seen) >= 5)) == happened
        source.log(None)
        told(target, "hold 5 100")
        assert source.events() == []


def test_what_finds_no_room_in_the_log_is_counted(start_target: StartTarget) -> None:
    target = start_target("listing")
    churned = 30_000
    with tracing(target, log_all=True) as source:
        told(target, f"churn {churned}")
        read: list[Event] = []
        while events := source.events():
            assert len(events) <= EVENTS_MAX
            read += events
        dropped = source.snapshot().lost["events_dropped"]
        assert dropped > 0
        assert len(read) + dropped == 2 * churned


def test_batch_prints_events_and_lists(
    start_target: StartTarget, start_leaktop: StartLeaktop
) -> None:
    target = start_target("listing")
    leaktop = start_leaktop("-t", "-a", "--json", "-d", "0.3", "-p", str(target.pid))
    leaktop.wait_ready(target.pid)
    happened = told(target, "hold 40 64") + told(target, "change")
    seen: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    while len(seen) < len(happened) or not last.get("stacks"):
        document = leaktop.snapshot()
        if "event" in document:
            seen.append(document)
        else:
            last = document
    assert [
        [each["event"], int(each["address"], 16), each["size"], each["thread"]] for each in seen
    ] == happened
    (stack,) = last["stacks"]
    assert stack["id"] == seen[0]["stack"]
    assert stack["allocations_total"] == 38
    assert [int(each["address"], 16) for each in stack["allocations"]] == [
        address for _, address, *_ in happened[2:40]
    ]
    assert leaktop.stop() == 0
