"""docs/memleak.md: that each of its rows is tested, and rows that no other test is about."""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leaktop.model import StackDetail
from leaktop.report import run_batch
from leaktop.single_blocks import BlockPage
from tests.unit.test_command_line import refusal
from tests.unit.test_report import NO_DELAY, Scripted, site, snapshot

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(\w+/test_\w+)::(test_\w+)`")


def rows() -> Iterator[tuple[int, list[str]]]:
    """Return the rows of its tables, without their headings."""
    text = (ROOT / "docs" / "memleak.md").read_text().splitlines()
    for number, line in enumerate(text, 1):
        if line.startswith("|") and not text[number].startswith("| ---") and line[:5] != "| ---":
            yield number, [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize(("number", "cells"), rows(), ids=lambda value: str(value)[:40])
def test_each_row_is_tested(number: int, cells: list[str]) -> None:
    named = _TEST.findall(cells[-1])
    assert named, f"line {number} of docs/memleak.md names no test"
    for file, function in named:
        tests = (ROOT / "tests" / f"{file}.py").read_text()
        assert re.search(rf"^(?:async )?def {function}\(", tests, re.MULTILINE), (file, function)


def test_there_are_rows() -> None:
    assert len(list(rows())) > 35


class _WithoutBlocks(Scripted):
    def detail(self, stack_id: int) -> StackDetail:
        raise AssertionError("blocks are read though nobody asked for them")

    def blocks(self, stack_ids: Iterable[int], offset: int, count: int) -> dict[int, BlockPage]:
        raise AssertionError("blocks are read though nobody asked for them")


def test_sums_need_no_look_at_blocks() -> None:
    out = io.StringIO()
    source = _WithoutBlocks(snapshot(site()), snapshot(site()))
    run_batch(source, replace(NO_DELAY, iterations=2), out, io.StringIO())
    assert '"bytes":160,"count":10' in out.getvalue()


def test_the_program_is_a_file_and_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ebpf" in " ".join(refusal(capsys, "--ebpf", "-p", "1"))
    assert (ROOT / "leaktop" / "bpf" / "memleak.bpf.c").is_file()
