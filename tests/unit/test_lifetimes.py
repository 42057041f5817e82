"""Lifetimes as the tracer reads them: all bands, and new tuples only where something was freed."""

from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leaktop.tracer import layout
from leaktop.tracer.lifetimes import Lifetimes
from leaktop.tracer.maps import BpfArray

BANDS = layout.LIFETIME_BANDS


class Kernel:
    """What the kernel side counts: longer lives by band, and all frees."""

    def __init__(self, stacks: int) -> None:
        self.bands = np.zeros(stacks, layout.STACK_LIFETIMES)
        self.stats = np.zeros(stacks, layout.STACK_STATS)
        self.lifetimes = Lifetimes(cast("BpfArray", SimpleNamespace(entries=self.bands)))

    def free(self, number: int, band: int, weight: int = 1) -> None:
        self.stats["frees"][number] += weight
        if band:
            self.bands["frees"][number, band] += weight

    def by_id(self, ids: list[int]) -> dict[int, tuple[int, ...]]:
        self.lifetimes.read(len(self.bands))
        return dict(self.lifetimes.by_id(ids, self.stats.copy()))


def only(band: int, count: int) -> tuple[int, ...]:
    return tuple(count * (i == band) for i in range(BANDS))


def test_the_first_band_is_what_the_others_leave() -> None:
    kernel = Kernel(3)
    kernel.free(1, 0, 5)
    kernel.free(1, 7, 2)
    assert kernel.by_id([10, 11, 12]) == {11: (5, *only(7, 2)[1:])}


def test_what_frees_nothing_keeps_its_tuple() -> None:
    kernel = Kernel(2)
    kernel.free(0, 3)
    kernel.free(1, 3)
    before = kernel.by_id([10, 11])
    kernel.free(1, 4)
    after = kernel.by_id([10, 11])
    assert after[10] is before[10]
    assert after[11] == tuple(map(sum, zip(only(3, 1), only(4, 1), strict=True)))


def test_stacks_not_known_yet_come_later() -> None:
    kernel = Kernel(2)
    kernel.free(1, 2)
    assert kernel.by_id([10]) == {}
    assert kernel.by_id([10, 11]) == {11: only(2, 1)}


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, BANDS - 1), st.integers(1, 100))))
)
def test_every_free_is_in_one_band(ticks: list[list[tuple[int, int, int]]]) -> None:
    kernel, truth = Kernel(5), np.zeros((5, BANDS), np.int64)
    for tick in ticks:
        for number, band, weight in tick:
            kernel.free(number, band, weight)
            truth[number, band] += weight
        found = kernel.by_id(list(range(5)))
        for number in range(5):
            assert found.get(number, only(0, 0)) == tuple(truth[number].tolist())
