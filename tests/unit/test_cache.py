"""What is kept between two starts: what comes back, and what is not trusted."""

import os
from pathlib import Path

import pytest

from leaktop.tracer.cache import Cache

KEY = "ab" * 32
TEXT = "whatever"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_was_kept_comes_back(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, TEXT)
    assert cache.get(KEY) == TEXT.encode()
    assert cache.get("cd" * 32) is None


def test_the_folder_and_its_files_are_for_their_owner_alone(cache: Cache, tmp_path: Path) -> None:
    cache.put(KEY, TEXT)
    folder = tmp_path / "cache"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == [KEY]
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("of", ["folder", "file"])
def test_what_others_may_write_is_not_trusted(cache: Cache, tmp_path: Path, of: str) -> None:
    cache.put(KEY, TEXT)
    path = tmp_path / "cache" / (KEY if of == "file" else "")
    path.chmod(path.stat().st_mode | 0o022)
    assert cache.get(KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("of", ["folder", "file"])
def test_what_belongs_to_another_is_not_trusted(cache: Cache, tmp_path: Path, of: str) -> None:
    cache.put(KEY, TEXT)
    os.chown(tmp_path / "cache" / (KEY if of == "file" else ""), 1, 1)
    assert cache.get(KEY) is None


@pytest.mark.parametrize("of", ["folder", "file"])
def test_links_are_not_followed(cache: Cache, tmp_path: Path, of: str) -> None:
    cache.put(KEY, TEXT)
    path = tmp_path / "cache" / (KEY if of == "file" else "")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")
    cache.put(KEY, TEXT)
    assert cache.get(KEY) is None


def test_only_the_last_ones_are_kept(cache: Cache, tmp_path: Path) -> None:
    for number in range(12):
        cache.put(f"{number:064}", TEXT)
        os.utime(tmp_path / "cache" / f"{number:064}", (number, number))
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(names) == 8
    assert names[-1] == f"{11:064}"


def test_each_kind_has_its_own_files(tmp_path: Path) -> None:
    programs, sites = Cache(tmp_path, "program-"), Cache(tmp_path, "sites-", 2)
    programs.put(KEY, TEXT)
    for number in range(4):
        sites.put(f"{number:064}", TEXT)
    assert sites.get(KEY) is None
    assert programs.get(KEY) == TEXT.encode()
    assert len(list(tmp_path.iterdir())) == 3
