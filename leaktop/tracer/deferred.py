"""A source over a process that is looked for at once, and traced by what is imported later.

The tracer's libraries take longer to import than the screen takes to appear.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from leaktop.model import KERNEL, CodeMapping, Frame, Target
from leaktop.source import Source
from leaktop.source.relayed import RelayedSource
from leaktop.tracer import TracerError
from leaktop.tracer.process import NO_TARGET, Process


class DeferredSource(RelayedSource):
    """A Source (see ``leaktop.source``) that is made when it starts, in the thread that starts it.

    Raises TracerError at once where there is no such process.
    """

    def __init__(
        self, pids: Sequence[int], make: Callable[[], Source], *, kernel: bool = False
    ) -> None:
        """``make`` returns a source over the processes, or raises SourceError.

        ``kernel``: over the kernel's work, for these processes or, without any, for all.
        """
        self._processes = [Process(pid, kernel_threads=kernel) for pid in pids]
        self._make = make
        self._source: Source | None = None

    @property
    def target(self) -> Target:
        """The first process, as it was when leaktop looked first."""
        if not self._processes:
            return KERNEL
        return Target(pid=self._processes[0].pid, comm=self._processes[0].comm)

    @property
    def end_descriptor(self) -> int | None:
        """Becomes readable when the process exits (pidfd_open(2))."""
        if self._source is None:
            return self._processes[0].end_descriptor if self._processes else None
        return self._source.end_descriptor

    def start(self, progress: Callable[[str], None]) -> None:
        """Make the source and start it."""
        progress("loading the tracer")
        self._source = self._make()
        # as long as a process is held and there, its PID is no other's
        for process in self._processes:
            if process.why_over() is not None:
                raise TracerError(
                    f"process {process.pid} exited before leaktop could attach",
                    exit_code=NO_TARGET,
                )
        self._source.start(progress)

    def resolve(self, stack_ids: Iterable[int], *, lines: bool) -> Mapping[int, tuple[Frame, ...]]:
        """See Source."""
        return {} if self._source is None else self._source.resolve(stack_ids, lines=lines)

    def problems(self) -> Mapping[str, str]:
        """See Source."""
        return {} if self._source is None else self._source.problems()

    def mappings(self) -> Sequence[CodeMapping]:
        """See Source."""
        return () if self._source is None else self._source.mappings()

    def close(self) -> None:
        """See Source."""
        if self._source is not None:
            self._source.close()
        for process in self._processes:
            process.close()

    @property
    def _relayed(self) -> Source:
        if self._source is None:
            raise TracerError("tracing has not begun")
        return self._source
