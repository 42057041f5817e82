"""Compiled programs that are kept: which are used again, and what is no program."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.tracer import kernel
from leaktop.tracer.cache import Cache
from leaktop.tracer.image import Image, ProgramCode, image_of, source_of
from leaktop.tracer.kernel import MapSpec

IMAGE = Image(
    (MapSpec("config", 2, 4, 104, 1, 0, ("phase", "min_size")),),
    {"on_call": ProgramCode(bytes(range(16)), ((1, 0), (5, 0)))},
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_was_kept_is_compiled_no_more(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_(request: object) -> Image:
        compiled.append(request)
        return IMAGE

    monkeypatch.setattr("leaktop.tracer.image._compile", compile_)
    for flags in (["-DA"], ["-DA"], ["-DB"], ["-DA"]):
        assert image_of("memleak.bpf.c", ["on_call"], flags, cache) == IMAGE
    assert len(compiled) == 2


def test_what_is_damaged_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaktop.tracer.image._compile", lambda request: IMAGE)
    cache = Cache(tmp_path)
    for text in ("", "{}", '{"maps": [], "programs": {}}'):
        image_of("memleak.bpf.c", ["on_call"], [], cache)
        (kept,) = tmp_path.iterdir()
        kept.write_text(text)
        assert image_of("memleak.bpf.c", ["on_call"], [], cache) == IMAGE
        assert kept.read_text() == IMAGE.to_json()


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_damaged_images_are_refused(text: str | bytes) -> None:
    try:
        Image.from_json(text)
    except ValueError:
        return
    pytest.fail("it was taken for an image")


@given(st.integers(0, len(IMAGE.to_json()) - 1))
def test_images_that_were_cut_are_refused(length: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's and ours)
        Image.from_json(IMAGE.to_json()[:length])


def test_maps_are_named_by_number_and_back() -> None:
    other = struct.pack("<BBhi", 0xB7, 0x10, 0, 7)  # r0 = 7: no map
    load = struct.pack("<BBhiBBhi", 0x18, 0x11, 0, 7, 0, 0, 0, 0)
    found = kernel.relocations(other + load, {7: 3})
    assert found == [(1, 3)]
    moved = kernel.relocate(other + load, found, [0, 0, 0, 99])
    assert moved == other + load.replace(struct.pack("<i", 7), struct.pack("<i", 99))


def test_parts_keep_their_own_line_numbers() -> None:
    text = source_of("memleak.bpf.c")
    assert text.startswith('#line 1 "memleak.bpf.c"\n')
    assert '#line 1 "thread.bpf.h"\n' in text
    assert '#include "thread.bpf.h"' not in text
