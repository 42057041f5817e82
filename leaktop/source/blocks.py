"""A recording as a file: a signature, a version, and compressed blocks that each can be checked.

Integers are little-endian. The file begins with ``SIGNATURE``, a major and a minor version (u16
each); then come blocks: their size (u32), their CRC-32 (u32, zlib's, over all that follows), their
kind (u8), for ``Kind.TICK`` a ``Tick``, and a JSON document compressed by zlib (RFC 1950). Blocks
are only ever appended, each by one write, so whatever ends the writer, the blocks before are whole.

Who reads believes nothing: sizes are bounded before anything is read or inflated.
"""

import json
import os
import stat
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from leaktop.source import SourceError
from leaktop.source.timeline import Tick

SIGNATURE = b"\x89leaktop\r\n\x1a\n"
"""As PNG's, it shows what a transfer as text, or to seven bits, has done."""
MAJOR, MINOR = 1, 0
"""Another major version cannot be read by this code; a later minor one only says more."""
TEXT_MAX = 32 << 20
"""Bytes of a block's document."""
TICKS_MAX = 2_000_000
"""Snapshots in a recording: 23 days at one a second."""

_START = struct.Struct("<12sHH")
_HEAD = struct.Struct("<IIB")
_CHECKED = _HEAD.size - 1  # the CRC begins with the kind
_TICK = struct.Struct("<QdqqIB")
_BLOCK_MAX = TEXT_MAX + 4096
_BLOCKS_MAX = 4 * TICKS_MAX
_LONGEST_S = 1e10


class RecordingError(SourceError):
    """A recording cannot be written or read; the text says why and what to do next."""


class Kind(IntEnum):
    """What a block is."""

    HEADER = 0
    """The first one: who was recorded, by whom."""
    KEY = 1
    """Facts, and all that blocks before it say does not count for those behind it."""
    FACTS = 2
    """What snapshots refer to, and what is known beside them."""
    ROWS = 3
    """A part of the stacks of the next snapshot."""
    TICK = 4
    """The rest of a snapshot."""
    END = 5
    """The last one: why the recording ends."""


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block's document lies in the file."""

    kind: Kind
    offset: int
    size: int


