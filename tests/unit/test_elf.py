"""ELF files: tiny ones for each rule, real ones for the whole, damaged ones for robustness."""

import io
import resource
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop.elf import ElfAddress, ElfError, ElfFile, FileOffset
from tests.unit.elfbuild import (
    CODE_ADDRESS,
    CODE_OFFSET,
    CODE_SIZE,
    FUNC,
    IFUNC,
    LOCAL,
    NOTYPE,
    OBJECT,
    WEAK,
    Sym,
    build,
)

BASE = CODE_ADDRESS
SOURCE = """
#include <stdlib.h>
__attribute__((noinline)) static void *keep(int n) { return malloc(n + 1); }
__attribute__((noinline)) void *visible(int n) { char *p = keep(n); p[0] = 1; return p; }
int main(int n, char **v) { (void)v; return visible(n) == 0; }
"""


def elf(data: bytes) -> ElfFile:
    return ElfFile(io.BytesIO(data))


def name_at(file: ElfFile, address: int) -> str | None:
    symbol = file.symbols().find(ElfAddress(address))
    return None if symbol is None else symbol.name


def test_address_and_offset_go_both_ways() -> None:
    file = elf(build())
    assert file.address_of(FileOffset(CODE_OFFSET)) == CODE_ADDRESS
    assert file.offset_of(ElfAddress(CODE_ADDRESS + 5)) == CODE_OFFSET + 5
    assert file.address_of(FileOffset(CODE_OFFSET + CODE_SIZE - 1)) == BASE + CODE_SIZE - 1
    for outside in (-1, CODE_OFFSET - 1, CODE_OFFSET + CODE_SIZE, 2**64, 2**70):
        assert file.address_of(FileOffset(outside)) is None
    for outside in (-1, 0, BASE - 1, BASE + CODE_SIZE, 2**64):
        assert file.offset_of(ElfAddress(outside)) is None


def test_machine_and_build_id() -> None:
    assert elf(build(build_id=b"\xab\xcd\xef")).build_id == "abcdef"
    assert elf(build(build_id=b"")).build_id is None
    assert elf(build(build_id=bytes(65))).build_id is None
    assert elf(build()).build_id is None
    assert elf(build()).machine == "EM_X86_64"


def test_sized_symbol_ends_where_it_says() -> None:
    file = elf(build([Sym("one", BASE, 16), Sym("two", BASE + 32, 16)]))
    assert [name_at(file, BASE + at) for at in (-1, 0, 15, 16, 31, 32, 47, 48)] == [
        *(None, "one", "one", None, None, "two", "two", None)
    ]
    symbol = file.symbols().find(ElfAddress(BASE + 40))
    assert symbol is not None
    assert (symbol.start, symbol.size) == (BASE + 32, 16)


def test_symbol_without_size_reaches_to_the_next_or_the_section_end() -> None:
    file = elf(build([Sym("one", BASE), Sym("alias", BASE), Sym("last", BASE + 32)]))
    assert name_at(file, BASE + 31) == "one"
    assert name_at(file, BASE + CODE_SIZE - 1) == "last"
    assert name_at(file, BASE + CODE_SIZE) is None


def test_inner_symbol_wins_and_the_outer_goes_on_behind_it() -> None:
    file = elf(build([Sym("outer", BASE, 100), Sym("inner", BASE + 20, 10)]))
    assert [name_at(file, BASE + at) for at in (19, 20, 29, 30, 99, 100)] == [
        *("outer", "inner", "inner", "outer", "outer", None)
    ]


def test_labels_count_only_outside_functions() -> None:
    label = [Sym("inside", BASE + 8, 0, NOTYPE, LOCAL), Sym("start", BASE + 64, 0, NOTYPE)]
    file = elf(build([Sym("function", BASE, 16), *label]))
    assert name_at(file, BASE + 9) == "function"
    assert name_at(file, BASE + 65) == "start"


@pytest.mark.parametrize(
    ("aliases", "best"),
    [
        ([Sym("__libc_malloc", BASE, 8), Sym("malloc", BASE, 8)], "malloc"),
        ([Sym("aa", BASE, 8, FUNC, LOCAL), Sym("__global", BASE, 8)], "__global"),
        ([Sym("longer", BASE, 8, FUNC, WEAK), Sym("short", BASE, 8)], "short"),
        ([Sym("b", BASE, 8), Sym("a", BASE, 8)], "a"),
        ([Sym("label", BASE, 0, NOTYPE), Sym("__function", BASE, 8)], "__function"),
        ([Sym("", BASE, 8), Sym("__named", BASE, 8)], "__named"),
        ([Sym("memcpy@@GLIBC_2.14", BASE, 8)], "memcpy"),
    ],
)
def test_best_alias(aliases: list[Sym], best: str) -> None:
    for order in (aliases, aliases[::-1]):
        assert name_at(elf(build(order)), BASE + 4) == best


def test_both_tables_are_merged() -> None:
    file = elf(build([Sym("hidden", BASE, 8, FUNC, LOCAL)], [Sym("seen", BASE + 8, 8)]))
    assert len(file.symbols()) == 2
    assert (name_at(file, BASE), name_at(file, BASE + 8)) == ("hidden", "seen")


def test_data_and_undefined_symbols_are_no_functions() -> None:
    symbols = [Sym("data", BASE, 8, OBJECT), Sym("malloc", 0, 0, section=0)]
    assert len(elf(build(symbols, symbols)).symbols()) == 0
    assert len(elf(build()).symbols()) == 0


