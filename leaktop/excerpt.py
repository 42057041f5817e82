"""Lines of source files around a frame, for the detail view.

The path comes from the target's debug information, so it is hostile: whoever wrote the target's
binary must not be able to show leaktop's user, who is root as a rule, a file that the target
could not read itself. The rule: an absolute path; no symbolic link in it anywhere; every folder
searchable and the file readable for the target's user by owner, group or others' mode bits
(supplementary groups and ACLs give nothing); a regular file of bounded size; and the target shares
our mount namespace. Whatever does not pass is left out. Each step is opened relative to the one
before, so nothing can be exchanged between check and use, and nothing blocks on a FIFO or device.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from leaktop.format import clean
from leaktop.model import Frame

AROUND = 20
"""Lines shown at most on either side of the frame's own."""

_MAX_BYTES = 4 << 20
_MAX_FILES = 64
_MAX_PARTS = 64
_TAB = 4
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Some lines of one file; ``first`` is the number of ``lines[0]``."""

    path: str
    first: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """On whose behalf files are read."""

    uid: int
    gid: int

    @classmethod
    def of_process(cls, pid: int) -> "Reader | None":
        """Return the file system ids of ``pid`` (proc_pid_status(5)), None where in doubt.

        In doubt: the process is gone, or lives in another mount namespace, where its paths name
        other files.
        """
        proc = Path("/proc") / str(pid)
        try:
            ours = Path("/proc/self/ns/mnt").stat()
            theirs = (proc / "ns/mnt").stat()
            text = (proc / "status").read_text(errors="replace")
        except OSError:
            return None
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            return None
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        try:
            return cls(int(fields["Uid"].split()[3]), int(fields["Gid"].split()[3]))
        except (KeyError, IndexError, ValueError):
            return None

    def may(self, status: os.stat_result, bit: int) -> bool:
        """Tell whether the mode grants ``bit`` (4 read, 1 search) to this user."""
        if self.uid == 0:
            return True
        if status.st_uid == self.uid:
            return bool(status.st_mode >> 6 & bit)
        if status.st_gid == self.gid:
            return bool(status.st_mode >> 3 & bit)
        return bool(status.st_mode & bit)


def excerpts(frames: Sequence[Frame], reader: Reader) -> Mapping[int, Excerpt]:
    """Return the source around each frame that has a readable one, by index of the frame."""
    files: dict[str, list[str] | None] = {}
    found: dict[int, Excerpt] = {}
    for index, frame in enumerate(frames):
        if not frame.file or not frame.line or frame.line < 1:
            continue
        if frame.file not in files:
            if len(files) == _MAX_FILES:
                continue
            files[frame.file] = _read(frame.file, reader)
        text = files[frame.file]
        if text is None or frame.line > len(text):
            continue
        first = max(1, frame.line - AROUND)
        lines = text[first - 1 : frame.line + AROUND]
        found[index] = Excerpt(
            frame.file, first, tuple(clean(line.expandtabs(_TAB), 400) for line in lines)
        )
    return found


def _read(path: str, reader: Reader) -> list[str] | None:
    if "\0" in path or not path.startswith("/"):
        return None
    # Without links in the path, ".." can be resolved in the text.
    parts = PurePosixPath(os.path.normpath(path)).parts[1:]
    if not 0 < len(parts) <= _MAX_PARTS:
        return None
    try:
        data = _read_below("/", parts, reader)
    except (OSError, ValueError):
        return None
    return None if data is None else data.decode("utf-8", "replace").split("\n")


def _read_below(root: str, parts: Sequence[str], reader: Reader) -> bytes | None:
    here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in parts[:-1]:
            if not reader.may(os.fstat(here), 1):
                return None
            folder = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, folder, dir_fd=here)
            os.close(here)
            here = below
        if not reader.may(os.fstat(here), 1):
            return None
        # The kind is checked before opening for reading: opening a device can act on it.
        if not stat.S_ISREG(os.stat(parts[-1], dir_fd=here, follow_symlinks=False).st_mode):
            return None
        file = os.open(parts[-1], _FLAGS, dir_fd=here)
    finally:
        os.close(here)
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or not reader.may(status, 4):
            return None
        return None if status.st_size > _MAX_BYTES else stream.read(_MAX_BYTES)
