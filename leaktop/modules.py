"""The files that a process has mapped, held open from the moment that they are first seen.

Opened at capture, a file can be read after the target unmapped it, replaced it on disk or exited.
It is read, never mapped: whoever owns the file could cut it short, and reading a page that is gone
from a mapping ends the process (SIGBUS, mmap(2)).
"""

import errno
import io
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leaktop.elf import ElfError, ElfFile, FileOffset
from leaktop.procfs import Mapping, parse_maps
from leaktop.root import RefusedError, Root, check_regular, reopen

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAX_MAPS = 64 << 20  # of text in /proc/PID/maps
_MAX_VDSO = 1 << 20

VDSO = "[vdso]"
"""Name of the code that the kernel maps into each process: vdso(7)."""


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
        self.root: Root | None = None
        """Where separate debug files are looked for first; None: not in any target's root."""
        self._descriptor: _Descriptor | None = None
        self._file: tuple[object, ...] = (path,)
        self._problem: str | None = None
        self._size = 0
        self._image: bytes | None = None

    def __repr__(self) -> str:
        return f"Module({self.path!r}, build_id={self.build_id!r})"

    @cached_property
    def build_id(self) -> str | None:
        """NT_GNU_BUILD_ID in hexadecimal; the file is read for it when it is asked for."""
        if self.has_file:
            try:
                return self.open_elf().build_id
            except ElfError as error:
                self._problem = str(error)
        return None

    @cached_property
    def identity(self) -> tuple[object, ...]:
        """Equal for modules whose contents are the same: build-id and size, or else the file."""
        return (self.build_id, self._size) if self.build_id else self._file

    @property
    def problem(self) -> str | None:
        """Why there is no file, or no readable one; None for memory that has none anyway."""
        _ = self.build_id  # a file that cannot be read says so then
        return self._problem

    def refuse(self, problem: str) -> None:
        """Say why there is no file."""
        self._problem = problem

    def open_elf(self) -> ElfFile:
        """Return a new reader of the file; raises ElfError where it cannot be read."""
        if self._image is not None:
            return ElfFile(io.BytesIO(self._image))
        if self._descriptor is None:
            raise ElfError(self._problem or "there is no file behind this memory")
        return ElfFile(io.BufferedReader(_Reader(self._descriptor, self._size)))

    def fileno(self) -> int | None:
        """Return the descriptor of the file, which belongs to this module; None without a file."""
        return None if self._descriptor is None else self._descriptor.number

    @property
    def has_file(self) -> bool:
        """Whether there is something to open: a file, or the copy of one that is in memory."""
        return self._descriptor is not None or self._image is not None

    def hold(self, descriptor: int) -> None:
        """Take an open regular file as this module's; owns the descriptor from now on."""
        self._descriptor = _Descriptor(descriptor)
        status = os.fstat(descriptor)
        self._size = status.st_size
        self._file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def hold_image(self, image: bytes) -> None:
        """Take an ELF file that is nowhere but in memory, such as the vdso."""
        self._image, self._size = image, len(image)
        self._file = (self.path, image)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, fewer at its end; none without a file. Raises OSError."""
        if self._descriptor is None:
            return b""
        return os.pread(self._descriptor.number, size, offset)

    @property
    def size(self) -> int:
        """Bytes in the file, when it was opened."""
        return self._size


@dataclass(frozen=True, slots=True)
class Location:
    """Where a return address points, in terms that outlive the process."""

    address: int
    """In the target's memory."""
    module: Module | None
    """None where nothing is mapped there."""
    offset: FileOffset
    """Of the byte at ``address`` in the module's file."""
    pid: int = 0
    """Of the process, which may name code that is in no file."""

    @classmethod
    def in_mapping(cls, address: int, mapping: Mapping, module: Module, pid: int = 0) -> "Location":
        """Return the location of an address that lies in a mapping of a module."""
        return cls(address, module, FileOffset(address - mapping.start + mapping.file_offset), pid)


def open_module(pid: int, mapping: Mapping, root: Root | None = None) -> Module:
    """Open the very file that a mapping shows, never another of the same path; never raises.

    Through /proc/PID/map_files, which needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE (proc(5)),
    or else by its path in the target's root where inode and device are still the same. The vdso
    is copied from the target's memory. A module that could not be opened says why in ``problem``.
    ``root`` is the target's, where the caller holds it open already.
    """
    if mapping.file_backed and root is None:
        with suppress(OSError):
            root = Root.of(pid)
    path = root.inside(mapping.path) if mapping.file_backed and root else mapping.path
    module = Module(path, deleted=mapping.deleted)
    module.root = root
    try:
        if mapping.file_backed:
            module.hold(_open_mapped(pid, mapping, root))
        elif mapping.path == VDSO:
            module.hold_image(_copy(pid, mapping))
    except RefusedError as error:
        module.refuse(str(error))
    except OSError as error:
        module.refuse(f"cannot be opened: {error.strerror}")
    return module


def _copy(pid: int, mapping: Mapping) -> bytes:
    # mem needs the same rights as ptrace(2)
    size = mapping.end - mapping.start
    if size > _MAX_VDSO:
        raise RefusedError(f"larger than {_MAX_VDSO >> 20} MiB")
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(memory, size, mapping.start)
    finally:
        os.close(memory)


def _open_mapped(pid: int, mapping: Mapping, root: Root | None) -> int:
    try:
        found = os.open(f"/proc/{pid}/map_files/{mapping.map_files_name}", os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        not_there = error.errno not in {errno.EPERM, errno.EACCES, errno.ENOENT}
        if mapping.deleted or not_there or root is None:
            raise
        return _open_in_root(root, mapping)
    try:
        status = check_regular(found)
        # Some file systems (btrfs, overlayfs) show one device or inode here and another in maps;
        # then the kernel's own words must still be the same.
        if not _is_mapped(status, mapping) and not _still_mapped(pid, mapping):
            raise RefusedError("unmapped before it could be opened")
        return reopen(found)
    finally:
        os.close(found)


def _open_in_root(root: Root, mapping: Mapping) -> int:
    found = root.find(root.inside(mapping.path))
    try:
        if not _is_mapped(os.fstat(found), mapping):
            raise RefusedError("replaced on disk since it was mapped")
        return reopen(found)
    finally:
        os.close(found)


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