def packed(kind: Kind, document: object, tick: Tick | None = None) -> bytes:
    """Return a block as it is in the file."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(text) > TEXT_MAX:
        raise RecordingError("a snapshot is too large to be recorded")
    body = bytes([kind])
    if tick is not None:
        body += _TICK.pack(
            tick.time_ns, tick.elapsed_s, tick.bytes, tick.lost, tick.sites, tick.gone
        )
    body += zlib.compress(text)
    return struct.pack("<II", len(body) - 1, zlib.crc32(body)) + body


class BlockWriter:
    """Appends blocks to a file, ``limit`` bytes in all at most."""

    def __init__(self, path: Path, stream: BinaryIO, limit: int) -> None:
        """Own ``stream``, a new file at ``path``. Raises RecordingError."""
        self.path = path
        self.size = 0
        self._limit = limit
        self._stream = stream
        try:
            self._append(_START.pack(SIGNATURE, MAJOR, MINOR))
        except OSError as error:
            self.discard()
            raise RecordingError(f"{path} cannot be written: {_why(error)}") from None

    def append(self, block: bytes, spare: int = 0) -> bool:
        """Append a block, unless less than ``spare`` bytes of the limit would be left.

        Returns whether it was. Raises RecordingError where the file takes no more; then it ends
        with the block before.
        """
        if self.size + len(block) + spare > self._limit:
            return False
        try:
            self._append(block)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._stream.fileno(), self.size)
            raise RecordingError(f"{self.path} takes no more: {_why(error)}") from None
        return True

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._stream.fileno(), view) :]
        self.size += len(data)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def discard(self) -> None:
        """Close the file and remove it: nothing was recorded."""
        self.close()
        with suppress(OSError):
            self.path.unlink()


class BlockReader:
    """The blocks of a file that are whole, up to the first that is not.

    ``blocks`` and ``ticks`` are in the file's order; ``damage`` says what is wrong behind them, and
    ``broken`` whether it is more than that there is nothing.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and check all of it; its documents are read when they are asked for.

        Raises RecordingError where not even the header can be read.
        """
        self.path = path
        self.blocks: list[Block] = []
        self.ticks: list[Tick] = []
        self.damage: str | None = None
        self.broken = False
        try:
            # a FIFO or a device must not hold us up
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            self._file = os.fdopen(descriptor, "rb")
        except (OSError, ValueError) as error:
            raise RecordingError(f"{path} cannot be read: {_why(error)}") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RecordingError(f"{path} is no file")
            self._check_start()
            self._scan()
            if not self.blocks or self.blocks[0].kind is not Kind.HEADER:
                raise RecordingError(f"{path} is damaged from its first block on")
        except OSError as error:
            self._file.close()
            raise RecordingError(f"{path} cannot be read: {_why(error)}") from None
        except RecordingError:
            self._file.close()
            raise

    def document(self, block: Block) -> tuple[Any, int]:
        """Return what a block says, and how many bytes that is. Raises RecordingError."""
        try:
            self._file.seek(block.offset)
            inflater = zlib.decompressobj()
            text = inflater.decompress(self._file.read(block.size), TEXT_MAX)
            if not inflater.eof:
                raise ValueError
            return json.loads(text, parse_constant=_no_constant), len(text)
        except (OSError, zlib.error, ValueError, RecursionError):
            # its CRC is right: somebody has put it together so
            raise RecordingError(f"{self.path} has a block that nothing can be made of") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_start(self) -> None:
        start = self._file.read(_START.size)
        if len(start) < _START.size or start[: len(SIGNATURE)] != SIGNATURE:
            raise RecordingError(f"{self.path} is no recording of leaktop")
        _, major, minor = _START.unpack(start)
        if major > MAJOR:
            raise RecordingError(
                f"{self.path} is of version {major}.{minor}, and this leaktop reads up to "
                f"{MAJOR}.x: replay it with a newer leaktop"
            )
        if major < MAJOR:
            raise RecordingError(f"{self.path} is of version {major}.{minor}, which never was")

    def _scan(self) -> None:
        while True:
            at = self._file.tell()
            head = self._file.read(_HEAD.size)
            if not head and self.blocks and self.blocks[-1].kind is Kind.END:
                return
            if len(head) < _HEAD.size:
                self.damage = "it was cut off, or is still being written"
                return
            size, crc, kind = _HEAD.unpack(head)
            body = self._file.read(size) if size <= _BLOCK_MAX else b""
            if size > _BLOCK_MAX or (len(body) == size and not _is_whole(head, body, crc)):
                self.damage, self.broken = f"it is damaged at byte {at}", True
                return
            if len(body) < size:
                self.damage = "it was cut off"
                return
            if not self._take(kind, at + _HEAD.size, body):
                self.damage = f"it has what no recording has, at byte {at}"
                self.broken = True
                return

    def _take(self, number: int, offset: int, body: bytes) -> bool:
        if number not in set(Kind):
            return True  # of a later minor version
        kind, skipped = Kind(number), 0
        if kind is Kind.TICK:
            skipped = _TICK.size
            if len(body) < skipped or (tick := _sane_tick(body)) is None:
                return False
            self.ticks.append(tick)
        if (kind is Kind.HEADER) is bool(self.blocks):
            return False
        self.blocks.append(Block(kind, offset + skipped, len(body) - skipped))
        return len(self.blocks) < _BLOCKS_MAX and len(self.ticks) < TICKS_MAX


def _sane_tick(body: bytes) -> Tick | None:
    time_ns, elapsed_s, held, lost, sites, gone = _TICK.unpack_from(body)
    # also false where it is no number
    if not 0 <= elapsed_s <= _LONGEST_S:
        return None
    return Tick(time_ns, elapsed_s, held, lost, sites, bool(gone))


def _is_whole(head: bytes, body: bytes, crc: int) -> bool:
    return zlib.crc32(body, zlib.crc32(head[_CHECKED:])) == crc


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
