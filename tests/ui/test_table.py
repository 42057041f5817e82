"""Selection, visible lines only, and names that mean harm."""

from dataclasses import replace

import pytest
from textual.strip import Strip

from leaktop.model import Frame
from leaktop.widgets.frames import FramesView
from leaktop.widgets.lines import LinesView
from leaktop.widgets.notes import NotesView
from leaktop.widgets.site_table import SiteTable
from tests.ui.driving import driving
from tests.ui.scripted import (
    BARE,
    CACHE,
    CHURN,
    LEAK,
    LINES,
    PYTHON,
    STRINGS,
    ScriptedSource,
    leaky_source,
    many_sites,
    site,
    sites_at,
    snapshot,
)


async def test_selection_stays_on_its_stack_while_rows_move() -> None:
    source = leaky_source()
    # At 60 s the leak is second, after 700 s it is first.
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(700.0, sites_at(700))]
    async with driving(source) as driver:
        await driver.press("j")
        assert driver.order.index(LEAK) == 1
        await driver.tick()
        assert driver.order.index(LEAK) == 0
        assert driver.selected == LEAK
        assert "▸   12.8M" in driver.text()


async def test_selection_stays_in_sight_when_its_stack_sinks() -> None:
    sites = many_sites(100, 1)
    first = max(sites, key=lambda s: s.counters.bytes)
    sunk = [replace(first, counters=replace(first.counters, bytes=1))]
    rest = [s for s in sites if s is not first]
    source = ScriptedSource([snapshot(1.0, sites), snapshot(2.0, [*rest, *sunk])])
    async with driving(source) as driver:
        assert driver.selected == first.stack_id
        await driver.tick()
        table = driver.main.table
        assert driver.selected == first.stack_id
        assert table.index in table.visible_rows
        assert table.index > 90


async def test_a_stack_that_vanishes_hands_over_to_its_neighbour() -> None:
    source = leaky_source()
    gone = [s for s in sites_at(60) if s.stack_id != STRINGS]
    last = [s for s in gone if s.stack_id in (CACHE, LEAK)]
    source.snapshots = [snapshot(60.0, sites_at(60)), snapshot(61.0, gone), snapshot(62.0, last)]
    async with driving(source) as driver:
        await driver.press("j", "j")
        assert driver.selected == STRINGS
        await driver.tick()
        assert driver.selected == PYTHON
        await driver.tick()
        assert driver.selected == LEAK


async def test_everything_vanishes_and_comes_back() -> None:
    source = leaky_source()
    source.snapshots = [
        snapshot(60.0, sites_at(60)),
        snapshot(61.0, []),
        snapshot(62.0, sites_at(62)),
    ]
    async with driving(source) as driver:
        await driver.tick()
        assert driver.main.table.selected is None
        assert "nothing that was allocated since is still held" in driver.text()
        await driver.press("enter", "j", "G", "s", "r", "r", "s", "s", "s")
        await driver.tick()
        assert driver.selected in driver.order


async def test_a_filtered_out_stack_has_its_selection_back() -> None:
    async with driving(leaky_source()) as driver:
        await driver.press("j", "j", "j", "j")
        assert driver.selected == CHURN
        await driver.press("slash", *"cache_put", "enter")
        assert driver.selected == CACHE
        await driver.press("escape")
        assert driver.selected == CHURN


async def test_names_that_come_late_bring_rows_into_the_filter() -> None:
    source = leaky_source()
    source.gates["resolve"].shut()
    async with driving(source, ticked=False) as driver:
        await driver.traced()
        await driver.tick(named=False)
        assert "0x5603282b1000 [leaky]" in driver.text()
        await driver.press("slash", *"cache_put", "enter")
        assert driver.order == []
        source.gates["resolve"].open()
        await driver.named()
        await driver.until(lambda: driver.order == [CACHE])


