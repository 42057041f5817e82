"""Reports, read by an HTML parser: structure, figures, and names that stay names."""

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from leaktop.export import Export
from leaktop.export.report_html import ROWS_MAX, render
from leaktop.model import Frame
from tests.ui.scripted import site, snapshot
from tests.unit.exported import ALL, export_of, plain

VOID = {"meta", "input"}


class Page(HTMLParser):
    """Elements and texts by tag; fails where tags do not close in order."""

    def __init__(self, document: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: dict[str, list[dict[str, str | None]]] = {}
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(document.decode("utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.setdefault(tag, []).append(dict(attrs))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_every_page_is_whole_and_has_a_row_for_each_stack(make: Callable[[], Export]) -> None:
    export = make()
    document = render(export)
    assert document.startswith(b"<!DOCTYPE html>\n<html")
    page = Page(document)
    assert len(page.texts["pre"]) == len(export.reading.snapshot.sites) + 1  # and the build ids
    assert page.elements["svg"][0]["class"] in ("spark", "flame")
    held = re.findall(r"stack [0-9a-f]{16}: ([0-9]+) bytes", document.decode())
    assert sum(map(int, held)) == export.reading.snapshot.totals.bytes


def test_only_its_own_scripts_may_run() -> None:
    page = Page(render(plain()))
    (policy,) = [each["content"] for each in page.elements["meta"] if "http-equiv" in each]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]
    scripts = page.texts["script"]
    assert len(scripts) == 2
    for script in scripts:
        assert b64encode(sha256(script.encode()).digest()).decode() in policy


def test_names_from_the_target_are_text() -> None:
    document = render(plain())
    page = Page(document)
    assert "img" not in page.elements
    assert "b" in page.elements  # ours
    assert not any("x" in each for each in page.elements["b"])
    names = " ".join(page.texts["code"])
    assert '=HYPERLINK("x");</title><script>alert(1)</script>?[31m?]]>&amp;' in names
    text = document.decode()
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_nothing_is_loaded_from_anywhere() -> None:
    document = render(plain()).decode()
    assert set(re.findall(r"https?://[^\"' )]*", document)) == {"http://www.w3.org/2000/svg"}
    page = Page(document.encode())
    assert not any(
        {"src", "href"} & each.keys() for some in page.elements.values() for each in some
    )


def test_a_stack_says_all_that_is_known_of_it() -> None:
    page = Page(render(plain()))
    (leak,) = [text for text in page.texts["details"] if "0000000000009f31" in text]
    for part in (
        "note_new",
        "1152000 bytes in 24000 blocks",
        "Suspicion 0.97: <grows> & never frees",
        "#1  session_open+0x1f [leaky+0x1178] /src/leaky/session.c:88",
        "from 0 to 3, over the last 3.0s",
        "10s-30s",
        "32-63",
    ):
        assert part in leak
    assert "lost: truncated 3" in " ".join(page.texts["li"])


def test_the_largest_stacks_are_listed_and_the_others_summed_up() -> None:
    sites = [site(i, 1024, 1, (Frame(16, "a"),)) for i in range(1, ROWS_MAX + 101)]
    page = Page(render(export_of(snapshot(1.0, sites))))
    assert len(page.texts["summary"]) == ROWS_MAX + 1
    assert any(
        f"The largest {ROWS_MAX} of {ROWS_MAX + 100}; the others hold 100K in all" in text
        for text in page.texts["p"]
    )


def test_suspicious_stacks_come_first() -> None:
    page = Page(render(plain()))
    (first,) = [text for text in page.texts["ul"] if "suspicion" in text]
    assert "note_new" in first
    assert "1.10M, suspicion 0.97: <grows> & never frees" in first
    export = plain()
    unjudged = replace(export, reading=replace(export.reading, verdicts={}))
    text = render(unjudged).decode()
    assert "Suspicious" not in text
    assert ">suspect<" not in text
