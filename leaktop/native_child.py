"""The process that runs native readers on hostile bytes: DWARF by symbolic, names by demumble.

Run as a script by leaktop/native.py, which says how to talk to it, never imported: it stands
alone, so that it starts fast and can be run isolated (``python -I``). Whatever the bytes make the
native code do, a crash, a loop or gigabytes of memory, ends this process only.
"""

import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38
_NICE = 10  # the target comes first

_PT_LOAD = 1
_MAX_MODULES = 16  # symcaches kept
_MAX_CALLS = 64  # inlined into one another at one address
_MAX_TEXT = 8192
_MAX_MANGLED = 4096
_MAX_FILE = 4 << 30
_SPARE_MEMORY = 160 << 20  # for a request, and beyond it 8 bytes a byte of the file:
_MEMORY_A_BYTE = 8  # the symcache takes 1 to 2, compressed sections unfold to 3 to 5
_MAX_REQUEST = 16 << 20

Reply = dict[str, Any]


class Lines:
    """Answers where addresses of a file come from, through a cache of symcaches."""

    def __init__(self, demangle: Callable[[str], str]) -> None:
        from symbolic._lowlevel import ffi  # noqa: PLC0415
        from symbolic.debuginfo import Archive  # noqa: PLC0415

        self._archive, self._ffi, self._demangle = Archive, ffi, demangle
        self._symcaches: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def answer(self, request: Reply, descriptor: int | None) -> Iterator[Reply]:
        """Yield ``{"calls": [[function, start, file, line], ...]}`` an address, innermost first."""
        key = request["key"]
        if key not in self._symcaches:
            if descriptor is None:
                raise ValueError("no file")
            self._symcaches[key] = self._load(descriptor)
            if len(self._symcaches) > _MAX_MODULES:
                self._symcaches.popitem(last=False)
        self._symcaches.move_to_end(key)
        symcache, base = self._symcaches[key]
        for address in request["addresses"]:
            found = symcache.lookup(address - base) if symcache and address >= base else ()
            yield {"calls": [self._call(each, base) for each in found[:_MAX_CALLS]]}

    def _call(self, found: Any, base: int) -> list[Any]:
        file, line = found.full_path, found.line
        name = self._demangle(found.symbol) if found.symbol else None
        start = found.sym_addr + base
        return [name, start, file[:_MAX_TEXT] if file and line else None, line or None]

    def _load(self, descriptor: int) -> tuple[Any, int]:
        # the symcache, and the address that those in it count from
        # by descriptor: the file itself may be readable for root only
        size = os.fstat(descriptor).st_size
        if size > _MAX_FILE:
            raise ValueError(f"larger than {_MAX_FILE >> 30} GiB")
        _limit_memory(_SPARE_MEMORY + _MEMORY_A_BYTE * size)
        with (
            mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as whole,
            self._ffi.from_buffer("uint8_t[]", whole) as view,
        ):
            archive = self._archive.from_bytes(view)
            file = next(archive.iter_objects(), None)
            symcache = file.make_symcache() if file and "debug" in file.features else None
            return symcache, _load_address(whole)


def _load_address(file: mmap.mmap) -> int:
    # where a 64-bit ELF file says that its first segment goes: 0, but for programs of fixed place
    with suppress(struct.error):
        (table,) = struct.unpack_from("<Q", file, 0x20)
        size, count = struct.unpack_from("<HH", file, 0x36)
        for i in range(count):
            kind, _, _, address = struct.unpack_from("<IIQQ", file, table + i * size)
            if kind == _PT_LOAD:
                return int(address)
    return 0


class Names:
    """Answers what mangled names mean."""

    def __init__(self, demangle: Callable[[str], str]) -> None:
        self._demangle = demangle

    def answer(self, request: Reply, _descriptor: int | None) -> Iterator[Reply]:
        """Yield ``{"name": ...}`` for each of ``names``."""
        _limit_memory(_SPARE_MEMORY)
        for name in request["names"]:
            yield {"name": self._demangle(name)}


def _demangler() -> Callable[[str], str]:
    try:
        from pydemumble import demangle  # noqa: PLC0415
    except ImportError:
        return lambda name: name[:_MAX_TEXT]

    def readable(name: str) -> str:
        if len(name) >= _MAX_MANGLED or not name.startswith(("_Z", "_R")):
            return name[:_MAX_TEXT]
        text = demangle(name) or name
        return text[:_MAX_TEXT]

    return readable


def _confine() -> None:
    # Everything needed is imported by now; from here on files come as descriptors.
    os.chdir("/")
    os.nice(_NICE)
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(limit, (value, value))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Standard input is a pipe that leaktop holds open and never writes to: when leaktop is gone,
    # however it went, SIGIO ends this process (fcntl(2), O_ASYNC), even inside native code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def _limit_memory(spare: int) -> None:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123
        now = int(statm.read().split()[0]) * mmap.PAGESIZE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + spare, hard))


def _receive(connection: socket.socket) -> tuple[Reply, int | None] | None:
    head, descriptors, _, _ = socket.recv_fds(connection, 4, 1)
    if not head:
        return None
    head += _exactly(connection, 4 - len(head))
    (length,) = struct.unpack("<I", head)
    if length > _MAX_REQUEST:
        return None
    request: Reply = json.loads(_exactly(connection, length))
    return request, descriptors[0] if descriptors else None


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise SystemExit
        data += part
    return data


def _send(connection: socket.socket, reply: Reply) -> None:
    data = json.dumps(reply).encode()
    connection.sendall(struct.pack("<I", len(data)) + data)


def main() -> None:
    """Serve one connection, whose descriptor is the second argument, until it is closed."""
    mode, number = sys.argv[1:3]
    connection = socket.socket(fileno=int(number))
    room = Lines(_demangler()) if mode == "lines" else Names(_demangler())
    _confine()
    while (received := _receive(connection)) is not None:
        request, descriptor = received
        try:
            for reply in room.answer(request, descriptor):
                _send(connection, reply)
        except Exception as error:  # whatever the reader raises is this one file's trouble
            text = str(error).splitlines() or [type(error).__name__]
            _send(connection, {"error": text[0][:200]})
        finally:
            if descriptor is not None:
                os.close(descriptor)


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):
        main()
