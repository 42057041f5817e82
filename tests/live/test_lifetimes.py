"""Lifetimes of freed blocks, exact to the unit against what the target measured itself."""

import json
from collections import Counter

import pytest

from leaktop.model import LIFETIME_EDGES_S
from tests.live.conftest import StartTarget, Trace

pytestmark = pytest.mark.live


def test_lifetimes_are_exact(start_target: StartTarget, trace: Trace) -> None:
    target = start_target("lifetimes")
    leaktop = trace(target)
    target.say("go")
    truth = json.loads(target.lines.next())
    found: Counter[int] = Counter()
    frees = 0
    for stack in leaktop.snapshot_from_now()["stacks"]:
        frees += stack["frees"]
        for band in stack["lifetimes"]:
            found[LIFETIME_EDGES_S.index(band["from_s"])] += band["frees"]
    sure, unsure = truth["sure"], [tuple(each) for each in truth["unsure"]]
    assert found.total() == frees == sum(sure) + len(unsure)
    for band in range(len(LIFETIME_EDGES_S)):
        either = sum(low <= band <= high for low, high in unsure)
        assert sure[band] <= found[band] <= sure[band] + either
