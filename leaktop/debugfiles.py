"""Where symbols and debug information are that a file was stripped of: on this machine only.

In its own .gnu_debugdata (MiniDebugInfo: an ELF file with a .symtab, compressed by xz), or in a
separate debug file: by build-id or .gnu_debuglink where GDB looks ("Debugging Information in
Separate Files"), or in the cache of debuginfod's client (debuginfod_find_debuginfo(3)).

The target's root comes first, then this machine's own. A separate file counts only where it has
the build-id of the file that it is for; where that has none, the CRC in .gnu_debuglink decides.

Debug information itself may go on in other files: what dwz moved to one that programs share
(.gnu_debugaltlink, by build-id), and split units (.dwo, .dwp; DWARF 5, 7.3.5), whose signature
the reader checks.
"""

import errno
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
from leaktop.invoker import invoker
from leaktop.modules import Module
from leaktop.root import RefusedError, Root

_DEBUG = "/usr/lib/debug"
_MAX_PACKED = 16 << 20
_MAX_UNPACKED = 32 << 20
_MAX_DICTIONARY = 48 << 20  # memory of the decoder
_CHUNK = 1 << 20
_MAX_LINK = 4096
_MAX_CHECKED = 1 << 30  # bytes that a CRC is computed over
_SPLIT, _PACKAGE = (".dwo", ".dwp", ".o"), ".dwp"
_MAX_MISSING = 16


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


class Parts:
    """The files that the debug information of one file goes on in; for one thread at a time."""

    def __init__(self, module: Module, with_lines: Module, elf: ElfFile) -> None:
        """``with_lines`` is the module itself or its debug file, ``elf`` its. Raises ElfError."""
        self._module = module
        self._with_lines = with_lines
        self._missing: dict[str, str] = {}
        shared = _alternate_link(elf)
        self._shared = _find_shared(with_lines, *shared) if shared else None
        if shared and self._shared is None:
            self._missing[shared[0]] = "not there"

    @property
    def modules(self) -> list[Module]:
        """The file with the lines, and the one that dwz moved parts of it to."""
        return [self._with_lines] if self._shared is None else [self._with_lines, self._shared]

    @property
    def problem(self) -> str | None:
        """What is missing, in one line; None where nothing was missed yet."""
        for path, reason in self._missing.items():
            more = len(self._missing) - 1
            others = f" (and {more} more)" if more else ""
            return f"lines or inlined names are in {path}, which is {reason}{others}"
        return None

    def open(self, path: str) -> int:
        """Return a descriptor of a split file that the debug information names, to read it from.

        It is looked for in the target's root, and among this machine's own debug files. Raises
        OSError and RefusedError.
        """
        if not path.endswith(_SPLIT):
            raise RefusedError("no split debug file")
        reason = "not there"
        for root, candidate in self._places(path):
            try:
                return root.open(candidate)
            except RefusedError as error:
                reason = str(error)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    reason = f"not readable: {error.strerror}"
        if not path.endswith(_PACKAGE) and len(self._missing) < _MAX_MISSING:
            self._missing[path] = reason
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _places(self, path: str) -> Iterator[tuple[Root, str]]:
        # libdw takes a package in place of a file that is in it, too; where it would look for one
        # itself depends on what it may see of the folder that the program is in
        root = self._module.root or _own_root()
        packages = [f"{each.path}{_PACKAGE}" for each in (self._module, self._with_lines)]
        if path.startswith("/"):
            path = root.inside(path)
        else:
            path = f"{self._with_lines.path.rpartition('/')[0]}/{path}"
        for each in packages if path.endswith(_PACKAGE) else [path, *packages]:
            yield root, each
            if each.startswith(f"{_DEBUG}/"):
                yield _own_root(), each


def _alternate_link(elf: ElfFile) -> tuple[str, str] | None:
    # path and build-id of the file that dwz made
    data = elf.section(".gnu_debugaltlink", _MAX_LINK)
    if data is None:
        return None
    name, end, build_id = data.partition(b"\0")
    if not end or not name or not build_id:
        raise ElfError("damaged .gnu_debugaltlink")
    return os.fsdecode(name), build_id.hex()


def _find_shared(module: Module, name: str, build_id: str) -> Module | None:
    roots = [_own_root()] if module.root is None else [module.root, _own_root()]
    path = name if name.startswith("/") else f"{module.path.rpartition('/')[0]}/{name}"
    for root in roots:
        for each in (path, f"{_DEBUG}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"):
            if root is not module.root and not each.startswith(f"{_DEBUG}/"):
                continue
            with suppress(OSError, RefusedError, ElfError):
                found = Module(each)
                found.root = module.root
                found.hold(root.open(each))
                if found.build_id == build_id and found.open_elf().has_debug_information:
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
    homes = []
    if (caller := invoker()) is not None and caller.uid != os.geteuid():
        homes.append(str(caller.home))
    with suppress(KeyError):
        homes.append(pwd.getpwuid(os.geteuid()).pw_dir)
    folders += [f"{home}/.cache/debuginfod_client" for home in homes]
    return [folder for folder in folders if folder and folder.startswith("/")]
