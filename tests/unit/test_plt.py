"""PLT stubs: by every linker there is as the disassembler names them, and damaged."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop.elf import ElfAddress, ElfError, ElfFile
from leaktop.plt import PltStubs, StubCode

SOURCE = """
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
int main(int n, char **v) {
    char *copy = strdup(v[0]);
    void *block = malloc(n), *(*pointer)(size_t, size_t) = calloc;
    printf("%s %p %p", copy, block, pointer(n, n));
    free(copy);
    return 0;
}
"""


def linked(folder: Path, *options: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    (folder / "calls.c").write_text(SOURCE)
    command = ["gcc", "-O1", *options, "calls.c", "-o", "calls"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True)
    if done.returncode:
        pytest.skip("no such linker")
    return folder / "calls"


def disassembled(program: Path) -> dict[int, str]:
    command = ["objdump", "-d", str(program)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^([0-9a-f]+) <([^@*\s]+)(?:@\S+)?@plt>:", text, re.MULTILINE)
    return {int(at, 16): f"{name}@plt" for at, name in found}


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld"])
@pytest.mark.parametrize("binding", ["lazy", "now"])
@pytest.mark.parametrize("branches", ["none", "full"])
def test_stubs_as_the_disassembler_names_them(
    tmp_path: Path, linker: str, binding: str, branches: str
) -> None:
    options = [f"-fuse-ld={linker}", f"-Wl,-z,{binding}", f"-fcf-protection={branches}"]
    if branches == "full" and linker == "bfd":
        options.append("-Wl,-z,ibtplt")
    program = linked(tmp_path, *options)
    with program.open("rb") as stream:
        elf = ElfFile(stream)
        stubs = elf.plt()
        expected = disassembled(program)
        assert {"malloc@plt", "free@plt", "strdup@plt"} <= set(expected.values())
        found = {}
        for at in expected:
            symbol = stubs.find(ElfAddress(at))
            assert symbol is not None
            assert symbol.start == at
            found[at] = symbol.name
            last = stubs.find(ElfAddress(at + symbol.size - 1))
            assert last == symbol
        assert found == expected
        assert len(stubs) == len(expected)
        assert stubs.find(ElfAddress(0)) is None
        assert stubs.find(ElfAddress(2**64)) is None


def test_static_and_foreign_files_have_none(tmp_path: Path) -> None:
    program = linked(tmp_path, "-static")
    with program.open("rb") as stream:
        assert len(ElfFile(stream).plt()) == 0
    code = StubCode(ElfAddress(0x1000), b"\xff\x25\0\0\0\0", 16)
    assert len(PltStubs("EM_AARCH64", [code], [])) == 0
    assert len(PltStubs("EM_X86_64", [code], [])) == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return linked(tmp_path_factory.mktemp("plt"), "-Wl,-z,lazy").read_bytes()


def test_damaged_stubs_are_errors_at_worst(whole: bytes) -> None:
    elf = ElfFile(io.BytesIO(whole))
    sections = elf.section(".shstrtab", 1 << 20)
    assert sections is not None
    tables = whole.index(b"libc.so.6") - 2000, whole.index(b"libc.so.6") + 2000
    places = st.one_of(
        st.integers(max(0, tables[0]), tables[1]),
        st.integers(0x1000, 0x1100),
        st.integers(whole.index(sections), len(whole) - 1),
    )

    @settings(max_examples=500, deadline=None)
    @given(st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), min_size=1, max_size=8))
    def damage(changes: list[tuple[int, bytes]]) -> None:
        data = bytearray(whole)
        for at, new in changes:
            data[at : at + len(new)] = new
        try:
            stubs = ElfFile(io.BytesIO(bytes(data))).plt()
            for at in range(0x1000, 0x1200, 4):
                symbol = stubs.find(ElfAddress(at))
                assert symbol is None or symbol.start <= at < symbol.start + symbol.size
        except ElfError:
            pass

    damage()
