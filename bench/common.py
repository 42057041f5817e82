"""What the measurements share: targets, tracers, rounds, and how figures are kept and shown.

Nothing is slept for: a tracer is ready when it says so, and has ended when it was waited for.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADERS = HERE.parent / "leaktop" / "bpf" / "headers"
RESULTS = HERE / "results"
FLAGS = ("-O2", "-g", "-fno-optimize-sibling-calls", "-pthread")
LEAKTOP = (sys.executable, "-m", "leaktop")
MEMLEAK = "memleak-bpfcc"
MEMLEAK_INTERVAL_S = 1
C_LIBRARY = Path("/lib/x86_64-linux-gnu/libc.so.6")
MEMLEAK_PATIENCE_S = 60.0
CPUCLOCK_SCHED = 2


def build(folder: Path, name: str, *flags: str) -> Path:
    """Compile bench/targets/NAME.c and return the program."""
    program = folder / "".join((name, *flags))
    source = HERE / "targets" / f"{name}.c"
    subprocess.run(["gcc", *FLAGS, *flags, "-o", program, source], check=True)
    return program


class Target:
    """A program that says ``ready`` and answers lines; end it with ``close``.

    It has a copy of the C library to itself. Probes belong to a file, of whichever process, and
    memleak's do not bear others at the same instruction, not even ones that the kernel has not done
    away with yet: with a file of its own each tracer finds none.
    """

    def __init__(
        self,
        *command: object,
        environment: Mapping[str, str] | None = None,
        first: str = "",
        own_library: bool = True,
    ) -> None:
        """Start it and wait until it is ready; ``first``: the line that makes it say so."""
        self._folder = tempfile.TemporaryDirectory(prefix="leaktop-bench-")
        environment = {**os.environ, **(environment or {})}
        if own_library:
            shutil.copy(C_LIBRARY, self._folder.name)
            environment["LD_LIBRARY_PATH"] = self._folder.name
        self.process = subprocess.Popen(
            [str(each) for each in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env=environment,
        )
        if first:
            self.send(first)
        wait_for_line(self.process.stdout, "ready")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def send(self, line: str) -> None:
        """Write a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ask(self, line: str = "go") -> str:
        """Write a line and return the answer."""
        self.send(line)
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def finish(self) -> None:
        """Let it end by itself, with all that runs around it (heaptrack's other processes)."""
        self.process.communicate()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for_line(stream: Iterator[str] | None, text: str) -> str:
    """Return the first line with this text in it; exits where there is none."""
    assert stream is not None
    seen = []
    for line in stream:
        if text in line:
            return line
        seen.append(line)
    sys.exit(f"{sys.argv[0]}: waiting for {text!r}, but only this came: {''.join(seen[-5:])}")


@dataclass(frozen=True, slots=True)
class Tracer:
    """A tracer that is tracing."""

    process: "subprocess.Popen[str]"
    ready_s: float
    """Seconds from its command line to the line that says that it traces; memleak's is its first
    report, less the interval that it waits before it."""


@contextmanager
def leaktop(pid: int, *arguments: str, output: int = subprocess.DEVNULL) -> Iterator[Tracer]:
    """Trace with leaktop in batch mode, one snapshot a second."""
    start = time.monotonic()
    process = subprocess.Popen(
        [*LEAKTOP, "-b", "-d", "1", *arguments, "-p", str(pid)],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
    )
    with _ending(process):
        wait_for_line(process.stderr, "leaktop: tracing")
        yield Tracer(process, time.monotonic() - start)


def c_library(pid: int) -> str:
    """Return the path of the C library that a process maps."""
    maps = Path(f"/proc/{pid}/maps").read_text().split()
    return next(each for each in maps if each.endswith(f"/{C_LIBRARY.name}"))


