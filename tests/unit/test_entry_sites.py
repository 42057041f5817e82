"""Where probes are put: hand-assembled prologues, and those of real allocators."""

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import capstone
import pytest

from leaktop.elf import ElfFile, FileOffset
from leaktop.tracer.code import Functions
from leaktop.tracer.entry_sites import entry_site, other_sites
from leaktop.tracer.probes import Entry, Function, Site, functions_in, table

FREE = Function("free", Entry.FREE)
MALLOC = Function("malloc", Entry.MALLOC)
LIBRARIES = [
    Path(folder, name)
    for folder, name in itertools.product(
        ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/lib"),
        (
            "libc.so.6",
            "ld-musl-x86_64.so.1",
            "libjemalloc.so.2",
            "libtcmalloc_minimal.so.4",
            "libmimalloc.so.2",
            "libstdc++.so.6",
        ),
    )
    if Path(folder, name).exists()
]
CASES = {
    # name: body, function, bytes to the site, part of the reason
    "push_first": ("push %rbp; mov %rdi, %rbp", MALLOC, 0, ""),
    "push_of_a_new_register": ("push %r15; ret", MALLOC, 0, ""),
    "after_a_null_check": ("test %rdi, %rdi; je 1f; push %rbp; 1: ret", FREE, 5, ""),
    "null_check_of_malloc": ("test %rdi, %rdi; je 1f; push %rbp; 1: ret", MALLOC, 3, ""),
    "null_check_that_frees": ("test %rdi, %rdi; je 1f; push %rbp; 1: call *%rax", FREE, 3, ""),
    "other_register_checked": ("test %rsi, %rsi; je 1f; push %rbp; 1: ret", FREE, 3, ""),
    "no_null_check": ("test %rdi, %rdi; jne 1f; push %rbp; 1: ret", FREE, 3, ""),
    "prefixed_nop": (
        ".byte 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0; push %rbp; ret",
        MALLOC,
        10,
        "",
    ),
    "call_first": ("call 1f; 1: push %rbp; ret", MALLOC, 0, "call"),
    "loop_first": ("loop 1f; 1: push %rbp; ret", MALLOC, 0, "loop"),
    "landing_pad": ("endbr64; push %rbx; ret", MALLOC, 4, ""),
    "long_nop": ("nopl 0x0(%rax,%rax,1); ret", MALLOC, 0, ""),
    "argument_changed": ("mov %eax, %edi; push %rbp; ret", MALLOC, 0, "edi is changed"),
    "argument_swapped": ("xchg %rdi, %rax; push %rbp; ret", MALLOC, 0, "rdi is changed"),
    "argument_not_read": ("mov %eax, %esi; push %rbp; ret", MALLOC, 2, ""),
    "stack_moved": ("sub $8, %rsp; push %rbp; ret", MALLOC, 0, "rsp is changed"),
    "stack_popped": ("pop %rax; push %rbp; ret", MALLOC, 0, "rsp is changed"),
    "system_call": ("mov $9, %eax; syscall; push %rbp; ret", MALLOC, 0, "syscall"),
    "returns": ("xor %eax, %eax; ret; push %rbp", MALLOC, 0, "ret"),
    "computed_jump": ("mov %rdi, %rax; jmp *%rax; push %rbp", MALLOC, 0, "jmp rax"),
    "interrupt": ("int3; push %rbp; ret", MALLOC, 0, "int3"),
    "push_of_memory": ("mov %rdi, %rax; push 8(%rax); ret", MALLOC, 0, "rsp is changed"),
    "junk": ("mov %rdi, %rax; .byte 0x06, 0x07", MALLOC, 0, "understood"),
    "ends": ("mov %rdi, %rax", MALLOC, 0, "ends"),
    "back_to_the_entry": ("0: mov %rdi, %rax; push %rbp; jmp 0b", MALLOC, 0, "jumps back"),
    "into_the_prologue": (
        "mov %rdi, %rax; 0: push %rbp; dec %rdi; jne 0b",
        MALLOC,
        0,
        "jumps back",
    ),
    "loop_behind": ("mov %rdi, %rax; push %rbp; 0: dec %rdi; jne 0b; ret", MALLOC, 3, ""),
    "far_away": ("mov %rdi, %rax;" * 20 + "push %rbp; ret", MALLOC, 0, "understood"),
}


OTHERS = {
    # name of a case: shift and words pushed of each other site, best first
    "push_first": [(1, 1)],
    "push_of_a_new_register": [],
    "landing_pad": [(4, 0)],
    "argument_not_read": [(2, 0)],
    "argument_changed": [],
    "argument_swapped": [],
    "stack_moved": [(4, 1)],
    "stack_popped": [],
    "system_call": [],
    "returns": [],
    "after_a_null_check": [(3, 0)],
    "back_to_the_entry": [],
    "junk": [],
    "ends": [],
}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElfFile]:
    folder = tmp_path_factory.mktemp("sites")
    code = "".join(
        f".globl {name}; .type {name}, @function; {name}: .cfi_startproc\n{body}\n"
        f".cfi_endproc; .size {name}, . - {name}; .balign 16, 0xcc\n"
        for name, (body, *_) in CASES.items()
    )
    code += ".globl bare; .type bare, @function; bare: push %rbp; ret; .size bare, . - bare\n"
    source, library = folder / "sites.s", folder / "sites.so"
    source.write_text(f'{code}\n.section .note.GNU-stack, "", @progbits\n')
    gcc = shutil.which("gcc")
    assert gcc
    subprocess.run([gcc, "-shared", "-nostdlib", "-o", library, source], check=True)
    with library.open("rb") as stream:
        yield ElfFile(stream)


