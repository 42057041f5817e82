"""Simulated stacks whose blocks' births and deaths are known, and the snapshots that show them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leaktop.model import LIFETIME_EDGES_S, Counters, Filters, Site, Snapshot, Target

Floats = NDArray[np.float64]
END_S = 200.0


@dataclass(frozen=True)
class Blocks:
    """Each block's birth, death (infinite: never) and size."""

    births: Floats
    deaths: Floats
    sizes: Floats

    def site(self, stack_id: int, now: float, weight: int = 1) -> Site | None:
        """What is shown of them at a time; None where nothing is held."""
        born, dead = self.births <= now, self.deaths <= now
        held = born & ~dead
        count = weight * int(held.sum())
        if not count:
            return None
        lives = (self.deaths - self.births)[dead]
        bands = np.bincount(np.searchsorted(LIFETIME_EDGES_S, lives, "right") - 1, minlength=24)
        return Site(
            stack_id=stack_id,
            counters=Counters(
                weight * int(self.sizes[held].sum()),
                count,
                weight * int(born.sum()),
                weight * int(dead.sum()),
            ),
            frames=(),
            oldest_s=now - float(self.births[held].min()),
            lifetimes=tuple((weight * bands).tolist()),
        )


Random = np.random.Generator
Workload = Callable[[Random], Blocks]


def _blocks(births: Floats, lives: Floats | float = np.inf, sizes: Floats | float = 64.0) -> Blocks:
    births = np.asarray(births, float)
    deaths = births + np.broadcast_to(lives, births.shape)
    return Blocks(births, deaths, np.broadcast_to(sizes, births.shape).astype(float))


def arrivals(random: Random, rate: float, start: float = 0.0, end: float = END_S) -> Floats:
    """Times of a Poisson process."""
    count = random.poisson(rate * (end - start))
    return np.sort(random.uniform(start, end, count))


def merged(*parts: Blocks) -> Blocks:
    return Blocks(
        np.concatenate([each.births for each in parts]),
        np.concatenate([each.deaths for each in parts]),
        np.concatenate([each.sizes for each in parts]),
    )


def slow_leak(random: Random) -> Blocks:
    return _blocks(np.arange(random.uniform(0, 1), END_S, 1.0), sizes=48)


def uneven_leak(random: Random) -> Blocks:
    return _blocks(arrivals(random, 3), sizes=float(random.integers(16, 4096)))


def leak_in_bursts(random: Random) -> Blocks:
    starts = np.arange(random.uniform(0, 4), END_S, random.uniform(3, 5))
    return _blocks(np.repeat(starts, random.integers(3, 30)))


def leak_of_one_in_1000(random: Random) -> Blocks:
    births = arrivals(random, 800)
    lives = random.exponential(random.uniform(0.001, 0.05), len(births))
    lives[random.random(len(births)) < 0.001] = np.inf
    return _blocks(births, lives)


def cache_that_never_evicts(random: Random) -> Blocks:
    births = arrivals(random, random.uniform(5, 50))
    return _blocks(births, sizes=random.uniform(50, 2000, len(births)))


def late_leak(random: Random) -> Blocks:
    start = _blocks(random.uniform(0, 2, 3000))
    return merged(start, _blocks(arrivals(random, 5, 40.0)))


def churn(random: Random) -> Blocks:
    births = arrivals(random, 2000)
    return _blocks(births, random.exponential(0.002, len(births)))


def data_of_the_start(random: Random) -> Blocks:
    return _blocks(random.uniform(0, random.uniform(0.1, 4), 5000))


def lru_by_count(random: Random) -> Blocks:
    births = arrivals(random, random.uniform(100, 400))
    limit = int(random.integers(500, 2000))
    deaths = np.append(births[limit:], np.full(min(limit, len(births)), np.inf))
    return Blocks(births, deaths, random.integers(50, 2000, len(births)).astype(float))


def lru_by_bytes(random: Random) -> Blocks:
    births = arrivals(random, random.uniform(50, 200))
    sizes = random.integers(50, 4000, len(births)).astype(float)
    limit, deaths, first, held = random.uniform(3e5, 1e6), np.full(len(births), np.inf), 0, 0.0
    for i, size in enumerate(sizes):
        held += size
        while held > limit:
            deaths[first] = births[i]
            held -= sizes[first]
            first += 1
    return Blocks(births, deaths, sizes)


def pool_in_steps(random: Random) -> Blocks:
    at = np.cumsum(random.uniform(2, 5) * 1.7 ** np.arange(5))
    return merged(*(_blocks(np.full(int(32 * 2**i), t)) for i, t in enumerate(at)))


def queue_with_bursts(random: Random) -> Blocks:
    parts = []
    for start in arrivals(random, 0.12):
        births = start + np.sort(random.uniform(0, 1.0, random.integers(200, 2000)))
        drained = births + random.uniform(2, 6) * (births - start) + 0.01
        parts.append(_blocks(births, drained - births))
    return merged(*parts, _blocks(arrivals(random, 5), 0.05))


def periodic_batch(random: Random) -> Blocks:
    period = random.uniform(4, 12)
    parts = []
    for start in np.arange(random.uniform(0, period), END_S, period):
        births = start + random.uniform(0, 0.6 * period, 500)
        parts.append(_blocks(births, start + 0.7 * period - births))
    return merged(*parts)


def held_some_seconds(random: Random) -> Blocks:
    births = arrivals(random, random.uniform(20, 200))
    return _blocks(births, random.uniform(2, 9, len(births)))


LEAKS: Mapping[str, Workload] = {
    each.__name__: each
    for each in (
        slow_leak,
        uneven_leak,
        leak_in_bursts,
        leak_of_one_in_1000,
        cache_that_never_evicts,
        late_leak,
    )
}
SOUND: Mapping[str, Workload] = {
    each.__name__: each
    for each in (
        churn,
        data_of_the_start,
        lru_by_count,
        lru_by_bytes,
        pool_in_steps,
        queue_with_bursts,
        periodic_batch,
        held_some_seconds,
    )
}


def snapshot(sites: Sequence[Site], now: float, totals: Counters | None = None) -> Snapshot:
    return Snapshot(
        time_ns=int(now * 1e9),
        elapsed_s=now,
        target=Target(1, "simulated"),
        filters=Filters(),
        totals=totals or Counters(allocs=int(now * 1000)),
        sites=tuple(sites),
    )


def snapshots(
    stacks: Sequence[Blocks], times: Iterable[float], weight: int = 1
) -> Iterator[Snapshot]:
    """Show these stacks, numbered from 0, at each of the times."""
    for now in times:
        shown = [each.site(i, now, weight) for i, each in enumerate(stacks)]
        yield snapshot([site for site in shown if site is not None], now)
