"""Answers a confined process's open(2) calls in its place: seccomp_unotify(2).

The process has given itself a filter under which opening a file waits for this side's word
(``native_child._watch_opens``). So whatever hostile bytes make its native code ask for, this side
decides which file that is, opens it, and hands the descriptor over (SECCOMP_IOCTL_NOTIF_ADDFD,
Linux 5.9, 7cf97b125455; its flag to answer with it, 5.14, 0ae71c7720e3).
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl

from leaktop.root import RefusedError

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*: _IOWR('!', number, struct)
_STILL_WAITING, _ADD = 0x40082102, 0x40182103
_ANSWER_WITH_IT = 2  # SECCOMP_ADDFD_FLAG_SEND
_REQUEST = struct.Struct("<QII iIQ 6Q")  # struct seccomp_notif, with struct seccomp_data
_ANSWER = struct.Struct("<QqiI")  # struct seccomp_notif_resp
_DESCRIPTOR = struct.Struct("<QIIII")  # struct seccomp_notif_addfd
_AT_FDCWD = ctypes.c_uint32(-100).value
_MAX_PATH = 4096
_STEP = 256  # divides a page


class Opener:
    """One process's waiting calls, by the descriptor that its filter came with, which it owns."""

    def __init__(self, listener: int) -> None:
        self._listener = listener

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor: readable where a call waits."""
        return self._listener

    def close(self) -> None:
        """Answer no more; calls fail from now on."""
        if self._listener >= 0:
            os.close(self._listener)
            self._listener = -1

    def answer(self, open_file: Callable[[str], int]) -> None:
        """Answer one waiting call: by the file that ``open_file`` opens for its path.

        A descriptor, that is closed here; OSError and RefusedError fail the call.
        """
        request = bytearray(_REQUEST.size)
        try:
            ioctl(self._listener, _RECEIVE, request)
        except OSError:  # the process ended, or a signal ended its call
            return
        number, thread, _, _, _, _, *arguments = _REQUEST.unpack(request)
        try:
            descriptor = open_file(self._path(number, thread, arguments))
        except OSError as error:
            self._fail(number, error.errno or errno.EIO)
        except RefusedError:
            self._fail(number, errno.EACCES)
        else:
            with suppress(OSError):
                added = (number, _ANSWER_WITH_IT, descriptor, 0, os.O_CLOEXEC)
                ioctl(self._listener, _ADD, _DESCRIPTOR.pack(*added))
            os.close(descriptor)

    def _path(self, number: int, thread: int, arguments: list[int]) -> str:
        # only openat(2), which is what the C library uses; its filter fails all others
        if arguments[0] & 0xFFFFFFFF != _AT_FDCWD:
            raise RefusedError("relative to a directory")
        memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # the thread may be gone and another have its number: ask behind the opening
            ioctl(self._listener, _STILL_WAITING, struct.pack("<Q", number))
            text = _string(memory, arguments[1])
        finally:
            os.close(memory)
        return os.fsdecode(text)

    def _fail(self, number: int, reason: int) -> None:
        with suppress(OSError):
            ioctl(self._listener, _SEND, bytearray(_ANSWER.pack(number, 0, -reason, 0)))


def _string(memory: int, address: int) -> bytes:
    # never beyond a page that it is not in: nothing may be mapped there
    text = b""
    while len(text) < _MAX_PATH:
        at = address + len(text)
        part = os.pread(memory, _STEP - at % _STEP, at)
        end = part.find(b"\0")
        if end >= 0:
            return text + part[:end]
        text += part
        if not part:
            break
    raise RefusedError("its path is no path")
