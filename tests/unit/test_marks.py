"""What has changed since a mark."""

from leaktop.analyze import Rates, Reading, ordered
from leaktop.marks import START, mark_of
from leaktop.model import Counters, Filters, Frame, Site, Snapshot, SortKey, Target


def site(stack_id: int, held: int, count: int) -> Site:
    return Site(stack_id, Counters(held, count), (Frame(1),))


def snapshot(elapsed: float, *sites: Site) -> Snapshot:
    totals = Counters(
        sum(s.counters.bytes for s in sites), sum(s.counters.count for s in sites), 99, 9
    )
    return Snapshot(0, elapsed, Target(1, "t"), Filters(), totals, sites)


GROWN, SHRUNK, STEADY, GONE, NEW, EMPTY = 1, 2, 3, 4, 5, 6
BEFORE = snapshot(
    10.0,
    site(GROWN, 100, 10),
    site(SHRUNK, 500, 5),
    site(STEADY, 40, 4),
    site(GONE, 1000, 1),
    site(EMPTY, 0, 2),
)
AFTER = snapshot(
    20.0,
    site(GROWN, 300, 11),
    site(SHRUNK, 100, 6),
    site(STEADY, 40, 4),
    site(NEW, 70, 7),
    site(EMPTY, 0, 3),
)
CHANGES = {GROWN: (200, 1), SHRUNK: (-400, 1), STEADY: (0, 0), NEW: (70, 7), EMPTY: (0, 1)}


def test_changes_are_those_since_the_mark() -> None:
    mark = mark_of(BEFORE)
    assert mark.elapsed_s == 10.0
    for each in AFTER.sites:
        assert mark.change(each.stack_id, each.counters) == CHANGES[each.stack_id]
        assert (mark.bytes_since(each), mark.count_since(each)) == CHANGES[each.stack_id]
    assert mark.change(GONE, Counters()) == (-1000, -1)


def test_stacks_that_are_gone_count_in_the_total() -> None:
    assert mark_of(BEFORE).total_change(AFTER.totals) == (-1130, 9)
    gone = CHANGES.values()
    assert sum(change[0] for change in gone) - 1000 == -1130


def test_what_grew() -> None:
    mark = mark_of(BEFORE)
    assert [each.stack_id for each in AFTER.sites if mark.grew(each)] == [GROWN, NEW, EMPTY]
    assert [each.stack_id for each in AFTER.sites if START.grew(each)] == [1, 2, 3, NEW, EMPTY]


def test_at_the_start_nothing_was_held() -> None:
    assert START.total_change(AFTER.totals) == (AFTER.totals.bytes, AFTER.totals.count)


def test_the_order_is_that_of_the_changes() -> None:
    reading = Reading(AFTER, Rates(0, 0, 0), {GROWN: 1.0, NEW: 2.0})
    mark = mark_of(BEFORE)

    def ids(key: SortKey, *, reverse: bool = False) -> list[int]:
        return [s.stack_id for s in ordered(reading, key, reverse=reverse, mark=mark)]

    assert ids(SortKey.BYTES) == [GROWN, NEW, STEADY, EMPTY, SHRUNK]
    assert ids(SortKey.BYTES, reverse=True) == [SHRUNK, STEADY, EMPTY, NEW, GROWN]
    assert ids(SortKey.COUNT) == [NEW, GROWN, SHRUNK, EMPTY, STEADY]
    assert ids(SortKey.GROWTH)[:2] == [NEW, GROWN]
