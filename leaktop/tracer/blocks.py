"""Sums over the live blocks, some thousands at a time: never an object for each block."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leaktop.model import Histogram, StackDetail
from leaktop.single_blocks import BlockPage, LiveBlock
from leaktop.tracer import layout
from leaktop.tracer.loader import Program

_NS = 1e-9
AGE_EDGES_S = (0.0, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
"""Bands of the age histogram; the last one is open."""
SIZE_BANDS = 48
"""Bands of the size histogram: 0, then a band for each power of two; the last one is open."""

PLACED = np.dtype(
    [
        ("birth_ns", "u8"),
        ("key", "u8"),
        ("size", "u8"),
        ("stack", "u4"),
        ("weight", "u4"),
        ("thread", "u4"),
    ]
)
"""A live block with its key and thread."""
_SPARE = 65_536  # blocks beyond those wanted that are gathered before the youngest are left out

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """What one stack holds that is old enough."""

    bytes: int
    count: int
    birth_ns: int
    """Birth of the oldest."""

    def plus(self, other: "Held") -> "Held":
        """Return the sums over both."""
        return Held(
            self.bytes + other.bytes,
            self.count + other.count,
            min(self.birth_ns, other.birth_ns),
        )


def placed_blocks(program: Program, numbers: Collection[int]) -> Iterator[Array]:
    """Yield, as ``PLACED``, the live blocks held under some numbers of stacks."""
    wanted = np.array(sorted(numbers), np.uint32)
    for sets in program.block_sets.chunks():
        keys, blocks = sets["key"], sets["block"]
        mine = _filled(keys) & np.isin(blocks["stack"], wanted)
        yield _placed(keys[mine], blocks[mine], sets["thread"][mine])
    for table in (program.spilled_blocks, program.mappings):
        for keys, blocks in table.entries():
            # mappings that do not count have weight 0
            mine = (blocks["weight"] > 0) & np.isin(blocks["stack"], wanted)
            yield _placed(keys[mine], blocks[mine], blocks["thread"][mine])


def _filled(keys: Array) -> Array:
    filled: Array = (keys != 0) & (keys & layout.BEING_FILLED == 0)
    return filled


def _placed(keys: Array, blocks: Array, threads: Array) -> Array:
    placed = np.empty(len(keys), PLACED)
    placed["key"], placed["thread"] = keys, threads
    for name in ("size", "birth_ns", "stack", "weight"):
        placed[name] = blocks[name]
    return placed


class _Oldest:
    """The oldest of all blocks that were added, as ``PLACED``, in memory for twice as many."""

    def __init__(self, count: int) -> None:
        self.total = 0
        self._count = count
        self._gathered = 0
        self._parts: list[Array] = [np.empty(0, PLACED)]

    def add(self, blocks: Array) -> None:
        self.total += len(blocks)
        self._gathered += len(blocks)
        self._parts.append(blocks)
        if self._gathered > 2 * self._count + _SPARE:
            some = np.concatenate(self._parts)
            self._parts = [some[np.argpartition(some["birth_ns"], self._count)[: self._count]]]
            self._gathered = self._count

    def in_order(self) -> Array:
        some = np.concatenate(self._parts)
        return some[np.lexsort((some["key"], some["birth_ns"]))]


def pages_of(
    chunks: Iterable[Array],
    stacks: Mapping[int, Collection[int]],
    offset: int,
    count: int,
    pids: Mapping[int, int],
) -> dict[int, BlockPage]:
    """Pick the blocks from ``offset`` on of the ``PLACED`` ones of each stack, oldest first.

    ``stacks``: each one's numbers, by id; ``pids``: by slot. Costs O(blocks) time and
    O(offset + count) memory a stack. An offset past the end gives the last page.
    """
    now_ns = time.monotonic_ns()
    oldest = {stack_id: _Oldest(offset + count) for stack_id in stacks}
    wanted = {stack_id: np.array(sorted(own), np.uint32) for stack_id, own in stacks.items()}
    for chunk in chunks:
        for stack_id, numbers in wanted.items():
            oldest[stack_id].add(chunk[np.isin(chunk["stack"], numbers)])
    pages = {}
    for stack_id, found in oldest.items():
        first = offset if offset < found.total else max(0, found.total - count)
        blocks = []
        for block in found.in_order()[first : first + count]:
            slot, address = layout.slot_and_address(int(block["key"]))
            blocks.append(
                LiveBlock(
                    address=address,
                    size=int(block["size"]),
                    age_s=max(0, now_ns - int(block["birth_ns"])) * _NS,
                    thread=int(block["thread"]),
                    pid=pids.get(slot),
                    weight=int(block["weight"]),
                )
            )
        pages[stack_id] = BlockPage(stack_id, first, found.total, tuple(blocks))
    return pages


def forget_blocks(program: Program, slot: int) -> None:
    """Take all that a process holds off the books, whose probes are gone; its counters stay."""
    for sets in program.block_sets.writable_chunks():
        keys = sets["key"]
        # nobody else writes a place that holds something of a process without probes
        keys[keys >> layout.KEY_SLOT_SHIFT == slot] = 0
    for table in (program.spilled_blocks, program.mappings, program.mapping_ends):
        for key in table.all_keys():
            if key >> layout.KEY_SLOT_SHIFT == slot:
                table.delete(key)


def held_by_stack(chunks: Iterable[Array], born_before_ns: int) -> Mapping[int, Held]:
    """Sum up, by number of stack, the live blocks born at or before a CLOCK_MONOTONIC time.

    Costs O(live blocks) time and O(stacks) memory.
    """
    total: dict[int, Held] = {}
    for chunk in chunks:
        old = chunk[chunk["birth_ns"] <= born_before_ns]
        numbers, group = np.unique(old["stack"], return_inverse=True)
        weights = old["weight"].astype(np.int64)
        size, count = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
        np.add.at(size, group, old["size"].astype(np.int64) * weights)
        np.add.at(count, group, weights)
        birth = np.full(len(numbers), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(birth, group, old["birth_ns"])
        for number, *sums in zip(
            numbers.tolist(), size.tolist(), count.tolist(), birth.tolist(), strict=True
        ):
            one = Held(*sums)
            total[number] = total[number].plus(one) if number in total else one
    return total


class _Bands:
    """A histogram that grows chunk by chunk."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = np.array(edges)
        self._bytes = np.zeros(len(edges), np.int64)
        self._counts = np.zeros(len(edges), np.int64)

    def add(self, values: Array, size: Array, weight: Array) -> None:
        band = np.maximum(np.searchsorted(self._edges, values, side="right") - 1, 0)
        np.add.at(self._bytes, band, size * weight)
        np.add.at(self._counts, band, weight)

    def histogram(self) -> Histogram:
        used = np.flatnonzero(self._counts)
        # and the band after the last one in use, so that this one has an end
        end = min(int(used[-1]) + 2 if len(used) else 1, len(self._edges))
        return Histogram(
            edges=tuple(self._edges[:end].tolist()),
            bytes=tuple(self._bytes[:end].tolist()),
            counts=tuple(self._counts[:end].tolist()),
        )


