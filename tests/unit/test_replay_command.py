"""``--replay`` as a command, on recordings that are kept for as long as the format is read."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leaktop.source.replay import ReplaySource

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "examples" / "leaky.leaktop"
KEPT = sorted((ROOT / "tests" / "fixtures" / "recordings").glob("v*.leaktop"))


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leaktop", *map(str, args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def documents(done: subprocess.CompletedProcess[str]) -> Iterator[dict[str, Any]]:
    return map(json.loads, done.stdout.splitlines())


def held(document: dict[str, Any], function: str) -> int:
    return sum(
        stack["bytes"]
        for stack in document["stacks"]
        if stack["frames"] and stack["frames"][0]["symbol"] == function
    )


def test_the_recording_that_is_shipped() -> None:
    assert SHIPPED.stat().st_size <= 100 << 10
    done = run("--replay", SHIPPED, "--json")
    assert done.returncode == 0
    assert "replaying examples" not in done.stdout
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"leaktop: replaying {SHIPPED}: ")
    every = list(documents(done))
    assert 60 <= len(every) <= 100
    leak = [held(each, "open_session") for each in every]
    assert leak == sorted(leak)
    assert leak[-1] > 10 * leak[3]
    assert held(every[-1], "cache_load") < 1.1 * held(every[10], "cache_load")
    stack = next(
        each for each in every[-1]["stacks"] if each["frames"][0]["symbol"] == "open_session"
    )
    assert stack["frames"][0]["file"].endswith("examples/leaky.c")
    assert stack["frames"][0]["line"] > 1
    assert not any(every[-1]["lost"].values())
    source = ReplaySource(SHIPPED)
    source.seek(len(source.ticks) - 1)
    source.snapshot()
    assert sum(source.detail(int(stack["id"], 16)).ages.counts) > 100
    assert source.tracing.libraries
    assert source.mappings()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_recordings_of_older_versions_are_still_read(path: Path) -> None:
    # what they say is beside them, as the leaktop that recorded them printed it
    expected = path.with_suffix(".json").read_text().splitlines()
    done = run("--replay", path, "--json", "-T", "5")
    assert done.returncode == 0
    now = done.stdout.splitlines()
    assert len(now) == len(expected)
    for line, before in zip(now, expected, strict=True):
        assert_says(json.loads(line), json.loads(before))


def assert_says(now: Any, before: Any) -> None:
    """Check that all that was said is said; there may be more."""
    if isinstance(before, dict):
        for key, value in before.items():
            assert_says(now[key], value)
    elif isinstance(before, list):
        assert len(now) == len(before)
        for one, other in zip(now, before, strict=True):
            assert_says(one, other)
    else:
        assert now == before


def test_there_are_some() -> None:
    assert KEPT


def test_nothing_that_traces_is_loaded() -> None:
    script = (
        "import sys; from leaktop.cli import main\n"
        f"assert main(['--replay', {str(SHIPPED)!r}, '-n', '1', '--json']) == 0\n"
        "print(sorted(each for each in sys.modules if each.startswith(\n"
        "    ('bcc', 'leaktop.tracer', 'elftools', 'textual', 'symbolic', '_drgn'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_as_text_and_no_further_than_asked_for() -> None:
    done = run("--replay", SHIPPED, "-n", "2", "-T", "1")
    assert done.returncode == 0
    assert done.stdout.count("Top 1 stacks with outstanding allocations:") == 2


def test_more_than_there_is() -> None:
    count = len(ReplaySource(SHIPPED).ticks)
    done = run("--replay", SHIPPED, "-n", "100000", "--json")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == count


def test_cut_off(tmp_path: Path) -> None:
    data = SHIPPED.read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    done = run("--replay", tmp_path / "cut", "--json")
    assert done.returncode == 0
    count = len(done.stdout.splitlines())
    assert 5 < count < 79
    assert f"it was cut off; the {count} snapshots before that can be shown" in done.stderr


def test_damaged(tmp_path: Path) -> None:
    data = bytearray(SHIPPED.read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "damaged").write_bytes(data)
    done = run("--replay", tmp_path / "damaged", "--json")
    assert done.returncode == 1
    assert 5 < len(done.stdout.splitlines()) < 79
    assert "it is damaged at byte" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is no recording of leaktop"),
        (b'{"version":1}\n', "is no recording of leaktop"),
    ],
)
def test_no_recording(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "r").write_bytes(content)
    done = run("--replay", tmp_path / "r", "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nobody_reads_to_the_end() -> None:
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m leaktop --replay "{SHIPPED}" --json | head -n 1'],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
