"""Naming frames: real programs, real mapped files, real child processes."""

import io
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaktop import native
from leaktop.elf import ElfAddress, ElfFile, FileOffset
from leaktop.modules import Location, Module
from leaktop.native import Demangler, LineReader, NativeError
from leaktop.symbolize import Symbolizer
from tests.unit.elfbuild import CODE_ADDRESS, CODE_OFFSET, Sym, build

ROOT = Path(__file__).parents[2]

INLINED = """
#include <cstdlib>
struct Cache {
    void *last;
    __attribute__((always_inline)) void *inner(unsigned long n) {
        return last = malloc(n);  // inner
    }
    __attribute__((always_inline)) void *outer(unsigned long n) {
        return inner(n + 1);  // outer
    }
};
__attribute__((noinline)) void *work(Cache &cache, unsigned long n) {
    void *block = cache.outer(n);  // work
    return n ? cache.last : block;
}
int main(int n, char **) { Cache cache; return work(cache, n) == nullptr; }
"""


@pytest.fixture
def symbolizer() -> Iterator[Symbolizer]:
    made = Symbolizer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("no compiler")
    folder = tmp_path_factory.mktemp("inlined")
    (folder / "inlined.cc").write_text(INLINED)
    command = ["g++", "-O2", "-g", "inlined.cc", "-o", "inlined"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "inlined"


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="to give up rights takes root")


