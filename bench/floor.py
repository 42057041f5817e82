"""Put empty programs on a process's allocator, where leaktop would put its own and in the same way.

Usage: python bench/floor.py PID. What tracing costs with these is what the kernel's probes cost
alone, and no program on them can cost less. Prints ``ready``; detaches on SIGINT.
"""

import os
import signal
import sys

from common import HEADERS

from leaktop.tracer.allocators import Choice, find_allocators
from leaktop.tracer.arch import this_machine
from leaktop.tracer.attach import Attached, attacher, best_way
from leaktop.tracer.probes import probes_for
from leaktop.tracer.target import TargetProcess

# 0 at the entry of a session asks for its return as well
SOURCE = """
int on_call(void *ctx) { return 0; }
int on_free(void *ctx) { return 0; }
"""


class EmptyPrograms:
    """Loads them as ``leaktop.tracer.loader.Program`` loads leaktop's."""

    def __init__(self) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)
        import bcc  # noqa: PLC0415

        self._bpf, self._kind = bcc.BPF(text=SOURCE), bcc.BPF.KPROBE

    def load(self, function: str, attach_type: int) -> int:
        """See Program.load."""
        loaded = self._bpf.load_func(function.encode(), self._kind, attach_type=attach_type or -1)
        return int(loaded.fd)


def main() -> None:
    """Attach, say so, and stay."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    arch = this_machine()
    assert arch is not None
    process = TargetProcess(int(sys.argv[1]))
    process.refresh()
    attached = Attached()
    way = attacher(best_way(arch), EmptyPrograms(), arch)  # type: ignore[arg-type]
    for allocator in find_allocators(process, Choice(), (), lambda step: None):
        path = f"/proc/self/fd/{allocator.module.fileno()}"
        way.attach(path, process.pid, list(probes_for(allocator.functions)), attached)
    print("ready", len(attached.probes), flush=True)
    signal.sigwait([signal.SIGINT])
    attached.close()


if __name__ == "__main__":
    main()
