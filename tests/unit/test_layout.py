"""Python's structures against the text of memleak.h, which the BPF program is compiled from."""

import re

import numpy as np
import pytest

from leaktop.model import LIFETIME_EDGES_S, LOSSES
from leaktop.single_blocks import EventKind
from leaktop.tracer import TracerError, layout
from leaktop.tracer.image import BPF_SOURCE
from leaktop.tracer.probes import COOKIE_EXIT

HEADER = re.sub(r"/\*.*?\*/", "", (BPF_SOURCE / "memleak.h").read_text(), flags=re.DOTALL)
STRUCTURES = {
    "config": layout.CONFIG,
    "block": layout.BLOCK,
    "set_block": layout.SET_BLOCK,
    "block_set": layout.BLOCK_SET,
    "event": layout.EVENT,
    "stack_stats": layout.STACK_STATS,
    "stack_lifetimes": layout.STACK_LIFETIMES,
    "stack": layout.STACK,
    "frame_rule": layout.FRAME_RULE,
    "question": layout.QUESTION,
    "kernel_config": layout.KERNEL_CONFIG,
    "cache_name": layout.CACHE_NAME,
}
WIDTHS = {"u64": 8, "u32": 4, "s32": 4, "u16": 2, "u8": 1}


def constants() -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"#define (\w+) (\d+)", HEADER)}


def length_of(text: str) -> int:
    return int(text) if text.isdecimal() else constants()[text]


def fields(name: str) -> list[tuple[str, int, int]]:
    """Names, byte widths and array lengths of a structure's fields, in order."""
    found = re.search(rf"^struct {name} {{(.*?)^}};", HEADER, re.DOTALL | re.MULTILINE)
    assert found, name
    # an array of pairs counts by its whole size
    body, pairs = found[1], []
    for inner, array, length in re.findall(r"struct {([^}]*)} (\w+)\[(\w+)\];", body):
        names = re.findall(r"\w+", inner)
        assert names[0] == "u64"
        pairs.append((array, 8 * len(names[1:]), length_of(length)))
    body = re.sub(r"struct {[^}]*} \w+\[\w+\];", "", body)
    WIDTHS["struct set_block"] = 24  # asserted there, and compared here
    plain = [
        (field, WIDTHS[width], length_of(length) if length else 1)
        for width, field, length in re.findall(
            r"(u64|u32|s32|u16|u8|struct set_block) (\w+)(?:\[(\w+)\])?;", body.replace("\t", " ")
        )
    ]
    return plain + pairs  # in the one structure that has pairs they come last


