"""Loads the BPF program and makes its maps.

What bcc compiled is loaded by bpf(2) itself: else bcc, with all of clang, would have to be there at
every start.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from leaktop.tracer import TracerError, kernel, layout
from leaktop.tracer.image import Cache, Image, default_cache, image_of
from leaktop.tracer.kernel import MapSpec
from leaktop.tracer.maps import BpfArray, BpfMap, RingBuffer, Rings

MAIN = "memleak.bpf.c"
_PROGRAMS = ("on_call", "on_mapping", "on_walk", "on_free", "on_unmap")
_WALKING = ("on_call", "on_mapping")
"""Programs that go on in on_walk: the kernel wants all of them loaded for the same attachment."""

THREADS_MAX = 1024
"""Threads inside an allocator at once, where the kernel cannot keep a thread's state with it. The
map is an LRU, so more only evicts idle ones."""
MAPPINGS_MAX = 65536
"""Live mappings whose end is known; the kernel's own limit for a process is about as high
(vm.max_map_count)."""

SHAPES = 4096
"""Shapes of stacks that are kept, a power of two: 1 MB. A program that goes round through more
stacks walks some of them each time."""

KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")
"""Where a kernel that describes its types does so; by them programs keep state with a task, as they
may since kernel commit a10787e6d58c, before there were attach cookies."""

_QUESTIONS = ("questions", "brief_questions")
EVENTS_PAGES = 256
"""Pages of the ring that events come through, a power of two: 1 MB, room for 21,845."""
QUESTIONS_PAGES = 1024
"""Pages of each ring that questions come through, a power of two: 4 MB, room for 250 with a large
image of the stack and 1,900 with a small one, until the first of a burst on a new path is
answered."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much the kernel side can hold; memory for it is taken when tracing starts."""

    allocs: int = 1_000_000
    """Live blocks that there is room for; by chance there may be room for more."""
    stacks: int = 16_384
    rules: int = 65_536
    """Call-frame rules, one for each code address on a stack."""

    @property
    def block_sets(self) -> int:
        """Sets of blocks, a power of two: 2 to 4 blocks in each of ``layout.SET_WAYS`` places."""
        return 1 << max(4, (self.allocs // 4).bit_length())

    @property
    def spilled(self) -> int:
        """Room for blocks that find their set full: about 1 in 60 where sets hold 4 on average."""
        return max(64, self.allocs // 8)


class Loaded:
    """Compiled programs with their maps in the kernel; attached to nothing yet.

    What is common to all: stacks and losses. Raises TracerError where the maps cannot be made.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self._specs = {spec.name: spec for spec in image.maps}
        self._maps: dict[str, int] = {}
        self._loaded: dict[tuple[str, int], int] = {}
        self._events: RingBuffer | None = None
        try:
            for spec in image.maps:
                self._maps[spec.name] = _made(spec)
        except TracerError:
            self._close_descriptors()
            raise
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
        self._close_descriptors()

    def _load(self, function: str, attach_type: int, kind: int = kernel.PROG_TYPE_KPROBE) -> int:
        # kind: enum bpf_prog_type
        loaded = self._loaded.get((function, attach_type))
        if loaded is None:
            program = self._image.programs[function]
            code = kernel.relocate(program.code, list(program.maps), list(self._maps.values()))
            try:
                loaded = kernel.load_program(code, attach_type, function, kind)
            except OSError as error:
                raise TracerError(_refusal(function, error), exit_code=3) from None
            self._loaded[function, attach_type] = loaded
        return loaded

    def _close_descriptors(self) -> None:
        for descriptors in (self._loaded, self._maps):
            while descriptors:
                os.close(descriptors.popitem()[1])

    def _map(self, name: str, key: np.dtype[Any], value: np.dtype[Any] | None = None) -> BpfMap:
        return BpfMap(self._maps[name], name, key, value or _checked(self._specs[name]))

    def _array(self, name: str, value: np.dtype[Any] | None = None) -> BpfArray:
        spec = self._specs[name]
        return BpfArray(self._maps[name], value or _checked(spec), spec.entries)


class Accounting(Loaded):
    """Programs that hold blocks."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.config = self._map("config", np.dtype("u4"))
        self.block_sets = self._array("block_sets")
        self.spilled_blocks = self._map("spilled_blocks", layout.KEY)

    def live_blocks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield all live blocks, as ``layout.BLOCK``, some thousands at a time."""
        for sets in self.block_sets.chunks():
            key = sets["key"]
            yield sets["block"][(key != 0) & (key & layout.BEING_FILLED == 0)]
        yield from self.spilled_blocks.chunks()


class Unwinding(Loaded):
    """Programs that walk stacks of user space."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self._rings: Rings | None = None
        self.frame_rules = self._map("frame_rules", layout.KEY)
        self.epoch = self._map("epoch", np.dtype("u4"), np.dtype("u8"))

    def _go_on_in(self, walker: int) -> None:
        """Let walks go on in that program."""
        program, zero = np.array([walker], np.uint32), np.zeros(1, np.uint32)
        kernel.update(self._maps["walkers"], zero.ctypes.data, program.ctypes.data)

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
    """The programs for the functions of user space. Raises TracerError where bcc makes none."""

    def __init__(self, capacity: Capacity, *, sessions: bool, cache: Cache | None = None) -> None:
        """``sessions``: compile what is attached by uprobe sessions."""
        flags = _flags(capacity, sessions=sessions)
        super().__init__(image_of(MAIN, _PROGRAMS, flags, cache or default_cache()))
        self.mappings = self._map("mappings", layout.KEY)
        self.mapping_ends = self._map("mapping_ends", layout.KEY, np.dtype("u8"))

    def load(self, function: str, attach_type: int) -> int:
        """Load one program for a kind of attachment and return its descriptor, which stays ours.

        ``attach_type`` is a value of ``enum bpf_attach_type``; 0 for perf events. Raises
        TracerError where the kernel's verifier refuses it.
        """
        if function in _WALKING and ("on_walk", attach_type) not in self._loaded:
            self._go_on_in(self._load("on_walk", attach_type))
        return self._load(function, attach_type)

    def live_blocks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield all live blocks and mappings."""
        yield from super().live_blocks()
        yield from self.mappings.chunks()


def common_flags(capacity: Capacity) -> list[str]:
    """Return the compiler's flags that every BPF program needs."""
    return [
        f"-DBLOCK_SETS={capacity.block_sets}",
        f"-DSPILLED_MAX={capacity.spilled}",
        f"-DSTACKS_MAX={capacity.stacks}",
        f"-DEVENTS_PAGES={EVENTS_PAGES}",
        f"-DPAGE_SIZE={os.sysconf('SC_PAGE_SIZE')}ULL",
    ]


def _flags(capacity: Capacity, *, sessions: bool) -> list[str]:
    flags = [*common_flags(capacity), *walking_flags(capacity), f"-DMAPPINGS_MAX={MAPPINGS_MAX}"]
    if sessions:
        flags.append("-DSESSION")
    return flags


def walking_flags(capacity: Capacity) -> list[str]:
    """Return the compiler's flags for the parts that walk stacks of user space."""
    flags = [
        f"-DSHAPES={SHAPES}",
        f"-DTHREADS_MAX={THREADS_MAX}",
        f"-DRULES_MAX={capacity.rules}",
        f"-DQUESTIONS_PAGES={QUESTIONS_PAGES}",
    ]
    if KERNEL_TYPES.exists():
        flags.append("-DTASK_STORAGE")
    return flags


def _made(spec: MapSpec) -> int:
    try:
        return kernel.create_map(spec)
    except OSError as error:
        raise TracerError(
            f"the kernel's map {spec.name} cannot be made: {error.strerror}; "
            "less memory is needed with --max-allocs and --max-stacks",
            exit_code=3,
        ) from None


def _checked(spec: MapSpec) -> np.dtype[Any]:
    layout.check(spec.name, spec.fields, spec.value_size)
    return layout.STRUCTURES[spec.name]


def _refusal(function: str, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"the kernel lets leaktop load no BPF program: {error.strerror}; run it as root"
    return (
        f"this kernel refuses leaktop's BPF program {function}: {error.strerror}\n"
        f"please report it, with the kernel's version ({os.uname().release})"
    )
