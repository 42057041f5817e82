"""Stacks merged into one tree from the outermost call inwards, as a flame graph draws them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from leaktop.export import Export
from leaktop.export.facts import whose
from leaktop.export.places import Places, missing_frames
from leaktop.format import clean
from leaktop.model import Frame, Site

_Key = tuple[str, str, str]


@dataclass(slots=True)
class Call:
    """What is held by all that one call led to."""

    name: str
    module: str = ""
    place: str = ""
    """File and line, and whether the call was inlined; empty where that is not known."""
    bytes: int = 0
    count: int = 0
    inner: "dict[_Key, Call]" = field(default_factory=dict)

    def within(self, name: str, module: str = "", place: str = "") -> "Call":
        """Return the call of this name inside this one."""
        key = (name, module, place)
        if key not in self.inner:
            self.inner[key] = Call(*key)
        return self.inner[key]

    def add(self, site: Site) -> None:
        """Count in what a stack holds that goes through here."""
        self.bytes += site.counters.bytes
        self.count += site.counters.count


@dataclass(frozen=True, slots=True)
class Box:
    """Where a call is drawn: bytes from the left edge, and rows from the top."""

    call: Call
    left: int
    depth: int


def tree_of(export: Export) -> Call:
    """Return all calls of a reading; of several processes one within the root for each.

    Calls of one function from different lines are different: that is what a leak is found by.
    """
    snapshot, places = export.reading.snapshot, Places(export.mappings)
    root = Call(whose(snapshot))
    comms = {each.target.pid: each.target.comm for each in snapshot.processes}
    for site in snapshot.sites:
        pid = export.pid_of(site)
        path = [root]
        if comms:
            path.append(root.within(f"{clean(comms.get(pid, '?'), 64)} ({pid})"))
        for name in missing_frames(site):
            path.append(path[-1].within(name))
        for frame in reversed(export.frames_of(site)):
            key = (places.name(pid, frame), clean(frame.module or ""), _place(frame))
            path.append(path[-1].within(*key))
        for call in path:
            call.add(site)
    return root


def boxes(root: Call, least: int) -> Iterator[Box]:
    """Yield calls that hold at least so many bytes, outer ones first, the largest at the left."""
    waiting = [Box(root, 0, 0)] if root.bytes >= max(1, least) else []
    while waiting:
        box = waiting.pop()
        yield box
        left, depth = box.left, box.depth + 1
        within = sorted(box.call.inner.values(), key=lambda call: (-call.bytes, call.name))
        for call in within:
            if call.bytes >= max(1, least):
                waiting.append(Box(call, left, depth))
            left += call.bytes


def all_calls(root: Call) -> Iterator[Call]:
    """Yield each call of a tree that holds bytes."""
    waiting = [root]
    while waiting:
        call = waiting.pop()
        if call.bytes > 0:
            yield call
            waiting.extend(call.inner.values())


def _place(frame: Frame) -> str:
    parts = []
    if frame.file:
        parts.append(f"{clean(frame.file)}:{frame.line or '?'}")
    if frame.inlined:
        parts.append("(inlined)")
    return " ".join(parts)
