"""A wheel carries what the program reads at run time, and nothing of the tree beside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = {".c", ".css", ".h", ".js", ".tcss"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel built from a copy of what belongs into it."""
    source = tmp_path_factory.mktemp("source")
    # setuptools leaves build/ behind where it builds, and would take old files up from there.
    subprocess.run(
        ["cp", "-r", ROOT / "leaktop", ROOT / "pyproject.toml", source],
        check=True,
    )
    (source / "README.md").write_text("leaktop\n")
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("leaktop-*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_wheel_has_every_file_that_is_read(wheel: set[str]) -> None:
    needed = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "leaktop").rglob("*")
        if path.suffix in DATA | {".py"}
    }
    assert "leaktop/bpf/memleak.bpf.c" in needed
    assert any(name.startswith("leaktop/bpf/headers/") for name in needed)
    assert needed <= wheel


def test_wheel_has_nothing_else(wheel: set[str]) -> None:
    packages = {name.split("/")[0] for name in wheel}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"leaktop"}
    assert not [name for name in wheel if "__pycache__" in name]
