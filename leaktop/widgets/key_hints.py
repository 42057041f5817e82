"""The bottom line: what keys do here."""

from collections.abc import Sequence

from rich.cells import cell_len
from textual.strip import Strip

from leaktop.widgets.lines import LinesView


class KeyHints(LinesView):
    """Shows keys with a word each, with the ``short`` ones where the line is too short."""

    def __init__(
        self, hints: Sequence[tuple[str, str]], short: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__()
        self._hints, self._short = hints, short or hints

    def show(self, hints: Sequence[tuple[str, str]]) -> None:
        """Show other keys."""
        self._hints = self._short = hints
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the hints; the last ones give way where even the short ones do not fit."""
        line = self.builder()
        fits = sum(_width(key, word) for key, word in self._hints) <= line.left
        for key, word in self._hints if fits else self._short:
            if _width(key, word) > line.left:
                break
            line.put(f" {key}", self.style("strong")).put(f" {word} ", self.style("dim"))
        return line.strip()


def _width(key: str, word: str) -> int:
    return cell_len(key) + cell_len(word) + 3
