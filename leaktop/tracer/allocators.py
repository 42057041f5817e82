"""Finds the allocators of a process among the files that it maps."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from leaktop.elf import ElfError, ElfFile, FileOffset
from leaktop.modules import Module
from leaktop.procfs import Mapping
from leaktop.tracer import TracerError
from leaktop.tracer.code import Functions
from leaktop.tracer.entry_sites import entry_site, other_sites
from leaktop.tracer.probes import (
    Exit,
    Function,
    Site,
    Traced,
    functions_in,
    is_allocator,
    table,
)
from leaktop.tracer.process import NO_TARGET
from leaktop.tracer.sites import UnclearError, return_sites
from leaktop.tracer.target import TargetProcess

_DYNAMIC_LINKERS = ("ld-linux", "ld64", "ld-2.")
"""glibc's, whose malloc serves only its own start; musl's (ld-musl) is the C library itself."""


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
class Allocator:
    """A file of the target that defines an allocator, and what of it is traced."""

    module: Module
    functions: tuple[Traced, ...]
    skipped: tuple[str, ...]
    """Functions that cannot be traced safely, with the reason."""
    start: int
    """Where its code lies in the target, to tell its own calls; 0..0 where it is the program
    itself, whose calls are everybody's."""
    end: int


def find_allocators(
    process: TargetProcess,
    choice: Choice,
    known: Collection[tuple[object, ...]],
    progress: Callable[[str], None],
) -> list[Allocator]:
    """Return the allocators in files whose identity is not known yet."""
    found = []
    functions = table(choice.prefix)
    names = {function.name for function in functions}
    for mapping, module in process.code_files():
        if module.identity in known or not _is_wanted(module, choice):
            continue
        progress(f"looking for an allocator in {module.name}")
        try:
            elf = module.open_elf()
            there = elf.functions(names)
        except ElfError:
            continue
        if choice.file is not None or is_allocator(there, choice.prefix):
            traced, skipped = _traced(elf, functions, there, choice)
            start, end = (0, 0) if process.is_program(mapping) else _extent(mapping)
            found.append(Allocator(module, traced, skipped, start, end))
    return found


def elsewhere(allocator: Allocator, traced: Traced) -> Iterator[Traced]:
    """Yield how else to trace a function, best first, where the kernel refuses its probes.

    Another tracer may hold an instruction in a way that keeps others off it.
    """
    try:
        described = Functions(allocator.module.open_elf())
        entries = [each.site.entry for each in allocator.functions]
        entry = traced.site.entry
        if traced.site.shift:
            yield replace(traced, site=Site(entry, why="the cheapest place was refused"))
        for site in other_sites(described, entry, traced.function, entries):
            if site.offset != traced.site.offset:
                yield _at(replace(site, why="its entry was refused"), traced, described)
    except (UnclearError, ElfError):
        return


def _at(site: Site, traced: Traced, described: Functions) -> Traced:
    function, exits = traced.function, traced.exits
    if site.pushed and function.exit is Exit.RETURN:
        function = replace(function, exit=Exit.INSTRUCTIONS)
        exits = return_sites(described, site.entry)
    return Traced(function, site, exits)


def require_allocator(process: TargetProcess, choice: Choice, found: list[Allocator]) -> None:
    """Raise TracerError (exit code 4) where there is nothing to trace."""
    if any(allocator.functions for allocator in found):
        return
    why = process.why_over()
    if why:
        raise TracerError(f"process {process.pid} {why} before leaktop could attach", NO_TARGET)
    if choice.file is not None:
        what = (
            f"process {process.pid} ({process.comm}) maps no {choice.file} with functions of an "
            f"allocator; see /proc/{process.pid}/maps for what it maps"
        )
    else:
        named = f"{choice.prefix or ''}malloc and {choice.prefix or ''}free"
        what = (
            f"no allocator ({named}) was found in process {process.pid} ({process.comm}): "
            "it is linked statically and stripped, or names its own otherwise (--symbols-prefix)"
        )
    raise TracerError(what, NO_TARGET)


def _is_wanted(module: Module, choice: Choice) -> bool:
    if choice.file is not None:
        return choice.file in (module.path, module.name)
    return not module.name.startswith(_DYNAMIC_LINKERS)


def _extent(mapping: Mapping) -> tuple[int, int]:
    return mapping.start, mapping.end


def _traced(
    elf: ElfFile,
    functions: Collection[Function],
    there: dict[str, FileOffset],
    choice: Choice,
) -> tuple[tuple[Traced, ...], tuple[str, ...]]:
    traced, skipped = [], []
    described = Functions(elf)
    for function, offset in functions_in(functions, there):
        exits: tuple[FileOffset, ...] = ()
        if function.exit is Exit.INSTRUCTIONS:
            try:
                exits = return_sites(described, offset)
            except (UnclearError, ElfError) as error:
                skipped.append(f"{function.name}: {error}")
                continue
        site = Site(offset, why="--probe-at-entry")
        if not choice.at_entry:
            site = entry_site(described, offset, function, there.values())
        traced.append(Traced(function, site, exits))
    return tuple(traced), tuple(skipped)
