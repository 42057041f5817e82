"""Names as node 20, CPython 3.12, OpenJDK 17 and perf-map-agent write them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop.jitnames import MODULES, parse
from leaktop.names import short_name


@pytest.mark.parametrize(
    ("name", "function", "module", "file", "line"),
    [
        ("LazyCompile:~foo /app/x.js:12:3", "foo", "[js]", "/app/x.js", 12),
        ("LazyCompile:*get size /srv/a b.js:1:76", "get size", "[js]", "/srv/a b.js", 1),
        ("JS:*foo /app/x.js:12:3", "foo", "[js]", "/app/x.js", 12),
        ("JS:^foo file:///app/a%20b.mjs:7:1", "foo", "[js]", "/app/a b.mjs", 7),
        ("JS:~ /app/x.js:1:1", "(anonymous)", "[js]", "/app/x.js", 1),
        ("Script:~ /app/x.js:1:1", "(anonymous)", "[js]", "/app/x.js", 1),
        ("JS:+append node:internal/list:30:16", "append", "[js]", "node:internal/list", 30),
        ("Function:f evalmachine.<anonymous>:3:9", "f", "[js]", "evalmachine.<anonymous>", 3),
        ("JS:*js-to-wasm:iii:i", "JS:*js-to-wasm:iii:i", "[js]", None, None),
        ("JS:*f", "JS:*f", "[js]", None, None),
        ("JS:*f :1:2", "JS:*f :1:2", "[js]", None, None),
        ("py::func:/path/file.py", "func", "[python]", "/path/file.py", None),
        ("py::<module>:/srv/a b:c.py", "<module>", "[python]", "/srv/a b:c.py", None),
        (
            "py::C.<locals>.<lambda>:<frozen x>",
            "C.<locals>.<lambda>",
            "[python]",
            "<frozen x>",
            None,
        ),
        ("py::odd", "py::odd", "[jit]", None, None),
        ("Lcom/foo/Bar;::method", "com.foo.Bar.method", "[java]", None, None),
        ("LBar;::<init>(I[JLx/Y;)V", "Bar.<init>", "[java]", None, None),
        ("Lcom/foo/Bar;::put(Bar.java:12)", "com.foo.Bar.put", "[java]", "Bar.java", 12),
        ("Lcom/foo/Bar;::put(I)V(Bar.java:12)", "com.foo.Bar.put", "[java]", "Bar.java", 12),
        ("La/B;::c->Ld/E;::f", "a.B.c->d.E.f", "[java]", None, None),
        ("int Leak$Store.put(int)", "int Leak$Store.put(int)", "[java]", None, None),
        ("byte[] b.C.f(int, a.D[])", "byte[] b.C.f(int, a.D[])", "[java]", None, None),
        ("Lock::take", "Lock::take", "[jit]", None, None),
        ("I2C/C2I adapters", "I2C/C2I adapters", "[jit]", None, None),
        ("Builtin:CallFunction", "Builtin:CallFunction", "[jit]", None, None),
        ("BytecodeHandler:Star.Wide", "BytecodeHandler:Star.Wide", "[jit]", None, None),
        ("", "", "[jit]", None, None),
    ],
)
def test_known_forms(
    name: str, function: str, module: str, file: str | None, line: int | None
) -> None:
    assert parse(name) == (function, module, file, line)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("int Leak$Store.put(int)", "Leak$Store.put"),
        ("byte[] a.b.C.copy(int, a.D[])", "a.b.C.copy"),
        ("JS:*get size /srv/a.js:1:76", "get size"),
        ("JS:~ /app/x.js:1:1", "(anonymous)"),
        ("py::<module>:/srv/a.py", "<module>"),
        ("py::C.put.<locals>.<lambda>:/srv/a.py", "C.put.<locals>.<lambda>"),
        ("LBar;::<init>(I)V", "Bar.<init>"),
        ("La/B;::c->Ld/E;::f", "a.B.c->d.E.f"),
    ],
)
def test_they_read_well_where_there_is_little_room(name: str, short: str) -> None:
    assert short_name(parse(name).function) == short


PIECES = ["JS:", "*", "~", " ", "/", "file://", "%", ":", "1", "py::", "L", ";::", "->", "(", ")"]


@settings(deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_any_text_is_a_name(name: str) -> None:
    found = parse(name)
    assert bool(found.function) == bool(name)
    assert found.module in MODULES
    assert found.file != ""
    assert found.line is None or 0 < found.line < 10**9
