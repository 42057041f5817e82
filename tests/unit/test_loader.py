"""Loading where it cannot be: without bcc, with another bcc, with a program that is no program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from leaktop.tracer.image import package_hint, why_not_compiled

LOAD = """
import sys
from pathlib import Path
from leaktop.tracer import TracerError
from leaktop.tracer.cache import Cache
from leaktop.tracer.objects import Capacity, objects_for_calls
try:
    objects_for_calls(Capacity(), sessions=False, cache=Cache(Path(sys.argv[1])))
except TracerError as error:
    print(error.exit_code)
    print(error)
"""


def load(folder: Path, bcc: str) -> list[str]:
    """Return the lines of what is raised, after the exit code, where `bcc` is the module's text."""
    (folder / "bcc.py").write_text(bcc)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder / "cache")],
        env=os.environ | {"PYTHONPATH": str(folder)},
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


def test_without_bcc_it_says_what_to_install(tmp_path: Path) -> None:
    code, what, how = load(tmp_path, "raise ImportError\n")
    assert code == "3"
    assert "bcc cannot be imported" in what
    assert re.search(r"distribution: .*(bpfcc|-bcc)", what)
    assert "--system-site-packages" in how


def test_a_bcc_without_its_library_is_no_bcc(tmp_path: Path) -> None:
    # as bcc's libbcc.py does where the Python package is there and libbpfcc is not
    code, what, _ = load(tmp_path, "import ctypes; ctypes.CDLL('libbcc.so.does-not-exist')\n")
    assert code == "3"
    assert "bcc cannot be imported" in what


def test_pypi_s_project_of_that_name_is_told_apart(tmp_path: Path) -> None:
    code, what = load(tmp_path, "def compile_brainfuck(): ...\n")
    assert code == "3"
    assert "pip uninstall bcc" in what


def test_a_compiler_that_crashes_is_told(tmp_path: Path) -> None:
    code, what, what_next = load(tmp_path, "import os; os.abort()\n")
    assert code == "3"
    assert "cannot compile" in what
    assert what_next.endswith("?")


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
