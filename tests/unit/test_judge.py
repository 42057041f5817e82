"""Verdicts on simulated stacks whose truth is known."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop.history import History
from leaktop.judge import Judge
from leaktop.model import Counters, Growth, Site, Verdict
from leaktop.verdicts import SUSPICIOUS
from tests.unit import workloads
from tests.unit.workloads import LEAKS, SOUND, Blocks, Workload, snapshot, snapshots

EVERY_SECOND = np.arange(0.25, 121, 1.0)


def made(workload: Workload, *seed: int) -> Blocks:
    return workload(np.random.default_rng(seed))


def verdicts(
    stacks: Sequence[Blocks], times: Iterable[float] = EVERY_SECOND, weight: int = 1
) -> list[dict[int, Verdict]]:
    """All verdicts at each of the times."""
    judge = Judge()
    return [dict(judge.add(each)) for each in snapshots(stacks, times, weight)]


def scores(stacks: Sequence[Blocks], times: Iterable[float] = EVERY_SECOND) -> list[float]:
    last = verdicts(stacks, times)[-1]
    return [last[i].score if i in last else 0.0 for i in range(len(stacks))]


@pytest.mark.parametrize("seed", range(2))
def test_leaks_are_told_from_all_else(seed: int) -> None:
    leaks = [made(each, seed, 1) for each in LEAKS.values()]
    sound = [made(each, seed, 2) for each in SOUND.values()]
    found = scores([*leaks, *sound])
    by_name = dict(zip([*LEAKS, *SOUND], found, strict=True))
    assert min(found[: len(leaks)]) >= SUSPICIOUS, by_name
    assert max(found[len(leaks) :]) < SUSPICIOUS, by_name


def test_the_slow_leak_is_first_within_30_s() -> None:
    names = ["slow_leak", "churn", "data_of_the_start", "lru_by_bytes", "held_some_seconds"]
    stacks = [made({**LEAKS, **SOUND}[name], 3) for name in names]
    found = scores(stacks, np.arange(0.25, 30, 1.0))
    assert found[0] == max(found) >= SUSPICIOUS


def test_early_on_nothing_is_sure() -> None:
    for found in verdicts([made(each, 1) for each in LEAKS.values()], np.arange(0.25, 5, 0.5)):
        assert all(each.score < SUSPICIOUS for each in found.values())


def test_suspicion_goes_where_growth_has_ended() -> None:
    ended = Blocks(np.arange(0.0, 40), np.full(40, np.inf), np.full(40, 64.0))
    at = verdicts([ended])
    assert at[39][0].score > SUSPICIOUS
    assert at[80][0].score < 0.05
    assert at[80][0].reason == "no new block for 41 s: 40 blocks kept"


def test_reasons() -> None:
    last = {}
    for name in ("slow_leak", "lru_by_count", "held_some_seconds", "churn", "leak_of_one_in_1000"):
        last[name] = verdicts([made({**LEAKS, **SOUND}[name], 5)])[-1][0].reason
    assert last["slow_leak"] == "grows 48 B/s for 2 min, no block ever freed"
    assert "looks like a cache" in last["lru_by_count"] or "freed later" in last["lru_by_count"]
    assert "held 2-" in last["held_some_seconds"]
    assert last["churn"].endswith("held under 8 ms")
    assert last["leak_of_one_in_1000"].startswith("grows ")


def test_blocks_older_than_any_that_was_freed_are_counted() -> None:
    births = np.arange(0, 120, 0.5)
    lives = np.where(np.arange(len(births)) % 2, np.inf, 0.1)
    found = verdicts([Blocks(births, births + lives, np.full(len(births), 64.0))])[-1][0]
    assert found.score > 0.7
    assert found.reason == "grows 64 B/s for 2 min: 119 blocks older than any that was ever freed"


def test_a_queue_that_never_empties_has_no_old_blocks() -> None:
    births = np.arange(0, 200, 0.02)
    queue = Blocks(births, births + 1.0 + births / 40, np.full(len(births), 64.0))
    assert "older than any" not in verdicts([queue])[-1][0].reason


@pytest.mark.parametrize("step", [0.2, 3.0, 10.0])
def test_how_often_is_looked_does_not_matter(step: float) -> None:
    stacks = [made(LEAKS["slow_leak"], 1), made(SOUND["lru_by_bytes"], 1)]
    leak, cache = scores(stacks, np.arange(0.1, 121, step))
    assert leak > 0.6
    assert cache < SUSPICIOUS


def test_uneven_looks_do_not_matter() -> None:
    times = np.cumsum(np.random.default_rng(0).exponential(1.5, 80))
    names = ("slow_leak", "lru_by_count", "queue_with_bursts", "data_of_the_start")
    leak, *sound = scores([made({**LEAKS, **SOUND}[name], 2) for name in names], times)
    assert leak > 0.7
    assert max(sound) < SUSPICIOUS


def test_a_pause_of_the_target_is_no_end_of_growth() -> None:
    leak = made(LEAKS["uneven_leak"], 1)
    judge, found = Judge(), []
    for now in np.arange(0.25, 300, 1.0):
        at = min(now, 60.0) if now < 240 else now - 180  # it stands still for 3 minutes
        shown = [site for site in [leak.site(0, float(at))] if site]
        totals = Counters(allocs=sum(site.counters.allocs for site in shown))
        found.append(judge.add(snapshot(shown, float(now), totals)).scores.get(0, 0.0))
    assert found[59] > 0.7
    assert found[270] > 0.7


def test_estimates_are_judged_alike() -> None:
    kept = made(LEAKS["uneven_leak"], 4)
    for weight in (1, 100):
        assert verdicts([kept], weight=weight)[-1][0].score > 0.7


def test_without_lifetimes_frees_speak_against_a_leak() -> None:
    judge, found = Judge(), {}
    for each in snapshots([made(SOUND["held_some_seconds"], 1)], EVERY_SECOND):
        bare = tuple(replace(site, lifetimes=()) for site in each.sites)
        found = dict(judge.add(replace(each, sites=bare)))
    assert found[0].score < SUSPICIOUS


def test_what_was_before_the_first_look_is_not_known() -> None:
    late = verdicts([made(LEAKS["slow_leak"], 1)], np.arange(100.0, 106))[-1][0]
    assert late.score < SUSPICIOUS
    assert late.reason == "grows 48 B/s for 5 s, no block ever freed"


def test_growth_mode_is_not_judged() -> None:
    site = Site(1, Counters(4096, 1, 1), ())
    shown = replace(snapshot([site], 1.0), growth=Growth(None))
    assert dict(Judge().add(shown)) == {}
    assert Judge().of(History().add(shown)).suspicion == {}


def test_a_reading_has_the_scores_of_its_verdicts() -> None:
    history, judge = History(), Judge()
    for each in snapshots([made(LEAKS["slow_leak"], 1)], EVERY_SECOND[:60]):
        reading = judge.of(history.add(each))
        assert {i: reading.verdicts[i].score for i in reading.verdicts} == reading.suspicion
    assert 7 not in reading.verdicts


def test_stacks_that_come_and_go_are_forgotten() -> None:
    judge = Judge()
    for now in range(1, 400):
        passing = [Site(1000 * now + i, Counters(64, 1, 1), ()) for i in range(100)]
        steady = Site(1, Counters(64 * now, now, now), (), lifetimes=(0,) * 24)
        found = judge.add(snapshot([steady, *passing], float(now)))
    assert found[1].score > 0.9
    assert judge.rows <= 16_384  # of 39,900


def test_where_very_many_free_all_have_their_turn() -> None:
    judge = Judge()
    for now in range(1, 41):
        sites = [
            # half of what is allocated is freed after some seconds, or none of it
            Site(i, Counters(64 * now, now, now * (1 + i % 2), now * (i % 2)), (), 1.0,
                 lifetimes=(*[0] * 13, now * (i % 2), *[0] * 10))
            for i in range(5000)
        ]  # fmt: skip
        found = judge.add(snapshot(sites, float(now)))
    assert "no block ever freed" in found[0].reason
    assert {found[i].reason for i in range(1, 5000, 2)} == {found[1].reason}


Frees = st.lists(st.integers(0, 2**40), min_size=24, max_size=24)
Sites = st.dictionaries(
    st.integers(0, 400), st.tuples(st.integers(0, 2**50), st.integers(1, 2**40), Frees)
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5000), Sites), max_size=12))
def test_whatever_comes_there_is_a_score_and_a_reason(
    ticks: list[tuple[float, dict[int, tuple[int, int, list[int]]]]],
) -> None:
    judge, now = Judge(), 0.0
    for passed, stacks in ticks:
        now += passed
        sites = [
            Site(i, Counters(size, count, count + sum(frees), sum(frees)), (), 1.0,
                 lifetimes=tuple(frees))
            for i, (size, count, frees) in stacks.items()
        ]  # fmt: skip
        found = judge.add(snapshot(sites, now))
        assert set(found) == set(stacks)
        for verdict in found.values():
            assert 0 <= verdict.score <= 1
            assert verdict.reason
            assert len(verdict.reason) < 100
            assert "nan" not in verdict.reason


def test_the_simulated_stacks_are_what_they_say() -> None:
    cache = workloads.lru_by_count(np.random.default_rng(1))
    late = [cache.site(0, now) for now in (60.0, 90.0)]
    assert len({site.counters.count for site in late if site}) == 1
