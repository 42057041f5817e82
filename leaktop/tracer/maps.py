"""Maps of a loaded program: as numpy values, as memory, or as a ring of records."""

import errno
import mmap
import os
import select
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from leaktop.tracer import TracerError, kernel

_SHARED: Any = {"flags": mmap.MAP_SHARED, "prot": mmap.PROT_READ}
_WINDOW = 1 << 20
"""Bytes of a large array that are mapped at a time."""
BATCH = 16384
"""Entries a batch read asks for at a time: the copy stays near a megabyte."""
_NO_BATCHES = (errno.EINVAL, errno.ENOTSUP, 524)  # 524: ENOTSUPP, the kernel's own
_FIRST_BATCH = 0


class BpfMap:
    """One map of the loaded program, read and written as numpy values.

    The descriptor belongs to the Program; reading after it is closed raises TracerError.
    """

    def __init__(self, fd: int, name: str, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        self._fd = fd
        self._name = name
        self._key = key
        self._value = value
        self._batches = True

    def lookup(self, key: Any) -> np.void | None:
        """Return the value under a key, or None where there is none."""
        keys = np.array([key], self._key)
        values = np.zeros(1, self._value)
        try:
            kernel.lookup(self._fd, keys.ctypes.data, values.ctypes.data)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise self._failed("read", error) from None
        return values[0]  # type: ignore[no-any-return]

    def update(self, key: Any, value: Any) -> None:
        """Set the value under a key, in one map write."""
        keys = np.array([key], self._key)
        values = np.array([value], self._value)
        try:
            kernel.update(self._fd, keys.ctypes.data, values.ctypes.data)
        except OSError as error:
            raise self._failed("written", error) from None

    def delete(self, key: Any) -> None:
        """Take out the entry under a key, if there is one."""
        keys = np.array([key], self._key)
        try:
            kernel.delete(self._fd, keys.ctypes.data)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise self._failed("written", error) from None

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield values until every entry was seen once, some thousands at a time.

        One system call a chunk where the kernel has batch look-ups (kernel commit 057996380a42),
        two an entry elsewhere. The array is used again: copy what is to be kept.
        """
        for _, values in self.entries():
            yield values

    def entries(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Yield keys and values as ``chunks`` yields values alone."""
        if self._batches:
            yield from self._batch_chunks()
        else:
            yield from self._single_chunks()

    def all_keys(self) -> list[Any]:
        """Return every key, in two system calls each: for maps of few entries."""
        key = np.empty(1, self._key)
        return [key[0].item() for _ in self._keys(key)]

    def _batch_chunks(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        size = BATCH
        keys, values = np.empty(size, self._key), np.empty(size, self._value)
        position, following = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
        begin = _FIRST_BATCH
        while True:
            count, reason = kernel.lookup_batch(
                self._fd,
                begin=begin,
                following=following.ctypes.data,
                keys=keys.ctypes.data,
                values=values.ctypes.data,
                count=size,
            )
            if reason == errno.ENOSPC:  # one bucket holds more than was asked for
                size *= 2
                keys, values = np.empty(size, self._key), np.empty(size, self._value)
                continue
            if reason and reason != errno.ENOENT:
                if begin == _FIRST_BATCH and reason in _NO_BATCHES:
                    self._batches = False
                    yield from self._single_chunks()
                    return
                raise self._failed("read", OSError(reason, os.strerror(reason)))
            if count:
                yield keys[:count], values[:count]
            if reason == errno.ENOENT:
                return
            position[0] = following[0]
            begin = position.ctypes.data

    def _single_chunks(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        keys, values = np.empty(BATCH, self._key), np.empty(BATCH, self._value)
        key, value = np.empty(1, self._key), np.empty(1, self._value)
        used = 0
        for _ in self._keys(key):
            try:
                kernel.lookup(self._fd, key.ctypes.data, value.ctypes.data)
            except OSError:
                continue  # an entry that went meanwhile
            keys[used], values[used] = key[0], value[0]
            used += 1
            if used == BATCH:
                yield keys, values
                used = 0
        if used:
            yield keys[:used], values[:used]

    def _keys(self, key: np.ndarray[Any, Any]) -> Iterator[None]:
        # puts each into `key`
        before = 0
        while True:
            try:
                kernel.next_key(self._fd, before, key.ctypes.data)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise self._failed("read", error) from None
            yield
            before = key.ctypes.data

    def _failed(self, verb: str, error: OSError) -> TracerError:
        return TracerError(f"the kernel's map {self._name} cannot be {verb}: {error.strerror}")


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

    def writable_chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield all entries, some thousands at a time, as the map's own memory: no copy."""
        size = self._count * self._value.itemsize
        for start in range(0, size, _WINDOW):
            length = min(_WINDOW, size - start)
            memory = mmap.mmap(self._fd, _in_pages(length), offset=start)
            yield np.frombuffer(memory, self._value, length // self._value.itemsize)

    def set(self, index: int, field: str, value: int) -> None:
        """Set one field of an entry; entries are whole parts of a page."""
        start = index * self._value.itemsize
        page = start - start % mmap.PAGESIZE
        with mmap.mmap(self._fd, mmap.PAGESIZE, offset=page) as memory:
            np.ndarray((), self._value, memory, start - page)[field] = value

    def close(self) -> None:
        """Let go of the memory, once nobody uses ``entries`` any more."""
        self._mapped = None


class RingBuffer:
    """Records that the program submits, in order (Documentation/bpf/ringbuf.rst).

    One thread reads. Positions are 64-bit words that are read and written whole.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._mask = size - 1
        page = mmap.PAGESIZE
        self._ours = mmap.mmap(fd, page)  # how far we are: writable
        # how far the program is, then the records, twice in a row: none is cut by the end
        self._records = mmap.mmap(fd, page + 2 * size, **_SHARED, offset=page)

    def records(self) -> Iterator[bytes]:
        """Yield each record that is there; it is taken with that."""
        position = _WORD.unpack_from(self._ours)[0]
        while position < _WORD.unpack_from(self._records)[0]:
            start = mmap.PAGESIZE + (position & self._mask)
            (header,) = _HEADER.unpack_from(self._records, start)
            if header & _BUSY:
                return
            length = header & ~_DISCARDED
            begin = start + _WORD.size
            record = self._records[begin : begin + length]
            position += _WORD.size + -(-length // _WORD.size) * _WORD.size
            _WORD.pack_into(self._ours, 0, position)
            if not header & _DISCARDED:
                yield record

    def close(self) -> None:
        """Let go of the memory."""
        self._ours.close()
        self._records.close()


class Rings:
    """Ring buffers whose records one thread waits for together."""

    def __init__(self, rings: Mapping[int, RingBuffer]) -> None:
        """``rings``: by descriptor, which stays the caller's."""
        self._rings = rings
        self._woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._any = select.poll()
        for fd in (*rings, self._woken):
            self._any.register(fd, select.POLLIN)

    def poll(self, timeout_s: float) -> Iterator[bytes]:
        """Wait for records, this long at most, and yield all that are there."""
        for fd, _ in self._any.poll(timeout_s * 1000):
            if fd in self._rings:
                yield from self._rings[fd].records()

    def wake(self) -> None:
        """Let ``poll`` return at once, from now on; any thread may call."""
        os.eventfd_write(self._woken, 1)

    def close(self) -> None:
        """Let go of the memory."""
        os.close(self._woken)
        for ring in self._rings.values():
            ring.close()


_WORD = struct.Struct("=Q")
_HEADER = struct.Struct("=I")  # of a record: its length, and BPF_RINGBUF_BUSY_BIT and _DISCARD_BIT
_BUSY, _DISCARDED = 1 << 31, 1 << 30


def _in_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