def held(path: Path) -> Module:
    module = Module(str(path))
    module.hold(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return module


def damaged(folder: Path, data: bytes, name: str = "made") -> Module:
    path = folder / name
    path.write_bytes(data)
    return held(path)


def at(module: Module, offset: int) -> Location:
    return Location(0x7F0000000000 + offset, module, FileOffset(offset))


def malloc_return(program: Path) -> int:
    """Return the address behind the call of malloc, as the disassembler sees it."""
    text = subprocess.run(["objdump", "-d", program], check=True, capture_output=True, text=True)
    found = re.search(r"call.*<malloc@plt>\n\s*([0-9a-f]+):", text.stdout)
    assert found is not None
    return int(found[1], 16)


def line_of(mark: str) -> int:
    return next(i for i, line in enumerate(INLINED.splitlines(), 1) if f"// {mark}" in line)


def test_inlined_calls_come_innermost_first(program: Path, symbolizer: Symbolizer) -> None:
    module = held(program)
    elf = module.open_elf()
    address = malloc_return(program)
    offset = elf.offset_of(ElfAddress(address))
    assert offset is not None
    start = elf.functions(["_Z4workR5Cachem"])["_Z4workR5Cachem"]

    (plain,) = symbolizer.frames([at(module, offset)], lines=False)
    assert (plain.symbol, plain.offset) == ("work(Cache&, unsigned long)", offset - start)
    assert (plain.module, plain.module_path) == ("inlined", str(program))
    assert (plain.file, plain.line, plain.inlined) == (None, None, False)

    frames = symbolizer.frames([at(module, offset)], lines=True)
    assert [(each.symbol, each.line, each.inlined) for each in frames] == [
        ("Cache::inner(unsigned long)", line_of("inner"), True),
        ("Cache::outer(unsigned long)", line_of("outer"), True),
        ("work(Cache&, unsigned long)", line_of("work"), False),
    ]
    assert {each.file for each in frames} == {str(program.with_name("inlined.cc"))}
    assert {each.address for each in frames} == {plain.address}
    assert [each.offset for each in frames] == [None, None, plain.offset]
    assert symbolizer.problems() == {}


def test_return_address_at_the_end_of_a_function(tmp_path: Path, symbolizer: Symbolizer) -> None:
    # a call that never returns may be a function's last instruction
    symbols = [Sym("caller", CODE_ADDRESS, 16), Sym("next", CODE_ADDRESS + 16, 16)]
    module = damaged(tmp_path, build(symbols))
    (frame,) = symbolizer.frames([at(module, CODE_OFFSET + 16)], lines=False)
    assert (frame.symbol, frame.offset) == ("caller", 16)


def test_unknown_places_stay_unnamed(tmp_path: Path, symbolizer: Symbolizer) -> None:
    stripped = damaged(tmp_path, build(), "stripped")
    broken = damaged(tmp_path, b"\x7fELF" + bytes(100), "broken")
    vdso = Module("[vdso]")
    places = [
        Location(1, None, FileOffset(0)),
        at(stripped, CODE_OFFSET + 1),
        at(broken, 50),
        at(vdso, 60),
        at(stripped, 2**64),
        at(stripped, 0),
    ]
    for lines in (False, True):
        frames = symbolizer.frames(places, lines=lines)
        assert [(each.module, each.symbol, each.offset, each.line) for each in frames] == [
            (name, None, None, None)
            for name in (None, "stripped", "broken", "[vdso]", "stripped", "stripped")
        ]
    assert symbolizer.problems().keys() == {"stripped", "broken"}
    assert all("\n" not in reason for reason in symbolizer.problems().values())


def test_two_mappings_of_one_file_share(tmp_path: Path, symbolizer: Symbolizer) -> None:
    data = build([Sym("one", CODE_ADDRESS, 16)], build_id=b"same")
    first, second = damaged(tmp_path, data, "a"), damaged(tmp_path, data, "b")
    assert first.identity == second.identity
    assert first.build_id == b"same".hex()
    frames = symbolizer.frames(
        [at(first, CODE_OFFSET + 4), at(second, CODE_OFFSET + 4)], lines=False
    )
    assert [(each.module, each.symbol) for each in frames] == [("a", "one"), ("b", "one")]
    unnamed = build([Sym("one", CODE_ADDRESS, 16)])
    other, again = damaged(tmp_path, unnamed, "c"), held(tmp_path / "c")
    assert other.identity == again.identity != damaged(tmp_path, unnamed, "d").identity


def test_threads_read_one_module_at_once(symbolizer: Symbolizer) -> None:
    module = held(Path(sys.executable).resolve())
    elf = module.open_elf()
    names = ["PyObject_Malloc", "PyObject_Free", "PyList_New", "PyDict_New"]
    found = elf.functions(names)
    if found.keys() != set(names):
        pytest.skip("this Python has its functions elsewhere")
    wrong: list[str | None] = []

    def check() -> None:
        for _ in range(50):
            own = Symbolizer()
            for name, offset in found.items():
                for each in (symbolizer, own):
                    (frame,) = each.frames([at(module, offset + 1)], lines=False)
                    if frame.symbol != name:
                        wrong.append(frame.symbol)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_mangled_names() -> None:
    demangler = Demangler()
    names = {
        "_Z3addii": "add(int, int)",
        "_RNvCskwGfYPst2Cb_3foo16example_function": "foo::example_function",
        "_ZN5alloc3vec12Vec$LT$T$GT$4push17h0123456789abcdefE": "alloc::vec::Vec<T>::push",
        "_Znot_a_name": "_Znot_a_name",
    }
    found = demangler.demangle(names)
    demangler.close()
    assert found == names


def exploding(levels: int) -> str:
    """Return a short name whose readable form is three times as long for each level."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    last = ["S_", *(f"S{digits[level]}_" for level in range(levels))]
    return "_Z1f1X" + "".join(
        f"F{last[level]}{last[level]}{last[level]}E" for level in range(levels)
    )


def test_a_name_that_kills_the_demangler_costs_only_itself() -> None:
    demangler = Demangler()
    hostile = exploding(30)
    found = demangler.demangle(["_Z3addii", hostile, "_Z3subii"])
    assert found == {"_Z3addii": "add(int, int)", hostile: hostile, "_Z3subii": "sub(int, int)"}
    many = [f"{hostile}{number}i" for number in range(10)]
    assert demangler.demangle(many) == {name: name for name in many}
    demangler.close()


def test_long_names_are_bounded() -> None:
    demangler = Demangler()
    long, wide = "_Z" + "a" * 10_000, exploding(9)
    found = demangler.demangle([long, wide])
    demangler.close()
    assert found[long] == long[:8192]
    assert len(found[wide]) == 8192


def test_a_lost_reader_is_started_again_a_few_times(program: Path) -> None:
    reader = LineReader()
    module = held(program)
    address = ElfAddress(malloc_return(program) - 1)
    for _ in range(2):
        assert len(reader.read(module, [address])[0]) == 3
        child = reader._child._process
        assert child is not None
        child.kill()
        child.wait()
    missing = Module("/no/file")
    with pytest.raises(NativeError):
        reader.read(missing, [address])
    assert len(reader.read(module, [address])[0]) == 3
    reader.close()


def test_reader_that_takes_too_long_is_given_up(
    program: Path, monkeypatch: pytest.MonkeyPatch, symbolizer: Symbolizer
) -> None:
    monkeypatch.setattr(native, "_LINES_S", 0.0)
    module = held(program)
    offset = module.open_elf().offset_of(ElfAddress(malloc_return(program)))
    assert offset is not None
    (frame,) = symbolizer.frames([at(module, offset)], lines=True)
    assert (frame.symbol, frame.line) == ("work(Cache&, unsigned long)", None)
    assert symbolizer.problems() == {"inlined": "no lines: reading took too long"}


@needs_root
def test_reader_has_no_privileges(program: Path) -> None:
    reader = LineReader()
    secret = program.with_name("secret")
    shutil.copy(program, secret)
    secret.chmod(0o700)
    address = ElfAddress(malloc_return(program) - 1)
    assert len(reader.read(held(secret), [address])[0]) == 3
    child = reader._child._process
    assert child is not None
    status = Path(f"/proc/{child.pid}/status").read_text()
    reader.close()
    assert re.search(r"^Uid:(\s+65534){4}$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


BUSY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from leaktop.native import Demangler
demangler = Demangler()
demangler.demangle(["_Z3addii"])
child = demangler._child._process.pid
os.kill(child, 19)  # so that it cannot answer: like one busy in native code
print(child, flush=True)
demangler.demangle(["_Z3subii"])
"""


def test_killed_leaktop_leaves_no_process_behind() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(ROOT)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    watched = os.pidfd_open(child)
    parent.kill()
    parent.wait()
    os.kill(child, signal.SIGCONT)
    ready, _, _ = select.select([watched], [], [], 10)
    os.close(watched)
    parent.stdout.close()
    assert ready


@pytest.fixture(scope="module")
def reader() -> Iterator[LineReader]:
    made = LineReader()
    yield made
    made.close()


def test_damaged_debug_information_is_an_error_at_worst(
    program: Path, tmp_path: Path, reader: LineReader
) -> None:
    whole = program.read_bytes()
    address = ElfAddress(malloc_return(program) - 1)
    numbers = iter(range(10**6))

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.lists(
            st.tuples(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=8)),
            min_size=1,
            max_size=20,
        )
    )
    def damage(changes: list[tuple[int, bytes]]) -> None:
        data = bytearray(whole)
        for place, new in changes:
            data[place : place + len(new)] = new
        module = damaged(tmp_path, bytes(data), f"damaged-{next(numbers)}")
        Path(module.path).unlink()
        module.identity = (module.path,)  # a build-id that is still whole would hide the damage
        reason = ""
        try:
            for calls in reader.read(module, [address, ElfAddress(0), ElfAddress(2**64 - 1)]):
                assert len(calls) <= 64
        except NativeError as error:
            reason = str(error)
        assert "crashed" not in reason
        made = Symbolizer()
        made.frames([at(module, offset) for offset in range(0, len(data), 512)], lines=False)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    damage()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    child = reader._child._process
    assert child is not None
    peak = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{child.pid}/status").read_text(), re.M)
    assert peak is not None
    assert int(peak[1]) < 200 << 10


def test_reading_by_descriptor_is_like_reading_the_file(program: Path) -> None:
    module = held(program)
    elf = module.open_elf()
    same = ElfFile(io.BytesIO(program.read_bytes()))
    assert elf.functions(["main"]) == same.functions(["main"])
    assert len(elf.symbols()) == len(same.symbols())
