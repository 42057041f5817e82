"""Flame graphs, read by an XML parser: structure, geometry, and names that stay names."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from leaktop.export import Export
from leaktop.export.flamegraph import BOXES_MAX, WIDTH, render
from leaktop.model import Frame
from tests.ui.scripted import site, snapshot
from tests.unit.exported import ALL, export_of, plain

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Box:
    title: str
    x: int
    w: int
    depth: int
    left: float
    right: float
    top: float


def boxes(image: bytes) -> list[Box]:
    def read() -> Iterator[Box]:
        for group in ElementTree.fromstring(image).iter(f"{SVG}g"):
            if "box" in group.get("class", "").split():
                title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
                assert title is not None
                assert rect is not None
                x, width, top = (float(rect.get(name, "")) for name in ("x", "width", "y"))
                x_bytes, w_bytes, depth = (int(group.get(f"data-{name}", "")) for name in "xwd")
                yield Box(title.text or "", x_bytes, w_bytes, depth, x, x + width, top)

    return list(read())


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_boxes_lie_within_the_box_above(make: Callable[[], Export]) -> None:
    export = make()
    found = boxes(render(export))
    total = export.reading.snapshot.totals.bytes
    if not total:
        assert found == []
        return
    root = found[0]
    assert (root.x, root.w, root.depth) == (0, total, 0)
    for box in found[1:]:
        (outer,) = [
            each
            for each in found
            if each.depth == box.depth - 1 and each.x <= box.x < each.x + each.w
        ]
        assert box.x + box.w <= outer.x + outer.w
        assert box.top == outer.top + 17
        assert outer.left <= box.left + 0.01
        assert box.right <= max(outer.right, box.left + 0.1) + 0.01
        assert box.right <= WIDTH


def test_widths_are_what_is_held() -> None:
    found = {box.title.split("\n")[0]: box for box in boxes(render(plain()))}
    leak = 48 * 400 * 60
    assert found["note_new"].w == found["session_open"].w == leak
    assert found["cache_put"].w == 12 << 20
    assert found["note_new"].title.split("\n")[1:] == [
        "[leaky] /src/leaky/session.c:31 (inlined)",
        f"1.10M ({100 * leak / plain().reading.snapshot.totals.bytes:.2f} %) in 24000 blocks",
    ]


def test_the_same_stack_of_names_is_one_box() -> None:
    main = Frame(16, "a", "main", file="a.c", line=1)
    one = (Frame(1, "a", "f", file="a.c", line=9), main)
    two = (Frame(2, "a", "f", file="a.c", line=9), main)
    other_line = (Frame(3, "a", "f", file="a.c", line=10), main)
    sites = [site(i, 100, 1, frames) for i, frames in enumerate((one, two, other_line), 1)]
    export = export_of(snapshot(1.0, sites))
    export.frames.update({1: one, 2: two, 3: other_line})  # type: ignore[attr-defined]
    found = [box.w for box in boxes(render(export)) if box.title.startswith("f\n")]
    assert sorted(found) == [100, 200]


def test_names_from_the_target_are_text() -> None:
    root = ElementTree.fromstring(render(plain()))
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "style", "title", "rect", "text", "g", "script"}
    assert len(list(root.iter(f"{SVG}script"))) == 1
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert any('=HYPERLINK("x");</title><script>alert(1)</script>?[31m?]]>' in t for t in titles)
    assert all(line.isprintable() for title in titles for line in title.split("\n"))


def test_nothing_is_loaded_from_anywhere() -> None:
    image = render(plain()).decode()
    assert set(re.findall(r"https?://[^\"' )]*", image)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bhref|@import|url\(|\bsrc=[^x]", image)


def test_what_is_too_narrow_is_left_out_and_counted() -> None:
    sites = [site(1, 10**9, 1, (Frame(16, "a", "big"),))]
    sites += [site(i, 1, 1, (Frame(16 * i, "a", f"small{i}"),)) for i in range(2, 30)]
    export = export_of(snapshot(1.0, sites))
    export.frames.update({each.stack_id: named(each.stack_id) for each in sites})  # type: ignore[attr-defined]
    image = render(export)
    assert [box.title.split("\n")[0] for box in boxes(image)] == ["leaky (4242)", "f1"]
    assert b"28 boxes narrower than 0.1 px are left out" in image


def named(number: int) -> tuple[Frame, ...]:
    return (Frame(16 * number, "a", f"f{number}"),)


def test_there_are_never_too_many_boxes() -> None:
    sites = [site(i, 1000 + i, 1, named(i)) for i in range(1, BOXES_MAX + 2000)]
    export = export_of(snapshot(1.0, sites))
    export.frames.update({each.stack_id: named(each.stack_id) for each in sites})  # type: ignore[attr-defined]
    assert 0 < len(boxes(render(export))) <= BOXES_MAX


def test_a_stack_as_deep_as_they_come() -> None:
    frames = tuple(Frame(16 * i, "a", f"f{i}") for i in range(1, 2000))
    export = export_of(snapshot(1.0, [site(1, 64, 1, frames)]))
    export.frames.update({1: frames})  # type: ignore[attr-defined]
    assert len(boxes(render(export))) == 2000


def test_a_file_of_its_own_is_whole(tmp_path: Path) -> None:
    image = render(plain())
    assert image.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns=')
    (tmp_path / "a.svg").write_bytes(image)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == f"{SVG}svg"
