"""What an ELF file says of itself, typed and bounded; the only importer of elftools.

Files are the target's and so hostile: every count, offset and size is checked against the file
and against a limit before it is used, and whatever is wrong with a file is an ``ElfError``.
pyelftools reads the header and the notes; the tables (sections, segments, symbols, relocations)
are read whole as numpy arrays, because one Python object a symbol costs seconds on a large program.
It is imported with the first file that is read: a start that finds all it needs kept reads none.

Format: System V ABI, chapters 4 and 5 (elf(5)); GNU version sections: LSB Core, 10.7.
"""

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from leaktop.headers import relocation_dtype, section_dtype, segment_dtype
from leaktop.plt import SECTIONS as PLT_SECTIONS
from leaktop.plt import PltStubs, Slots, StubCode
from leaktop.symtab import (
    ElfAddress,
    Entries,
    FileOffset,
    RawTable,
    Strings,
    Symbol,
    SymbolTable,
    symbol_dtype,
)

__all__ = ["ElfAddress", "ElfError", "ElfFile", "FileOffset", "Symbol", "SymbolTable"]

_MAX_SECTIONS = 65536
_MAX_SEGMENTS = 4096
_MAX_SYMBOLS = 4_000_000
_MAX_NOTES = 64 << 10
_MAX_BUILD_ID = 64
_MAX_EH_FRAME_HEADER = 64 << 20  # 8 million functions
_MAX_EH_FRAME = 64 << 20
_MAX_SECTION_NAMES = 4 << 20
_MAX_STUBS = 4 << 20  # bytes of one section of stubs
_MAX_RELOCATIONS = 2_000_000

_PT_LOAD, _PT_NOTE, _PT_GNU_EH_FRAME = 1, 4, 0x6474E550
_PF_X = 1
_SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA, _SHT_NOTE, _SHT_NOBITS, _SHT_DYNSYM = 2, 3, 4, 7, 8, 11
_SHT_GNU_VERSYM = 0x6FFFFFFF
_SHF_EXECINSTR = 4
_SHN_XINDEX = 0xFFFF
_VERSYM_HIDDEN = 0x8000


class ElfError(Exception):
    """A file is no ELF file, is damaged, or is larger than leaktop reads; the text says which."""


class _Load(NamedTuple):
    # a PT_LOAD segment: what of the file comes where in memory
    offset: int
    address: int
    size: int


