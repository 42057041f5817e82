"""Parsers of /proc: the kernel's own text, names made to confuse, and anything at all."""

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.procfs import (
    Mapping,
    Stat,
    parse_build_id,
    parse_command,
    parse_effective_uid,
    parse_maps,
    parse_meminfo,
    parse_stat,
    parse_statm_resident,
    parse_status,
    unescape_path,
)

STAT_TAIL = " S 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 1234 20 21 22 23 24 140737 26"
NAMES = st.text(st.characters(blacklist_characters="\0\n\\", blacklist_categories=["Cs"]))


def test_maps_line_by_line() -> None:
    text = (
        "55d0-55e0 r-xp 00001000 fe:02 1311 /usr/bin/a program (deleted)\n"
        "7f00-7f10 rw-p 00000000 00:00 0 \n"
        "7fff-8000 r-xp 00000000 00:00 0                          [vdso]\n"
    )
    program, memory, vdso = parse_maps(text)
    assert program == Mapping(
        *(0x55D0, 0x55E0, "r-xp", 0x1000, "fe:02", 1311, "/usr/bin/a program"), deleted=True
    )
    assert (program.executable, program.file_backed) == (True, True)
    assert program.map_files_name == "55d0-55e0"
    assert (memory.path, memory.executable, memory.file_backed) == ("", False, False)
    assert (vdso.path, vdso.executable, vdso.file_backed) == ("[vdso]", True, False)


def test_own_maps_have_map_files_entries() -> None:
    if os.geteuid() != 0:
        pytest.skip("map_files needs root")
    found = list(parse_maps(Path("/proc/self/maps").read_text()))
    entries = {each.name for each in Path("/proc/self/map_files").iterdir()}
    backed = {each.map_files_name for each in found if each.file_backed}
    assert backed
    assert backed <= entries


@given(NAMES.map(lambda name: "/" + name))
def test_any_path_survives(name: str) -> None:
    escaped = name.replace("\n", "\\012")
    (mapping,) = parse_maps(f"1000-2000 r-xp 00000000 fe:02 7    {escaped}\n")
    assert mapping.path + (" (deleted)" if mapping.deleted else "") == name


@pytest.mark.parametrize(
    "name",
    ["/a  b", "/trailing ", "/line\nbreak", "/back\\slash", "/\x0b", "/\x85", "/\u2028", "/\\0"],
)
def test_odd_paths(name: str) -> None:
    escaped = name.replace("\n", "\\012")
    (mapping,) = parse_maps(f"1000-2000 r-xp 00000000 fe:02 7    {escaped}\n")
    assert mapping.path == name


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_names_forge_no_lines(end: str) -> None:
    forged = f"/a{end}2000-3000 r-xp 00000000 fe:02 7 /forged"
    assert len(list(parse_maps(f"1000-2000 r-xp 00000000 fe:02 7    {forged}\n"))) == 1
    assert parse_status(f"Name:\ta{end}Uid:\t0\n").keys() == {"Name"}


def test_escapes_of_paths() -> None:
    assert unescape_path(r"/a\012b") == "/a\nb"
    assert unescape_path(r"/plain\x\101") == r"/plain\x\101"  # the kernel escapes nothing else


@given(st.text())
def test_anything_is_no_maps_at_worst(text: str) -> None:
    for mapping in parse_maps(text):
        assert isinstance(mapping.path, str)


@given(NAMES.filter(lambda name: len(name) <= 64))
def test_stat_of_any_name(name: str) -> None:
    stat = Stat(name, "S", 4194560, 1234, 140737, threads=17, resident=21)
    assert parse_stat(f"12 ({name}){STAT_TAIL}") == stat


def test_stat_of_hostile_names() -> None:
    assert parse_stat(f"12 (a) R 1 (b){STAT_TAIL}").comm == "a) R 1 (b"
    assert len(parse_stat(f"12 ({'x' * 1000}){STAT_TAIL}").comm) == 64
    assert parse_stat(f"12 (kthreadd){STAT_TAIL.replace('4194560', '2129984')}").kernel_thread


def test_own_stat() -> None:
    stat = parse_stat(Path("/proc/self/stat").read_text())
    assert not stat.kernel_thread
    assert stat.state == "R"
    assert stat.start_stack > 0


@given(st.text())
def test_anything_is_a_value_error_at_worst(text: str) -> None:
    for parse in (parse_stat, parse_statm_resident, parse_effective_uid):
        with suppress(ValueError):
            parse(text)


@given(st.text())
def test_status_of_anything(text: str) -> None:
    for value in parse_status(text).values():
        assert value == value.strip()


def test_status_and_statm() -> None:
    status = parse_status(Path("/proc/self/status").read_text())
    assert int(status["Pid"]) == os.getpid()
    assert parse_status("Name:\ta:b\nnothing\n") == {"Name": "a:b"}
    assert parse_statm_resident("100 42 7 1 0 9 0\n") == 42
    assert parse_statm_resident(Path("/proc/self/statm").read_text()) > 0
    with pytest.raises(ValueError, match="not a statm line"):
        parse_statm_resident("1")


def test_meminfo() -> None:
    text = "MemTotal:       24684096 kB\nSlab: 320744 kB\nHugePages_Total:       0\nbad: kB\n"
    assert parse_meminfo(text) == {"MemTotal": 24684096 * 1024, "Slab": 320744 * 1024}
    assert parse_meminfo(Path("/proc/meminfo").read_text())["MemAvailable"] > 0


@given(st.text())
def test_meminfo_of_anything(text: str) -> None:
    assert all(amount >= 0 for amount in parse_meminfo(text).values())


def test_effective_user() -> None:
    assert parse_effective_uid("Name:\tsu\nUid:\t1000\t0\t0\t0\n") == 0
    assert parse_effective_uid(Path("/proc/self/status").read_text()) == os.geteuid()
    with pytest.raises(ValueError, match="no Uid"):
        parse_effective_uid("Name:\tsu\n")


@given(st.text())
def test_commands_of_anything(text: str) -> None:
    folder, command = parse_command(text)
    assert folder == "" or (folder[0] == folder[-1] == "/")
    assert "\0" not in folder + command
    parse_meminfo(text)


def note(name: bytes, kind: int, descriptor: bytes) -> bytes:
    def padded(data: bytes) -> bytes:
        return data.ljust(len(data) + 3 & ~3, b"\0")

    sizes = struct.pack("=3I", len(name), len(descriptor), kind)
    return sizes + padded(name) + padded(descriptor)


def test_the_build_id_is_found_among_other_notes() -> None:
    others = note(b"Xen\0", 3, b"none") + note(b"GNU\0", 1, b"12345")
    assert parse_build_id(others + note(b"GNU\0", 3, bytes(range(20)))) == bytes(range(20)).hex()
    assert parse_build_id(others) is None
    assert parse_build_id(others + note(b"GNU\0", 3, bytes(20))[:-1]) is None


def test_the_kernels_own_build_id() -> None:
    found = parse_build_id(Path("/sys/kernel/notes").read_bytes())
    assert found is None or len(found) >= 16


@given(st.binary(max_size=200))
def test_no_notes_are_too_strange(notes: bytes) -> None:
    parse_build_id(notes)
