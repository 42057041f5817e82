"""What growth mode costs the process that it watches, and all others.

Usage (as root): python bench/growth.py [--rounds N] [--json FILE]

An allocation-heavy program and the worst case, a program that does nothing but fault, run by turns
without and with `leaktop --growth` on them; then the same while it watches another process. Each
short run with it, once the path is known, is compared with the runs without just before and after,
since the host is never as it was. Printed are the medians of these ratios with an interval that
holds the true median with 95 % (by order statistics), and page faults a step: with the cost of one
fault, which the worst case gives, they say what the added time of the other program has to be.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
STEPS = {"churn": 3_000_000, "faults": 96_000}


class Run(NamedTuple):
    """One run of a loop."""

    time_ns: float
    """Processor time a step."""
    faults: float
    """Page faults a step."""


class Target:
    """A running program."""

    def __init__(self, program: Path, steps: int) -> None:
        self.process = subprocess.Popen(
            [str(program), str(steps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = int(self._line().split()[1])

    def round(self, loop: str) -> "Run":
        """Run a loop once."""
        assert self.process.stdin is not None
        before = self._faults()
        self.process.stdin.write(f"{loop}\n")
        self.process.stdin.flush()
        time_ns = float(self._line())
        return Run(time_ns, (self._faults() - before) / STEPS[loop])

    def _faults(self) -> int:
        # minflt of proc(5)
        text = Path(f"/proc/{self.pid}/stat").read_text()
        return int(text.rpartition(")")[2].split()[7])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def watching(pid: int) -> "subprocess.Popen[str]":
    """Start growth mode and return after its first snapshot, when it is idle between two."""
    tracer = subprocess.Popen(
        [sys.executable, "-m", "leaktop", "--growth", "-b", "-d", "1", "-p", str(pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    assert tracer.stdout is not None
    if "watching" not in tracer.stderr.readline() or not tracer.stdout.readline():
        raise SystemExit("leaktop does not start")
    return tracer


def measure(program: Path, loop: str, rounds: int) -> "dict[str, Any]":
    """Return what was added to one loop, while it is watched and while another is, by round."""
    target, other = Target(program, STEPS[loop]), Target(program, 1000)
    ratios: dict[str, list[float]] = {"watched": [], "other watched": []}
    alone: list[Run] = []
    try:
        for _ in range(3):
            target.round(loop)
        for _ in range(rounds):
            for name, pid in (("watched", target.pid), ("other watched", other.pid)):
                before = target.round(loop)
                tracer = watching(pid)
                target.round(loop)
                traced = target.round(loop)
                tracer.terminate()
                tracer.wait()
                after = target.round(loop)
                ratios[name].append(2 * traced.time_ns / (before.time_ns + after.time_ns))
                alone += [before, after]
    finally:
        target.close()
        other.close()
    return {
        "ns_a_step": statistics.median(run.time_ns for run in alone),
        "faults_a_step": statistics.median(run.faults for run in alone),
        "ratios": ratios,
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Return order statistics between which the true median is with 95 % at least."""
    ordered, count = sorted(values), len(values)
    outside, below = 0.0, 0
    while below < count // 2:
        outside += 2 * math.comb(count, below) / 2**count
        if outside > 0.05:  # noqa: PLR2004
            break
        below += 1
    below = max(0, below - 1)
    return ordered[below], ordered[-1 - below]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "allocating"
        source = HERE / "targets" / "allocating.c"
        subprocess.run(["gcc", "-O2", "-o", str(program), str(source)], check=True)
        for loop in STEPS:
            found[loop] = measure(program, loop, options.rounds)
            _print(loop, found[loop])
    faults, churn = found["faults"], found["churn"]
    for name in ("watched", "other watched"):
        added = statistics.median(faults["ratios"][name]) - 1
        a_fault = added * faults["ns_a_step"] / faults["faults_a_step"]
        share = a_fault * churn["faults_a_step"] / churn["ns_a_step"]
        print(f"churn, {name}: by its faults at {a_fault:.0f} ns each {100 * share:+.2f} %")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def _print(loop: str, found: dict[str, Any]) -> None:
    print(f"{loop}: {found['ns_a_step']:.1f} ns a step, {found['faults_a_step']:.4f} page faults")
    for name, ratios in found["ratios"].items():
        low, high = interval(ratios)
        median = statistics.median(ratios)
        print(
            f"  {name:15}{100 * (median - 1):+.1f} % "
            f"({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} %, {len(ratios)} rounds)"
        )


if __name__ == "__main__":
    main()
