"""Which functions are traced, and how: a table, and what of it a library has."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from leaktop.elf import FileOffset

COOKIE_EXIT = 0x100
"""What tells an exit from an entry: COOKIE_EXIT of ``bpf/memleak.h``."""
COOKIE_PUSHED_SHIFT = 16
"""Where in it the words begin that were pushed by then: the same of ``bpf/memleak.h``."""
COOKIE_SLOT_SHIFT = 32
"""Where the process's slot begins: the same."""


class Exit(Enum):
    """How the end of a call is seen."""

    NONE = "none"
    """Not at all: the entry says everything."""
    RETURN = "return"
    """A return probe, for which the kernel changes the call's return address on the stack."""
    INSTRUCTIONS = "ret instructions"
    """Probes on each ``ret``. Dearer, but an exception may pass through: with a changed return
    address it would find no caller and end the process."""


class Entry(Enum):
    """What the arguments of a function mean: ``enum entry`` of ``bpf/memleak.h``."""

    MALLOC, NEW, MEMALIGN, CALLOC, REALLOC, REALLOCARRAY, POSIX_MEMALIGN, MMAP, MREMAP, MUNMAP = (
        range(10)
    )
    FREE = -1
    """It has a program of its own."""


_PROGRAMS = {
    Entry.FREE: "on_free",
    Entry.MUNMAP: "on_unmap",
    Entry.MMAP: "on_mapping",
    Entry.MREMAP: "on_mapping",
}
"""The BPF program for each kind of function; for all others ``on_call``."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of an allocator's interface."""

    name: str
    entry: Entry
    exit: Exit = Exit.RETURN

    @property
    def allocates(self) -> bool:
        """Whether blocks come from it."""
        return self.exit is not Exit.NONE

    @property
    def effect(self) -> str:
        """What is wrong with the figures where it is not traced."""
        return _EFFECTS.get(self.entry, "what it allocates is not seen")


_EFFECTS = {
    Entry.FREE: "what it frees looks held",
    Entry.NEW: "what it allocates is seen only where it calls malloc",
    Entry.REALLOC: "what it moves looks held where it was, and is not seen where it is",
    Entry.REALLOCARRAY: "what it moves looks held where it was, and is not seen where it is",
    Entry.MMAP: "what it maps is not seen",
    Entry.MREMAP: "what it moves or resizes looks as before",
    Entry.MUNMAP: "what it unmaps looks held",
}

PREFIXES = ("", "je_", "tc_", "mi_")
"""What allocators put before the names of C's functions, where they do not take C's own."""

