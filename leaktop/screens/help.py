"""The help screen: keys, columns, signs, losses, and what is traced."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.strip import Strip

from leaktop import __version__
from leaktop import format as fmt
from leaktop.candidates import Estimate
from leaktop.model import LOSSES, Memory, Target, TracedFunction, TracedLibrary, Tracing
from leaktop.widgets.key_hints import KeyHints
from leaktop.widgets.rows import RowsView

KEYS = (
    ("↑ ↓ j k", "one row up or down; PgUp PgDn a page; g Home first row, G End last row"),
    ("Enter", "open a stack: frames, source lines, ages and sizes of what it holds"),
    ("a", "in a stack: its live blocks, oldest first; Enter shows the first bytes of one"),
    ("l", "in a stack: what it allocates and frees from now on, the newest at the bottom"),
    ("Esc", "go back; on the table: drop the text filter, or go back to the processes."
     " It never quits"),
    ("s < >", "sort by the next or previous column; so does a click on a heading"),
    ("r", "reverse the order"),
    ("f", "show the innermost frame under WHERE, allocators and all, or again what matters"),
    ("/", "show only stacks with matching text: a regular expression, ! inverts;"
     " upper case in it makes case count. Enter keeps it, Esc clears it"),
    ("i I", "ignore the selected stack, and those like it, also in later runs (see CONFIGURATION);"
     " an ignored one: no longer. I shows the ignored ones in the table, or hides them; the top"
     " lines count them all the same"),
    ("z Z", "least and greatest size traced, as in 4k or 1.5M; empty: no limit"),
    ("+ -", "trace one of more, or of fewer, allocations: 1, 2, 5, 10, 20, 50, 100 ..."),
    ("Space p", "freeze the screen; tracing goes on"),
    ("m M", "set a mark: BYTES and BLOCKS then are the change since; M forgets it"),
    ("d", "show only what grew since the mark and is still held, or since the start without one"),
    ("t", "all stacks as a tree of calls; Enter ← → fold, r from the other end: who allocates, and"
     " from where; E and C unfold and fold all, f shows allocators, s sorts. % is of all bytes,"
     " OWN what a function allocated itself. Enter on a last call opens its stack"),
    ("e", "export what is shown to a file, whose ending says the format: flame graph (.svg), report"
     " (.html), pprof (.pb.gz), speedscope (.speedscope.json), .folded, .csv, .json"),
    ("y", "copy the stack as text for a bug report: to the clipboard, where the terminal takes"
     " OSC 52, and to a file"),
    ("X", "growth mode instead of exact tracing of the same process, or back; each begins anew"),
    ("R", "record all that is seen to a file in the current folder, or end that;"
     " leaktop --replay FILE shows it again"),
    ("o", "of a command that leaktop started: show what it printed, or hide it; Tab goes between"),
    ("? F1", "this help"),
    ("q Ctrl+C", "quit; the target goes on untouched. A command that leaktop started: asks first"),
)  # fmt: skip

REPLAY_KEYS = (
    ("Space p", "play, or stand still; at the end: from the begin again"),
    ("← → , .", "one snapshot back or on; in a stack ← goes back to the table, and , . step"),
    ("[ ]", "a minute back or on"),
    ("{ }", "to the begin, to the end"),
    ("x", "play 1, 4, 16 or 64 times as fast as it was"),
)
"""What keys do besides where a recording is shown."""

COLUMNS = (
    ("BYTES", "held now by blocks that this stack allocated since counting started"),
    ("BLOCKS", "how many blocks that is"),
    ("+BYTES", "with a mark: how BYTES has changed since; +BLOCKS: how BLOCKS has"),
    ("GROWTH/s", "change of BYTES a second, over the last 10 seconds"),
    ("OLDEST", "age of the oldest block held; ≤ where only an upper bound is known"),
    (
        "SUSPECT",
        "how much its figures look like a leak's, from 0 to 1: ! from 0.45 on, !! from 0.8 on;"
        " the line below the table says why, for the selected row",
    ),
    ("LIFETIME", "in a stack: how long the blocks that it freed had been held"),
    ("ALLOCS", "allocations since counting started; FREES: how many of them were freed"),
    ("WHERE", "the innermost function that is no allocator or C++ library code, and its module"),
    (
        "held",
        "outstanding bytes of all stacks, and how they came about: the peaks of equal parts of the"
        " time since the start; the last hour is kept tick by tick, what is older in coarser steps",
    ),
    ("rss", "resident memory of the target as the kernel counts it"),
    ("avail", "of the kernel (-k): what programs could still get; slab: what slab caches hold"),
)

GROWTH = (
    "This is growth, not leaks: each row has the new pages that a stack was the first to touch,"
    " whether they were given back since or not; that shows in rss alone, with its change since"
    " the start. BYTES and PAGES are pages that page faults brought, of files only private copies;"
    " CALLS are those of brk, mmap and mremap, which take addresses and no memory yet."
    " FAULTS are fewer than PAGES where huge pages came. Pages have no sizes and no ages."
)
"""What the figures of growth mode are."""

SIGNS = (
    ("~", "an estimate: sampling is or was on, each block kept counts for those passed over"),
    ("†", "before a PID: that process has ended, and its last state stays"),
    ("…", "before a name: the stack goes on, but was cut: it could not be followed further"),
    ("(ignored)", "a stack of the ignore list: shown since I was pressed"),
    ("<…>", "in a name: template arguments for which there is no room; Enter shows them"),
    ("(no stack)", "what counts under no stack, since the table of stacks was full (--max-stacks)"),
    ("?", "in a name: a character that is not shown because it could harm the terminal"),
)

_SECTIONS = (
    ("KEYS", KEYS),
    ("KEYS OF A RECORDING", REPLAY_KEYS),
    ("COLUMNS", COLUMNS),
    ("SIGNS", SIGNS),
)
_KEY_WIDTH = 11
_NAME_MAX = 20
Line = tuple[str, str, str]
"""Style, key, text."""
Sections = Sequence[tuple[str, Sequence[tuple[str, str]]]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user's configuration is."""

    path: Path | None = None
    problems: Sequence[str] = ()

    @property
    def notice(self) -> str:
        """What is wrong with it, in a line; empty where nothing is."""
        if not self.problems:
            return ""
        more = f" (and {len(self.problems) - 1} more: see ?)" if len(self.problems) > 1 else ""
        return fmt.clean(f"config.toml: {self.problems[0]}{more}")


