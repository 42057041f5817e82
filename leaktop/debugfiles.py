"""Where symbols and debug information are that a file was stripped of: on this machine only.

In its own .gnu_debugdata (MiniDebugInfo: an ELF file with a .symtab, compressed by xz), or in a
separate debug file: by build-id or .gnu_debuglink where GDB looks ("Debugging Information in
Separate Files"), or in the cache of debuginfod's client (debuginfod_find_debuginfo(3)).

The target's root comes first, then this machine's own. A separate file counts only where it has
the build-id of the file that it is for; where that has none, the CRC in .gnu_debuglink decides.
"""

import io
import lzma
import os
import pwd
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from leaktop.elf import ElfError, ElfFile
from leaktop.modules import Module
from leaktop.root import RefusedError, Root

_DEBUG = "/usr/lib/debug"
_MAX_PACKED = 16 << 20
_MAX_UNPACKED = 32 << 20
_MAX_DICTIONARY = 48 << 20  # memory of the decoder
_CHUNK = 1 << 20
_MAX_LINK = 4096
_MAX_CHECKED = 1 << 30  # bytes that a CRC is computed over


class DebugLink(NamedTuple):
    """What .gnu_debuglink says."""

    name: str
    """Of a file, without a folder."""
    crc: int
    """CRC-32 of all its bytes, as zlib computes it."""


def mini_debug_info(elf: ElfFile) -> ElfFile | None:
    """Return the ELF file in .gnu_debugdata, None without one. Raises ElfError."""
    packed = elf.section(".gnu_debugdata", _MAX_PACKED)
    if packed is None:
        return None
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY)
    unpacked = io.BytesIO()
    try:
        while not unpacker.eof:
            unpacked.write(unpacker.decompress(packed, _CHUNK))
            packed = b""
            if unpacker.needs_input and not unpacker.eof:
                raise ElfError(".gnu_debugdata is cut short")
            if unpacked.tell() > _MAX_UNPACKED:
                raise ElfError(".gnu_debugdata is larger than leaktop reads")
    except lzma.LZMAError as error:
        raise ElfError(f".gnu_debugdata cannot be unpacked: {error}") from error
    return ElfFile(unpacked)


def debug_link(elf: ElfFile) -> DebugLink | None:
    """Return what .gnu_debuglink says, None where there is none. Raises ElfError."""
    data = elf.section(".gnu_debuglink", _MAX_LINK)
    if data is None:
        return None
    name, end, _ = data.partition(b"\0")
    at = (len(name) + 4) & ~3
    crc = data[at : at + 4]
    if not end or len(crc) < 4 or name in {b"", b".", b".."} or b"/" in name:  # noqa: PLR2004
        raise ElfError("damaged .gnu_debuglink")
    return DebugLink(os.fsdecode(name), int.from_bytes(crc, elf.byte_order))


def find(module: Module, elf: ElfFile) -> Module | None:
    """Return the separate debug file of a module, None where there is none that fits.

    ``elf`` is the module's own. Raises ElfError for a damaged .gnu_debuglink.
    """
    link = None
    if not module.build_id:
        link = debug_link(elf)
    else:
        with suppress(ElfError):  # the build-id is enough
            link = debug_link(elf)
    for root, path in _candidates(module, link):
        with suppress(OSError, RefusedError, ElfError):
            found = Module(path)
            found.root = module.root
            found.hold(root.open(path))
            if _fits(found, module, link):
                return found
    return None


def _candidates(module: Module, link: DebugLink | None) -> Iterator[tuple[Root, str]]:
    roots = [_own_root()] if module.root is None else [module.root, _own_root()]
    known = module.build_id
    if known and len(known) > 2:  # noqa: PLR2004
        for root in roots:
            yield root, f"{_DEBUG}/.build-id/{known[:2]}/{known[2:]}.debug"
    if link and module.path.startswith("/"):
        folder = module.path.rpartition("/")[0]
        if module.root is not None:
            yield module.root, f"{folder}/{link.name}"
            yield module.root, f"{folder}/.debug/{link.name}"
        for root in roots:
            yield root, f"{_DEBUG}{folder}/{link.name}"
    if known:
        for cached in _cache_folders():
            yield _own_root(), f"{cached}/{known}/debuginfo"


def _fits(found: Module, module: Module, link: DebugLink | None) -> bool:
    if module.build_id:
        same = found.build_id == module.build_id
    else:
        same = link is not None and found.build_id is None and _crc(found) == link.crc
    if not same:
        return False
    elf = found.open_elf()
    return elf.has_symtab or elf.has_debug_information


def _crc(found: Module) -> int:
    crc = at = 0
    while data := found.read(at, _CHUNK):
        crc = zlib.crc32(data, crc)
        at += len(data)
        if at > _MAX_CHECKED:
            raise ElfError("too large to check")
    return crc


@cache
def _own_root() -> Root:
    return Root()


def _cache_folders() -> list[str]:
    # of the user who called, also under sudo
    chosen = os.environ.get("DEBUGINFOD_CACHE_PATH")
    general = os.environ.get("XDG_CACHE_HOME")
    folders = [chosen, f"{general}/debuginfod_client" if general else None]
    users = [os.geteuid()]
    caller = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and caller.isascii() and caller.isdigit():
        users.insert(0, int(caller))
    for user in users:
        with suppress(KeyError, OverflowError):
            folders.append(f"{pwd.getpwuid(user).pw_dir}/.cache/debuginfod_client")
    return [folder for folder in folders if folder and folder.startswith("/")]
