"""A process's root directory, held open: files are reached in it, and no link leads out of it."""

import ctypes
import os
import stat
from contextlib import suppress
from pathlib import Path

MAX_FILE = 16 << 30
"""Largest file that is opened, in bytes."""

_OPENAT2 = 437  # system call number, the same on all architectures (Linux 5.6, fddb5d430ad9)
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_FIND = os.O_PATH | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class RefusedError(Exception):
    """Why a file is not read, in a few words."""


class Root:
    """The root directory of a process, as the process sees it; safe for use by several threads.

    It stays open, so files below it can be reached after the process is gone.
    """

    def __init__(self, folder: str = "/") -> None:
        """Open a directory as a root; without one, leaktop's own. Raises OSError."""
        self._folder = os.open(folder, _FIND | os.O_DIRECTORY)
        self._path = str(Path(f"/proc/self/fd/{self._folder}").readlink())

    @classmethod
    def of(cls, pid: int) -> "Root":
        """Open the root of a process. Raises OSError."""
        return cls(f"/proc/{pid}/root")

    def __del__(self) -> None:
        """Close the directory."""
        with suppress(AttributeError):
            os.close(self._folder)

    def inside(self, path: str) -> str:
        """Return a path of /proc/PID/maps as the process itself sees it.

        The kernel gives it as leaktop sees it where it can: it does for a process in a chroot.
        """
        return path[len(self._path) :] if path.startswith(f"{self._path}/") else path

    def find(self, path: str, *, follow: bool = True) -> int:
        """Return an O_PATH descriptor of a regular file; with ``follow`` it may be a link to one.

        Links are followed as the process would: in this root. Raises OSError and RefusedError.
        """
        name = os.fsencode(path)
        if b"\0" in name:
            raise RefusedError("its path is no path")
        found = _openat2(self._folder, name, _FIND if follow else _FIND | os.O_NOFOLLOW)
        try:
            check_regular(found)
        except BaseException:
            os.close(found)
            raise
        return found

    def open(self, path: str, *, follow: bool = True) -> int:
        """Return a descriptor of a regular file to read it from; see ``find``."""
        found = self.find(path, follow=follow)
        try:
            return reopen(found)
        finally:
            os.close(found)


def reopen(found: int) -> int:
    """Return a descriptor to read from for an O_PATH one, of the very same file. Raises OSError."""
    return os.open(f"/proc/self/fd/{found}", _OPEN)


def check_regular(descriptor: int) -> os.stat_result:
    """Return the status of a file that may be read; raises RefusedError.

    To be called before the file is opened for reading: to open a device can do something.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("not a regular file")
    if status.st_size > MAX_FILE:
        raise RefusedError(f"larger than {MAX_FILE >> 30} GiB")
    return status


class _OpenHow(ctypes.Structure):
    # struct open_how, openat2(2)
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _openat2(folder: int, name: bytes, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result: int = libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(name),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(name))
    return result
