"""Stacks of programs without frame pointers, frame by frame as the programs know them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from tests.live.conftest import StartTarget, Trace
from tests.live.harness import Json, TargetProcess
from tests.live.judge import lost

pytestmark = pytest.mark.live

STACK_DEPTH_MAX = 127
# Between the return address of the allocator's call and that of the call that notes the stack.
NEAR = 64


@dataclass(frozen=True, slots=True)
class Noted:
    """An allocation as the program noted it itself."""

    function: str
    bytes: int
    inner: int
    signals: int
    frames: tuple[int, ...]

    def is_stack(self, frames: list[Json], *, truncated: bool) -> bool:
        """Whether these are the frames, or where they are cut the inner ones of them."""
        ours = [int(frame["address"], 16) for frame in frames][max(0, self.inner) :]
        theirs = self.frames[1 + max(0, -self.inner) :]
        if not ours or not 0 < theirs[0] - ours[0] < NEAR:
            return False
        if self.function not in (frames[max(0, self.inner)]["symbol"] or ""):
            return False
        if len(ours) != len(theirs) and not (truncated and len(ours) < len(theirs)):
            return False
        beyond = [one - other for one, other in zip(ours[1:], theirs[1:], strict=False)]
        # An interrupted address is counted as one further.
        return set(beyond) <= {0, 1} and (truncated or sum(beyond) == self.signals)


def round_of(target: TargetProcess) -> list[Noted]:
    """Let the target allocate once from everywhere."""
    target.say("go")
    return [
        Noted(**{**found, "frames": tuple(found["frames"])})
        for found in json.loads(target.lines.next())
    ]


def physical(stack: Json) -> list[Json]:
    """The frames that are on the stack, without the calls inlined into them."""
    return [frame for frame in stack["frames"] if not frame["inlined"]]


def describe(frames: Iterable[Json]) -> str:
    return "\n".join(f"  {f['address']} {f['symbol']}+{f['offset']} [{f['module']}]" for f in frames)


def assert_stacks(snapshot: Json, noted: list[Noted], rounds: int) -> None:
    """Check that each allocation noted is there with its whole stack, and that nothing else is."""
    missing = list(noted)
    for stack in snapshot["stacks"]:
        frames = physical(stack)
        if stack["truncated"] and stack["count"] < rounds:
            continue
        found = [each for each in missing if each.is_stack(frames, truncated=stack["truncated"])]
        same_size = [each for each in noted if each.bytes * stack["count"] == stack["bytes"]]
        assert len(found) == 1, f"{stack['truncated']}\n{describe(frames)}\n{same_size}"
        missing.remove(found[0])
    assert not missing


def test_every_frame(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("unwinding-O2")
    leaktop = trace(target)
    for i in range(3):
        noted = round_of(target)
        s = leaktop.snapshot_from_now()
        print(i, lost(s), len(noted), len(s["stacks"]))
        for st in s["stacks"]:
            print(st["count"], st["bytes"], st["truncated"], len(physical(st)))
    assert_stacks(s, noted, 3)
