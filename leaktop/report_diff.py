"""What two recordings hold at their ends, stack by stack: ``leaktop --diff A B``.

A stack is the same in both where its functions are: by module and name, or by module and place in
the file where there is no name. Neither addresses nor numbers of stacks outlive a restart.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from leaktop.format import clean, format_age
from leaktop.model import CodeMapping, Counters, Frame, Site, Snapshot, SortKey
from leaktop.report_json import JSON_VERSION, json_frame, json_target, json_time
from leaktop.report_text import frame_text
from leaktop.source.replay import ReplaySource

_Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class End:
    """A recording's last snapshot, and what its stacks are called."""

    path: str
    snapshot: Snapshot
    names: Mapping[int, Sequence[Frame]]
    """Frames without lines and inlined calls, by stack id."""
    lines: Mapping[int, Sequence[Frame]]
    mappings: Sequence[CodeMapping] = ()

    @classmethod
    def of(cls, source: ReplaySource) -> "End":
        """Read the end of a recording. Raises SourceError."""
        source.seek(len(source.ticks) - 1)
        snapshot = source.snapshot()
        ids = [site.stack_id for site in snapshot.sites]
        names = source.resolve(ids, lines=False)
        lines = source.resolve(ids, lines=True)
        return cls(str(source.path), snapshot, names, lines, source.mappings())


@dataclass(frozen=True, slots=True)
class Change:
    """One stack in both recordings; None where it held nothing."""

    before: Counters | None
    after: Counters | None
    frames: Sequence[Frame]
    cache: str | None

    @property
    def bytes(self) -> int:
        """How many more it holds in the second one."""
        return (self.after or Counters()).bytes - (self.before or Counters()).bytes

    @property
    def count(self) -> int:
        """How many blocks more it holds in the second one."""
        return (self.after or Counters()).count - (self.before or Counters()).count


def changes(before: End, after: End, sort: SortKey = SortKey.BYTES) -> list[Change]:
    """Return the stacks that do not hold the same in both, the largest change first.

    ``sort``: by blocks where it is COUNT, else by bytes.
    """
    old, new = _by_functions(before), _by_functions(after)
    found = []
    for key in old.keys() | new.keys():
        one, other = old.get(key), new.get(key)
        here = other or one
        assert here is not None
        change = Change(_held(one), _held(other), here.frames, here.cache)
        if change.bytes or change.count:
            found.append((key, change))
    by_count = sort is SortKey.COUNT

    def order(each: tuple[_Key, Change]) -> tuple[int, _Key]:
        return -abs(each[1].count if by_count else each[1].bytes), each[0]

    return [change for _, change in sorted(found, key=order)]


@dataclass(slots=True)
class _Stack:
    held: Counters
    frames: Sequence[Frame]
    cache: str | None


def _held(stack: _Stack | None) -> Counters | None:
    return None if stack is None else stack.held


def _by_functions(end: End) -> dict[_Key, _Stack]:
    places = _Places(end.mappings)
    found: dict[_Key, _Stack] = {}
    for site in end.snapshot.sites:
        frames = end.names.get(site.stack_id) or site.frames
        key = (("", site.cache or ""), *(places.function(site, frame) for frame in frames))
        if key in found:
            held, more = found[key].held, site.counters
            found[key].held = Counters(held.bytes + more.bytes, held.count + more.count)
        else:
            held = Counters(site.counters.bytes, site.counters.count)
            found[key] = _Stack(held, end.lines.get(site.stack_id) or frames, site.cache)
    return found


