"""Snapshots and events as text that reads like memleak's."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from leaktop.analyze import Reading
from leaktop.format import clean
from leaktop.gate import Grown
from leaktop.ignore import NOTHING_IGNORED, Ignored
from leaktop.model import Counters, Frame, Site, Snapshot
from leaktop.single_blocks import BlockPage, Event
from leaktop.verdicts import SUSPICIOUS

_NO_ROOM = "[no room for its stack: see --max-stacks]"


def event_text(event: Event) -> str:
    """Return one event as a line of text."""
    when = datetime.fromtimestamp(event.time_ns // 1000 / 1e6).astimezone()
    stack = "?" if event.stack_id is None else f"{event.stack_id:016x}"
    weight = f" x{event.weight}" if event.weight > 1 else ""
    return (
        f"[{when:%H:%M:%S.%f}] {event.pid or '?'}/{event.thread} {event.kind} {event.size} bytes "
        f"at {event.address:#x}{weight} stack {stack}"
    )


def text(
    reading: Reading,
    top: Sequence[Site],
    frames: Mapping[int, Sequence[Frame]],
    blocks: Mapping[int, BlockPage] = MappingProxyType({}),
    ignored: Ignored = NOTHING_IGNORED,
) -> str:
    """Return one snapshot in memleak's words: a heading, then each stack's sum and frames.

    ``blocks``: live blocks to list, by stack. ``ignored``: what is held and not among ``top``.
    """
    snapshot = reading.snapshot
    when = datetime.fromtimestamp(snapshot.time_ns / 1e9).astimezone()
    lines = [f"[{when:%H:%M:%S}] Top {len(top)} stacks with {_what(snapshot)}:"]
    lines += [f"\t[not traced: {clean(str(each))}]" for each in snapshot.refusals]
    if ignored.entries:
        held = Counters(ignored.bytes, ignored.count)
        stacks = len(ignored.entries)
        figures = _figures(snapshot, held)
        lines.append(f"\t[ignored: {figures} from {stacks} stack{'' if stacks == 1 else 's'}]")
    names = {each.target.pid: each.target.comm for each in snapshot.processes}
    for site in top:
        held = site.counters
        of = f" of {site.pid} ({clean(names[site.pid])})" if site.pid in names else ""
        lines.append(f"\t{_figures(snapshot, held)} from stack{of}")
        if site.cache:
            lines.append(f"\t\t[of slab cache {clean(site.cache)}]")
        verdict = reading.verdicts.get(site.stack_id)
        if verdict is not None and verdict.score >= SUSPICIOUS:
            lines.append(f"\t\t[suspect {verdict.score:.2f}: {verdict.reason}]")
        lines += [f"\t\t{frame_text(frame)}" for frame in frames.get(site.stack_id, site.frames)]
        if not site.frames:
            lines.append(f"\t\t{_NO_ROOM}")
        elif site.truncated:
            lines.append("\t\t[the stack goes on: it was cut here]")
        if site.stack_id in blocks:
            lines += _block_lines(blocks[site.stack_id])
    return "\n".join(lines)


def grown_text(grown: Grown, sites: Sequence[Site], frames: Mapping[int, Sequence[Frame]]) -> str:
    """Return which stacks grew, and by how much, the largest first."""
    by_id = {site.stack_id: site for site in sites}
    lines = []
    for stack_id, size in grown.stacks.items():
        if stack_id in by_id:
            site = by_id[stack_id]
            lines.append(f"\t{size:+} bytes, now {site.counters.bytes}, from stack")
            known = frames.get(stack_id, site.frames)
            lines += [f"\t\t{frame_text(frame)}" for frame in known]
            if not site.frames:
                lines.append(f"\t\t{_NO_ROOM}")
    if (more := len(grown.stacks) - len(by_id)) > 0:
        lines.append(f"\t[{more} more stacks grew: see --top]")
    return "".join(f"{line}\n" for line in lines)


def _what(snapshot: Snapshot) -> str:
    if snapshot.growth is None:
        return "outstanding allocations"
    change = snapshot.growth.rss_change
    resident = "" if change is None else f"; resident memory {change:+} bytes"
    return f"new pages (growth, not leaks{resident})"


def _figures(snapshot: Snapshot, held: Counters) -> str:
    mark = "~" if snapshot.estimated else ""
    if snapshot.growth is None:
        return f"{mark}{held.bytes} bytes in {mark}{held.count} allocations"
    parts = []
    if held.count or not held.calls:
        parts.append(f"{mark}{held.bytes} bytes in {mark}{held.count} new pages")
    if held.calls:
        parts.append(f"{mark}{held.calls} calls of brk or mmap")
    return " and ".join(parts)


def _block_lines(page: BlockPage) -> Iterator[str]:
    for each in page.blocks:
        weight = f" x{each.weight}" if each.weight > 1 else ""
        yield (
            f"\t\taddr = {each.address:x} size = {each.size} age = {each.age_s:.3f}s "
            f"thread = {each.thread}{weight}"
        )
    if page.total > len(page.blocks):
        yield f"\t\t[{page.total - len(page.blocks)} younger allocations not listed]"


def frame_text(frame: Frame) -> str:
    """Return a frame as memleak prints it, ``main+0x6d [allocs]``, and where in the source."""
    if frame.symbol is None:
        name = f"{frame.address:#x}"
    elif frame.offset is None:
        name = clean(frame.symbol)
    else:
        name = f"{clean(frame.symbol)}+{frame.offset:#x}"
    module = clean(frame.module or "unknown")
    parts = [name, module if module.startswith("[") else f"[{module}]"]
    if frame.file:
        parts.append(f"({clean(frame.file)}:{frame.line or '?'})")
    if frame.inlined:
        parts.append("(inlined)")
    return " ".join(parts)
