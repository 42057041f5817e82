"""Perf maps: believed only where they are the target's own, and hostile text otherwise."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaktop.elf import FileOffset
from leaktop.modules import Location, Module
from leaktop.perfmap import PerfMap
from leaktop.root import Root
from leaktop.symbolize import Symbolizer

PATH = "/tmp/perf-7.map"


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / PATH.lstrip("/")


def perf_map(listing: Path, owner: int | None = None, since: float = 0.0) -> PerfMap:
    owners = frozenset([0, os.getuid() if owner is None else owner])
    return PerfMap(Root(str(listing.parents[1])), PATH, owners, since)


def names(found: PerfMap, *addresses: int) -> list[str | None]:
    symbols = [found.find(address) for address in addresses]
    return [symbol.name if symbol else None for symbol in symbols]


def test_names_by_address(listing: Path) -> None:
    listing.write_text("1000 10 one\n2000 8 LazyCompile:*two words /a.js:3:2\n0x3000 0x10 hex\n")
    found = perf_map(listing)
    assert names(found, 0xFFF, 0x1000, 0x100F, 0x1010) == [None, "one", "one", None]
    assert names(found, 0x2007, 0x2008) == ["two words", None]
    assert names(found, 0x3001, -1, 2**64) == ["hex", None, None]
    two = found.find(0x2000)
    assert two is not None
    assert (two.start, two.module, two.file, two.line) == (0x2000, "[js]", "/a.js", 3)
    assert found.problem is None


def test_python_functions_carry_their_file(listing: Path) -> None:
    listing.write_text("10 b py::Cache.put.<locals>.<lambda>:/srv/a b:c.py\n20 b py::odd\n")
    found = perf_map(listing)
    function, odd = found.find(0x10), found.find(0x20)
    assert function is not None
    assert function.name == "Cache.put.<locals>.<lambda>"
    assert (function.module, function.file) == ("[python]", "/srv/a b:c.py")
    assert odd is not None
    assert (odd.name, odd.module, odd.file) == ("py::odd", "[jit]", None)


def test_the_last_written_wins(listing: Path) -> None:
    listing.write_text("1000 100 old\n1010 10 new\n1000 20 newest\n")
    assert names(perf_map(listing), 0x1000, 0x1018, 0x1020, 0x10FF) == [
        *("newest", "newest", "old", "old")
    ]


def test_read_again_where_it_grew(listing: Path) -> None:
    listing.write_text("1000 10 one\n2000 10 cut sh")
    found = perf_map(listing)
    assert names(found, 0x1000, 0x2000) == ["one", None]
    with listing.open("a") as stream:
        stream.write("ort\n3000 10 three\n")
    assert names(found, 0x3000, 0x2000) == ["three", "cut short"]
    listing.write_text("4000 10 written anew, and longer than before, by another agent\n")
    assert names(found, 0x4000, 0x1000)[1:] == [None]
    listing.unlink()
    assert names(found, 0x4000)[0] is not None


def test_what_is_not_the_targets_is_not_believed(listing: Path) -> None:
    listing.write_text("1000 10 one\n")
    os.utime(listing, (1000.0, 1000.0))
    old = perf_map(listing, since=2000.0)
    assert names(old, 0x1000) == [None]
    assert old.problem == "is older than the process"
    if os.getuid() == 0:
        os.chown(listing, 12345, 12345)
        others = perf_map(listing)
        assert names(others, 0x1000) == [None]
        assert others.problem == "belongs to user 12345, who is neither the target's nor root"
        assert names(perf_map(listing, owner=12345), 0x1000) == ["one"]


def test_neither_links_nor_pipes_are_opened(listing: Path) -> None:
    real = listing.with_name("real")
    real.write_text("1000 10 one\n")
    listing.symlink_to("real")
    found = perf_map(listing)
    assert names(found, 0x1000) == [None]
    listing.unlink()
    os.mkfifo(listing)
    assert names(found, 0x1000) == [None]
    assert found.problem == "not a regular file"


def test_no_file_is_no_problem(listing: Path) -> None:
    found = perf_map(listing)
    assert names(found, 0x1000) == [None]
    assert found.problem is None


def test_bounds(listing: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    listing.write_bytes(b"".join(b"%x 1 n\n" % at for at in range(1, 1_000_100)))
    found = perf_map(listing)
    assert names(found, 1, 1_000_000, 1_000_001) == ["n", "n", None]
    assert found.problem == "more than 1000000 entries: the rest is left out"
    with listing.open("wb") as stream:
        stream.write(b"5 1 " + b"a" * 8000 + b"\n6 1 " + b"a" * 9000 + b"\n7 1 last\n")
        stream.truncate(20 << 30)
    found = perf_map(listing)
    assert names(found, 5) == [None]
    assert found.problem == "larger than 16 GiB"
    with listing.open("r+b") as stream:
        stream.truncate(100 << 20)
    assert names(found, 6, 7) == [None, "last"]
    five = found.find(5)
    assert five is not None
    assert five.name == "a" * 4096
    assert found.problem == "larger than 64 MiB: only its beginning is read"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


LINES = st.one_of(
    st.binary(max_size=40),
    st.from_regex(rb"\A[0-9a-f]{1,17} [0-9a-fx_-]{1,17} [ -~\x80-\xff]{0,20}\Z"),
)


def test_damaged_maps_say_nothing_at_worst(listing: Path) -> None:
    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(LINES, max_size=20), st.integers(-(2**64), 2**65))
    def damage(lines: list[bytes], address: int) -> None:
        listing.write_bytes(b"\n".join(lines))
        found = perf_map(listing)
        for at in (address, 0, 0xA, 2**63 - 1):
            symbol = found.find(at)
            assert symbol is None or (symbol.start <= at and symbol.name)

    damage()


def test_frames_of_code_in_no_file(listing: Path) -> None:
    listing.write_text("1000 b py::leak:/srv/leak.py\n2000 10 Interpreter\n")
    symbolizer = Symbolizer({0: perf_map(listing)})
    places = [
        Location(0x100B, None, FileOffset(0)),
        Location(0x2001, Module("[anon:v8]"), FileOffset(0)),
        Location(0x3001, Module("[anon:v8]"), FileOffset(0)),
        Location(0x3001, None, FileOffset(0)),
    ]
    for lines in (False, True):
        python, v8, unknown, nothing = symbolizer.frames(places, lines=lines)
        assert (python.symbol, python.offset, python.module) == ("leak", 0xB, "[python]")
        assert (python.file, python.line) == ("/srv/leak.py", None)
        assert (v8.symbol, v8.offset, v8.module) == ("Interpreter", 1, "[jit]")
        assert (unknown.symbol, unknown.module) == (None, "[anon:v8]")
        assert (nothing.symbol, nothing.module) == (None, None)
    os.utime(listing, (0, 0))
    symbolizer.close()
    late = Symbolizer({0: perf_map(listing, since=1.0)})
    late.frames(places, lines=False)
    late.close()
    assert late.problems() == {PATH: "is older than the process"}


WRITER = """
import os, sys
with open(f"/tmp/perf-{os.getpid()}.map", "w") as listing:
    listing.write("1000 10 own\\n")
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_map_of_a_running_process_by_its_innermost_pid() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    outer = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert outer.stdin is not None
    assert outer.stdout is not None
    inner = int(outer.stdout.readline())
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
    pid = int(children.split()[0])
    found = PerfMap.of_process(pid)
    assert found is not None
    assert found.path == f"/tmp/perf-{inner}.map"
    assert inner != pid
    assert names(found, 0x1000) == ["own"]
    Path(found.path).unlink()
    outer.stdin.close()
    outer.wait()
    outer.stdout.close()
    assert PerfMap.of_process(2**22 + 1) is None


SCRIPT = (
    "function tick() {}\ntick(); console.log(1); process.stdin.on('data', () => process.exit())"
)


def test_what_node_writes(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node")
    source = tmp_path / "a b.js"
    source.write_text(SCRIPT)
    running = subprocess.Popen(
        ["node", "--perf-basic-prof", source],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    running.stdout.readline()
    found = PerfMap.of_process(running.pid)
    assert found is not None
    starts = [int(line.split()[0], 16) for line in Path(found.path).read_text().splitlines()]
    symbols = [found.find(start) for start in starts]
    running.communicate(b"\n")
    Path(found.path).unlink()
    functions = {
        (each.name, each.module, each.line) for each in symbols if each and each.file == str(source)
    }
    assert functions == {("tick", "[js]", 1), ("(anonymous)", "[js]", 1)}
