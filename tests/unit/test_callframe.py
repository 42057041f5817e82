"""Call frame information: each instruction and encoding, damaged bytes, and real libraries."""

import os
import re
import resource
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaktop.callframe import (
    Cfa,
    Kind,
    Row,
    Rule,
    call_frames_of,
    table_in_header,
    table_of,
)
from leaktop.cursor import CallFrameError, Cursor
from leaktop.elf import ElfFile
from tests.unit.cfibuild import (
    ABSOLUTE,
    CODE_AT,
    DATA_RELATIVE,
    FRAMES_AT,
    HEADER_AT,
    PC_RELATIVE,
    SDATA4,
    UDATA4,
    UDATA8,
    Common,
    Function,
    block,
    build,
    frames_of,
    sleb,
    uleb,
)

RBP, RSP, RA = 6, 7, 16
RETURN = {RA: Rule(Kind.OFFSET, -8)}


def row_at(instructions: bytes, distance: int = 0x20, common: Common | None = None) -> Row:
    """Return the row at a distance into a function of these instructions."""
    function = Function(CODE_AT, 0x40, instructions, common or Common())
    row = frames_of(*build([function])).row(CODE_AT + distance)
    assert row is not None
    return row


EXPRESSION = bytes((0x76, 0x78, 0x06))


@pytest.mark.parametrize(
    ("instructions", "cfa"),
    [
        (b"", Cfa(RSP, 8)),
        (b"\x0c" + uleb(RBP) + uleb(300), Cfa(RBP, 300)),
        (b"\x0d" + uleb(RBP), Cfa(RBP, 8)),
        (b"\x0e" + uleb(200), Cfa(RSP, 200)),
        (b"\x12" + uleb(RBP) + sleb(-4), Cfa(RBP, 32)),
        (b"\x13" + sleb(-3), Cfa(RSP, 24)),
        (b"\x0f" + block(EXPRESSION), Cfa(expression=EXPRESSION)),
    ],
    ids=["none", "def_cfa", "register", "offset", "def_cfa_sf", "offset_sf", "expression"],
)
def test_cfa_instructions(instructions: bytes, cfa: Cfa) -> None:
    assert row_at(instructions) == Row(cfa, RETURN, RA, signal_frame=False)


@pytest.mark.parametrize(
    ("instructions", "rule"),
    [
        (b"\x83" + uleb(5), Rule(Kind.OFFSET, -40)),
        (b"\x05\x03" + uleb(200), Rule(Kind.OFFSET, -1600)),
        (b"\x07\x03", Rule(Kind.UNDEFINED)),
        (b"\x08\x03", Rule(Kind.SAME_VALUE)),
        (b"\x09\x03\x0c", Rule(Kind.REGISTER, 12)),
        (b"\x10\x03" + block(EXPRESSION), Rule(Kind.EXPRESSION, 0, EXPRESSION)),
        (b"\x11\x03" + sleb(-2), Rule(Kind.OFFSET, 16)),
        (b"\x14\x03" + uleb(2), Rule(Kind.VAL_OFFSET, -16)),
        (b"\x15\x03" + sleb(-2), Rule(Kind.VAL_OFFSET, 16)),
        (b"\x16\x03" + block(EXPRESSION), Rule(Kind.VAL_EXPRESSION, 0, EXPRESSION)),
        (b"\x2f\x03" + uleb(2), Rule(Kind.OFFSET, 16)),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Rule) else value.hex(),
)
def test_register_instructions(instructions: bytes, rule: Rule) -> None:
    assert row_at(instructions).registers == {**RETURN, 3: rule}


def test_nothing_happens() -> None:
    assert row_at(b"\x00\x2e" + uleb(16) + b"\x00") == row_at(b"")


@pytest.mark.parametrize(
    ("advance", "distance"),
    [(b"\x44", 4), (b"\x02\x20", 0x20), (b"\x03\x20\0", 0x20), (b"\x04\x21\0\0\0", 0x21)],
)
def test_advance(advance: bytes, distance: int) -> None:
    instructions = advance + b"\x0e" + uleb(16)
    assert row_at(instructions, distance - 1).cfa == Cfa(RSP, 8)
    assert row_at(instructions, distance).cfa == Cfa(RSP, 16)


def test_advance_counts_in_units_of_code() -> None:
    instructions, common = b"\x41\x0e" + uleb(16), Common(code_factor=4)
    assert row_at(instructions, 3, common).cfa == Cfa(RSP, 8)
    assert row_at(instructions, 4, common).cfa == Cfa(RSP, 16)


def test_set_location() -> None:
    common = Common(encoding=UDATA8)
    instructions = b"\x01" + struct.pack("<Q", CODE_AT + 0x10) + b"\x0e" + uleb(16)
    assert row_at(instructions, 0x0F, common).cfa == Cfa(RSP, 8)
    assert row_at(instructions, 0x10, common).cfa == Cfa(RSP, 16)


