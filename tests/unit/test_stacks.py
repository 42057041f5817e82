"""Cut stacks and their whole: which rows become one, and which stay apart."""

from collections.abc import Iterable
from typing import cast

import numpy as np
import pytest

from leaktop.elf import FileOffset
from leaktop.modules import Location, Module
from leaktop.tracer import layout
from leaktop.tracer import stacks as room
from leaktop.tracer.layout import ASKED, TRUNCATED, WHOLE
from leaktop.tracer.maps import BpfMap
from leaktop.tracer.stacks import StackBook
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.unwind import Unwinder
from leaktop.tracer.walk import Rest, stack_id

SLOT = 5
CODE = range(0x1000, 0x2000)


class FakeProcess:
    """Maps a library, and from the first refresh on another one."""

    def __init__(self) -> None:
        self.library, self.later = Module("/lib/a.so"), Module("/lib/b.so")
        self.refreshed = 0
        self.code_version = 0

    def knows(self, pcs: Iterable[int]) -> bool:
        return bool(self.refreshed) or all(pc in CODE for pc in pcs)

    def refresh(self) -> None:
        self.refreshed += 1
        self.code_version = 1

    def locate(self, pcs: Iterable[int]) -> list[Location]:
        return [
            Location(pc, self.library if pc in CODE else self.later, FileOffset(pc)) for pc in pcs
        ]


class FakeMap:
    def __init__(self) -> None:
        self.stacks: list[np.void] = [np.zeros(1, layout.STACK)[0]]

    def add(self, key: int, pcs: tuple[int, ...], truncation: int) -> int:
        stack = np.zeros((), layout.STACK)
        stack["id"], stack["slot"] = key, SLOT
        stack["depth"], stack["truncated"] = len(pcs), truncation
        stack["pc"][: len(pcs)] = pcs
        self.stacks.append(stack.reshape(1)[0])
        return key

    def lookup(self, number: int) -> np.void | None:
        return self.stacks[number] if number < len(self.stacks) else None


class FakeUnwinder:
    def __init__(self) -> None:
        self.completions: dict[int, Rest | None] = {}


class Scene:
    def __init__(self) -> None:
        self.process, self.map, self.unwinder = FakeProcess(), FakeMap(), FakeUnwinder()
        self.book = StackBook(cast("BpfMap", self.map), cast("Unwinder", self.unwinder))
        self.book.add(SLOT, cast("TargetProcess", self.process))

    def learn(self) -> None:
        self.book.learn(len(self.map.stacks) - 1)

    def addresses(self, key: int) -> tuple[int, ...]:
        return tuple(frame.address for frame in self.book.known[key].frames)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(room, "_ANSWER_S", 0.0)
    return Scene()


PCS = (0x1001, 0x1002, 0x1003)


def test_a_whole_stack(scene: Scene) -> None:
    key = scene.map.add(stack_id(SLOT, PCS, WHOLE), PCS, WHOLE)
    scene.learn()
    assert scene.addresses(key) == PCS
    assert [frame.module for frame in scene.book.known[key].frames] == ["a.so"] * 3
    assert not scene.book.known[key].truncated
    assert scene.book.whole(key) == key
    assert list(scene.book.cut) == []
    assert not scene.process.refreshed


def test_a_cut_stack_counts_as_the_whole_that_it_was(scene: Scene) -> None:
    whole = scene.map.add(stack_id(SLOT, PCS, WHOLE), PCS, WHOLE)
    parts = [scene.map.add(0x77, PCS[:1], ASKED), scene.map.add(0x78, PCS[:2], ASKED)]
    scene.unwinder.completions = {0x77: Rest(PCS[1:], WHOLE), 0x78: Rest(PCS[2:], WHOLE)}
    scene.learn()
    assert [scene.book.whole(key) for key in parts] == [whole, whole]
    assert sorted(scene.book.numbers(whole)) == [1, 2, 3]
    assert list(scene.book.cut) == []
    assert not scene.unwinder.completions


def test_the_whole_may_never_have_counted_itself(scene: Scene) -> None:
    part = scene.map.add(0x77, PCS[:1], ASKED)
    scene.unwinder.completions[part] = Rest(PCS[1:], WHOLE)
    scene.learn()
    whole = scene.book.whole(part)
    assert whole == stack_id(SLOT, PCS, WHOLE)
    assert scene.addresses(whole) == PCS
    assert not scene.book.known[whole].truncated


