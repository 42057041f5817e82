"""Files that are written for the user: whole or not at all, and never through another's link."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from leaktop.outfile import OutFileError, check, create, write

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture(autouse=True)
def _not_under_sudo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SUDO_UID", "PKEXEC_UID", "DOAS_USER"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o027)
    yield
    os.umask(before)


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    check(path)
    assert names(tmp_path) == []
    write(path, b"text")
    assert path.read_bytes() == b"text"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["report.html"]


def test_a_file_of_ones_own_is_replaced_at_once_and_its_readers_keep_the_old_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "report.html"
    write(path, b"old")
    with path.open("rb") as reader:
        write(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["report.html"]


def test_a_stream_is_there_from_its_beginning_on(tmp_path: Path) -> None:
    path = tmp_path / "run.leaktop"
    path.write_bytes(b"old")
    with create(path) as stream:
        assert path.read_bytes() == b""
        stream.write(b"some")
        stream.flush()
        assert path.read_bytes() == b"some"
    assert names(tmp_path) == ["run.leaktop"]


@pytest.mark.parametrize("make", [lambda path: write(path, b"mine"), create, check])
def test_a_link_is_not_followed(make: object, tmp_path: Path) -> None:
    target = tmp_path / "passwd"
    target.write_bytes(b"root")
    (tmp_path / "out.svg").symlink_to(target)
    with pytest.raises(OutFileError, match=r"out\.svg cannot be written: it is a symbolic link"):
        make(tmp_path / "out.svg")  # type: ignore[operator]
    assert target.read_bytes() == b"root"
    assert names(tmp_path) == ["out.svg", "passwd"]


def test_a_dangling_link_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "out.svg").symlink_to(tmp_path / "cron")
    with pytest.raises(OutFileError, match="symbolic link"):
        write(tmp_path / "out.svg", b"mine")
    assert not (tmp_path / "cron").exists()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.svg")
    with pytest.raises(OutFileError, match="no file"):
        write(tmp_path / "out.svg", b"mine")
    for path in (Path(), Path("/"), tmp_path / "a\0b", tmp_path / ".."):
        with pytest.raises(OutFileError, match="names no file"):
            write(path, b"mine")


def test_no_such_directory(tmp_path: Path) -> None:
    for refuse in (check, create):
        with pytest.raises(OutFileError, match="cannot be written: No such file or directory"):
            refuse(tmp_path / "not" / "there.svg")
    with pytest.raises(OutFileError, match="Not a directory"):
        check(Path("/etc/passwd/out.svg"))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "out.svg"
    write(path, b"old")
    long = tmp_path / ("x" * 300 + ".svg")
    with pytest.raises(OutFileError, match="File name too long"):
        write(long, b"mine")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutFileError, match="File too large"):
            write(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["out.svg"]
    assert path.read_bytes() == b"old"


def test_a_message_is_one_harmless_line(tmp_path: Path) -> None:
    with pytest.raises(OutFileError) as refused:
        write(tmp_path / "\x1b[2J\n" / "out.svg", b"mine")
    assert str(refused.value).isprintable()


@as_root
def test_what_another_user_has_in_a_shared_directory_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    path = tmp_path / "out.svg"
    path.write_bytes(b"theirs")
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(OutFileError, match="user 65534 has it"):
        write(path, b"mine")
    assert path.read_bytes() == b"theirs"
    tmp_path.chmod(0o755)
    write(path, b"mine")
    assert path.read_bytes() == b"mine"


@as_root
def test_under_sudo_it_belongs_to_who_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    tmp_path.chmod(0o1777)
    path = tmp_path / "out.svg"
    for _ in range(2):  # the second time it is theirs, which may be replaced
        write(path, b"mine")
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    with create(tmp_path / "run.leaktop"):
        pass
    assert (tmp_path / "run.leaktop").stat().st_uid == NOBODY
