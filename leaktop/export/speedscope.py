"""speedscope's own format (its file-format-schema.json): one sampled profile for each figure."""

import json
from collections.abc import Callable
from typing import Any

from leaktop import __version__
from leaktop.export import Export
from leaktop.export.facts import title, when
from leaktop.export.places import Places, missing_frames
from leaktop.format import clean
from leaktop.model import Counters, Frame, Site

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def render(export: Export) -> bytes:
    """Return the document; a stack of which a figure is 0 is left out of that figure's profile."""
    table = _Frames(export)
    snapshot = export.reading.snapshot
    sites = sorted(snapshot.sites, key=lambda site: -site.counters.bytes)
    stacks = [table.stack(site) for site in sites]
    profiles = [
        _profile(name, unit, stacks, [value(site.counters) for site in sites])
        for name, unit, value in _figures(pages=snapshot.growth is not None)
    ]
    document = {
        "$schema": _SCHEMA,
        "name": f"{title(export)}, {when(snapshot)}",
        "exporter": f"leaktop {__version__}",
        "activeProfileIndex": 0,
        "shared": {"frames": table.frames},
        "profiles": profiles,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _figures(*, pages: bool) -> list[tuple[str, str, Callable[[Counters], int]]]:
    if pages:
        return [
            ("new pages", "bytes", lambda counters: counters.bytes),
            ("page faults", "none", lambda counters: counters.allocs),
        ]
    return [
        ("outstanding bytes", "bytes", lambda counters: counters.bytes),
        ("outstanding blocks", "none", lambda counters: counters.count),
        ("allocations so far", "none", lambda counters: counters.allocs),
        ("bytes allocated so far", "bytes", lambda counters: counters.alloc_bytes),
    ]


def _profile(name: str, unit: str, stacks: list[list[int]], values: list[int]) -> dict[str, Any]:
    pairs = [(stack, value) for stack, value in zip(stacks, values, strict=True) if value > 0]
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(value for _, value in pairs),
        "samples": [stack for stack, _ in pairs],
        "weights": [value for _, value in pairs],
    }


class _Frames:
    """The table that stacks refer to by index."""

    def __init__(self, export: Export) -> None:
        self.frames: list[dict[str, Any]] = []
        self._export = export
        self._places = Places(export.mappings)
        self._indices: dict[tuple[str, str | None, int | None], int] = {}

    def stack(self, site: Site) -> list[int]:
        pid = self._export.pid_of(site)
        frames = reversed(self._export.frames_of(site))
        named = [self._index(name) for name in missing_frames(site)]
        return [*named, *(self._of(pid, frame) for frame in frames)]

    def _of(self, pid: int, frame: Frame) -> int:
        name = self._places.name(pid, frame)
        if frame.module and frame.symbol:
            name += f" [{clean(frame.module).strip('[]')}]"
        return self._index(name, clean(frame.file) if frame.file else None, frame.line)

    def _index(self, name: str, file: str | None = None, line: int | None = None) -> int:
        key = (name, file, line)
        if key not in self._indices:
            self._indices[key] = len(self.frames)
            entry: dict[str, Any] = {"name": name}
            if file:
                entry["file"] = file
                if line:
                    entry["line"] = line
            self.frames.append(entry)
        return self._indices[key]
