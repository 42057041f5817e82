"""Put empty programs on malloc and free of a process, where and how leaktop would put its own.

Usage: python bench/floor.py PID. What tracing costs with these is what the kernel's probes cost
alone, and no program on them can cost less. Prints ``ready``; detaches on SIGINT.
"""

import contextlib
import os
import signal
import sys

from common import HEADERS

from leaktop.tracer.allocators import Choice, find_allocators
from leaktop.tracer.arch import this_machine
from leaktop.tracer.attach import attacher, best_way
from leaktop.tracer.probes import probes_for
from leaktop.tracer.target import TargetProcess


class EmptyPrograms:
    """Stands in for ``leaktop.tracer.loader.Program``: whatever is asked for does nothing.

    What it returns is 0, which at the entry of a session asks for its return as well.
    """

    def __init__(self) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)
        self._loaded: dict[tuple[str, int], tuple[object, int]] = {}

    def load(self, function: str, attach_type: int) -> int:
        """See Program.load."""
        import bcc  # noqa: PLC0415

        if (function, attach_type) not in self._loaded:
            program = bcc.BPF(text=f"int {function}(void *context) {{ return 0; }}")
            loaded = program.load_func(
                function.encode(), bcc.BPF.KPROBE, attach_type=attach_type or -1
            )
            self._loaded[function, attach_type] = program, int(loaded.fd)
        return self._loaded[function, attach_type][1]


def main() -> None:
    """Attach, say so, and stay."""
    arch = this_machine()
    assert arch is not None
    process = TargetProcess(int(sys.argv[1]))
    process.refresh()
    links = []
    way = attacher(best_way(arch), EmptyPrograms(), arch)  # type: ignore[arg-type]
    for allocator in find_allocators(process, Choice(), (), lambda step: None):
        path = f"/proc/self/fd/{allocator.module.fileno()}"
        wanted = [each for each in allocator.functions if each.function.name in ("malloc", "free")]
        links += way.attach(path, process.pid, list(probes_for(wanted)))
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for link in links:
        os.close(link)


if __name__ == "__main__":
    main()
