"""Parsers of what /proc says in text: they take the text, not the path, so they are pure.

Formats: proc(5). The text describes another process, so names in it are hostile: they are kept as
they are here, and escaped where they are shown.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

PF_KTHREAD = 0x00200000
"""Flag of kernel threads in ``stat`` (include/linux/sched.h)."""

_COMM_MAX = 64  # the kernel gives 15, and up to 64 for its workers


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps."""

    start: int
    end: int
    permissions: str
    file_offset: int
    """Offset in the file of the byte at ``start``."""
    device: str
    inode: int
    path: str
    """As the target sees it; empty for anonymous memory; ``(deleted)`` at its end is cut off."""
    deleted: bool = False

    @property
    def executable(self) -> bool:
        """Whether code can run here."""
        return "x" in self.permissions

    @property
    def file_backed(self) -> bool:
        """Whether a file is behind it, rather than anonymous memory or the kernel's own page."""
        return self.inode != 0

    @property
    def map_files_name(self) -> str:
        """Name of its entry in /proc/PID/map_files, which opens the very file that is mapped."""
        return f"{self.start:x}-{self.end:x}"


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that tell processes apart, and what they take."""

    comm: str
    state: str
    flags: int
    start_time: int
    """Clock ticks since boot; with the PID it names one process for ever."""
    start_stack: int
    """Bottom of the stack; a new image after exec has another."""
    threads: int
    resident: int
    """Pages."""

    @property
    def kernel_thread(self) -> bool:
        """Whether it has no user memory at all."""
        return bool(self.flags & PF_KTHREAD)


def parse_maps(text: str) -> Iterator[Mapping]:
    """Yield the mappings of ``maps`` in address order; lines that are none are passed over."""
    for line in text.split("\n"):  # only: splitlines would let a file's name forge a line
        fields = line.split(maxsplit=5)
        try:
            start, end = (int(part, 16) for part in fields[0].split("-"))
            offset, inode = int(fields[2], 16), int(fields[4])
        except (ValueError, IndexError):
            continue
        path = unescape_path(fields[5]) if len(fields) > 5 else ""  # noqa: PLR2004
        deleted = path.endswith(" (deleted)")
        yield Mapping(
            start=start,
            end=end,
            permissions=fields[1],
            file_offset=offset,
            device=fields[3],
            inode=inode,
            path=path.removesuffix(" (deleted)"),
            deleted=deleted,
        )


def unescape_path(path: str) -> str:
    r"""Undo the kernel's ``\012`` for a newline in a path (seq_path, fs/seq_file.c)."""
    return path.replace(r"\012", "\n")


def parse_stat(text: str) -> Stat:
    """Parse ``stat``; the name may hold spaces and brackets, so it ends at the last bracket.

    Raises ValueError where the text is no stat.
    """
    head, _, tail = text.rpartition(")")
    _, _, comm = head.partition("(")
    fields = tail.split()
    try:
        return Stat(
            comm=comm[:_COMM_MAX],
            state=fields[0],
            flags=int(fields[6]),
            start_time=int(fields[19]),
            start_stack=int(fields[25]),
            threads=int(fields[17]),
            resident=int(fields[21]),
        )
    except IndexError:
        raise ValueError(f"not a stat line: {text[:60]!r}") from None


def parse_status(text: str) -> dict[str, str]:
    """Return the fields of ``status`` by name, each value stripped."""
    pairs = (line.partition(":") for line in text.split("\n"))
    return {name: value.strip() for name, colon, value in pairs if colon}


def parse_statm_resident(text: str) -> int:
    """Return the resident pages of ``statm``; raises ValueError where the text is no statm."""
    fields = text.split()
    if len(fields) < 2:  # noqa: PLR2004
        raise ValueError(f"not a statm line: {text[:60]!r}")
    return int(fields[1])


def parse_effective_uid(text: str) -> int:
    """Return the user as whom a process acts from its ``status``; raises ValueError without."""
    fields = parse_status(text).get("Uid", "").split()
    if len(fields) < 2:  # noqa: PLR2004
        raise ValueError(f"no Uid in status: {text[:60]!r}")
    return int(fields[1])


def parse_command(text: str) -> tuple[str, str]:
    """Return the folder of the program that ``cmdline`` names, and its command line without it.

    The folder ends in a slash, and is empty where the program has no absolute path: then the text
    may be a title that the process has given itself, which is left alone. Both are empty where
    there is no command line.
    """
    program, *arguments = text.rstrip("\0").split("\0")
    folder = ""
    if program.startswith("/") and " " not in program:
        folder = program[: program.rindex("/") + 1]
    return folder, " ".join([program[len(folder) :], *arguments]).strip()


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the sizes of ``meminfo`` in bytes by name; lines that are none are passed over."""
    sizes = {}
    for name, value in parse_status(text).items():
        number, _, unit = value.partition(" ")
        if number.isascii() and number.isdecimal() and unit == "kB":
            sizes[name] = int(number[:20]) * 1024
    return sizes


_NOTE = struct.Struct("=3I")
_NT_GNU_BUILD_ID = 3  # glibc's elf.h


def parse_build_id(notes: bytes) -> str | None:
    """Return the GNU build id in hexadecimal from ELF notes such as /sys/kernel/notes; or None.

    A note: sizes of name and descriptor, type, then both, each padded to 4 bytes (elf(5)).
    """
    at = 0
    while at + _NOTE.size <= len(notes):
        name_size, size, kind = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        begin = name_at + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            found = notes[begin : begin + size]
            return found.hex() if 0 < size == len(found) else None
        at = begin + (size + 3 & ~3)
    return None
