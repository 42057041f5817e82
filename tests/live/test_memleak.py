"""Options that memleak has, where no other test is about them (docs/memleak.md)."""

from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartTarget, Trace
from tests.live.harness import run_leaktop
from tests.live.judge import assert_exact

pytestmark = pytest.mark.live


def test_the_allocator_of_one_file(build: Builder, start_target: StartTarget, trace: Trace) -> None:
    target = start_target("functions", "malloc")
    maps = Path(f"/proc/{target.pid}/maps").read_text().split()
    libc = next(path for path in maps if path.endswith("/libc.so.6"))
    leaktop = trace(target, "-O", libc)
    truth = target.tell()
    assert_exact(leaktop.snapshot_from_now(), truth, build("functions"), "functions.c")
    none = run_leaktop("-b", "-n", "1", "-p", str(target.pid), "-O", "/lib/none.so")
    none.assert_refused(4, "maps no /lib/none.so")


def test_only_names_with_the_prefix(
    build: Builder, start_target: StartTarget, trace: Trace
) -> None:
    target = start_target("prefixed")
    leaktop = trace(target, "--symbols-prefix", "my_")
    truth = target.tell()
    assert_exact(leaktop.snapshot_from_now(), truth, build("prefixed"), "prefixed.c")
