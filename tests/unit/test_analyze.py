"""Rates, growth, order, text filter and the frame that matters."""

import pytest

from leaktop.analyze import (
    Reading,
    frame_that_matters,
    is_plumbing,
    matches,
    ordered,
)
from leaktop.history import TICKS, History
from leaktop.model import Counters, Filters, Frame, Site, Snapshot, SortKey, Target


def site(stack_id: int, held: int, *, count: int = 1, oldest: float | None = None) -> Site:
    return Site(stack_id, Counters(bytes=held, count=count), (Frame(1),), oldest_s=oldest)


def snapshot(elapsed: float, *sites: Site, allocs: int = 0, frees: int = 0) -> Snapshot:
    held = sum(s.counters.bytes for s in sites)
    return Snapshot(
        time_ns=int(elapsed * 1e9),
        elapsed_s=elapsed,
        target=Target(1, "t"),
        filters=Filters(),
        totals=Counters(held, sum(s.counters.count for s in sites), allocs, frees),
        sites=tuple(sites),
    )


def test_first_snapshot_is_measured_from_the_start() -> None:
    reading = History().add(snapshot(2.0, site(7, 4096), allocs=1000, frees=936))
    assert reading.growth == {7: 2048.0}
    assert reading.rates.allocs_per_s == 500.0
    assert reading.rates.frees_per_s == 468.0
    assert reading.rates.bytes_per_s == 2048.0


def test_first_snapshot_at_the_very_start_has_no_rates() -> None:
    reading = History().add(snapshot(0.0, site(7, 4096), allocs=5))
    assert reading.growth == {7: 0.0}
    assert reading.rates.allocs_per_s == 0.0


def test_rates_are_those_of_the_last_tick() -> None:
    history = History()
    history.add(snapshot(1.0, allocs=10, frees=4))
    reading = history.add(snapshot(3.0, site(1, 100), allocs=30, frees=4))
    assert reading.rates.allocs_per_s == 10.0
    assert reading.rates.frees_per_s == 0.0
    assert reading.rates.bytes_per_s == 50.0


def test_growth_slides_over_ten_seconds() -> None:
    history = History()
    # 1000 bytes in the first second, then 10 a second.
    for second in range(1, 31):
        reading = history.add(snapshot(float(second), site(1, 1000 + 10 * (second - 1))))
        if second == 5:
            assert reading.growth[1] == (1000 + 40) / 5.0
    assert reading.growth[1] == 10.0


def test_growth_of_a_stack_that_came_and_went() -> None:
    history = History()
    history.add(snapshot(1.0, site(1, 100)))
    history.add(snapshot(2.0, site(2, 50)))
    reading = history.add(snapshot(4.0, site(1, 400)))
    assert reading.growth == {1: 100.0}
    assert history.trend_of(1) == [100, 0, 400]
    assert history.trend_of(2) == [0, 50, 0]
    assert history.trend_of(99) == [0, 0, 0]


def test_growth_can_be_negative() -> None:
    history = History()
    for second in range(1, 12):
        reading = history.add(snapshot(float(second), site(1, 10_000 - 100 * second)))
    assert reading.growth[1] == -100.0


def test_trend_is_bounded() -> None:
    history = History()
    assert history.trend() == []
    for tick in range(1, TICKS + 50):
        history.add(snapshot(float(tick), site(1, tick), site(2, 2)))
        assert history.trend()[-1] == tick + 2
        assert list(history.trend_of(1))[-1] == tick
        assert len(history.trend_of(1)) == len(history.trend()) == min(tick, len(history.trend()))
    assert len(history.trend()) == TICKS
    assert history.trend_of(1) == list(range(50, TICKS + 50))


def test_many_stacks_over_many_ticks_keep_their_own_history() -> None:
    history = History()
    for tick in range(1, 2 * TICKS):
        # Ten stacks live for 30 ticks and never come back; one stays.
        group = tick // 30
        sites = [site(1, 5000 + tick)] + [site(100 * group + i, 7 + i) for i in range(2, 12)]
        reading = history.add(snapshot(float(tick), *sites))
        assert set(reading.growth) == {s.stack_id for s in sites}
    assert history.trend_of(1)[-1] == 5000 + 2 * TICKS - 1
    assert reading.growth[1] == 1.0


