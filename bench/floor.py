"""Put empty programs on malloc and free of a process, where and how leaktop would put its own.

Usage: python bench/floor.py PID [--skip-returns]. What tracing costs with these is what the
kernel's probes cost alone, and no program on them can cost less. Prints ``ready``; detaches on
SIGINT.
"""

import contextlib
import os
import signal
import struct
import sys

from leaktop.tracer import kernel
from leaktop.tracer.allocators import find_allocators
from leaktop.tracer.arch import this_machine
from leaktop.tracer.attach import Place, attacher
from leaktop.tracer.probes import Choice, probes_for
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.ways import best_way


class EmptyPrograms:
    """Stands in for ``leaktop.tracer.loader.Program``: whatever is asked for returns a constant.

    0 at the entry of a session asks for its return as well, 1 skips it.
    """

    def __init__(self, value: int) -> None:
        self._code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, value, 0x95, 0, 0, 0)  # r0 = …; exit

    def load(self, function: str, attach_type: int) -> int:
        """See Program.load."""
        return kernel.load_program(self._code, attach_type, function)


def main() -> None:
    """Attach, say so, and stay."""
    arch = this_machine()
    assert arch is not None
    process = TargetProcess(int(sys.argv[1]))
    process.refresh()
    links = []
    programs = EmptyPrograms(int("--skip-returns" in sys.argv))
    way = attacher(best_way(), programs, arch)  # type: ignore[arg-type]
    for allocator in find_allocators(process, Choice(), (), lambda step: None):
        path = f"/proc/self/fd/{allocator.module.fileno()}"
        wanted = [each for each in allocator.functions if each.function.name in ("malloc", "free")]
        links += way.attach(path, Place(process.pid, 1), list(probes_for(wanted)))
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for link in links:
        os.close(link)


if __name__ == "__main__":
    main()