NO_SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the help says of this run."""

    target: Target
    tracing: Tracing | None
    """None while still attaching."""
    memory: Memory | None
    """None until it was read."""
    problems: Mapping[str, str]
    """Why modules have no names or lines."""
    lost: Mapping[str, int]
    settings: Settings = NO_SETTINGS
    estimate: Estimate | None = None
    """What tracing costs the target now, where that is known."""


class TextView(RowsView):
    """Scrolls through a text; there is nothing to select. Subclasses give ``text``."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []

    def text(self, width: int) -> Iterator[Line]:
        """Return the lines, none of them longer than ``width``."""
        raise NotImplementedError

    def on_resize(self) -> None:
        """Wrap the text to the new width."""
        self._wrap()
        super().on_resize()

    def _wrap(self) -> None:
        self._lines = list(self.text(max(20, self.size.width - 2)))

    @property
    def row_count(self) -> int:
        """Places that the text can be scrolled to."""
        return max(1, len(self._lines) - self.page + 1)

    @property
    def position(self) -> str:
        """Which lines are on the screen."""
        if len(self._lines) <= self.page:
            return ""
        last = min(len(self._lines), self.top + self.page)
        return f"{self.top + 1}-{last}/{len(self._lines)}"

    def settle(self) -> None:
        """Put the line reached on top."""
        self.index = min(self.index, self.row_count - 1)
        self.top = self.index

    def heading(self) -> Strip:
        """Draw the title."""
        line = self.builder(self.style("heading")).put(f" leaktop {__version__}: help")
        return line.cell(self.position + " ", line.left, right=True).strip()

    def line(self, y: int) -> Strip:
        """Draw the title or a line of the text."""
        if y == 0:
            return self.heading()
        line = self.builder()
        if (index := self.top + y - 1) < len(self._lines):
            style, key, text = self._lines[index]
            line.put(" ").cell(key, len(key), self.style(style))
            line.put(text)
        return line.strip()


