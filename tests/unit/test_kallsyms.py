"""Names of the kernel's functions: texts made up here; the live test reads the real one."""

import re
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaktop import kallsyms
from leaktop.elf import FileOffset
from leaktop.kallsyms import KernelSymbols, is_kernel_address
from leaktop.modules import Location
from leaktop.symbolize import Symbolizer

BASE = 0xFFFFFFFF81000000
LISTING = f"""\
0000000000001000 A this_cpu_off
{BASE:016x} T _stext
{BASE:016x} t do_one_initcall
{BASE + 0x100:016x} T __x64_sys_read
{BASE + 0x100:016x} T sys_read
{BASE + 0x100:016x} t read
{BASE + 0x200:016x} D jiffies
{BASE + 0x300:016x} W weak
ffffffffc0a00000 t nft_do_chain\t[nf_tables]
ffffffffc0b00000 t bpf_prog_265557c88da917aa_on_call\t[bpf]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kallsyms"
    path.write_text(LISTING)
    return path


def test_the_upper_half_is_the_kernels() -> None:
    addresses = (0, 2**47, 2**63 - 1, 2**63, BASE, 2**64 - 1, 2**64)
    assert [is_kernel_address(at) for at in addresses] == [False] * 3 + [True] * 3 + [False]


@pytest.mark.parametrize(
    ("address", "name", "module"),
    [
        (BASE, "do_one_initcall", "[kernel]"),
        (BASE + 0xFF, "do_one_initcall", "[kernel]"),
        (BASE + 0x100, "sys_read", "[kernel]"),
        (BASE + 0x1FF, "sys_read", "[kernel]"),
        (BASE + 0x2FF, None, None),
        (BASE + 0x301, "weak", "[kernel]"),
        (BASE - 1, None, None),
        (0xFFFFFFFFC0A00010, "nft_do_chain", "[nf_tables]"),
        (0xFFFFFFFFC0AFFFFF, None, None),
        (0xFFFFFFFFC0B00001, "bpf_prog_265557c88da917aa_on_call", "[bpf]"),
        (0x1000, None, None),
        (2**64, None, None),
        (-1, None, None),
    ],
)
def test_function_at(path: Path, address: int, name: str | None, module: str | None) -> None:
    found = KernelSymbols(path).find(address)
    assert (found and found.name, found and found.module) == (name, module)
    assert found is None or found.start <= address


def test_frames_of_the_kernel(path: Path) -> None:
    symbolizer = Symbolizer(kernel=KernelSymbols(path))
    addresses = (BASE + 0x200, 0xFFFFFFFFC0A00010, BASE + 0x250, 0x1000)
    for lines in (False, True):
        frames = symbolizer.frames(
            [Location(at, None, FileOffset(0)) for at in addresses], lines=lines
        )
        assert [(each.module, each.symbol, each.offset) for each in frames] == [
            ("[kernel]", "sys_read", 0x100),  # a call may be a function's last instruction
            ("[nf_tables]", "nft_do_chain", 0x10),
            ("[kernel]", None, None),
            (None, None, None),
        ]
    assert symbolizer.problems() == {}
    symbolizer.close()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0000000000000000 T _stext\n0000000000000000 t one\n", "the kernel hides its addresses"),
        ("", "lists no functions"),
        ("no listing\n" * 10, "lists no functions"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_without_addresses_it_says_why(path: Path, text: str | None, problem: str) -> None:
    path.unlink()
    if text is not None:
        path.write_text(text)
    symbolizer = Symbolizer(kernel=KernelSymbols(path))
    assert symbolizer.problems() == {}
    (frame,) = symbolizer.frames([Location(BASE, None, FileOffset(0))], lines=False)
    assert (frame.module, frame.symbol) == ("[kernel]", None)
    (reason,) = symbolizer.problems().values()
    assert problem in reason
    assert "\n" not in reason
    symbolizer.close()


def test_a_module_loaded_later_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = KernelSymbols(path)
    later = 0xFFFFFFFFC0C00000
    assert symbols.find(later) is None
    with path.open("a") as listing:
        listing.write(f"{later:016x} t late\t[late]\n")
    assert symbols.find(later) is None  # read a moment ago
    monkeypatch.setattr(symbols, "_rest_until", 0.0)
    found = symbols.find(later)
    assert found is not None
    assert (found.name, found.module) == ("late", "[late]")


def test_bounds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = b"%016x t function_of_usual_length_%d\n"
    path.write_bytes(b"".join(line % (BASE + 16 * i, i) for i in range(300_000)))
    symbols = KernelSymbols(path)
    found = symbols.find(BASE + 16 * 299_999 + 15)
    assert found is not None
    assert found.name == "function_of_usual_length_299999"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10
    monkeypatch.setattr(kallsyms, "_MAX_TEXT", 2 << 20)
    assert 0 < len(_read(path)) < 60_000
    path.write_bytes(b"%016x t %s\n%016x t next\n" % (BASE, b"n" * 5000, BASE + 16))
    assert _read(path).find(BASE) is None
    assert _read(path).find(BASE + 16) is not None


def _read(path: Path) -> KernelSymbols:
    symbols = KernelSymbols(path)
    symbols.find(2**64 - 1)
    return symbols


LINES = st.one_of(
    st.binary(max_size=60),
    st.from_regex(rb"\A[f0-9a-fA-F]{14,18} [tTdA ] [ -~\t\x80-\xff]{0,20}\Z"),
    st.from_regex(rb"\Affffffff8100000[0-9a-f] [tTdA] [ -~\t\x80-\xff]{0,20}\Z"),
)


@pytest.mark.parametrize("name", [b"\x0b", b" ", b"\t[module]"])
def test_name_of_white_space_is_none(path: Path, name: bytes) -> None:
    path.write_bytes(b"ffffffff81000000 T %s\n" % name)
    assert KernelSymbols(path).find(BASE) is None


def test_damaged_text_says_nothing_at_worst(path: Path) -> None:
    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(LINES, max_size=20), st.integers(-(2**64), 2**65))
    def damage(lines: list[bytes], address: int) -> None:
        path.write_bytes(b"\n".join(lines))
        symbols = KernelSymbols(path)
        for at in (address, BASE, BASE + 8, 2**64 - 1):
            found = symbols.find(at)
            if found is not None:
                assert found.name
                assert at - found.start >= 0
                assert len(found.name) <= 4 * 512

    damage()


def test_ranges_end_where_the_next_symbol_begins(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text(
        f"{BASE:016x} t new_slab\n"
        f"{BASE + 0x100:016x} D data\n"
        f"{BASE + 0x200:016x} t allocate_slab.isra.0\n"
        f"{BASE + 0x300:016x} T allocate_slab_other\n"
        f"{BASE + 0x400:016x} d new_slab\n"
        f"ffffffffc0a00000 t new_slab\t[module]\n"
    )
    symbols = KernelSymbols(path)
    assert symbols.ranges(re.compile(rb"new_slab|allocate_slab")) == [
        (BASE, BASE + 0x100),
        (BASE + 0x200, BASE + 0x300),
    ]
    assert symbols.ranges(re.compile(rb"nothing")) == []


def test_no_ranges_of_what_is_hidden(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text("0000000000000000 t new_slab\n0000000000000000 T free\n")
    symbols = KernelSymbols(path)
    assert symbols.ranges(re.compile(rb"new_slab")) == []
    assert "kptr_restrict" in (symbols.problem or "")
