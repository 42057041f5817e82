"""The BPF programs and their maps in the kernel, before anybody reads or writes them.

Imports nothing that takes time, so that they can be on their way while the rest is imported. What
bcc compiled is loaded by bpf(2) itself: else bcc, with all of clang, would have to be there at
every start.
"""

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from leaktop.tracer import TracerError, kernel
from leaktop.tracer.cache import Cache
from leaktop.tracer.image import Image, image_of, program_cache
from leaktop.tracer.kernel import MapSpec

MAIN = "memleak.bpf.c"
_WALK, _REPLACED, _UNMAPPED = ("walkers", 0), ("walkers", 1), ("unmappers", 0)
_GOES_ON = {
    "on_call": {_WALK: "on_walk"},
    "on_mapping": {_WALK: "on_walk", _REPLACED: "on_replaced"},
    "on_unmap": {_UNMAPPED: "on_unmapped"},
}
"""What programs go on in, by map and key: the kernel wants all that share a map loaded for the same
attachment."""
PROGRAMS = {
    "on_mapping": True,
    "on_replaced": True,
    "on_call": True,
    "on_walk": True,
    "on_unmap": False,
    "on_unmapped": False,
    "on_free": False,
}
"""Programs for the functions of user space, and whether they see the ends of calls."""

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


class Objects:
    """Compiled programs with their maps in the kernel; attached to nothing yet.

    Raises TracerError where the maps cannot be made.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self.specs = {spec.name: spec for spec in image.maps}
        self.maps: dict[str, int] = {}
        """Descriptors by name, which stay ours."""
        self._loaded: dict[tuple[str, int], int] = {}
        self._gone_on_in: set[tuple[str, int]] = set()
        try:
            for spec in image.maps:
                self.maps[spec.name] = _made(spec)
        except TracerError:
            self.close()
            raise

    def load(self, function: str, attach_type: int, kind: int = kernel.PROG_TYPE_KPROBE) -> int:
        """Load one program for a kind of attachment and return its descriptor, which stays ours.

        ``attach_type`` is a value of ``enum bpf_attach_type``, 0 for perf events; ``kind`` of
        ``enum bpf_prog_type``. Threads may load at once, each other programs. Raises TracerError
        where the kernel's verifier refuses it.
        """
        loaded = self._loaded.get((function, attach_type))
        if loaded is None:
            program = self._image.programs[function]
            code = kernel.relocate(program.code, list(program.maps), list(self.maps.values()))
            try:
                loaded = kernel.load_program(code, attach_type, function, kind)
            except OSError as error:
                raise TracerError(_refusal(function, error), exit_code=3) from None
            self._loaded[function, attach_type] = loaded
        return loaded

    def load_for_calls(self, function: str, attach_type: int) -> int:
        """Load one of PROGRAMS, and what it goes on in. Raises TracerError."""
        for (name, key), program in _GOES_ON.get(function, {}).items():
            if (program, attach_type) not in self._gone_on_in:
                self.go_on_in(self.load(program, attach_type), name, key)
                self._gone_on_in.add((program, attach_type))
        return self.load(function, attach_type)

    @property
    def loaded(self) -> list[int]:
        """Descriptors of the programs that are loaded."""
        return list(self._loaded.values())

    def go_on_in(self, program: int, name: str = "walkers", key: int = 0) -> None:
        """Let others go on in the program of that descriptor, by a key of a map of programs."""
        at, value = ctypes.c_uint32(key), ctypes.c_uint32(program)
        kernel.update(self.maps[name], ctypes.addressof(at), ctypes.addressof(value))

    def close(self) -> None:
        """Free programs and maps; safe to call twice."""
        for descriptors in (self._loaded, self.maps):
            while descriptors:
                os.close(descriptors.popitem()[1])


def objects_for_calls(capacity: Capacity, *, sessions: bool, cache: Cache | None = None) -> Objects:
    """Return the programs for the functions of user space.

    ``sessions``: as they are attached by uprobe sessions. Raises TracerError where bcc makes none.
    """
    flags = _flags(capacity, sessions=sessions)
    return Objects(image_of(MAIN, tuple(PROGRAMS), flags, cache or program_cache()))


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


def _refusal(function: str, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"the kernel lets leaktop load no BPF program: {error.strerror}; run it as root"
    return (
        f"this kernel refuses leaktop's BPF program {function}: {error.strerror}\n"
        f"please report it, with the kernel's version ({os.uname().release})"
    )
