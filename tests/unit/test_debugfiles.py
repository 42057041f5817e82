"""Symbols and lines of stripped programs: real debug files in all the places that they may be."""

import lzma
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaktop import debugfiles
from leaktop.elf import ElfAddress, ElfError, ElfFile, FileOffset
from leaktop.modules import Location, Module
from leaktop.native import NativeError, PartsReader
from leaktop.root import RefusedError, Root
from leaktop.symbolize import Symbolizer

SOURCE = """
#include <cstdlib>
static __attribute__((noinline)) void *work(unsigned long n) {
    void *block = malloc(n);  // work
    return n ? block : nullptr;
}
int main(int n, char **) { return work(n) == nullptr; }
"""
LINE = next(i for i, line in enumerate(SOURCE.splitlines(), 1) if "// work" in line)
WORK = "work(unsigned long)"
NOTHING = (None, None, {"program": "no symbols: stripped"})


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]} cannot: {done.stderr.splitlines()[:1]}")


class Made:
    """A program, and the root directory that it is looked at in."""

    def __init__(self, folder: Path, *options: str) -> None:
        if shutil.which("g++") is None:
            pytest.skip("no compiler")
        self.root = folder / "root"
        self.home = self.root / "app"
        self.home.mkdir(parents=True)
        self.debug = folder / "program.debug"
        (folder / "program.cc").write_text(SOURCE)
        run(folder, "g++", "-O2", "-g", *options, "program.cc", "-o", "whole")
        run(folder, "objcopy", "--only-keep-debug", "whole", "program.debug")
        run(folder, "strip", "-o", "root/app/program", "whole")
        with (folder / "whole").open("rb") as stream:
            elf = ElfFile(stream)
            self.build_id = elf.build_id or ""
            self.offset = self.behind_malloc(folder / "whole", elf)

    @staticmethod
    def behind_malloc(program: Path, elf: ElfFile) -> FileOffset:
        command = ["objdump", "-d", str(program)]
        listing = subprocess.run(command, check=True, capture_output=True, text=True)
        lines = listing.stdout.splitlines()
        call = next(i for i, line in enumerate(lines) if "<malloc@plt>" in line and "call" in line)
        offset = elf.offset_of(ElfAddress(int(lines[call + 1].partition(":")[0], 16)))
        assert offset is not None
        return offset

    def module(self, name: str = "program") -> Module:
        module = Module(f"/app/{name}")
        module.root = Root(str(self.root))
        module.hold(os.open(self.home / name, os.O_RDONLY | os.O_CLOEXEC))
        return module

    def frame(self, *, lines: bool = True) -> tuple[str | None, int | None, dict[str, str]]:
        symbolizer = Symbolizer()
        location = Location(0x7F0000000000, self.module(), self.offset)
        (frame,) = symbolizer.frames([location], lines=lines)
        symbolizer.close()
        return frame.symbol, frame.line, dict(symbolizer.problems())


