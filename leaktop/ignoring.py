"""The list of ignored stacks as the screen changes it; the configuration follows, in threads."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from textual.message import Message

from leaktop.ignore import Entry, Ignored, IgnoreList, entry_for
from leaktop.messages import NotKept
from leaktop.model import Frame


@dataclass(frozen=True, slots=True)
class Toggled:
    """What a wish to ignore a stack, or no longer, has led to."""

    entry: Entry | None = None
    """What was added or taken out; None where nothing was."""
    added: bool = False
    refused: str = ""
    """Why nothing was done, in a line."""


class Ignoring:
    """Which stacks are ignored in this run, and in the next ones as far as that can be written."""

    def __init__(self, entries: Sequence[Entry], post: Callable[[Message], object]) -> None:
        self.list = IgnoreList(entries)
        self._post = post
        self._writing: threading.Thread | None = None

    def toggle(self, frames: Sequence[Frame], matched: Entry | None) -> Toggled:
        """Ignore stacks like this one; or no longer, where it has ``matched`` an entry.

        ``frames``: with names, empty where they are not known yet.
        """
        entry = entry_for(frames)
        if matched is not None:
            if entry is None or entry.stack != matched.stack:
                return Toggled(refused=f"'{matched.label}' of config.toml is not for it alone")
            self._replace([each for each in self.list.entries if each.stack != matched.stack])
            self._write(matched, added=False)
            return Toggled(matched)
        if entry is None:
            why = "no function on it has a name that tells it from others" if frames else ""
            return Toggled(refused=why or "its names are not here yet")
        self._replace([*self.list.entries, entry])
        self._write(entry, added=True)
        return Toggled(entry, added=True)

    def _replace(self, entries: Sequence[Entry]) -> None:
        self.list = IgnoreList(entries)

    # One after the other; the process ends when they have.
    def _write(self, entry: Entry, *, added: bool) -> None:
        before = self._writing

        def work() -> None:
            # tomlkit, which few runs need
            from leaktop.config_file import (  # noqa: PLC0415
                ConfigFileError,
                add_ignored,
                remove_ignored,
            )

            if before is not None:
                before.join()
            try:
                if added:
                    add_ignored(entry, date.today())
                else:
                    remove_ignored(entry)
            except ConfigFileError as error:
                self._post(NotKept(str(error)))

        self._writing = threading.Thread(target=work, name="leaktop-config")
        self._writing.start()


def notice_of(toggled: Toggled, ignored: Ignored) -> str:
    """Return in a line what was done; ``ignored``: after that."""
    if toggled.entry is None:
        return f"not changed: {toggled.refused}"
    label = toggled.entry.label
    if not toggled.added:
        return f"no longer ignored: {label}"
    like = sum(entry is toggled.entry for entry in ignored.entries.values())
    stacks = f"{like} stack{'' if like == 1 else 's'}"
    return f"ignored: {label}, {stacks} (I shows what is; i on it takes it back)"
