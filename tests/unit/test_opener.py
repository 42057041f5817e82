"""Opening files for a process that may not: a real filter, in a real process."""

import errno
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leaktop import native
from leaktop.opener import Opener
from leaktop.root import RefusedError

CONFINED = """
import ctypes, json, os, runpy, socket, sys, threading
child = runpy.run_path(sys.argv[1])
ours = socket.socket(fileno=int(sys.argv[2]))
libc = ctypes.CDLL(None, use_errno=True)
said = {}
def tried(name, call, *arguments):
    result = call(*arguments)
    said[name] = os.read(result, 64).decode() if result >= 0 else -ctypes.get_errno()
child["_confine"]()
socket.send_fds(ours, [b"."], [child["_watch_opens"]()])
tried("there", libc.open, b"/a file", 0)
tried("to write", libc.open, b"/a file", os.O_RDWR | os.O_CREAT, 0o600)
tried("not there", libc.open, b"/missing", 0)
tried("refused", libc.open, b"/refused", 0)
tried("long", libc.open, b"/" * 5000, 0)
tried("wild", libc.open, ctypes.c_void_p(8), 0)
tried("relative", libc.openat, 7, b"a file", 0)
for name, number in (("open", 2), ("openat2", 437), ("execve", 59), ("io_uring", 425)):
    tried(name, libc.syscall, ctypes.c_long(number), b"/a file", 0, 0, 0)
tried("socket", libc.socket, 1, 1, 0)
thread = threading.Thread(target=tried, args=("thread", libc.open, b"/a file", 0))
thread.start()
thread.join()
print(json.dumps(said))
"""


def test_a_confined_process_opens_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("contents")
    asked: list[str] = []

    def open_file(path: str) -> int:
        asked.append(path)
        if path == "/refused":
            raise RefusedError("not this one")
        if path == "/a file":
            return os.open(given, os.O_RDONLY | os.O_CLOEXEC)
        raise FileNotFoundError(errno.ENOENT, "")

    ours, theirs = socket.socketpair()
    child = Path(native.__file__).with_name("native_child.py")
    command = [sys.executable, "-c", CONFINED, str(child), str(theirs.fileno())]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]
    )
    theirs.close()
    _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
    said = _serve(Opener(listener), process, open_file)
    ours.close()
    denied, refused = -errno.EPERM, -errno.EACCES
    assert said == {
        **dict.fromkeys(("there", "to write", "thread"), "contents"),
        "not there": -errno.ENOENT,
        "wild": -errno.EIO,
        **dict.fromkeys(("refused", "long", "relative"), refused),
        **dict.fromkeys(("open", "openat2", "execve", "io_uring", "socket"), denied),
    }
    assert asked == ["/a file", "/a file", "/missing", "/refused", "/a file"]
    assert given.read_text() == "contents"


def _serve(
    opener: Opener, process: "subprocess.Popen[bytes]", open_file: Callable[[str], int]
) -> object:
    assert process.stdout is not None
    waiting = select.poll()
    waiting.register(process.stdout, select.POLLIN)
    waiting.register(opener, select.POLLIN)
    while process.stdout.fileno() not in {number for number, _ in waiting.poll()}:
        opener.answer(open_file)
    said = json.loads(process.stdout.readline())
    opener.close()
    process.communicate()
    return said


def test_one_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    opener = Opener(reading)
    opener.answer(lambda _: pytest.fail("nothing was asked"))
    opener.close()
    opener.close()
