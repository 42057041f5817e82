"""Loads the BPF programs while the rest of the tracer is still being imported.

The kernel's verifier and the imports take about as long as each other, and only one of them needs
the interpreter.
"""

import contextlib
import sys
import threading

from leaktop.tracer import TracerError
from leaktop.tracer.objects import PROGRAMS, Capacity, Objects, objects_for_calls
from leaktop.tracer.privilege import check_privileges
from leaktop.tracer.ways import Way, best_way

_BESIDE = ("on_call", "on_walk")
"""Half of the verifier's work, done in a thread of its own."""
_SWITCH_S = 0.0002
"""How long the importing thread may keep the interpreter after each of some thirty system calls."""


class Loading:
    """Programs on their way into the kernel, and the way in which they will be attached."""

    def __init__(self, capacity: Capacity) -> None:
        """Begin, in a thread of its own."""
        self.capacity = capacity
        self._objects: Objects | None = None
        self._way = Way.PERF
        self._error: Exception | None = None
        self._switched_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._thread = threading.Thread(target=self._run, name="loading", daemon=True)
        self._thread.start()

    def result(self) -> tuple[Objects, Way]:
        """Wait until they are loaded; they are the caller's then. Raises TracerError."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._objects is not None
        objects, self._objects = self._objects, None
        return objects, self._way

    def discard(self) -> None:
        """Free what nobody wants; safe to call at any time."""
        self._thread.join()
        if self._objects is not None:
            self._objects.close()
            self._objects = None

    def _run(self) -> None:
        try:
            self._load()
        except Exception as error:
            self._error = error
            if self._objects is not None:
                self._objects.close()
                self._objects = None
        finally:
            sys.setswitchinterval(self._switched_s)

    def _load(self) -> None:
        check_privileges()
        self._way = way = best_way()
        self._objects = objects_for_calls(self.capacity, sessions=way is Way.SESSION)
        beside = threading.Thread(target=_load_beside, args=(self._objects, way), daemon=True)
        beside.start()
        try:
            for name, with_end in PROGRAMS.items():
                if name not in _BESIDE:
                    self._objects.load(name, way.attach_type(with_end=with_end))
        finally:
            beside.join()
        for name, with_end in PROGRAMS.items():
            self._objects.load_for_calls(name, way.attach_type(with_end=with_end))


def _load_beside(objects: Objects, way: Way) -> None:
    with contextlib.suppress(TracerError):  # the next one who wants them is told
        for name in _BESIDE:
            objects.load(name, way.attach_type(with_end=PROGRAMS[name]))
