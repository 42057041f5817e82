"""The functions of one mapped file, from all the places that may name them."""

from collections.abc import Callable
from typing import TypeVar

from leaktop import debugfiles
from leaktop.elf import ElfAddress, ElfError, ElfFile, FileOffset
from leaktop.modules import Module
from leaktop.plt import PltStubs
from leaktop.symtab import Symbol

_SYMBOL_BYTES = 32  # that one symbol takes in a table

_Found = TypeVar("_Found")


class Binary:
    """A module's reader: its symbol tables, those of its debug file, and its PLT.

    One part that is damaged costs only what it would have named.
    """

    def __init__(self, module: Module) -> None:
        """Read the tables of a module, names apart. Raises ElfError where it is no ELF file."""
        self._elf = module.open_elf()
        self._tables = [self._elf.symbols()]
        self.problem: str | None = None
        """Why names may be missing, in one line."""
        self.with_lines = module
        """The file that has the lines: the module, or its separate debug file."""
        whole = self._elf.has_symtab
        if not whole or not self._elf.has_debug_information:
            separate = self._part(lambda: debugfiles.find(module, self._elf))
            if separate is not None:
                whole = self._part(lambda: self._take(separate)) or whole
        self._more = 0
        if not whole:
            mini = self._part(lambda: debugfiles.mini_debug_info(self._elf))
            if mini is not None:
                self._part(lambda: self._add(mini))
                self._more = mini.size // _SYMBOL_BYTES
        self._stubs: PltStubs | None = self._part(self._elf.plt)
        self.parts: debugfiles.Parts | None = self._part(lambda: self._find_parts(module))
        """Other files that its lines may go on in."""
        if not any(map(len, self._tables)) and not self.problem:
            self.problem = "no symbols: stripped"

    @property
    def size(self) -> int:
        """How many symbols are held, or could be in the memory that is."""
        return sum(map(len, self._tables)) + len(self._stubs or ()) + self._more

    def address_of(self, offset: FileOffset) -> ElfAddress | None:
        """Return the address that a byte of the module's file is loaded at, None if it is not."""
        return self._elf.address_of(offset)

    def find(self, address: ElfAddress) -> Symbol | None:
        """Return the function that holds an address, None where none is known to.

        Of several the one that starts last, the module's own before its debug file's.
        """
        best = None
        for place in (*self._tables, self._stubs):
            found = place.find(address) if place is not None else None
            if found is not None and found.name and (best is None or found.start > best.start):
                best = found
        return best

    def _take(self, separate: Module) -> bool:
        elf = separate.open_elf()
        if elf.has_debug_information:
            self.with_lines = separate
        if elf.has_symtab:
            self._add(elf)
        return elf.has_symtab

    def _find_parts(self, module: Module) -> debugfiles.Parts | None:
        elf = self._elf if self.with_lines is module else self.with_lines.open_elf()
        return debugfiles.Parts(module, self.with_lines, elf) if elf.may_be_in_parts else None

    def _add(self, elf: ElfFile) -> None:
        self._tables.append(elf.symbols())

    def _part(self, read: Callable[[], _Found]) -> _Found | None:
        try:
            return read()
        except ElfError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = f"cannot be read: {error.strerror}"
        return None
