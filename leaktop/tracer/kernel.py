"""bpf(2) as far as leaktop uses it: the C library has no wrapper, and bcc's brings clang along.

The structures are parts of ``union bpf_attr`` (include/uapi/linux/bpf.h); fields that are left out
at a structure's end are zero to the kernel.
"""

import ctypes as ct
import errno
import os
import resource
import struct
from dataclasses import dataclass

from leaktop.tracer.arch import this_machine

_MAP_CREATE = 0
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_MAP_GET_NEXT_KEY = 4
_PROG_LOAD = 5
_OBJ_GET_INFO_BY_FD = 15
_RAW_TRACEPOINT_OPEN = 17
LINK_CREATE = 28
_BTF_LOAD = 18
_MAP_LOOKUP_BATCH = 24

PROG_TYPE_KPROBE = 2
PROG_TYPE_TRACEPOINT = 5
PROG_TYPE_RAW_TRACEPOINT = 17
MAP_TYPE_TASK_STORAGE = 29
_PSEUDO_MAP_FD = 1
_LOAD_IMM64 = 0x18
INSTRUCTION = struct.Struct("<BBhi")
"""struct bpf_insn: code, registers (source in the upper half), offset, immediate."""

_LOG_BYTES = 1 << 20

_libc = ct.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map as the program wants it: what bpf(2) needs to make it."""

    name: str
    kind: int
    """``enum bpf_map_type``."""
    key_size: int
    value_size: int
    entries: int
    flags: int
    fields: tuple[str, ...]
    """Names of the fields of its values, where they are structures."""


class _MapCreate(ct.Structure):
    _fields_ = [
        ("map_type", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("numa_node", ct.c_uint32),
        ("map_name", ct.c_char * 16),
        ("map_ifindex", ct.c_uint32),
        ("btf_fd", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
    ]


class _Element(ct.Structure):
    _fields_ = [
        ("map_fd", ct.c_uint32),
        ("key", ct.c_uint64),
        ("value", ct.c_uint64),  # or the next key
        ("flags", ct.c_uint64),
    ]


class _Batch(ct.Structure):
    _fields_ = [
        ("in_batch", ct.c_uint64),
        ("out_batch", ct.c_uint64),
        ("keys", ct.c_uint64),
        ("values", ct.c_uint64),
        ("count", ct.c_uint32),
        ("map_fd", ct.c_uint32),
        ("elem_flags", ct.c_uint64),
        ("flags", ct.c_uint64),
    ]


class _ProgramLoad(ct.Structure):
    _fields_ = [
        ("prog_type", ct.c_uint32),
        ("insn_cnt", ct.c_uint32),
        ("insns", ct.c_uint64),
        ("license", ct.c_uint64),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_uint64),
        ("kern_version", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_name", ct.c_char * 16),
        ("prog_ifindex", ct.c_uint32),
        ("expected_attach_type", ct.c_uint32),
    ]


class _RawTracepointOpen(ct.Structure):
    _fields_ = [("name", ct.c_uint64), ("prog_fd", ct.c_uint32)]


class _Info(ct.Structure):
    _fields_ = [("bpf_fd", ct.c_uint32), ("info_len", ct.c_uint32), ("info", ct.c_uint64)]


class _ProgramInfo(ct.Structure):
    # struct bpf_prog_info
    _fields_ = [
        ("before", ct.c_uint64 * 26),
        ("recursion_misses", ct.c_uint64),
    ]


class _BtfLoad(ct.Structure):
    _fields_ = [
        ("btf", ct.c_uint64),
        ("btf_log_buf", ct.c_uint64),
        ("btf_size", ct.c_uint32),
        ("btf_log_size", ct.c_uint32),
        ("btf_log_level", ct.c_uint32),
    ]


def system_call(number: int, *arguments: object) -> int:
    """Return what a system call returns; raises OSError where it fails."""
    result = int(_libc.syscall(ct.c_long(number), *arguments))
    if result < 0:
        reason = ct.get_errno()
        raise OSError(reason, os.strerror(reason))
    return result


def bpf(command: int, attributes: ct.Structure) -> int:
    """Return the result of a command; raises OSError where it fails."""
    arch = this_machine()
    if arch is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return system_call(arch.sys_bpf, command, ct.byref(attributes), ct.sizeof(attributes))


def create_map(spec: MapSpec) -> int:
    """Return the descriptor of a new map. Raises OSError."""
    fields = _MapCreate(
        map_type=spec.kind,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=spec.entries,
        map_flags=spec.flags,
        map_name=spec.name.encode()[:15],
    )
    types = -1
    if spec.kind == MAP_TYPE_TASK_STORAGE:  # described it must be (kernel commit 4cf1bc1f1045)
        types = _load_btf(_btf_of_bytes(spec.value_size))
        fields.btf_fd, fields.btf_key_type_id, fields.btf_value_type_id = types, 1, 3
    try:
        return bpf(_MAP_CREATE, fields)
    except PermissionError:
        # map memory counted as locked until kernel commit 5b0764b6d3a6, by a limit of often 64 KB
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        except ValueError:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
        return bpf(_MAP_CREATE, fields)
    finally:
        if types >= 0:
            os.close(types)


def lookup(map_fd: int, key: int, value: int) -> None:
    """Copy the value under a key; both are addresses. Raises OSError (ENOENT: there is none)."""
    bpf(_MAP_LOOKUP_ELEM, _Element(map_fd=map_fd, key=key, value=value))


def update(map_fd: int, key: int, value: int) -> None:
    """Set the value under a key; both are addresses. Raises OSError."""
    bpf(_MAP_UPDATE_ELEM, _Element(map_fd=map_fd, key=key, value=value))


def delete(map_fd: int, key: int) -> None:
    """Take out the entry under a key, an address. Raises OSError."""
    bpf(_MAP_DELETE_ELEM, _Element(map_fd=map_fd, key=key))


def next_key(map_fd: int, key: int, following: int) -> None:
    """Copy the key after one; addresses, 0 for the first. Raises OSError (ENOENT: was the last)."""
    bpf(_MAP_GET_NEXT_KEY, _Element(map_fd=map_fd, key=key, value=following))


def lookup_batch(
    map_fd: int, *, begin: int, following: int, keys: int, values: int, count: int
) -> tuple[int, int]:
    """Copy up to ``count`` entries; returns how many, and 0 or the error number.

    ``begin`` and ``following`` are addresses of positions, ``begin`` 0 for the first. ENOENT says
    that these were the last, ENOSPC that one bucket holds more than ``count``.
    """
    fields = _Batch(
        in_batch=begin, out_batch=following, keys=keys, values=values, count=count, map_fd=map_fd
    )
    try:
        bpf(_MAP_LOOKUP_BATCH, fields)
    except OSError as error:
        return fields.count, error.errno or errno.EINVAL
    return fields.count, 0


def load_program(code: bytes, attach_type: int, name: str, kind: int = PROG_TYPE_KPROBE) -> int:
    """Return the descriptor of a loaded program, of uprobes where ``kind`` says no other.

    Raises OSError; its text ends with what the verifier said last, where it said something.
    """
    instructions = ct.create_string_buffer(code, len(code))
    license_ = ct.create_string_buffer(b"GPL")
    fields = _ProgramLoad(
        prog_type=kind,
        insn_cnt=len(code) // INSTRUCTION.size,
        insns=ct.addressof(instructions),
        license=ct.addressof(license_),
        prog_name=name.encode()[:15],
        expected_attach_type=attach_type,
    )
    try:
        return bpf(_PROG_LOAD, fields)
    except OSError as error:
        log = ct.create_string_buffer(_LOG_BYTES)
        fields.log_level, fields.log_size, fields.log_buf = 1, _LOG_BYTES, ct.addressof(log)
        try:
            return bpf(_PROG_LOAD, fields)
        except OSError:
            said = log.value.decode(errors="replace").strip().splitlines()
            # the last lines are statistics
            words = [line for line in said if not line.startswith(("processed ", "verification "))]
            raise OSError(error.errno, ": ".join([error.strerror or "", *words[-1:]])) from None


def attach_raw_tracepoint(program_fd: int, name: str) -> int:
    """Return a descriptor that keeps a program on a tracepoint of the kernel's, by its bare name.

    Needs no tracefs (kernel commit c4f6699dfcbd). Raises OSError (ENOENT: there is no such
    tracepoint).
    """
    text = ct.create_string_buffer(name.encode())
    fields = _RawTracepointOpen(name=ct.addressof(text), prog_fd=program_fd)
    return bpf(_RAW_TRACEPOINT_OPEN, fields)


def recursion_misses(program_fd: int) -> int:
    """Return how often the kernel passed a program over since another one ran.

    Kernel commits 9ed9e9ba2337 (the field) and dd8657894c11 (of tracepoints); 0 on a kernel that
    does not count. Raises OSError.
    """
    info = _ProgramInfo()
    fields = _Info(bpf_fd=program_fd, info_len=ct.sizeof(info), info=ct.addressof(info))
    bpf(_OBJ_GET_INFO_BY_FD, fields)
    return int(info.recursion_misses)


def relocations(code: bytes, maps: dict[int, int]) -> list[tuple[int, int]]:
    """Return where a program names maps by descriptor: instruction, and what ``maps`` has for it.

    Raises KeyError for a descriptor that it has not got.
    """
    found = []
    for index, (opcode, registers, _, value) in enumerate(INSTRUCTION.iter_unpack(code)):
        if opcode == _LOAD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
            found.append((index, maps[value]))
    return found


def relocate(code: bytes, places: list[tuple[int, int]], descriptors: list[int]) -> bytes:
    """Put map descriptors where ``relocations`` found some. Raises IndexError, struct.error."""
    relocated = bytearray(code)
    for index, number in places:
        opcode, registers, offset, _ = INSTRUCTION.unpack_from(code, index * INSTRUCTION.size)
        fields = (opcode, registers, offset, descriptors[number])
        INSTRUCTION.pack_into(relocated, index * INSTRUCTION.size, *fields)
    return bytes(relocated)


def _load_btf(types: bytes) -> int:
    data = ct.create_string_buffer(types, len(types))
    return bpf(_BTF_LOAD, _BtfLoad(btf=ct.addressof(data), btf_size=len(types)))


def _btf_of_bytes(size: int) -> bytes:
    """Return the least type information (Documentation/bpf/btf.rst).

    Type 1 is int, type 2 unsigned char, type 3 an array of ``size`` of those.
    """
    strings = b"\0int\0u8\0"
    kind_int, kind_array = 1 << 24, 3 << 24
    types = struct.pack("<4I", 1, kind_int, 4, 1 << 24 | 32)
    types += struct.pack("<4I", 5, kind_int, 1, 8)
    types += struct.pack("<3I3I", 0, kind_array, 0, 2, 1, size)
    header = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings
