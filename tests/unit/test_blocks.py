"""Sums over live blocks against the same sums in plain Python, whatever the chunks."""

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.model import Histogram
from leaktop.tracer import blocks as blocks_module
from leaktop.tracer import layout
from leaktop.tracer.blocks import (
    AGE_EDGES_S,
    PLACED,
    SIZE_BANDS,
    detail_of,
    held_by_stack,
    pages_of,
)

SECOND = 10**9
FIRST_BIRTH = 10**9
STACKS = (0, 3, 5, 16_384)


class Block(NamedTuple):
    size: int
    birth_ns: int
    stack: int
    weight: int = 1


def as_chunks(*chunks: list[Block]) -> Iterator[np.ndarray[Any, Any]]:
    """What a map yields: views of an array that it uses again for the next chunk."""
    values = np.empty(max((len(chunk) for chunk in chunks), default=0), layout.SET_BLOCK)
    for chunk in chunks:
        for i, block in enumerate(chunk):
            values[i] = tuple(block)
        yield values[: len(chunk)]


blocks = st.builds(
    Block,
    size=st.integers(0, 2**47),
    birth_ns=st.integers(FIRST_BIRTH, FIRST_BIRTH + 20),
    stack=st.sampled_from(STACKS),
    weight=st.sampled_from((1, 2, 10, 1000)),
)
chunked = st.lists(st.lists(blocks, max_size=12), max_size=4)


@given(chunked, st.integers(FIRST_BIRTH - 1, FIRST_BIRTH + 21))
def test_held_by_stack(chunks: list[list[Block]], born_before_ns: int) -> None:
    expected = {}
    old = [block for chunk in chunks for block in chunk if block.birth_ns <= born_before_ns]
    for stack in {block.stack for block in old}:
        mine = [block for block in old if block.stack == stack]
        expected[stack] = (
            sum(block.size * block.weight for block in mine),
            sum(block.weight for block in mine),
            min(block.birth_ns for block in mine),
        )
    held = held_by_stack(as_chunks(*chunks), born_before_ns)
    assert {i: (sums.bytes, sums.count, sums.birth_ns) for i, sums in held.items()} == expected


def test_held_by_stack_of_nothing() -> None:
    assert held_by_stack(as_chunks(), 1) == {}
    assert held_by_stack(as_chunks([]), 1) == {}


def bands(histogram: Histogram) -> dict[float, tuple[int, int]]:
    """The bands that hold something, by their lower edge."""
    assert len(histogram.edges) == len(histogram.bytes) == len(histogram.counts)
    rows = zip(histogram.edges, histogram.bytes, histogram.counts, strict=True)
    return {edge: (size, count) for edge, size, count in rows if count}


def lower_edge_of_size(size: int) -> float:
    return 0.0 if size == 0 else float(2 ** min(size.bit_length() - 1, SIZE_BANDS - 1))


@given(chunked, st.sampled_from(STACKS))
def test_detail_of_sizes(chunks: list[list[Block]], stack_id: int) -> None:
    mine = [block for chunk in chunks for block in chunk if block.stack == stack_id]
    expected: dict[float, tuple[int, int]] = {}
    for block in mine:
        size, count = expected.get(edge := lower_edge_of_size(block.size), (0, 0))
        expected[edge] = (size + block.size * block.weight, count + block.weight)
    detail = detail_of(as_chunks(*chunks), stack_id, [stack_id])
    assert detail.stack_id == stack_id
    assert bands(detail.sizes) == expected
    # all were born in the first second since boot, so all are of one age band
    assert sum(detail.ages.counts) == sum(block.weight for block in mine)
    assert sum(detail.ages.bytes) == sum(block.size * block.weight for block in mine)
    variance = sum(block.size**2 * block.weight * (block.weight - 1) for block in mine)
    assert detail.bytes_error == pytest.approx(math.sqrt(variance))


def test_detail_of_a_stack_that_holds_nothing() -> None:
    detail = detail_of(as_chunks([Block(8, FIRST_BIRTH, 2)]), 3, [3])
    assert (detail.oldest_s, detail.newest_s, detail.bytes_error) == (None, None, 0.0)
    assert (detail.ages, detail.sizes) == (Histogram((0.0,), (0,), (0,)),) * 2


def test_without_sampling_there_is_no_error() -> None:
    assert detail_of(as_chunks([Block(8, 1, 2), Block(16, 1, 2)]), 2, [2]).bytes_error == 0.0