def test_history_grows_and_reuses_rows() -> None:
    history = History()
    for tick in range(1, 6):
        sites = [site(tick * 10_000 + i, i + 1) for i in range(1000)]
        reading = history.add(snapshot(float(tick), *sites))
    assert len(reading.growth) == 1000
    assert list(history.trend_of(50_999))[-1] == 1000
    assert list(history.trend_of(10_999)) == [1000, 0, 0, 0, 0]


def test_rows_are_bounded_when_stacks_come_and_go_forever() -> None:
    history = History()
    for tick in range(1, 6 * TICKS):
        sites = [site(tick * 100 + i, i + 1) for i in range(20)]
        history.add(snapshot(float(tick), *sites))
    assert history._ring.shape[0] <= 4 * 20 * TICKS


@pytest.fixture
def reading() -> Reading:
    history = History()
    history.add(snapshot(1.0, site(3, 500), site(1, 500), site(2, 100)))
    return history.add(
        snapshot(
            11.0,
            site(3, 500, count=9, oldest=3.0),
            site(1, 500, count=2, oldest=None),
            site(2, 400, count=9, oldest=8.0),
        )
    )


@pytest.mark.parametrize(
    ("key", "reverse", "ids"),
    [
        (SortKey.BYTES, False, [1, 3, 2]),
        (SortKey.BYTES, True, [2, 1, 3]),
        (SortKey.COUNT, False, [2, 3, 1]),
        (SortKey.GROWTH, False, [2, 1, 3]),
        (SortKey.AGE, False, [2, 3, 1]),
        (SortKey.AGE, True, [3, 2, 1]),
    ],
)
def test_order(reading: Reading, key: SortKey, reverse: bool, ids: list[int]) -> None:
    assert [s.stack_id for s in ordered(reading, key, reverse=reverse)] == ids


STACK = (
    Frame(0x10, module="libc.so.6", symbol="strdup"),
    Frame(0x20, module="leaky", symbol="cache_put", file="src/Cache.c", line=12),
    Frame(0x30, module="leaky"),
)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", True),
        ("!", True),
        ("cache", True),
        ("CACHE_PUT", False),
        ("Cache", True),
        ("^cache_put$", True),
        ("libc.so", True),
        ("!libc", False),
        ("!nothing", True),
        ("cache.c:12", True),
        ("0x30", True),
        ("(", False),
        (r"\w+_put", True),
        (r"CACHE\Wput", False),
        (r"cache\Sput", True),
    ],
)
def test_text_filter(pattern: str, found: bool) -> None:
    assert matches(STACK, pattern) is found


def test_a_pattern_that_is_no_regex_is_plain_text() -> None:
    assert matches((Frame(1, symbol="operator new(unsigned long)"),), "new(")
    assert matches((Frame(1, symbol="a[0"),), "[0")


@pytest.mark.parametrize(
    "symbol",
    [
        "malloc",
        "__libc_malloc",
        "je_malloc",
        "xmalloc",
        "g_malloc0",
        "PyMem_RawMalloc",
        "operator new(unsigned long)",
        "operator new[](unsigned long, std::align_val_t)",
        "_Znwm",
        "std::string::_Rep::_S_create(unsigned long)",
        "std::vector<int, std::allocator<int> >::push_back(int&&)",
        "void std::vector<Foo<Bar<int> > >::_M_realloc_insert<Foo<Bar<int> > >(Foo&&)",
        "std::operator<< <std::char_traits<char> >(std::ostream&, char const*)",
        "__gnu_cxx::new_allocator<char>::allocate(unsigned long, void const*)",
    ],
)
def test_plumbing(symbol: str) -> None:
    assert is_plumbing(symbol)


@pytest.mark.parametrize(
    "symbol",
    [
        "main",
        "cache_put",
        "malloc_stats_report",
        "my::std::thing()",
        "make_foo(std::string)",
        "std::unique_ptr<Foo> make_foo(int)",
        "Registry<std::string>::add(std::string const&)",
        "(anonymous namespace)::load(std::vector<int>)",
        "operator newish",
        "Matrix::operator<(Matrix const&)",
        "<" * 5000,
    ],
)
def test_no_plumbing(symbol: str) -> None:
    assert not is_plumbing(symbol)


def test_frame_that_matters() -> None:
    assert frame_that_matters(STACK).symbol == "cache_put"
    assert frame_that_matters(STACK[:1]).symbol == "strdup"
    assert frame_that_matters(STACK[2:]).address == 0x30
    assert frame_that_matters((Frame(5), Frame(6, symbol="f"))).symbol == "f"
    assert frame_that_matters(()) == Frame(0)
