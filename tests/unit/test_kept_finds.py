"""What was found in files that were looked through before: for which files it is used again."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop.modules import Module
from leaktop.procfs import parse_maps
from leaktop.tracer import look
from leaktop.tracer.cache import Cache
from leaktop.tracer.kept_finds import KeptFinds, _from_json, _to_json
from leaktop.tracer.probes import Choice, Find, table

FUNCTIONS = {each.name: each for each in table()}
LIBRARY = next(
    Path(each.path)
    for each in parse_maps(Path("/proc/self/maps").read_text())
    if "/libc.so" in each.path
)


def module_of(path: Path) -> Module:
    module = Module(str(path))
    module.hold(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return module


FOUND = look.find_in(module_of(LIBRARY), Choice())
assert FOUND is not None


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are looked through, in order."""
    seen: list[str] = []
    find_in = look.find_in

    def noted(module: Module, choice: Choice) -> Find | None:
        seen.append(module.path)
        return find_in(module, choice)

    monkeypatch.setattr(look, "find_in", noted)
    return seen


def test_a_file_is_looked_through_once(tmp_path: Path, looked: list[str]) -> None:
    copy = Path(shutil.copy(LIBRARY, tmp_path / "copy"))
    cache = Cache(tmp_path / "cache")
    for path in (LIBRARY, LIBRARY, copy):  # the same bytes
        assert KeptFinds(Choice(), cache).find(module_of(path)) == FOUND
    assert looked == [str(LIBRARY)]


def test_a_file_without_an_allocator_is_looked_through_once(
    tmp_path: Path, looked: list[str]
) -> None:
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        assert KeptFinds(Choice(), cache).find(module_of(Path("/bin/true"))) is None
    assert looked == ["/bin/true"]


def test_one_other_byte_makes_another_file(tmp_path: Path, looked: list[str]) -> None:
    copy = Path(shutil.copy(LIBRARY, tmp_path / "copy"))
    times = copy.stat()
    cache = Cache(tmp_path / "cache")
    KeptFinds(Choice(), cache).find(module_of(copy))
    with copy.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        (last,) = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    KeptFinds(Choice(), cache).find(module_of(copy))
    assert looked == [str(copy)] * 2


@pytest.mark.parametrize("choice", [Choice(at_entry=True), Choice(prefix="x_"), Choice(file="y")])
def test_what_was_asked_otherwise_is_another_find(
    tmp_path: Path, looked: list[str], choice: Choice
) -> None:
    cache = Cache(tmp_path / "cache")
    KeptFinds(Choice(), cache).find(module_of(LIBRARY))
    assert KeptFinds(choice, cache).find(module_of(LIBRARY)) == look.find_in(
        module_of(LIBRARY), choice
    )
    assert len(looked) == 3


def test_what_is_damaged_is_found_anew(tmp_path: Path, looked: list[str]) -> None:
    cache = Cache(tmp_path / "cache")
    KeptFinds(Choice(), cache).find(module_of(LIBRARY))
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_text()
    for text in ("", "[]", "{}", '{"functions": [{}], "skipped": []}', whole[:-2]):
        kept.write_text(text)
        assert KeptFinds(Choice(), cache).find(module_of(LIBRARY)) == FOUND
        assert kept.read_text() == whole
    assert len(looked) == 6


def test_what_is_no_elf_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ELF")
    module = module_of(tmp_path / "text")
    assert KeptFinds(Choice(), Cache(tmp_path / "cache")).find(module) is None
    assert not (tmp_path / "cache").exists()


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_text_is_a_find_or_refused(text: bytes) -> None:
    try:
        assert _from_json(text, FUNCTIONS) is None
    except ValueError:
        return
    assert text.strip() == b"null"


def test_a_find_comes_back() -> None:
    assert _from_json(_to_json(FOUND).encode(), FUNCTIONS) == FOUND
