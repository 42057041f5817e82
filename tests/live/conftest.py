"""Targets, built once, and leaktop on them; whatever a test leaves running is ended."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.harness import ROOT, Leaktop, TargetProcess
from tests.live.terminal import Terminal

SOURCES = ROOT / "tests" / "targets"
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
# As distributions compile: no frame pointers, and calls in tail position are jumps.
DISTRIBUTED = ("-O2", "-g", "-fomit-frame-pointer")
_CXX = ("-g", "-fomit-frame-pointer", "-std=c++20", "-pthread", "-Wl,-rpath,$ORIGIN")

_RELOAD = (*DISTRIBUTED, "-shared", "-fPIC")
# What C++ allows a compiler to leave out stays in.
_OPERATORS = (*DISTRIBUTED, "-std=c++20", "-fno-inline", "-Wno-alloc-size-larger-than")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to compile a target otherwise than most."""

    flags: tuple[str, ...]
    source: str | None = None
    """None: named as the target."""
    compiler: str = "gcc"
    needs: tuple[str, ...] = ()
    """Targets to link with."""
    libraries: tuple[str, ...] = ()
    """Of the system, to link with."""


RECIPES = {
    "libplugin.so": Recipe((*FLAGS, "-shared", "-fPIC")),
    "leaking": Recipe(FLAGS, libraries=("-lm",)),
    "bare": Recipe((*FLAGS, "-static", "-nostdlib")),
    "libunwinding_library.so": Recipe(
        (*DISTRIBUTED, "-shared", "-fPIC", "-Wl,-soname,libunwinding_library.so")
    ),
    "unwinding-O2": Recipe(
        ("-O2", *_CXX), "unwinding.cpp", "g++", needs=("libunwinding_library.so",)
    ),
    "unwinding-O3": Recipe(
        ("-O3", *_CXX), "unwinding.cpp", "g++", needs=("libunwinding_library.so",)
    ),
    "unwinding-stripped": Recipe(
        ("-O2", *_CXX, "-s", "-rdynamic"), "unwinding.cpp", "g++", ("libunwinding_library.so",)
    ),
    "unwinding-static": Recipe(("-O2", *_CXX, "-static", "-DALONE"), "unwinding.cpp", "g++"),
    "reloading": Recipe((*FLAGS, "-ldl")),
    "libreload-small.so": Recipe((*_RELOAD, "-DROOM=1000"), "reload.c"),
    "libreload-large.so": Recipe((*_RELOAD, "-DROOM=3000"), "reload.c"),
    "operators": Recipe(_OPERATORS, "operators.cpp", "g++"),
    "operators-static": Recipe((*_OPERATORS, "-static"), "operators.cpp", "g++"),
    "unwinding_musl": Recipe(DISTRIBUTED, compiler="musl-gcc"),
    "unwinding_musl-static": Recipe((*DISTRIBUTED, "-static"), "unwinding_musl.c", "musl-gcc"),
}

Builder = Callable[[str], Path]
StartTarget = Callable[..., TargetProcess]
StartLeaktop = Callable[..., Leaktop]
OpenTerminal = Callable[..., Terminal]
Trace = Callable[..., Leaktop]


@pytest.fixture(scope="session", autouse=True)
def _hangup_as_usual() -> None:
    """Let a hangup end what the tests start, also where it does not end the tests (nohup)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Compile a target by its name, once a session."""
    folder = tmp_path_factory.mktemp("targets")

    def compiled(name: str) -> Path:
        binary = folder / name
        if not binary.exists():
            recipe = RECIPES.get(name, Recipe((*FLAGS, "-pthread")))
            source = recipe.source or f"{name.removeprefix('lib').removesuffix('.so')}.c"
            needs = [compiled(each) for each in recipe.needs]
            command = [recipe.compiler, *recipe.flags, "-o", str(binary), str(SOURCES / source)]
            subprocess.run([*command, *map(str, needs), *recipe.libraries], check=True)
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
def open_terminal() -> Iterator[OpenTerminal]:
    """Start `leaktop` with its screen, in terminals of their own."""
    opened: list[Terminal] = []

    def start(*arguments: str, **options: int) -> Terminal:
        opened.append(Terminal("-d", "0.2", *arguments, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


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
