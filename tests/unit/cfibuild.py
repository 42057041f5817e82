"""Tiny .eh_frame and .eh_frame_hdr sections, built in memory."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from leaktop.callframe import CallFrames, table_in_header

HEADER_AT = 0x2000
FRAMES_AT = 0x3000
CODE_AT = 0x1000

# DW_EH_PE_*
ABSOLUTE, UDATA4, UDATA8, SDATA4 = 0x00, 0x03, 0x04, 0x0B
PC_RELATIVE, DATA_RELATIVE = 0x10, 0x30


def uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def sleb(value: int) -> bytes:
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def block(data: bytes) -> bytes:
    return uleb(len(data)) + data


def pointer(value: int, encoding: int, at: int) -> bytes:
    relative, form = encoding & 0x70, encoding & 0x0F
    value -= {PC_RELATIVE: at, DATA_RELATIVE: HEADER_AT}.get(relative, 0)
    if form == 0x01:
        return uleb(value & 2**64 - 1)
    if form == 0x09:
        return sleb(value)
    size = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}[form]
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


@dataclass(frozen=True)
class Common:
    """A common information entry: x86-64's usual one."""

    augmentation: str = "zR"
    code_factor: int = 1
    data_factor: int = -8
    return_register: int = 16
    encoding: int = PC_RELATIVE | SDATA4
    data: bytes | None = None
    """Augmentation data; None: what the letters need."""
    instructions: bytes = bytes((0x0C, 7, 8, 0x80 | 16, 1))  # CFA rsp+8, return address at CFA-8
    version: int = 1

    def encoded(self) -> bytes:
        body = struct.pack("<IB", 0, self.version) + self.augmentation.encode() + b"\0"
        if self.version == 4:
            body += b"\x08\0"
        body += uleb(self.code_factor) + sleb(self.data_factor)
        body += bytes([self.return_register])
        if self.augmentation.startswith("z"):
            data = self.data
            if data is None:
                data = bytes(self.encoding for letter in self.augmentation if letter == "R")
            body += block(data)
        body += self.instructions
        return padded(body)


def padded(body: bytes) -> bytes:
    body += bytes(-(len(body) + 4) % 8)
    return struct.pack("<I", len(body)) + body


@dataclass(frozen=True)
class Function:
    start: int
    size: int
    instructions: bytes = b""
    common: Common = field(default_factory=Common)
    data: bytes = b""


def build(functions: Sequence[Function]) -> tuple[bytes, bytes]:
    """Return (.eh_frame_hdr, .eh_frame)."""
    frames = bytearray()
    commons: dict[Common, int] = {}
    table = []
    for each in functions:
        if each.common not in commons:
            commons[each.common] = len(frames)
            frames += each.common.encoded()
        entry = len(frames)
        encoding = each.common.encoding
        body = struct.pack("<I", entry + 4 - commons[each.common])
        body += pointer(each.start, encoding, FRAMES_AT + entry + 8)
        body += pointer(each.size, encoding & 0x0F, 0)
        if each.common.augmentation.startswith("z"):
            body += block(each.data)
        frames += padded(body + each.instructions)
        table.append((each.start - HEADER_AT, FRAMES_AT + entry - HEADER_AT))
    header = struct.pack("<4B", 1, 0x1B, UDATA4, 0x3B)
    header += struct.pack("<iI", FRAMES_AT - HEADER_AT - 4, len(table))
    for pair in sorted(table):
        header += struct.pack("<ii", *pair)
    return header, bytes(frames) + bytes(4)


def frames_of(header: bytes, section: bytes) -> CallFrames:
    """Open sections that lie at HEADER_AT and FRAMES_AT."""

    def read(address: int, size: int) -> bytes:
        offset = address - FRAMES_AT
        return section[offset : offset + size] if 0 <= offset < len(section) else b""

    return CallFrames(HEADER_AT, table_in_header(HEADER_AT, header), read)
