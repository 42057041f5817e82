"""What is probed: one probe an address, returns first, and what is wrong without it is known."""

import re
from dataclasses import replace
from pathlib import Path

from leaktop.elf import FileOffset
from leaktop.tracer.image import BPF_SOURCE
from leaktop.tracer.objects import PROGRAMS
from leaktop.tracer.probes import (
    COOKIE_EXIT,
    COOKIE_PUSHED_SHIFT,
    COOKIE_SLOT_SHIFT,
    Entry,
    Exit,
    Site,
    Traced,
    functions_in,
    is_allocator,
    probes_for,
    table,
)

C = (
    "malloc",
    "calloc",
    "realloc",
    "free",
    "posix_memalign",
    "memalign",
    "mmap",
    "munmap",
    "mremap",
)
OPTIONAL_C = ("aligned_alloc", "valloc", "pvalloc", "reallocarray")


def found(**addresses: int) -> dict[str, FileOffset]:
    return {name: FileOffset(address) for name, address in addresses.items()}


def traced(**addresses: int) -> list[Traced]:
    return [
        Traced(function, Site(at)) for function, at in functions_in(table(), found(**addresses))
    ]


def chosen(**addresses: int) -> dict[str, int]:
    return {each.function.name: each.site.offset for each in traced(**addresses)}


def test_every_function_is_listed_once() -> None:
    names = [function.name for function in table()]
    assert {*C, *OPTIONAL_C} <= set(names)
    assert len(names) == len(set(names))


def test_what_is_wrong_without_a_function_is_known_of_each() -> None:
    effects = {function.name: function.effect for function in table()}
    assert effects["free"] == effects["_ZdlPv"] == "what it frees looks held"
    assert effects["malloc"] == effects["calloc"] == "what it allocates is not seen"
    assert "moves" in effects["realloc"]
    assert "malloc" in effects["_Znwm"]
    assert all(effects.values())


def test_only_what_entry_tells_all_about_has_its_end_not_seen() -> None:
    assert {function.name for function in table() if function.exit is Exit.NONE} >= {
        *("free", "munmap", "je_free", "mi_free", "_ZdlPv", "_ZdaPvmSt11align_val_t"),
    }
    by_entry = {function.entry for function in table() if function.exit is Exit.NONE}
    assert by_entry == {Entry.FREE, Entry.MUNMAP}


def test_return_addresses_are_left_alone_where_an_exception_may_pass() -> None:
    throwing = {each.name for each in table() if each.exit is Exit.INSTRUCTIONS}
    assert throwing == {"_Znwm", "_Znam", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t"}


def test_a_prefix_replaces_the_known_ones() -> None:
    names = {function.name for function in table("my_")}
    assert {"my_malloc", "my_free", "mmap"} <= names
    assert not names & {"malloc", "je_malloc", "_Znwm"}


def test_every_program_named_is_one_of_the_bpf_source() -> None:
    source = (BPF_SOURCE / "memleak.bpf.c").read_text()
    written = set(re.findall(r"^int (\w+)\(struct pt_regs \*ctx\)", source, re.MULTILINE))
    everything = [Traced(function, Site(FileOffset(1)), (FileOffset(2),)) for function in table()]
    attached = {probe.program for probe in probes_for(everything)}
    gone_on_in = {"on_walk", "on_replaced", "on_unmapped"}
    assert attached | gone_on_in == written == set(PROGRAMS)


def test_cookies_are_the_header_s_entries() -> None:
    found = re.search(r"enum entry {(.*?)};", (BPF_SOURCE / "memleak.h").read_text(), re.DOTALL)
    assert found
    names = re.findall(r"ENTRY_(\w+)", found[1])
    assert [entry.name for entry in Entry if entry is not Entry.FREE] == names
    assert [Entry[name].value for name in names] == list(range(len(names)))


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


def test_an_allocator_may_have_a_prefix() -> None:
    assert is_allocator(found(je_malloc=1, je_free=2))
    assert is_allocator(found(my_malloc=1, my_free=2), "my_")
    assert not is_allocator(found(malloc=1, free=2), "my_")


def test_all_returns_are_probed_before_any_entry() -> None:
    planned = list(probes_for(traced(malloc=1, free=2, mmap=3, munmap=4)))
    assert [(probe.function.name, probe.at_exit) for probe in planned] == [
        ("malloc", True),
        ("mmap", True),
        ("malloc", False),
        ("free", False),
        ("mmap", False),
        ("munmap", False),
    ]
    assert [probe.program for probe in planned] == [
        *("on_call", "on_mapping"),
        *("on_call", "on_free", "on_mapping", "on_unmap"),
    ]
    assert [probe.offset for probe in planned] == [1, 3, 1, 2, 3, 4]


def test_a_cookie_says_what_was_pushed_before_the_site() -> None:
    header = (BPF_SOURCE / "memleak.h").read_text()
    assert f"#define COOKIE_PUSHED_SHIFT {COOKIE_PUSHED_SHIFT}" in header
    (calloc,) = (function for function in table() if function.name == "calloc")
    (probe,) = probes_for([Traced(replace(calloc, exit=Exit.NONE), Site(FileOffset(3), pushed=2))])
    assert probe.cookie(0) == Entry.CALLOC.value | 2 << COOKIE_PUSHED_SHIFT


def test_a_cookie_says_in_which_process_it_is() -> None:
    header = (BPF_SOURCE / "memleak.h").read_text()
    assert f"#define COOKIE_SLOT_SHIFT {COOKIE_SLOT_SHIFT}" in header
    at_exit, at_entry = (each.cookie(7) for each in probes_for(traced(malloc=1)))
    assert at_exit == COOKIE_EXIT | 7 << COOKIE_SLOT_SHIFT
    assert at_entry == Entry.MALLOC.value | 7 << COOKIE_SLOT_SHIFT


def test_probes_can_be_planned_from_an_iterator() -> None:
    assert len(list(probes_for(iter(traced(malloc=1))))) == 2


def test_ret_instructions_are_probed_as_instructions() -> None:
    (new,) = [function for function in table() if function.name == "_Znwm"]
    exits = (FileOffset(5), FileOffset(9))
    planned = list(probes_for([Traced(new, Site(FileOffset(1)), exits)]))
    assert [(each.offset, each.program, each.is_return_probe) for each in planned] == [
        (5, "on_call", False),
        (9, "on_call", False),
        (1, "on_call", False),
    ]


def test_the_sources_that_are_compiled_lie_beside_the_package() -> None:
    assert {
        "memleak.bpf.c",
        "blocks.bpf.h",
        "call.bpf.h",
        "unwind.bpf.h",
        "memleak.h",
        "headers",
    } <= {path.name for path in Path(BPF_SOURCE).iterdir()}
