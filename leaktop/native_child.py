"""The process that runs native readers on hostile bytes: symbolic, libdw, demumble.

Run as a script by leaktop/native.py, which says how to talk to it, never imported: it stands
alone, so that it starts fast and can be run isolated (``python -I``). Whatever the bytes make the
native code do, a crash, a loop or gigabytes of memory, ends this process only.
"""

import ctypes
import fcntl
import json
import mmap
import os
import platform
import re
import resource
import signal
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
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
_MAX_FILES = 2  # of a request: with debug information, and what dwz moved out of it
_MAX_UNITS = 65536  # gone through for one address

_SKELETON = 4  # DW_UT_skeleton
_SUBPROGRAM, _INLINED = 0x2E, 0x1D  # DW_TAG_*
_COMP_DIR, _CALL_FILE, _CALL_LINE, _LINKAGE_NAMES = 0x1B, 0x58, 0x59, (0x6E, 0x2007)  # DW_AT_*

# By machine: AUDIT_ARCH_*, and the numbers of seccomp; openat; other calls that can reach a file:
# open, creat, openat2, open_by_handle_at, io_uring_setup, execve, execveat, socket.
_CALLS = {"x86_64": (0xC000003E, 317, 257, (2, 85, 437, 304, 425, 59, 322, 41))}
_X32 = 0x40000000  # and above: the calls of another ABI of the same machine
_KILL, _DENY, _ASK, _ALLOW = 0x80000000, 0x00050001, 0x7FC00000, 0x7FFF0000  # SECCOMP_RET_*

Reply = dict[str, Any]


class Lines:
    """Answers where addresses of a file come from, through a cache of symcaches."""

    def __init__(self, demangle: Callable[[str], str]) -> None:
        from symbolic._lowlevel import ffi  # noqa: PLC0415
        from symbolic.debuginfo import Archive  # noqa: PLC0415

        self._archive, self._ffi, self._demangle = Archive, ffi, demangle
        self._symcaches: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def answer(self, request: Reply, files: Sequence[int]) -> Iterator[Reply]:
        """Yield ``{"calls": [[function, start, file, line], ...]}`` an address, innermost first."""
        key = request["key"]
        if key not in self._symcaches:
            if not files:
                raise ValueError("no file")
            self._symcaches[key] = self._load(files[0])
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


class _Die(ctypes.Structure):
    # Dwarf_Die (libdw.h)
    _fields_ = (
        ("addr", ctypes.c_void_p),
        ("cu", ctypes.c_void_p),
        ("abbrev", ctypes.c_void_p),
        ("padding", ctypes.c_long),
    )


class _Attribute(ctypes.Structure):
    # Dwarf_Attribute (libdw.h)
    _fields_ = (
        ("code", ctypes.c_uint),
        ("form", ctypes.c_uint),
        ("valp", ctypes.c_void_p),
        ("cu", ctypes.c_void_p),
    )