@pytest.fixture(autouse=True)
def host(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what stands in for this machine's own root directory: its debug files are its own."""
    folder = tmp_path_factory.mktemp("host")
    root = Root(str(folder))
    monkeypatch.setattr(debugfiles, "_own_root", lambda: root)
    for name in ("DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path, "-Wl,--build-id=sha1")


@pytest.fixture
def linked(tmp_path: Path) -> Made:
    """Return a program without a build-id, but with a link to its debug file."""
    made = Made(tmp_path, "-Wl,--build-id=none")
    run(tmp_path, "objcopy", "--add-gnu-debuglink=program.debug", "root/app/program")
    return made


def put(source: Path, folder: Path, path: str) -> Path:
    target = folder / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def by_build_id(made: Made) -> str:
    return f"/usr/lib/debug/.build-id/{made.build_id[:2]}/{made.build_id[2:]}.debug"


def test_without_debug_file_nothing_is_made_up(made: Made) -> None:
    assert made.frame() == NOTHING


def test_by_build_id_in_the_targets_root(made: Made) -> None:
    put(made.debug, made.root, by_build_id(made))
    assert made.frame() == (WORK, LINE, {})


def test_by_build_id_on_this_machine(made: Made, host: Path) -> None:
    put(made.debug, host, by_build_id(made))
    assert made.frame() == (WORK, LINE, {})


@pytest.mark.parametrize("variable", ["DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME"])
def test_cache_of_debuginfod(
    made: Made, host: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    folder = "/cache" if variable.startswith("DEBUG") else "/cache/debuginfod_client"
    put(made.debug, host, f"{folder}/{made.build_id}/debuginfo")
    monkeypatch.setenv(variable, "/cache")
    assert made.frame() == (WORK, LINE, {})


def test_cache_of_the_user_behind_sudo(
    made: Made, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    user = pwd.getpwnam("nobody")
    path = f"{user.pw_dir}/.cache/debuginfod_client/{made.build_id}/debuginfo"
    put(made.debug, host, path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", str(user.pw_uid))
    assert made.frame(lines=False)[0] == WORK
    monkeypatch.setenv("SUDO_UID", "no number")
    assert made.frame(lines=False)[0] is None


@pytest.mark.parametrize(
    "path", ["/app/program.debug", "/app/.debug/program.debug", "/usr/lib/debug/app/program.debug"]
)
def test_by_link(linked: Made, path: str) -> None:
    assert linked.build_id == ""
    put(linked.debug, linked.root, path)
    assert linked.frame() == (WORK, LINE, {})


def test_by_link_on_this_machine_only_where_debug_files_are(linked: Made, host: Path) -> None:
    put(linked.debug, host, "/app/program.debug")
    assert linked.frame() == NOTHING
    put(linked.debug, host, "/usr/lib/debug/app/program.debug")
    assert linked.frame() == (WORK, LINE, {})


def test_a_file_that_changed_is_not_the_one_linked_to(linked: Made) -> None:
    with put(linked.debug, linked.root, "/app/program.debug").open("ab") as stream:
        stream.write(b"\0")
    assert linked.frame() == NOTHING


def test_a_file_of_another_build_is_not_believed(made: Made, tmp_path: Path) -> None:
    other = Made(tmp_path / "other", "-Wl,--build-id=0x1234")
    put(other.debug, made.root, by_build_id(made))
    assert made.frame() == NOTHING


def test_no_link_leads_out_of_the_targets_root(made: Made, tmp_path: Path) -> None:
    path = made.root / by_build_id(made).lstrip("/")
    path.parent.mkdir(parents=True)
    path.symlink_to(made.debug)
    assert made.frame() == NOTHING
    path.unlink()
    put(made.debug, made.root, "/elsewhere")
    path.symlink_to("/../elsewhere")  # within the root, as the target follows it
    assert made.frame() == (WORK, LINE, {})


def test_a_pipe_in_its_place_is_not_opened(made: Made) -> None:
    path = made.root / by_build_id(made).lstrip("/")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert made.frame() == NOTHING


@pytest.mark.parametrize("dwarf", ["-gdwarf-4", "-gdwarf-5"])
@pytest.mark.parametrize("compression", ["zlib", "zlib-gnu", "zstd"])
def test_compressed_debug_information(tmp_path: Path, dwarf: str, compression: str) -> None:
    made = Made(tmp_path, dwarf, "-Wl,--build-id=sha1")
    run(tmp_path, "objcopy", f"--compress-debug-sections={compression}", "program.debug")
    put(made.debug, made.root, by_build_id(made))
    assert made.frame() == (WORK, LINE, {})


@pytest.mark.parametrize("dwarf", ["-gdwarf-4", "-gdwarf-5"])
def test_debug_information_that_dwz_shares_out(tmp_path: Path, dwarf: str) -> None:
    if shutil.which("dwz") is None:
        pytest.skip("no dwz")
    made = Made(tmp_path, dwarf, "-Wl,--build-id=sha1")
    shutil.copy(made.debug, tmp_path / "other")
    run(tmp_path, "dwz", "-m", "shared", "program.debug", "other")
    put(made.debug, made.root, by_build_id(made))
    assert made.frame() == (WORK, LINE, {})


INLINED = """
#include <cstdlib>
struct Cache {
    __attribute__((always_inline)) void *get(unsigned long n) {
        return last = malloc(n);  // get
    }
    void *last;
};
static __attribute__((noinline)) void *work(Cache &cache, unsigned long n) {
    void *block = cache.get(n + 1);  // work
    return n ? block : nullptr;
}
int main(int n, char **) { Cache cache; return work(cache, n) == cache.last; }
"""
BOTH = [
    ("Cache::get(unsigned long)", 5, True),
    ("work(Cache&, unsigned long)", 10, False),
]


class Split(Made):
    """A program whose debug information lies beside it, in a root where it was built."""

    def __init__(self, folder: Path, compiler: str, *options: str) -> None:
        if shutil.which(compiler) is None:
            pytest.skip(f"no {compiler}")
        self.root = folder / "root"
        self.home = self.root / "app"
        self.home.mkdir(parents=True)
        (self.home / "program.cc").write_text(INLINED)
        moved = f"-fdebug-prefix-map={self.home}=/app"
        command = [compiler, "-O2", "-g", "-gsplit-dwarf", *options, moved, "-c", "program.cc"]
        run(self.home, *command)
        run(self.home, compiler, "program.o", "-o", "program")
        (self.home / "program.o").unlink()
        self.split = self.home / "program.dwo"
        elf = self.module().open_elf()
        self.build_id = elf.build_id or ""
        self.offset = self.behind_malloc(self.home / "program", elf)

    def frames(self) -> tuple[list[tuple[str | None, int | None, bool]], dict[str, str]]:
        symbolizer = Symbolizer()
        location = Location(0x7F0000000000, self.module(), self.offset)
        frames = symbolizer.frames([location], lines=True)
        assert {Path(each.file).name for each in frames if each.file} <= {"program.cc"}
        symbolizer.close()
        return [(each.symbol, each.line, each.inlined) for each in frames], dict(
            symbolizer.problems()
        )


KINDS = [(compiler, dwarf) for compiler in ("g++", "clang++") for dwarf in ("4", "5")]


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    compiler, dwarf = request.param
    return compiler, dwarf


@pytest.fixture
def split(tmp_path: Path, kind: tuple[str, str]) -> Split:
    compiler, dwarf = kind
    # clang leaves what was inlined in the program as well
    bare = ["-fno-split-dwarf-inlining"] if compiler == "clang++" else []
    return Split(tmp_path, compiler, f"-gdwarf-{dwarf}", *bare)


def test_split_debug_information(split: Split) -> None:
    assert split.frames() == (BOTH, {})
    symbolizer = Symbolizer()
    location = Location(0x7F0000000000, split.module(), split.offset)
    (inner, outer) = symbolizer.frames([location], lines=True)
    (plain,) = symbolizer.frames([location], lines=False)
    symbolizer.close()
    assert {inner.file, outer.file} == {"/app/program.cc"}
    assert (inner.offset, outer.offset) == (None, plain.offset)


def test_split_debug_information_in_a_package(split: Split, kind: tuple[str, str]) -> None:
    # binutils' own knows DWARF 4 only
    run(
        split.home,
        "dwp" if kind == ("g++", "4") else "llvm-dwp",
        "program.dwo",
        "-o",
        "program.dwp",
    )
    split.split.unlink()
    assert split.frames() == (BOTH, {})


def test_package_of_a_stripped_program(tmp_path: Path) -> None:
    made = Split(tmp_path, "g++", "-gdwarf-5")
    run(made.home, "llvm-dwp", "program.dwo", "-o", "program.dwp")
    made.split.unlink()
    run(made.home, "objcopy", "--only-keep-debug", "program", "program.debug")
    run(made.home, "strip", "program")
    put(made.home / "program.debug", made.root, by_build_id(made))
    assert made.frames() == (BOTH, {})


def test_split_files_that_are_not_there_are_named(split: Split) -> None:
    split.split.unlink()
    frames, problems = split.frames()
    assert frames == [("work(Cache&, unsigned long)", 5, False)]  # of the line table
    assert problems == {
        "program": "lines or inlined names are in /app/program.dwo, which is not there"
    }


def test_split_files_are_reached_in_the_targets_root_only(tmp_path: Path) -> None:
    made = Split(tmp_path, "g++")
    outside = tmp_path / "program.dwo"
    made.split.rename(outside)
    made.split.symlink_to(outside)
    frames, problems = made.frames()
    assert len(frames) == 1
    assert "which is not there" in problems["program"]
    shutil.copy(outside, made.root / "elsewhere")
    made.split.unlink()
    made.split.symlink_to("/elsewhere")  # within the root, as the target follows it
    assert made.frames() == (BOTH, {})
    made.split.unlink()
    os.mkfifo(made.split)
    assert made.frames()[1]["program"].endswith("which is not a regular file")


def test_a_split_file_of_another_build_is_not_believed(tmp_path: Path) -> None:
    made, other = Split(tmp_path, "g++"), Split(tmp_path / "other", "g++", "-O1")
    shutil.copy(other.split, made.split)
    frames, _ = made.frames()
    assert len(frames) == 1


@pytest.mark.parametrize("path", ["/etc/shadow", "/proc/kmsg", "relative", "x.dwo\0", "", "."])
def test_no_other_file_is_opened(tmp_path: Path, path: str) -> None:
    made = Split(tmp_path, "g++")
    module = made.module()
    parts = debugfiles.Parts(module, module, module.open_elf())
    with pytest.raises((OSError, RefusedError)):
        parts.open(path)


@pytest.mark.parametrize("dwarf", ["-gdwarf-4", "-gdwarf-5"])
def test_inlined_names_that_dwz_moved(tmp_path: Path, dwarf: str) -> None:
    if shutil.which("dwz") is None:
        pytest.skip("no dwz")
    made = Split(tmp_path, "g++", dwarf, "-gno-split-dwarf")
    program = made.home / "program"
    shutil.copy(program, made.home / "other")
    shared = f"{debugfiles._DEBUG}/.dwz/shared"
    run(made.home, "dwz", "-m", "shared", "-M", shared, "program", "other")
    place = put(made.home / "shared", made.root, shared)
    (made.home / "shared").unlink()
    assert made.frames() == (BOTH, {})
    place.unlink()
    frames, problems = made.frames()
    assert [(line, inlined) for _, line, inlined in frames] == [(5, True), (10, False)]
    assert problems == {"program": f"lines or inlined names are in {shared}, which is not there"}


def test_damaged_parts_are_an_error_at_worst(tmp_path: Path) -> None:
    made = Split(tmp_path, "g++", "-gdwarf-5")
    program, split = (made.home / "program").read_bytes(), made.split.read_bytes()
    address = made.module().open_elf().address_of(made.offset)
    assert address is not None
    beginning = len(program) // 2  # behind the code
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    numbers = iter(range(10**6))
    changes = st.lists(
        st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), max_size=9
    )

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(changes, changes)
    def damage(in_program: list[tuple[int, bytes]], in_split: list[tuple[int, bytes]]) -> None:
        whole = damaged(program, in_program, beginning)
        (made.home / "damaged").write_bytes(whole)
        made.split.write_bytes(damaged(split, in_split, 0))
        module = made.module("damaged")
        module.identity = (next(numbers),)
        reader = PartsReader()
        try:
            parts = debugfiles.Parts(module, module, module.open_elf())
            (calls,) = reader.read(parts.modules, [ElfAddress(address - 1)], parts.open)
            assert len(calls) <= 64
        except (ElfError, NativeError):
            pass
        finally:
            reader.close()

    damage()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before < 400 << 10


def damaged(data: bytes, changes: list[tuple[int, bytes]], beginning: int) -> bytes:
    bytes_ = bytearray(data)
    for place, new in changes:
        at = beginning + place % (len(data) - beginning)
        bytes_[at : at + len(new)] = new
    return bytes(bytes_[: len(data)])


def with_section(folder: Path, data: bytes, name: str = ".gnu_debugdata") -> None:
    (folder / "section").write_bytes(data)
    program = "root/app/program"
    run(folder, "objcopy", "--remove-section", name, "--add-section", f"{name}=section", program)


def mini(folder: Path) -> bytes:
    """Return what distributions put into .gnu_debugdata."""
    run(folder, "objcopy", "-S", "--keep-symbol=_ZL4workm", "program.debug", "mini")
    return (folder / "mini").read_bytes()


def test_mini_debug_info(made: Made, tmp_path: Path) -> None:
    with_section(tmp_path, lzma.compress(mini(tmp_path)))
    assert made.frame() == (WORK, None, {})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-20], ".gnu_debugdata is cut short"),
        (lambda data: data[:40] + b"\xff" * 8 + data[48:], ".gnu_debugdata cannot be unpacked"),
        (lambda _: b"", ".gnu_debugdata is cut short"),
        (lambda _: lzma.compress(b"no ELF file"), "no readable ELF file"),
        (lambda _: lzma.compress(bytes(65 << 20)), ".gnu_debugdata is larger than leaktop reads"),
        (
            lambda data: lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}]),
            ".gnu_debugdata cannot be unpacked: Memory usage limit exceeded",
        ),
    ],
)
def test_damaged_mini_debug_info_is_a_problem_of_the_module(
    made: Made, tmp_path: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    packed = lzma.compress(mini(tmp_path))
    if "Memory" in problem:
        packed = (tmp_path / "mini").read_bytes()
    with_section(tmp_path, change(packed))
    symbol, line, problems = made.frame()
    assert (symbol, line) == (None, None)
    assert problems["program"].startswith(problem)


def test_a_debug_file_is_better_than_mini_debug_info(made: Made, tmp_path: Path) -> None:
    with_section(tmp_path, b"damaged")
    put(made.debug, made.root, by_build_id(made))
    assert made.frame() == (WORK, LINE, {})


@pytest.mark.parametrize(
    "section", [b"", b"\0", b"name", b"name\0\0\0\0", b"../../x\0\1\2\3\4", b"..\0\0AAAA"]
)
def test_damaged_links_are_errors(linked: Made, tmp_path: Path, section: bytes) -> None:
    with_section(tmp_path, section, ".gnu_debuglink")
    put(linked.debug, linked.root, "/app/program.debug")
    assert linked.frame() == (None, None, {"program": "damaged .gnu_debuglink"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("mini")
    made = Made(folder, "-Wl,--build-id=none")
    run(folder, "objcopy", "--add-gnu-debuglink=program.debug", "root/app/program")
    with_section(folder, lzma.compress(mini(folder)))
    return (made.home / "program").read_bytes()


def test_damaged_files_are_problems_at_worst(whole: bytes, tmp_path: Path) -> None:
    beginning = whole.index(b"\xfd7zXZ")  # .gnu_debugdata, .gnu_debuglink, names and headers
    numbers = iter(range(10**6))

    @settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.lists(
            st.tuples(st.integers(beginning, len(whole) - 1), st.binary(min_size=1, max_size=8)),
            max_size=8,
        ),
        st.booleans(),
    )
    def damage(changes: list[tuple[int, bytes]], xz: bool) -> None:
        data = bytearray(whole)
        for place, new in changes:
            at = beginning + (place - beginning) % 600 if xz else place
            data[at : at + len(new)] = new
        path = tmp_path / f"{next(numbers)}"
        path.write_bytes(data)
        module = Module(str(path))
        module.root = Root(str(tmp_path))
        module.hold(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        path.unlink()
        made = Symbolizer()
        made.frames(
            [Location(0, module, FileOffset(at)) for at in range(0, len(data), 64)], lines=False
        )
        made.close()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    damage()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_own_symbols_stay_where_mini_debug_info_is_damaged(tmp_path: Path) -> None:
    made = Made(tmp_path, "-rdynamic", "-Dstatic=")
    with_section(tmp_path, b"damaged" * 9)
    symbol, _, problems = made.frame()
    assert symbol == WORK
    assert problems["program"].startswith(".gnu_debugdata cannot be unpacked")
    with pytest.raises(ElfError):
        debugfiles.mini_debug_info(made.module().open_elf())
