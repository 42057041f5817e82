"""One JSON document with all stacks: as ``--json`` has them, and the code that they lie in."""

import json
from typing import Any

from leaktop.analyze import ordered
from leaktop.export import Export
from leaktop.format import clean
from leaktop.model import CodeMapping, SortKey
from leaktop.report_json import snapshot_document


def render(export: Export) -> bytes:
    """Return the document, on one line."""
    sites = ordered(export.reading, SortKey.BYTES)
    document = snapshot_document(export.reading, sites, export.frames)
    document["mappings"] = [_mapping(each) for each in export.mappings]
    return (json.dumps(document, separators=(",", ":")) + "\n").encode()


def _mapping(mapping: CodeMapping) -> dict[str, Any]:
    return {
        "pid": mapping.pid,
        "start": f"{mapping.start:#x}",
        "end": f"{mapping.end:#x}",
        "offset": mapping.offset,
        "path": clean(mapping.path, 4096),
        "build_id": mapping.build_id,
    }
