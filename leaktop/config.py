"""The user's own defaults: ``~/.config/leaktop/config.toml``, read with the user's rights.

What is wrong in it never keeps leaktop from starting: the default takes its place, and a problem
says so.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from leaktop.format import clean
from leaktop.invoker import Invoker, RightsError, invoker, with_rights_of
from leaktop.model import SortKey
from leaktop.root import RefusedError, check_regular, reopen

if TYPE_CHECKING:
    from leaktop.ignore import Entry

DELAY_MIN_S, DELAY_MAX_S = 0.1, 3600.0
"""How long it may be from one snapshot to the next."""

SIZE_MAX = 256 << 10
"""Bytes of a configuration that are read; a larger file is refused."""

_PROBLEMS_MAX = 8
_COLUMNS_MAX = 64
_SHOWN = 40  # characters of what is wrong

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Config:
    """What the user wants where the command line says nothing; None or empty: leaktop's default."""

    path: Path | None = None
    """Where it was looked for; None where the user has no home."""
    sort: SortKey | None = None
    delay_s: float | None = None
    columns: tuple[str, ...] = ()
    """Names of columns of the table of stacks, in order; some may not exist."""
    theme: str = ""
    """Of the screen; it may not exist."""
    ignore: "tuple[Entry, ...]" = ()
    """Stacks that the user does not want to see."""
    problems: tuple[str, ...] = ()
    """What is wrong with it, each in a line that begins with the key."""


class _WrongError(Exception):
    # A value that is not what its key is for.
    pass


def load() -> Config:
    """Return the configuration of the user who called; defaults where there is none."""
    user = invoker()
    if user is None:
        return Config()
    path = config_path(user)
    try:
        data = with_rights_of(user, lambda: read(path, user))
    except (OSError, RefusedError, RightsError) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        return Config(path, problems=(f"not read: {clean(why)}",))
    return Config(path) if data is None else parse(data, path)


