"""pprof's profile.proto, gzipped: what go tool pprof, and whatever takes heap profiles, reads.

Figures are called as Go's and tcmalloc's heap profiles call them. The schema says that addresses
may be in the middle of a call: they are return addresses less one, so that lines can be looked up.
"""

import gzip
from collections.abc import Callable, Sequence
from typing import Any

from leaktop.export import Export
from leaktop.export.facts import remarks, title, when
from leaktop.export.places import Places, calls, missing_frames
from leaktop.export.pprof_schema import profile_class
from leaktop.format import clean
from leaktop.model import CodeMapping, Counters, Frame, Site

FREED = "[stacks that hold nothing now]"
"""What stands for the stacks that are not in a reading, so that ``alloc_`` sums are right."""

_PATH_MAX = 4096
_Figures = Sequence[tuple[str, str, Callable[[Counters], int]]]
_OF_BLOCKS: _Figures = (
    ("alloc_objects", "count", lambda counters: counters.allocs),
    ("alloc_space", "bytes", lambda counters: counters.alloc_bytes),
    ("inuse_objects", "count", lambda counters: counters.count),
    ("inuse_space", "bytes", lambda counters: counters.bytes),
)
_OF_PAGES: _Figures = (
    ("page_faults", "count", lambda counters: counters.allocs),
    ("new_pages", "count", lambda counters: counters.count),
    ("new_space", "bytes", lambda counters: counters.bytes),
)


def render(export: Export) -> bytes:
    """Return the profile: a sample for each stack; what shows first is the bytes held."""
    profile = _Profile(export).message.SerializeToString(deterministic=True)
    return gzip.compress(profile, mtime=0)


class _Profile:
    def __init__(self, export: Export) -> None:
        snapshot = export.reading.snapshot
        self._export = export
        self._several = len(snapshot.processes) > 1
        self._places = Places(export.mappings)
        self._strings: dict[str, int] = {"": 0}
        self._mappings: dict[CodeMapping, Any] = {}
        self._locations: dict[tuple[int, Sequence[Frame]], int] = {}
        self._functions: dict[tuple[int, int], int] = {}
        self.message = profile_class()()
        self._figures = _OF_BLOCKS if snapshot.growth is None else _OF_PAGES
        for name, unit, _ in self._figures:
            self.message.sample_type.add(type=self._text(name), unit=self._text(unit))
        self.message.default_sample_type = self._text(self._figures[-1][0])
        self.message.period_type.type = self._text("space")
        self.message.period_type.unit = self._text("bytes")
        self.message.period = 1  # values are what they stand for, sampled or not
        self.message.time_nanos = snapshot.time_ns
        self.message.duration_nanos = int(snapshot.elapsed_s * 1e9)
        for each in (f"{title(export)}, {when(snapshot)}", *remarks(export)):
            self.message.comment.append(self._text(each))
        for mapping in export.mappings:
            self._add_mapping(mapping)
        for site in snapshot.sites:
            self._add_site(site)
        self._add_freed()
        self.message.string_table.extend(self._strings)

    def _text(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _add_mapping(self, mapping: CodeMapping) -> None:
        self._mappings[mapping] = self.message.mapping.add(
            id=len(self._mappings) + 1,
            memory_start=mapping.start,
            memory_limit=mapping.end,
            file_offset=mapping.offset,
            filename=self._text(clean(mapping.path, _PATH_MAX)),
            build_id=self._text(mapping.build_id or ""),
        )

    def _add_site(self, site: Site) -> None:
        pid = self._export.pid_of(site)
        sample = self.message.sample.add(
            value=[value(site.counters) for *_, value in self._figures]
        )
        for call in calls(self._export.frames_of(site)):
            sample.location_id.append(self._location(pid, call))
        for name in reversed(missing_frames(site)):
            sample.location_id.append(self._pseudo(name))
        if self._several:
            sample.label.add(key=self._text("pid"), num=pid)
        if site.cache:
            sample.label.add(key=self._text("cache"), str=self._text(clean(site.cache)))

    def _add_freed(self) -> None:
        snapshot = self._export.reading.snapshot
        rest = [
            max(0, value(snapshot.totals) - sum(value(site.counters) for site in snapshot.sites))
            for *_, value in self._figures
        ]
        if any(rest):
            self.message.sample.add(location_id=[self._pseudo(FREED)], value=rest)

    def _location(self, pid: int, call: Sequence[Frame]) -> int:
        key = (pid, tuple(call))
        if key in self._locations:
            return self._locations[key]
        mapping = self._places.find(pid, call[-1].address)
        location = self._new_location(key)
        location.address = max(0, call[-1].address - 1)
        if mapping is not None:
            location.mapping_id = self._mappings[mapping].id
            self._note_what_is_known(self._mappings[mapping], call)
        for frame in call:
            if frame.symbol or frame.file:
                file = clean(frame.file or "", _PATH_MAX)
                function = self._function(self._places.name(pid, frame), file)
                location.line.add(function_id=function, line=frame.line or 0)
        return self._locations[key]

    # pprof looks up by itself what a mapping is said not to have.
    def _note_what_is_known(self, mapping: Any, call: Sequence[Frame]) -> None:
        mapping.has_functions |= any(frame.symbol for frame in call)
        mapping.has_filenames |= any(frame.file for frame in call)
        mapping.has_line_numbers |= any(frame.line for frame in call)
        mapping.has_inline_frames |= mapping.has_line_numbers

    def _pseudo(self, name: str) -> int:
        key = (0, (Frame(0, symbol=name),))
        if key not in self._locations:
            self._new_location(key).line.add(function_id=self._function(name, ""))
        return self._locations[key]

    def _new_location(self, key: tuple[int, Sequence[Frame]]) -> Any:
        number = self._locations[key] = len(self._locations) + 1
        return self.message.location.add(id=number)

    def _function(self, name: str, file: str) -> int:
        key = (self._text(name), self._text(file))
        if key not in self._functions:
            self._functions[key] = number = len(self._functions) + 1
            self.message.function.add(id=number, name=key[0], system_name=key[0], filename=key[1])
        return self._functions[key]
