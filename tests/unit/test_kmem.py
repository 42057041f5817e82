"""Which of the kernel's stacks count, and as which; the live test traces a real kernel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaktop.kallsyms import KernelSymbols
from leaktop.symbolize import Symbolizer
from leaktop.tracer import layout
from leaktop.tracer.kmem import KernelStacks
from leaktop.tracer.walk import stack_id

BASE = 0xFFFFFFFF81000000
NAMES = ("kmem_user", "asm_sysvec_apic_timer_interrupt", "asm_exc_page_fault", "sys_x")
USER, INTERRUPT, FAULT, CALL = (BASE + 0x100 * i + 1 for i in range(len(NAMES)))
DENTRY = 77


class Table:
    """A map, as far as it is read."""

    def __init__(self, values: dict[int, Any]) -> None:
        self._values = values

    def lookup(self, key: int) -> Any:
        return self._values.get(key)


class Program:
    def __init__(self, *stacks: tuple[int, tuple[int, ...]]) -> None:
        captured = {}
        for number, (slot, pcs) in enumerate(stacks, 1):
            one = np.zeros((), layout.STACK)
            one["id"], one["slot"] = stack_id(slot, pcs, layout.WHOLE), slot
            one["depth"], one["pc"][: len(pcs)] = len(pcs), pcs
            captured[number] = one[()]
        name = np.zeros((), layout.CACHE_NAME)
        name["text"][:6] = list(b"dentry")
        self.stacks = Table(captured)
        self.cache_names = Table({DENTRY: name[()]})


@pytest.fixture
def symbolizer(tmp_path: Path) -> Symbolizer:
    path = tmp_path / "kallsyms"
    lines = [f"{BASE + 0x100 * i:016x} T {name}\n" for i, name in enumerate((*NAMES, "end"))]
    path.write_text("".join(lines))
    return Symbolizer(kernel=KernelSymbols(path))


def learnt(
    symbolizer: Symbolizer, *stacks: tuple[int, tuple[int, ...]], of_process: bool = False
) -> KernelStacks:
    book = KernelStacks(Program(*stacks), symbolizer, of_process=of_process)  # type: ignore[arg-type]
    book.learn(len(stacks))
    return book


def test_a_stack_with_the_name_of_its_cache(symbolizer: Symbolizer) -> None:
    book = learnt(symbolizer, (0, (DENTRY, USER, CALL)), (0, (0, USER, CALL)))
    with_cache, without = (book.known[each] for each in book.ids[1:])
    assert (with_cache.cache, without.cache) == ("dentry", None)
    assert [frame.address for frame in with_cache.frames] == [USER, CALL]
    assert with_cache.frames == without.frames
    assert book.left_out == set()


def test_leaktop_s_own_is_left_out_but_not_what_interrupts_it(symbolizer: Symbolizer) -> None:
    own, in_it, other = (
        (layout.SLOT_OWN, (0, USER, CALL)),
        (layout.SLOT_OWN, (0, USER, INTERRUPT, CALL)),
        (0, (0, USER, INTERRUPT, CALL)),
    )
    book = learnt(symbolizer, own, in_it, other)
    assert book.left_out == {book.ids[1]}
    assert book.whole(book.ids[2]) == book.ids[3]
    assert book.numbers(book.ids[3]) == [2, 3]
    assert book.ids[3] in book.known


def test_what_interrupts_a_process_is_not_done_for_it(symbolizer: Symbolizer) -> None:
    stacks = (0, (0, USER, INTERRUPT, CALL)), (0, (0, USER, FAULT, CALL)), (0, (0, USER, CALL))
    book = learnt(symbolizer, *stacks, of_process=True)
    assert book.left_out == {book.ids[1]}
    assert learnt(symbolizer, *stacks).left_out == set()


def test_without_names_nothing_is_taken_for_an_interrupt(tmp_path: Path) -> None:
    hidden = tmp_path / "kallsyms"
    hidden.write_text(f"{0:016x} T x\n")
    stacks = (layout.SLOT_OWN, (0, USER, INTERRUPT)), (0, (0, USER, INTERRUPT))
    book = learnt(Symbolizer(kernel=KernelSymbols(hidden)), *stacks)
    assert book.left_out == {book.ids[1]}
