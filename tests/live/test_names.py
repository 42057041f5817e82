"""Names of programs as they are shipped: stripped with a debug file beside them, or in Rust."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leaktop.kallsyms import KERNEL, KernelSymbols
from tests.live.conftest import Builder, Trace
from tests.live.harness import TargetProcess, require

SOURCES = Path(__file__).parents[1] / "targets"


@pytest.fixture
def started() -> Iterator[list[TargetProcess]]:
    targets: list[TargetProcess] = []
    yield targets
    for target in targets:
        target.close()


@pytest.mark.live
def test_a_stripped_program_is_named_from_the_debug_file_beside_it(
    build: Builder, trace: Trace, started: list[TargetProcess], tmp_path: Path
) -> None:
    program, debug = tmp_path / "phases", tmp_path / "phases.debug"
    shutil.copy(build("phases"), program)
    for command in (
        ["--only-keep-debug", str(program), str(debug)],
        ["--strip-all", str(program)],
        [f"--add-gnu-debuglink={debug}", str(program)],
    ):
        subprocess.run(["objcopy", *command], check=True, cwd=tmp_path)
    started.append(TargetProcess(program))
    leaktop = trace(started[0])
    truth = started[0].tell("leak 5 48")
    (stack,) = leaktop.snapshot_from_now()["stacks"]
    frame = stack["frames"][0]
    (site,) = truth.sites
    assert (stack["bytes"], stack["count"]) == (site.bytes, site.count)
    assert (frame["symbol"], frame["line"]) == (site.function, site.line)
    assert Path(frame["file"]).name == "phases.c"


@pytest.mark.live
def test_a_rust_program(trace: Trace, started: list[TargetProcess], tmp_path: Path) -> None:
    require(Path(shutil.which("rustc") or "/usr/bin/rustc"))
    program = tmp_path / "rusty"
    source = SOURCES / "rusty.rs"
    subprocess.run(["rustc", "-O", "-g", "-o", str(program), str(source)], check=True)
    started.append(TargetProcess(program))
    leaktop = trace(started[0])
    for _ in range(3):
        started[0].say("go")
        started[0].lines.next()
    stacks = leaktop.snapshot_from_now()["stacks"]
    kept = [each for each in stacks if each["bytes"] == each["count"] * 64]
    assert sum(each["count"] for each in kept) == 30
    for stack in kept:
        names = [frame["symbol"] for frame in stack["frames"]]
        assert "rusty::keep_boxes" in names
        assert "rusty::main" in names
        assert names[-1] == "_start"
        assert {frame["line"] for frame in stack["frames"]} & {7}  # kept.push


@pytest.mark.live
def test_the_running_kernels_functions() -> None:
    listed: dict[int, list[list[str]]] = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        start, kind, *name = line.split()
        if kind in "tT":
            listed.setdefault(int(start, 16), []).append(name)
    symbols = KernelSymbols()
    wrong: list[object] = []
    for address in [*listed][:: len(listed) // 500]:
        found = symbols.find(address)
        if found is None or found.start != address:
            wrong.append(listed[address])
        elif [found.name, *([] if found.module == KERNEL else [found.module])] not in listed[
            address
        ]:
            wrong.append([found.name, found.module])
    assert wrong == []
    assert symbols.problem is None
    assert len(symbols) > 10_000


@pytest.mark.live
def test_lines_in_split_debug_information(
    trace: Trace, started: list[TargetProcess], tmp_path: Path
) -> None:
    program = tmp_path / "phases"
    command = ["gcc", "-O1", "-g", "-gsplit-dwarf", "-pthread", "-o", str(program)]
    subprocess.run([*command, str(SOURCES / "phases.c")], check=True, cwd=tmp_path)
    assert list(tmp_path.glob("*.dwo"))
    started.append(TargetProcess(program))
    leaktop = trace(started[0])
    truth = started[0].tell("leak 5 48")
    (stack,) = leaktop.snapshot_from_now()["stacks"]
    (site,) = truth.sites
    assert stack["bytes"] == site.bytes
    lines = {(frame["symbol"], frame["line"]) for frame in stack["frames"]}
    assert (site.function, site.line) in lines
