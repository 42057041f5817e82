"""Bands of ages and sizes: what they are called, and how to make fewer of them. Pure."""

from collections.abc import Callable

from leaktop import format as fmt
from leaktop.model import Histogram


def age_label(low: float, high: float | None) -> str:
    """Return a band of seconds as ``<1s``, ``1s-10s``, ``>1h``."""
    return _label(low, high, _short_age)


def size_label(low: float, high: float | None) -> str:
    """Return a band of bytes as ``16-31``, ``1K-2K``."""
    if high is not None and high <= 1024:  # noqa: PLR2004  (whole bytes: the last one can be named)
        return f"{low:.0f}" if high - low <= 1 else f"{low:.0f}-{high - 1:.0f}"
    return _label(low, high, lambda value: fmt.format_bytes(value).replace(".00", ""))


def fold(histogram: Histogram, rows: int) -> Histogram:
    """Return at most ``rows`` bands: empty ends go, then those with fewest blocks are merged."""
    held = [i for i, count in enumerate(histogram.counts) if count]
    if not held or rows < 1:
        return Histogram((), (), ())
    starts = list(range(held[0], held[-1] + 1))
    end = held[-1] + 1
    counts = [histogram.counts[i] for i in starts]
    while len(starts) > rows:
        least = min(range(1, len(starts)), key=lambda i: counts[i - 1] + counts[i])
        counts[least - 1] += counts.pop(least)
        del starts[least]
    spans = list(zip(starts, [*starts[1:], end], strict=True))
    # The edge after the last band held says where that one ends, unless it is open.
    return Histogram(
        tuple(histogram.edges[i] for i in [*starts, end] if i < len(histogram.edges)),
        tuple(sum(histogram.bytes[low:high]) for low, high in spans),
        tuple(counts),
    )


def _label(low: float, high: float | None, text: Callable[[float], str]) -> str:
    if high is None:
        return f">{text(low)}"
    return f"<{text(high)}" if low <= 0 else f"{text(low)}-{text(high)}"


def _short_age(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    text = fmt.format_age(seconds).replace(".0s", "s")
    for zero in ("00s", "00m", "00h"):
        text = text.removesuffix(zero) if len(text) > len("00s") else text
    return text
