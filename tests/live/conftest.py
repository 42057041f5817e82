"""Targets, built once, and leaktop on them; whatever a test leaves running is ended."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.harness import ROOT, Leaktop, TargetProcess

SOURCES = ROOT / "tests" / "targets"
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
SPECIAL_FLAGS = {
    "libplugin.so": ("-shared", "-fPIC"),
    "bare": ("-static", "-nostdlib"),
}

Builder = Callable[[str], Path]
StartTarget = Callable[..., TargetProcess]
StartLeaktop = Callable[..., Leaktop]
Trace = Callable[..., Leaktop]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Compile a target by its name, once a session."""
    folder = tmp_path_factory.mktemp("targets")

    def compiled(name: str) -> Path:
        binary = folder / name
        if not binary.exists():
            source = SOURCES / f"{name.removeprefix('lib').removesuffix('.so')}.c"
            flags = (*FLAGS, *SPECIAL_FLAGS.get(name, ("-pthread",)))
            subprocess.run(["gcc", *flags, "-o", binary, source], check=True)
        return binary

    return compiled


@pytest.fixture
def start_target(build: Builder) -> Iterator[StartTarget]:
    """Start a target by its name; at the end of the test it has to end well."""
    started: list[TargetProcess] = []

    def start(name: str, *args: str) -> TargetProcess:
        started.append(TargetProcess(build(name), *args))
        return started[-1]

    yield start
    for target in started:
        target.close()


@pytest.fixture
def start_leaktop() -> Iterator[StartLeaktop]:
    started: list[Leaktop] = []

    def start(*args: str) -> Leaktop:
        started.append(Leaktop(*args))
        return started[-1]

    yield start
    for leaktop in started:
        leaktop.close()


@pytest.fixture
def trace(start_leaktop: StartLeaktop) -> Trace:
    """Start `leaktop -b --json` on a target and wait until it counts."""

    def attached(target: TargetProcess, *args: str) -> Leaktop:
        leaktop = start_leaktop(
            *("-b", "--json", "-d", "0.2", "-T", "100", "-p", str(target.pid)), *args
        )
        leaktop.wait_ready(target.pid)
        return leaktop

    return attached
