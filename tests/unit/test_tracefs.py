"""Tracepoints as tracefs describes them; the live tests read the real ones."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.tracer import TracerError, tracefs
from leaktop.tracer.image import BPF_SOURCE
from leaktop.tracer.kmem_program import TRACEPOINTS, Tracepoint, field_flags
from leaktop.tracer.tracefs import Field, Format, opened_tracefs, parse_format, read_format

CACHE_ALLOC = """\
name: kmem_cache_alloc
ID: 659
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long call_site;\toffset:8;\tsize:8;\tsigned:0;
\tfield:const void * ptr;\toffset:16;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:24;\tsize:4;\tsigned:0;
\tfield:size_t bytes_req;\toffset:32;\tsize:8;\tsigned:0;
\tfield:size_t bytes_alloc;\toffset:40;\tsize:8;\tsigned:0;
\tfield:bool accounted;\toffset:60;\tsize:1;\tsigned:0;
\tfield:char comm[16];\toffset:64;\tsize:16;\tsigned:0;
\tfield:void __seg_gs * base;\toffset:80;\tsize:8;\tsigned:0;

print fmt: "call_site=%pS ptr=%p name=%s", (void *)REC->call_site, REC->ptr, __get_str(name)
"""
EVENT = Tracepoint("kmem:kmem_cache_alloc", {"ptr": 8}, {"name": 4}, required=True)


def test_a_format_as_the_kernel_gives_it() -> None:
    found = parse_format(CACHE_ALLOC)
    assert found.number == 659
    assert found.fields["ptr"] == Field(16, 8, located=False)
    assert found.fields["name"] == Field(24, 4, located=True)
    assert found.fields["comm"] == Field(64, 16, located=False)
    assert found.fields["base"] == Field(80, 8, located=False)
    assert list(found.fields)[:2] == ["common_type", "common_pid"]


@given(st.text())
def test_anything_is_a_value_error_at_worst(text: str) -> None:
    with suppress(ValueError):
        parse_format(text)


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,30}", fullmatch=True)
TYPES = st.sampled_from(["int", "unsigned long", "const void *", "struct page *", "size_t"])


@given(
    st.integers(0, 10**6),
    st.dictionaries(
        NAMES,
        st.tuples(TYPES, st.integers(0, 4096), st.sampled_from([1, 2, 4, 8, 40]), st.booleans()),
        max_size=12,
    ),
)
def test_every_field_is_found_where_it_lies(
    number: int, fields: dict[str, tuple[str, int, int, bool]]
) -> None:
    lines = [f"name: x\nID: {number}\nformat:"]
    for name, (kind, offset, size, located) in fields.items():
        words = f"__data_loc {kind}[] {name}" if located else f"{kind} {name}"
        lines.append(f"\tfield:{words};\toffset:{offset};\tsize:{size};\tsigned:0;")
    assert parse_format("\n".join([*lines, "", 'print fmt: ""', ""])) == Format(
        number,
        {name: Field(offset, size, at) for name, (_, offset, size, at) in fields.items()},
    )


def test_the_compiler_is_told_where_fields_lie() -> None:
    assert field_flags(EVENT, parse_format(CACHE_ALLOC)) == [
        "-DKMEM_CACHE_ALLOC",
        "-DKMEM_CACHE_ALLOC_PTR=16",
        "-DKMEM_CACHE_ALLOC_NAME=24",
    ]


def test_a_helpful_field_may_be_missing() -> None:
    without = CACHE_ALLOC.replace("__data_loc char[] name", "char * name")
    assert field_flags(EVENT, parse_format(without)) == [
        "-DKMEM_CACHE_ALLOC",
        "-DKMEM_CACHE_ALLOC_PTR=16",
    ]


@pytest.mark.parametrize("other", ["const void * address", "const void * ptr;\toffset:16;\tsize:4"])
def test_a_needed_field_that_is_missing_or_of_another_size_is_said(other: str) -> None:
    text = CACHE_ALLOC.replace("const void * ptr", other)
    with pytest.raises(TracerError, match="no field ptr of 8 bytes") as refusal:
        field_flags(EVENT, parse_format(text))
    assert refusal.value.exit_code == 3


def test_there_is_a_program_for_each_tracepoint() -> None:
    source = (BPF_SOURCE / "kmem.bpf.c").read_text()
    for tracepoint in TRACEPOINTS:
        assert f"#ifdef {tracepoint.macro}\n" in source
        assert f"{tracepoint.program}(" in source.replace(",", "(")


def fake(folder: Path) -> None:
    event = folder / "events" / "kmem" / "kmem_cache_alloc"
    event.mkdir(parents=True)
    (event / "format").write_text(CACHE_ALLOC)


def refuse() -> int:
    raise PermissionError(1, "Operation not permitted")


def test_a_mounted_tracefs_is_used_where_none_can_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "second")
    monkeypatch.setattr(tracefs, "_mounted_nowhere", refuse)
    monkeypatch.setattr(tracefs, "MOUNTED", (tmp_path / "first", tmp_path / "second"))
    with opened_tracefs() as folder:
        assert read_format(folder, "kmem:kmem_cache_alloc") == parse_format(CACHE_ALLOC)
        assert read_format(folder, "kmem:kmalloc_node") is None


def test_without_any_the_one_command_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracefs, "_mounted_nowhere", refuse)
    monkeypatch.setattr(tracefs, "MOUNTED", (tmp_path / "tracing",))
    with pytest.raises(TracerError, match=f"mount -t tracefs nodev {tmp_path}/tracing") as refusal:
        opened_tracefs().__enter__()
    assert refusal.value.exit_code == 3


def test_a_description_that_is_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path)
    (tmp_path / "events/kmem/kmem_cache_alloc/format").write_text("nothing")
    monkeypatch.setattr(tracefs, "_mounted_nowhere", refuse)
    monkeypatch.setattr(tracefs, "MOUNTED", (tmp_path,))
    with (
        opened_tracefs() as folder,
        pytest.raises(TracerError, match="kmem:kmem_cache_alloc cannot be read"),
    ):
        read_format(folder, "kmem:kmem_cache_alloc")
