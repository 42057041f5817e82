"""The two modes in which one process is traced, exactly or by its growth, and how each is opened.

What takes time runs in threads of its own, and posts what came of it.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from textual.message import Message

from leaktop.candidates import Estimate, Process
from leaktop.messages import CostMeasured, Estimated, OpenFailed, SourceOpened
from leaktop.model import Filters
from leaktop.source import Source, SourceError


@dataclass(frozen=True, slots=True)
class Opening:
    """One process that is to be traced in one mode; each is told apart from all others."""

    process: Process
    growth: bool
    filters: Filters


@dataclass(frozen=True, slots=True)
class Modes:
    """How processes are opened; the functions are only called by worker threads."""

    open_source: Callable[[Opening], Source]
    """Returns a source over this very process, not started. Raises SourceError."""
    estimate: Callable[[Process, threading.Event], Estimate]
    """Returns what exact tracing would cost a process; less exact once the event is set. Takes
    a second. Raises SourceError where it cannot be told."""
    cost_of_a_call: Callable[[], float]
    """Returns the seconds that exact tracing adds to a call. Raises SourceError."""
    process: Process | None = None
    """What is traced from the start; None where that is picked, or has one mode only."""
    growth: bool = False
    """The mode in which it begins."""
    fixed: str = ""
    """Why what is traced from the start has one mode only; empty where it has two."""

    def first(self, limits: Filters) -> Opening | None:
        """Return what is opened from the start; None where that has not two modes."""
        return None if self.process is None else Opening(self.process, self.growth, limits)


def open_apart(modes: Modes, opening: Opening, post: Callable[[Message], object]) -> None:
    """Open a source in a thread of its own; posts ``SourceOpened`` or ``OpenFailed``."""

    def work() -> None:
        try:
            source = modes.open_source(opening)
        except SourceError as error:
            post(OpenFailed(opening, error))
        else:
            if not post(SourceOpened(opening, source)):
                source.close()  # the screen is on its way out

    threading.Thread(target=work, name="leaktop-open", daemon=True).start()


def measure_cost_apart(modes: Modes, post: Callable[[Message], object]) -> None:
    """Measure what a call costs, in a thread of its own; posts ``CostMeasured`` where it can."""

    def work() -> None:
        with contextlib.suppress(SourceError):  # then nothing is said of it
            post(CostMeasured(modes.cost_of_a_call()))

    threading.Thread(target=work, name="leaktop-cost", daemon=True).start()


class Estimating:
    """An estimate under way, in a thread of its own; posts ``Estimated``."""

    def __init__(self, modes: Modes, process: Process, post: Callable[[Message], object]) -> None:
        self.process = process
        self._modes = modes
        self._post = post
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="leaktop-estimate", daemon=True).start()

    def stop(self) -> None:
        """Have it end soon, without waiting; it still posts."""
        self._stop.set()

    def _run(self) -> None:
        estimate = None
        with contextlib.suppress(SourceError):  # what is in its way is in tracing's, which says so
            estimate = self._modes.estimate(self.process, self._stop)
        self._post(Estimated(self, estimate))
