"""What tracing adds to the run of real programs: Debian's python3 and sqlite3 build 100,000 rows.

Each runs untraced, under leaktop and under bcc's memleak in turn, in a process of its own; timed is
the work alone, by the clock on the wall. Python takes its memory from malloc (PYTHONMALLOC=malloc),
as one runs it to look for a leak: its own allocator asks malloc too seldom for a tracer to see
much.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from common import HERE, MEMLEAK, Figure, Run, Samples, Target, begin, leaktop, memleak, need

ROWS, ROWS_QUICK = 100_000, 10_000
SQLITE3 = ("stdbuf", "-oL", "sqlite3", "-batch", ":memory:")
BUILD_ROWS = """\
CREATE TABLE lines (id INTEGER PRIMARY KEY, name TEXT, value REAL);
WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {rows})
INSERT INTO lines SELECT i, printf('name %d', i), i * 1.5 FROM numbers;
CREATE INDEX by_name ON lines (name);
.print done"""
TRACERS: dict[str, Callable[[int], AbstractContextManager[object]]] = {
    "untraced": lambda pid: nullcontext(),
    "leaktop": leaktop,
    "memleak": memleak,
}


class Python(Target):
    """Debian's python3 before its work."""

    rows = ROWS

    def __init__(self) -> None:
        script = HERE / "targets" / "rows.py"
        super().__init__(
            "/usr/bin/python3", script, self.rows, environment={"PYTHONMALLOC": "malloc"}
        )

    def work_s(self) -> float:
        """Do the work and return how long it took."""
        return float(self.ask())


class Sqlite(Target):
    """Debian's sqlite3 before its work."""

    rows = ROWS

    def __init__(self) -> None:
        super().__init__(*SQLITE3, first=".print ready")

    def work_s(self) -> float:
        """Do the work and return how long it took."""
        start = time.monotonic()
        self.ask(BUILD_ROWS.format(rows=self.rows))
        return time.monotonic() - start


def measure(run: Run, name: str, program: type[Python] | type[Sqlite]) -> None:
    """Run one program under each tracer, in turn."""
    samples = Samples()
    tracers = list(TRACERS)
    for number in range(run.rounds):
        run.progress(f"{name}, {number + 1} of {run.rounds}")
        for tracer in tracers[number % 3 :] + tracers[: number % 3]:
            target = program()
            with target, TRACERS[tracer](target.pid):
                samples.add(tracer, target.work_s())
    run.say(
        Figure(
            f"time added to {name}: leaktop / memleak",
            samples.ratio("leaktop", "memleak", less="untraced"),
            target=0.5,
            parts=samples.parts(*tracers),
        )
    )
    for tracer in tracers:
        run.say(Figure(f"{name}, {program.rows:,} rows: {tracer}", samples.median(tracer), "s"))


def main() -> None:
    """Measure, print, write."""
    run = begin("programs", __doc__, rounds=5)
    need(MEMLEAK, "sqlite3", "/usr/bin/python3")
    for name, program in (("python3", Python), ("sqlite3", Sqlite)):
        program.rows = ROWS_QUICK if run.quick else ROWS
        measure(run, name, program)
    run.write()


if __name__ == "__main__":
    main()
