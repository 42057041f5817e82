"""Columns of a table: their titles, and which one is where."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from leaktop.widgets.lines import LineBuilder


@dataclass(frozen=True, slots=True)
class Column:
    """One column; figures are right-aligned."""

    title: str
    width: int
    key: StrEnum | None = None
    """What it can be sorted by."""
    right: bool = True


def put_titles(
    line: LineBuilder, columns: Sequence[Column], sort: StrEnum, *, rising: bool
) -> None:
    """Add the titles; the one that is sorted by carries an arrow."""
    for column in columns:
        arrow = ("▲" if rising else "▼") if column.key is sort else ""
        line.cell(column.title + arrow, column.width, right=column.right)


def column_at(columns: Sequence[Column], x: int, start: int = 1) -> Column | None:
    """Return the column at the cell ``x`` where the first one begins at ``start``."""
    for column in columns:
        start += column.width
        if x < start:
            return column
    return None
