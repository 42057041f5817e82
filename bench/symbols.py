"""How fast names and lines come: readers of DWARF compared, and leaktop's own look-ups.

Compiles a C++ program with about 100 MB of debug information (kept in the folder for temporary
files, so that the next run need not), takes 500 addresses out of its code and measures for each
reader the time of the first and of the second answer to all 500, and the peak of its memory. Each
figure comes from a process of its own. Readers that are not installed are left out.
"""

import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from common import Figure, Samples, begin

CHILD = "--one"
FOLDER = Path(tempfile.gettempdir()) / "leaktop-bench-symbols"
MEGABYTES, MEGABYTES_QUICK = 100, 10
ADDRESSES = 500
UNITS = {"s": "s", "mb": "MB"}
MEGABYTES_A_UNIT = 1.75  # of the unit below, compiled by g++ 12 -O2 -g

UNIT = """
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <unordered_map>
#include <vector>
namespace unit_@ {
template <int N> struct Shape {
    std::map<std::string, std::vector<std::unique_ptr<int>>> by_name;
    std::unordered_map<int, std::function<int(int)>> calls;
    __attribute__((always_inline)) int area(int n) { return calls.count(n) ? calls[n](n) : n * N; }
    int grow(const std::string &name, int n) {
        by_name[name].push_back(std::make_unique<int>(n));
        calls[n] = [this, n](int m) { return m + n + static_cast<int>(by_name.size()); };
        std::vector<std::string> words;
        std::regex word("[a-z]+@");
        for (std::sregex_iterator i(name.begin(), name.end(), word), end; i != end; ++i)
            words.push_back(i->str());
        std::sort(words.begin(), words.end());
        return area(n) + static_cast<int>(words.size());
    }
};
}
int work_@(int n) {
    unit_@::Shape<1> a; unit_@::Shape<2> b; unit_@::Shape<3> c; unit_@::Shape<4> d;
    unit_@::Shape<5> e; unit_@::Shape<6> f;
    return a.grow("one", n) + b.grow("two", n) + c.grow("three", n) + d.grow("four", n)
         + e.grow("five", n) + f.grow("six", n);
}
"""


def build(folder: Path, megabytes: int) -> Path:
    """Compile and link the program, unless it is there."""
    program = folder / f"big-{megabytes}"
    if program.exists():
        return program
    units = max(1, round(megabytes / MEGABYTES_A_UNIT))

    def compile_unit(number: int) -> Path:
        source = folder / f"unit_{number}.cc"
        if source.with_suffix(".o").exists():
            return source.with_suffix(".o")
        source.write_text(UNIT.replace("@", str(number)))
        output = source.with_suffix(".o")
        command = ["g++", "-std=c++17", "-O2", "-g", "-c", source.name, "-o", output.name]
        subprocess.run(command, cwd=folder, check=True)
        return output

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_unit, range(units)))
    main = folder / "main.cc"
    names = [f"work_{number}" for number in range(units)]
    main.write_text(
        "".join(f"int {name}(int);\n" for name in names)
        + f"int main(int n, char **) {{ return {' + '.join(f'{name}(n)' for name in names)}; }}\n"
    )
    link = ["g++", "-g", main.name, *(each.name for each in objects), "-o", program.name]
    subprocess.run(link, cwd=folder, check=True)
    return program