def config_path(user: Invoker) -> Path:
    """Return where the configuration of a user is, by the XDG Base Directory Specification."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (folder if folder.is_absolute() else user.home / ".config") / "leaktop" / "config.toml"


def read(path: Path, user: Invoker) -> bytes | None:
    """Return a file's content, None where there is none; to be called with the user's rights.

    Raises OSError, and RefusedError where it is no file of theirs, or too large.
    """
    check_ways(path, user)
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        _check_owner(check_regular(found), user)
        with os.fdopen(reopen(found), "rb") as stream:
            data = stream.read(SIZE_MAX + 1)
    finally:
        os.close(found)
    if len(data) > SIZE_MAX:
        raise RefusedError(f"larger than {SIZE_MAX >> 10} KiB")
    return data


def check_ways(path: Path, user: Invoker) -> None:
    """Raise RefusedError where root, acting for itself, is led through what others may change.

    For other users their own rights are enough: those of root are no limit.
    """
    if user.uid != 0:
        return
    for each in (path, *path.parents):
        try:
            status = each.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if status.st_uid != 0:
            raise RefusedError(f"{clean(str(each))} is user {status.st_uid}'s, not root's")


def _check_owner(status: os.stat_result, user: Invoker) -> None:
    if status.st_uid not in (0, user.uid):
        raise RefusedError(f"user {status.st_uid} has it, not user {user.uid}")
    if status.st_mode & stat.S_IWOTH:
        raise RefusedError("everybody may write to it (chmod o-w)")


def parse(data: bytes, path: Path | None = None) -> Config:
    """Return what a file says, and what is wrong with it."""
    import tomllib  # noqa: PLC0415  (only where there is a configuration)

    try:
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        return Config(path, problems=("it is no text in UTF-8",))
    except RecursionError:
        return Config(path, problems=("it is nested too deeply",))
    except ValueError as error:
        return Config(path, problems=(clean(f"it is no TOML: {error}", 120),))
    reader = _Reader(document)
    return Config(
        path,
        sort=reader.take("sort", _sort, None),
        delay_s=reader.take("delay", _delay, None),
        columns=reader.take("columns", _columns, ()),
        theme=reader.take("theme", _text, ""),
        ignore=reader.take_each("ignore", _entry),
        problems=reader.problems(),
    )


class _Reader:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._known: list[str] = []
        self._wrong: list[str] = []

    def take(self, key: str, convert: Callable[[Any], _Value], default: _Value) -> _Value:
        self._known.append(key)
        if key not in self._document:
            return default
        try:
            return convert(self._document[key])
        except _WrongError as error:
            self._wrong.append(f"{key}: {error}")
            return default

    def take_each(
        self, key: str, convert: Callable[[dict[str, Any]], _Value]
    ) -> tuple[_Value, ...]:
        # of an array of tables; those that are wrong are left out
        none: list[dict[str, Any]] = []
        taken = []
        for number, table in enumerate(self.take(key, _tables, none), 1):
            try:
                taken.append(convert(table))
            except _WrongError as error:
                self._wrong.append(f"{key} {number}: {error}")
        return tuple(taken)

    def problems(self) -> tuple[str, ...]:
        strange = [key for key in self._document if key not in self._known]
        found = [*self._wrong, *(f"{_shown(key)}: {unknown(key, self._known)}" for key in strange)]
        if len(found) > _PROBLEMS_MAX:
            found[_PROBLEMS_MAX - 1 :] = [f"{len(found) - _PROBLEMS_MAX + 1} more problems"]
        return tuple(found)


def unknown(name: str, known: Sequence[str]) -> str:
    """Return that there is no such name, and the nearest one, or all of a few."""
    import difflib  # noqa: PLC0415  (only where something is wrong)

    near = difflib.get_close_matches(name[:_SHOWN], known, 1, 0.5)
    if near:
        return f"there is no such name; do you mean {near[0]}?"
    return f"there is no such name; there are {', '.join(known)}"


def _sort(given: object) -> SortKey:
    name = _text(given)
    try:
        return SortKey(name)
    except ValueError:
        raise _WrongError(f"'{_shown(name)}': {unknown(name, list(SortKey))}") from None


def _delay(given: object) -> float:
    seconds = given if isinstance(given, int | float) and not isinstance(given, bool) else 0.0
    if not DELAY_MIN_S <= seconds <= DELAY_MAX_S:
        raise _WrongError(f"{_shown(given)} is no time from {DELAY_MIN_S:g} to {DELAY_MAX_S:g} s")
    return float(seconds)


def _columns(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise _WrongError('it is no list of names, as in ["bytes", "growth"]')
    return tuple(dict.fromkeys(given[:_COLUMNS_MAX]))


def _tables(given: object) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise _WrongError("it is no list of tables: begin each with [[ignore]]")
    return given


def _entry(table: dict[str, Any]) -> "Entry":
    from leaktop.ignore import ANY_FRAMES, FRAMES_MAX, TEXT_MAX, Entry  # noqa: PLC0415

    for key in table:
        if key not in ("stack", "name"):
            raise _WrongError(f"{_shown(key)}: {unknown(key, ['stack', 'name'])}")
    stack = table.get("stack")
    if not isinstance(stack, list) or not all(isinstance(each, str) for each in stack):
        raise _WrongError('its stack is no list of frames, as in ["*!cache_put", "..."]')
    if len(stack) > FRAMES_MAX or any(len(each) > TEXT_MAX for each in stack):
        raise _WrongError(f"more than {FRAMES_MAX} frames, or {TEXT_MAX} characters in one")
    if not set(stack).difference((ANY_FRAMES, "*", "*!*", "")):
        raise _WrongError("its stack names no function: it would match every stack")
    return Entry(tuple(stack), _text(table.get("name", "")))


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise _WrongError(f"{_shown(given)} is no text: put it in quotes")
    return given


# Of lists and tables only what they are: they may be deep.
def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a table"
    try:
        return clean(str(value), _SHOWN)
    except ValueError:  # Python writes no number of that many digits
        return "a huge number"
