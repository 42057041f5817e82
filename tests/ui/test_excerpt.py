"""Source text is shown only where the target could have read it itself."""

import os
from pathlib import Path

import pytest

from leaktop.excerpt import AROUND, Reader, excerpts
from leaktop.model import Frame

US = Reader(os.getuid(), os.getgid())
NOBODY = Reader(65534, 65534)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve()
    (folder / "a.c").write_text("".join(f"\tline {n}\n" for n in range(1, 101)))
    return folder


def lines(path: object, line: int | None = 50, reader: Reader = US) -> tuple[str, ...] | None:
    found = excerpts([Frame(1, file=str(path), line=line)], reader)
    return found[0].lines if found else None


def test_lines_around(folder: Path) -> None:
    found = excerpts([Frame(1), Frame(1, file=str(folder / "a.c"), line=50)], US)
    assert list(found) == [1]
    assert found[1].first == 50 - AROUND
    assert found[1].lines[AROUND] == "    line 50"
    assert len(found[1].lines) == 2 * AROUND + 1


def test_first_and_last_line(folder: Path) -> None:
    assert lines(folder / "a.c", 1) is not None
    assert lines(folder / "a.c", 100) is not None
    for line in (0, -1, None, 102, 10**9):
        assert lines(folder / "a.c", line) is None


def test_dots_in_the_path(folder: Path) -> None:
    assert lines(f"{folder}/build/../a.c") is not None


def test_what_is_no_plain_path(folder: Path) -> None:
    for path in ("a.c", "", "/", "/nowhere/a.c", f"{folder}/a.c\0", f"{folder}", "/" + "x/" * 99):
        assert lines(path) is None


def test_no_links(folder: Path) -> None:
    (folder / "link.c").symlink_to(folder / "a.c")
    (folder / "dir").symlink_to(folder)
    assert lines(folder / "link.c") is None
    assert lines(folder / "dir" / "a.c") is None


def test_only_regular_files(folder: Path) -> None:
    os.mkfifo(folder / "fifo.c")
    assert lines(folder / "fifo.c") is None
    assert lines("/dev/zero", 1) is None


def test_no_huge_files(folder: Path) -> None:
    with (folder / "huge.c").open("wb") as file:
        file.truncate(5 << 20)
    assert lines(folder / "huge.c", 1) is None


def test_control_characters_do_not_pass(folder: Path) -> None:
    (folder / "b.c").write_bytes(b"\x1b[31mred\xff\x9b\n")
    assert lines(folder / "b.c", 1) == ("?[31mred\ufffd\ufffd", "")


def test_a_file_only_others_may_read_is_not_shown(tmp_path: Path) -> None:
    # Straight below the root, so that pytest's own private folders do not decide.
    status = os.stat_result((0o100640, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    assert not NOBODY.may(status, 4)
    assert Reader(0, 0).may(status, 4)
    owned = os.stat_result((0o100400, 0, 0, 1, 65534, 0, 0, 0, 0, 0))
    assert NOBODY.may(owned, 4)
    group = os.stat_result((0o100040, 0, 0, 1, 0, 65534, 0, 0, 0, 0))
    assert NOBODY.may(group, 4)
    # The owner's bits decide for the owner, even where others may more.
    odd = os.stat_result((0o100004, 0, 0, 1, 65534, 0, 0, 0, 0, 0))
    assert not NOBODY.may(odd, 4)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_root_shows_no_private_file_to_another_users_process(folder: Path) -> None:
    # pytest's folders are 0700 for root: readable file, unsearchable parent.
    (folder / "a.c").chmod(0o644)
    assert lines(folder / "a.c") is not None
    assert lines(folder / "a.c", reader=NOBODY) is None
    assert lines("/etc/shadow", 1, NOBODY) is None


def test_reader_of_a_process() -> None:
    assert Reader.of_process(os.getpid()) == Reader(os.geteuid(), os.getegid())
    assert Reader.of_process(2**22 + 1) is None