def test_stacks_that_differ_further_out_stay_apart(scene: Scene) -> None:
    for key in (0x77, 0x78):
        scene.map.add(key, PCS[:2], ASKED)
    scene.unwinder.completions = {0x77: Rest((0x1003,), WHOLE), 0x78: Rest((0x1004,), WHOLE)}
    scene.learn()
    assert scene.book.whole(0x77) != scene.book.whole(0x78)


def test_an_answer_may_come_later(scene: Scene) -> None:
    part = scene.map.add(0x77, PCS[:1], ASKED)
    scene.learn()
    assert scene.book.known[part].truncated
    assert scene.book.whole(part) == part
    assert list(scene.book.cut) == [part]
    scene.unwinder.completions[part] = Rest(PCS[1:], WHOLE)
    scene.learn()
    assert scene.book.whole(part) == stack_id(SLOT, PCS, WHOLE)
    assert list(scene.book.cut) == []


def test_a_copy_that_was_too_short(scene: Scene) -> None:
    part = scene.map.add(0x77, PCS[:1], ASKED)
    scene.unwinder.completions[part] = None
    scene.learn()
    assert scene.book.whole(part) == part
    assert scene.book.known[part].truncated
    assert list(scene.book.cut) == [part]


def test_a_walk_that_ends_without_a_rule(scene: Scene) -> None:
    part = scene.map.add(0x77, PCS[:1], ASKED)
    scene.unwinder.completions[part] = Rest(PCS[1:], TRUNCATED)
    scene.learn()
    whole = scene.book.whole(part)
    assert whole == stack_id(SLOT, PCS, TRUNCATED)
    assert scene.book.known[whole].truncated
    assert scene.addresses(whole) == PCS
    assert list(scene.book.cut) == [part]


@pytest.mark.parametrize(("rest", "truncation"), [(126, WHOLE), (127, TRUNCATED)])
def test_as_deep_as_the_kernel_goes(scene: Scene, rest: int, truncation: int) -> None:
    part = scene.map.add(0x77, PCS[:1], ASKED)
    scene.unwinder.completions[part] = Rest((0x1005,) * rest, WHOLE)
    scene.learn()
    pcs = (PCS[0], *(0x1005,) * 126)
    assert scene.book.whole(part) == stack_id(SLOT, pcs, truncation)
    assert (list(scene.book.cut) == [part]) == (truncation == TRUNCATED)


def test_new_code_is_looked_for(scene: Scene) -> None:
    pcs = (0x1001, 0x9001)
    key = scene.map.add(stack_id(SLOT, pcs, WHOLE), pcs, WHOLE)
    scene.learn()
    assert scene.process.refreshed == 1
    assert [frame.module for frame in scene.book.known[key].frames] == ["a.so", "b.so"]


def test_what_stacks_have_in_common_is_held_once(scene: Scene) -> None:
    one, other = (0x1001, 0x1002), (0x1003, 0x1002)
    keys = [scene.map.add(stack_id(SLOT, pcs, WHOLE), pcs, WHOLE) for pcs in (one, other)]
    scene.learn()
    first, second = (scene.book.known[key] for key in keys)
    assert first.frames[1] is second.frames[1]
    assert first.locations[1] is second.locations[1]


def test_code_that_moved_is_located_anew(scene: Scene) -> None:
    scene.map.add(stack_id(SLOT, PCS, WHOLE), PCS, WHOLE)
    scene.learn()
    scene.process.library = Module("/lib/c.so")
    scene.process.code_version += 1
    pcs = PCS[:2]
    key = scene.map.add(stack_id(SLOT, pcs, WHOLE), pcs, WHOLE)
    scene.learn()
    assert [frame.module for frame in scene.book.known[key].frames] == ["c.so", "c.so"]


def test_blocks_without_a_stack(scene: Scene) -> None:
    scene.learn()
    unfiled = scene.book.known[layout.STACK_ID_UNFILED]
    assert unfiled.truncated
    assert unfiled.frames == ()


def test_a_stack_that_is_not_there(scene: Scene) -> None:
    scene.learn()
    assert 0x99 not in scene.book.known
