"""The configuration: where it is, with whose rights it is read, and what is wrong with it."""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop import arguments
from leaktop.config import SIZE_MAX, Config, config_path, load, parse
from leaktop.invoker import Invoker, RightsError, invoker, with_rights_of
from leaktop.model import SortKey

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "leaktop"
    folder.mkdir()
    return folder / "config.toml"


@pytest.fixture
def others_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where the file of nobody is, who calls through sudo."""
    monkeypatch.setenv("SUDO_UID", str(NOBODY.pw_uid))
    opened = [each for each in file.parents if each.is_relative_to("/tmp") and each != Path("/tmp")]
    modes = {each: each.stat().st_mode for each in opened}
    for each in opened:
        each.chmod(0o755)
    os.chown(file.parent, NOBODY.pw_uid, NOBODY.pw_gid)
    yield file
    for each, mode in modes.items():
        each.chmod(mode)


def write(file: Path, text: str) -> None:
    file.write_text(text)
    os.chown(file, NOBODY.pw_uid, NOBODY.pw_gid)


def only_problem() -> str:
    config = load()
    assert len(config.problems) == 1
    assert config == Config(config.path, problems=config.problems)
    return config.problems[0]


def test_without_a_file_there_are_defaults(file: Path) -> None:
    assert load() == Config(file)


def test_without_a_folder_there_are_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    assert load() == Config(Path("/nonexistent/leaktop/config.toml"))


def test_all_keys(file: Path) -> None:
    file.write_text(
        'sort = "growth"\ncolumns = ["growth", "bytes", "growth"]\ntheme = "nord"\ndelay = 2\n'
    )
    assert load() == Config(file, SortKey.GROWTH, 2.0, ("growth", "bytes"), "nord")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('sort = "byte"', "sort: 'byte': there is no such name; do you mean bytes?"),
        ('sort = "x"', "sort: 'x': there is no such name; there are bytes, count, growth"),
        ("sort = 3", "sort: 3 is no text: put it in quotes"),
        ("sort = []", "sort: a list is no text"),
        ("delay = 0", "delay: 0 is no time from 0.1 to 3600 s"),
        ("delay = nan", "delay: nan is no time"),
        ("delay = 1e999", "delay: inf is no time"),
        ("delay = true", "delay: True is no time"),
        ('delay = "1"', "delay: 1 is no time"),
        (f"delay = 0x{'f' * 9999}", "delay: a huge number is no time"),
        ('columns = "bytes"', "columns: it is no list of names"),
        ("columns = [1]", "columns: it is no list of names"),
        ("theme = {}", "theme: a table is no text"),
        ("colums = []", "colums: there is no such name; do you mean columns?"),
        ('"\\u001b[2J" = 1', "?[2J: there is no such name; there are sort, delay"),
        ("[sort]\nby = 1", "sort: a table is no text"),
        ("sort = ", "it is no TOML: Invalid value (at end of document)"),
        ("sort", "it is no TOML: Expected '='"),
        ("\0", "it is no TOML: Invalid statement (at line 1"),
        (f"x = {'[' * 5000}{']' * 5000}", "it is nested too deeply"),
        (f"x = {'9' * 5000}", "it is no TOML: Exceeds the limit"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    said = only_problem()
    assert said.startswith(problem)
    assert said.isprintable()
    assert len(said) < 160


def test_the_rest_counts_all_the_same(file: Path) -> None:
    file.write_text('sort = "age"\ndelay = -1\ncolour = "red"\n')
    config = load()
    assert (config.sort, config.delay_s) == (SortKey.AGE, None)
    assert [each.split(":")[0] for each in config.problems] == ["delay", "colour"]


def test_of_many_problems_a_few_are_said() -> None:
    config = parse("".join(f"x{i} = 1\n" for i in range(100)).encode())
    assert len(config.problems) == 8
    assert config.problems[-1] == "93 more problems"


def test_deep_keys_are_one_problem() -> None:
    config = parse(("a." * 10_000 + "b = 1").encode())
    assert [each[:2] for each in config.problems] in (["a:"], ["it"])


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00\x01")
    assert only_problem() == "it is no text in UTF-8"


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_nothing_stops_it(data: bytes) -> None:
    assert all(each.isprintable() for each in parse(data).problems)


@given(
    st.dictionaries(
        st.sampled_from(["sort", "delay", "columns", "theme", "other"]),
        st.sampled_from(
            ["1", "'x'", "[]", "{}", "['bytes']", "0.5", "2020-01-01", "'age'", "true"]
        ),
    )
)
def test_each_key_is_taken_or_named(document: dict[str, str]) -> None:
    config = parse("\n".join(f"{key} = {value}" for key, value in document.items()).encode())
    named = {each.split(":")[0] for each in config.problems}
    for key in ("sort", "delay", "theme"):
        taken = {"sort": config.sort, "delay": config.delay_s, "theme": config.theme}[key]
        assert not (taken and key in named)
        assert not (key in document and not taken and key not in named)
    assert ("other" in document) == ("other" in named)


def test_a_pipe_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    assert only_problem() == "not read: not a regular file"


def test_a_folder_is_no_configuration(file: Path) -> None:
    file.mkdir()
    assert only_problem() == "not read: not a regular file"


def test_a_device_is_not_opened(file: Path) -> None:
    file.symlink_to("/dev/zero")
    assert "not a regular file" in only_problem()


def test_a_sparse_gigabyte_is_refused(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 30)
    assert only_problem() == f"not read: larger than {SIZE_MAX >> 10} KiB"


def test_what_everybody_may_write_to_is_refused(file: Path) -> None:
    file.write_text('sort = "age"')
    file.chmod(0o666)
    assert only_problem() == "not read: everybody may write to it (chmod o-w)"


def test_a_link_of_ones_own_is_followed(file: Path) -> None:
    (file.parent / "dotfiles").write_text('sort = "age"')
    file.symlink_to("dotfiles")
    assert load().sort is SortKey.AGE


@as_root
def test_what_another_user_has_is_refused_to_root(file: Path) -> None:
    write(file, 'sort = "age"')
    assert "is user" in only_problem()


@as_root
def test_root_is_led_through_nobodys_folder_nowhere(file: Path) -> None:
    file.write_text('sort = "age"')
    os.chown(file.parent, NOBODY.pw_uid, NOBODY.pw_gid)
    assert only_problem() == (f"not read: {file.parent} is user {NOBODY.pw_uid}'s, not root's")


@as_root
@pytest.mark.parametrize("name", ["SUDO_UID", "PKEXEC_UID", "DOAS_USER"])
def test_the_home_of_who_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv(name, "nobody" if name == "DOAS_USER" else str(NOBODY.pw_uid))
    user = invoker()
    assert user == Invoker(NOBODY.pw_uid, NOBODY.pw_gid, Path(NOBODY.pw_dir))
    assert config_path(user) == Path(NOBODY.pw_dir, ".config/leaktop/config.toml")


@as_root
@pytest.mark.parametrize("number", ["", "x", "-1", "99999999999999999999", "٣"])
def test_a_number_that_is_none_is_root(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", number)
    monkeypatch.setenv("HOME", "/root")
    assert invoker() == Invoker(0, os.getegid(), Path("/root"))


@as_root
@pytest.mark.parametrize(
    "variable",
    [("SUDO_UID", "4000000000"), ("DOAS_USER", "no such user")],
    ids=lambda each: each[0],
)
def test_a_user_that_nobody_knows_has_no_configuration(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    assert invoker() is None
    assert load() == Config()


def test_a_relative_folder_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "here")
    user = Invoker(1000, 1000, Path("/home/me"))
    assert config_path(user) == Path("/home/me/.config/leaktop/config.toml")


@as_root
def test_it_is_read_for_who_called(others_file: Path) -> None:
    write(others_file, 'sort = "age"')
    assert load().sort is SortKey.AGE


@as_root
def test_a_link_to_what_only_root_may_read_is_refused(others_file: Path) -> None:
    others_file.symlink_to("/etc/shadow")
    assert only_problem() == "not read: Permission denied"


@as_root
def test_a_folder_that_only_root_may_enter_is_refused(others_file: Path) -> None:
    secret = others_file.parent.parent / "secret"
    secret.mkdir(mode=0o750)
    (secret / "config.toml").write_text('sort = "age"')
    others_file.symlink_to(secret / "config.toml")
    assert only_problem() == "not read: Permission denied"


@as_root
def test_what_a_third_user_has_is_refused(others_file: Path) -> None:
    write(others_file, 'sort = "age"')
    os.chown(others_file, 1, 1)
    assert only_problem() == f"not read: user 1 has it, not user {NOBODY.pw_uid}"


@as_root
def test_rights_are_those_of_one_thread_only(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    user = Invoker(NOBODY.pw_uid, NOBODY.pw_gid, Path("/"))
    assert with_rights_of(user, os.getgroups) == [NOBODY.pw_gid]
    with pytest.raises(PermissionError):
        with_rights_of(user, secret.read_bytes)
    assert secret.read_bytes() == b"x"


def test_no_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaktop.invoker._ANSWER_S", 0.01)
    reader, writer = os.pipe()
    user = Invoker(os.geteuid(), os.getegid(), Path("/"))
    try:
        with pytest.raises(RightsError, match="does not answer"):
            with_rights_of(user, lambda: os.read(reader, 1))
    finally:
        os.write(writer, b"x")
        os.close(writer)


def test_nothing_of_toml_is_imported_without_a_file() -> None:
    code = "import sys, leaktop.config as c; c.load(); print('tomllib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_command_line_beats_it(file: Path) -> None:
    file.write_text('sort = "age"\ndelay = 3')
    options = arguments.parse(["-p", "1", "-b"])
    assert (options.sort, options.delay) == (SortKey.AGE, 3.0)
    options = arguments.parse(["-p", "1", "-b", "--sort", "bytes", "-d", "1"])
    assert (options.sort, options.delay) == (SortKey.BYTES, 1.0)


def test_without_either_there_are_defaults(file: Path) -> None:
    options = arguments.parse(["-p", "1", "-b"])
    assert (options.sort, options.delay) == (SortKey.BYTES, 1.0)


def test_batch_output_says_what_is_wrong(file: Path) -> None:
    file.write_text("delay = -1\ncolour = 3\x1b")
    command = [sys.executable, "-m", "leaktop", "-b", "-p", str(arguments.PID_MAX)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"leaktop: {file}: it is no TOML")
    assert done.stdout == ""
    assert done.returncode in (3, 4)
