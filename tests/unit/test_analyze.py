"""Rates, growth, order, text filter and the frame that matters."""

import pytest

from leaktop.analyze import (
    Reading,
    frame_that_matters,
    is_plumbing,
    matches,
    ordered,
)
from leaktop.history import History
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
