"""How well leaks are told from what only looks like one: precision and recall of the list.

Programs of known truth run live under leaktop, several stacks in each, some of which leak. The
training set is what the thresholds were chosen by; the figures are of the reporting set, which has
other kinds, other parameters and other seeds. With --training the training set is run instead.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import LEAKTOP, Figure, Run, begin, wait_for_line

from leaktop.verdicts import SUSPICIOUS

SOURCE = Path(__file__).parents[1] / "tests" / "targets" / "leaking.c"
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
TRAINING: Mapping[str, Sequence[str]] = {
    "a server": (
        "slow_leak", "churn=4", "lru_cache", "startup_data", "periodic_batch", "queue_with_bursts",
    ),
    "a leaking server": (
        "leak_on_rare_path", "cache_without_limit", "buffers_that_grow=0.5", "sessions",
        "pool_in_steps", "lru_cache=3",
    ),
    "no leak": (
        "churn=8", "cache_of_bytes", "sessions=0.4", "pool_in_steps=2", "periodic_batch=0.5",
    ),
}  # fmt: skip
REPORTING: Mapping[str, Sequence[str]] = {
    "the slow leak": ("slow_leak", "large_cache", "churn"),
    "a busy server": (
        "leak_under_load", "cache_of_bytes=2", "sessions=1.5", "queue_with_bursts=0.6",
        "periodic_batch=1.4", "startup_data=3", "churn=3",
    ),
    "several leaks": (
        "slow_leak=2", "leak_on_rare_path=2", "leak_in_bursts", "buffers_that_grow",
        "cache_without_limit=4", "lru_cache=0.5", "pool_in_steps=0.7", "large_cache=3",
    ),
    "only caches": (
        "lru_cache=2", "cache_of_bytes=0.6", "large_cache=0.5", "pool_in_steps=1.5",
        "queue_with_bursts=1.5", "sessions=0.7", "periodic_batch=0.7",
    ),
}  # fmt: skip
AFTER_S = (15, 30, 60, 90)
AT_ONCE = 3
TOPS = (1, 3)


@dataclass(frozen=True, slots=True)
class Judged:
    """One stack after some seconds."""

    leaks: bool
    score: float
    what: str


Found = dict[int, list[Judged]]
"""By seconds: the stacks of one run, most suspicious first."""


def judged(program: Path, kinds: Sequence[str], seed: int, until_s: float) -> Found:
    """Run one program under leaktop and return what it said of each stack."""
    target = subprocess.Popen(
        [program, str(seed), *kinds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert target.stdin is not None
    assert target.stdout is not None
    wait_for_line(target.stdout, "ready")
    leaktop = subprocess.Popen(
        [*LEAKTOP, "--json", "--sort", "suspect", "-T", "100", "-p", str(target.pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert leaktop.stdout is not None
    wait_for_line(leaktop.stderr, "leaktop: tracing")
    target.stdin.write("go\n")
    target.stdin.flush()
    truth = json.loads(target.stdout.readline())
    leaks = {site["function"]: site["leaks"] for site in truth["sites"]}
    found: Found = {}
    for line in leaktop.stdout:
        shot = json.loads(line)
        due = [at for at in AFTER_S if at not in found and shot["elapsed_s"] >= at]
        if due:
            found[due[0]] = _stacks(shot, leaks)
        if shot["elapsed_s"] >= until_s:
            break
    leaktop.send_signal(signal.SIGINT)
    leaktop.communicate()
    target.kill()
    target.communicate()
    return found


def _stacks(shot: Mapping[str, list[dict[str, object]]], leaks: Mapping[str, bool]) -> list[Judged]:
    stacks = []
    for stack in shot["stacks"]:
        frames = stack["frames"]
        assert isinstance(frames, list)
        name = str(frames[0]["symbol"]) if frames else "?"
        score = stack["suspect"]
        assert isinstance(score, float | int)
        stacks.append(
            Judged(leaks.get(name, False), float(score), f"{name}: {stack['suspect_reason']}")
        )
    return stacks


def measure(run: Run, programs: Mapping[str, Sequence[str]], first_seed: int) -> list[Found]:
    """Run all programs with each of the seeds, a few at a time."""
    until_s = AFTER_S[1] if run.quick else AFTER_S[-1]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        program = Path(folder) / "leaking"
        subprocess.run(["gcc", *FLAGS, "-o", program, SOURCE, "-lm"], check=True)
        jobs = {
            (name, seed): pool.submit(judged, program, kinds, seed, until_s)
            for seed in range(first_seed, first_seed + run.rounds)
            for name, kinds in programs.items()
        }
        for (name, seed), job in jobs.items():
            last = job.result()[until_s]
            for each in last:
                sign = "LEAK" if each.leaks else "    "
                run.progress(f"{name} {seed}, {until_s} s: {sign} {each.score:.2f} {each.what}")
        return [job.result() for job in jobs.values()]


def say(run: Run, results: Sequence[Found], title: str) -> None:
    """Print precision and recall: of the first stacks, of as many as leak, and of the marked."""
    for at in [each for each in AFTER_S if each in results[0]]:
        shots = [found[at] for found in results]
        leaks = sum(each.leaks for shot in shots for each in shot)
        cuts = {f"first {top}": [shot[:top] for shot in shots] for top in TOPS}
        cuts["first as many as leak"] = [shot[: sum(e.leaks for e in shot)] for shot in shots]
        cuts["marked with !"] = [[e for e in shot if e.score >= SUSPICIOUS] for shot in shots]
        for name, listed in cuts.items():
            hits = sum(each.leaks for shot in listed for each in shot)
            count = sum(len(shot) for shot in listed)
            where = f"{title}, {len(results)} runs, after {at} s, {name}"
            run.say(Figure(f"{where}: precision", hits / count if count else 1.0))
            run.say(Figure(f"{where}: recall", hits / max(1, leaks)))
        run.say(
            Figure(
                f"{title}, after {at} s: least score of a leak",
                min(each.score for shot in shots for each in shot if each.leaks),
            )
        )
        run.say(
            Figure(
                f"{title}, after {at} s: greatest score of another",
                max(each.score for shot in shots for each in shot if not each.leaks),
            )
        )


def main() -> None:
    """Run, print, write."""
    training = "--training" in sys.argv
    if training:
        sys.argv.remove("--training")
    run = begin("judging", __doc__, rounds=3)
    if training:
        say(run, measure(run, TRAINING, 1), "training set")
        return
    say(run, measure(run, REPORTING, 201), "reporting set")
    run.write()


if __name__ == "__main__":
    main()
