"""Each allocator function: what a target leaks through it, to the byte and to the block."""

import pytest

from tests.live.conftest import Builder, StartTarget, Trace
from tests.live.judge import assert_exact

pytestmark = pytest.mark.live

FUNCTIONS = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "mmap",
    "munmap",
    "mremap",
    "posix_memalign",
    "memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
    "reallocarray",
]


@pytest.mark.parametrize("function", [*FUNCTIONS, "all"])
def test_function(function: str, build: Builder, start_target: StartTarget, trace: Trace) -> None:
    target = start_target("functions", function)
    leaktop = trace(target)
    truth = target.tell()
    snapshot = leaktop.snapshot_from_now()
    assert_exact(snapshot, truth, build("functions"), "functions.c")
    innermost = {stack["frames"][0]["symbol"] for stack in snapshot["stacks"]}
    if function != "all":
        assert f"leak_{function}" in innermost
    assert (snapshot["target"]["pid"], snapshot["target"]["comm"]) == (target.pid, "functions")
    assert snapshot["target"]["alive"]
    assert snapshot["mode"] == "user"
    assert leaktop.stop() == 0
