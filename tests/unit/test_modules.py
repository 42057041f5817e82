"""Mapped files: the very ones that a process maps, whatever its root and whatever the disk says."""

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leaktop.elf import FileOffset
from leaktop.modules import Location, Module, open_module
from leaktop.procfs import Mapping, parse_maps
from leaktop.symbolize import Symbolizer
from tests.unit.elfbuild import CODE_ADDRESS, CODE_OFFSET, Sym, build


@pytest.fixture
def symbolizer() -> Iterator[Symbolizer]:
    made = Symbolizer()
    yield made
    made.close()


def at(module: Module, offset: int) -> Location:
    return Location(0x7F0000000000 + offset, module, FileOffset(offset))


@contextmanager
def mapped(path: Path) -> Iterator[Mapping]:
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ):
        maps = parse_maps(Path("/proc/self/maps").read_text())
        yield next(each for each in maps if each.path == str(path))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="map_files needs root")


@needs_root
def test_a_file_replaced_on_disk_is_still_the_mapped_one(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(build(build_id=b"old"))
    with mapped(path) as mapping:
        path.with_name("new").write_bytes(build(build_id=b"new"))
        path.with_name("new").rename(path)
        (gone,) = (
            each
            for each in parse_maps(Path("/proc/self/maps").read_text())
            if each.start == mapping.start
        )
        assert gone.deleted
        module = open_module(os.getpid(), gone)
        assert (module.build_id, module.deleted) == (b"old".hex(), True)
        assert module.name == "library.so"
    assert module.open_elf().build_id == b"old".hex()  # unmapped, and still readable


def test_without_map_files_only_the_same_inode_will_do(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(build(build_id=b"mine"))
    with mapped(path) as mapping:
        # no mapping has this range, so the path in the target's root is what is left
        moved = Mapping(1, 2, "r-xp", 0, mapping.device, mapping.inode, mapping.path)
        assert open_module(os.getpid(), moved).build_id == b"mine".hex()
        path.unlink()
        path.symlink_to(shutil.copy(sys.executable, tmp_path / "other"))
        other = open_module(os.getpid(), moved)
        assert other.fileno() is None
        assert other.problem == "replaced on disk since it was mapped"


@needs_root
def test_what_is_no_regular_file_is_not_opened() -> None:
    with Path("/dev/zero").open("r+b") as zero, mmap.mmap(zero.fileno(), 4096, mmap.MAP_PRIVATE):
        maps = parse_maps(Path("/proc/self/maps").read_text())
        mapping = next(each for each in maps if each.path == "/dev/zero")
        assert open_module(os.getpid(), mapping).problem == "not a regular file"


def test_memory_without_a_file_has_a_name() -> None:
    assert open_module(1, Mapping(0, 1, "r-xp", 0, "00:00", 0, "[vdso]")).name == "[vdso]"
    assert open_module(1, Mapping(0, 1, "rwxp", 0, "00:00", 0, "")).name == "[anon]"
    gone = open_module(2**22 + 1, Mapping(0, 1, "r-xp", 0, "00:01", 7, "/a/b.so"))
    assert (gone.name, gone.fileno()) == ("b.so", None)
    assert gone.problem is not None


def vdso_of(pid: int | str) -> Mapping:
    maps = parse_maps(Path(f"/proc/{pid}/maps").read_text())
    return next(each for each in maps if each.path == "[vdso]")


def test_vdso_is_an_elf_file_in_memory(symbolizer: Symbolizer) -> None:
    mapping = vdso_of("self")
    module = open_module(os.getpid(), mapping)
    assert (module.name, module.problem, module.fileno()) == ("[vdso]", None, None)
    elf = module.open_elf()
    assert elf.eh_frame_header() is not None
    start = elf.functions(["__vdso_clock_gettime"])["__vdso_clock_gettime"]
    location = Location.in_mapping(mapping.start + start + 5, mapping, module)
    for lines in (False, True):
        (frame,) = symbolizer.frames([location], lines=lines)
        assert (frame.module, frame.offset, frame.line) == ("[vdso]", 5, None)
        assert frame.symbol is not None
        assert frame.symbol.endswith("clock_gettime")
    assert symbolizer.problems() == {}
    assert open_module(os.getpid(), mapping).identity == module.identity


def test_vdso_that_cannot_be_copied_says_why() -> None:
    gone = open_module(2**22 + 1, Mapping(0x1000, 0x3000, "r-xp", 0, "00:00", 0, "[vdso]"))
    assert gone.problem == "cannot be opened: No such file or directory"
    large = open_module(os.getpid(), Mapping(0, 1 << 30, "r-xp", 0, "00:00", 0, "[vdso]"))
    assert large.problem == "larger than 1 MiB"
    unmapped = open_module(os.getpid(), Mapping(0, 4096, "r-xp", 0, "00:00", 0, "[vdso]"))
    assert unmapped.problem is not None


IN_ANOTHER_ROOT = """
import ctypes, mmap, os, sys
ctypes.CDLL(None)
os.chroot(sys.argv[1])
os.chdir("/")
with open("/lib/own.so", "rb") as stream:
    mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
if sys.argv[2]:
    os.rename(sys.argv[2], "/lib/own.so")
print("ready", flush=True)
sys.stdin.read()
"""


@needs_root
@pytest.mark.parametrize("replaced_by", ["", "/lib/new.so"])
def test_another_root_has_its_own_files(
    tmp_path: Path, symbolizer: Symbolizer, replaced_by: str
) -> None:
    (tmp_path / "lib").mkdir()
    start = CODE_ADDRESS
    own = build([Sym("own", start, 16)], build_id=b"own")
    (tmp_path / "lib/own.so").write_bytes(own)
    (tmp_path / "lib/new.so").write_bytes(build([Sym("new", start, 16)], build_id=b"new"))
    debug = tmp_path / "usr/lib/debug/.build-id" / b"own".hex()[:2] / f"{b'own'.hex()[2:]}.debug"
    debug.parent.mkdir(parents=True)
    debug.write_bytes(
        build([Sym("own", start, 16), Sym("of_debug_file", start + 16, 16)], None, b"own")
    )
    target = subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_ROOT, str(tmp_path), replaced_by],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert target.stdin is not None
    assert target.stdout is not None
    assert target.stdout.readline() == b"ready\n"
    text = Path(f"/proc/{target.pid}/maps").read_text()
    mapping = next(each for each in parse_maps(text) if each.path.endswith("/lib/own.so"))
    assert mapping.deleted == bool(replaced_by)
    module = open_module(target.pid, mapping)
    target.stdin.close()
    target.wait()
    target.stdout.close()
    assert module.build_id == b"own".hex()
    places = [at(module, CODE_OFFSET + 4), at(module, CODE_OFFSET + 20)]
    frames = symbolizer.frames(places, lines=False)
    assert [(each.symbol, each.module_path) for each in frames] == [
        ("own", "/lib/own.so"),
        ("of_debug_file", "/lib/own.so"),
    ]
