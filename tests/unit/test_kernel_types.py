"""Where members of structures lie, as BTF says: a description made by hand, and the kernel's."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.tracer.kernel_types import changed_return, member_offsets
from leaktop.tracer.objects import KERNEL_TYPES

INT, POINTER, ARRAY, STRUCT, ENUM, FUNCTION = 1, 2, 3, 4, 6, 13
WANTED = {"task_struct": "utask"}


class Types:
    """Makes a description: each call adds a type."""

    def __init__(self) -> None:
        self.names = b"\0"
        self.types = b""

    def name(self, name: str) -> int:
        if not name:
            return 0
        self.names += name.encode() + b"\0"
        return len(self.names) - len(name) - 1

    def add(
        self, kind: int, name: str = "", count: int = 0, after: bytes = b"", flag: int = 0
    ) -> None:
        info = flag << 31 | kind << 24 | count
        self.types += struct.pack("<III", self.name(name), info, 8) + after

    def structure(self, name: str, *members: tuple[str, int], flag: int = 0) -> None:
        after = b"".join(struct.pack("<III", self.name(each), 1, bits) for each, bits in members)
        self.add(STRUCT, name, len(members), after, flag)

    def btf(self) -> bytes:
        sizes = (0, len(self.types), len(self.types), len(self.names))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + self.types + self.names


def some() -> Types:
    made = Types()
    made.add(INT, "int", after=bytes(4))
    made.add(POINTER)
    made.add(ARRAY, after=bytes(12))
    made.add(ENUM, "colour", 2, bytes(16))
    made.add(FUNCTION, count=3, after=bytes(24))
    made.structure("", ("", 8), ("other", 64))
    made.structure("list", ("next", 0))
    return made


def test_a_member_is_found_behind_all_kinds_of_types() -> None:
    made = some()
    made.structure("task_struct", ("state", 0), ("", 64), ("utask", 8 * 2896))
    assert member_offsets(made.btf(), WANTED) == {"task_struct": 2896}


def test_bit_fields_share_a_word_with_their_size() -> None:
    made = some()
    made.structure("task_struct", ("flag", 1 << 24 | 7), ("utask", 64), flag=1)
    made.structure("list_head", ("last", 3 << 24 | 128), flag=1)
    wanted = {**WANTED, "list_head": "last"}
    assert member_offsets(made.btf(), wanted) == {"task_struct": 8, "list_head": 16}


def test_what_has_no_name_is_not_what_is_not_there() -> None:
    made = some()
    assert member_offsets(made.btf(), WANTED) == {}
    made.structure("task_struct", ("state", 0))
    assert member_offsets(made.btf(), WANTED) == {}


def test_a_structure_without_the_member_is_left_out() -> None:
    made = some()
    made.structure("other_task", ("utask", 64))
    made.structure("task_struct", ("state", 0))
    assert member_offsets(made.btf(), WANTED) == {}


@pytest.mark.parametrize("damaged", [b"", b"\x7fELF" + bytes(40), some().btf()[:40]])
def test_damaged(damaged: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert member_offsets(damaged, WANTED) == {}


@given(st.binary(max_size=200))
def test_any_bytes(types: bytes) -> None:
    made = some()
    made.name("task_struct")
    made.name("utask")
    made.types += types
    with contextlib.suppress(ValueError):
        member_offsets(made.btf(), WANTED)


@pytest.mark.skipif(not KERNEL_TYPES.exists(), reason="this kernel does not describe its types")
def test_of_this_kernel() -> None:
    found = changed_return()
    assert found is not None
    assert all(offset % 8 == 0 for offset in found)
    assert found[0] > 0