class _Places:
    """Where in which file code lies."""

    def __init__(self, mappings: Sequence[CodeMapping]) -> None:
        self._mappings = sorted(mappings, key=lambda each: (each.pid, each.start))
        self._starts = [(each.pid, each.start) for each in self._mappings]

    def function(self, site: Site, frame: Frame) -> tuple[str, str]:
        module = frame.module or ""
        if frame.symbol is not None:
            return module, frame.symbol
        address = frame.address - 1
        number = bisect_right(self._starts, (site.pid or 0, address)) - 1
        if number >= 0:
            mapping = self._mappings[number]
            if mapping.pid == (site.pid or 0) and mapping.start <= address < mapping.end:
                return module, f"+{address - mapping.start + mapping.offset:#x}"
        return module, f"{address:#x}"


def diff_text(before: End, after: End, found: Sequence[Change], top: int) -> str:
    """Return the changes as text, ``top`` of them at most."""
    lines = [f"from {_which(before)}", f"to   {_which(after)}"]
    held, now = before.snapshot.totals, after.snapshot.totals
    blocks = "allocations" if after.snapshot.growth is None else "new pages"
    lines.append(
        f"{held.bytes} -> {now.bytes} bytes ({now.bytes - held.bytes:+}), "
        f"{held.count} -> {now.count} {blocks} ({now.count - held.count:+})"
    )
    only = [sum(each.before is None for each in found), sum(each.after is None for each in found)]
    shown = found[:top]
    lines.append(
        f"Top {len(shown)} of {len(found)} stacks that changed ({only[0]} new, {only[1]} gone):"
    )
    for each in shown:
        lines.append(
            f"\t{each.bytes:+} bytes in {each.count:+} {blocks} from stack ({_sides(each)})"
        )
        if each.cache:
            lines.append(f"\t\t[of slab cache {clean(each.cache)}]")
        lines += [f"\t\t{frame_text(frame)}" for frame in each.frames]
        if not each.frames:
            lines.append("\t\t[no room for its stack: see --max-stacks]")
    return "\n".join(lines)


def _which(end: End) -> str:
    snapshot, target = end.snapshot, end.snapshot.target
    when = datetime.fromtimestamp(snapshot.time_ns / 1e9).astimezone()
    who = clean(f"{target.pid} ({target.comm})") if target.pid else "the kernel"
    mark = "; estimates" if snapshot.estimated else ""
    age = format_age(snapshot.elapsed_s)
    return f"{clean(end.path)}: {who} at {when:%Y-%m-%d %H:%M:%S}, after {age}{mark}"


def _sides(change: Change) -> str:
    if change.before is None:
        return "new"
    if change.after is None:
        return "gone"
    return f"{change.before.bytes} -> {change.after.bytes} bytes"


def diff_json(before: End, after: End, found: Sequence[Change], top: int) -> str:
    """Return the changes as a JSON object on one line, ``top`` of them at most."""
    held, now = before.snapshot.totals, after.snapshot.totals
    document = {
        "version": JSON_VERSION,
        "diff": {"before": _json_end(before), "after": _json_end(after)},
        "totals": {"bytes": now.bytes - held.bytes, "count": now.count - held.count},
        "changed": len(found),
        "stacks": [
            {
                "bytes": each.bytes,
                "count": each.count,
                "before": _json_side(each.before),
                "after": _json_side(each.after),
                "cache": each.cache and each.cache.encode("utf-8", "replace").decode("utf-8"),
                "frames": [json_frame(frame) for frame in each.frames],
            }
            for each in found[:top]
        ],
    }
    return json.dumps(document, separators=(",", ":"))


def _json_end(end: End) -> dict[str, Any]:
    snapshot = end.snapshot
    return {
        "file": end.path.encode("utf-8", "replace").decode("utf-8"),
        "time": json_time(snapshot.time_ns, "milliseconds"),
        "elapsed_s": round(snapshot.elapsed_s, 3),
        "mode": snapshot.mode,
        "target": json_target(snapshot.target),
        "estimated": snapshot.estimated,
        "totals": _json_side(snapshot.totals),
    }


def _json_side(counters: Counters | None) -> dict[str, int] | None:
    return None if counters is None else {"bytes": counters.bytes, "count": counters.count}
