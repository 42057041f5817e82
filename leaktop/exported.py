"""Files written for the screen, and what is told of them; in a thread that may take its time."""

from collections.abc import Mapping
from pathlib import Path

from leaktop.export import Export, ExportError
from leaktop.export.stack_text import stack_text
from leaktop.exporting import with_names, write_export, write_stack
from leaktop.format import internal_error
from leaktop.messages import Exported, StackCopied
from leaktop.model import Frame, Site
from leaktop.outfile import OutFileError
from leaktop.source import Source

Names = Mapping[int, tuple[Frame, ...]]


def written(source: Source, export: Export, path: Path, names: Names) -> Exported:
    """Write a file, with ``names`` where the source has no better ones; say what became of it."""
    try:
        return Exported(str(write_export(with_names(source, export, names), path)))
    except (ExportError, OutFileError) as error:
        return Exported(str(error), error=True)
    except Exception as error:  # the thread goes on naming frames
        return Exported(internal_error(error), error=True)


def copied(source: Source, export: Export, site: Site, names: Names) -> StackCopied:
    """Put one stack in words, and keep them in a file."""
    export = with_names(source, export, names, [site.stack_id])
    text = stack_text(export, site)
    try:
        return StackCopied(text, write_stack(export, site, text))
    except OutFileError as error:
        return StackCopied(text, None, str(error))
