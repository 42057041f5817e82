"""One stack as text for a bug report: what holds how much, and what finds the lines again."""

from collections.abc import Iterator

from leaktop import __version__
from leaktop import format as fmt
from leaktop.export import Export
from leaktop.export.facts import remarks, title, when
from leaktop.export.places import Places, missing_frames
from leaktop.format import clean
from leaktop.model import CodeMapping, Frame, Site


def stack_text(export: Export, site: Site) -> str:
    """Return the stack with its figures, innermost call first, and the files it goes through.

    Each call has its offset in its file, of the return address, so that with the build ids at the
    end the lines can be found without the process.
    """
    snapshot = export.reading.snapshot
    after = fmt.format_age(snapshot.elapsed_s)
    lines = [f"leaktop {__version__}: {title(export)}, {when(snapshot)}, after {after}"]
    lines += [figures(export, site)]
    verdict = export.reading.verdicts.get(site.stack_id)
    if verdict is not None:
        lines.append(f"suspicion {verdict.score:.2f}: {clean(verdict.reason)}")
    lines += remarks(export)
    lines += [f"  {line}" for line in frame_lines(export, site)]
    files = list(_files(export, site))
    if files:
        lines += ["build ids:", *(f"  {line}" for line in files)]
    return "\n".join(lines) + "\n"


def figures(export: Export, site: Site) -> str:
    """Return what a stack holds, in a line, to the byte."""
    reading, held = export.reading, site.counters
    mark = "~" if reading.snapshot.estimated else ""
    growth = fmt.format_growth(reading.growth.get(site.stack_id, 0.0), estimated=bool(mark))
    line = f"stack {site.stack_id:016x}: {mark}{held.bytes} bytes in {mark}{held.count} "
    if reading.snapshot.growth is not None:
        return line + f"new pages, {growth}/s, {mark}{held.allocs} page faults"
    oldest = fmt.format_age(site.oldest_s, exact=site.oldest_exact)
    line += f"blocks, {growth}/s, oldest {oldest}, {mark}{held.allocs} allocations, "
    line += f"{mark}{held.frees} frees"
    return f"{line}, slab cache {clean(site.cache)}" if site.cache else line


def frame_lines(export: Export, site: Site) -> Iterator[str]:
    """Yield a line for each call, innermost first."""
    places, pid = Places(export.mappings), export.pid_of(site)
    for i, frame in enumerate(export.frames_of(site)):
        yield f"#{i:<2} {_frame(places, pid, frame)}"
    yield from missing_frames(site)


def _frame(places: Places, pid: int, frame: Frame) -> str:
    mapping = places.find(pid, frame.address)
    parts = [places.name(pid, frame)]
    if frame.symbol and frame.offset is not None:
        parts[0] += f"+{frame.offset:#x}"
    if frame.inlined:
        parts.append("(inlined)")
    elif frame.symbol and mapping is not None:
        offset = frame.address - mapping.start + mapping.offset
        parts.append(f"[{clean(frame.module or '?')}+{offset:#x}]")
    elif frame.module and not (mapping and not frame.symbol):
        parts.append(f"[{clean(frame.module).strip('[]')}]")
    if frame.file:
        parts.append(f"{clean(frame.file)}:{frame.line or '?'}")
    return " ".join(parts)


def _files(export: Export, site: Site) -> Iterator[str]:
    places, pid = Places(export.mappings), export.pid_of(site)
    found = (places.find(pid, frame.address) for frame in export.frames_of(site))
    used: dict[tuple[str, str | None], CodeMapping] = {
        (each.path, each.build_id): each for each in found if each is not None and each.path
    }
    for path, build_id in used:
        yield f"{clean(path, 4096)} {build_id or 'has none'}"
