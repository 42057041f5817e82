"""Loading where it cannot be: without bcc, with another bcc, with a program that is no program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from leaktop.tracer.loader import package_hint, why_not_compiled

LOAD = """
import sys
{prepare}
from leaktop.tracer import TracerError
from leaktop.tracer.loader import Capacity, Program
try:
    Program(Capacity(), sessions=False)
except TracerError as error:
    print(error.exit_code)
    print(error)
"""


def load(prepare: str) -> list[str]:
    """Return the lines of what is raised, after the exit code, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD.format(prepare=prepare)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_importing_the_loader_does_not_import_bcc() -> None:
    script = "import sys, leaktop.tracer.loader; print('bcc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"False\n"


def test_without_bcc_it_says_what_to_install() -> None:
    code, what, how = load("sys.modules['bcc'] = None")
    assert code == "3"
    assert "bcc cannot be imported" in what
    assert re.search(r"distribution: .*(bpfcc|-bcc)", what)
    assert "--system-site-packages" in how


def test_a_bcc_without_its_library_is_no_bcc(tmp_path: Path) -> None:
    # as bcc's libbcc.py does where the Python package is there and libbpfcc is not
    (tmp_path / "bcc.py").write_text("import ctypes; ctypes.CDLL('libbcc.so.does-not-exist')\n")
    code, what, _ = load(f"sys.path.insert(0, {str(tmp_path)!r})")
    assert code == "3"
    assert "bcc cannot be imported" in what


def test_pypi_s_project_of_that_name_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("def compile_brainfuck(): ...\n")
    code, what = load(f"sys.path.insert(0, {str(tmp_path)!r})")
    assert code == "3"
    assert "pip uninstall bcc" in what


@pytest.mark.parametrize(
    ("os_release", "hint"),
    [
        ("ID=debian\n", "apt install python3-bpfcc"),
        ("NAME=x\nID=ubuntu\nID_LIKE=debian\n", "apt install python3-bpfcc"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt install python3-bpfcc"),
        ("ID=fedora\n", "dnf install python3-bcc"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install python3-bcc"),
        ("ID=arch\n", "pacman -S python-bcc"),
        ("ID='manjaro'\nID_LIKE='arch'\n", "pacman -S python-bcc"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "zypper install python3-bcc"),
        ("ID=alpine\n", "apk add py3-bcc"),
    ],
)
def test_package_of_a_distribution(os_release: str, hint: str) -> None:
    assert package_hint(os_release) == hint


@pytest.mark.parametrize("os_release", ["", "ID=plan9\n", "debian\n", "=\n\x00\n", "ID=\n"])
def test_package_of_an_unknown_distribution(os_release: str) -> None:
    hint = package_hint(os_release)
    for name in ("python3-bpfcc", "python3-bcc", "python-bcc"):
        assert name in hint


CLANG = """\
In file included from /virtual/main.c:14:
/virtual/include/bcc/helpers.h:1: warning: no such thing
  /virtual/main.c:9:14: error: use of undeclared identifier 'no_such_name'
int broken = no_such_name;
             ^
1 error generated.
"""


def test_first_error_of_the_compiler_is_the_one_shown() -> None:
    first, what_next = why_not_compiled(CLANG, Exception("Failed to compile BPF module")).split(
        "\n"
    )
    assert first.endswith("error: use of undeclared identifier 'no_such_name'")
    assert what_next.endswith("?")


def test_without_an_error_the_first_words_are_shown() -> None:
    assert "modprobe: not found\n" in why_not_compiled("\n\nmodprobe: not found\nx\n", Exception())


def test_without_any_words_the_exception_s_are_shown() -> None:
    assert "Failed to compile\n" in why_not_compiled("", Exception("Failed to compile"))