class Parts:
    """Answers as Lines does, of debug information that is in more than one file: by libdw.

    It opens split files (.dwo, .dwp) by itself, which is why opening is watched here.
    """

    def __init__(self, demangle: Callable[[str], str]) -> None:
        self._dw, self._libc, self._demangle = _libdw(), ctypes.CDLL(None), demangle
        self._open: OrderedDict[str, list[tuple[int, int]]] = OrderedDict()

    def answer(self, request: Reply, files: Sequence[int]) -> Iterator[Reply]:
        """Yield the same; ``files`` are the module, and what dwz moved out of it."""
        key = request["key"]
        if key not in self._open:
            self._open[key] = self._load(files)
            if len(self._open) > _MAX_MODULES:
                self._close(self._open.popitem(last=False)[1])
        self._open.move_to_end(key)
        dwarf = ctypes.c_void_p(self._open[key][0][0])
        for address in request["addresses"]:
            yield {"calls": self._calls(dwarf, ctypes.c_uint64(address))}

    def _load(self, files: Sequence[int]) -> list[tuple[int, int]]:
        # what libdw knows each file by, and the descriptor that it reads it from as it needs it
        if not files:
            raise ValueError("no file")
        size = sum(os.fstat(each).st_size for each in files)
        _limit_memory(_SPARE_MEMORY + _MEMORY_A_BYTE * size, resource.RLIMIT_DATA)
        opened = []
        for file in files:
            kept = os.dup(file)
            opened.append((self._dw.dwarf_begin(kept, 0) or 0, kept))
        if not all(dwarf for dwarf, _ in opened):
            self._close(opened)
            raise ValueError("no debug information that libdw reads")
        if len(opened) > 1:
            self._dw.dwarf_setalt(*(ctypes.c_void_p(dwarf) for dwarf, _ in opened))
        return opened

    def _close(self, opened: list[tuple[int, int]]) -> None:
        for dwarf, descriptor in opened:
            self._dw.dwarf_end(ctypes.c_void_p(dwarf))
            os.close(descriptor)

    def _calls(self, dwarf: ctypes.c_void_p, address: ctypes.c_uint64) -> list[list[Any]]:
        unit = self._unit(dwarf, address)
        if unit is None:
            return []
        skeleton, whole = unit
        line = self._dw.dwarf_getsrc_die(ctypes.byref(skeleton), address)
        number, file = ctypes.c_int(), None
        if line and not self._dw.dwarf_lineno(ctypes.c_void_p(line), ctypes.byref(number)):
            file = self._path(skeleton, self._dw.dwarf_linesrc(ctypes.c_void_p(line), None, None))
        calls = []
        for die in self._functions(whole, address):
            start = ctypes.c_uint64()
            unknown = self._dw.dwarf_entrypc(ctypes.byref(die), ctypes.byref(start))
            calls.append(
                [self._name(die), None if unknown else start.value, file, number.value or None]
            )
            number = ctypes.c_int(self._number(die, _CALL_LINE) or 0)
            file = self._file(whole, self._number(die, _CALL_FILE))
        return calls or ([[None, None, file, number.value]] if file else [])

    def _unit(self, dwarf: ctypes.c_void_p, address: ctypes.c_uint64) -> tuple[_Die, _Die] | None:
        # the unit of an address, and the one that has its functions: not the same where split
        found = _Die()
        if not self._dw.dwarf_addrdie(dwarf, address, ctypes.byref(found)):
            found = self._search(dwarf, address) or _Die()
        if not found.addr:
            return None
        kind, whole = ctypes.c_uint8(), _Die()
        failed = self._dw.dwarf_cu_info(
            ctypes.c_void_p(found.cu),
            None,
            ctypes.byref(kind),
            None,
            ctypes.byref(whole),
            *[None] * 3,
        )
        split = not failed and kind.value == _SKELETON and whole.addr
        return found, whole if split else found

    def _search(self, dwarf: ctypes.c_void_p, address: ctypes.c_uint64) -> _Die | None:
        # without .debug_aranges
        unit, die = ctypes.c_void_p(), _Die()
        for _ in range(_MAX_UNITS):
            if self._dw.dwarf_get_units(
                dwarf, unit, ctypes.byref(unit), None, None, ctypes.byref(die), None
            ):
                return None
            if self._dw.dwarf_haspc(ctypes.byref(die), address) > 0:
                return die
        return None

    def _functions(self, unit: _Die, address: ctypes.c_uint64) -> list[_Die]:
        # those around an address, innermost first, out to the one that is a function of its own
        around = self._scopes(self._dw.dwarf_getscopes, ctypes.byref(unit), address)
        if not around:
            return []
        functions: list[_Die] = []
        for die in self._scopes(self._dw.dwarf_getscopes_die, ctypes.byref(around[0])):
            tag = self._dw.dwarf_tag(ctypes.byref(die))
            if tag in {_SUBPROGRAM, _INLINED} and len(functions) < _MAX_CALLS:
                functions.append(die)
            if tag == _SUBPROGRAM:
                break
        return functions

    def _scopes(self, find: Callable[..., int], *arguments: Any) -> list[_Die]:
        scopes = ctypes.POINTER(_Die)()
        count = find(*arguments, ctypes.byref(scopes))
        copies = [_Die.from_buffer_copy(scopes[i]) for i in range(max(count, 0))]
        if count > 0:
            self._libc.free(scopes)
        return copies

    def _name(self, die: _Die) -> str | None:
        attribute = _Attribute()
        for kind in _LINKAGE_NAMES:
            if self._dw.dwarf_attr_integrate(ctypes.byref(die), kind, ctypes.byref(attribute)):
                raw = self._dw.dwarf_formstring(ctypes.byref(attribute))
                if raw:
                    return self._demangle(raw.decode("utf-8", "backslashreplace"))
        raw = self._dw.dwarf_diename(ctypes.byref(die))
        return raw[:_MAX_TEXT].decode("utf-8", "backslashreplace") if raw else None

    def _number(self, die: _Die, kind: int) -> int | None:
        attribute, value = _Attribute(), ctypes.c_uint64()
        if not self._dw.dwarf_attr(ctypes.byref(die), kind, ctypes.byref(attribute)):
            return None
        failed = self._dw.dwarf_formudata(ctypes.byref(attribute), ctypes.byref(value))
        return None if failed or value.value >= 1 << 31 else value.value

    def _file(self, unit: _Die, index: int | None) -> str | None:
        files, count = ctypes.c_void_p(), ctypes.c_size_t()
        if index is None or self._dw.dwarf_getsrcfiles(
            ctypes.byref(unit), ctypes.byref(files), ctypes.byref(count)
        ):
            return None
        path = None
        if index < count.value:
            path = self._dw.dwarf_filesrc(files, ctypes.c_size_t(index), None, None)
        return self._path(unit, path)

    def _path(self, unit: _Die, raw: bytes | None) -> str | None:
        attribute, folder = _Attribute(), None
        if raw and not raw.startswith(b"/"):
            if self._dw.dwarf_attr(ctypes.byref(unit), _COMP_DIR, ctypes.byref(attribute)):
                folder = self._dw.dwarf_formstring(ctypes.byref(attribute))
            raw = folder + b"/" + raw if folder else raw
        return raw[:_MAX_TEXT].decode("utf-8", "backslashreplace") if raw else None


