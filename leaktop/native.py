"""Native readers of hostile bytes, each in a child process of its own: see native_child.py.

A request is one JSON object, with a descriptor where it is about a file; the answer is one JSON
object for each thing asked, in order, or ``{"error": ...}`` in place of the next. Each is preceded
by its length as 32-bit little-endian. What comes back is checked like anything from the target.
"""

import errno
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaktop.elf import ElfAddress
from leaktop.modules import Module
from leaktop.opener import Opener

MAX_SHOWN = 8192
"""Longest name or path that is shown, in characters."""

_CHILD = Path(__file__).with_name("native_child.py")
_STARTS = 4  # of one kind of child, ever: more crashes than that are no accident
_MAX_REPLY = 4 << 20
_NAMES_S = 3.0  # for a batch; it takes milliseconds
_START_S = 30.0
_LINES_S = 60.0  # for a module; 100 MB of debug information take about a second


class NativeError(Exception):
    """The reader has no answer; the text says why, in one line."""


class _ChildLostError(NativeError):
    # crashed, out of memory or out of time
    pass


@dataclass(frozen=True, slots=True)
class Call:
    """One function at an address: the innermost was inlined into the next, and so on."""

    function: str | None
    start: ElfAddress | None
    file: str | None
    line: int | None


class _Child:
    # one process, started at the first request, and again when it was lost

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._starts_left = _STARTS
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def ask(
        self, request: dict[str, Any], count: int, seconds: float, files: Sequence[int] = ()
    ) -> Iterator[dict[str, Any]]:
        # yields an answer to each of ``count`` things asked; to be read to its end
        deadline = time.monotonic() + seconds
        try:
            self._send(request, files, seconds)
            for _ in range(count):
                reply = self._receive(deadline)
                if "error" in reply:
                    raise NativeError(_text(reply["error"]) or "no reason given")
                yield reply
        except TimeoutError:
            self.close()
            raise _ChildLostError("reading took too long") from None
        except (OSError, ValueError, RecursionError):
            self.close()
            raise _ChildLostError("the reader crashed or ran out of memory") from None

    def close(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _start(self) -> socket.socket:
        if not self._starts_left:
            raise NativeError("the reader crashed too often")
        self._starts_left -= 1
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-I", str(_CHILD), self._mode, str(number)]
            try:
                self._process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[number],
                    start_new_session=True,
                    env={},
                )
            except OSError:
                ours.close()
                raise
        self._connection = ours
        return ours

    def _send(self, request: dict[str, Any], files: Sequence[int], seconds: float) -> None:
        data = json.dumps(request).encode()
        if self._process is not None and self._process.poll() is not None:
            self.close()  # gone while idle: no fault of this request
        connection = self._connection or self._start()
        connection.settimeout(seconds)
        socket.send_fds(connection, [struct.pack("<I", len(data))], files)
        connection.sendall(data)

    def _receive(self, deadline: float) -> dict[str, Any]:
        (length,) = struct.unpack("<I", self._exactly(4, deadline))
        if length > _MAX_REPLY:
            raise ValueError("reply too long")
        reply = json.loads(self._exactly(length, deadline))
        if not isinstance(reply, dict):
            raise ValueError("not a reply")
        return reply

    def _exactly(self, size: int, deadline: float) -> bytes:
        assert self._connection is not None
        data = bytearray()
        while len(data) < size:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            self._wait(self._connection, deadline)
            part = self._connection.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return bytes(data)

    def _wait(self, connection: socket.socket, deadline: float) -> None:
        pass  # receiving waits by itself


