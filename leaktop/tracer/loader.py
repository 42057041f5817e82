"""Reads and writes what the BPF programs in the kernel share with user space."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from leaktop.tracer import layout
from leaktop.tracer.kernel import MapSpec
from leaktop.tracer.lifetimes import Lifetimes
from leaktop.tracer.maps import BpfArray, BpfMap, RingBuffer, Rings
from leaktop.tracer.objects import Objects

_QUESTIONS = ("questions", "brief_questions")


class Loaded:
    """Programs and maps in the kernel, to be read and written; attached to nothing yet.

    What is common to all: stacks and losses.
    """

    def __init__(self, objects: Objects) -> None:
        """Own the objects from now on."""
        self._objects = objects
        self._specs, self._maps = objects.specs, objects.maps
        self._events: RingBuffer | None = None
        self.losses = self._map("losses", np.dtype("u4"), np.dtype("u8"))
        self.stack_stats = self._array("stack_stats")
        self.stack_count = self._array("stack_count", np.dtype("u8"))
        self.stacks = self._map("stacks", np.dtype("u4"))
        self.logged_stack = self._map("logged_stack", np.dtype("u4"), np.dtype("u8"))

    def maps(self) -> Iterator[tuple[str, int]]:
        """Yield every map's name and descriptor, which stays ours."""
        yield from self._maps.items()

    def events(self, most: int) -> Iterator[bytes]:
        """Yield each ``struct event`` that is there, in order, this many at most."""
        if self._events is None:
            self._events = RingBuffer(self._maps["events"], self._specs["events"].entries)
        return islice(self._events.records(), most)

    def close(self) -> None:
        """Free programs and maps; safe to call twice."""
        if self._events is not None:
            self._events.close()
            self._events = None
        self.stack_stats.close()
        self.stack_count.close()
        self._objects.close()

    def _map(self, name: str, key: np.dtype[Any], value: np.dtype[Any] | None = None) -> BpfMap:
        return BpfMap(self._maps[name], name, key, value or _checked(self._specs[name]))

    def _array(self, name: str, value: np.dtype[Any] | None = None) -> BpfArray:
        spec = self._specs[name]
        return BpfArray(self._maps[name], value or _checked(spec), spec.entries)


class Accounting(Loaded):
    """Programs that hold blocks."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self.config = self._map("config", np.dtype("u4"))
        self.block_sets = self._array("block_sets")
        self.spilled_blocks = self._map("spilled_blocks", layout.KEY)
        self.lifetimes = Lifetimes(self._array("stack_lifetimes"))

    def live_blocks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield all live blocks, as ``layout.BLOCK``, some thousands at a time."""
        for sets in self.block_sets.chunks():
            key = sets["key"]
            yield sets["block"][(key != 0) & (key & layout.BEING_FILLED == 0)]
        yield from self.spilled_blocks.chunks()

    def close(self) -> None:
        """Free programs and maps; safe to call twice."""
        self.lifetimes.close()
        super().close()


class Unwinding(Loaded):
    """Programs that walk stacks of user space."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._rings: Rings | None = None
        self.frame_rules = self._map("frame_rules", layout.KEY)
        self.epoch = self._map("epoch", np.dtype("u4"), np.dtype("u8"))

    def open_questions(self) -> None:
        """Map the memory that questions come through."""
        self._rings = Rings(
            {
                self._maps[name]: RingBuffer(self._maps[name], self._specs[name].entries)
                for name in _QUESTIONS
            }
        )

    def questions(self, timeout_s: float) -> Iterator[bytes]:
        """Wait, this long at most, and yield each ``struct question`` that is there."""
        assert self._rings is not None
        return self._rings.poll(timeout_s)

    def end_questions(self) -> None:
        """Let ``questions`` end at once, from now on; any thread may call."""
        if self._rings is not None:
            self._rings.wake()

    def close(self) -> None:
        """Free programs and maps; safe to call twice."""
        if self._rings is not None:
            self._rings.close()
            self._rings = None
        super().close()


class Program(Accounting, Unwinding):
    """The programs for the functions of user space: ``objects_for_calls``."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self.mappings = self._map("mappings", layout.KEY)
        self.mapping_ends = self._map("mapping_ends", layout.KEY, np.dtype("u8"))

    def load(self, function: str, attach_type: int) -> int:
        """Return the descriptor of a program for a kind of attachment, which stays ours.

        ``attach_type`` is a value of ``enum bpf_attach_type``; 0 for perf events. Raises
        TracerError where the kernel's verifier refuses it.
        """
        return self._objects.load_for_calls(function, attach_type)

    def live_blocks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield all live blocks and mappings."""
        yield from super().live_blocks()
        yield from self.mappings.chunks()


def _checked(spec: MapSpec) -> np.dtype[Any]:
    layout.check(spec.name, spec.fields, spec.value_size)
    return layout.STRUCTURES[spec.name]