_C = (
    Function("malloc", Entry.MALLOC),
    Function("calloc", Entry.CALLOC),
    Function("realloc", Entry.REALLOC),
    Function("free", Entry.FREE, Exit.NONE),
    Function("posix_memalign", Entry.POSIX_MEMALIGN),
    Function("memalign", Entry.MEMALIGN),
    Function("aligned_alloc", Entry.MEMALIGN),
    Function("valloc", Entry.MALLOC),
    Function("pvalloc", Entry.MALLOC),
    Function("reallocarray", Entry.REALLOCARRAY),
    Function("cfree", Entry.FREE, Exit.NONE),
    # C23
    Function("free_sized", Entry.FREE, Exit.NONE),
    Function("free_aligned_sized", Entry.FREE, Exit.NONE),
    # jemalloc(3)
    Function("mallocx", Entry.MALLOC),
    Function("rallocx", Entry.REALLOC),
    Function("dallocx", Entry.FREE, Exit.NONE),
    Function("sdallocx", Entry.FREE, Exit.NONE),
)
_MAPPINGS = (
    Function("mmap", Entry.MMAP),
    Function("munmap", Entry.MUNMAP, Exit.NONE),
    Function("mremap", Entry.MREMAP),
)
# mimalloc.h, what the table of C's functions has not got
_MIMALLOC = (
    *(
        Function(f"mi_{name}", Entry.MALLOC)
        for name in ("zalloc", "malloc_small", "zalloc_small", "malloc_aligned", "zalloc_aligned")
    ),
    *(
        Function(f"mi_heap_{name}", Entry.MEMALIGN)  # (heap, size)
        for name in ("malloc", "zalloc", "malloc_small", "malloc_aligned", "zalloc_aligned")
    ),
    Function("mi_mallocn", Entry.CALLOC),
    Function("mi_calloc_aligned", Entry.CALLOC),
    Function("mi_realloc_aligned", Entry.REALLOC),
    Function("mi_reallocn", Entry.REALLOCARRAY),
    *(
        Function(f"mi_{name}", Entry.FREE, Exit.NONE)
        for name in ("free_size", "free_size_aligned", "free_aligned")
    ),
)
# C++'s operators (Itanium C++ ABI, 5.1.5). operator new may throw, or its handler may.
_OPERATORS = (
    *(
        Function(name, Entry.NEW, Exit.INSTRUCTIONS)
        for name in ("_Znwm", "_Znam", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t")
    ),
    *(
        Function(f"{name}{aligned}RKSt9nothrow_t", Entry.MALLOC)
        for name in ("_Znwm", "_Znam")
        for aligned in ("", "St11align_val_t")
    ),
    *(
        Function(f"{name}{tail}", Entry.FREE, Exit.NONE)
        for name in ("_ZdlPv", "_ZdaPv")
        for tail in (
            "",
            "m",
            "St11align_val_t",
            "mSt11align_val_t",
            "RKSt9nothrow_t",
            "St11align_val_tRKSt9nothrow_t",
        )
    ),
)


def table(prefix: str | None = None) -> tuple[Function, ...]:
    """Return the functions to look for, in order of preference where names share an address.

    With a prefix C's functions are looked for under that prefix alone, as memleak does.
    """
    prefixes = PREFIXES if prefix is None else (prefix,)
    return (
        *(
            Function(f"{each}{function.name}", function.entry, function.exit)
            for each in prefixes
            for function in _C
        ),
        *_MAPPINGS,
        *(() if prefix else (*_MIMALLOC, *_OPERATORS)),
    )


@dataclass(frozen=True, slots=True)
class Probe:
    """One place to put a BPF program on."""

    function: Function
    offset: FileOffset
    at_exit: bool
    pushed: int = 0
    """See ``Site``."""

    @property
    def program(self) -> str:
        """Name of the BPF program (``bpf/memleak.bpf.c``)."""
        return _PROGRAMS.get(self.function.entry, "on_call")

    def cookie(self, slot: int) -> int:
        """Return what the program is told of where it runs, in the process of which slot.

        It reads it with bpf_get_attach_cookie (bpf-helpers(7)).
        """
        at_entry = max(self.function.entry.value, 0) | self.pushed << COOKIE_PUSHED_SHIFT
        return (COOKIE_EXIT if self.at_exit else at_entry) | slot << COOKIE_SLOT_SHIFT

    @property
    def is_return_probe(self) -> bool:
        """Whether the kernel is to change return addresses for it."""
        return self.at_exit and self.function.exit is Exit.RETURN


@dataclass(frozen=True, slots=True)
class Site:
    """The instruction that a function's probe is put on."""

    offset: FileOffset
    shift: int = 0
    """Bytes from the function's entry."""
    instruction: str = ""
    why: str = ""
    """Why it is there, where nothing cheaper serves; for people."""
    pushed: int = 0
    """Words that lie on the stack above the return address by then; none is where a return probe
    can be."""

    @property
    def entry(self) -> FileOffset:
        """Where the function begins."""
        return FileOffset(self.offset - self.shift)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to look for."""

    file: str | None = None
    """Only this file's functions, by its path or name as the target maps it (-O)."""
    prefix: str | None = None
    """Only names that begin so (--symbols-prefix)."""
    at_entry: bool = False
    """Probe each function's first instruction (--probe-at-entry)."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A function as a file has it."""

    function: Function
    site: Site
    exits: tuple[FileOffset, ...] = ()
    """Its ``ret`` instructions, where those are probed."""


@dataclass(frozen=True, slots=True)
class Find:
    """What there is to trace in a file that defines an allocator."""

    functions: tuple[Traced, ...]
    skipped: tuple[str, ...]
    """Functions that cannot be traced safely, with the reason."""


def functions_in(
    functions: Iterable[Function], found: Mapping[str, FileOffset]
) -> Iterator[tuple[Function, FileOffset]]:
    """Yield the functions to trace of those found, one for each address.

    Probing two names of one address would count each call twice.
    """
    seen = set()
    for function in functions:
        offset = found.get(function.name)
        if offset is not None and offset not in seen:
            seen.add(offset)
            yield function, offset


def is_allocator(found: Iterable[str], prefix: str | None = None) -> bool:
    """Whether these are functions of an allocator, rather than a stray one of the same name."""
    names = set(found)
    prefixes = PREFIXES if prefix is None else (prefix,)
    return any({f"{each}malloc", f"{each}free"} <= names for each in prefixes)


def probes_for(traced: Iterable[Traced]) -> Iterator[Probe]:
    """Yield the probes: exits first, so that no entry waits for one."""
    traced = list(traced)
    for each in traced:
        exits = {
            Exit.NONE: (),
            Exit.RETURN: (each.site.offset,),
            Exit.INSTRUCTIONS: each.exits,
        }[each.function.exit]
        for offset in exits:
            yield Probe(each.function, offset, at_exit=True)
    for each in traced:
        yield Probe(each.function, each.site.offset, at_exit=False, pushed=each.site.pushed)
