"""Python's half of ``bpf/memleak.h`` and ``bpf/growth.h``: the same structures as numpy types.

``check`` compares them with what the compiled program says of its maps, so that a change on one
side only cannot go unnoticed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from leaktop.tracer import TracerError

STACK_DEPTH_MAX = 127
STACK_UNFILED = 0
STACK_ID_UNFILED = 1
ALLOCATORS_MAX = 4
PROCESSES_MAX = 4096
KEY_SLOT_SHIFT = 48
_ADDRESS = (1 << KEY_SLOT_SHIFT) - 1
KEY = np.dtype("u8")
PHASE_FOLLOW, PHASE_COUNT = 1, 2
WHOLE, TRUNCATED, ASKED = range(3)

CHANGED_RETURN = ("task_uprobes", "uprobes_return", "return_sp", "return_address")
CONFIG = np.dtype(
    [
        ("phase", "u8"),
        ("min_size", "u8"),
        ("max_size", "u8"),
        ("sample_rate", "u8"),
        ("trampoline", "u8"),
        *((name, "u8") for name in CHANGED_RETURN),
        ("allocators", [("start", "u8"), ("end", "u8")], (ALLOCATORS_MAX,)),
    ]
)
GROWTH_SLOT = 1
GROWTH_CONFIG = np.dtype([("phase", "u8"), ("sample_rate", "u8"), ("pid", "u8")])
SET_BLOCK = np.dtype([("size", "u8"), ("birth_ns", "u8"), ("stack", "u4"), ("weight", "u4")])
BLOCK = np.dtype(
    [
        ("size", "u8"),
        ("birth_ns", "u8"),
        ("stack", "u4"),
        ("weight", "u4"),
        ("thread", "u4"),
        ("pad", "u4"),
    ]
)
SET_WAYS = 7
BEING_FILLED = 1
BLOCK_SET = np.dtype(
    [
        ("key", "u8", (SET_WAYS,)),
        ("spilled", "u4"),
        ("thread", "u4", (SET_WAYS,)),
        ("block", SET_BLOCK, (SET_WAYS,)),
    ]
)
STACK_STATS = np.dtype(
    [
        ("bytes", "i8"),
        ("allocs", "i8"),
        ("frees", "i8"),
        ("oldest_ns", "u8"),
        ("oldest_freed", "u8"),
        ("log", "u8"),
        ("alloc_bytes", "i8"),
        ("pad", "u8"),
    ]
)
LIFETIME_BANDS = 24
STACK_LIFETIMES = np.dtype([("frees", "i8", (LIFETIME_BANDS,))])
EVENT = np.dtype(
    [
        ("time_ns", "u8"),
        ("address", "u8"),
        ("size", "u8"),
        ("thread", "u4"),
        ("stack", "u4"),
        ("weight", "u4"),
        ("kind", "u4"),
    ]
)
STACK = np.dtype(
    [
        ("id", "u8"),
        ("slot", "u4"),
        ("depth", "u2"),
        ("truncated", "u2"),
        ("pc", "u8", (STACK_DEPTH_MAX,)),
    ]
)

SAVED_REGISTERS = 6
FRAME_RULE = np.dtype(
    [
        ("cfa_offset", "i4"),
        ("load_offset", "i4"),
        ("base", "u1"),
        ("flags", "u1"),
        ("slots", "u1", (SAVED_REGISTERS,)),
    ]
)
QUESTION = np.dtype(
    [
        ("stack_id", "u8"),
        ("pc", "u8"),
        ("registers", "u8", (SAVED_REGISTERS,)),
        ("sp", "u8"),
        ("slot", "u4"),
        ("lost", "u4"),
        ("image_start", "u8"),
        ("image_size", "u8"),
    ]
)

PAGE_TAKERS_MAX = 16
SLOT_OWN = 1
KERNEL_CONFIG = np.dtype(
    [
        ("own_pid", "u8"),
        ("pid", "u8"),
        ("namespace_device", "u8"),
        ("namespace_inode", "u8"),
        ("missing_frees", "u8"),
        ("page_takers", [("start", "u8"), ("end", "u8")], (PAGE_TAKERS_MAX,)),
    ]
)
CACHE_NAME_MAX = 48
CACHE_NAME = np.dtype([("text", "u1", (CACHE_NAME_MAX,))])

STRUCTURES: dict[str, np.dtype[Any]] = {
    "config": CONFIG,
    "growth_config": GROWTH_CONFIG,
    "block_sets": BLOCK_SET,
    "spilled_blocks": BLOCK,
    "mappings": BLOCK,
    "stack_stats": STACK_STATS,
    "stack_lifetimes": STACK_LIFETIMES,
    "stacks": STACK,
    "frame_rules": FRAME_RULE,
    "kernel_config": KERNEL_CONFIG,
    "cache_names": CACHE_NAME,
}
"""The structure of each map's values."""


def key_of(slot: int, address: int) -> int:
    """Return the kernel side's key of an address in the process of a slot."""
    return address & _ADDRESS | slot << KEY_SLOT_SHIFT


def slot_and_address(key: int) -> tuple[int, int]:
    """Return the slot and the address that a key stands for."""
    return key >> KEY_SLOT_SHIFT, key & _ADDRESS


def check(map_name: str, names: Sequence[str], size: int) -> None:
    """Raise TracerError unless a map's fields and size in bytes are those that are read here."""
    expected = STRUCTURES[map_name]
    if tuple(names) != expected.names or size != expected.itemsize:
        raise TracerError(
            f"leaktop's BPF program and its reader disagree about {map_name}: "
            "this installation is damaged, install leaktop again"
        )