def test_blocks_fall_into_the_band_of_their_age() -> None:
    now = time.monotonic_ns()
    # half-way into each band, so that the time that the test takes moves none of them
    ages = [
        (low + high) / 2 for low, high in zip(AGE_EDGES_S, (*AGE_EDGES_S[1:], 1e6), strict=True)
    ]
    born = [
        Block(i + 1, now - int(age * SECOND), 2) for i, age in enumerate(ages) if age * SECOND < now
    ]
    detail = detail_of(as_chunks(born[:3], born[3:]), 2, [2])
    assert bands(detail.ages) == {
        edge: (block.size, 1) for edge, block in zip(AGE_EDGES_S, born, strict=False)
    }


def test_oldest_and_newest_over_all_chunks() -> None:
    now = time.monotonic_ns()
    births = [now - 3 * SECOND, now - 7 * SECOND, now - 5 * SECOND]
    detail = detail_of(as_chunks(*([Block(1, birth, 2)] for birth in births)), 2, [2])
    after = time.monotonic_ns()
    assert detail.oldest_s is not None
    assert detail.newest_s is not None
    assert 7.0 <= detail.oldest_s <= (after - births[1]) / SECOND + 1e-6
    assert 3.0 <= detail.newest_s <= (after - births[0]) / SECOND + 1e-6


def test_a_block_born_while_the_map_is_read_has_age_0() -> None:
    detail = detail_of(as_chunks([Block(1, time.monotonic_ns() + 3600 * SECOND, 2)]), 2, [2])
    assert (detail.oldest_s, detail.newest_s) == (0.0, 0.0)
    assert bands(detail.ages) == {0.0: (1, 1)}


def test_histograms_end_one_band_after_the_last_in_use() -> None:
    detail = detail_of(as_chunks([Block(5, time.monotonic_ns(), 2)]), 2, [2])
    assert detail.sizes == Histogram((0.0, 1.0, 2.0, 4.0, 8.0), (0, 0, 0, 5, 0), (0, 0, 0, 1, 0))


def test_age_bands_grow() -> None:
    assert list(AGE_EDGES_S) == sorted(set(AGE_EDGES_S))
    assert AGE_EDGES_S[0] == 0.0


placed = st.lists(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 2**47 - 1), st.sampled_from((5, 7, 9, 11))),
        max_size=12,
    ),
    max_size=6,
)
STACK_OF = {5: 0x9F, 7: 0xA0, 9: 0xA0, 11: 0xA1}


@given(placed, st.integers(0, 40), st.integers(1, 20), st.sampled_from((0, 5, 65_536)))
def test_a_page_is_part_of_all_blocks_oldest_first(
    chunks: list[list[tuple[int, int, int]]], offset: int, count: int, spare: int
) -> None:
    arrays = []
    everything: dict[int, list[tuple[int, int, int]]] = {0x9F: [], 0xA0: [], 0xA1: []}
    births = itertools.count()
    for chunk in chunks:
        array = np.zeros(len(chunk), PLACED)
        for i, (second, address, stack) in enumerate(chunk):
            birth_ns = second * 1000 + next(births)  # no two alike, so that there is one order
            array[i] = (birth_ns, layout.key_of(3, address), address + 1, stack, 2, i)
            everything[STACK_OF[stack]].append((birth_ns, address, i))
        arrays.append(array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "_SPARE", spare)
        pages = pages_of(arrays, {0x9F: [5], 0xA0: [7, 9]}, offset, count, {3: 4242})
    assert set(pages) == {0x9F, 0xA0}
    for stack_id, page in pages.items():
        total = len(everything[stack_id])
        first = offset if offset < total else max(0, total - count)
        assert (page.stack_id, page.offset, page.total) == (stack_id, first, total)
        expected = sorted(everything[stack_id])[first : first + count]
        assert [(each.address, each.size, each.thread) for each in page.blocks] == [
            (address, address + 1, thread) for _, address, thread in expected
        ]
        assert all(each.pid == 4242 and each.weight == 2 for each in page.blocks)
        ages = [each.age_s for each in page.blocks]
        assert ages == sorted(ages, reverse=True)


def test_a_block_of_a_process_that_is_no_longer_shown_has_no_pid() -> None:
    array = np.array([(1, layout.key_of(7, 16), 5, 3, 1, 1)], PLACED)
    (block,) = pages_of([array], {1: [3]}, 0, 10, {})[1].blocks
    assert block.pid is None
    assert block.address == 16
