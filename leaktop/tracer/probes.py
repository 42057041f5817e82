"""Which functions are traced, and how: a table, and what of it a library has."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from leaktop.elf import FileOffset


@dataclass(frozen=True, slots=True)
class Function:
    """One function of an allocator's interface."""

    name: str
    program: str
    """BPF program at its entry (``bpf/memleak.bpf.c``)."""
    returns: bool = True
    """Whether its return is traced: not where the entry says all."""
    required: bool = True
    """Whether failing to probe it ends the run: without it figures would be wrong, not poorer."""


FUNCTIONS = (
    Function("malloc", "on_malloc"),
    Function("calloc", "on_calloc"),
    Function("realloc", "on_realloc"),
    Function("free", "on_free", returns=False),
    Function("mmap", "on_mmap"),
    Function("munmap", "on_munmap", returns=False),
    Function("mremap", "on_mremap"),
    Function("posix_memalign", "on_posix_memalign"),
    Function("memalign", "on_memalign"),
    Function("aligned_alloc", "on_memalign", required=False),
    Function("valloc", "on_malloc", required=False),
    Function("pvalloc", "on_malloc", required=False),
    Function("reallocarray", "on_reallocarray", required=False),
)
"""In order of preference where two names share an address, as memalign and aligned_alloc do."""

RETURN_PROGRAM = "on_return"

NAMES = frozenset(function.name for function in FUNCTIONS)


@dataclass(frozen=True, slots=True)
class Probe:
    """One place to put a BPF program on."""

    function: Function
    offset: FileOffset
    at_return: bool

    @property
    def program(self) -> str:
        """Name of the BPF program."""
        return RETURN_PROGRAM if self.at_return else self.function.program

    def __str__(self) -> str:
        return f"{self.function.name}{' (return)' if self.at_return else ''}"


def functions_in(found: Mapping[str, FileOffset]) -> list[tuple[Function, FileOffset]]:
    """Return the functions to trace of those found, one for each address.

    Probing two names of one address would count each call twice.
    """
    chosen: dict[FileOffset, Function] = {}
    for function in FUNCTIONS:
        if function.name in found:
            chosen.setdefault(found[function.name], function)
    return [(function, offset) for offset, function in chosen.items()]


def is_allocator(found: Mapping[str, FileOffset]) -> bool:
    """Whether these are functions of an allocator, rather than a stray one of the same name."""
    return "malloc" in found and "free" in found


def probes_for(functions: Iterable[tuple[Function, FileOffset]]) -> Iterator[Probe]:
    """Yield the probes: returns first, so that no entry waits for one."""
    functions = list(functions)
    for function, offset in functions:
        if function.returns:
            yield Probe(function, offset, at_return=True)
    for function, offset in functions:
        yield Probe(function, offset, at_return=False)