def test_restore() -> None:
    common = Common(instructions=Common.instructions + b"\x83\x02")
    initial = {**RETURN, 3: Rule(Kind.OFFSET, -16)}
    assert row_at(b"\x83\x05\xc3", common=common).registers == initial
    assert row_at(b"\x83\x05\x06\x03", common=common).registers == initial
    assert row_at(b"\x86\x05\xc6").registers == RETURN


def test_states_nest() -> None:
    inner = b"\x0a\x0e" + uleb(16) + b"\x86\x02\x0a\x0e" + uleb(32)
    assert row_at(inner).cfa == Cfa(RSP, 32)
    once = row_at(inner + b"\x0b")
    assert (once.cfa, once.registers) == (Cfa(RSP, 16), {**RETURN, RBP: Rule(Kind.OFFSET, -16)})
    assert row_at(inner + b"\x0b\x0b") == row_at(b"")


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x0b",
        b"\x0a" * 65,
        b"\x3f",
        b"\x1c",
        b"\x0e" + b"\xff" * 11,
        b"\x0f" + uleb(1000) + b"\x00",
        b"\x05" + uleb(100_000) + b"\x01",
        b"\x0c\x07",
    ],
)
def test_what_no_compiler_writes_is_refused(instructions: bytes) -> None:
    with pytest.raises(CallFrameError):
        row_at(instructions + b"\xff" * 12)


FORMS = (ABSOLUTE, 0x01, 0x02, UDATA4, UDATA8, 0x09, 0x0A, SDATA4, 0x0C)
# the code lies before: a distance that is relative needs a sign, or to wrap
SIGNED = (ABSOLUTE, UDATA8, 0x09, 0x0A, SDATA4, 0x0C)


@pytest.mark.parametrize(
    ("form", "relative"),
    [
        *((form, 0) for form in FORMS),
        *((form, relative) for form in SIGNED for relative in (PC_RELATIVE, DATA_RELATIVE)),
    ],
)
def test_pointer_encodings(form: int, relative: int) -> None:
    common = Common(encoding=form | relative)
    frames = frames_of(*build([Function(CODE_AT, 0x40, b"\x0e" + uleb(24), common)]))
    found = frames.row(CODE_AT)
    assert found is not None
    assert found.cfa == Cfa(RSP, 24)
    assert frames.extent(CODE_AT + 0x3F) == (CODE_AT, 0x40)
    assert frames.row(CODE_AT + 0x40) is None


def test_augmentations() -> None:
    signal = Common(augmentation="zRS")
    assert row_at(b"", common=signal).signal_frame
    handler = struct.pack("<B4x", 0x9B)  # indirect, pc-relative, sdata4
    everything = Common("zPLR", data=handler + bytes((0x1B, 0x1B)))
    assert row_at(b"", common=everything) == row_at(b"")
    assert row_at(b"", common=Common("", encoding=ABSOLUTE)) == row_at(b"")
    assert row_at(b"", common=Common("zR\x7f", data=b"\x1babc")) == row_at(b"")
    assert row_at(b"", common=Common(version=3)) == row_at(b"")
    assert row_at(b"", common=Common(version=4)) == row_at(b"")
    for wrong in (Common("eh"), Common(version=9), Common("zP", data=b"\xff")):
        with pytest.raises(CallFrameError):
            row_at(b"", common=wrong)


def test_the_function_that_holds_an_address() -> None:
    functions = [Function(CODE_AT + 0x100 * i, 0x80, b"\x0e" + uleb(16 + i)) for i in range(9)]
    frames = frames_of(*build(functions))
    for i, function in enumerate(functions):
        for distance in (0, 1, 0x7F):
            row = frames.row(function.start + distance)
            assert row is not None
            assert row.cfa.offset == 16 + i
        assert frames.row(function.start + 0x80) is None
        assert frames.extent(function.start + 5) == (function.start, 0x80)
    assert frames.row(CODE_AT - 1) is None
    assert frames.row(0) is None
    assert frames.row(2**63) is None


def test_a_file_without_search_table() -> None:
    functions = [Function(CODE_AT + 0x100 * (7 - i), 0x80) for i in range(8)]
    header, section = build(functions)
    made = table_of(FRAMES_AT, section).astype(int) + FRAMES_AT
    assert made.tolist() == (table_in_header(HEADER_AT, header).astype(int) + HEADER_AT).tolist()
    # objects end with terminators; what is damaged ends it
    assert len(table_of(FRAMES_AT, section + section)) == 16
    assert len(table_of(FRAMES_AT, section[:-20])) == 7
    assert len(table_of(FRAMES_AT, b"")) == 0


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\1",
        b"\2\x1b\3\x3b" + bytes(8),
        b"\1\x1b\xff\xff" + bytes(8),
        b"\1\x1b\3\x1b" + bytes(8),
    ],
)
def test_headers_without_table(header: bytes) -> None:
    with pytest.raises(CallFrameError):
        table_in_header(HEADER_AT, header)


def test_a_header_that_promises_more_than_it_has() -> None:
    header, section = build([Function(CODE_AT, 0x40)])
    short = header[:8] + struct.pack("<I", 2**32 - 1) + header[12:] + b"abc"
    assert frames_of(short, section).row(CODE_AT) is not None


