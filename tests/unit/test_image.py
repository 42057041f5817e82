"""Compiled programs that are kept: which are used again, and which are not trusted."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.tracer import kernel
from leaktop.tracer.image import Cache, Image, ProgramCode, image_of, source_of
from leaktop.tracer.kernel import MapSpec

KEY = "ab" * 32
IMAGE = Image(
    (MapSpec("config", 2, 4, 104, 1, 0, ("phase", "min_size")),),
    {"on_call": ProgramCode(bytes(range(16)), ((1, 0), (5, 0)))},
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_was_kept_comes_back(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, IMAGE)
    assert cache.get(KEY) == IMAGE
    assert cache.get("cd" * 32) is None


def test_what_was_kept_is_compiled_no_more(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_(request: object) -> Image:
        compiled.append(request)
        return IMAGE

    monkeypatch.setattr("leaktop.tracer.image._compile", compile_)
    for flags in (["-DA"], ["-DA"], ["-DB"], ["-DA"]):
        assert image_of("memleak.bpf.c", ["on_call"], flags, cache) == IMAGE
    assert len(compiled) == 2


def test_the_folder_and_its_files_are_for_their_owner_alone(cache: Cache, tmp_path: Path) -> None:
    cache.put(KEY, IMAGE)
    folder = tmp_path / "cache"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == [KEY]
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("of", ["folder", "file"])
def test_what_others_may_write_is_not_trusted(cache: Cache, tmp_path: Path, of: str) -> None:
    cache.put(KEY, IMAGE)
    path = tmp_path / "cache" / (KEY if of == "file" else "")
    path.chmod(path.stat().st_mode | 0o022)
    assert cache.get(KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("of", ["folder", "file"])
def test_what_belongs_to_another_is_not_trusted(cache: Cache, tmp_path: Path, of: str) -> None:
    cache.put(KEY, IMAGE)
    os.chown(tmp_path / "cache" / (KEY if of == "file" else ""), 1, 1)
    assert cache.get(KEY) is None


@pytest.mark.parametrize("of", ["folder", "file"])
def test_links_are_not_followed(cache: Cache, tmp_path: Path, of: str) -> None:
    cache.put(KEY, IMAGE)
    path = tmp_path / "cache" / (KEY if of == "file" else "")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")
    cache.put(KEY, IMAGE)
    assert cache.get(KEY) is None


def test_only_the_last_ones_are_kept(cache: Cache, tmp_path: Path) -> None:
    for number in range(12):
        cache.put(f"{number:064}", IMAGE)
        os.utime(tmp_path / "cache" / f"{number:064}", (number, number))
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(names) == 8
    assert names[-1] == f"{11:064}"


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
