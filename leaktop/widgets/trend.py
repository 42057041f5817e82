"""A row of figures as one line of blocks."""

from collections.abc import Sequence
from itertools import pairwise

from leaktop import format as fmt
from leaktop.model import Trend

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.:-=+*#"

_LEAST_RANGE = 0.05
_LEAST_BLOCKS = 8


def thinned(values: Sequence[int], width: int) -> Sequence[int]:
    """Return at most ``width`` values, each the peak of several where there are more."""
    if len(values) <= width:
        return values
    bounds = [i * len(values) // width for i in range(width + 1)]
    return [max(values[start:end]) for start, end in pairwise(bounds)]


def sparkline(values: Sequence[int], width: int, *, ascii_only: bool) -> str:
    """Return ``values`` as at most ``width`` blocks, each the peak of several where there are more.

    The lowest block is the least of them and the highest the greatest, but the range is at least
    5 % of the greatest, so that a steady value looks steady.
    """
    if not values or width < 1:
        return ""
    values = thinned(values, width)
    steps = _ASCII if ascii_only else _BLOCKS
    low, high = min(values), max(values)
    span = max(high - low, high * _LEAST_RANGE)
    if span <= 0:
        return steps[0] * len(values)
    top = len(steps) - 1
    return "".join(steps[min(top, round((value - low) / span * top))] for value in values)


def trend_text(trend: Trend, width: int, *, ascii_only: bool) -> tuple[str, str]:
    """Return a trend as blocks and the time that they cover, together at most ``width`` cells.

    Without room for both, or nothing to say of the time, the second one is empty.
    """
    span = f" last {fmt.format_age(trend.span_s)}" if trend.span_s else ""
    if len(span) > width - _LEAST_BLOCKS:
        span = ""
    return sparkline(trend.values, width - len(span), ascii_only=ascii_only), span


def bar(part: float, width: int, *, ascii_only: bool) -> str:
    """Return a bar of up to ``width`` cells for ``part`` of 1, anything above 0 visible."""
    if part <= 0 or width < 1:
        return ""
    if ascii_only:
        return "#" * max(1, round(part * width))
    eighths = max(1, round(part * width * 8))
    whole, rest = divmod(eighths, 8)
    return "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
