"""Numbers and names as short text: pure functions.

Sizes use powers of 1024 under top's letters, at most five cells wide, and counts use powers of
1000. ``~`` before a figure marks an estimate, ``≤`` an upper bound.
"""

import re
import unicodedata

from leaktop.candidates import Estimate

NAME_LIMIT = 512
"""Characters of a name from the target that are ever shown."""

_BINARY = "KMGTPE"
_DECIMAL = "kMGTPE"
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_MAX_SIZE = 2**64 - 1

_LEAST_SHARE, _SEVERAL_TIMES = 0.01, 3.0

# Categories that move the cursor, reorder or hide text: control, format (bidi overrides, zero-width
# joiners), surrogate, private use, unassigned, line and paragraph separators.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

# What stands for our own signs, one cell for one cell, where only ASCII may be shown.
_ASCII = str.maketrans("≤…↑↓←→·▲▼─│├└▸▾†", "<>^v<>.^v-||`>vx")


def clean(text: str, limit: int = NAME_LIMIT) -> str:
    """Return ``text`` from a target as it may be shown: one line, bounded, harmless.

    Every control character (so every escape sequence), bidi override, invisible or unassigned
    character becomes ``?``; what is longer than ``limit`` characters ends in ``…``.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join("?" if unicodedata.category(c) in _UNSAFE else c for c in text)


def to_ascii(text: str) -> str:
    """Return ``text`` with ASCII stand-ins of the same length; what has none becomes ``?``."""
    if text.isascii():
        return text
    # what is left out of a name must not look like one more bracket
    return text.replace("<…>", "<.>").translate(_ASCII).encode("ascii", "replace").decode("ascii")


def internal_error(error: BaseException) -> str:
    """Return what to tell the user of an error that should not have been."""
    return f"internal error ({type(error).__name__}: {error}); please report it"


def format_bytes(value: float, *, estimated: bool = False) -> str:
    """Return bytes as ``512``, ``1.50M``, ``-12.0K``; ``~`` in front when ``estimated``."""
    return _mark(estimated) + _scaled(value, 1024, _BINARY, whole_below=1024)


def format_count(value: float, *, estimated: bool = False) -> str:
    """Return a count: all digits below 100,000, then ``123k``, ``1.23M`` in powers of 1000."""
    return _mark(estimated) + _scaled(value, 1000, _DECIMAL, whole_below=100_000)


def format_rate(per_s: float, *, estimated: bool = False) -> str:
    """Return events a second as ``0``, ``0.4``, ``12``, ``1.23M``; the unit is left out."""
    if 0 < abs(per_s) < 10 and round(per_s, 1) != round(per_s):  # noqa: PLR2004
        return f"{_mark(estimated)}{per_s:.1f}"
    return format_count(per_s, estimated=estimated)


def format_growth(bytes_per_s: float, *, estimated: bool = False) -> str:
    """Return bytes a second with their sign, ``+2.00K``, ``-512``, ``0``; the unit is left out."""
    return _mark(estimated) + _signed(format_bytes(bytes_per_s))


def format_change(count: float, *, estimated: bool = False) -> str:
    """Return a change of a count with its sign, ``+120``, ``-1.20M``, ``0``."""
    return _mark(estimated) + _signed(format_count(count))


def format_slowdown(estimate: Estimate) -> str:
    """Return by how much exact tracing slows a process: ``by about 34 %``."""
    if estimate.slowdown > _SEVERAL_TIMES:  # more cannot be told apart
        return "several times over"
    if estimate.slowdown < _LEAST_SHARE:
        return "by less than 1 %"
    return f"by about {100 * estimate.slowdown:.0f} %"


def format_estimate(estimate: Estimate) -> str:
    """Return the same with the figures that say so."""
    calls = format_rate(estimate.calls_per_s)
    each = f"{estimate.call_cost_s * 1e6:.1f} us"
    return f"{format_slowdown(estimate)} ({calls} calls/s x {each})"


def format_age(seconds: float | None, *, exact: bool = True) -> str:
    """Return an age as ``9.8s``, ``42s``, ``3m12s``, ``2h05m``, ``3d04h``; ``-`` when not known.

    An age that is only an upper bound (not ``exact``) carries ``≤``.
    """
    if seconds is None:
        return "-"
    prefix = "" if exact else "≤"
    seconds = max(0.0, seconds)
    if seconds < 9.95:  # noqa: PLR2004  (what rounds to 10.0 has no room for its tenth)
        return f"{prefix}{seconds:.1f}s"
    minutes, sec = divmod(max(10, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{prefix}{days}d{hour:02}h"
    if hours:
        return f"{prefix}{hours}h{minute:02}m"
    return f"{prefix}{minutes}m{sec:02}s" if minutes else f"{prefix}{sec}s"


DUMP_BYTES = 16
"""Bytes in a line of ``format_dump``."""


def format_dump(offset: int, data: bytes) -> str:
    """Return a line as hexdump -C has it: offset, bytes in hexadecimal, what of them is ASCII.

    At most ``DUMP_BYTES`` of ``data`` are shown; any other character is a dot.
    """
    data, half = data[:DUMP_BYTES], DUMP_BYTES // 2
    left, right = data[:half].hex(" "), data[half:].hex(" ")
    width = 3 * half - 1
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)  # noqa: PLR2004
    return f"{offset:04x}  {left:{width}}  {right:{width}}  |{text}|"


def parse_bytes(text: str) -> int:
    """Return the bytes that ``4096``, ``4k``, ``1.5M`` or ``2G`` stand for (powers of 1024).

    Raises ValueError, with a text for people, for anything else and for what exceeds 64 bits.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        shown = clean(text.strip(), 24)
        raise ValueError(f"'{shown}' is no size: use bytes or k, M, G, as in 512, 4k, 1.5M")
    number, unit = match.groups()
    factor = 1024 ** ("kmgt".index(unit.lower()) + 1) if unit else 1
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    value, rest = divmod(int(whole + fraction) * factor, scale)
    if rest and not unit:
        raise ValueError(f"'{clean(number, 24)}' is no whole number of bytes")
    if value > _MAX_SIZE:
        raise ValueError(f"'{clean(text.strip(), 24)}' is too large: at most 64 bits of bytes")
    return value


def _signed(text: str) -> str:
    return text if text == "0" or text[0] == "-" else "+" + text


def _mark(estimated: bool) -> str:
    return "~" if estimated else ""


# Three significant digits, so that a column keeps its width while its figures move.
def _scaled(value: float, base: int, units: str, *, whole_below: int) -> str:
    sign = "-" if value < 0 else ""
    value = abs(value)
    if round(value) < whole_below:
        whole = round(value)
        return f"{sign if whole else ''}{whole}"
    unit = ""
    for unit in units:  # noqa: B007
        value /= base
        if value < base - 0.5:
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004
    return f"{sign}{value:.{digits}f}{unit}"
