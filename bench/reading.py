"""What looking costs: CPU of a tick and of memleak's report, ages, memory, leaktop's own CPU.

A program fills 1,000,000 blocks under 10,000 stacks while it is traced, once for each tool; then
nothing happens but the tool's ticks. CPU time is of all of a tool's processes. memleak's report is
the CPU between two of its headings: it prints one before it begins, and sleeps after. Its table has
10,240 places, so stacks that collide are not in its report, which is the cheaper for it.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from common import (
    LEAKTOP,
    MEMLEAK,
    Figure,
    Run,
    Samples,
    Target,
    begin,
    build,
    cpu_s,
    family,
    leaktop,
    memleak,
    need,
    peak_mb,
)
from terminal import Terminal, has_rows

BLOCKS, BLOCKS_QUICK = 1_000_000, 100_000
STACKS, STACKS_QUICK = 10_000, 1_000
TICKS = 5
STEADY_STACKS, SETTLE_S, STEADY_S = 200, 5, 20
CHILD = "--ages"


def tick_s(program: Path, stacks: int, blocks: int) -> float:
    """Return the CPU seconds of one of leaktop's snapshots, names and JSON of the top included."""
    with (
        Target(program, stacks, blocks) as target,
        leaktop(target.pid, "--json", output=subprocess.PIPE) as tracer,
    ):
        target.ask("fill")
        assert tracer.process.stdout is not None
        settled = 0
        for line in tracer.process.stdout:
            settled += json.loads(line)["totals"]["count"] >= blocks
            if settled == 2:  # noqa: PLR2004  (the one before learned the new stacks)
                before = cpu_s(tracer.process.pid)
            elif settled == 2 + TICKS:
                return (cpu_s(tracer.process.pid) - before) / TICKS
    sys.exit("leaktop ended before its time")


def report_s(program: Path, stacks: int, blocks: int, samples: Samples) -> float:
    """Return the CPU seconds of one of memleak's reports."""
    with Target(program, stacks, blocks) as target, memleak(target.pid, "-o", "0") as tracer:
        headings = SimpleQueue[float]()

        def watch() -> None:
            assert tracer.process.stdout is not None
            for line in tracer.process.stdout:
                if "] Top " in line:
                    headings.put(cpu_s(tracer.process.pid))

        threading.Thread(target=watch, daemon=True).start()
        target.ask("fill")
        while not headings.empty():  # of reports that began before all was there
            headings.get()
        before, after = headings.get(), headings.get()
        samples.add("memleak peak", peak_mb(*family(tracer.process.pid)))
        return after - before


@contextmanager
def screen(pid: int) -> Iterator[Terminal]:
    """Have leaktop's screen up, showing stacks."""
    terminal = Terminal([*LEAKTOP, "-p", str(pid)])
    try:
        yield terminal
        terminal.quit()
    finally:
        terminal.kill()


def peak_with_screen(program: Path, stacks: int, blocks: int, samples: Samples) -> None:
    """Measure the peak of leaktop's memory in MB, its screen up."""
    with Target(program, stacks, blocks) as target, screen(target.pid) as terminal:
        # filling begins once leaktop counts, which its first row says
        terminal.wait_for(has_rows, meanwhile=lambda: target.ask("one"))
        target.ask("fill")
        terminal.read_for(SETTLE_S)
        samples.add("peak", peak_mb(*family(terminal.pid)))
        samples.add("peak of children", peak_mb(*family(terminal.pid)[1:]))


def own_cpu(program: Path, seconds: float) -> float:
    """Return the share of a core, in percent, that the screen takes at 1 Hz on a steady target."""
    with Target(program, STEADY_STACKS, STEADY_STACKS) as target, screen(target.pid) as terminal:
        target.ask("steady")
        terminal.wait_for(has_rows)
        terminal.read_for(SETTLE_S)  # names come in
        before, start = cpu_s(terminal.pid), time.monotonic()
        terminal.read_for(seconds)
        return (cpu_s(terminal.pid) - before) / (time.monotonic() - start) * 100


def ages_s(program: Path, stacks: int, blocks: int) -> float:
    """Return the seconds that a child with leaktop's source took to read one stack's ages."""
    with Target(program, stacks, blocks) as target:
        with Target(sys.executable, __file__, CHILD, target.pid) as child:
            target.ask("fill")
            held, seconds = child.ask("ages").split()
        if int(held) < blocks // stacks:
            sys.exit(f"ages of {held} blocks of {blocks // stacks}: not all were there")
        return float(seconds)


def be_child(pid: int) -> None:
    """Trace; when asked, say how many blocks the stack that holds most has, and seconds taken."""
    from leaktop.model import Filters  # noqa: PLC0415
    from leaktop.tracer.live import LiveSource  # noqa: PLC0415

    source = LiveSource([pid], Filters())
    source.start(lambda step: None)
    print("ready", flush=True)
    sys.stdin.readline()
    most = max(source.snapshot().sites, key=lambda site: site.counters.count)
    start = time.perf_counter()
    detail = source.detail(most.stack_id)
    passed = time.perf_counter() - start
    print(sum(detail.ages.counts), passed, flush=True)
    source.close()


def main() -> None:
    """Be the child that reads ages, or measure, print, write."""
    if sys.argv[1:2] == [CHILD]:
        be_child(int(sys.argv[2]))
        return
    run = begin("reading", __doc__, rounds=3)
    need(MEMLEAK)
    stacks, blocks = (STACKS_QUICK, BLOCKS_QUICK) if run.quick else (STACKS, BLOCKS)
    samples = Samples()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder), "stacks")
        for number in range(run.rounds):
            run.progress(f"{number + 1} of {run.rounds}")
            samples.add("tick", tick_s(program, stacks, blocks))
            samples.add("report", report_s(program, stacks, blocks, samples))
            samples.add("ages", ages_s(program, stacks, blocks))
            peak_with_screen(program, stacks, blocks, samples)
            samples.add("own CPU", own_cpu(program, 5 if run.quick else STEADY_S))
    say(run, samples, f"{blocks:,} live blocks, {stacks:,} stacks")
    run.write()


def say(run: Run, samples: Samples, held: str) -> None:
    """Print all figures."""
    run.say(
        Figure(
            f"CPU of a tick / of a memleak report, {held}",
            samples.ratio("tick", "report"),
            target=0.01,
            parts=samples.parts("tick", "report"),
        )
    )
    for what, name, unit, most in (
        ("CPU of a leaktop tick", "tick", "s", None),
        ("CPU of a memleak report", "report", "s", None),
        (f"ages of one stack, {held}", "ages", "s", 0.4),
        ("own CPU, 1 Hz, 200 stacks, steady target", "own CPU", "%", 3),
        (f"own peak RSS, screen up, {held}", "peak", "MB", 180),
        ("of that, in its child processes", "peak of children", "MB", None),
        ("memleak's peak RSS there", "memleak peak", "MB", None),
    ):
        run.say(Figure(what, samples.median(name), unit, target=most, parts=samples.parts(name)))


if __name__ == "__main__":
    main()
