"""One stack as text for a bug report."""

from dataclasses import replace

from leaktop.export.stack_text import stack_text
from leaktop.model import Growth
from tests.unit.exported import CUT, HOSTILE, LEAK, UNNAMED, export_of, plain


def text_of(stack_id: int) -> list[str]:
    export = plain()
    (site,) = [each for each in export.reading.snapshot.sites if each.stack_id == stack_id]
    return stack_text(export, site).splitlines()


def test_all_that_finds_the_lines_again() -> None:
    lines = text_of(LEAK)
    assert lines[0].endswith(
        ": outstanding memory of leaky (4242), 2026-01-31 12:01:00 UTC, after 1m00s"
    )
    assert lines[1:6] == [
        "stack 0000000000009f31: 1152000 bytes in 24000 blocks, 0/s, oldest 59s, "
        "24000 allocations, 0 frees",
        "suspicion 0.97: <grows> & never frees",
        "lost: truncated 3: allocations whose stack could not be followed to its end",
        "  #0  note_new (inlined) /src/leaky/session.c:31",
        "  #1  session_open+0x1f [leaky+0x1178] /src/leaky/session.c:88",
    ]
    assert lines[-2:] == ["build ids:", f"  /usr/bin/leaky {'c0ffee' * 6}"]


def test_code_without_names_has_its_offset_in_the_file() -> None:
    assert text_of(UNNAMED)[-4:] == [
        "  #0  libunknown.so.1+0x2ae20",
        "  #1  libunknown.so.1+0x2b000",
        "build ids:",
        "  /usr/lib/libunknown.so.1 has none",
    ]


def test_a_cut_stack_says_so() -> None:
    assert "  [the stack goes on]" in text_of(CUT)


def test_no_name_does_harm_to_a_terminal() -> None:
    assert all(line.isprintable() for line in text_of(HOSTILE))


def test_new_pages_are_called_so() -> None:
    read = replace(plain().reading.snapshot, growth=Growth(0))
    export = export_of(read)
    (site,) = [each for each in read.sites if each.stack_id == LEAK]
    assert "1152000 bytes in 24000 new pages, 0/s, 24000 page faults" in stack_text(export, site)