class ElfFile:
    """One ELF file, read as it is asked for.

    Not safe for use by two threads at once: they would share the stream's position.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Read the header from a seekable stream, which stays open as long as this is used.

        Raises ElfError.
        """
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415  (see the top)

        self._stream = stream
        with _elf_errors():
            self._file = ELFFile(stream)
            self._length = stream.seek(0, io.SEEK_END)
            self.byte_order: Literal["little", "big"] = (
                "little" if self._file.little_endian else "big"
            )
            """As ``int.from_bytes`` takes it."""
            self._order = "<" if self._file.little_endian else ">"
            self._wide = self._file.elfclass == 64  # noqa: PLR2004
            self.machine = str(self._file["e_machine"])
            """Architecture, as elf.h names it: ``EM_X86_64``."""
            self._segments = self._read_segments()

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._length

    @cached_property
    def build_id(self) -> str | None:
        """The NT_GNU_BUILD_ID note in hexadecimal; None without one. Raises ElfError."""
        with _elf_errors():
            segments = self._segments[self._segments["type"] == _PT_NOTE]
            ranges = [(int(each["offset"]), int(each["filesz"])) for each in segments]
            if not ranges:
                notes = self._sections[self._sections["type"] == _SHT_NOTE]
                ranges = [(int(each["offset"]), int(each["size"])) for each in notes]
            for offset, size in ranges[:16]:
                found = self._build_id_at(offset, size)
                if found:
                    return found
        return None

    def address_of(self, offset: FileOffset) -> ElfAddress | None:
        """Return the address that a byte of the file is loaded at, None where it is not loaded.

        Code wins where segments share a byte of the file.
        """
        for load in self._loads:
            if 0 <= offset - load.offset < load.size and offset < self._length:
                return ElfAddress(offset - load.offset + load.address)
        return None

    def offset_of(self, address: ElfAddress) -> FileOffset | None:
        """Return where in the file the byte of an address is, None where it is in none (.bss)."""
        for load in self._loads:
            if 0 <= address - load.address < load.size:
                offset = FileOffset(address - load.address + load.offset)
                return offset if offset < self._length else None
        return None

    def read_at(self, address: ElfAddress, size: int) -> bytes:
        """Return what the file holds of ``size`` bytes at an address: fewer at a segment's end.

        Raises ElfError.
        """
        for load in self._loads:
            if 0 <= address - load.address < load.size:
                with _elf_errors():
                    size = min(size, load.address + load.size - address)
                    return self._read_some(address - load.address + load.offset, size)
        return b""

    def eh_frame_header(self) -> tuple[ElfAddress, bytes] | None:
        """Return address and bytes of .eh_frame_hdr (PT_GNU_EH_FRAME), None without one.

        Raises ElfError.
        """
        with _elf_errors():
            for each in self._segments[self._segments["type"] == _PT_GNU_EH_FRAME]:
                size = min(int(each["filesz"]), _MAX_EH_FRAME_HEADER)
                return ElfAddress(int(each["vaddr"])), self._read(int(each["offset"]), size)
        return None

    def eh_frame(self) -> tuple[ElfAddress, bytes] | None:
        """Return address and bytes of .eh_frame, None without one. Raises ElfError."""
        with _elf_errors():
            for each in self._named(".eh_frame"):
                if each["type"] != _SHT_NOBITS and each["size"] <= _MAX_EH_FRAME:
                    data = self._read(int(each["offset"]), int(each["size"]))
                    return ElfAddress(int(each["addr"])), data
        return None

    def symbols(self) -> SymbolTable:
        """Return the functions of .symtab and .dynsym; empty where stripped of both.

        Raises ElfError.
        """
        with _elf_errors():
            sections = self._sections
            code = np.append(sections["flags"] & _SHF_EXECINSTR != 0, False)
            top = np.uint64(2**63)
            ends = np.minimum(sections["addr"], top) + np.minimum(sections["size"], top)
            unknown = np.uint64(0)
            return SymbolTable(self._symbol_tables, code, np.append(ends, unknown))

    def functions(self, names: Collection[str]) -> dict[str, FileOffset]:
        """Return where in the file functions of exact names start, to put probes on.

        Only what other files may call: defined, not local. A plain name means the default
        version; .dynsym wins over .symtab. Indirect functions (STT_GNU_IFUNC) and names that are
        not there are left out. Raises ElfError.
        """
        wanted = {name.encode(): name for name in names}
        found: dict[bytes, ElfAddress | None] = {}
        with _elf_errors():
            for table in self._symbol_tables:
                found = table.defined(wanted) | found
        starts = {wanted[raw]: self.offset_of(at) for raw, at in found.items() if at is not None}
        return {name: offset for name, offset in starts.items() if offset is not None}

    @property
    def has_symtab(self) -> bool:
        """Whether the file has its whole symbol table, not only what it exports.

        Raises ElfError.
        """
        with _elf_errors():
            return bool(np.any(self._sections["type"] == _SHT_SYMTAB))

    @property
    def has_debug_information(self) -> bool:
        """Whether the file carries DWARF of its own. Raises ElfError."""
        with _elf_errors():
            names = (".debug_info", ".zdebug_info")
            return any(each["type"] != _SHT_NOBITS for each in self._named(*names))

    @property
    def may_be_in_parts(self) -> bool:
        """Whether more debug information may be in other files: split DWARF (5, 7.3.2), or dwz.

        Raises ElfError.
        """
        with _elf_errors():
            return bool(len(self._named(".debug_addr", ".zdebug_addr", ".gnu_debugaltlink")))

    def section(self, name: str, limit: int) -> bytes | None:
        """Return the bytes of a section as they are in the file, None without such a section.

        Raises ElfError, also where there are more than ``limit`` bytes.
        """
        with _elf_errors():
            for each in self._named(name):
                if each["type"] != _SHT_NOBITS:
                    if each["size"] > limit:
                        raise ElfError(f"{name} is larger than leaktop reads")
                    return self._read(int(each["offset"]), int(each["size"]))
        return None

    def plt(self) -> PltStubs:
        """Return the stubs that calls into other files go through. Raises ElfError."""
        with _elf_errors():
            code = [
                StubCode(
                    ElfAddress(int(each["addr"])),
                    self._read(int(each["offset"]), int(each["size"])),
                    int(each["entsize"]),
                )
                for each in self._named(*PLT_SECTIONS)
                if each["type"] != _SHT_NOBITS and each["size"] <= _MAX_STUBS
            ]
            return PltStubs(self.machine, code, self._slots() if code and self._wide else [])

    def _slots(self) -> list[Slots]:
        kinds, tables = self._sections["type"], self._symbol_tables
        dynamic = np.flatnonzero(kinds == _SHT_DYNSYM)[:1]
        if not len(dynamic):
            return []
        symbols = tables[0]
        slots = []
        for index in np.flatnonzero((kinds == _SHT_RELA) & (self._sections["link"] == dynamic[0])):
            dtype = relocation_dtype(self._order)
            table = self._table(self._sections[index], dtype, _MAX_RELOCATIONS)
            of_symbol = table["info"] >> np.uint64(32)
            table = table[(of_symbol > 0) & (of_symbol < len(symbols.entries))]
            names = symbols.entries["name"][(table["info"] >> np.uint64(32)).astype(np.intp)]
            slots.append(
                Slots(table["at"].astype(np.uint64), names.astype(np.uint32), symbols.strings)
            )
        return slots

    def _named(self, *names: str) -> npt.NDArray[np.void]:
        # the sections of these names
        index = int(self._file["e_shstrndx"])
        sections = self._sections
        if index == _SHN_XINDEX and len(sections):
            index = int(sections[0]["link"])
        if not index:
            return sections[:0]
        strings = self._strings(index)
        if strings.size > _MAX_SECTION_NAMES:
            raise ElfError("too many section names")
        places = strings.places([name.encode() for name in names])
        return sections[np.isin(sections["name"], np.fromiter(places, np.uint32, len(places)))]

    @cached_property
    def _loads(self) -> list[_Load]:
        # code first
        segments = self._segments[self._segments["type"] == _PT_LOAD]
        order = np.argsort(segments["flags"] & _PF_X == 0, kind="stable")
        return [
            _Load(int(each["offset"]), int(each["vaddr"]), int(each["filesz"]))
            for each in segments[order]
        ]

    @cached_property
    def _symbol_tables(self) -> list[RawTable]:
        # .dynsym first: only it knows versions
        kinds = self._sections["type"]
        tables = []
        for kind in (_SHT_DYNSYM, _SHT_SYMTAB):
            for index in np.flatnonzero(kinds == kind)[:1].tolist():
                section = self._sections[index]
                entries = self._table(
                    section, symbol_dtype(wide=self._wide, order=self._order), _MAX_SYMBOLS
                )
                tables.append(
                    RawTable(
                        entries,
                        self._strings(int(section["link"])),
                        self._default_versions(index, len(entries)),
                    )
                )
        return tables

    def _strings(self, index: int) -> Strings:
        if not index < len(self._sections) or self._sections[index]["type"] != _SHT_STRTAB:
            raise ElfError("symbol table without names")
        section = self._sections[index]
        offset, size = int(section["offset"]), int(section["size"])
        if offset + size > self._length:
            raise ElfError("symbol names lie outside the file")
        return Strings(self._read_some, offset, size)

    def _default_versions(self, symbol_section: int, count: int) -> npt.NDArray[np.bool_]:
        sections = self._sections
        of_table = (sections["type"] == _SHT_GNU_VERSYM) & (sections["link"] == symbol_section)
        default = np.ones(count, dtype=np.bool_)
        for index in np.flatnonzero(of_table)[:1].tolist():
            versions = self._table(
                sections[index], np.dtype([("v", self._order + "u2")]), _MAX_SYMBOLS
            )
            known = min(count, len(versions))
            default[:known] = versions["v"][:known] & _VERSYM_HIDDEN == 0
        return default

    @cached_property
    def _sections(self) -> npt.NDArray[np.void]:
        count = self._file.num_sections()
        dtype = section_dtype(self._order, wide=self._wide)
        return self._headers("sh", count, dtype, _MAX_SECTIONS)

    def _read_segments(self) -> npt.NDArray[np.void]:
        count = self._file.num_segments() if self._file["e_phoff"] else 0
        dtype = segment_dtype(self._order, wide=self._wide)
        return self._headers("ph", count, dtype, _MAX_SEGMENTS)

    def _headers(
        self, kind: str, count: int, dtype: np.dtype[np.void], limit: int
    ) -> npt.NDArray[np.void]:
        # kind is "sh" for sections, "ph" for segments, as in e_shoff
        start, step = self._file[f"e_{kind}off"], self._file[f"e_{kind}entsize"]
        if not count:
            return np.empty(0, dtype)
        if count > limit or step != dtype.itemsize:
            raise ElfError(f"{count} {kind}dr entries of {step} bytes")
        return np.frombuffer(self._read(start, count * step), dtype)

    def _table(self, section: np.void, dtype: np.dtype[np.void], limit: int) -> Entries:
        count = int(section["size"]) // dtype.itemsize
        if section["type"] == _SHT_NOBITS:
            count = 0
        if count > limit:
            raise ElfError(f"table of {count} entries; leaktop reads {limit}")
        return np.frombuffer(self._read(int(section["offset"]), count * dtype.itemsize), dtype)

    def _build_id_at(self, offset: int, size: int) -> str | None:
        from elftools.elf.notes import iter_notes  # noqa: PLC0415  (see the top)

        if size > _MAX_NOTES:
            return None
        data = self._read(offset, size)
        # pyelftools reads notes off a file: give it one that holds no more than these
        notes = _NotesOnly(io.BytesIO(data), self._file.structs)
        for note in iter_notes(notes, 0, size):  # type: ignore[arg-type]
            if note["n_type"] == "NT_GNU_BUILD_ID" and note["n_name"] == "GNU":
                raw = bytes(note["n_descdata"])
                return raw.hex() if 0 < len(raw) <= _MAX_BUILD_ID else None
        return None

    def _read(self, offset: int, size: int) -> bytes:
        if not 0 <= offset <= offset + size <= self._length:
            raise ElfError(f"{size} bytes at {offset} lie outside the file: cut short or damaged")
        data = self._read_some(offset, size)
        if len(data) < size:
            raise ElfError("the file became shorter while it was read")
        return data

    def _read_some(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        return self._stream.read(size)


class _NotesOnly:
    # the part of ELFFile that iter_notes uses

    def __init__(self, stream: BinaryIO, structs: Any) -> None:
        self.stream = stream
        self.structs = structs
        self.elfclass = structs.elfclass


@contextmanager
def _elf_errors() -> Iterator[None]:
    # pyelftools lets all kinds through: construct's own, KeyError, AssertionError, RecursionError…
    try:
        yield
    except ElfError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ElfError(f"no readable ELF file: {text or type(error).__name__}") from error