class HelpText(TextView):
    """What there is to say of this run, and of the main screen."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts

    def show(self, facts: Facts) -> None:
        """Show these facts."""
        self._facts = facts
        self._wrap()
        self.settle()
        self.repaint()

    def text(self, width: int) -> Iterator[Line]:
        """Return the whole help."""
        yield from _traced(self._facts.target, self._facts.tracing, width)
        if self._facts.estimate is not None:
            slowed = fmt.format_estimate(self._facts.estimate)
            yield from _wrapped(f"Tracing slows it {slowed}.", width)
        yield from _unnamed(self._facts.problems, width)
        yield from sections(
            (
                ("KEYS", KEYS),
                ("KEYS OF A RECORDING", REPLAY_KEYS),
                ("COLUMNS", COLUMNS),
                ("SIGNS", SIGNS),
            ),
            width,
        )
        yield from _probes(self._facts.tracing, width)
        yield from _configuration(self._facts.settings, width)
        yield from _memory(self._facts.memory, width)
        yield from _losses(self._facts.lost, width)


class HelpScreen(Screen[None]):
    """Help over whatever was on the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,enter", "leave", show=False),
    ]

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._help = HelpText(facts)

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._help
        yield KeyHints((("Esc", "back"), ("PgUp PgDn", "scroll"), ("q", "quit")))

    def on_mount(self) -> None:
        """Let the keys scroll."""
        self._help.focus()

    def show(self, facts: Facts) -> None:
        """Show these facts."""
        self._help.show(facts)

    def action_leave(self) -> None:
        """Go back."""
        self.dismiss()


def _traced(target: Target, tracing: Tracing | None, width: int) -> Iterator[Line]:
    yield "title", "TRACED", ""
    if tracing is None:
        yield from _wrapped("nothing yet: still attaching", width)
        return
    if tracing.tracepoints:
        whose = f", as far as it works for {target.pid} ({target.comm})" if target.pid else ""
        yield from _wrapped(f"the kernel{whose}, by {tracing.way}:", width)
        yield from _wrapped(", ".join(tracing.tracepoints), width, indent=2)
        for left_out in tracing.left_out:
            yield from _wrapped(f"! not {left_out}", width, indent=2, style="bad")
        return
    who = ", ".join(f"{each.pid} ({each.comm})" for each in tracing.processes or (target,))
    yield from _wrapped(f"{who}, by {tracing.way}:", width)
    if tracing.growth:
        yield from _wrapped(tracing.growth, width, indent=2)
        yield from _wrapped(GROWTH, width)
    for library in tracing.libraries:
        yield from _wrapped(str(library), width, indent=2)
    for each in tracing.refusals:
        yield from _wrapped(f"! not {each}", width, indent=2, style="bad")
    for library in tracing.libraries:
        for left_out in library.left_out:
            yield from _wrapped(f"not {left_out}", width, indent=2)


def _probes(tracing: Tracing | None, width: int) -> Iterator[Line]:
    libraries = () if tracing is None else tracing.libraries
    if libraries:
        yield "dim", "", ""
        yield "title", "PROBES", ""
        yield from _wrapped(
            "Where each function's probe is: bytes from its entry, and the instruction there. "
            "One that the kernel emulates (push, nop, jump) costs a fraction of one that it has "
            "to step through. --probe-at-entry puts all at the entry.",
            width,
        )
    for library in libraries:
        yield from _wrapped(f"{library.name}:", width)
        yield from _probes_in(library, width)


