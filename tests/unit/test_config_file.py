"""Changes to the user's configuration."""

import fcntl
import os
import pwd
import threading
from datetime import date
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from leaktop import config_file
from leaktop.config import SIZE_MAX, load, parse
from leaktop.config_file import ConfigFileError, add_ignored, remove_ignored
from leaktop.ignore import Entry, entry_for
from leaktop.model import Frame

TODAY = date(2026, 11, 24)
PUT = Entry(("app!put", "..."))
KEEP = Entry(("lib.so*!ns::keep<char>", "app!main"))
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "leaktop" / "config.toml"


def test_the_first_entry_makes_the_file(file: Path) -> None:
    add_ignored(PUT, TODAY)
    assert load().ignore == (PUT,)
    assert file.read_text().strip() == (
        '[[ignore]]\n# added with i, 2026-11-24\nstack = [\n    "app!put",\n    "...",\n]'
    )
    assert file.parent.stat().st_mode & 0o777 == 0o700


MINE = """\
# how I like it
sort   = "age"   # oldest first

# of the cache
[[ignore]]
name = "cache"   # grows to 1 GB
stack = ["put", "..."]

# of the other
[[ignore]]
stack = [
  "keep",  # and all of its callers
]
# the end
"""


def test_what_the_user_wrote_stays(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(MINE)
    add_ignored(PUT, TODAY)
    text = file.read_text()
    assert text.startswith(MINE)
    assert load().ignore == (Entry(("put", "..."), "cache"), Entry(("keep",)), PUT)
    remove_ignored(PUT)
    assert file.read_text().rstrip() == MINE.rstrip()


def test_what_is_written_about_the_next_entry_stays(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(MINE)
    remove_ignored(Entry(("put", "...")))
    text = file.read_text()
    assert load().ignore == (Entry(("keep",)),)
    assert "# of the other\n[[ignore]]\nstack = [\n" in text
    assert "# grows to" not in text
    remove_ignored(Entry(("keep",)))
    text = file.read_text()
    assert load().ignore == ()
    assert "# the end" in text
    assert 'sort   = "age"   # oldest first' in text


def test_an_entry_between_others(file: Path) -> None:
    add_ignored(PUT, TODAY)
    add_ignored(KEEP, TODAY)
    with file.open("a") as stream:
        stream.write('# last\n[[ignore]]\nstack = ["x"]\n')
    remove_ignored(KEEP)
    assert load().ignore == (PUT, Entry(("x",)))
    assert file.read_text().endswith('# last\n[[ignore]]\nstack = ["x"]\n')


def test_entries_in_one_line(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('ignore = [{stack = ["a"]}]  # short\nsort = "age"\n')
    add_ignored(PUT, TODAY)
    assert load().ignore == (Entry(("a",)), PUT)
    remove_ignored(Entry(("a",)))
    assert load().ignore == (PUT,)
    assert load().sort is not None
    remove_ignored(PUT)
    assert load().ignore == ()


def test_twice_is_once(file: Path) -> None:
    add_ignored(PUT, TODAY)
    before = file.stat()
    add_ignored(Entry(PUT.stack, "another name"), TODAY)
    remove_ignored(KEEP)
    assert file.stat().st_ino == before.st_ino
    assert load().ignore == (PUT,)


@pytest.mark.parametrize(
    "text", ["sort = ", "ignore = 3", "ignore = {}", "\0", "[[sort]]\n[sort.x]\nx=1\nx=2"]
)
def test_what_cannot_be_read_is_left_alone(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigFileError) as error:
        add_ignored(PUT, TODAY)
    assert str(error.value).startswith(f"{file} cannot be changed: ")
    assert str(error.value).isprintable()
    assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


def test_it_does_not_outgrow_what_is_read(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("#" + "x" * (SIZE_MAX - 30) + "\n")
    with pytest.raises(ConfigFileError, match="larger than"):
        add_ignored(KEEP, TODAY)


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    (tmp_path / "dotfiles").mkdir()
    target = tmp_path / "dotfiles" / "leaktop.toml"
    target.write_text('sort = "age"\n')
    file.symlink_to("../dotfiles/leaktop.toml")
    add_ignored(PUT, TODAY)
    assert file.is_symlink()
    assert "app!put" in target.read_text()
    assert target.read_text().startswith('sort = "age"\n')


def test_of_two_at_once_none_is_lost(file: Path) -> None:
    entries = [Entry((f"f{i}",)) for i in range(8)]
    threads = [threading.Thread(target=add_ignored, args=(each, TODAY)) for each in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(load().ignore) == set(entries)


def test_whoever_has_it_locked_is_not_waited_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "_TRY_S", 0.001)
    file.parent.mkdir()
    descriptor = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigFileError, match="locked"):
            add_ignored(PUT, TODAY)
    finally:
        os.close(descriptor)


@given(
    st.lists(
        st.builds(
            Frame, st.just(1), st.none() | st.text(max_size=9), st.none() | st.text(min_size=1)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_name_can_be_written(frames: list[Frame]) -> None:
    entry = entry_for(frames)
    if entry is not None:
        document = tomlkit.document()
        config_file.insert(document, entry, TODAY)
        config = parse(tomlkit.dumps(document).encode())
        assert config.ignore == (entry,)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of nobody, who calls through sudo."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
    for each in tmp_path.parents:
        if each.is_relative_to("/tmp") and each != Path("/tmp"):
            each.chmod(0o711)
    tmp_path.chmod(0o711)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("SUDO_UID", str(NOBODY.pw_uid))
    monkeypatch.setenv("SUDO_GID", str(NOBODY.pw_gid))
    return home


@as_root
def test_what_is_made_belongs_to_who_called(theirs: Path) -> None:
    add_ignored(PUT, TODAY)
    made = [theirs / ".config", *(theirs / ".config").rglob("*")]
    assert len(made) == 3
    assert {(each.stat().st_uid, each.stat().st_gid) for each in made} == {
        (NOBODY.pw_uid, NOBODY.pw_gid)
    }
    assert load().ignore == (PUT,)


@as_root
def test_a_folder_that_leads_to_roots_is_not_written_to(theirs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "roots"
    secret.mkdir()
    (theirs / ".config").mkdir()
    (theirs / ".config/leaktop").symlink_to(secret)
    with pytest.raises(ConfigFileError, match="Permission denied"):
        add_ignored(PUT, TODAY)
    assert not list(secret.iterdir())


@as_root
def test_a_link_to_roots_file_is_not_written_to(theirs: Path, tmp_path: Path) -> None:
    target = tmp_path / "roots.toml"
    target.write_text("")
    folder = theirs / ".config/leaktop"
    folder.mkdir(parents=True)
    (folder / "config.toml").symlink_to(target)
    with pytest.raises(ConfigFileError):
        add_ignored(PUT, TODAY)
    assert target.read_text() == ""


@as_root
def test_root_itself_makes_nothing_in_another_users_home(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_UID")
    with pytest.raises(ConfigFileError, match="not root's"):
        add_ignored(PUT, TODAY)
    assert not list(theirs.iterdir())