def code_addresses(program: Path) -> list[int]:
    """Return addresses spread over the program's own functions, the same at each run."""
    kept = program.with_suffix(".json")
    if not kept.exists():
        listing = subprocess.run(["nm", "-S", program], check=True, capture_output=True, text=True)
        sized = re.findall(r"^(\w+) (\w+) [tTwW] ", listing.stdout, re.MULTILINE)
        chosen = random.Random(1).choices(sized, k=ADDRESSES)
        kept.write_text(json.dumps([int(at, 16) + int(size, 16) // 2 for at, size in chosen]))
    addresses: list[int] = json.loads(kept.read_text())
    return addresses


def symbolic_reader(program: Path) -> Callable[[int], object]:
    """Turn the whole of the debug information into a search table, then look up in it."""
    from symbolic.debuginfo import Archive  # noqa: PLC0415

    symcache = next(iter(Archive.open(str(program)).iter_objects())).make_symcache()
    look_up: Callable[[int], list[Any]] = symcache.lookup
    return lambda address: [(each.full_path, each.line) for each in look_up(address)]


def drgn_reader(program: Path) -> Callable[[int], object]:
    """Read only the units that are asked for, each time."""
    import drgn  # noqa: PLC0415

    flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
    opened = drgn.Program(drgn.Platform(drgn.Architecture.X86_64, flags))
    module = opened.extra_module("program", create=True)
    module = module[0] if isinstance(module, tuple) else module
    module.address_range = (0, 1 << 47)
    module.try_file(str(program), force=True)
    return lambda address: str(opened.source_location(address))


def time_reader(make: Callable[[Path], Callable[[int], object]], program: Path) -> dict[str, float]:
    """Time one reader in this process."""
    addresses = code_addresses(program)
    began = time.perf_counter()
    look_up = make(program)
    look_up(addresses[0])
    first = time.perf_counter()
    for address in addresses:
        look_up(address)
    cold = time.perf_counter()
    for address in addresses:
        look_up(address)
    warm = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "first_s": first - began,
        "cold_s": cold - began,
        "warm_s": warm - cold,
        "peak_mb": peak / 1024,
    }


def time_leaktop(program: Path, *, lines: bool) -> dict[str, float]:
    """Time the way that leaktop takes, child process and demangling included."""
    from leaktop.elf import ElfAddress, FileOffset  # noqa: PLC0415
    from leaktop.symbolize import Location, Module, Symbolizer  # noqa: PLC0415

    began = time.perf_counter()
    module = Module(str(program))
    module.hold(os.open(program, os.O_RDONLY))
    elf = module.open_elf()
    symbols = len(elf.symbols())
    opened = time.perf_counter()
    offsets = [elf.offset_of(ElfAddress(each)) or 0 for each in code_addresses(program)]
    places = [Location(each, module, FileOffset(each + 1)) for each in offsets]
    symbolizer = Symbolizer()
    start = time.perf_counter()
    symbolizer.frames(places, lines=lines)
    cold = time.perf_counter()
    frames = symbolizer.frames(places, lines=lines)
    warm = time.perf_counter()
    symbolizer.close()
    named = sum(frame.symbol is not None for frame in frames)
    assert named == len(frames), f"{len(frames) - named} frames without a name"
    return {
        "symbols": symbols,
        "open_s": opened - began,
        "cold_s": cold - start,
        "warm_s": warm - cold,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "child_peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


MEASURED: dict[str, Callable[[Path], dict[str, float]]] = {
    "symbolic": partial(time_reader, symbolic_reader),
    "drgn": partial(time_reader, drgn_reader),
    "leaktop names": partial(time_leaktop, lines=False),
    "leaktop lines": partial(time_leaktop, lines=True),
}


def measured(name: str, program: Path) -> dict[str, float] | None:
    """Measure one reader in a process of its own; None, with the reason told, where it cannot."""
    command = [sys.executable, __file__, CHILD, name, str(program)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
        return None
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def be_child(name: str, program: Path) -> None:
    """Measure one reader, and print what was found as JSON."""
    try:
        print(json.dumps(MEASURED[name](program)))
    except ImportError as error:
        sys.exit(f"not installed: {error.name}")


def main() -> None:
    """Be the child, or build the program, measure each reader on it, print, write."""
    if sys.argv[1:2] == [CHILD]:
        be_child(sys.argv[2], Path(sys.argv[3]))
        return
    run = begin("symbols", __doc__, rounds=3)
    FOLDER.mkdir(parents=True, exist_ok=True)
    program = build(FOLDER, MEGABYTES_QUICK if run.quick else MEGABYTES)
    code_addresses(program)
    what = f"{program.stat().st_size / 1e6:.0f} MB of C++, {ADDRESSES} addresses"
    samples = Samples()
    for number in range(run.rounds):
        run.progress(f"{what}, {number + 1} of {run.rounds}")
        for name in MEASURED:
            for figure, value in (measured(name, program) or {}).items():
                samples.add(f"{name}: {figure}", value)
    for name in samples.names:
        figure, _, unit = name.rpartition("_")
        parts = samples.parts(name)
        run.say(Figure(f"{what}, {figure}", samples.median(name), UNITS.get(unit, ""), parts=parts))
    run.write()


if __name__ == "__main__":
    main()