def test_functions_to_probe() -> None:
    dynsym = [
        Sym("old", BASE + 8, 8, version=0x8002),
        Sym("old", BASE + 16, 8, version=3),
        Sym("chosen", BASE + 24, 8, IFUNC),
        Sym("chosen", BASE + 32, 8, version=0x8002),
        Sym("imported", 0, 0, section=0),
        Sym("variable", BASE + 40, 8, OBJECT),
        Sym("cfree", BASE + 48, 8),
    ]
    symtab = [
        Sym("chosen", BASE + 24, 8, IFUNC),
        Sym("static", BASE + 56, 8, FUNC, LOCAL),
        Sym("own", BASE + 64, 8),
        Sym("outside", BASE + CODE_SIZE, 8),
    ]
    names = ["old", "chosen", "imported", "variable", "cfree", "free", "static", "own", "outside"]
    assert elf(build(symtab, dynsym)).functions(names) == {
        "old": CODE_OFFSET + 16,
        "cfree": CODE_OFFSET + 48,
        "own": CODE_OFFSET + 64,
    }
    assert elf(build(symtab, dynsym)).functions([]) == {}


def test_names_merged_by_the_linker_are_found() -> None:
    data = bytearray(build(dynsym=[Sym("xmalloc", BASE, 8), Sym("ymalloc", BASE + 8, 8)]))
    # as ld -O2 does: the second name is the tail of the first
    second = data.index(struct.pack("<QQ", BASE + 8, 8)) - 8
    data[second : second + 4] = struct.pack("<I", 2)
    assert elf(bytes(data)).functions(["malloc"]) == {"malloc": CODE_OFFSET + 8}


def test_hostile_names_are_bounded() -> None:
    long = elf(build([Sym("a" * 100_000, BASE, 8)]))
    assert name_at(long, BASE) == "a" * 4096
    odd = bytearray(build([Sym("odd", BASE, 8)]))
    odd[odd.index(b"odd\0")] = 0xFF
    assert name_at(elf(bytes(odd)), BASE) == r"\xffdd"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF" + bytes(60)])
def test_what_is_no_elf_file_is_an_error(data: bytes) -> None:
    with pytest.raises(ElfError):
        elf(data)


def test_files_cut_short_are_errors() -> None:
    whole = build([Sym("one", BASE, 8)], build_id=b"x")
    for length in range(0, len(whole), 97):
        with pytest.raises(ElfError):
            elf(whole[:length]).symbols()


@cache
def compiler(language: str) -> str:
    found = shutil.which("g++" if language == "c++" else "gcc")
    if found is None:
        pytest.skip("no compiler")
    return found


def compile_c(folder: Path, *options: str) -> Path:
    output = folder / "program"
    (folder / "program.c").write_text(SOURCE)
    command = [compiler("c"), "-O1", *options, "program.c", "-o", output.name]
    subprocess.run(command, cwd=folder, check=True)
    return output


@pytest.mark.parametrize("options", [["-pie"], ["-no-pie"], ["-static"], ["-m64", "-Wl,-O2"]])
def test_real_programs_agree_with_nm(tmp_path: Path, options: list[str]) -> None:
    program = compile_c(tmp_path, *options)
    listing = subprocess.run(["nm", "-S", program], check=True, capture_output=True, text=True)
    known = {
        fields[3]: (int(fields[0], 16), int(fields[1], 16))
        for fields in (line.split() for line in listing.stdout.splitlines())
        if len(fields) == 4
    }
    with program.open("rb") as stream:
        file = ElfFile(stream)
        for name in ("keep", "visible", "main"):
            start, size = known[name]
            symbol = file.symbols().find(ElfAddress(start + size - 1))
            assert symbol is not None
            assert (symbol.name, symbol.start, symbol.size) == (name, start, size)
        found = file.functions(["keep", "visible", "malloc"])
        assert found.pop("visible") == file.offset_of(ElfAddress(known["visible"][0]))
        assert found.keys() == ({"malloc"} if "-static" in options else set())
        assert file.build_id is not None


def test_stripped_program_keeps_what_it_exports(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "-rdynamic", "-s", "-Wl,--build-id=none")
    with program.open("rb") as stream:
        file = ElfFile(stream)
        assert file.functions(["keep", "visible"]).keys() == {"visible"}
        assert file.build_id is None


def exercise(data: bytes) -> None:
    try:
        file = elf(data)
        assert file.build_id is None or len(file.build_id) <= 128
        table = file.symbols()
        for at in range(0, CODE_SIZE, 64):
            symbol = table.find(ElfAddress(BASE + at))
            assert symbol is None or symbol.start <= BASE + at < symbol.start + symbol.size
        for offset in file.functions(["one", "two"]).values():
            address = file.address_of(offset)
            assert address is None or address >= 0
    except ElfError:
        pass


WHOLE = build(
    [Sym("one", BASE, 8), Sym("two", BASE + 8)], [Sym("three", BASE + 16, 9)], build_id=b"12345678"
)
# all that is not code
PLACES = st.one_of(st.integers(0, 200), st.integers(CODE_OFFSET + CODE_SIZE, len(WHOLE) - 1))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=12))
def test_damaged_bytes_are_errors_at_worst(damage: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in damage:
        data[at] = value
    exercise(bytes(data))


@settings(max_examples=200, deadline=None)
@given(PLACES, st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]))
def test_damaged_words_are_errors_at_worst(at: int, value: int) -> None:
    data = bytearray(WHOLE + bytes(8))
    data[at & ~7 : (at & ~7) + 8] = value.to_bytes(8, "little")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exercise(bytes(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
