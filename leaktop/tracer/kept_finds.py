"""What was found in files that were looked through before, by all that is in them.

Readers of ELF and of instructions take longer to import than to read a C library, and most starts
see one that an earlier start has seen. A probe on a wrong instruction would end somebody's process,
so nothing less than the same bytes is the same file: what is kept goes by a hash of them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from leaktop.elf import ElfError, FileOffset
from leaktop.modules import Module
from leaktop.tracer import probes
from leaktop.tracer.cache import Cache, default_cache
from leaktop.tracer.probes import Choice, Find, Function, Site, Traced

_FORM = 1
"""Grows when what is kept is written in another form."""
_KEPT_MAX = 512
_HASHED_MAX = 8 << 20
"""Bytes of a file that is hashed, a millisecond for each two million; larger ones are looked
through each time."""
_CHUNK = 1 << 20
_PACKAGE = Path(__file__).parent.parent
_LOOKING = (
    *(f"tracer/{name}" for name in ("look", "sites", "entry_sites", "code", "probes")),
    *("elf", "symtab", "plt", "callframe", "cursor"),
)
"""What decides on places: what another version of it found is found anew."""


class KeptFinds:
    """Finds in files, kept or made."""

    def __init__(self, choice: Choice, cache: Cache | None = None) -> None:
        self._choice = choice
        self._cache = cache or default_cache("sites-", _KEPT_MAX)
        self._functions = {each.name: each for each in probes.table(choice.prefix)}
        self._made_from = _made_from(choice)

    def find(self, module: Module) -> Find | None:
        """Return what there is to trace in a file; None where it defines no allocator."""
        key = self._key(module)
        kept = None if key is None else self._cache.get(key)
        if kept is not None:
            try:
                return _from_json(kept, self._functions)
            except ValueError:
                pass
        from leaktop.tracer.look import find_in  # noqa: PLC0415  (see the top)

        try:
            find = find_in(module, self._choice)
        except ElfError:
            return None
        # the same file still: else what was found belongs to other bytes
        if key is not None and self._key(module) == key:
            self._cache.put(key, _to_json(find))
        return find

    def _key(self, module: Module) -> str | None:
        if not 0 < module.size <= _HASHED_MAX:
            return None
        mix = self._made_from.copy()
        try:
            for start in range(0, module.size, _CHUNK):
                mix.update(module.read(start, _CHUNK))
        except OSError:
            return None
        return mix.hexdigest()


def _made_from(choice: Choice) -> "hashlib._Hash":
    asked = [_FORM, choice.file is not None, choice.prefix, choice.at_entry]
    mix = hashlib.sha256(json.dumps(asked).encode())
    for name in _LOOKING:
        mix.update((_PACKAGE / f"{name}.py").read_bytes())
    return mix


def _to_json(find: Find | None) -> str:
    if find is None:
        return json.dumps(None)
    return json.dumps(
        {
            "functions": [
                {
                    "name": each.function.name,
                    "offset": each.site.offset,
                    "shift": each.site.shift,
                    "instruction": each.site.instruction,
                    "why": each.site.why,
                    "pushed": each.site.pushed,
                    "exits": each.exits,
                }
                for each in find.functions
            ],
            "skipped": find.skipped,
        }
    )


def _from_json(text: bytes, functions: dict[str, Function]) -> Find | None:
    """Return the find that a text describes. Raises ValueError where it describes none."""
    try:
        given = json.loads(text)
        if given is None:
            return None
        return Find(
            tuple(_traced(each, functions) for each in given["functions"]),
            tuple(map(str, given["skipped"])),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no find: {error}") from None


def _traced(each: dict[str, Any], functions: dict[str, Function]) -> Traced:
    return Traced(
        functions[each["name"]],
        Site(
            FileOffset(int(each["offset"])),
            int(each["shift"]),
            str(each["instruction"]),
            str(each["why"]),
            int(each["pushed"]),
        ),
        tuple(FileOffset(int(offset)) for offset in each["exits"]),
    )