def described(dtype: np.dtype[np.void]) -> list[tuple[str, int, int]]:
    """The same of a numpy structure."""
    assert dtype.fields is not None
    described = []
    for name in dtype.names or ():
        item = dtype.fields[name][0]
        width = item.base.itemsize
        described.append((name, width, item.itemsize // width))
    return described


def test_a_mark_in_an_address_is_the_same() -> None:
    found = re.search(r"#define BEING_FILLED (\d+)", (BPF_SOURCE / "blocks.bpf.h").read_text())
    assert found
    assert int(found[1]) == layout.BEING_FILLED


def test_the_cookie_of_an_exit_is_the_same() -> None:
    found = re.search(r"#define COOKIE_EXIT (0x\w+)", HEADER)
    assert found
    assert int(found[1], 16) == COOKIE_EXIT


def enum(name: str) -> list[str]:
    found = re.search(rf"enum {name} {{(.*?)}};", HEADER, re.DOTALL)
    assert found
    assert set(re.findall(r"= *(\w+)", found[1])) <= {"0"}
    return re.findall(r"(\w+)(?: = 0)?,", found[1])


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_fields_have_the_same_names_order_and_widths(name: str) -> None:
    assert described(STRUCTURES[name]) == fields(name)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_fields_follow_each_other_without_gaps(name: str) -> None:
    assert STRUCTURES[name].itemsize == sum(width * count for _, width, count in fields(name))


def test_the_header_asserts_the_same_sizes() -> None:
    asserted = dict(re.findall(r"_Static_assert\(sizeof\(struct (\w+)\) == (\d+)", HEADER))
    assert {name: int(size) for name, size in asserted.items()} == {
        name: dtype.itemsize for name, dtype in STRUCTURES.items()
    }


def test_constants_are_the_same() -> None:
    known = constants()
    assert known["STACK_DEPTH_MAX"] == layout.STACK_DEPTH_MAX
    assert known["STACK_ID_UNFILED"] == layout.STACK_ID_UNFILED
    assert known["STACK_UNFILED"] == layout.STACK_UNFILED
    assert known["SET_WAYS"] == layout.SET_WAYS
    assert known["ALLOCATORS_MAX"] == layout.ALLOCATORS_MAX
    assert known["PROCESSES_MAX"] == layout.PROCESSES_MAX
    assert known["KEY_SLOT_SHIFT"] == layout.KEY_SLOT_SHIFT
    assert known["SLOT_OWN"] == layout.SLOT_OWN
    assert known["PAGE_TAKERS_MAX"] == layout.PAGE_TAKERS_MAX
    assert known["CACHE_NAME_MAX"] == layout.CACHE_NAME_MAX
    assert known["LIFETIME_BANDS"] == layout.LIFETIME_BANDS == len(LIFETIME_EDGES_S)
    edges_ns = [2 ** (known["LIFETIME_SHIFT"] + band - 1) for band in range(1, 24)]
    assert pytest.approx([0.0, *(ns * 1e-9 for ns in edges_ns)]) == list(LIFETIME_EDGES_S)


def test_phases_are_the_same() -> None:
    phases = enum("phase")
    assert phases.index("PHASE_FOLLOW") == layout.PHASE_FOLLOW
    assert phases.index("PHASE_COUNT") == layout.PHASE_COUNT
    assert phases.index("PHASE_OFF") == 0


def test_kinds_of_events_are_the_same() -> None:
    kinds = enum("event_kind")
    assert [kind.removeprefix("EVENT_").lower() for kind in kinds] == list(EventKind)


def test_a_key_has_the_slot_and_the_address() -> None:
    for slot, address in ((0, 0), (1, 0x7FFF_FFFF_FFFF), (4095, 0x5555_0000_0010)):
        assert layout.slot_and_address(layout.key_of(slot, address)) == (slot, address)


def test_losses_have_the_same_names_in_the_same_order() -> None:
    names = enum("loss")
    assert names[-1] == "LOSS_COUNT"
    assert [name.removeprefix("LOST_").lower() for name in names[:-1]] == list(LOSSES)


def test_every_loss_is_counted_somewhere() -> None:
    program = "".join(path.read_text() for path in BPF_SOURCE.glob("*.bpf.*"))
    for name in enum("loss")[:-1]:
        elsewhere = ("LOST_RULES_FULL", "LOST_MISSED_EVENTS")
        assert f"lose({name})" in program or name in elsewhere, name


@pytest.mark.parametrize("name", list(layout.STRUCTURES))
def test_a_map_as_it_is_read_passes(name: str) -> None:
    dtype = layout.STRUCTURES[name]
    layout.check(name, list(dtype.names or ()), dtype.itemsize)


def test_a_map_of_other_fields_or_size_is_refused() -> None:
    names = list(layout.BLOCK.names or ())
    with pytest.raises(TracerError, match="mappings") as refusal:
        layout.check("mappings", names[::-1], layout.BLOCK.itemsize)
    assert "install" in str(refusal.value)
    with pytest.raises(TracerError, match="mappings"):
        layout.check("mappings", names, layout.BLOCK.itemsize + 8)
    with pytest.raises(TracerError, match="mappings"):
        layout.check("mappings", names[:-1], layout.BLOCK.itemsize)
