"""How long freed blocks had been held: the kernel's counters, as tuples by stack."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaktop.tracer import layout
from leaktop.tracer.maps import BpfArray

NONE_FREED = (0,) * layout.LIFETIME_BANDS


class Lifetimes:
    """Frees of each stack by band of lifetime.

    Of thousands of stacks most did nothing since the last tick, and keep their tuples.
    """

    def __init__(self, array: BpfArray) -> None:
        """``array``: of ``struct stack_lifetimes`` by number of the stack."""
        self._array = array
        self._before: NDArray[np.int64] = np.zeros((0, layout.LIFETIME_BANDS), np.int64)
        self._fresh = self._before
        self._by_id: dict[int, tuple[int, ...]] = {}

    def read(self, count: int) -> None:
        """Copy what the first ``count`` numbers have; to be called before ``stack_stats`` is read.

        The kernel side counts a free there first, so there are never more frees here than there.
        """
        self._fresh = self._array.entries["frees"][:count].copy()

    def by_id(self, ids: Sequence[int], stats: NDArray[Any]) -> Mapping[int, tuple[int, ...]]:
        """Return all bands by id of the stack, of those that have freed; ``ids`` by number.

        ``stats``: of ``struct stack_stats``, read since. Valid until the next call.
        """
        fresh = self._fresh[: len(ids)]
        fresh[:, 0] = stats["frees"][: len(fresh)] - fresh[:, 1:].sum(axis=1)
        known = min(len(self._before), len(fresh))
        changed = np.any(fresh[:known] != self._before[:known], axis=1)
        numbers = np.concatenate(
            [np.flatnonzero(changed), known + np.flatnonzero(fresh[known:].any(axis=1))]
        )
        rows = zip(numbers.tolist(), map(tuple, fresh[numbers].tolist()), strict=True)
        self._by_id.update((ids[number], row) for number, row in rows)
        self._before = fresh
        return self._by_id

    def close(self) -> None:
        """Let go of the kernel's memory."""
        self._array.close()
