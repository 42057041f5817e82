"""What growth mode costs the process that it watches, and all others.

Usage (as root): python bench/growth.py [--rounds N] [--json FILE]

An allocation-heavy program and the worst case, a program that does nothing but fault, run by turns
without and with `leaktop --growth` on them; then the same while it watches another process.
Printed are medians in nanoseconds of processor time a step, and what was added.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS = {"churn": 2_000_000, "faults": 320_000}


class Target:
    """A running program."""

    def __init__(self, program: Path, steps: int) -> None:
        self.process = subprocess.Popen(
            [str(program), str(steps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = int(self._line().split()[1])

    def round(self, loop: str) -> float:
        """Return nanoseconds a step."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{loop}\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def watching(pid: int) -> "subprocess.Popen[str]":
    """Start growth mode and return once it counts."""
    tracer = subprocess.Popen(
        [sys.executable, "-m", "leaktop", "--growth", "-b", "-d", "1", "-p", str(pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    if "watching" not in tracer.stderr.readline():
        raise SystemExit("leaktop does not start")
    return tracer


def measure(program: Path, loop: str, rounds: int) -> dict[str, float]:
    """Return medians of one loop: alone, watched, and beside another that is watched."""
    target, other = Target(program, STEPS[loop]), Target(program, 1000)
    times: dict[str, list[float]] = {"alone": [], "watched": [], "other watched": []}
    try:
        target.round(loop)
        for _ in range(rounds):
            # each beside one of its own that is not watched: the host is never as it was
            for name, pid in (("watched", target.pid), ("other watched", other.pid)):
                times["alone"].append(target.round(loop))
                tracer = watching(pid)
                times[name].append(target.round(loop))
                tracer.terminate()
                tracer.wait()
    finally:
        target.close()
        other.close()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "allocating"
        source = HERE / "targets" / "allocating.c"
        subprocess.run(["gcc", "-O2", "-o", str(program), str(source)], check=True)
        for loop in STEPS:
            found[loop] = measure(program, loop, options.rounds)
            alone = found[loop]["alone"]
            for name, value in found[loop].items():
                added = "" if name == "alone" else f"  {100 * (value / alone - 1):+.1f} %"
                print(f"{loop:8}{name:15}{value:9.1f} ns a step{added}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