@given(st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1))
def test_leb(unsigned: int, signed: int) -> None:
    cursor = Cursor(uleb(unsigned) + sleb(signed), 0)
    assert (cursor.uleb(), cursor.sleb(), cursor.at_end) == (unsigned, signed, True)


RICH = build(
    [
        Function(CODE_AT, 0x40, b"\x41\x0e\x10\x86\x02\x43\x0d\x06\x0a\x60\x0c\x07\x08\x41\x0b"),
        Function(CODE_AT + 0x40, 0x40, b"\x0f\x03\x76\x78\x06\x10\x06\x02\x76\x00", Common("zRS")),
        Function(
            CODE_AT + 0x80, 0x40, b"\x07\x10", Common("zPLR", data=b"\x9b" + bytes(4) + b"\x1b\x1b")
        ),
    ]
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=12),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_damage_is_an_error_or_an_answer(
    damage: list[tuple[int, int]], cut_header: int, cut_section: int
) -> None:
    header, section = (bytearray(part) for part in RICH)
    both = len(header) + len(section)
    for at, value in damage:
        where = at % both - len(header)
        (header if where < 0 else section)[where] = value
    del header[max(16, len(header) - cut_header % 24) :]
    del section[max(0, len(section) - cut_section % 40) :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table_of(FRAMES_AT, bytes(section))
    try:
        frames = frames_of(bytes(header), bytes(section))
    except CallFrameError:
        return
    for address in range(CODE_AT - 8, CODE_AT + 0xC8, 8):
        try:
            frames.row(address)
            frames.extent(address)
        except CallFrameError:
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 0x3F))
def test_any_instructions(instructions: bytes, distance: int) -> None:
    try:
        row = row_at(instructions, distance)
    except CallFrameError:
        return
    assert row.return_register == RA


def test_states_that_would_take_much_memory() -> None:
    many = b"".join(b"\x05" + uleb(register) + b"\x01" for register in range(200_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CallFrameError):
        row_at(many + b"\x0a" * 60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


# ---- readelf as the judge ----

NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp")
NUMBERS = {name: number for number, name in enumerate(NAMES)}
NUMBERS |= {f"r{number}": number for number in range(8, 16)} | {"ra": 16}
ADDRESS = re.compile("[0-9a-f]{16}")
SAMPLE_ROWS = 3000


def interpreted(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (address, columns) of the rows that readelf makes of a file."""
    rows: list[tuple[int, dict[str, str]]] = []
    columns: list[str] = []
    inside = False
    # the file itself, not a debug file that happens to be installed beside it
    command = ("readelf", "--debug-dump=frames-interp", "--debug-dump=no-follow-links", str(path))
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        fields = line.split()
        if " FDE " in line:
            inside = True
        elif " CIE " in line:
            inside = False
        elif fields[:2] == ["LOC", "CFA"]:
            columns = fields[1:]
        elif inside and len(fields) == len(columns) + 1 and ADDRESS.fullmatch(fields[0]):
            rows.append((int(fields[0], 16), dict(zip(columns, fields[1:], strict=True))))
    return rows


def as_readelf(row: Row, columns: dict[str, str]) -> dict[str, str]:
    """Return what readelf shows for a row, in the same columns."""
    cfa = "exp"
    if row.cfa.expression is None:
        cfa = f"{NAMES[row.cfa.register] if row.cfa.register < 8 else f'r{row.cfa.register}'}"
        cfa += f"{row.cfa.offset:+d}"
    shown = {"CFA": cfa}
    for name in columns.keys() - {"CFA"}:
        rule = row.registers.get(NUMBERS[name])
        if rule is None or rule.kind is Kind.SAME_VALUE:
            shown[name] = "u"
        else:
            shown[name] = {
                Kind.OFFSET: f"c{rule.value:+d}",
                Kind.VAL_OFFSET: f"v{rule.value:+d}",
                Kind.EXPRESSION: "exp",
                Kind.VAL_EXPRESSION: "vexp",
                Kind.UNDEFINED: "u",
                Kind.REGISTER: f"r{rule.value}",
            }[rule.kind]
    return shown


def library(name: str) -> Path:
    found = [*Path("/lib").glob(f"*/{name}"), *Path("/usr/lib").glob(f"*/{name}")]
    return found[0] if found else Path("/usr/bin") / name


@pytest.mark.parametrize("name", ["libc.so.6", "libstdc++.so.6", "python3"])
def test_rows_of_real_files(name: str) -> None:
    path = library(name)
    if not path.exists() or shutil.which("readelf") is None:
        assert not os.environ.get("CI")
        pytest.skip(f"needs readelf and {path}")
    with path.open("rb") as file:
        frames = call_frames_of(ElfFile(file))
        assert frames is not None
        rows = interpreted(path)
        assert len(rows) > SAMPLE_ROWS
        for address, columns in rows[:: len(rows) // SAMPLE_ROWS]:
            row = frames.row(address)
            assert row is not None
            same = {name: "u" if rule == "s" else rule for name, rule in columns.items()}
            assert as_readelf(row, columns) == same, f"{address:#x}"
