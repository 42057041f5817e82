"""What is found of the allocators that distributions ship."""

import os
from pathlib import Path

import pytest

from leaktop.elf import ElfFile
from leaktop.tracer.look import traced_in
from leaktop.tracer.probes import Choice, Exit, Traced, is_allocator, table

C = {"malloc", "calloc", "realloc", "free", "posix_memalign"}
MAPPINGS = {"mmap", "munmap", "mremap"}
# Plain, of arrays, aligned, both.
NEW = {"_Znwm", "_Znam", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t"}
LIBRARIES = {
    "glibc": "libc.so.6",
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "mimalloc": "libmimalloc.so.2",
    "musl": "ld-musl-x86_64.so.1",
}


def path_of(allocator: str) -> Path:
    name = LIBRARIES[allocator]
    for folder in (Path("/usr/lib/x86_64-linux-gnu"), Path("/lib"), Path("/usr/lib64")):
        if (folder / name).exists():
            return folder / name
    assert not os.environ.get("CI"), f"{name} is not installed"
    pytest.skip(f"{name} is not installed")


class Found:
    """What is traced of a library, and what it has by name."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            elf = ElfFile(file)
            functions = table()
            self.by_name = elf.functions({each.name for each in functions})
            find = traced_in(elf, functions, self.by_name, Choice(at_entry=True))
            self.traced, self.skipped = find.functions, find.skipped
            self.code = path.read_bytes()

    def traces(self, name: str) -> Traced:
        """The function traced under a name, or under another of the same address."""
        (found,) = (each for each in self.traced if each.site.offset == self.by_name[name])
        return found


@pytest.fixture
def found(request: pytest.FixtureRequest) -> Found:
    return Found(path_of(request.param))


@pytest.mark.parametrize("found", LIBRARIES, indirect=True)
def test_each_allocator(found: Found) -> None:
    assert is_allocator(found.by_name)
    assert found.skipped == ()
    assert set(found.by_name) >= C
    offsets = [each.site.offset for each in found.traced]
    assert len(set(offsets)) == len(offsets)
    assert set(offsets) == set(found.by_name.values())
    for each in found.traced:
        assert bool(each.exits) == (each.function.exit is Exit.INSTRUCTIONS)
        assert all(found.code[at] in (0xC3, 0xF3) for at in each.exits)  # ret, repz ret


@pytest.mark.parametrize("found", ["glibc", "musl"], indirect=True)
def test_mappings_are_the_c_library_s(found: Found) -> None:
    assert set(found.by_name) >= MAPPINGS
    assert not set(found.by_name) & NEW
    for name in ("memalign", "aligned_alloc"):
        assert found.traces(name)


@pytest.mark.parametrize("found", ["jemalloc", "tcmalloc", "mimalloc"], indirect=True)
def test_operators(found: Found) -> None:
    assert set(found.by_name) >= NEW
    for name in NEW:
        assert found.traces(name).function.exit is Exit.INSTRUCTIONS
    for name in ("_ZdlPv", "_ZdaPv", "_ZdlPvm", "_ZdaPvm"):
        assert found.traces(name).function.exit is Exit.NONE


def test_aliases_are_one_function() -> None:
    found = Found(path_of("tcmalloc"))
    # gperftools gives each function a name of its own, too
    assert found.by_name["malloc"] == found.by_name["tc_malloc"]
    assert found.traces("tc_malloc").function.name == "malloc"


def test_a_stray_free_is_no_allocator() -> None:
    assert not is_allocator({"free"})
    assert not is_allocator({"malloc", "je_free"})
    assert is_allocator({"je_malloc", "je_free"})
    assert not is_allocator({"malloc", "free"}, "my_")
    assert is_allocator({"my_malloc", "my_free"}, "my_")
