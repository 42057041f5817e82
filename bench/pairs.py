"""What one malloc/free pair costs, traced by leaktop, by bcc's memleak, and by empty probes.

One program per depth of calls, with and without frame pointers, runs untraced and under each tracer
in turn; it times itself. heaptrack and valgrind run copies of their own, since they are in the
process. Also: what sampling saves, what the choice of the probed instructions does
(--probe-at-entry), and whether two threads get in each other's way.
"""

import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from common import (
    MEMLEAK,
    Figure,
    Run,
    Samples,
    Target,
    begin,
    build,
    floor,
    leaktop,
    memleak,
    need,
)

DEPTHS = (1, 13, 40)
BUILDS = {"frame pointers": "-fno-omit-frame-pointer", "no frame pointers": "-fomit-frame-pointer"}
PAIRS, PAIRS_QUICK, PAIRS_VALGRIND = 40_000, 10_000, 10_000
REPEATS = 3
"""Times that a target is asked in each round; the first of all warms caches and is left out."""
THREADS_DEPTH = 13

Tracing = Callable[[int], AbstractContextManager[object]]
TRACERS: dict[str, Tracing] = {
    "untraced": lambda pid: nullcontext(),
    "leaktop": leaktop,
    "memleak": memleak,
    "empty probes": floor,
    "empty probes, returns skipped": lambda pid: floor(pid, "--skip-returns"),
    "leaktop -s 100": lambda pid: leaktop(pid, "-s", "100"),
    "leaktop --probe-at-entry": lambda pid: leaktop(pid, "--probe-at-entry"),
}
THREADED = ("untraced", "leaktop", "empty probes")


def ns_a_pair(target: Target) -> float:
    """Return what the target says of itself, warm."""
    target.ask()
    return statistics.median(float(target.ask()) for _ in range(REPEATS))


def turned(names: list[str], by: int) -> list[str]:
    """Return the names beginning with another one, so that none always comes first."""
    by %= len(names)
    return names[by:] + names[:by]


def depths(run: Run, program: Path, depth: int, pairs: int) -> Samples:
    """Measure one build at one depth."""
    samples = Samples()
    for number in range(run.rounds):
        for name in turned(list(TRACERS), number):
            target = Target(program, depth, pairs)
            with target, TRACERS[name](target.pid):
                samples.add(name, ns_a_pair(target))
    return samples


def say_depth(run: Run, samples: Samples, where: str) -> None:
    """Print the figures of one build at one depth."""
    for other, most in (("memleak", 0.34), ("empty probes", 1.45)):
        run.say(
            Figure(
                f"pair, {where}: leaktop / {other}",
                samples.ratio("leaktop", other),
                target=most,
                parts=samples.parts("leaktop", other),
            )
        )
    run.say(
        Figure(
            f"pair, {where}: sampled 1 in 100 / unsampled",
            samples.ratio("leaktop -s 100", "leaktop"),
            target=0.55,
            parts=samples.parts("leaktop -s 100", "leaktop"),
        )
    )
    skipped = "empty probes, returns skipped"
    run.say(
        Figure(
            f"pair, {where}: {skipped} / unsampled",
            samples.ratio(skipped, "leaktop"),
            parts=samples.parts(skipped, "leaktop"),
        )
    )
    for name in TRACERS:
        say_ns(run, samples, where, name)


def say_ns(run: Run, samples: Samples, where: str, name: str) -> None:
    """Print nanoseconds a pair."""
    run.say(Figure(f"pair, {where}: {name}", samples.median(name), "ns", parts=samples.parts(name)))


def in_process(run: Run, program: Path, depth: int, pairs: int, folder: Path) -> None:
    """Measure the tools that run within the target."""
    tools = {
        "heaptrack": ("heaptrack", "-o", folder / "heaptrack", program, depth, pairs),
        "valgrind": ("valgrind", "-q", program, depth, PAIRS_VALGRIND),
    }
    samples = Samples()
    for number in range(run.rounds):
        for name in turned(list(tools), number):
            with Target(*tools[name], own_library=False) as target:
                samples.add(name, ns_a_pair(target))
                target.finish()
    for name in tools:
        say_ns(run, samples, f"depth {depth}", name)


def threads(run: Run, program: Path, pairs: int) -> None:
    """Measure how much more two threads do than one, in pairs a second."""
    samples = Samples()
    for number in range(run.rounds):
        for name in turned(list(THREADED), number):
            for count in (1, 2):
                with (
                    Target(program, THREADS_DEPTH, pairs, count) as target,
                    TRACERS[name](target.pid),
                ):
                    samples.add(f"{name}, {count} threads", ns_a_pair(target))
    for name in THREADED:
        one, two = f"{name}, 1 threads", f"{name}, 2 threads"
        run.say(
            Figure(
                f"pairs a second, 2 threads / 1 thread: {name}",
                samples.ratio(one, two),
                target=1.8 if name == "leaktop" else None,
                at_least=True,
                parts=samples.parts(one, two),
            )
        )


def main() -> None:
    """Measure, print, write."""
    run = begin("pairs", __doc__, rounds=5)
    need(MEMLEAK, "heaptrack", "valgrind")
    pairs = PAIRS_QUICK if run.quick else PAIRS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, flag in BUILDS.items():
            program = build(folder, "pairs", flag)
            for depth in DEPTHS:
                run.progress(f"depth {depth}, {kind}")
                say_depth(run, depths(run, program, depth, pairs), f"depth {depth}, {kind}")
        for depth in DEPTHS:
            run.progress(f"heaptrack and valgrind, depth {depth}")
            in_process(run, program, depth, pairs, folder)
        run.progress("threads")
        threads(run, program, pairs)
    run.write()


if __name__ == "__main__":
    main()
