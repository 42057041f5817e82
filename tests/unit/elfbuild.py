"""Tiny ELF files, built in memory: 64-bit little-endian, one code segment, any symbols."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

CODE_OFFSET = 0x1000
CODE_ADDRESS = 0x401000
CODE_SIZE = 0x1000

NOTYPE, OBJECT, FUNC, IFUNC = 0, 1, 2, 10
LOCAL, GLOBAL, WEAK = 0, 1, 2
TEXT = 1
"""Index of the code section."""


@dataclass(frozen=True)
class Sym:
    name: str
    value: int
    size: int = 0
    kind: int = FUNC
    binding: int = GLOBAL
    section: int = TEXT
    version: int = 2
    """Of a dynamic symbol; 0x8000 hides it from plain names."""


def build(
    symtab: Sequence[Sym] | None = None,
    dynsym: Sequence[Sym] | None = None,
    build_id: bytes | None = None,
) -> bytes:
    """Return a whole file; its symbol values are addresses from CODE_ADDRESS on."""
    body = bytearray(CODE_OFFSET + CODE_SIZE)
    sections = [(b"", 0, 0, 0, 0, 0, 0, 0)]  # name, type, flags, addr, offset, size, link, entsize
    sections.append((b".text", 1, 6, CODE_ADDRESS, CODE_OFFSET, CODE_SIZE, 0, 0))

    def add(
        name: bytes, kind: int, data: bytes, link: int = 0, entsize: int = 0
    ) -> tuple[int, int]:
        body.extend(bytes(-len(body) % 8))
        sections.append((name, kind, 0, 0, len(body), len(data), link, entsize))
        body.extend(data)
        return sections[-1][4], len(data)

    def add_symbols(names: tuple[bytes, bytes], kind: int, symbols: Sequence[Sym]) -> int:
        strings = bytearray(1)
        entries = bytearray(24)
        for each in symbols:
            info = each.binding << 4 | each.kind
            entries += struct.pack(
                "<IBBHQQ", len(strings), info, 0, each.section, each.value, each.size
            )
            strings += each.name.encode() + b"\0"
        add(names[1], 3, bytes(strings))
        add(names[0], kind, bytes(entries), len(sections) - 1, 24)
        return len(sections) - 1

    segments = [(1, 5, CODE_OFFSET, CODE_ADDRESS, CODE_SIZE)]
    if build_id is not None:
        padded = build_id + bytes(-len(build_id) % 4)
        note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + padded
        offset, size = add(b".note.gnu.build-id", 7, note)
        segments.append((4, 4, offset, 0, size))
    if symtab is not None:
        add_symbols((b".symtab", b".strtab"), 2, symtab)
    if dynsym is not None:
        table = add_symbols((b".dynsym", b".dynstr"), 11, dynsym)
        versions = struct.pack(f"<{len(dynsym) + 1}H", 0, *(each.version for each in dynsym))
        add(b".gnu.version", 0x6FFFFFFF, versions, table, 2)

    names = b"\0".join(section[0] for section in sections) + b"\0.shstrtab\0"
    add(b".shstrtab", 3, names)
    body.extend(bytes(-len(body) % 8))
    section_offset = len(body)
    for name, kind, flags, address, offset, size, link, entsize in sections:
        at = names.index(name + b"\0") if name else 0
        body += struct.pack(
            "<IIQQQQIIQQ", at, kind, flags, address, offset, size, link, 0, 8, entsize
        )
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQI", 3, 62, 1, CODE_ADDRESS, 64, section_offset, 0)
    header += struct.pack("<6H", 64, 56, len(segments), 64, len(sections), len(sections) - 1)
    for kind, flags, offset, address, size in segments:
        header += struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, 8)
    body[: len(header)] = header
    return bytes(body)
