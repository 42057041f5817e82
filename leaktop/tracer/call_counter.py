"""A BPF program that does nothing but count how often it runs, and the probes that it is on.

It is six instructions, written here: nothing has to be compiled for it.
"""

import ctypes as ct
import os
from collections.abc import Sequence

from leaktop.tracer import TracerError, kernel
from leaktop.tracer.arch import Architecture
from leaktop.tracer.attach import Attached, Place, attacher
from leaktop.tracer.kernel import INSTRUCTION, MapSpec
from leaktop.tracer.probes import Probe
from leaktop.tracer.ways import Way

_MAP_TYPE_ARRAY = 2
_CALLS = MapSpec("calls", _MAP_TYPE_ARRAY, 4, 8, 1, 0, ())
"""Key 0: how often the program has run."""
_PSEUDO_MAP_VALUE = 2  # the address of a map's value (kernel commit d8eca5bbb2be)
_R0, _R1, _R2 = 0, 1, 2
_LOAD_IMM64, _MOVE, _ATOMIC64, _EXIT = 0x18, 0xB7, 0xDB, 0x95
_NO_SLOT = 0


class CallCounter:
    """Counts every run of a program on the probes that are attached. Raises TracerError."""

    def __init__(self, arch: Architecture, way: Way) -> None:
        """``way`` is how all probes are attached."""
        self._attached = Attached()
        self._programs: dict[int, int] = {}
        try:
            self._map = kernel.create_map(_CALLS)
        except OSError as error:
            raise TracerError(f"calls cannot be counted: {error.strerror}", 3) from None
        try:
            self._attacher = attacher(way, self, arch)
        except TracerError:
            self.close()
            raise

    def load(self, function: str, attach_type: int) -> int:
        """Return the descriptor of the program for a kind of attachment, which stays ours.

        It is the same for every ``function``. Raises OSError.
        """
        if attach_type not in self._programs:
            code = _program(self._map)
            self._programs[attach_type] = kernel.load_program(code, attach_type, "count_calls")
        return self._programs[attach_type]

    def attach(self, file: int, pid: int, probes: Sequence[Probe]) -> None:
        """Put it on probes of an open file in one process, all or none. Raises TracerError."""
        try:
            path = f"/proc/self/fd/{file}"
            self._attached.own(self._attacher.attach(path, Place(pid, _NO_SLOT), probes))
        except OSError as error:
            raise TracerError(f"the kernel refuses to count calls: {error.strerror}", 3) from None

    def read(self) -> int:
        """Return how often it has run so far. Raises OSError."""
        key, value = ct.c_uint32(0), ct.c_uint64(0)
        kernel.lookup(self._map, ct.addressof(key), ct.addressof(value))
        return value.value

    def close(self) -> None:
        """Detach; safe to call twice."""
        self._attached.close()
        while self._programs:
            os.close(self._programs.popitem()[1])
        if self._map >= 0:
            os.close(self._map)
            self._map = -1

    def __enter__(self) -> "CallCounter":
        """Detach at the end of the block."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Detach."""
        self.close()


def _program(map_descriptor: int) -> bytes:
    return b"".join(
        INSTRUCTION.pack(*fields)
        for fields in (
            (_LOAD_IMM64, _PSEUDO_MAP_VALUE << 4 | _R1, 0, map_descriptor),
            (0, 0, 0, 0),
            (_MOVE, _R2, 0, 1),
            (_ATOMIC64, _R2 << 4 | _R1, 0, 0),  # *r1 += r2
            (_MOVE, _R0, 0, 0),
            (_EXIT, 0, 0, 0),
        )
    )