class _WatchedChild(_Child):
    # asks ``open_file`` for every file that it opens, while it is asked itself

    def __init__(self, mode: str) -> None:
        super().__init__(mode)
        self.open_file: Callable[[str], int] = _refuse
        self._opener: Opener | None = None

    def close(self) -> None:
        super().close()
        if self._opener is not None:
            self._opener.close()
            self._opener = None

    def _start(self) -> socket.socket:
        connection = super()._start()
        connection.settimeout(_START_S)
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not descriptors:
            self.close()
            raise NativeError(
                "its reader does not start: it needs libdw, and seccomp of Linux 5.14"
            )
        self._opener = Opener(descriptors[0])
        return connection

    def _wait(self, connection: socket.socket, deadline: float) -> None:
        assert self._opener is not None
        waiting = select.poll()
        waiting.register(connection, select.POLLIN)
        waiting.register(self._opener, select.POLLIN)
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready = {number for number, _ in waiting.poll(left * 1000)}
            if not ready:
                raise TimeoutError
            if connection.fileno() in ready:
                return
            self._opener.answer(self.open_file)


def _refuse(path: str) -> int:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


class Demangler:
    """Says what mangled C++ and Rust names mean; safe for use by several threads."""

    def __init__(self) -> None:
        self._child = _Child("names")
        self._lock = threading.Lock()

    def demangle(self, names: Collection[str]) -> dict[str, str]:
        """Return the readable form of each name; what cannot be read stays as it is."""
        readable = {name: name[:MAX_SHOWN] for name in names}
        left = list(names)
        with self._lock:
            while left:
                try:
                    for reply in self._child.ask({"names": left}, len(left), _NAMES_S):
                        readable[left[0]] = _text(reply.get("name")) or readable[left[0]]
                        del left[0]
                except _ChildLostError:
                    del left[0]  # the one that it was lost over
                except NativeError:
                    break
        return readable

    def close(self) -> None:
        """End the child process, if there is one."""
        with self._lock:
            self._child.close()


class LineReader:
    """Finds source lines and inlined calls in debug information; one thread at a time."""

    def __init__(self) -> None:
        self._child = _Child("lines")
        self._lock = threading.Lock()

    def read(self, module: Module, addresses: Sequence[ElfAddress]) -> list[list[Call]]:
        """Return the calls at each address, innermost first; empty where nothing is known.

        Raises NativeError.
        """
        request = {"key": repr(module.identity), "addresses": addresses}
        with self._lock:
            replies = self._child.ask(request, len(addresses), _LINES_S, _descriptors(module))
            return [_calls(reply.get("calls")) for reply in replies]

    def close(self) -> None:
        """End the child process, if there is one."""
        with self._lock:
            self._child.close()


class PartsReader:
    """Finds the same as LineReader where debug information is in several files."""

    def __init__(self) -> None:
        self._child = _WatchedChild("parts")
        self._lock = threading.Lock()

    def read(
        self,
        modules: Sequence[Module],
        addresses: Sequence[ElfAddress],
        open_file: Callable[[str], int],
    ) -> list[list[Call]]:
        """Return the calls at each address, innermost first; empty where nothing is known.

        ``modules``: the one with the debug information, and where dwz moved parts of it.
        ``open_file`` returns a descriptor for a path that the debug information speaks of, or
        raises OSError or RefusedError; no other file is opened. Raises NativeError.
        """
        request = {"key": repr([each.identity for each in modules]), "addresses": addresses}
        with self._lock:
            self._child.open_file = open_file
            files = _descriptors(*modules)
            replies = self._child.ask(request, len(addresses), _LINES_S, files)
            return [_calls(reply.get("calls")) for reply in replies]

    def close(self) -> None:
        """End the child process, if there is one."""
        with self._lock:
            self._child.close()


def _descriptors(*modules: Module) -> list[int]:
    numbers = [each.fileno() for each in modules]
    return [number for number in numbers if number is not None]


def _calls(found: object) -> list[Call]:
    calls = []
    for each in found if isinstance(found, list) else ():
        match each:
            case [name, int() | None as start, file, line]:
                line = line if isinstance(line, int) and line > 0 else None
                at = None if start is None else ElfAddress(start)
                calls.append(Call(_text(name), at, _text(file), line))
    return calls


def _text(value: object) -> str | None:
    return value[:MAX_SHOWN] if isinstance(value, str) and value else None
