"""Records of the event ring against what they say."""

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leaktop.single_blocks import Event, EventKind
from leaktop.tracer import layout
from leaktop.tracer.events import events_of

MINUTE = 60 * 10**9

records = st.lists(
    st.tuples(
        st.integers(0, 2**47 - 1),
        st.integers(0, 2**63),
        st.integers(0, 2**22),
        st.integers(0, 9),
        st.integers(1, 1000),
        st.sampled_from(list(EventKind)),
        st.integers(1, 5),
    )
)


@given(records)
def test_events_say_what_their_records_say(given_records: list[tuple[int, ...]]) -> None:
    array = np.zeros(len(given_records), layout.EVENT)
    expected = []
    before = time.time_ns()
    for i, (address, size, thread, stack, weight, kind, slot) in enumerate(given_records):
        key = layout.key_of(slot, address)
        number = list(EventKind).index(kind)  # type: ignore[arg-type]
        array[i] = (time.monotonic_ns(), key, size, thread, stack, weight, number)
        pid = {1: 100, 2: 200}.get(slot)
        stack_id = None if stack == 9 else stack * 1000
        expected.append(
            Event(0, kind, address, size, pid, thread, stack_id, weight)  # type: ignore[arg-type]
        )
    events = events_of(
        array.tobytes(), lambda number: None if number == 9 else number * 1000, {1: 100, 2: 200}
    )
    assert [
        Event(0, e.kind, e.address, e.size, e.pid, e.thread, e.stack_id, e.weight) for e in events
    ] == expected
    # on the wall clock, which may be set meanwhile, but hardly by a minute
    assert all(abs(event.time_ns - before) < MINUTE for event in events)
