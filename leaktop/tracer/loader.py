"""Compiles and loads the BPF program with bcc, and reads and writes its maps.

The only importer of bcc, and only when a program is loaded.
"""

import contextlib
import ctypes as ct
import errno
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from leaktop.tracer import TracerError, layout

_SHARED: Any = {"flags": mmap.MAP_SHARED, "prot": mmap.PROT_READ}
_WINDOW = 4 << 20
"""Bytes of a large array that are mapped at a time."""

BPF_SOURCE = Path(__file__).resolve().parent.parent / "bpf"
BATCH = 16384
"""Entries a batch read asks for at a time: the copy stays near a megabyte."""

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

QUESTIONS_PAGES = 2048
"""Pages of the ring that questions come through, a power of two: 8 MB, room for 500 of them."""

_PACKAGES = {
    "debian": "apt install python3-bpfcc",
    "ubuntu": "apt install python3-bpfcc",
    "fedora": "dnf install python3-bcc",
    "rhel": "dnf install python3-bcc",
    "centos": "dnf install python3-bcc",
    "arch": "pacman -S python-bcc",
    "opensuse": "zypper install python3-bcc",
    "alpine": "apk add py3-bcc",
}


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


class BpfMap:
    """One map of the loaded program, read and written as numpy values.

    The descriptor belongs to the Program; reading after it is closed raises TracerError.
    """

    def __init__(
        self, lib: Any, fd: int, name: str, key: np.dtype[Any], value: np.dtype[Any]
    ) -> None:
        self._lib = lib
        self._fd = fd
        self._name = name
        self._key = key
        self._value = value
        self._batches = True

    def lookup(self, key: Any) -> np.void | None:
        """Return the value under a key, or None where there is none."""
        keys = np.array([key], self._key)
        values = np.zeros(1, self._value)
        if self._lib.bpf_lookup_elem(self._fd, keys.ctypes.data, values.ctypes.data) == 0:
            return values[0]  # type: ignore[no-any-return]
        if ct.get_errno() != errno.ENOENT:
            raise self._failed("read")
        return None

    def update(self, key: Any, value: Any) -> None:
        """Set the value under a key, in one map write."""
        keys = np.array([key], self._key)
        values = np.array([value], self._value)
        if self._lib.bpf_update_elem(self._fd, keys.ctypes.data, values.ctypes.data, 0) != 0:
            raise self._failed("written")

    def delete(self, key: Any) -> None:
        """Take out the entry under a key, if there is one."""
        keys = np.array([key], self._key)
        self._lib.bpf_delete_elem(self._fd, keys.ctypes.data)

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield values until every entry was seen once, some thousands at a time.

        One system call a chunk where the kernel has batch look-ups (kernel commit 057996380a42),
        two an entry elsewhere. The array is used again: copy what is to be kept.
        """
        if self._batches:
            yield from self._batch_chunks()
        else:
            yield from self._single_chunks()

    def _batch_chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        size = BATCH
        keys, values = np.empty(size, self._key), np.empty(size, self._value)
        position, following = ct.c_uint32(), ct.c_uint32()
        begin: Any = None
        while True:
            count = ct.c_uint32(size)
            failed = self._lib.bpf_lookup_batch(
                self._fd,
                begin,
                ct.byref(following),
                keys.ctypes.data,
                values.ctypes.data,
                ct.byref(count),
            )
            reason = ct.get_errno() if failed else 0
            if reason == errno.ENOSPC:  # one bucket holds more than was asked for
                size *= 2
                keys, values = np.empty(size, self._key), np.empty(size, self._value)
                continue
            if reason and reason != errno.ENOENT:
                if begin is None and reason in (errno.EINVAL, errno.ENOTSUP, 524):
                    self._batches = False
                    yield from self._single_chunks()
                    return
                raise self._failed("read")
            if count.value:
                yield values[: count.value]
            if reason == errno.ENOENT:
                return
            position.value = following.value
            begin = ct.byref(position)

    def _single_chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        values = np.empty(BATCH, self._value)
        key, value = np.empty(1, self._key), np.empty(1, self._value)
        used = 0
        more = self._lib.bpf_get_first_key(self._fd, key.ctypes.data, self._key.itemsize) == 0
        while more:
            # an entry that went meanwhile is passed over
            if self._lib.bpf_lookup_elem(self._fd, key.ctypes.data, value.ctypes.data) == 0:
                values[used] = value[0]
                used += 1
            if used == BATCH:
                yield values
                used = 0
            more = self._lib.bpf_get_next_key(self._fd, key.ctypes.data, key.ctypes.data) == 0
        if used:
            yield values[:used]

    def _failed(self, verb: str) -> TracerError:
        reason = os.strerror(ct.get_errno())
        return TracerError(f"the kernel's map {self._name} cannot be {verb}: {reason}")


class BpfArray:
    """An array of the loaded program, as memory: reading it costs no system call.

    Arrays can be mapped since kernel commit fc9702273e2e.
    """

    def __init__(self, fd: int, value: np.dtype[Any], count: int) -> None:
        self._fd = fd
        self._value = value
        self._count = count
        self._mapped: np.ndarray[Any, Any] | None = None

    @property
    def entries(self) -> np.ndarray[Any, Any]:
        """All entries, as they are at the moment; copy what is to stay as it is."""
        if self._mapped is None:
            memory = mmap.mmap(self._fd, _in_pages(self._count * self._value.itemsize), **_SHARED)
            self._mapped = np.frombuffer(memory, self._value, self._count)
        return self._mapped

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield all entries, some thousands at a time, which are mapped no longer than that.

        So the memory of a large array does not come to be our own.
        """
        size = self._count * self._value.itemsize
        for start in range(0, size, _WINDOW):
            length = min(_WINDOW, size - start)
            with mmap.mmap(self._fd, _in_pages(length), **_SHARED, offset=start) as memory:
                entries = np.frombuffer(memory, self._value, length // self._value.itemsize).copy()
            yield entries

    def close(self) -> None:
        """Let go of the memory, once nobody uses ``entries`` any more."""
        self._mapped = None


def _in_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class Program:
    """The BPF program, compiled and with its maps in the kernel; attached to nothing yet.

    Raises TracerError where bcc is missing, does not compile it, or may not load it.
    """

    def __init__(self, capacity: Capacity, *, sessions: bool) -> None:
        """``sessions``: compile what is attached by uprobe sessions."""
        # always our own headers, so that behaviour does not depend on what the host has
        os.environ["BCC_KERNEL_SOURCE"] = str(BPF_SOURCE / "headers")
        bcc = _import_bcc()
        flags = [
            f"-I{BPF_SOURCE}",
            f"-DBLOCK_SETS={capacity.block_sets}",
            f"-DSPILLED_MAX={capacity.spilled}",
            f"-DSTACKS_MAX={capacity.stacks}",
            f"-DSHAPES={SHAPES}",
            f"-DTHREADS_MAX={THREADS_MAX}",
            f"-DMAPPINGS_MAX={MAPPINGS_MAX}",
            f"-DRULES_MAX={capacity.rules}",
            f"-DQUESTIONS_PAGES={QUESTIONS_PAGES}",
            f"-DPAGE_SIZE={os.sysconf('SC_PAGE_SIZE')}ULL",
        ]
        if sessions:
            flags.append("-DSESSION")
        if KERNEL_TYPES.exists():
            flags.append("-DTASK_STORAGE")
        with _captured_stderr() as said:
            try:
                self._bpf = bcc.BPF(text=_source(), cflags=flags)
            except Exception as error:
                raise TracerError(why_not_compiled(said(), error), exit_code=3) from None
        self._lib = bcc.libbcc.lib
        self._kprobe = bcc.BPF.KPROBE
        self._closed = False
        self.config = self._map("config", np.dtype("u4"))
        self.losses = self._map("losses", np.dtype("u4"), np.dtype("u8"))
        self.block_sets = self._array("block_sets", capacity.block_sets)
        self.spilled_blocks = self._map("spilled_blocks", layout.PLACE)
        self.mappings = self._map("mappings", layout.PLACE)
        self.mapping_ends = self._map("mapping_ends", layout.PLACE, np.dtype("u8"))
        self.stack_stats = self._array("stack_stats", capacity.stacks + 1)
        self.stack_count = self._array("stack_count", 1, np.dtype("u8"))
        self.stacks = self._map("stacks", np.dtype("u4"))
        self.frame_rules = self._map("frame_rules", layout.PLACE)
        self.epoch = self._map("epoch", np.dtype("u4"), np.dtype("u8"))

    def load(self, function: str, attach_type: int) -> int:
        """Load one program for a kind of attachment and return its descriptor, which stays ours.

        ``attach_type`` is a value of ``enum bpf_attach_type``; 0 for perf events. Raises OSError
        where the kernel refuses.
        """
        name = function.encode()
        with _captured_stderr():
            try:
                loaded = self._bpf.load_func(
                    name, self._kprobe, attach_type=attach_type if attach_type else -1
                )
            except Exception:
                reason = ct.get_errno() or errno.EINVAL
                raise OSError(reason, os.strerror(reason), function) from None
        return int(loaded.fd)

    def open_questions(self, answer: Callable[[bytes], None]) -> None:
        """Call ``answer`` with each ``struct question`` that ``poll_questions`` finds."""

        def on_question(_context: object, data: int, size: int) -> int:
            answer(ct.string_at(data, size))
            return 0

        self._bpf[b"questions"].open_ring_buffer(on_question)

    def poll_questions(self, timeout_s: float) -> None:
        """Wait for questions, this long at most, and take all that are there."""
        self._bpf.ring_buffer_poll(int(timeout_s * 1000))

    def close(self) -> None:
        """Free programs and maps; safe to call twice."""
        if not self._closed:
            self._closed = True
            self.stack_stats.close()
            self.stack_count.close()
            self._bpf.cleanup()

    def _map(self, name: str, key: np.dtype[Any], value: np.dtype[Any] | None = None) -> BpfMap:
        table = self._bpf[name.encode()]
        return BpfMap(self._lib, table.map_fd, name, key, value or _checked(name, table))

    def _array(self, name: str, count: int, value: np.dtype[Any] | None = None) -> BpfArray:
        table = self._bpf[name.encode()]
        return BpfArray(table.map_fd, value or _checked(name, table), count)


def _checked(name: str, table: Any) -> np.dtype[Any]:
    layout.check(name, [field[0] for field in table.Leaf._fields_], ct.sizeof(table.Leaf))
    return layout.STRUCTURES[name]


def _source() -> str:
    # bcc rewrites map operations in the main file only, so its parts are put together here
    main = (BPF_SOURCE / "memleak.bpf.c").read_text()
    for part in BPF_SOURCE.glob("*.bpf.h"):
        line = f'#include "{part.name}"\n'
        before, _, after = main.partition(line)
        resume = before.count("\n") + 2
        main = (
            f'{before}#line 1 "{part.name}"\n{part.read_text()}\n'
            f'#line {resume} "memleak.bpf.c"\n{after}'
        )
    return f'#line 1 "memleak.bpf.c"\n{main}'


def _import_bcc() -> ModuleType:
    try:
        import bcc  # noqa: PLC0415  (with clang it takes a noticeable part of a second)
    except (ImportError, OSError):  # OSError: libbcc.so, which it loads, is missing
        raise TracerError(
            "the Python module bcc cannot be imported; it comes from your distribution: "
            f"{package_hint(_os_release())}\n"
            "(PyPI's bcc is another project; a virtual environment must be made with "
            "--system-site-packages)",
            exit_code=3,
        ) from None
    if not hasattr(bcc, "BPF"):
        raise TracerError(
            "the Python module bcc is PyPI's project of that name, not the BPF Compiler "
            f"Collection; remove it (pip uninstall bcc), then: {package_hint(_os_release())}",
            exit_code=3,
        )
    module: ModuleType = bcc
    return module


def _os_release() -> str:
    with contextlib.suppress(OSError):
        return Path("/etc/os-release").read_text(errors="replace")
    return ""


def package_hint(os_release: str) -> str:
    """Return how to install bcc on the distribution that an os-release(5) text describes."""
    fields = dict(line.partition("=")[::2] for line in os_release.splitlines())
    like = " ".join(fields.get(name, "").strip("\"'") for name in ("ID", "ID_LIKE"))
    known = next((name for name in like.split() if name in _PACKAGES), None)
    return _PACKAGES[known] if known else "package python3-bpfcc, python3-bcc or python-bcc"


def why_not_compiled(said: str, error: Exception) -> str:
    """Return, in two lines, what clang or the kernel said first and what to look at."""
    lines = [line.strip() for line in said.splitlines()]
    first = next((line for line in lines if "error" in line.lower()), None)
    first = first or next(filter(None, lines), str(error))
    return (
        f"bcc cannot compile leaktop's BPF program: {first}\n"
        "is the kernel built with BPF, and bcc's package whole and of 0.22 or later?"
    )


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Any]:
    """Keep what native code writes to descriptor 2; yields a function that returns it."""
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)

        def said() -> str:
            kept.seek(0)
            return kept.read(65536).decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
