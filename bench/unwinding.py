"""What whole stacks cost: a malloc/free pair traced by leaktop and by bcc's memleak, side by side.

Usage (as root): python bench/unwinding.py [--rounds N] [--json FILE]

For each depth, with and without frame pointers, one program runs untraced, under leaktop and under
memleak (bpfcc-tools, on leaktop's stand-in for kernel headers), alternating, several rounds;
printed are medians in nanoseconds a pair, and ratios. Then: the time from the start of leaktop to
the first whole stack, and rules decoded a second. Names and lines are measured by
bench/symbols.py.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from leaktop.callframe import call_frames_of
from leaktop.elf import ElfAddress, ElfFile
from leaktop.tracer.arch import this_machine
from leaktop.tracer.frame_rules import rule_of

HERE = Path(__file__).resolve().parent
HEADERS = HERE.parent / "leaktop" / "bpf" / "headers"
DEPTHS = (1, 13, 40)
FLAGS = {"frame pointers": "-fno-omit-frame-pointer", "none": "-fomit-frame-pointer"}
PAIRS = 20_000
LIBRARY = Path("/lib/x86_64-linux-gnu/libc.so.6")


class Target:
    """A running pairs program."""

    def __init__(self, program: Path, depth: int) -> None:
        command = [str(program), str(depth), str(PAIRS)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = int(self._line().split()[1])

    def round(self) -> float:
        """Return nanoseconds a pair."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def leaktop(pid: int) -> tuple["subprocess.Popen[str]", float]:
    """Start leaktop and return it with the seconds until it was ready."""
    start = time.monotonic()
    tracer = subprocess.Popen(
        [sys.executable, "-m", "leaktop", "-b", "-d", "1", "-p", str(pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    tracer.stderr.readline()
    return tracer, time.monotonic() - start


def memleak(pid: int) -> tuple["subprocess.Popen[str]", float]:
    """Start memleak the same way; its first report says that it traces."""
    start = time.monotonic()
    tracer = subprocess.Popen(
        ["memleak-bpfcc", "-p", str(pid), "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "BCC_KERNEL_SOURCE": str(HEADERS), "PYTHONUNBUFFERED": "1"},
    )
    assert tracer.stdout is not None
    while "Top" not in (line := tracer.stdout.readline()):
        if not line:
            sys.exit("memleak-bpfcc does not run here")
    return tracer, time.monotonic() - start


TRACERS = {"leaktop": leaktop, "memleak": memleak}


def cost(program: Path, depth: int, rounds: int) -> dict[str, float]:
    """Return median nanoseconds a pair, untraced and by tracer."""
    figures: dict[str, list[float]] = {"untraced": [], **{name: [] for name in TRACERS}}
    for _ in range(rounds):
        target = Target(program, depth)
        figures["untraced"].append(target.round())
        for name, start in TRACERS.items():
            tracer, _ = start(target.pid)
            target.round()  # rules and caches
            figures[name].append(target.round())
            tracer.terminate()
            tracer.wait()
        target.close()
    return {name: statistics.median(values) for name, values in figures.items()}


def first_whole_stack(program: Path) -> float:
    """Return seconds from the start of leaktop to the first snapshot with a whole stack."""
    target = Target(program, max(DEPTHS))
    target.round()
    start = time.monotonic()
    tracer = subprocess.Popen(
        [sys.executable, "-m", "leaktop", "--json", "-d", "0.1", "-p", str(target.pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stdout is not None
    assert tracer.stderr is not None
    tracer.stderr.readline()
    assert target.process.stdin is not None
    target.process.stdin.write("go\n" * 100)
    target.process.stdin.flush()
    for line in tracer.stdout:
        if any(not stack["truncated"] for stack in json.loads(line)["stacks"]):
            break
    passed = time.monotonic() - start
    tracer.kill()
    tracer.wait()
    target.close()
    return passed


def rules_a_second() -> float:
    """Return how many rules of the C library are decoded a second, one address at a time."""
    arch = this_machine()
    assert arch is not None
    with LIBRARY.open("rb") as stream:
        elf = ElfFile(stream)
        frames = call_frames_of(elf)
        assert frames is not None
        addresses = [address for address in range(0x30000, 0x130000, 0x100) if frames.row(address)]
        start = time.perf_counter()
        for address in addresses:
            row = frames.row(ElfAddress(address))
            assert row is not None
            rule_of(row, address, arch.registers)
        return len(addresses) / (time.perf_counter() - start)


def main() -> None:
    """Measure, print a table, write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if shutil.which("memleak-bpfcc") is None:
        sys.exit("memleak-bpfcc is missing: apt install bpfcc-tools")
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{'depth':>5} {'built with':<15} {'untraced':>9} {'leaktop':>9} {'memleak':>9} ratio"
        )
        for name, flag in FLAGS.items():
            program = Path(folder) / f"pairs{flag}"
            source = HERE / "targets" / "pairs.c"
            command = ["gcc", "-O2", "-g", "-fno-optimize-sibling-calls", flag]
            subprocess.run([*command, "-o", str(program), str(source)], check=True)
            for depth in DEPTHS:
                figures = cost(program, depth, options.rounds)
                ratio = figures["leaktop"] / figures["memleak"]
                results[f"depth {depth}, {name}"] = {**figures, "ratio": ratio}
                shown = " ".join(f"{figures[each]:9.0f}" for each in ("untraced", *TRACERS))
                print(f"{depth:>5} {name:<15} {shown} {ratio:5.2f}", flush=True)
        results["first whole stack, s"] = first_whole_stack(program)
        print(f"first whole stack after {results['first whole stack, s']:.2f} s")
    results["rules a second"] = rules_a_second()
    print(f"{results['rules a second']:.0f} rules a second")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
