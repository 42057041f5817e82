"""A flame graph as one SVG file: the outermost call at the top, as wide as what it holds.

Nothing is loaded from anywhere. Without its script it can be read all the same: each box has a
title; with it boxes can be searched and zoomed into.
"""

from heapq import nlargest
from xml.etree.ElementTree import Element
from zlib import crc32

from leaktop import format as fmt
from leaktop.export import Export
from leaktop.export.calls import Box, Call, all_calls, boxes, tree_of
from leaktop.export.facts import remarks, title, totals, when
from leaktop.export.markup import SVG, asset, element, svg_text, within
from leaktop.model import Snapshot

WIDTH = 1200
"""Pixels; the script fits it to the window."""
LEAST_PX = 0.1
BOXES_MAX = 20_000

_ROW, _PAD, _HEAD, _FOOT, _LETTER = 17, 10, 42, 34, 7.25
_HUES = 8
_LATIN = "\u02ff"
_LEAST_LETTERS = 3


def render(export: Export) -> bytes:
    """Return the file."""
    root = flame(export)
    root.insert(0, element("style", asset("flame.css")))
    within(root, "script", asset("flame.js"))
    return svg_text(root)


def flame(export: Export) -> Element:
    """Return the graph as an element that wants ``flame.css`` and ``flame.js`` beside it."""
    root = tree_of(export)
    found = list(all_calls(root))
    least = _least(root, found)
    shown = list(boxes(root, least))
    lines = [f"{totals(export)}; {when(export.reading.snapshot)}", *remarks(export)]
    if len(shown) < len(found):
        width = max(LEAST_PX, _scale(root) * least)
        lines.append(f"{len(found) - len(shown)} boxes narrower than {width:.2g} px are left out")
    top = _HEAD + len(lines) * _ROW
    rows = max((box.depth for box in shown), default=0) + 1
    height = top + rows * _ROW + _FOOT
    graph = element("svg", xmlns=SVG, class_="flame", width=WIDTH, height=height)
    graph.set("viewBox", f"0 0 {WIDTH} {height}")
    within(graph, "title", title(export))
    within(graph, "rect", class_="back", width="100%", height="100%")
    within(graph, "text", title(export), class_="head", x=_PAD, y=22)
    for i, line in enumerate(lines):
        within(graph, "text", line, class_="note", x=_PAD, y=_HEAD + i * _ROW)
    for name, label in (("unzoom", "Unzoom"), ("search", "Search"), ("clear", "Clear")):
        within(graph, "text", label, class_=f"button {name}", x=WIDTH - _PAD, y=22)
    held = within(graph, "g", class_="boxes")
    for box in shown:
        _draw(held, box, root, top, export.reading.snapshot)
    if not shown:
        within(graph, "text", "nothing is held", class_="note", x=_PAD, y=top + _ROW)
    within(graph, "text", class_="details", x=_PAD, y=height - 12)
    within(graph, "text", class_="matched", x=WIDTH - _PAD, y=height - 12)
    return graph


def _scale(root: Call) -> float:
    # pixels a byte
    return (WIDTH - 2 * _PAD) / max(1, root.bytes)


def _least(root: Call, found: list[Call]) -> int:
    least = int(LEAST_PX / _scale(root)) + 1 if root.bytes else 1
    if len(found) > BOXES_MAX:
        least = max(least, nlargest(BOXES_MAX, (call.bytes for call in found))[-1] + 1)
    return least


def _draw(parent: Element, box: Box, root: Call, top: int, snapshot: Snapshot) -> None:
    call, y, scale = box.call, top + box.depth * _ROW, _scale(root)
    left, width = _PAD + box.left * scale, call.bytes * scale
    group = within(
        parent,
        "g",
        class_=f"box {_hue(call, box.depth)}",
        data_x=box.left,
        data_w=call.bytes,
        data_d=box.depth,
    )
    share = 100 * call.bytes / root.bytes
    size = fmt.format_bytes(call.bytes, estimated=snapshot.estimated)
    count = fmt.format_count(call.count, estimated=snapshot.estimated)
    unit = "blocks" if snapshot.growth is None else "new pages"
    module = f"[{call.module.strip('[]')}]" if call.module else ""
    where = " ".join(filter(None, [module, call.place]))
    lines = [call.name, where, f"{size} ({share:.2f} %) in {count} {unit}"]
    within(group, "title", "\n".join(filter(None, lines)))
    within(
        group,
        "rect",
        x=f"{left:.2f}",
        y=y,
        width=f"{max(0.1, width - 0.5):.2f}",
        height=_ROW - 1,
        rx=1,
    )
    within(group, "text", _fitting(call.name, width), x=f"{left + 3:.2f}", y=y + 12)


# Calls of one module have one colour, in every graph the same.
def _hue(call: Call, depth: int) -> str:
    if not depth or not call.module:
        return "none"
    if call.module.startswith("[kernel"):
        return "kernel"
    return f"m{crc32(call.module.encode('utf-8', 'replace')) % _HUES}"


def _fitting(name: str, width: float) -> str:
    # as flame.js does it
    room = int((width - 6) / _LETTER)
    if room < _LEAST_LETTERS:
        return ""
    cells = 0
    for i, letter in enumerate(name):
        cells += 2 if letter > _LATIN else 1
        if cells > room:
            return name[: max(0, i - 1)] + "…"
    return name
