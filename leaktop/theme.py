"""Which of Textual's themes the screen has."""

import os
from collections.abc import Iterable

from leaktop.config import unknown
from leaktop.format import clean

TERMINAL = "terminal"
"""What users call the colours of the terminal itself."""
_ANSI = "ansi-dark"  # and Textual


def choose_theme(wanted: str, available: Iterable[str]) -> tuple[str | None, list[str]]:
    """Return a theme, None where it is Textual's to choose, and what is wrong with ``wanted``.

    The environment comes first, since it is about this terminal: NO_COLOR, then TEXTUAL_THEME.
    """
    names = [TERMINAL, *available]
    problems = []
    if wanted and wanted not in names:
        problems = [f"theme: '{clean(wanted, 40)}': {unknown(wanted, names)}"]
    if "NO_COLOR" in os.environ:
        return _ANSI, problems
    if "TEXTUAL_THEME" in os.environ:
        return None, problems
    return (_ANSI if problems or wanted in ("", TERMINAL) else wanted), problems
