"""Where members of the kernel's structures lie, as its own description of types says (BTF).

Format: Documentation/bpf/btf.rst of the kernel.
"""

import struct
from collections.abc import Mapping

from leaktop.tracer.objects import KERNEL_TYPES

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")  # name, what it is, size or type
_MEMBER = struct.Struct("<III")  # name, type, bits from the beginning
_STRUCT, _UNION = 4, 5
_WORD_AFTER = (1, 14, 17)  # kinds that one word follows: a number, a variable, a tag
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # by kind: bytes of each
_ARRAY, _ARRAY_BYTES = 3, 12
_MEMBER_BITS = 0xFFFFFF


def changed_return() -> tuple[int, int, int, int] | None:
    """Return where the kernel keeps the return address that it changed for a return probe.

    Offsets as ``struct config`` of ``bpf/memleak.h`` has them; None where the kernel does not
    describe its types so (include/linux/uprobes.h).
    """
    wanted = {"task_struct": "utask", "uprobe_task": "return_instances"}
    try:
        btf = KERNEL_TYPES.read_bytes()
        found = member_offsets(btf, {**wanted, "return_instance": "stack"})
        address = member_offsets(btf, {"return_instance": "orig_ret_vaddr"})
    except (OSError, ValueError):
        return None
    if len(found) != len(wanted) + 1 or not address:
        return None
    return (
        found["task_struct"],
        found["uprobe_task"],
        found["return_instance"],
        address["return_instance"],
    )


def member_offsets(btf: bytes, wanted: Mapping[str, str]) -> dict[str, int]:
    """Return, by name of a structure, at which byte its wanted member begins.

    What is not described is left out, and all where a name is unknown. Raises ValueError where this
    is no such description.
    """
    try:
        return _member_offsets(btf, wanted)
    except struct.error:
        raise ValueError("the description of types is cut short") from None


def _member_offsets(btf: bytes, wanted: Mapping[str, str]) -> dict[str, int]:
    magic, _, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(btf)
    if magic != _MAGIC:
        raise ValueError("no description of types")
    names = btf[header + strings : header + strings + strings_size]
    offsets = {
        name: names.find(f"\0{name}\0".encode()) + 1 for pair in wanted.items() for name in pair
    }
    if not all(offsets.values()):  # 0 is the name of what has none
        return {}
    structures = {offsets[name]: name for name in wanted}
    found: dict[str, int] = {}
    at, end = header + types, header + types + types_size
    while at < end and len(found) < len(wanted):
        name, info, _ = _TYPE.unpack_from(btf, at)
        at += _TYPE.size
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if kind == _STRUCT and name in structures:
            structure = structures[name]
            for i in range(count):
                member, _, bits = _MEMBER.unpack_from(btf, at + i * _MEMBER.size)
                if member == offsets[wanted[structure]]:
                    found[structure] = (bits & _MEMBER_BITS if info >> 31 else bits) // 8
        at += _PER_MEMBER.get(kind, 0) * count
        at += 4 if kind in _WORD_AFTER else _ARRAY_BYTES if kind == _ARRAY else 0
    return found
