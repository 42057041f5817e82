"""The formats that there are, by how a file's name ends."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from leaktop.export import Export, ExportError
from leaktop.format import clean


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    endings: tuple[str, ...]
    """What names of such files end with, the usual one first."""
    what: str
    """What it is, in a few words."""
    module: str
    """Of this package; its ``render`` makes the file."""
    details: bool = False
    """Whether it shows ages, sizes and trends of stacks."""

    def render(self, export: Export) -> bytes:
        """Return the contents of the file."""
        # only when asked for: the reader of the command line wants the names alone
        make: Callable[[Export], bytes] = import_module(f"{__package__}.{self.module}").render
        return make(export)


FORMATS = (
    Format((".svg",), "flame graph", "flamegraph"),
    Format((".html",), "report", "report_html", details=True),
    Format((".pb.gz", ".pprof"), "pprof profile", "pprof"),
    Format((".speedscope.json",), "speedscope", "speedscope"),
    Format((".folded", ".txt"), "folded stacks", "folded"),
    Format((".csv",), "table", "table_csv"),
    Format((".json",), "JSON", "whole_json"),
)


def format_of(path: Path) -> Format:
    """Return the format that a file's name asks for. Raises ExportError where there is none."""
    name = path.name.lower()
    found = [
        (len(ending), each)
        for each in FORMATS
        for ending in each.endings
        if name.endswith(ending) and len(name) > len(ending)
    ]
    if not found:
        known = ", ".join(each.endings[0] for each in FORMATS)
        raise ExportError(f"no format for '{clean(path.name, 60)}': its name has to end in {known}")
    return max(found, key=lambda pair: pair[0])[1]
