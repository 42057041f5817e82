"""What is probed: one probe an address, returns first, and nothing required left out."""

import re
from pathlib import Path

from leaktop.elf import FileOffset
from leaktop.tracer import probes
from leaktop.tracer.loader import BPF_SOURCE
from leaktop.tracer.probes import FUNCTIONS, RETURN_PROGRAM, functions_in, is_allocator, probes_for

OPTIONAL = {"aligned_alloc", "valloc", "pvalloc", "reallocarray"}
WITHOUT_RETURN = {"free", "munmap"}


def found(**addresses: int) -> dict[str, FileOffset]:
    return {name: FileOffset(address) for name, address in addresses.items()}


def chosen(**addresses: int) -> dict[str, int]:
    return {function.name: offset for function, offset in functions_in(found(**addresses))}


def test_every_function_of_the_interface_is_listed_once() -> None:
    names = [function.name for function in FUNCTIONS]
    assert set(names) == {
        *("malloc", "calloc", "realloc", "free", "mmap", "munmap", "mremap"),
        *("posix_memalign", "memalign", "aligned_alloc", "valloc", "pvalloc", "reallocarray"),
    }
    assert len(names) == len(set(names))
    assert frozenset(names) == probes.NAMES


def test_only_what_a_library_may_lack_is_optional() -> None:
    assert {function.name for function in FUNCTIONS if not function.required} == OPTIONAL


def test_only_what_entry_tells_all_about_has_no_return_probe() -> None:
    assert {function.name for function in FUNCTIONS if not function.returns} == WITHOUT_RETURN


def test_every_program_named_is_one_of_the_bpf_source() -> None:
    source = (BPF_SOURCE / "memleak.bpf.c").read_text()
    written = set(re.findall(r"^int (\w+)\(struct pt_regs \*ctx\)", source, re.MULTILINE))
    assert {function.program for function in FUNCTIONS} | {RETURN_PROGRAM} == written


def test_functions_come_in_the_order_of_the_table() -> None:
    assert list(chosen(free=3, realloc=2, malloc=1)) == ["malloc", "realloc", "free"]


def test_aliases_at_one_address_share_one_probe_under_the_required_name() -> None:
    assert chosen(malloc=1, free=2, aligned_alloc=7, memalign=7) == {
        "malloc": 1,
        "free": 2,
        "memalign": 7,
    }


def test_the_same_names_at_their_own_addresses_have_a_probe_each() -> None:
    assert chosen(aligned_alloc=7, memalign=8) == {"memalign": 8, "aligned_alloc": 7}


def test_names_that_are_no_allocator_s_are_passed_over() -> None:
    assert chosen(malloc=1, free=2, main=3) == {"malloc": 1, "free": 2}


def test_an_allocator_defines_both_malloc_and_free() -> None:
    assert is_allocator(found(malloc=1, free=2))
    assert not is_allocator(found(malloc=1, calloc=2))
    assert not is_allocator(found(free=1))
    assert not is_allocator({})


def test_all_returns_are_probed_before_any_entry() -> None:
    table = functions_in(found(malloc=1, free=2, mmap=3, munmap=4))
    planned = list(probes_for(table))
    assert [str(probe) for probe in planned] == [
        "malloc (return)",
        "mmap (return)",
        "malloc",
        "free",
        "mmap",
        "munmap",
    ]
    assert [probe.program for probe in planned] == [
        *("on_return", "on_return"),
        *("on_malloc", "on_free", "on_mmap", "on_munmap"),
    ]
    assert [probe.offset for probe in planned] == [1, 3, 1, 2, 3, 4]


def test_probes_can_be_planned_from_an_iterator() -> None:
    table = functions_in(found(malloc=1))
    assert len(list(probes_for(iter(table)))) == 2


def test_the_sources_that_are_compiled_lie_beside_the_package() -> None:
    assert {"memleak.bpf.c", "memleak.h", "headers"} <= {
        path.name for path in Path(BPF_SOURCE).iterdir()
    }
