"""Layouts of the tables in an ELF file, for numpy: System V ABI, chapters 4 and 5 (elf(5))."""

import numpy as np


def section_dtype(order: str, *, wide: bool) -> np.dtype[np.void]:
    """Return the layout of Elf64_Shdr (``wide``) or Elf32_Shdr; ``order`` is ``<`` or ``>``."""
    word = order + ("u8" if wide else "u4")
    return np.dtype(
        [
            ("name", order + "u4"),
            ("type", order + "u4"),
            ("flags", word),
            ("addr", word),
            ("offset", word),
            ("size", word),
            ("link", order + "u4"),
            ("info", order + "u4"),
            ("align", word),
            ("entsize", word),
        ]
    )


def relocation_dtype(order: str) -> np.dtype[np.void]:
    """Return the layout of Elf64_Rela."""
    return np.dtype([("at", order + "u8"), ("info", order + "u8"), ("addend", order + "i8")])


def segment_dtype(order: str, *, wide: bool) -> np.dtype[np.void]:
    """Return the layout of Elf64_Phdr (``wide``) or Elf32_Phdr."""
    word = order + ("u8" if wide else "u4")
    flags = ("flags", order + "u4")
    addresses = [("offset", word), ("vaddr", word), ("paddr", word), ("filesz", word)]
    sizes = [("memsz", word), ("align", word)]
    first = ("type", order + "u4")
    if wide:
        return np.dtype([first, flags, *addresses, *sizes])
    return np.dtype([first, *addresses, sizes[0], flags, sizes[1]])
