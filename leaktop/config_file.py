"""Changes to the user's configuration, which keep what the user wrote: order, comments, layout."""

import fcntl
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Comment, Item, Key, Table

from leaktop import outfile
from leaktop.config import SIZE_MAX, check_ways, config_path, read
from leaktop.format import clean
from leaktop.ignore import Entry
from leaktop.invoker import Invoker, RightsError, invoker, with_rights_of
from leaktop.root import RefusedError

_TRIES, _TRY_S = 20, 0.05  # for another leaktop that is writing


class ConfigFileError(Exception):
    """The configuration cannot be changed; the text says why, in a line."""


_FAILURES = (
    *(ConfigFileError, OSError, RefusedError, RightsError),
    *(TOMLKitError, ValueError, RecursionError),  # it is no TOML
)


def add_ignored(entry: Entry, today: date) -> None:
    """Add an entry to the calling user's configuration, which is made where there is none.

    Raises ConfigFileError.
    """
    _change(lambda document: insert(document, entry, today))


def remove_ignored(entry: Entry) -> None:
    """Take an entry out of the calling user's configuration. Raises ConfigFileError."""
    _change(lambda document: take_out(document, entry))


def insert(document: tomlkit.TOMLDocument, entry: Entry, today: date) -> None:
    """Add an entry to a document, unless it has it. Raises ConfigFileError."""
    if _index(document, entry) is not None:
        return
    inline = "ignore" in document and not isinstance(document["ignore"], AoT)
    stack = tomlkit.array()
    stack.extend(entry.stack)
    table = tomlkit.inline_table() if inline else tomlkit.table()
    if not inline:
        stack.multiline(True)
        table.add(tomlkit.comment(f"added with i, {today}"))
        if document.body:
            table.trivia.indent = "\n"  # an empty line before it
    table.add("stack", stack)
    if "ignore" not in document:
        document.append("ignore", tomlkit.aot())
    document["ignore"].append(table)


def take_out(document: tomlkit.TOMLDocument, entry: Entry) -> None:
    """Take an entry out of a document, if it has it. Raises ConfigFileError."""
    at = _index(document, entry)
    if at is None:
        return
    entries = document["ignore"]
    last = len(entries) == 1
    if isinstance(entries, AoT):
        place = next(i for i, (_, item) in enumerate(document.body) if item is entries)
        tail = _what_follows(entries.body[at])
        del entries[at]
        if at > 0:
            entries.body[at - 1].value.body.extend(tail)
        else:
            document.body[place : place + last] = tail
    elif last:
        document.remove("ignore")
    else:
        del entries[at]


def _index(document: tomlkit.TOMLDocument, entry: Entry) -> int | None:
    entries = document.get("ignore", [])
    if not isinstance(entries, list):
        raise ConfigFileError("ignore in it is no list")
    for i, each in enumerate(entries):
        stack = each.get("stack") if isinstance(each, dict) else None
        if isinstance(stack, list) and tuple(stack) == entry.stack:
            return i
    return None


# What stands between two entries is the first one's to tomlkit; to people it begins the second.
def _what_follows(table: Table) -> list[tuple[Key | None, Item]]:
    body = table.value.body
    end = max((i for i, (key, _) in enumerate(body) if key is not None), default=-1)
    tail = body[end + 1 :]
    return tail if any(isinstance(item, Comment) for _, item in tail) else []


def _change(edit: Callable[[tomlkit.TOMLDocument], None]) -> None:
    user = invoker()
    if user is None:
        raise ConfigFileError("there is no home directory to write it to")
    path = config_path(user)
    try:
        with_rights_of(user, lambda: _rewrite(path, user, edit))
    except outfile.OutFileError as error:
        raise ConfigFileError(str(error)) from None
    except _FAILURES as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ConfigFileError(clean(f"{path} cannot be changed: {why}")) from None


def _rewrite(path: Path, user: Invoker, edit: Callable[[tomlkit.TOMLDocument], None]) -> None:
    check_ways(path, user)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # as the XDG specification has it
    with _alone_in(path.parent):
        before = (read(path, user) or b"").decode()
        document = tomlkit.parse(before)
        edit(document)
        after = tomlkit.dumps(document)
        if after == before:
            return
        tomllib.loads(after)  # what does not read back is not written
        if len(data := after.encode()) > SIZE_MAX:
            raise RefusedError(f"it would be larger than {SIZE_MAX >> 10} KiB")
        # a link of the user's own, to where such files are kept, stays one
        outfile.write(Path(os.path.realpath(path)), data)


# So that two that add something at once do not undo each other's.
@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_TRY_S)
            except OSError:  # its file system knows no locks
                break
        else:
            raise RefusedError("somebody else has it locked")
        yield
    finally:
        os.close(descriptor)
