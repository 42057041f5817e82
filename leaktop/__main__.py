"""Entry point of ``python -m leaktop`` and of the ``leaktop`` command."""

import contextlib
import gc
import os
import signal
import sys
from typing import NoReturn

# Python's own handler raises KeyboardInterrupt wherever it is: lost in a callback, as imports have
# them, and a traceback elsewhere. Nothing is attached before whoever traces has a handler.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# A tick makes some objects for each of thousands of stacks, and lets the last one's go; by default
# Python would look through all that there is for cycles each time, and does so during imports, too.
gc.set_threshold(50_000)

from leaktop import cli  # noqa: E402


def main() -> NoReturn:
    """Run leaktop and end the process at once.

    All that matters is closed by then. What Python would do at its exit is to take thousands of
    objects apart one by one, and to wait for threads that may be in the middle of compiling; the
    kernel does the same in an instant, probes included.
    """
    code = cli.main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
