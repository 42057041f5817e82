"""Finds the allocators of a process among the files that it maps."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from leaktop.modules import Module
from leaktop.procfs import Mapping
from leaktop.tracer import TracerError
from leaktop.tracer.kept_finds import KeptFinds
from leaktop.tracer.probes import Choice, Traced
from leaktop.tracer.process import NO_TARGET
from leaktop.tracer.target import TargetProcess

_DYNAMIC_LINKERS = ("ld-linux", "ld64", "ld-2.")
"""glibc's, whose malloc serves only its own start; musl's (ld-musl) is the C library itself."""


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
    kept = KeptFinds(choice)
    for mapping, module in process.code_files():
        if not _is_wanted(module, choice) or (known and module.identity in known):
            continue
        progress(f"looking for an allocator in {module.name}")
        find = kept.find(module)
        if find is not None:
            start, end = (0, 0) if process.is_program(mapping) else _extent(mapping)
            found.append(Allocator(module, find.functions, find.skipped, start, end))
    return found


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
