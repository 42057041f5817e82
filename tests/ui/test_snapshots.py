"""Pictures of the screen at 80x24 and 200x50."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from leaktop import player
from leaktop.app import LeaktopApp
from leaktop.config import Config
from leaktop.ignore import Entry
from leaktop.model import KERNEL, Counters, Filters, Frame, ProcessState, Site, System, Tracing
from leaktop.screens.help import HelpText
from leaktop.screens.question import QuestionScreen
from leaktop.screens.tree import TreeScreen
from leaktop.source import SourceError
from leaktop.source.recording import Header, RecordingWriter
from leaktop.source.replay import ReplaySource
from leaktop.widgets.blocks import BlocksView, ContentView
from leaktop.widgets.log import LogView
from tests.ui.driving import NEVER, Driver, make_app
from tests.ui.picking import DEAR, Machine, PickerDriver, make_picker
from tests.ui.scripted import (
    JEMALLOC,
    LIBC,
    TARGET,
    TRACING,
    ScriptedSource,
    detail,
    growing_source,
    happened,
    leaky_source,
    sites_at,
    snapshot,
)
from tests.ui.started import Started

SIZES = [(80, 24), (200, 50)]
Script = Callable[[Driver], Awaitable[object]]
Compare = Callable[..., bool]


def _main(**options: Any) -> ScriptedSource:
    source = leaky_source()
    source.snapshots = [snapshot(float(t), sites_at(t), **options) for t in range(50, 61)]
    return source


def _estimated() -> ScriptedSource:
    source = _main(estimated=True)
    source.details = {i: detail(i, error=1500.0) for i in source.details}
    return source


def _unnamed() -> ScriptedSource:
    source = _main()
    source.unnamed = {"libmetrics.so.2": "no lines: the debug information is damaged"}
    return source


def _refused() -> ScriptedSource:
    tracing = replace(TRACING, libraries=(LIBC, JEMALLOC))
    source = _main(refusals=tracing.refusals)
    source.tracing = tracing
    return source


def _kernel() -> ScriptedSource:
    source = _main()
    stacks = {
        1: ("dentry", ("__d_alloc", "d_alloc", "proc_fill_cache", "proc_pid_readdir")),
        2: (None, ("__alloc_frozen_pages_noprof", "alloc_pages_mpol", "anon_pipe_write")),
        3: ("nf_conntrack", ("__nf_conntrack_alloc", "init_conntrack.isra.0", "nf_conntrack_in")),
    }
    modules = {3: "[nf_conntrack]"}
    source.names = source.lines = {
        number: tuple(
            Frame(0xFFFFFFFF81000000 + i, modules.get(number, "[kernel]"), name, 16 * i)
            for i, name in enumerate(names)
        )
        for number, (_, names) in stacks.items()
    }
    source.details = {number: detail(number) for number in stacks}
    sites = tuple(
        Site(
            number,
            Counters(number << 20, number * 10, 40, 5),
            source.names[number],
            60.0,
            cache=cache,
            lifetimes=(2, 0, 1, 2, *([0] * 20)),
        )
        for number, (cache, _) in stacks.items()
    )
    system = System(available=22 << 30, slab=300 << 20)
    source.snapshots = [
        replace(each, target=KERNEL, sites=sites, system=system) for each in source.snapshots
    ]
    source.tracing = Tracing(way="tracepoints", tracepoints=("kmem:kmalloc", "kmem:kfree"))
    return source


def _growth() -> ScriptedSource:
    return growing_source(range(20, 61))


def _gone() -> ScriptedSource:
    source = _main()
    note = "leaky (4242) exited after 60 s"
    source.snapshots[-1] = snapshot(60.0, sites_at(60), note=note)
    return source


def _several() -> ScriptedSource:
    pids = (4242, 4300, 4301)
    targets = [replace(TARGET, pid=pid, alive=pid != 4301) for pid in pids]
    shots = []
    for t in range(50, 61):
        sites = [replace(each, pid=pids[i % 3]) for i, each in enumerate(sites_at(t))]
        states = tuple(ProcessState(each, Counters()) for each in targets)
        shots.append(replace(snapshot(float(t), sites), processes=states))
    source = leaky_source()
    source.snapshots = shots
    return source


async def _detail(driver: Driver) -> None:
    await driver.press("j")
    await driver.opened()
    await driver.press("j")


async def _growth_detail(driver: Driver) -> None:
    await driver.press("j")
    screen = await driver.opened()
    await driver.until(lambda: bool(screen._chart._values))
    await driver.press("j")


async def _second_row(driver: Driver) -> None:
    await driver.press("j")


async def _long_name(driver: Driver) -> None:
    await driver.press("j", "j")
    await driver.opened()
    await driver.press("j")


async def _innermost(driver: Driver) -> None:
    await driver.press("f")


async def _blocks(driver: Driver) -> None:
    await driver.press("j")
    await driver.opened()
    await driver.press("a")
    blocks = driver.app.screen.query_one(BlocksView)
    await driver.until(lambda: not blocks.lacks)
    await driver.press("pagedown", "down")
    await driver.until(lambda: not blocks.lacks)


async def _content(driver: Driver) -> None:
    await _blocks(driver)
    await driver.press("enter")
    content = driver.app.screen.query_one(ContentView)
    await driver.until(lambda: "reading" not in content.line(1).text)


async def _log(driver: Driver) -> None:
    await driver.press("j")
    screen = await driver.opened()
    await driver.press("l")
    driver.source.happened = happened(60, screen.site.stack_id)
    log = screen.query_one(LogView)
    await driver.until(lambda: log.row_count > 60)


async def _help(driver: Driver) -> None:
    await driver.press("question_mark")
    await driver.until(lambda: driver.app.session.facts.memory is not None)


async def _help_of_probes(driver: Driver) -> None:
    await _help(driver)
    view = driver.app.screen.query_one(HelpText)
    above = [key for _, key, _ in view._lines].index("PROBES")
    await driver.press(*["down"] * above)


async def _paused(driver: Driver) -> None:
    await driver.press("space")


async def _marked(driver: Driver) -> None:
    await driver.press("m")
    driver.source.snapshots.append(snapshot(75.0, sites_at(75)))
    await driver.tick()
    await driver.press("j")


async def _grown(driver: Driver) -> None:
    await _marked(driver)
    await driver.press("d")


async def _marked_detail(driver: Driver) -> None:
    await _marked(driver)
    await driver.opened()


async def _tree(driver: Driver) -> None:
    await driver.press("t")
    screen = driver.app.screen
    assert isinstance(screen, TreeScreen)
    await driver.until(lambda: screen.settled and screen._built.named)  # type: ignore[union-attr]
    before = screen._built
    await driver.press("j", "E")
    await driver.until(lambda: screen.settled and screen._built is not before)


async def _tree_from_the_bottom(driver: Driver) -> None:
    await driver.press("t", "r")
    screen = driver.app.screen
    assert isinstance(screen, TreeScreen)
    await driver.until(
        lambda: screen.settled and screen._built.wish.bottom_up and screen._built.named  # type: ignore[union-attr]
    )
    await driver.press("j")


async def _grown_tree(driver: Driver) -> None:
    await _grown(driver)
    await _tree(driver)


async def _ignored(driver: Driver) -> None:
    await driver.press("I", "j")


async def _editing(driver: Driver) -> None:
    await driver.press("z", *"4x", "enter")


async def _filtered(driver: Driver) -> None:
    await driver.press("slash", *"handle", "enter")
    for _ in range(2):  # each brings a tick, which the trend shows
        before = driver.app.session.latest
        await driver.press("plus")
        await driver.until(lambda latest=before: driver.app.session.latest is not latest)  # type: ignore[misc]


CASES: dict[str, tuple[Callable[[], ScriptedSource], Script, dict[str, Any]]] = {
    "main": (_main, _second_row, {}),
    "detail": (_main, _detail, {}),
    "blocks": (_main, _blocks, {}),
    "content": (_main, _content, {}),
    "log": (_main, _log, {}),
    "ascii_content": (_main, _content, {"ascii_only": True}),
    "help": (lambda: _main(lost={"truncated": 12}), _help, {}),
    "help_unnamed": (_unnamed, _help, {}),
    "help_probes": (_refused, _help_of_probes, {}),
    "several": (_several, _second_row, {}),
    "growth": (_growth, _second_row, {}),
    "growth_detail": (_growth, _growth_detail, {}),
    "growth_help": (_growth, _help, {}),
    "growth_ascii": (_growth, _growth_detail, {"ascii_only": True}),
    "kernel": (_kernel, _second_row, {}),
    "kernel_detail": (_kernel, _detail, {}),
    "kernel_help": (_kernel, _help, {}),
    "refused": (_refused, _second_row, {}),
    "long_name": (_unnamed, _long_name, {}),
    "ignored": (_main, _ignored, {"config": Config(ignore=(Entry(("*!cache_put",)),))}),
    "innermost": (_main, _innermost, {}),
    "paused": (_main, _paused, {}),
    "marked": (_main, _marked, {}),
    "grown": (_main, _grown, {}),
    "marked_detail": (_main, _marked_detail, {}),
    "tree": (_main, _tree, {}),
    "tree_bottom_up": (_main, _tree_from_the_bottom, {}),
    "tree_grown": (_estimated, _grown_tree, {}),
    "ascii_tree": (_main, _tree, {"ascii_only": True}),
    "no_color_tree": (_main, _tree, {"no_color": True}),
    "gone": (_gone, _second_row, {}),
    "losses": (lambda: _main(lost={"truncated": 12, "missed_frees": 3}), _second_row, {}),
    "estimated": (_estimated, _detail, {}),
    "editing": (_main, _editing, {}),
    "filtered": (_main, _filtered, {}),
    "ascii": (_main, _second_row, {"ascii_only": True}),
    "ascii_detail": (_main, _detail, {"ascii_only": True}),
    "light": (_main, _second_row, {"theme": "textual-light"}),
    "light_detail": (_main, _detail, {"theme": "textual-light"}),
    "dark": (_main, _detail, {"theme": "textual-dark"}),
    "no_color": (lambda: _main(lost={"truncated": 12}), _second_row, {"no_color": True}),
}


async def _attaching(driver: PickerDriver) -> None:
    source = leaky_source()
    source.gates["start"].shut()
    driver.machine.held = source.gates["start"]
    driver.machine.sources.append(source)
    await driver.press("enter")
    await driver.until(lambda: "13 functions" in driver.picker.status.attaching)


async def _offered(driver: PickerDriver) -> None:
    driver.machine.estimate = DEAR
    await driver.press("enter")
    await driver.until(lambda: isinstance(driver.app.screen, QuestionScreen))


async def _not_attached(driver: PickerDriver) -> None:
    source = leaky_source()
    source.failures["start"] = SourceError("4242 (leaky) has no malloc: give its file with -O")
    driver.machine.sources.append(source)
    await driver.press("enter")
    await driver.until(lambda: driver.picker.status.failed != "")


PICKER_CASES: dict[str, tuple[Callable[[PickerDriver], Awaitable[object]], dict[str, Any]]] = {
    "picker": (lambda driver: driver.press("j"), {}),
    "picker_filtered": (lambda driver: driver.press("slash", *"app", "enter", "s", "s"), {}),
    "picker_attaching": (_attaching, {}),
    "picker_not_attached": (
        _not_attached,
        {"warning": "tracing another process needs CAP_BPF, CAP_PERFMON: run it with sudo"},
    ),
    "picker_offer": (_offered, {}),
    "picker_ascii": (lambda driver: driver.press("j", "space"), {"ascii_only": True}),
    "picker_help": (lambda driver: driver.press("question_mark"), {}),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("case", PICKER_CASES)
def test_picture_of_the_picker(case: str, size: tuple[int, int], snap_compare: Compare) -> None:
    script, options = PICKER_CASES[case]
    machine = Machine()
    app = make_picker(machine, **options)

    async def drive(pilot: Pilot[int]) -> None:
        driver = PickerDriver(app, machine, pilot)
        await driver.until(lambda: driver.picker._latest is not None)
        await script(driver)

    assert snap_compare(app, terminal_size=size, run_before=drive)
    if machine.held is not None:  # else its thread would never end
        machine.held.open()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_picture_of_output(size: tuple[int, int], snap_compare: Compare) -> None:
    started, source = Started("leaky"), _main()
    app = make_app(source, command=started.command)

    async def drive(pilot: Pilot[int]) -> None:
        driver = Driver(app, source, pilot)
        await driver.traced()
        for _ in source.snapshots:
            await driver.tick()
        started.write("\x1b[32mready\x1b[0m on port 8080\n")
        started.write("".join(f"request {i}\tanswered\n" for i in range(1, 100)))
        await driver.press("o")
        await started.written(driver, 100)

    assert snap_compare(app, terminal_size=size, run_before=drive)
    started.end()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("case", CASES)
def test_picture(
    case: str, size: tuple[int, int], snap_compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source, script, options = CASES[case]
    if options.get("no_color"):
        monkeypatch.setenv("NO_COLOR", "1")
    source = make_source()
    app = make_app(
        source, ascii_only=options.get("ascii_only", False), config=options.get("config")
    )
    if "theme" in options:
        app.theme = options["theme"]

    async def drive(pilot: Pilot[int]) -> None:
        driver = Driver(app, source, pilot)
        await driver.traced()
        for _ in source.snapshots:
            await driver.tick()
        await script(driver)

    assert snap_compare(app, terminal_size=size, run_before=drive)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_picture_of_a_recording(
    size: tuple[int, int],
    snap_compare: Compare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(player, "_gap_s", lambda _: NEVER)
    path = tmp_path / "r.leaktop"
    out = RecordingWriter(path, path.open("xb"), Header(TARGET, 0), 1 << 30)
    for t in range(1, 201):
        lost = {"truncated": 12 if t > 150 else 0}
        out.snapshot(snapshot(float(t), sites_at(t), lost=lost))
        out.names(_main().names, lines=False)
    out.end("enough")
    source = ReplaySource(path)
    app = LeaktopApp(source, filters=Filters(), play=partial(player.Player, source))

    async def drive(pilot: Pilot[int]) -> None:
        driver = Driver(app, source, pilot)  # type: ignore[arg-type]
        await driver.press("right_square_bracket", "right_square_bracket", "right", "x")
        await driver.until(lambda: "snapshot 122/200" in driver.text())
        await driver.named()

    assert snap_compare(app, terminal_size=size, run_before=drive)


async def test_theme_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_app(leaky_source()).theme == "ansi-dark"
    monkeypatch.setenv("TEXTUAL_THEME", "textual-light")
    assert isinstance(app := make_app(leaky_source()), LeaktopApp)
    assert app.theme != "ansi-dark"
