"""How suspicious a stack is, in signs and in words."""

from textual.strip import Strip

from leaktop import format as fmt
from leaktop.model import Verdict
from leaktop.verdicts import CERTAIN, SUSPICIOUS
from leaktop.widgets.lines import LinesView

_WORTH_A_NUMBER = 0.05


def mark(score: float) -> str:
    """Return a score with signs for it, which do not rest on colour: ``!! 0.9``, ``! 0.6``."""
    score = round(score, 2)  # as it is read
    if score < _WORTH_A_NUMBER:
        return "·"
    signs = "!! " if score >= CERTAIN else "! " if score >= SUSPICIOUS else ""
    return f"{signs}{score:.1f}"


def style_of(score: float) -> str:
    """Return the component style for a score; empty where it needs none."""
    score = round(score, 2)
    return "bad" if score >= CERTAIN else "warn" if score >= SUSPICIOUS else ""


class VerdictLine(LinesView):
    """The verdict on one stack; no line where nothing is judged."""

    def __init__(self, title: str = "suspect") -> None:
        super().__init__()
        self._title = title
        self._verdict: Verdict | None = None
        self.display = False

    def show(self, verdict: Verdict | None, *, judged: bool) -> None:
        """Show a verdict, or an empty line where others are ``judged``."""
        self._verdict, self.display = verdict, judged
        self.repaint()

    def line(self, y: int) -> Strip:
        """Draw the line."""
        line, verdict = self.builder(), self._verdict
        if verdict is not None:
            line.put(f" {self._title} ", self.style("dim"))
            style = style_of(verdict.score)
            line.put(mark(verdict.score), self.style(style) if style else None)
            line.put(f"  {fmt.clean(verdict.reason)}")
        return line.strip()