def _libdw() -> Any:
    # drgn brings one that is new enough for .dwp (0.191) and for units without .debug_aranges
    name = "libdw.so.1"
    with suppress(ImportError):
        import _drgn  # noqa: F401, PLC0415

        with open("/proc/self/maps") as maps:  # noqa: PTH123
            found = re.search(r"/\S*/libdw[-.]\S*", maps.read())
        name = found[0] if found else name
    libdw = ctypes.CDLL(name)
    for function in ("begin", "addrdie", "getsrc_die", "attr", "attr_integrate"):
        getattr(libdw, f"dwarf_{function}").restype = ctypes.c_void_p
    for function in ("linesrc", "filesrc", "formstring", "diename"):
        getattr(libdw, f"dwarf_{function}").restype = ctypes.c_char_p
    return libdw


class Names:
    """Answers what mangled names mean."""

    def __init__(self, demangle: Callable[[str], str]) -> None:
        self._demangle = demangle

    def answer(self, request: Reply, _files: Sequence[int]) -> Iterator[Reply]:
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


def _watch_opens() -> int:
    # From here on every openat(2) waits for leaktop's word (leaktop/opener.py), which is asked
    # through the descriptor that this returns; other ways to a file fail. seccomp_unotify(2), Linux
    # 5.0 (6a21cc50f0c7).
    architecture, seccomp, openat, others = _CALLS[platform.machine()]
    kind, number = 4, 0  # offsets in struct seccomp_data
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # BPF_LD, BPF_JEQ, BPF_JGE, BPF_RET
    program = [(load, 0, 0, kind), (equal, 1, 0, architecture), (answer, 0, 0, _KILL)]
    program += [(load, 0, 0, number), (equal, 0, 1, openat), (answer, 0, 0, _ASK)]
    for each in others:
        program += [(equal, 0, 1, each), (answer, 0, 0, _DENY)]
    program += [(at_least, 0, 1, _X32), (answer, 0, 0, _DENY), (answer, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("<HBBI", *each) for each in program)
    text = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(text))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    set_filter, new_listener = 1, 8  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
    found = libc.syscall(ctypes.c_long(seccomp), set_filter, new_listener, head)
    if found < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(found)


_STATM = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def _limit_memory(spare: int, kind: int = resource.RLIMIT_AS) -> None:
    # of all that is mapped, or with RLIMIT_DATA of what is not just a file's
    fields = os.pread(_STATM, 256, 0).split()
    now = int(fields[0 if kind == resource.RLIMIT_AS else 5]) * mmap.PAGESIZE
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (now + spare, hard))


def _receive(connection: socket.socket) -> tuple[Reply, Sequence[int]] | None:
    head, descriptors, _, _ = socket.recv_fds(connection, 4, _MAX_FILES)
    if not head:
        return None
    head += _exactly(connection, 4 - len(head))
    (length,) = struct.unpack("<I", head)
    if length > _MAX_REQUEST:
        return None
    request: Reply = json.loads(_exactly(connection, length))
    return request, descriptors


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
    rooms: dict[str, Callable[..., Lines | Parts | Names]]
    rooms = {"lines": Lines, "parts": Parts, "names": Names}
    room = rooms[mode](_demangler())
    _confine()
    if mode == "parts":
        socket.send_fds(connection, [b"."], [_watch_opens()])
    while (received := _receive(connection)) is not None:
        request, files = received
        try:
            for reply in room.answer(request, files):
                _send(connection, reply)
        except Exception as error:  # whatever the reader raises is this one file's trouble
            text = str(error).splitlines() or [type(error).__name__]
            _send(connection, {"error": text[0][:200]})
        finally:
            for descriptor in files:
                os.close(descriptor)


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):
        main()
