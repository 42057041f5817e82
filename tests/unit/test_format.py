"""Text of figures and names."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaktop import format as fmt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (512, "512"),
        (1023, "1023"),
        (1024, "1.00K"),
        (1536, "1.50K"),
        (15 * 1024, "15.0K"),
        (150 * 1024, "150K"),
        (1023 * 1024, "1023K"),
        (1024 * 1024 - 1, "1.00M"),
        (1572864, "1.50M"),
        (3 * 1024**3, "3.00G"),
        (-2048, "-2.00K"),
        (-0.2, "0"),
        (9.996 * 1024, "10.0K"),
        (99.96 * 1024, "100K"),
        (2**64 - 1, "16.0E"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert fmt.format_bytes(value) == text


def test_estimates_are_marked() -> None:
    assert fmt.format_bytes(2048, estimated=True) == "~2.00K"
    assert fmt.format_count(7, estimated=True) == "~7"
    assert fmt.format_growth(-1, estimated=True) == "~-1"


@given(st.integers(min_value=-(2**64), max_value=2**64))
def test_bytes_fit_six_cells(value: int) -> None:
    assert len(fmt.format_bytes(value)) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (99_999, "99999"), (100_000, "100k"), (123_456, "123k"), (1_234_567, "1.23M")],
)
def test_count(value: int, text: str) -> None:
    assert fmt.format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.4, "0.4"), (3.0, "3"), (3.04, "3"), (12.34, "12"), (2_500_000.0, "2.50M")],
)
def test_rate(value: float, text: str) -> None:
    assert fmt.format_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (2048.0, "+2.00K"), (-512, "-512"), (0.3, "0")]
)
def test_growth(value: float, text: str) -> None:
    assert fmt.format_growth(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (-1, "0.0s"),
        (9.8, "9.8s"),
        (9.96, "10s"),
        (42.9, "42s"),
        (59.99, "59s"),
        (60, "1m00s"),
        (192, "3m12s"),
        (3600, "1h00m"),
        (7500, "2h05m"),
        (86400 * 3 + 3600 * 4, "3d04h"),
        (None, "-"),
    ],
)
def test_age(seconds: float | None, text: str) -> None:
    assert fmt.format_age(seconds) == text


def test_age_that_is_a_bound() -> None:
    assert fmt.format_age(192, exact=False) == "≤3m12s"
    assert fmt.format_age(None, exact=False) == "-"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4k", 4096),
        ("4K", 4096),
        ("4 kB", 4096),
        ("4KiB", 4096),
        ("1.5M", 1572864),
        (" 2g ", 2 * 1024**3),
        ("1t", 1024**4),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_parse_bytes(text: str, value: int) -> None:
    assert fmt.parse_bytes(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "k", "-1", "4x", "1.5", "1e3", "٤k", "4k4", "0x10", "18446744073709551616", "9" * 99],
)
def test_what_is_no_size_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is (no size|no whole number|too large)"):
        fmt.parse_bytes(text)


def test_clean_leaves_names_alone() -> None:
    name = "std::vector<int, std::allocator<int> >::push_back(int const&) [clone .cold]"
    assert fmt.clean(name) == name
    assert fmt.clean("naïve_größe_数") == "naïve_größe_数"


def test_clean_takes_out_what_moves_the_cursor() -> None:
    assert fmt.clean("a\x1b[31mb\nc\rd\te\x07") == "a?[31mb?c?d?e?"
    assert fmt.clean("\u202egnp.exe\u2066\u200b\u2028\x9b1m") == "?gnp.exe????1m"
    assert fmt.clean("\udc80lone") == "?lone"


@given(st.text(st.characters(), max_size=600))
def test_clean_is_bounded_and_harmless(text: str) -> None:
    cleaned = fmt.clean(text)
    assert len(cleaned) <= fmt.NAME_LIMIT
    harmful = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not [c for c in cleaned if unicodedata.category(c) in harmful]
    assert fmt.clean(cleaned) == cleaned


def test_clean_cuts_visibly() -> None:
    assert fmt.clean("x" * 20, limit=5) == "xxxx…"


@given(st.text())
def test_to_ascii_keeps_the_length(text: str) -> None:
    assert fmt.to_ascii(text).isascii()
    assert len(fmt.to_ascii(text)) == len(text)


def test_to_ascii_knows_our_signs() -> None:
    assert fmt.to_ascii("≤3s … é") == "<3s > ?"
    assert fmt.to_ascii("f<…>::g…") == "f<.>::g>"
