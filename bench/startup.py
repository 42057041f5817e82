"""How long it takes until something is known: beside bcc's memleak, and to the first whole stack.

Command line to the ready line of leaktop, and to memleak's first report less the interval it waits
before it, on the same target. Then the time to the first snapshot with a whole stack of a target
without frame pointers, 40 calls deep, and how fast call-frame rules are decoded.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from common import (
    C_LIBRARY,
    MEMLEAK,
    Figure,
    Run,
    Samples,
    Target,
    begin,
    build,
    leaktop,
    memleak,
    need,
)

from leaktop.callframe import call_frames_of
from leaktop.elf import ElfAddress, ElfFile
from leaktop.tracer.arch import this_machine
from leaktop.tracer.frame_rules import rule_of

STACKS = 200
DEPTH, PAIRS = 40, 20_000


def ready(run: Run, program: Path) -> None:
    """Compare the time to the ready lines."""
    samples = Samples()
    tracers = {"leaktop": leaktop, "memleak": memleak}
    for number in range(run.rounds):
        for name in sorted(tracers, reverse=bool(number % 2)):
            with Target(program, STACKS, STACKS) as target:
                target.ask("steady")
                with tracers[name](target.pid) as tracer:
                    samples.add(name, tracer.ready_s)
    run.say(
        Figure(
            "command line to the ready line: leaktop / memleak",
            samples.ratio("leaktop", "memleak"),
            target=1.2,
            parts=samples.parts("leaktop", "memleak"),
        )
    )
    for name in tracers:
        run.say(Figure(f"command line to the ready line: {name}", samples.median(name), "s"))


def first_whole_stack_s(program: Path) -> float:
    """Return seconds from the command line to the first snapshot with a whole stack."""
    with Target(program, DEPTH, PAIRS) as target:
        start = time.monotonic()
        with leaktop(target.pid, "--json", "-d", "0.1", output=subprocess.PIPE) as tracer:
            target.send("go\n" * 100)
            assert tracer.process.stdout is not None
            for line in tracer.process.stdout:
                if any(not stack["truncated"] for stack in json.loads(line)["stacks"]):
                    break
            return time.monotonic() - start


def rules_a_second() -> float:
    """Return how many rules of the C library are decoded a second, one address at a time."""
    arch = this_machine()
    assert arch is not None
    with C_LIBRARY.open("rb") as stream:
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
    """Measure, print, write."""
    run = begin("startup", __doc__, rounds=7)
    need(MEMLEAK)
    samples = Samples()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run.progress("command line to the ready line")
        ready(run, build(folder, "stacks"))
        run.progress("first whole stack")
        program = build(folder, "pairs", "-fomit-frame-pointer")
        for _ in range(run.rounds):
            samples.add("first whole stack", first_whole_stack_s(program))
            samples.add("rules", rules_a_second())
    run.say(
        Figure(
            "command line to the first whole stack, 40 deep, no frame pointers",
            samples.median("first whole stack"),
            "s",
            parts=samples.parts("first whole stack"),
        )
    )
    run.say(Figure("call-frame rules decoded a second", samples.median("rules")))
    run.write()


if __name__ == "__main__":
    main()
