"""What is kept from one start to the next, in a folder that only its owner can write to.

It will run in the kernel, or says where probes go: each is named by a hash of all that it was made
from, and what others could have written is not used.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_BYTES_MAX = 4 << 20
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Cache:
    """Texts by key, of one kind, in a folder that belongs to the user who runs leaktop."""

    def __init__(self, folder: Path, kind: str = "", most: int = 8) -> None:
        """``kind`` is what names of its files begin with; ``most`` of them are kept."""
        self._folder = folder
        self._kind = kind
        self._most = most

    def get(self, key: str) -> bytes | None:
        """Return what was kept under a key, or None. Never raises."""
        name = self._kind + key
        with contextlib.suppress(OSError), self._opened() as folder:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode) and _is_ours(status):
                    os.utime(descriptor)  # used last
                    return file.read(_BYTES_MAX)
        return None

    def put(self, key: str, text: str) -> None:
        """Keep a text, if the folder can be written; the oldest go. Never raises."""
        name = self._kind + key
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as folder:
                part = f"{name}.{os.getpid()}"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(part, flags, 0o600, dir_fd=folder), "w") as file:
                    file.write(text)
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
                self._drop_oldest(folder)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = os.open(self._folder, flags)
        try:
            if not _is_ours(os.fstat(folder)):
                raise PermissionError
            yield folder
        finally:
            os.close(folder)

    def _drop_oldest(self, folder: int) -> None:
        used = {
            name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
            for name in os.listdir(folder)
            if name.startswith(self._kind)
        }
        for name in sorted(used, key=lambda name: used[name])[: -self._most]:
            os.unlink(name, dir_fd=folder)


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE


def default_cache(kind: str, most: int) -> Cache:
    """Return the cache of the user who runs leaktop; root's is nobody's home."""
    if os.geteuid() == 0:
        return Cache(Path("/var/cache/leaktop"), kind, most)
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Cache(Path(folder).expanduser() / "leaktop", kind, most)
