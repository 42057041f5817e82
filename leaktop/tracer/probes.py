"""Which functions are traced, and how: a table, and what of it a library has."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from leaktop.elf import FileOffset


class Exit(Enum):
    """How the end of a call is seen."""

    NONE = "none"
    """Not at all: the entry says everything."""
    RETURN = "return"
    """A return probe, for which the kernel changes the call's return address on the stack."""
    INSTRUCTIONS = "ret instructions"
    """Probes on each ``ret``. Dearer, but an exception may pass through: with a changed return
    address it would find no caller and end the process."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of an allocator's interface."""

    name: str
    program: str
    """BPF program at its entry (``bpf/memleak.bpf.c``)."""
    exit: Exit = Exit.RETURN
    required: bool = False
    """Whether failing to probe it ends the run: without it figures would be wrong, not poorer."""


PREFIXES = ("", "je_", "tc_", "mi_")
"""What allocators put before the names of C's functions, where they do not take C's own."""

_C = (
    Function("malloc", "on_malloc", required=True),
    Function("calloc", "on_calloc", required=True),
    Function("realloc", "on_realloc", required=True),
    Function("free", "on_free", Exit.NONE, required=True),
    Function("posix_memalign", "on_posix_memalign", required=True),
    Function("memalign", "on_memalign", required=True),
    Function("aligned_alloc", "on_memalign"),
    Function("valloc", "on_malloc"),
    Function("pvalloc", "on_malloc"),
    Function("reallocarray", "on_reallocarray"),
    Function("cfree", "on_free", Exit.NONE),
    # C23
    Function("free_sized", "on_free", Exit.NONE),
    Function("free_aligned_sized", "on_free", Exit.NONE),
    # jemalloc(3)
    Function("mallocx", "on_malloc"),
    Function("rallocx", "on_realloc"),
    Function("dallocx", "on_free", Exit.NONE),
    Function("sdallocx", "on_free", Exit.NONE),
)
_MAPPINGS = (
    Function("mmap", "on_mmap", required=True),
    Function("munmap", "on_munmap", Exit.NONE, required=True),
    Function("mremap", "on_mremap", required=True),
)
# mimalloc.h, what the table of C's functions has not got
_MIMALLOC = (
    *(
        Function(f"mi_{name}", "on_malloc")
        for name in ("zalloc", "malloc_small", "zalloc_small", "malloc_aligned", "zalloc_aligned")
    ),
    *(
        Function(f"mi_heap_{name}", "on_memalign")  # (heap, size)
        for name in ("malloc", "zalloc", "malloc_small", "malloc_aligned", "zalloc_aligned")
    ),
    Function("mi_mallocn", "on_calloc"),
    Function("mi_calloc_aligned", "on_calloc"),
    Function("mi_realloc_aligned", "on_realloc"),
    Function("mi_reallocn", "on_reallocarray"),
    *(
        Function(f"mi_{name}", "on_free", Exit.NONE)
        for name in ("free_size", "free_size_aligned", "free_aligned")
    ),
)
# C++'s operators (Itanium C++ ABI, 5.1.5). operator new may throw, or its handler may.
_OPERATORS = (
    *(
        Function(name, "on_new", Exit.INSTRUCTIONS)
        for name in ("_Znwm", "_Znam", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t")
    ),
    *(
        Function(f"{name}{aligned}RKSt9nothrow_t", "on_malloc")
        for name in ("_Znwm", "_Znam")
        for aligned in ("", "St11align_val_t")
    ),
    *(
        Function(f"{name}{tail}", "on_free", Exit.NONE)
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

RETURN_PROGRAM = "on_return"


def table(prefix: str | None = None) -> tuple[Function, ...]:
    """Return the functions to look for, in order of preference where names share an address.

    With a prefix C's functions are looked for under that prefix alone, as memleak does.
    """
    prefixes = PREFIXES if prefix is None else (prefix,)
    return (
        *(
            Function(f"{each}{function.name}", function.program, function.exit, function.required)
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

    @property
    def program(self) -> str:
        """Name of the BPF program."""
        return RETURN_PROGRAM if self.at_exit else self.function.program

    @property
    def is_return_probe(self) -> bool:
        """Whether the kernel is to change return addresses for it."""
        return self.at_exit and self.function.exit is Exit.RETURN

    def __str__(self) -> str:
        return f"{self.function.name}{' (return)' if self.at_exit else ''}"


@dataclass(frozen=True, slots=True)
class Traced:
    """A function as a file has it."""

    function: Function
    offset: FileOffset
    exits: tuple[FileOffset, ...] = ()
    """Its ``ret`` instructions, where those are probed."""


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
            Exit.RETURN: (each.offset,),
            Exit.INSTRUCTIONS: each.exits,
        }[each.function.exit]
        for offset in exits:
            yield Probe(each.function, offset, at_exit=True)
    for each in traced:
        yield Probe(each.function, each.offset, at_exit=False)
