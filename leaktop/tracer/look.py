"""Looks a file through for an allocator's functions, and for the places to put their probes."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from leaktop.elf import ElfError, ElfFile, FileOffset
from leaktop.modules import Module
from leaktop.tracer.code import Functions
from leaktop.tracer.entry_sites import entry_site, other_sites
from leaktop.tracer.probes import (
    Choice,
    Exit,
    Find,
    Function,
    Site,
    Traced,
    functions_in,
    is_allocator,
    table,
)
from leaktop.tracer.sites import UnclearError, return_sites


def find_in(module: Module, choice: Choice) -> Find | None:
    """Return what there is to trace in a file; None where it defines no allocator.

    Raises ElfError.
    """
    functions = table(choice.prefix)
    elf = module.open_elf()
    there = elf.functions({function.name for function in functions})
    if choice.file is None and not is_allocator(there, choice.prefix):
        return None
    return traced_in(elf, functions, there, choice)


def elsewhere(module: Module, functions: Collection[Traced], traced: Traced) -> Iterator[Traced]:
    """Yield how else to trace a function, best first, where the kernel refuses its probes.

    Another tracer may hold an instruction in a way that keeps others off it. ``functions``: all
    that are traced in the file.
    """
    try:
        described = Functions(module.open_elf())
        entries = [each.site.entry for each in functions]
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


def traced_in(
    elf: ElfFile,
    functions: Collection[Function],
    there: dict[str, FileOffset],
    choice: Choice,
) -> Find:
    """Return where to put the probes of functions, given where in the file each name is."""
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
    return Find(tuple(traced), tuple(skipped))
