"""Rows of a snapshot: sums over all ids of a stack."""

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from leaktop.model import Counters, Frame, Site
from leaktop.tracer.blocks import Held
from leaktop.tracer.lifetimes import NONE_FREED
from leaktop.tracer.stacks import Stack, StackBook
from leaktop.tracer.sums import sites_of

NOW = 10_000_000_000
WHOLE_OF = {11: 10, 12: 10, 21: 20}
KNOWN = {
    key: Stack((Frame(key),), (), truncated=key in (20, 21), slot=3)
    for key in (10, 11, 12, 20, 21, 30)
}
STACKS = cast(
    "StackBook",
    SimpleNamespace(known=KNOWN, whole=lambda stack_id: WHOLE_OF.get(stack_id, stack_id)),
)


def row(size: int, allocs: int, frees: int, oldest_s: float, *, freed: bool = False) -> list[int]:
    return [size, allocs, frees, NOW - int(oldest_s * 1e9), int(freed), 100 * allocs]


def rows(
    counts: dict[int, list[int]],
    held: dict[int, Held] | None = None,
    lifetimes: dict[int, tuple[int, ...]] | None = None,
) -> dict[int, Site]:
    found = sites_of(STACKS, counts, held, NOW, {3: 1234}, lifetimes=lifetimes or {})
    return {site.stack_id: site for site in found}


def test_one_id() -> None:
    site = rows({30: row(640, 12, 2, 1.5)})[30]
    assert site.counters == Counters(640, 10, 12, 2, alloc_bytes=1200)
    assert (site.oldest_s, site.oldest_exact, site.truncated) == (1.5, True, False)
    assert site.frames == (Frame(30),)
    assert site.pid == 1234


def test_parts_count_as_their_whole() -> None:
    found = rows({11: row(100, 1, 0, 4), 10: row(1000, 10, 5, 2), 12: row(20, 3, 1, 3)})
    assert list(found) == [10]
    assert found[10].counters == Counters(1120, 8, 14, 6, alloc_bytes=1400)
    assert (found[10].oldest_s, found[10].oldest_exact) == (4.0, True)
    assert found[10].frames == (Frame(10),)


def test_lifetimes_of_parts_count_as_those_of_their_whole() -> None:
    lifetimes = {11: (1, *NONE_FREED[1:]), 12: (*NONE_FREED[:-1], 2), 30: (7, *NONE_FREED[1:])}
    counts = {11: row(8, 2, 1, 4), 10: row(8, 1, 0, 2), 12: row(20, 3, 2, 3), 20: row(8, 1, 0, 2)}
    found = rows(counts, None, lifetimes)
    assert found[10].lifetimes == (1, *NONE_FREED[1:-1], 2)
    assert found[20].lifetimes == NONE_FREED


def test_parts_of_a_whole_that_never_counted() -> None:
    found = rows({21: row(100, 1, 0, 4)})
    assert list(found) == [20]
    assert found[20].truncated


def test_the_oldest_is_of_what_is_held() -> None:
    found = rows({11: row(0, 5, 5, 9), 10: row(8, 1, 0, 2)})
    assert (found[10].oldest_s, found[10].counters) == (2.0, Counters(8, 1, 6, 5, alloc_bytes=600))
    found = rows({10: row(0, 5, 5, 9), 11: row(8, 1, 0, 2)})
    assert found[10].oldest_s == 2.0


def test_an_older_bound_is_a_bound() -> None:
    found = rows({10: row(8, 1, 0, 2), 11: row(8, 2, 1, 5, freed=True)})
    assert (found[10].oldest_s, found[10].oldest_exact) == (5.0, False)
    found = rows({10: row(8, 1, 0, 5), 11: row(8, 2, 1, 2, freed=True)})
    assert (found[10].oldest_s, found[10].oldest_exact) == (5.0, True)


def test_only_blocks_of_some_age() -> None:
    held = {11: Held(100, 1, NOW - 8_000_000_000), 10: Held(50, 2, NOW - 6_000_000_000)}
    found = rows({11: row(900, 9, 0, 9), 10: row(50, 2, 0, 6), 30: row(5, 1, 0, 0)}, held)
    assert list(found) == [10]
    assert found[10].counters == Counters(150, 3, 11, 0, alloc_bytes=1100)
    assert (found[10].oldest_s, found[10].oldest_exact) == (8.0, True)


def test_what_holds_nothing_is_no_row() -> None:
    assert rows({10: row(0, 3, 3, 1), 30: row(-8, 1, 0, 1), 20: row(8, 1, 2, 1)}) == {}
    assert rows({99: row(8, 1, 0, 1)}) == {}


def test_a_birth_after_the_reading_is_now() -> None:
    assert rows({30: row(8, 1, 0, -1)})[30].oldest_s == 0.0


@given(
    st.dictionaries(
        st.sampled_from(sorted(KNOWN)),
        st.tuples(st.integers(1, 2**40), st.integers(1, 2**30), st.floats(0, 9)),
    )
)
def test_nothing_is_lost_or_counted_twice(parts: dict[int, tuple[int, int, float]]) -> None:
    counts = {key: row(size, count, 0, oldest) for key, (size, count, oldest) in parts.items()}
    found = rows(counts).values()
    assert sum(site.counters.bytes for site in found) == sum(each[0] for each in parts.values())
    assert sum(site.counters.count for site in found) == sum(each[1] for each in parts.values())
    assert {site.stack_id for site in found} == {WHOLE_OF.get(key, key) for key in parts}
