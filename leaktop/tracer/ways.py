"""The ways to attach that kernels have, and which one this kernel has; see attach.py."""

import contextlib
import ctypes as ct
import errno
import os
from enum import Enum

from leaktop.tracer import TracerError, kernel

BPF_TRACE_UPROBE_MULTI = 48
BPF_TRACE_UPROBE_SESSION = 57

RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")
"""The smallest BPF program: r0 = 0; exit."""


class Way(Enum):
    """How probes are attached, best first; the texts are for people."""

    SESSION = "uprobe session links"
    MULTI = "uprobe-multi links"
    PERF = "perf events"

    def attach_type(self, *, with_end: bool) -> int:
        """Return what a program is loaded for (``enum bpf_attach_type``); 0 for perf events.

        Programs on functions whose end is of no interest have no session.
        """
        way = Way.MULTI if self is Way.SESSION and not with_end else self
        return _LINKS.get(way, 0)


_LINKS = {Way.SESSION: BPF_TRACE_UPROBE_SESSION, Way.MULTI: BPF_TRACE_UPROBE_MULTI}
WAY_VARIABLE = "LEAKTOP_ATTACH"
"""Environment variable that names a way (session, multi, perf), for tests of each on one kernel."""


def best_way() -> Way:
    """Return the best way to attach that this kernel has, found by trying.

    Raises TracerError where the environment names one that there is not.
    """
    wanted = os.environ.get(WAY_VARIABLE)
    if wanted:
        with contextlib.suppress(KeyError):
            return Way[wanted.upper()]
        names = ", ".join(way.name.lower() for way in Way)
        raise TracerError(f"{WAY_VARIABLE}={wanted!r} is no way to attach: {names}")
    for way, attach_type in _LINKS.items():
        if _knows(attach_type):
            return way
    return Way.PERF


def _knows(attach_type: int) -> bool:
    """Whether the kernel has a kind of link.

    One that does looks at the path before it refuses, and a folder is no file to probe: EBADF. One
    that does not refuses the program or the kind of link.
    """
    name, offsets = ct.create_string_buffer(b"/"), (ct.c_uint64 * 1)()
    link = LinkCreate(
        attach_type=attach_type,
        path=ct.addressof(name),
        offsets=ct.addressof(offsets),
        count=1,
    )
    try:
        link.prog_fd = kernel.load_program(RETURN_0, attach_type, "nothing")
    except OSError:
        return False
    try:
        kernel.bpf(kernel.LINK_CREATE, link)
    except OSError as error:
        return error.errno == errno.EBADF
    finally:
        os.close(link.prog_fd)
    return False


class LinkCreate(ct.Structure):
    """``union bpf_attr`` of BPF_LINK_CREATE, its uprobe_multi part (include/uapi/linux/bpf.h)."""

    _fields_ = [
        ("prog_fd", ct.c_uint32),
        ("target_fd", ct.c_uint32),
        ("attach_type", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("path", ct.c_uint64),
        ("offsets", ct.c_uint64),
        ("ref_counter_offsets", ct.c_uint64),
        ("cookies", ct.c_uint64),
        ("count", ct.c_uint32),
        ("multi_flags", ct.c_uint32),
        ("pid", ct.c_uint32),
        ("pad", ct.c_uint32),
    ]
