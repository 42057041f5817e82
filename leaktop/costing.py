"""What exact tracing costs each call of what is traced: measured once somebody should know."""

from collections.abc import Callable

from textual.message import Message

from leaktop.messages import CostMeasured, SnapshotReady
from leaktop.modes import Modes, measure_cost_apart
from leaktop.session import Session

_OFTEN_A_S = 2000
"""Allocations a second from which on it is looked into what tracing costs."""


class Costing:
    """The seconds that exact tracing adds to a call on this host, once they are known."""

    def __init__(self, modes: Modes | None, post: Callable[[Message], object]) -> None:
        """Without ``modes`` it is not measured."""
        self.of_a_call: float | None = None
        self._modes = modes
        self._post = post
        self._measuring = False

    # Only once there is something to be told: until then leaktop leaves itself alone.
    def look_at(self, session: Session, message: SnapshotReady) -> None:
        """Tell a session what is known; have it measured where the target allocates often."""
        if session.opening is None or session.opening.growth:
            return
        session.cost_of_a_call = self.of_a_call
        often = message.reading.rates.allocs_per_s > _OFTEN_A_S
        if self._modes is not None and often and not self._measuring:
            self._measuring = True
            measure_cost_apart(self._modes, self._post)

    def measured(self, message: CostMeasured) -> None:
        """Learn what it is."""
        self.of_a_call = message.seconds
