"""The user who called leaktop, also through sudo, doas or pkexec, and work with that user's rights.

leaktop mostly runs as root, and what is in a home directory is its owner's to plant: links, pipes,
whole file systems. So files there are touched with the owner's rights, never with root's.
"""

import ctypes
import os
import platform
import pwd
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_Result = TypeVar("_Result")
_ANSWER_S = 2.0  # a home may be on a server that is gone
_ID_MAX = 2**32 - 2
_SETGROUPS = {"x86_64": 116, "aarch64": 159}  # numbers of the system call


class RightsError(Exception):
    """Work cannot be done with the user's rights; the text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Invoker:
    """A user of this machine."""

    uid: int
    gid: int
    home: Path


def invoker() -> Invoker | None:
    """Return who called leaktop; None where there is no home to be had.

    Under sudo(8), doas(1) and pkexec(1) that is who called these, by SUDO_UID, DOAS_USER or
    PKEXEC_UID, with the home of the user database, not root's.
    """
    try:
        if (called := _caller()) is not None:
            return Invoker(called.pw_uid, called.pw_gid, Path(called.pw_dir))
        home = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None
    return Invoker(os.geteuid(), os.getegid(), Path(home))


def with_rights_of(user: Invoker, work: Callable[[], _Result]) -> _Result:
    """Return what ``work`` returns, done in a thread that may do with files what ``user`` may.

    Raises what ``work`` raises, and RightsError: the rights cannot be had, or there was no answer
    in time; ``work`` may still be at it then.
    """
    done: list[_Result] = []
    failed: list[Exception] = []

    def act() -> None:
        try:
            if os.geteuid() == 0 and user.uid != 0:
                _take_rights(user)
            done.append(work())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=act, name="leaktop-user", daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    if failed:
        raise failed[0]
    if not done:
        raise RightsError("its file system does not answer")
    return done[0]


def _caller() -> pwd.struct_passwd | None:
    # raises KeyError where the user database does not know the user
    if os.geteuid() != 0:
        return None
    for name in ("SUDO_UID", "PKEXEC_UID"):
        number = os.environ.get(name, "")
        if number.isascii() and number.isdecimal() and int(number[:12]) <= _ID_MAX:
            return pwd.getpwuid(int(number))
    user = os.environ.get("DOAS_USER", "")
    return pwd.getpwnam(user) if user else None


# Of this thread alone: credentials(7). glibc's own setgroups would be of the whole process. With
# the fsuid no longer root's, the capabilities that override permissions are gone: setfsuid(2).
def _take_rights(user: Invoker) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    groups = (ctypes.c_uint32 * 1)(user.gid)
    number = _SETGROUPS.get(platform.machine())
    if number is None or libc.syscall(ctypes.c_long(number), ctypes.c_size_t(1), groups) != 0:
        raise RightsError(f"the rights of user {user.uid} cannot be taken")
    # they return what was there before, whether they did anything or not
    for take, wanted in ((libc.setfsgid, user.gid), (libc.setfsuid, user.uid)):
        take(ctypes.c_uint32(wanted))
        if take(ctypes.c_uint32(2**32 - 1)) != ctypes.c_int32(wanted).value:
            raise RightsError(f"the rights of user {user.uid} cannot be taken")
