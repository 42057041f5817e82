"""A row of figures as one line of blocks."""

from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.:-=+*#"

_LEAST_RANGE = 0.05


def thinned(values: Sequence[int], width: int) -> Sequence[int]:
    """Return at most ``width`` of the values, evenly chosen, the last one among them."""
    if len(values) <= width:
        return values
    # The last one of each bin, so that the line ends at the present value.
    return [values[(i + 1) * len(values) // width - 1] for i in range(width)]


def sparkline(values: Sequence[int], width: int, *, ascii_only: bool) -> str:
    """Return ``values`` as at most ``width`` blocks, thinned evenly where there are more.

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


def bar(part: float, width: int, *, ascii_only: bool) -> str:
    """Return a bar of up to ``width`` cells for ``part`` of 1, anything above 0 visible."""
    if part <= 0 or width < 1:
        return ""
    if ascii_only:
        return "#" * max(1, round(part * width))
    eighths = max(1, round(part * width * 8))
    whole, rest = divmod(eighths, 8)
    return "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