def detail_of(chunks: Iterable[Array], stack_id: int, numbers: Collection[int]) -> StackDetail:
    """Read the live blocks of one stack, held under any of its numbers.

    Ages and sizes are exact but for sampling.

    Costs O(all live blocks) time, constant memory.
    """
    wanted = np.array(sorted(numbers), np.uint32)
    now_ns = time.monotonic_ns()
    ages = _Bands(AGE_EDGES_S)
    sizes = _Bands((0.0, *(float(2**power) for power in range(SIZE_BANDS))))
    oldest = newest = None
    variance = 0.0
    for chunk in chunks:
        mine = chunk[np.isin(chunk["stack"], wanted)]
        if not len(mine):
            continue
        # a block born while the map was being read has age 0
        age = np.maximum(now_ns - mine["birth_ns"].astype(np.int64), 0) * _NS
        size, weight = mine["size"].astype(np.int64), mine["weight"].astype(np.int64)
        ages.add(age, size, weight)
        sizes.add(size, size, weight)
        oldest = max(oldest or 0.0, float(age.max()))
        newest = min(float(age.min()), float(age.min()) if newest is None else newest)
        # each kept block stands for `weight`, and was kept with a probability of 1 / weight
        variance += float((size.astype(float) ** 2 * weight * (weight - 1)).sum())
    return StackDetail(
        stack_id=stack_id,
        time_ns=time.time_ns(),
        ages=ages.histogram(),
        sizes=sizes.histogram(),
        oldest_s=oldest,
        newest_s=newest,
        bytes_error=variance**0.5,
    )
