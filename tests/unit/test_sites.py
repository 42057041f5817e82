"""Where functions return: hand-assembled code, and the operators of real allocators."""

import shutil
import subprocess
from pathlib import Path

import pytest

from leaktop.elf import ElfFile
from leaktop.tracer.code import Functions
from leaktop.tracer.sites import UnclearError, return_sites

# Each function is described by call frame information; labels out_N stand at its returns.
CODE = """
    .macro function name
    .globl \\name
    .type \\name, @function
    \\name:
    .cfi_startproc
    .endm
    .macro end name
    .cfi_endproc
    .size \\name, . - \\name
    .endm
    .macro out name
    .globl \\name
    \\name:
    .endm

    .text
    function plain
        test %rdi, %rdi
        je 1f
        out plain_1
        ret
    1:  call other@PLT
        out plain_2
        repz ret
    end plain

    function hot
        test %rdi, %rdi
        je cold
        out hot_1
        ret
    end hot

    function tail
        jmp hot
    end tail

    function loops
    1:  dec %rdi
        jne 1b
        jmp loops
        out loops_1
        ret
    end loops

    function through_plt
        test %rdi, %rdi
        je exported@PLT
        out through_plt_1
        ret
    end through_plt

    function elsewhere
        jmp other@PLT
    end elsewhere

    function computed
        jmp *%rax
    end computed

    function table
        notrack jmp *(%rax, %rdi, 8)
    end table

    function throws
        call other@PLT
    end throws

    function odd
        .byte 0x06, 0x07
        ret
    end odd

    .globl undescribed
    .type undescribed, @function
    undescribed:
        ret
    .size undescribed, 1

    function to_undescribed
        jmp 1f
    end to_undescribed
        .space 64, 0x90
    1:  ret

    function exported
        out exported_1
        ret
    end exported

    .macro chain from, to
    function chain_\\from
        jmp chain_\\to
    end chain_\\from
    .endm
    .set i, 0
    .rept 20
        .altmacro
        chain %i, %(i + 1)
        .noaltmacro
        .set i, i + 1
    .endr
    function chain_20
        ret
    end chain_20

    .section .text.unlikely, "ax", @progbits
    .type cold, @function
    cold:
    .cfi_startproc
        test %rsi, %rsi
        je hot
        out cold_1
        ret
    end cold

    .section .note.GNU-stack, "", @progbits
"""


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to assemble")
    folder = tmp_path_factory.mktemp("sites")
    source, library = folder / "sites.s", folder / "libsites.so"
    source.write_text(CODE)
    command = ("gcc", "-shared", "-nostdlib", "-Wl,-z,lazy", "-o", str(library), str(source))
    subprocess.run(command, check=True)
    return library


def returns(library: Path, function: str) -> set[int]:
    with library.open("rb") as file:
        elf = ElfFile(file)
        return set(return_sites(Functions(elf), elf.functions([function])[function]))


def labels(library: Path, *names: str) -> set[int]:
    command = ("nm", "--defined-only", str(library))
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    places = {line.split()[2]: int(line.split()[0], 16) for line in text.splitlines()}
    return {places[name] for name in names}


@pytest.mark.parametrize(
    ("function", "outs"),
    [
        ("plain", ("plain_1", "plain_2")),
        ("hot", ("hot_1", "cold_1")),
        ("tail", ("hot_1", "cold_1")),
        ("loops", ("loops_1",)),
        ("through_plt", ("through_plt_1", "exported_1")),
        ("throws", ()),
    ],
)
def test_every_return(assembled: Path, function: str, outs: tuple[str, ...]) -> None:
    assert returns(assembled, function) == labels(assembled, *outs)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("computed", "computed"),
        ("table", "computed"),
        ("elsewhere", "other of another file"),
        ("odd", "not understood"),
        ("undescribed", "no function is described"),
        ("to_undescribed", "no function is described"),
        ("chain_0", "too many"),
    ],
)
def test_what_is_unclear(assembled: Path, function: str, why: str) -> None:
    with pytest.raises(UnclearError, match=why):
        returns(assembled, function)


def test_a_file_without_call_frames(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to assemble")
    source, library = tmp_path / "bare.s", tmp_path / "libbare.so"
    source.write_text(".globl bare\n.type bare, @function\nbare: ret\n.size bare, 1\n")
    without = ("-Wl,--no-eh-frame-hdr", "-Wl,--no-ld-generated-unwind-info")
    command = ("gcc", "-shared", "-nostdlib", *without, "-o", str(library), str(source))
    subprocess.run(command, check=True)
    with pytest.raises(UnclearError, match="where its functions end"):
        returns(library, "bare")
