"""File descriptors, however many: waiting for them, and room for them."""

import math
import resource
import select
from collections.abc import Iterable
from contextlib import suppress

_ENOUGH = 65_536


def wait_readable(descriptors: Iterable[int], seconds: float | None) -> bool:
    """Wait until one of them is readable or the time is over (None: never); return whether one is.

    As select(2), which takes no descriptor above 1023.
    """
    poll = select.poll()
    for each in descriptors:
        poll.register(each, select.POLLIN)
    return bool(poll.poll(None if seconds is None else math.ceil(seconds * 1000)))


def make_room() -> None:
    """Let this process have as many as it may: by default 1024, for the sake of select(2).

    Each process that is traced takes some ten, where probes are perf events some thirty.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # then fewer have to do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
