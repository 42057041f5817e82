"""Patterns of stacks that the user does not want to see."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.ignore import (
    FRAMES_MAX,
    NOTHING_IGNORED,
    TEXT_MAX,
    Entry,
    Ignored,
    IgnoreList,
    Sieve,
    entry_for,
)
from leaktop.model import Counters, Frame, Site


def stack(*calls: str) -> tuple[Frame, ...]:
    """Return frames of ``module!symbol``; without a symbol they have no name."""
    frames = []
    for i, call in enumerate(calls):
        module, _, symbol = call.partition("!")
        frames.append(Frame(0x1000 + i, module or None, symbol or None, 4))
    return tuple(frames)


def matches(pattern: list[str], *calls: str) -> bool:
    return IgnoreList([Entry(tuple(pattern))]).find(stack(*calls)) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        ["app!put", "app!serve", "app!main"],
        ["app!put"],
        ["put"],
        ["*!put"],
        ["a*!p?t", "*"],
        ["...", "app!main"],
        ["app!put", "...", "main"],
        ["...", "serve", "..."],
        ["...", "...", "serve", "...", "...", "main", "...", "..."],
        ["...", "*", "main"],
        ["..."],
        [],
    ],
)
def test_what_matches(pattern: list[str]) -> None:
    assert matches(pattern, "app!put", "app!serve", "app!main")


@pytest.mark.parametrize(
    "pattern",
    [
        ["app!serve"],
        ["lib!put"],
        ["app!pu"],
        ["app!Put"],
        ["app!put", "main"],
        ["app!put", "serve", "main", "*"],
        ["...", "main", "..", "serve"],
        ["...", "main", "...", "serve"],
        ["...", "put", "put"],
        ["...", "main", "main"],
        ["app!?"],
        [""],
    ],
)
def test_what_does_not(pattern: list[str]) -> None:
    assert not matches(pattern, "app!put", "app!serve", "app!main")


def test_an_ellipsis_takes_more_where_less_leads_nowhere() -> None:
    calls = ("m!a", "m!b", "m!a", "m!b", "m!c")
    assert matches(["...", "a", "b", "c"], *calls)
    assert not matches(["...", "a", "c"], *calls)
    assert matches(["a", "...", "b", "c"], *calls)


def test_names_match_with_parameters_or_without() -> None:
    call = "lib.so!std::string ns::Registry<int>::intern(char const*) const [clone .isra.0]"
    assert matches(["lib.so!ns::Registry<int>::intern"], call)
    assert matches([call], call)
    assert matches(["*intern*"], call)


def test_brackets_are_no_sets() -> None:
    assert matches(["[heap]!operator new[](unsigned long)"], "[heap]!operator new[](unsigned long)")
    assert not matches(["*!fo[ol]"], "m!foo")


def test_a_frame_without_a_name_only_matches_a_star() -> None:
    assert matches(["lib.so!*", "main"], "lib.so", "app!main")
    assert matches(["...", "main"], "lib.so", "app!main")
    assert not matches(["lib.so!?*"], "lib.so")
    assert not matches(["lib.so!?"], "lib.so")


def test_without_frames_nothing_matches() -> None:
    assert not matches(["..."])
    assert IgnoreList([Entry(("*",))]).find(()) is None


def test_inlined_calls_are_passed_over() -> None:
    frames = (Frame(1, "app", "inner", inlined=True), *stack("app!outer", "app!main"))
    assert IgnoreList([Entry(("outer", "main"))]).find(frames)


def test_the_first_entry_that_matches_is_found() -> None:
    first, second = Entry(("...", "main"), "by main"), Entry(("put",), "by put")
    found = IgnoreList([Entry(("none",)), first, second]).find(stack("app!put", "app!main"))
    assert found is first
    assert (first.label, Entry(("a", "b!c", "...")).label) == ("by main", "b!c")


FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(0, 2**64 - 1),
        st.none() | st.text(max_size=8) | st.sampled_from(["libc-2.36.so", "lib.so.1.2", "a!b"]),
        st.none() | st.text(max_size=30) | st.sampled_from(["operator!=(a)", "f[abi:x]", "g(*)"]),
        inlined=st.booleans(),
    ),
    max_size=12,
)


@given(FRAMES)
def test_the_entry_of_a_stack_matches_it(frames: list[Frame]) -> None:
    entry = entry_for(frames)
    if entry is not None:
        assert IgnoreList([entry]).find(frames) == entry
        assert all(each.encode().decode().isprintable() or each for each in entry.stack)


PATTERNS = st.lists(
    st.sampled_from(["...", "a", "b", "c", "*", "m!a", "?", "x!a", "m!*"]), max_size=8
)


def plainly(pattern: list[str], calls: list[str]) -> bool:
    """Match by trying everything."""
    if not pattern:
        return True
    if pattern[0] == "...":
        return any(plainly(pattern[1:], calls[i:]) for i in range(len(calls) + 1))
    if not calls:
        return False
    name = pattern[0].removeprefix("m!")
    return name in (calls[0], "*", "?") and plainly(pattern[1:], calls[1:])


@given(PATTERNS, st.lists(st.sampled_from("abc"), min_size=1, max_size=10))
def test_it_finds_what_trying_everything_finds(pattern: list[str], calls: list[str]) -> None:
    assert matches(pattern, *(f"m!{call}" for call in calls)) == plainly(pattern, calls)


def test_no_pattern_takes_long() -> None:
    frames = stack(*["m!" + "a" * 4000] * 127)
    stars = "*a" * (TEXT_MAX // 2 - 1) + "*b"
    entries = [
        Entry((*["...", "*a"] * (FRAMES_MAX // 2 - 1), "b")),
        Entry(("...", *["*a"] * (FRAMES_MAX - 2), "b")),
        Entry((stars,)),
        Entry(("...", stars)),
    ]
    began = time.process_time()
    assert IgnoreList(entries).find(frames) is None
    assert time.process_time() - began < 5  # in the worst case for ever


def test_the_entry_names_all_up_to_the_frame_that_matters() -> None:
    frames = stack(
        "libstdc++.so.6.0.30!operator new(unsigned long)",
        "libm.so.2!std::vector<int>::push_back(int)",
        "libm.so.2!metrics::Registry<int>::intern(int)",
        "app!main",
    )
    assert entry_for(frames) == Entry(
        (
            "libstdc++.so*!operator new",
            "libm.so*!std::vector<int>::push_back",
            "libm.so*!metrics::Registry<int>::intern",
            "...",
        )
    )


def test_it_survives_other_versions_and_builds() -> None:
    before = stack("libc-2.31.so!getline", "liba.so.1.2!reader.isra.0", "app-1!main")
    after = stack("libc-2.36.so!getline", "liba.so.1.3!reader.part.7", "app-2!main")
    entry = entry_for(before)
    assert entry is not None
    assert IgnoreList([entry]).find(after)


@pytest.mark.parametrize(
    "calls", [(), ("app",), ("libc.so.6!malloc",), ("libc.so.6!malloc", "libc.so.6!strdup", "app")]
)
def test_what_would_ignore_much_else_has_no_entry(calls: tuple[str, ...]) -> None:
    assert entry_for(stack(*calls)) is None


def test_a_deep_stack_has_an_entry_that_the_configuration_takes() -> None:
    frames = stack(*["libc.so.6!malloc"] * 300, "app!" + "long" * 2000, "app!main")
    entry = entry_for(frames)
    assert entry is not None
    assert len(entry.stack) <= FRAMES_MAX
    assert max(map(len, entry.stack)) <= TEXT_MAX
    assert IgnoreList([entry]).find(frames)


PUT, KEEP = stack("app!put", "app!main"), stack("app!keep", "app!main")


def site(stack_id: int, held: int = 100, count: int = 2) -> Site:
    return Site(stack_id, Counters(held, count), ())


def test_what_is_ignored_is_counted() -> None:
    entry = Entry(("put",))
    sieve = Sieve(IgnoreList([entry]))
    names = {1: PUT, 2: KEEP, 3: PUT}
    sites = [site(1), site(2), site(3, 50, 1), site(4)]
    assert sieve.sift(sites, names) == Ignored({1: entry, 3: entry}, 150, 3)


def test_without_names_nothing_is_ignored_until_there_are_some() -> None:
    sieve = Sieve(IgnoreList([Entry(("put",))]))
    assert sieve.sift([site(1)], {}) == Ignored()
    assert sieve.sift([site(1)], {1: ()}) == Ignored()
    assert sieve.unknown([site(1), site(2)]) == [1, 2]
    assert set(sieve.sift([site(1)], {1: PUT}).entries) == {1}
    assert sieve.unknown([site(1), site(2)]) == [2]


def test_once_matched_a_stack_needs_no_names() -> None:
    sieve = Sieve(IgnoreList([Entry(("put",))]))
    sieve.sift([site(1), site(2)], {1: PUT, 2: KEEP})
    assert set(sieve.sift([site(1), site(2)], {}).entries) == {1}


def test_better_names_are_matched_again() -> None:
    sieve = Sieve(IgnoreList([Entry(("put",))]))
    assert not sieve.sift([site(1)], {1: stack("app")}).entries
    assert sieve.sift([site(1)], {1: PUT}).entries


def test_another_list_starts_anew() -> None:
    sieve = Sieve(IgnoreList([Entry(("put",))]))
    sieve.sift([site(1)], {1: PUT})
    sieve.replace(IgnoreList([Entry(("keep",))]))
    assert set(sieve.sift([site(1), site(2)], {1: PUT, 2: KEEP}).entries) == {2}


def test_what_is_gone_is_forgotten() -> None:
    sieve = Sieve(IgnoreList([Entry(("put",))]))
    sieve.sift([site(i) for i in range(1000)], dict.fromkeys(range(1000), PUT))
    sieve.sift([site(1)], {})
    assert sieve.unknown([site(1), site(2)]) == [2]


def test_without_entries_nothing_is_looked_at() -> None:
    sieve = Sieve(IgnoreList())
    assert sieve.sift([site(1)], {1: PUT}) is NOTHING_IGNORED
    assert sieve.unknown([site(1)]) == []
