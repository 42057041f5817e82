"""The files that a process has mapped, held open from the moment that they are first seen.

Opened at capture, a file can be read after the target unmapped it, replaced it on disk or exited.
It is read, never mapped: whoever owns the file could cut it short, and reading a page that is gone
from a mapping ends the process (SIGBUS, mmap(2)).
"""

import ctypes
import errno
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leaktop.elf import ElfError, ElfFile, FileOffset
from leaktop.procfs import Mapping, parse_maps

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAX_FILE = 16 << 30
_MAX_MAPS = 64 << 20  # of text in /proc/PID/maps

_OPENAT2 = 437  # system call number, the same on all architectures (Linux 5.6, fddb5d430ad9)
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class _RefusedError(Exception):
    # why a file is not read
    pass


class _Descriptor:
    # closed when the last reader of the file is gone

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _Reader(io.RawIOBase):
    # reads with a position of its own, so that threads can share one descriptor

    def __init__(self, descriptor: _Descriptor, size: int) -> None:
        self._descriptor, self._size, self._at = descriptor, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence, self._size)
        return self._at

    def readinto(self, buffer: "Buffer") -> int:
        count = os.preadv(self._descriptor.number, [buffer], self._at)
        self._at += count
        return count


class Module:
    """One mapped file, or memory without a file such as ``[vdso]``.

    The file stays open as long as this or an ``ElfFile`` of it is in use.
    """

    def __init__(self, path: str, *, deleted: bool = False) -> None:
        self.path = path
        """As the target sees it."""
        self.name = path.rsplit("/", 1)[-1] or "[anon]"
        """The path without its folder, or a pseudo name."""
        self.deleted = deleted
        """Whether the file had no name any more when it was opened."""
        self.build_id: str | None = None
        """NT_GNU_BUILD_ID in hexadecimal."""
        self.problem: str | None = None
        """Why there is no file, or no readable one; None for memory that has none anyway."""
        self.identity: tuple[object, ...] = (path,)
        """Equal for modules whose contents are the same: build-id and size, or else the file."""
        self._descriptor: _Descriptor | None = None
        self._size = 0

    def __repr__(self) -> str:
        return f"Module({self.path!r}, build_id={self.build_id!r})"

    def open_elf(self) -> ElfFile:
        """Return a new reader of the file; raises ElfError where it cannot be read."""
        if self._descriptor is None:
            raise ElfError(self.problem or "there is no file behind this memory")
        return ElfFile(io.BufferedReader(_Reader(self._descriptor, self._size)))

    def fileno(self) -> int | None:
        """Return the descriptor of the file, which belongs to this module; None without a file."""
        return None if self._descriptor is None else self._descriptor.number

    def hold(self, descriptor: int) -> None:
        """Take an open regular file as this module's; owns the descriptor from now on."""
        self._descriptor = _Descriptor(descriptor)
        status = os.fstat(descriptor)
        self._size = status.st_size
        self.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        try:
            self.build_id = self.open_elf().build_id
        except ElfError as error:
            self.problem = str(error)
        if self.build_id:
            self.identity = (self.build_id, status.st_size)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a return address points, in terms that outlive the process."""

    address: int
    """In the target's memory."""
    module: Module | None
    """None where nothing is mapped there."""
    offset: FileOffset
    """Of the byte at ``address`` in the module's file."""

    @classmethod
    def in_mapping(cls, address: int, mapping: Mapping, module: Module) -> "Location":
        """Return the location of an address that lies in a mapping of a module."""
        return cls(address, module, FileOffset(address - mapping.start + mapping.file_offset))


def open_module(pid: int, mapping: Mapping) -> Module:
    """Open the very file that a mapping shows, never another of the same path; never raises.

    Through /proc/PID/map_files, which needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE (proc(5)),
    or else by its path in the target's root where inode and device are still the same. A module
    that could not be opened says why in ``problem``.
    """
    module = Module(mapping.path, deleted=mapping.deleted)
    if not mapping.file_backed:
        return module
    try:
        module.hold(_open_mapped(pid, mapping))
    except _RefusedError as error:
        module.problem = str(error)
    except OSError as error:
        module.problem = f"cannot be opened: {error.strerror}"
    return module


def _open_mapped(pid: int, mapping: Mapping) -> int:
    try:
        found = os.open(f"/proc/{pid}/map_files/{mapping.map_files_name}", os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if mapping.deleted or error.errno not in {errno.EPERM, errno.EACCES, errno.ENOENT}:
            raise
        return _open_in_root(pid, mapping)
    try:
        status = _check_regular(found)
        # Some file systems (btrfs, overlayfs) show one device or inode here and another in maps;
        # then the kernel's own words must still be the same.
        if not _is_mapped(status, mapping) and not _still_mapped(pid, mapping):
            raise _RefusedError("unmapped before it could be opened")
        return os.open(f"/proc/self/fd/{found}", _OPEN)
    finally:
        os.close(found)


def _open_in_root(pid: int, mapping: Mapping) -> int:
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        found = _openat2(root, mapping.path, os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(root)
    try:
        if not _is_mapped(_check_regular(found), mapping):
            raise _RefusedError("replaced on disk since it was mapped")
        return os.open(f"/proc/self/fd/{found}", _OPEN)
    finally:
        os.close(found)


def _check_regular(descriptor: int) -> os.stat_result:
    # before it is opened for reading: to open a device can do something
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("not a regular file")
    if status.st_size > _MAX_FILE:
        raise _RefusedError(f"larger than {_MAX_FILE >> 30} GiB")
    return status


def _is_mapped(status: os.stat_result, mapping: Mapping) -> bool:
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return status.st_ino == mapping.inode and device == mapping.device


def _still_mapped(pid: int, mapping: Mapping) -> bool:
    with Path(f"/proc/{pid}/maps").open("rb") as maps:  # as text, \r in a name would end a line
        now = {each.start: each for each in parse_maps(os.fsdecode(maps.read(_MAX_MAPS)))}
    other = now.get(mapping.start)
    return other is not None and (other.end, other.inode, other.path) == (
        mapping.end,
        mapping.inode,
        mapping.path,
    )


class _OpenHow(ctypes.Structure):
    # struct open_how, openat2(2)
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _openat2(folder: int, path: str, flags: int) -> int:
    # no link in the path can lead out of the folder
    how = _OpenHow(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    name = os.fsencode(path)
    if b"\0" in name:
        raise _RefusedError("its path is no path")
    result: int = libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(name),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
