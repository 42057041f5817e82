"""Files that leaktop writes where the user says: never through a link that somebody planted.

leaktop mostly runs as root, and often in directories that others may write to. A file is made under
a name of its own and moved into place, which never follows a link; under sudo it belongs to who
called.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from leaktop.format import clean
from leaktop.invoker import Invoker, invoker

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SHARED = stat.S_IWGRP | stat.S_IWOTH
_MODE = 0o666  # less the umask


class OutFileError(Exception):
    """A file cannot be written; the text says which and why, in one line."""


def check(path: Path) -> None:
    """Raise OutFileError where ``path`` could not be written now."""
    with _directory_of(path) as directory:
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
            raise _refused(path, "no right to write to its directory")


def create(path: Path) -> BinaryIO:
    """Return a new, empty file at ``path``, which takes the place of one that was there.

    Raises OutFileError: there is something else than a file of the user's own.
    """
    with _directory_of(path) as directory, _errors(path):
        name = _name(path)
        try:
            stream = os.fdopen(_open_new(name, directory), "wb")
            os.replace(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _remove(name, directory)
            raise
        return stream


def write(path: Path, data: bytes, mode: int = _MODE) -> None:
    """Put a file with this content at ``path``: all of it, or nothing is changed.

    ``mode``: who may read it, less the umask. Raises OutFileError, as ``create`` does, and where
    the disk is full.
    """
    with _directory_of(path) as directory, _errors(path):
        name = _name(path)
        try:
            with os.fdopen(_open_new(name, directory, mode), "wb") as stream:
                stream.write(data)
            os.replace(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _remove(name, directory)
            raise


def _caller() -> Invoker | None:
    # who called sudo and the like; None where that is not who writes
    caller = invoker()
    return None if caller is None or caller.uid == os.geteuid() else caller


# Open for as long as the file is made, so that all happens in the directory that was looked at.
@contextmanager
def _directory_of(path: Path) -> Iterator[int]:
    if path.name in ("", "..") or "\0" in str(path):
        raise _refused(path, "it names no file")
    with _errors(path):
        directory = os.open(path.parent, _DIRECTORY)
    try:
        _check_what_is_there(path, directory)
        yield directory
    finally:
        os.close(directory)


def _check_what_is_there(path: Path, directory: int) -> None:
    with _errors(path):
        try:
            there = os.lstat(path.name, dir_fd=directory)
        except FileNotFoundError:
            return
        shared = os.fstat(directory).st_mode & _SHARED
    if stat.S_ISLNK(there.st_mode):
        raise _refused(path, "it is a symbolic link; give the file itself")
    if not stat.S_ISREG(there.st_mode):
        raise _refused(path, "there is something that is no file")
    caller = _caller()
    own = {os.geteuid()} if caller is None else {os.geteuid(), caller.uid}
    if shared and there.st_uid not in own:
        raise _refused(path, f"in a directory that others may write to, user {there.st_uid} has it")


def _open_new(name: str, directory: int, mode: int = _MODE) -> int:
    descriptor = os.open(name, _NEW, mode, dir_fd=directory)
    caller = _caller()
    if caller is not None:
        with suppress(OSError):  # file systems of other systems know no owners
            os.fchown(descriptor, caller.uid, caller.gid)
    return descriptor


def _name(path: Path) -> str:
    # a name may be as long as 255 bytes already
    return f".leaktop-{secrets.token_hex(8)}{path.suffix[:16]}"


def _remove(name: str, directory: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from None


def _refused(path: Path, why: str) -> OutFileError:
    return OutFileError(f"{clean(str(path))} cannot be written: {why}")