def _probes_in(library: TracedLibrary, width: int) -> Iterator[Line]:
    longest = max((len(fmt.clean(each.name)) for each in library.functions), default=0)
    for each in library.functions:
        key = f"  {fmt.clean(each.name)}"
        yield from _entry(key, _place(each), width, min(longest, _NAME_MAX) + 4)


def _place(function: TracedFunction) -> str:
    if function.refused:
        return f"refused: {function.refused}"
    where = f"+{function.shift}" if function.shift else "entry"
    if function.instruction:
        where += f", {fmt.clean(function.instruction)}"
    return f"{where}: {function.why}" if function.why else where


def _memory(memory: Memory | None, width: int) -> Iterator[Line]:
    if memory is None:
        return
    yield "dim", "", ""
    yield "title", "MEMORY OF LEAKTOP ITSELF", ""
    maps = fmt.format_bytes(sum(memory.maps.values()))
    yield from _wrapped(
        f"{fmt.format_bytes(memory.resident)} resident; {maps} in the kernel, which depends on "
        "--max-allocs and --max-stacks, not on the target. By map:",
        width,
    )
    for name, size in sorted(memory.maps.items(), key=lambda item: -item[1]):
        yield from _entry(f"  {name}", fmt.format_bytes(size), width, _NAME_MAX)


def _unnamed(problems: Mapping[str, str], width: int) -> Iterator[Line]:
    if problems:
        yield "dim", "", ""
        yield "title", "WITHOUT NAMES OR LINES", ""
    for name in sorted(problems):
        yield from _wrapped(f"{fmt.clean(name)}: {problems[name]}", width)


def _configuration(settings: Settings, width: int) -> Iterator[Line]:
    if settings.path is None:
        return
    yield "dim", "", ""
    yield "title", "CONFIGURATION", ""
    yield from _wrapped(
        f"{settings.path}: sort, columns, theme and delay, where the command line says nothing; "
        "and in [[ignore]] what i has added: stack = a list of frames, innermost first, each "
        "MODULE!FUNCTION with * and ?, or ... for any number of frames.",
        width,
    )
    for problem in settings.problems:
        yield from _wrapped(f"! {problem}", width, indent=2, style="warn")


def sections(parts: Sections, width: int) -> Iterator[Line]:
    """Return titles, each with its entries, a key and a text, under it."""
    for title, entries in parts:
        yield "dim", "", ""
        yield "title", title, ""
        for key, text in entries:
            yield from _entry(key, text, width, _KEY_WIDTH)


def _losses(lost: Mapping[str, int], width: int) -> Iterator[Line]:
    yield "dim", "", ""
    yield "title", "LOSSES", ""
    yield from _wrapped(
        "What could not be accounted is counted by name, here and in the top lines; "
        "with none of them the figures are exact.",
        width,
    )
    key_width = max(map(len, LOSSES)) + 2
    for name in [*LOSSES, *(name for name in lost if name not in LOSSES)]:
        count = lost.get(name, 0)
        text = LOSSES.get(name, "not described")
        yield from _entry(name, f"{fmt.format_count(count)}: {text}", width, key_width)


# Whole lines, what goes on in the next one set in by ``indent`` and two more.
def _wrapped(text: str, width: int, indent: int = 0, style: str = "dim") -> Iterator[Line]:
    first = " " * indent
    further = f"{first}  " if indent else ""
    for part in textwrap.wrap(
        fmt.clean(text), width, initial_indent=first, subsequent_indent=further
    ):
        yield style, part, ""


def _entry(key: str, text: str, width: int, key_width: int) -> Iterator[Line]:
    wrapped = textwrap.wrap(text, max(20, width - key_width))
    for i, part in enumerate(wrapped):
        yield "strong", (key if i == 0 else "").ljust(key_width), part