def entry_of(elf: ElfFile, name: str) -> FileOffset:
    return elf.functions({name})[name]


@pytest.mark.parametrize("name", CASES)
def test_hand_made(assembled: ElfFile, name: str) -> None:
    _, function, shift, why = CASES[name]
    entry = entry_of(assembled, name)
    site = entry_site(Functions(assembled), entry, function, (entry,))
    assert (site.shift, site.offset) == (shift, entry + shift)
    assert why in site.why
    assert bool(site.instruction) != bool(site.why)


@pytest.mark.parametrize("name", OTHERS)
def test_other_sites(assembled: ElfFile, name: str) -> None:
    entry = entry_of(assembled, name)
    found = list(other_sites(Functions(assembled), entry, CASES[name][1], (entry,)))
    assert [(site.shift, site.pushed) for site in found] == OTHERS[name]
    assert all(site.entry == entry for site in found)


def test_other_sites_are_never_another_function_s(assembled: ElfFile) -> None:
    entry = entry_of(assembled, "argument_not_read")
    others = (entry, FileOffset(entry + 3))
    found = other_sites(Functions(assembled), entry, MALLOC, others)
    assert [site.shift for site in found] == [2]
    assert not list(other_sites(Functions(assembled), entry_of(assembled, "bare"), MALLOC, ()))


def test_a_function_that_is_not_described(assembled: ElfFile) -> None:
    entry = entry_of(assembled, "bare")
    assert entry_site(Functions(assembled), entry, MALLOC, ()) == Site(
        entry, 0, "", "the file does not say where the function ends"
    )


def test_a_site_is_never_another_function_s(assembled: ElfFile) -> None:
    entry = entry_of(assembled, "landing_pad")
    assert (
        entry_site(Functions(assembled), entry, MALLOC, (entry, FileOffset(entry + 5))).shift == 4
    )
    site = entry_site(Functions(assembled), entry, MALLOC, (entry, FileOffset(entry + 4)))
    assert (site.shift, site.why) == (0, "another function begins before the site")


READ = {  # the argument registers that matter, less their first letter; without the stack pointer
    Entry.FREE: "di",
    Entry.MALLOC: "di",
    Entry.NEW: "di",
    Entry.MEMALIGN: "si",
    Entry.CALLOC: "di si",
    Entry.REALLOC: "di si",
    Entry.REALLOCARRAY: "di si dx",
    Entry.POSIX_MEMALIGN: "di dx",
    Entry.MMAP: "di si cx",
    Entry.MREMAP: "di si dx cx",
    Entry.MUNMAP: "di si",
}
EMULATED = ("push", "nop", "j")


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_real_allocators(library: Path) -> None:
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    with library.open("rb") as stream:
        elf = ElfFile(stream)
        functions, there = Functions(elf), elf.functions({function.name for function in table()})
        assert there
        for function, entry in functions_in(table(), there):
            site = entry_site(functions, entry, function, there.values())
            if site.why:
                assert site.offset == entry
                continue
            address = elf.address_of(entry)
            assert address is not None
            code = elf.read_at(address, site.shift + 15)
            *before, last = itertools.takewhile(
                lambda each: each[0] <= address + site.shift,  # noqa: B023
                disassembler.disasm_lite(code, address),
            )
            assert last[0] == address + site.shift, "the site is where an instruction begins"
            assert last[2].startswith(EMULATED)
            for _, _, mnemonic, operands in before:
                assert not mnemonic.startswith(("push", "pop", "call", "ret", "jmp", "syscall"))
                assert mnemonic == "je" or not mnemonic.startswith("j")
                kept = {f"{width}{name}" for name in READ[function.entry].split() for width in "re"}
                if mnemonic not in ("test", "cmp"):
                    assert operands.split(",")[0] not in {"rsp", "esp"} | kept


def test_glibc_of_debian_12() -> None:
    library = Path("/lib/x86_64-linux-gnu/libc.so.6")
    if not library.exists() or b"Debian GLIBC 2.36-9+deb12" not in library.read_bytes():
        return  # another C library: its sites are judged above
    with library.open("rb") as stream:
        elf = ElfFile(stream)
        functions, there = Functions(elf), elf.functions({function.name for function in table()})
        sites = {
            function.name: entry_site(functions, entry, function, there.values())
            for function, entry in functions_in(table(), there)
        }
    assert {name: (site.shift, site.instruction.split()[:1]) for name, site in sites.items()} == {
        "malloc": (0, ["push"]),
        "calloc": (0, ["push"]),
        "realloc": (0, ["push"]),
        "free": (9, ["push"]),
        "posix_memalign": (7, ["push"]),
        "memalign": (7, ["je"]),
        "valloc": (7, ["push"]),
        "pvalloc": (7, ["push"]),
        "reallocarray": (0, []),
        "mmap": (10, ["jne"]),
        "munmap": (0, []),
        "mremap": (0, []),
    }