@contextmanager
def memleak(pid: int, *arguments: str) -> Iterator[Tracer]:
    """Trace with bcc's memleak, one report a second, on our stand-in for kernel headers.

    It passes an uninitialised ref_ctr_offset, which has to be the same for all who probe an
    instruction, of whichever process. So the kernel refuses its probes at times, for as long as
    another tracer is at work anywhere; then it is started again, and timed from there.
    """
    until = time.monotonic() + MEMLEAK_PATIENCE_S
    refused = False
    while True:
        start = time.monotonic()
        process = subprocess.Popen(
            [MEMLEAK, *arguments, "-O", c_library(pid), "-p", str(pid), str(MEMLEAK_INTERVAL_S)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "BCC_KERNEL_SOURCE": str(HEADERS), "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        if any("] Top " in line for line in process.stdout):
            break
        said = process.communicate()[1].splitlines()
        if not refused:
            print(f"{MEMLEAK} ended: {said[-1:]}; trying again", file=sys.stderr, flush=True)
        refused = True
        if time.monotonic() > until:
            sys.exit(f"{MEMLEAK} does not run here; is another tracer at work?")
    with _ending(process):
        yield Tracer(process, time.monotonic() - start - MEMLEAK_INTERVAL_S)


@contextmanager
def floor(pid: int, *options: str) -> Iterator[Tracer]:
    """Attach empty programs where leaktop attaches its own, the same way; see bench/floor.py."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, HERE / "floor.py", str(pid), *options], stdout=subprocess.PIPE, text=True
    )
    with _ending(process):
        wait_for_line(process.stdout, "ready")
        yield Tracer(process, time.monotonic() - start)


# SIGINT, and waited for: memleak takes seconds to detach, and while it is attached others may not.
@contextmanager
def _ending(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    listed = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [pid, *(int(child) for children in listed for child in children.split())]


def cpu_s(pid: int) -> float:
    """Return CPU seconds that a process and its children have used (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime(~each << 3 | CPUCLOCK_SCHED) for each in family(pid))


def peak_mb(*pids: int) -> float:
    """Return the sum of the peaks of processes' resident memory, in megabytes of 10^6."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(each.split("VmHWM:")[1].split()[0]) * 1024 for each in statuses) / 1e6


class Samples:
    """What was measured, by name, one value a round."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    @property
    def names(self) -> list[str]:
        """What was measured, in the order of the first round."""
        return list(self._values)

    def add(self, name: str, value: float) -> None:
        """Keep one round's value."""
        self._values[name].append(value)

    def median(self, name: str) -> float:
        """Return the median over all rounds."""
        return statistics.median(self._values[name])

    def ratio(self, name: str, other: str, less: str | None = None) -> float:
        """Return the median over the rounds of name / other, of each less a third where given."""
        base = self._values[less] if less else [0.0] * len(self._values[name])
        rounds = zip(self._values[name], self._values[other], base, strict=True)
        return statistics.median((one - zero) / (two - zero) for one, two, zero in rounds)

    def parts(self, *names: str) -> dict[str, list[float]]:
        """Return every round's values of these."""
        return {name: [float(f"{value:.5g}") for value in self._values[name]] for name in names}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, and what it should be."""

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    """None: there is none, it is here to be read beside the others."""
    at_least: bool = False
    """Whether the target is a least, not a most."""
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What it was computed from, one value a round."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def columns(self) -> tuple[str, str, str, str]:
        """Name, value, target, met or missed: as text."""
        target = ""
        if self.target is not None:
            target = f"{'≥' if self.at_least else '≤'} {_digits(self.target)}{self._unit}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return self.name, f"{_digits(self.value)}{self._unit}", target, verdict

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Run:
    """How a script was asked to measure."""

    name: str
    rounds: int
    quick: bool
    out: Path
    machine: Mapping[str, str]
    load: float
    """What else the machine had to do when it began: load average over the last minute."""
    figures: list[Figure] = field(default_factory=list)

    def say(self, figure: Figure) -> None:
        """Print a figure, and keep it."""
        self.figures.append(figure)
        name, value, target, verdict = figure.columns
        print(f"{name:<66} {value:>12} {target:>12} {verdict}", flush=True)

    def progress(self, text: str) -> None:
        """Tell what is being done."""
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def write(self) -> None:
        """Write all figures as JSON."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "script": self.name,
            "rounds": self.rounds,
            "quick": self.quick,
            "load": self.load,
            "machine": self.machine,
            "figures": [{**asdict(figure), "met": figure.met} for figure in self.figures],
        }
        self.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def begin(name: str, description: str | None, *, rounds: int) -> Run:
    """Parse the command line that all scripts have."""
    text = (description or "").split("\n", maxsplit=1)[0]
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--rounds", type=int, help=f"how often each is measured ({rounds})")
    parser.add_argument("--quick", action="store_true", help="one short round, to try it out")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", metavar="FILE")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit(f"{sys.argv[0]}: tracing takes root")
    # a shell that starts this in the background has it ignore SIGINT, and so what it starts in turn
    signal.signal(signal.SIGINT, signal.default_int_handler)
    count = options.rounds or (1 if options.quick else rounds)
    load = round(os.getloadavg()[0], 2)
    return Run(name, count, options.quick, options.out, machine(), load)


def need(*programs: str) -> None:
    """Exit where one of these is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"{sys.argv[0]}: missing: {', '.join(missing)} (scripts/setup.sh bench)")


def machine() -> dict[str, str]:
    """Describe where this was measured, and what."""
    processors = Path("/proc/cpuinfo").read_text()
    model = next(
        line.split(":")[1].strip() for line in processors.splitlines() if "model name" in line
    )
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    virtual = " (virtual machine)" if " hypervisor" in processors else ""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=HERE,
        check=False,
        capture_output=True,
        text=True,
    )
    return {
        "processor": f"{model}, {os.cpu_count()} cores{virtual}",
        "kernel": f"Linux {platform.release()}",
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "leaktop": f"leaktop {commit.stdout.strip()}",
    }
