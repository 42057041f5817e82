"""Folded stacks: ``outermost;...;innermost BYTES`` a line, as flamegraph.pl and its kin take them.

Names as stackcollapse-perf.pl has them (Brendan Gregg's FlameGraph): the process's name first. What
separates frames and lines in names becomes a colon.
"""

from collections import Counter
from collections.abc import Iterator

from leaktop.export import Export
from leaktop.export.places import Places, missing_frames
from leaktop.format import clean
from leaktop.model import Site


def render(export: Export) -> bytes:
    """Return a line for each path of functions; those that hold no bytes are left out."""
    places, sums = Places(export.mappings), Counter[str]()
    for site in export.reading.snapshot.sites:
        if site.counters.bytes > 0:
            sums[";".join(_names(export, places, site))] += site.counters.bytes
    return "".join(f"{path} {sums[path]}\n" for path in sorted(sums)).encode()


def _names(export: Export, places: Places, site: Site) -> Iterator[str]:
    snapshot, pid = export.reading.snapshot, export.pid_of(site)
    comms = {each.target.pid: each.target.comm for each in snapshot.processes}
    comm = clean(comms.get(pid, snapshot.target.comm), 64)
    yield _plain(f"{comm}-{pid}" if comms else comm)
    yield from missing_frames(site)
    for frame in reversed(export.frames_of(site)):
        yield _plain(places.name(pid, frame))


def _plain(name: str) -> str:
    return name.replace(";", ":")
