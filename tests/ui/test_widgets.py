"""The pure parts of the widgets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from leaktop.bands import age_label, fold, size_label
from leaktop.model import Histogram, Trend
from leaktop.widgets.lines import LineBuilder
from leaktop.widgets.trend import bar, sparkline, trend_text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([0, 0, 0], "▁▁▁"),
        ([5, 5], "▁▁"),
        ([0, 50, 100], "▁▅█"),
        ([1000, 1001, 1002], "▁▁▁"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
        ([*range(99), 0], "▁▃▅▆█"),
        ([*[10] * 55, 90, *[10] * 44], "▁▁█▁▁"),
    ],
)
def test_sparkline(values: list[int], text: str) -> None:
    width = 5 if len(values) > 50 else 60
    assert sparkline(values, width, ascii_only=False) == text


def test_a_trend_says_what_time_it_covers() -> None:
    steady = Trend((5,) * 30, 725.0)
    assert trend_text(steady, 60, ascii_only=False) == ("▁" * 30, " last 12m05s")
    assert trend_text(steady, 24, ascii_only=False) == ("▁" * 12, " last 12m05s")
    assert trend_text(steady, 19, ascii_only=False) == ("▁" * 19, "")
    assert trend_text(Trend((5,)), 60, ascii_only=True) == ("_", "")


@given(st.lists(st.integers(0, 2**63), max_size=130), st.integers(0, 80))
def test_sparkline_fits(values: list[int], width: int) -> None:
    text = sparkline(values, width, ascii_only=True)
    assert len(text) == min(len(values), width)
    assert text.isascii()


@pytest.mark.parametrize(
    ("part", "text", "ascii_text"),
    [(0.0, "", ""), (1.0, "████", "####"), (0.5, "██", "##"), (1e-9, "▏", "#"), (0.4, "█▋", "##")],
)
def test_bar(part: float, text: str, ascii_text: str) -> None:
    assert bar(part, 4, ascii_only=False) == text
    assert bar(part, 4, ascii_only=True) == ascii_text


def test_labels() -> None:
    assert age_label(0.0, 1.0) == "<1s"
    assert age_label(0.1, 1.0) == "100ms-1s"
    assert age_label(10.0, 60.0) == "10s-1m"
    assert age_label(600.0, 3600.0) == "10m-1h"
    assert age_label(86400.0, None) == ">1d"
    assert size_label(1.0, 2.0) == "1"
    assert size_label(16.0, 32.0) == "16-31"
    assert size_label(1024.0, 2048.0) == "1K-2K"
    assert size_label(float(1 << 40), None) == ">1T"


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 20))
def test_fold_loses_nothing(counts: list[int], rows: int) -> None:
    edges = tuple(float(i) for i in range(len(counts)))
    folded = fold(Histogram(edges, tuple(2 * c for c in counts), tuple(counts)), rows)
    assert sum(folded.counts) == sum(counts)
    assert sum(folded.bytes) == 2 * sum(counts)
    assert len(folded.counts) <= rows
    assert len(folded.counts) <= len(folded.edges) <= len(folded.counts) + 1
    assert list(folded.edges) == sorted(set(folded.edges))


def test_fold_keeps_bands_where_there_is_room() -> None:
    histogram = Histogram((0.0, 1.0, 2.0, 3.0), (0, 10, 20, 0), (0, 1, 2, 0))
    assert fold(histogram, 5) == Histogram((1.0, 2.0, 3.0), (10, 20), (1, 2))


@given(st.lists(st.tuples(st.text(max_size=30), st.integers(0, 20))), st.integers(0, 60))
def test_a_line_is_as_wide_as_it_is_to_be(cells: list[tuple[str, int]], width: int) -> None:
    for ascii_only in (False, True):
        line = LineBuilder(width, Style(), ascii_only=ascii_only)
        for text, field in cells:
            line.put(text).cell(text, field, right=bool(field % 2))
        strip = line.strip()
        assert strip.cell_length == cell_len(strip.text) == width
        assert strip.text.isascii() or not ascii_only