async def test_visible_rows_are_named_first() -> None:
    source = ScriptedSource([snapshot(5.0, many_sites(2000, 5))], names={})
    async with driving(source) as driver:
        visible = [s.stack_id for s in driver.main.table.visible_sites]
        assert source.resolved[0][0][: len(visible)] == visible
        assert {i for ids, _ in source.resolved for i in ids} == set(range(1, 2001))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the lines that widgets are asked to render."""
    calls: list[str] = []
    render_line = LinesView.render_line

    def counted(self: LinesView, y: int) -> Strip:
        calls.append(f"{type(self).__name__}:{y}")
        return render_line(self, y)

    monkeypatch.setattr(LinesView, "render_line", counted)
    return calls


async def test_ten_thousand_stacks_cost_what_is_visible(
    drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    row = SiteTable.row

    def counted(self: SiteTable, index: int, *, selected: bool) -> Strip:
        rows.append(index)
        return row(self, index, selected=selected)

    monkeypatch.setattr(SiteTable, "row", counted)
    source = ScriptedSource([snapshot(float(t), many_sites(10_000, t)) for t in (5, 6)])
    async with driving(source) as driver:
        drawn.clear()
        rows.clear()
        await driver.press("j")
        # Only the two rows change that the cursor left and reached.
        assert [line for line in drawn if line.startswith("SiteTable")] == [
            "SiteTable:1",
            "SiteTable:2",
        ]
        assert len(rows) <= 2 * driver.main.table.page
        assert driver.main.table.index == 1

        drawn.clear()
        rows.clear()
        await driver.tick()
        table_lines = {line for line in drawn if line.startswith("SiteTable")}
        assert len(table_lines) <= 20
        assert len(rows) <= 2 * driver.main.table.page


async def test_a_tick_that_changes_nothing_paints_no_row(drawn: list[str]) -> None:
    source = ScriptedSource([snapshot(60.0, sites_at(60)), snapshot(70.0, sites_at(60))])
    async with driving(source) as driver:
        await driver.tick()
        await driver.tick()
        drawn.clear()
        await driver.tick()
        assert [line for line in drawn if line.startswith("SiteTable")] == []


HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07evil\x1bc",
    "[red]bold[/red] [link=file:///etc/passwd]x[/link] [@click=app.quit]",
    "two\nlines\r\tand\x0btabs",
    "\u202etxt.exe\u2066 \u200bzero\ufeff",
    "\x9b31m csi\x85\u2028",
    "wide 数値解析ライブラリ e\u0301 👩‍💻",
    "x" * 100_000,
    "\udcff\udc80 lone surrogates",
)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
@pytest.mark.parametrize("ascii_only", [False, True])
async def test_hostile_names(size: tuple[int, int], ascii_only: bool) -> None:
    frames = {
        i: tuple(
            Frame(0x1000 + n, module=name[:200], symbol=name, offset=1, file=f"/{name}", line=n + 1)
            for n in range(3)
        )
        for i, name in enumerate(HOSTILE, start=1)
    }
    sites = [site(i, 1000 * i, i, stack, oldest=1.0) for i, stack in frames.items()]
    hostile_note = snapshot(5.0, sites, lost={"tru\x1b[31mncated": 3})
    target = replace(hostile_note.target, comm="le\x1b[5maky\n")
    source = ScriptedSource([replace(hostile_note, target=target)], names=frames, lines=frames)
    async with driving(source, size=size, ascii_only=ascii_only) as driver:
        for _ in frames:
            for keys in (["enter"], ["j", "j"], ["escape"], ["j"]):
                await driver.press(*keys)
                lines = driver.text().split("\n")
                assert len(lines) == size[1]
                for line in lines:
                    assert line.isprintable()
                    assert not set(line) & set("\x1b\x9b\u202e\u2066\u200b\ufeff")
                    assert line.isascii() or not ascii_only
        assert "[red]bold[/red]" in driver.text()


async def test_stacks_without_names_frames_or_age() -> None:
    # Under id 1 the kernel counts what found no room in the table of stacks.
    sites = [
        site(7, 10, 1, BARE),
        site(1, 5, 1, (), truncated=True),
        site(8, 2, 1, (), truncated=True),
    ]
    source = ScriptedSource([snapshot(5.0, sites)])
    async with driving(source, size=(100, 40)) as driver:
        text = driver.text()
        assert "0x7f12a0b04e20 [libunknown.so.1]" in text
        assert "·   (no stack: the table of stacks was full)" in text
        assert "·   (no stack: it could not be read)" in text
        await driver.press("j")
        assert driver.text().count("no stack: the table of stacks was full") == 2
        await driver.press("enter")
        assert "no stack: the table of stacks was full (see ?)" in driver.text()
        assert "was cut" not in driver.text()
        await driver.press("escape", "j", "enter")
        assert "no stack: it could not be read (see ?)" in driver.text()


async def test_what_is_cut_is_marked() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        assert "0.1s        · … jit_entry" in driver.text()
        assert driver.text().count(" … ") == 1
        await driver.press("G")
        screen = await driver.opened()
        assert "FRAMES, innermost first, cut" in driver.text()
        assert "… the stack goes on: it was cut here" in driver.text()
        # It can be reached, and is no frame.
        frames = screen.query_one(FramesView)
        await driver.press("G")
        assert (frames.index, frames.selected) == (1, None)
        await driver.press("k")
        assert frames.selected is not None
        await driver.press("escape", "k", "enter")
        assert "cut" not in driver.text()
        await driver.press("question_mark", "pagedown", "pagedown", "pagedown")
        assert "the stack goes on, but was cut" in " ".join(driver.text().split())


async def test_a_deep_stack_that_is_cut_says_so_before_its_end_is_in_sight() -> None:
    deep = tuple(Frame(0x1000 + i, "deep", f"f{i}") for i in range(60))
    sites = [site(5, 10, 1, deep, truncated=True)]
    source = ScriptedSource([snapshot(5.0, sites)], names={5: deep})
    for size in ((80, 24), (200, 50)):
        async with driving(source, size=size) as driver:
            if size[1] >= 36:
                assert "STACK of the selected row, innermost first, cut" in driver.text()
            await driver.press("enter")
            assert "FRAMES, innermost first, cut" in driver.text()
            assert "it was cut here" not in driver.text()
            await driver.press("G")
            assert "▸   … the stack goes on: it was cut here" in driver.text()


async def test_the_selection_stays_where_a_stack_was_cut_as_its_lines_come() -> None:
    source = leaky_source()
    source.snapshots = [snapshot(60.0, [replace(s, truncated=True) for s in sites_at(60)])]
    gate = source.gates["resolve"]
    async with driving(source) as driver:
        gate.shut()
        await driver.press("j", "enter", "G")
        frames = driver.app.screen.query_one(FramesView)
        before = frames.index
        gate.open()
        await driver.until(lambda: frames.row_count > before + 1)
        assert (frames.index, frames.selected) == (before + 1, None)


REGISTRY = (
    "metrics::Registry<std::string, metrics::Counter>::intern(std::string const&)",
    "metrics::Registry<…>::intern",
    "metrics::Registry<std::string, metrics::Counter>::intern",
)


async def test_names_in_the_table_are_short() -> None:
    whole, short, fitting = REGISTRY
    source = leaky_source()
    async with driving(source) as driver:
        assert f" {short[:15]}… [libmetrics.so " in driver.text()
    async with driving(source, size=(110, 24)) as driver:
        assert f" {short} [libmetrics.so.2] " in driver.text()
    async with driving(source, size=(300, 50)) as driver:
        row = next(line for line in driver.text().split("\n") if "intern" in line)
        assert f" {fitting} [libmetrics.so.2] " in row
        assert whole not in row
        assert " ← metrics::flush " in row


async def test_callers_are_shown_without_template_arguments() -> None:
    inner = Frame(0x1000, "app", "leak")
    outer = Frame(0x2000, "app", "ns::Pool<int, std::less<int> >::grow(unsigned long)")
    source = ScriptedSource(
        [snapshot(5.0, [site(5, 10, 1, (inner, outer))])], names={5: (inner, outer)}
    )
    async with driving(source, size=(200, 24)) as driver:
        assert "leak [app]" in driver.text()
        assert "← ns::Pool<…>::grow " in driver.text()


async def test_whole_names_are_in_the_detail_view() -> None:
    whole, short, _ = REGISTRY
    async with driving(leaky_source()) as driver:
        await driver.press("j", "j")
        await driver.opened()
        assert f" 2 {short}+0x2f [libmetrics.so.2]" in driver.text()
        assert whole not in driver.text()
        await driver.press("j", "j")
        assert f" {whole} " in driver.text()
        # Where the row has room for the whole name, there is no other line for it.
        await driver.press("j")
        assert driver.text().count("metrics::flush()") == 1
        assert whole not in driver.text()


@pytest.mark.parametrize(("height", "lines"), [(24, 3), (50, 4)])
async def test_a_very_long_name_takes_the_lines_it_needs(height: int, lines: int) -> None:
    name = f"ns::f<{', '.join(f'Argument{i}' for i in range(25))}>()"
    frames = (Frame(0x1000, "app", name),)
    source = ScriptedSource([snapshot(5.0, [site(5, 10, 1, frames)])], names={5: frames})
    async with driving(source, size=(80, height)) as driver:
        await driver.press("enter")
        await driver.until(lambda: driver.app.screen.query_one(NotesView).size.height == lines)
        shown = [line[1:79] for line in driver.text().split("\n") if "Argument" in line]
        assert len(shown) == lines
        text = "".join(shown).rstrip()
        assert text == name if lines == 4 else text.endswith("…") and name.startswith(text[:-1])


UNNAMED_MODULES = {
    "libunknown.so.1": "cannot be read: Permission denied",
    "other.so": "no lines: DWARF 6",
    "/tmp/perf-4242.map": "belongs to another user",
}


async def test_problems_of_names_are_in_the_detail_view_of_their_stacks() -> None:
    source = leaky_source()
    async with driving(source) as driver:
        await driver.press("G", "k", "enter")
        assert "libunknown.so.1:" not in driver.text()
        # They come while the stack is open.
        source.unnamed = UNNAMED_MODULES
        driver.app.session.collector.want_lines(LEAK)
        await driver.until(lambda: "libunknown.so.1: cannot be read" in driver.text())
        assert "other.so" not in driver.text()
        assert "perf-4242" not in driver.text()
        await driver.press("escape", "g", "enter")
        assert "libunknown.so.1:" not in driver.text()
        await driver.press("escape", "G", "k", "enter")
        assert "libunknown.so.1: cannot be read: Permission denied" in driver.text()


async def test_problems_of_perf_maps_go_with_code_in_no_file() -> None:
    stacks = {
        5: (Frame(0x1000),),
        6: (Frame(0x2000, "[anon]"),),
        7: (Frame(0x3000, "[heap]", "named"),),
    }
    sites = [site(i, 10 - i, 1, frames) for i, frames in stacks.items()]
    source = ScriptedSource([snapshot(5.0, sites)], names=stacks, unnamed=UNNAMED_MODULES)
    async with driving(source) as driver:
        for shown in (True, True, False):
            await driver.press("enter")
            assert ("/tmp/perf-4242.map: belongs to" in driver.text()) is shown
            await driver.press("escape", "j")


async def test_problems_beyond_the_room_are_counted() -> None:
    frames = tuple(Frame(0x1000 + i, f"lib{i}.so") for i in range(9))
    problems = {f"lib{i}.so": "no lines: \x1b[31mdamaged" for i in range(9)}
    source = ScriptedSource([snapshot(5.0, [site(5, 10, 1, frames)])], unnamed=problems)
    async with driving(source) as driver:
        await driver.press("enter")
        text = driver.text()
        assert "lib1.so: no lines: ?[31mdamaged" in text
        assert "lib2.so:" not in text
        assert "7 more modules without names or lines: see ?" in text
        await driver.press("question_mark")
        assert "lib8.so: no lines: ?[31mdamaged" in driver.text()


async def test_wide_screens_show_callers_and_the_selected_stack() -> None:
    async with driving(leaky_source(), size=(200, 50)) as driver:
        await driver.press("j")
        text = driver.text()
        assert "← handle_request ← serve ← main" in text
        assert "STACK of the selected row" in text
        assert f"{len(LINES[LEAK]) - 2} _start" in text
