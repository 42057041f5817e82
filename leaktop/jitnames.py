"""What runtimes call their functions in perf maps, taken apart: function, file and line.

=======  ===========================================================  ===========================
writer   as written                                                   reads as
=======  ===========================================================  ===========================
V8       ``JS:*get size file:///srv/a.js:12:3``, ``LazyCompile:~f …``  ``get size``, file and line
CPython  ``py::Cache.put:/srv/a.py``                                   ``Cache.put`` and file
Java     ``Lcom/foo/Bar;::put(I)V`` (perf-map-agent)                   ``com.foo.Bar.put``
Java     ``int com.foo.Bar.put(int)`` (``jcmd PID Compiler.perfmap``)  the same
=======  ===========================================================  ===========================

V8's mark in front of the name says how far it optimized: not part of the function. Sources: V8,
src/logging/log.cc; CPython, Python/perf_trampoline.c; perf-map-agent, perf-map-agent.c; OpenJDK,
CodeCache::write_perf_map. Pure, standard library only; nothing takes longer than the name is long.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

PYTHON, SCRIPT, JAVA, OTHER = "[python]", "[js]", "[java]", "[jit]"
MODULES = frozenset({PYTHON, SCRIPT, JAVA, OTHER})
"""Pseudo modules of functions that a runtime named itself."""

_PYTHON_MARK = "py::"
_V8 = re.compile(r"(?:JS|LazyCompile|Function|Script|Eval):[~^+*]?(?=[^~^+*])")
_PLACE = re.compile(r":(\d{1,9}):\d{1,9}$", re.ASCII)
_FILE = re.compile(r" (?=/|file:|node:)")
_AGENT = re.compile(
    r"L([^;:()]+);::([^:;()]+)(?:\([\w/$;\[]*\)[\w/$;\[]*)?(?:\(([^():]+):(\d{1,9})\))?$", re.ASCII
)
_PERFMAP = re.compile(r"[\w.$]+(?:\[\])* (?:[\w$]+\.)+[\w$<>]+\([^()]*\)$")
_INLINED = "->"  # perf-map-agent, unfoldall


class JitName(NamedTuple):
    """One name, taken apart."""

    function: str
    module: str
    """One of ``MODULES``."""
    file: str | None = None
    line: int | None = None


def parse(name: str) -> JitName:
    """Take a name of a perf map apart; one of no known form is a function as it stands."""
    if name.startswith(_PYTHON_MARK):
        function, colon, file = name.removeprefix(_PYTHON_MARK).partition(":")
        if colon and function:
            return JitName(function, PYTHON, file or None)
    found = _V8.match(name)
    if found:
        return _script(name[found.end() :]) or JitName(name, SCRIPT)
    if name.startswith("L"):
        return _agent(name) or JitName(name, OTHER)
    return JitName(name, JAVA if _PERFMAP.match(name) else OTHER)


def _script(text: str) -> JitName | None:
    place = _PLACE.search(text)
    if place is None:
        return None
    text = text[: place.start()]
    blank = _FILE.search(text)
    at = blank.start() if blank else text.rfind(" ")
    file = text[at + 1 :]
    if at < 0 or not file:
        return None
    if file.startswith("file://"):
        file = unquote(file.removeprefix("file://"))
    return JitName(text[:at] or "(anonymous)", SCRIPT, file, int(place[1]) or None)


def _agent(name: str) -> JitName | None:
    parts = [_AGENT.match(part) for part in name.split(_INLINED)]
    calls = [part for part in parts if part]
    if len(calls) < len(parts):
        return None
    function = _INLINED.join(f"{call[1].replace('/', '.')}.{call[2]}" for call in calls)
    file, line = calls[-1][3], calls[-1][4]  # of the innermost
    return JitName(function, JAVA, file, int(line) if line and int(line) else None)
