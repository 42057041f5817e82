"""What hangs on one of the processes that are traced: its probes, its settings, how far it is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from leaktop.model import Filters, Target, TracedLibrary, Tracing
from leaktop.tracer import TracerError, layout
from leaktop.tracer.allocators import (
    Allocator,
    find_allocators,
    require_allocator,
)
from leaktop.tracer.attach import Attached, Attacher, Place, attach_functions
from leaktop.tracer.kernel_types import changed_return
from leaktop.tracer.loader import Program
from leaktop.tracer.objects import MAPPINGS_MAX
from leaktop.tracer.probes import Choice, Traced
from leaktop.tracer.process import NO_TARGET
from leaktop.tracer.target import TargetProcess


class Attachment:
    """One process, under the slot that the BPF program knows it by.

    It is found, attached, configured to follow calls and then to count them; afterwards ``check``
    belongs to every tick.
    """

    def __init__(self, process: TargetProcess, slot: int, choice: Choice) -> None:
        self.process = process
        self.slot = slot
        self.tracing = Tracing()
        """What of it is traced by now."""
        self.over: str | None = None
        """Why it can no longer be traced, in words."""
        self._choice = choice
        self._attached = Attached()
        self._allocators: list[Allocator] = []
        self._searched = 0
        self._phase = 0
        self._trampoline = 0
        self._changed_return = (0, 0, 0, 0)

    def find(self, progress: Callable[[str], None]) -> None:
        """Look for what can be traced. Raises TracerError where there is nothing."""
        self.process.refresh()
        self._allocators = find_allocators(self.process, self._choice, (), progress)
        require_allocator(self.process, self._choice, self._allocators)

    def attach(self, attacher: Attacher, progress: Callable[[str], None]) -> None:
        """Put the probes on. Raises TracerError where none that sees blocks come can be."""
        gone = TracerError(
            f"process {self.process.pid} exited while leaktop was attaching", NO_TARGET
        )
        try:
            allocates = self._attach(attacher, self._allocators, progress)
        except TracerError:
            if self.process.why_over():
                raise gone from None
            raise
        if self.process.why_over():
            raise gone
        if not allocates:
            raise TracerError(_nothing_attached(self.tracing), exit_code=3)

    def follow(self, program: Program, filters: Filters) -> None:
        """Let calls be followed only, so that their stacks' rules come in."""
        self._configure(program, filters, layout.PHASE_FOLLOW)

    def count(self, program: Program, filters: Filters) -> None:
        """Let blocks count from now on."""
        self.process.refresh()
        self._trampoline = self.process.trampoline
        self._hold_older_mappings(program)
        self._configure(program, filters, layout.PHASE_COUNT)

    def apply(self, program: Program, filters: Filters) -> None:
        """Use other filters for allocations from now on."""
        if self.over is None:
            self._configure(program, filters, self._phase)

    def check(
        self, program: Program, filters: Filters, attacher: Attacher, *, called: bool
    ) -> None:
        """Notice that the process has ended, or has mapped code that is to be traced.

        ``called``: whether any traced function has been called in any process.
        """
        if self.over is not None:
            return
        self.over = self.process.why_over()
        if self.over is not None:
            self._attached.let_go()
            return
        self._attach_to_new_code(program, filters, attacher)
        if not self._trampoline and called:
            self.process.refresh()
            self._trampoline = self.process.trampoline
            if self._trampoline:
                self._configure(program, filters, self._phase)

    @property
    def name(self) -> Target:
        """The process, without what has to be asked of the kernel."""
        return Target(self.process.pid, self.process.comm, alive=self.over is None)

    @property
    def target(self) -> Target:
        """The process as it is now."""
        return replace(self.name, rss=None if self.over else self.process.resident())

    def detach(self) -> None:
        """Take the probes off; safe to call twice."""
        self._attached.close()

    def close(self) -> None:
        """Detach, and let go of the process and of its files."""
        self._attached.close()
        self.process.close()

    def _attach(
        self, attacher: Attacher, allocators: Iterable[Allocator], progress: Callable[[str], None]
    ) -> bool:
        # returns whether any function that blocks come from is traced
        allocates = False
        for allocator in allocators:
            count, name = len(allocator.functions), allocator.module.name
            progress(f"attaching to {count} functions in {name}")
            # through the open file, so that no other can have taken its path meanwhile
            path = f"/proc/self/fd/{allocator.module.fileno()}"
            functions = attach_functions(
                partial(attacher.attach, path, Place(self.process.pid, self.slot)),
                allocator.functions,
                partial(_elsewhere, allocator),
                self._attached,
                all_at_once=attacher.all_at_once,
            )
            allocates = allocates or any(
                traced.function.allocates and not done.refused
                for traced, done in zip(allocator.functions, functions, strict=True)
            )
            library = TracedLibrary(name, functions, allocator.skipped)
            if self._attached.returns_at_ret:
                self._changed_return = changed_return() or self._changed_return
            self.tracing = replace(self.tracing, libraries=(*self.tracing.libraries, library))
        return allocates

    def _hold_older_mappings(self, program: Program) -> None:
        """Let the kernel side know what is mapped already, so that its munmap is no loss."""
        for mapping in self.process.mappings[: MAPPINGS_MAX // 2]:
            size = mapping.end - mapping.start
            start = layout.key_of(self.slot, mapping.start)
            program.mappings.update(start, (size, 0, layout.STACK_UNFILED, 0, 0, 0))
            program.mapping_ends.update(layout.key_of(self.slot, mapping.end), mapping.start)

    def _attach_to_new_code(self, program: Program, filters: Filters, attacher: Attacher) -> None:
        # allocators that the target has mapped since (dlopen)
        searched, self._searched = self._searched, self.process.code_version
        if searched == self._searched:
            return
        known = {allocator.module.identity for allocator in self._allocators}
        new = find_allocators(self.process, self._choice, known, lambda step: None)
        if new:
            self._allocators += new
            try:
                self._attach(attacher, new, lambda step: None)
            except TracerError:
                self.over = self.process.why_over()
                if self.over is None:
                    raise
            self._configure(program, filters, self._phase)

    def _configure(self, program: Program, filters: Filters, phase: int) -> None:
        self._phase = phase
        config = np.zeros((), layout.CONFIG)
        config["phase"] = phase
        config["min_size"] = filters.min_size
        config["max_size"] = filters.max_size
        config["sample_rate"] = filters.sample_rate
        config["trampoline"] = self._trampoline
        for name, offset in zip(layout.CHANGED_RETURN, self._changed_return, strict=True):
            config[name] = offset
        libraries = [allocator for allocator in self._allocators if allocator.end]
        for i, allocator in enumerate(libraries[: layout.ALLOCATORS_MAX]):
            config["allocators"][i] = (allocator.start, allocator.end)
        program.config.update(self.slot, config)


def _elsewhere(allocator: Allocator, traced: Traced) -> Iterator[Traced]:
    from leaktop.tracer.look import elsewhere  # noqa: PLC0415  (hardly ever wanted: see KeptFinds)

    return elsewhere(allocator.module, allocator.functions, traced)


def _nothing_attached(tracing: Tracing) -> str:
    first = tracing.refusals[0]
    return (
        f"the kernel refuses every function that allocates, {first.function} in {first.library} "
        f"since: {first.reason}; end other tracers of the process, and try again"
    )
