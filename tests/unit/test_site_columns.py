"""Which columns of the table of stacks are shown."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from leaktop.model import Counters, Site, SortKey, Target
from leaktop.widgets.site_columns import COLUMNS, MEDIUM, WIDE, Rows, chosen

SITE = Site(7, Counters(4096, 3, 10, 7, 2), (), oldest_s=61.0, oldest_exact=False, pid=42)
BLOCKS = Rows([SITE], growth={7: 2048.0}, suspicion={7: 0.55})
PAGES = replace(BLOCKS, pages=True)
SEVERAL = replace(BLOCKS, processes={42: Target(42, "leaky"), 43: Target(43, "other")})


def titles(rows: Rows, width: int, wanted: tuple[str, ...] = ()) -> list[str]:
    return [each.column.title for each in chosen(rows, width, wanted)]


def figures(rows: Rows, width: int) -> list[str]:
    return [each.figure(rows, SITE) for each in chosen(rows, width)]


def test_a_wide_table_has_more_columns() -> None:
    narrow = ["BYTES", "BLOCKS", "GROWTH/s", "OLDEST", "SUSPECT"]
    assert titles(BLOCKS, WIDE - 1) == narrow
    assert titles(BLOCKS, MEDIUM - 1) == narrow[:-1]
    assert titles(BLOCKS, WIDE) == [*narrow, "ALLOCS", "FREES"]
    assert figures(BLOCKS, WIDE) == ["4.00K", "3", "+2.00K", "≤1m01s", "! 0.6", "10", "7"]


def test_growth_mode_has_pages_and_no_ages() -> None:
    assert titles(PAGES, WIDE - 1) == ["BYTES", "PAGES", "GROWTH/s", "CALLS"]
    assert titles(PAGES, WIDE) == ["BYTES", "PAGES", "GROWTH/s", "CALLS", "FAULTS"]
    assert figures(PAGES, WIDE) == ["4.00K", "3", "+2.00K", "2", "10"]


def test_of_several_processes_each_row_says_whose_it_is() -> None:
    assert titles(SEVERAL, 80)[-1] == "PID"
    assert titles(SEVERAL, WIDE)[-1] == "PROCESS"
    assert figures(SEVERAL, 80)[-1] == "42"
    assert figures(SEVERAL, WIDE)[-1] == "leaky 42"
    gone = replace(SEVERAL, processes={42: Target(42, "leaky", alive=False)})
    assert figures(gone, 80)[-1] == "†42"
    assert figures(replace(SEVERAL, processes={43: Target(43, "x")}), WIDE)[-1] == "-"


def test_wanted_columns_come_in_the_order_wished_for() -> None:
    assert titles(BLOCKS, 80, ("frees", "growth", "bytes")) == ["FREES", "GROWTH/s", "BYTES"]
    assert titles(SEVERAL, 80, ("process", "bytes")) == ["PID", "BYTES"]
    assert titles(SEVERAL, WIDE, ("process", "bytes")) == ["PROCESS", "BYTES"]


def test_wanted_columns_that_say_nothing_here_are_left_out() -> None:
    assert titles(PAGES, 80, ("oldest", "blocks", "calls", "process")) == ["PAGES", "CALLS"]
    assert titles(BLOCKS, 80, ("calls", "process", "blocks")) == ["BLOCKS"]


def test_what_does_not_fit_is_left_out_from_the_right() -> None:
    wanted = ("allocs", "frees", "oldest", "growth", "blocks", "bytes")
    assert titles(BLOCKS, 80, wanted) == ["ALLOCS", "FREES", "OLDEST", "GROWTH/s", "BLOCKS"]
    assert titles(BLOCKS, 60, wanted) == ["ALLOCS", "FREES", "OLDEST"]
    assert titles(BLOCKS, 20, wanted) == []


NAMES = sorted({each.name for each in COLUMNS})


@given(
    st.sampled_from([BLOCKS, PAGES, SEVERAL]),
    st.integers(0, 300),
    st.lists(st.sampled_from(NAMES), unique=True),
)
def test_a_column_is_shown_once_at_most(rows: Rows, width: int, wanted: list[str]) -> None:
    shown = [each.name for each in chosen(rows, width, wanted)]
    assert len(set(shown)) == len(shown)


@given(st.sampled_from([BLOCKS, PAGES, SEVERAL]), st.sampled_from([80, WIDE]))
def test_a_sort_key_has_one_column_at_most(rows: Rows, width: int) -> None:
    keys = [each.column.key for each in chosen(rows, width) if each.column.key]
    assert len(set(keys)) == len(keys)
    assert all(isinstance(key, SortKey) for key in keys)
