"""A limit on growth: what is measured, and the exit code."""

import io
import signal
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from leaktop.command import Command
from leaktop.gate import Limit, growth_between, parse_limit
from leaktop.ignore import Entry
from leaktop.model import Counters, Snapshot, SortKey
from leaktop.outfile import OutFileError
from leaktop.report import DONE, FAILED, TOO_MUCH, BatchOptions, run_batch
from tests.unit.test_report import LEAK, MAIN, Scripted, site, snapshot

KNOWN = replace(LEAK, symbol="known")
OPTIONS = BatchOptions(delay_s=0.0, iterations=None, top=2, sort=SortKey.BYTES, as_json=True)


def held(elapsed: float, *sizes: int, **other: object) -> Snapshot:
    """Return a snapshot in which stack 1, 2 and so on hold so much."""
    sites = [site(i, size) for i, size in enumerate(sizes, 1)]
    totals = Counters(sum(sizes), len(sizes))
    return snapshot(*sites, elapsed_s=elapsed, totals=totals, **other)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0", Limit(0)),
        ("1M", Limit(1 << 20)),
        (" 64k/s", Limit(65536, per_s=True)),
        ("1.5K / s", Limit(1536, per_s=True)),
    ],
)
def test_limits(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit
    assert parse_limit(str(limit)) == limit


@pytest.mark.parametrize("text", ["", "/s", "1M/", "1M/m", "s", "1M/s/s", "x", "-1"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        parse_limit(text)


def test_growth_is_from_the_first_to_the_last() -> None:
    grown = growth_between(held(1.0, 100, 500, 30), held(3.0, 900, 400, 30), Limit(600))
    assert (grown.bytes, grown.seconds, grown.per_s) == (700, 2.0, 350.0)
    assert grown.stacks == {1: 800}
    assert grown.too_much
    assert str(grown) == (
        "outstanding memory grew by 700 bytes in 2.0 s (+350/s), more than 600 (--fail-over)"
    )


def test_a_limit_is_passed_only_by_more() -> None:
    first, last = held(1.0, 0), held(3.0, 700)
    assert not growth_between(first, last, Limit(700)).too_much
    assert growth_between(first, last, Limit(699)).too_much
    assert not growth_between(first, last, Limit(350, per_s=True)).too_much
    assert growth_between(first, last, Limit(349, per_s=True)).too_much
    assert not growth_between(last, first, Limit(0)).too_much


def test_without_a_first_one_growth_is_all_that_is_held() -> None:
    grown = growth_between(None, held(2.0, 50, 60), Limit(0))
    assert (grown.bytes, grown.per_s, dict(grown.stacks)) == (110, 55.0, {2: 60, 1: 50})


def test_ignored_stacks_are_left_out() -> None:
    grown = growth_between(held(1.0, 100, 500), held(3.0, 900, 700), Limit(600), {1})
    assert (grown.bytes, dict(grown.stacks), grown.too_much) == (200, {2: 200}, False)
    assert str(grown).startswith("outstanding memory apart from ignored stacks grew by 200 bytes")


class Ended:
    """A command that ended."""

    name, pid, running, descriptor = "test", 123, False, None

    def __init__(self, status: int) -> None:
        self.status = status

    def go(self) -> None:
        pass


def ran(
    *snapshots: Snapshot, limit: Limit | None, status: int | None = None, **other: object
) -> tuple[int, str]:
    out, messages = io.StringIO(), io.StringIO()
    source = Scripted(*snapshots)
    source.names = {1: (LEAK, MAIN), 7: (KNOWN,)}
    options = replace(OPTIONS, fail_over=limit, iterations=len(snapshots), **other)  # type: ignore[arg-type]
    command = None if status is None else cast("Command", Ended(status))
    code = run_batch(source, options, out, messages, command)
    return code, messages.getvalue()


def test_too_much_is_exit_5_with_the_stacks_that_did_it() -> None:
    code, said = ran(held(1.0, 10, 20, 5, 1), held(2.0, 400, 20, 50, 2), limit=Limit(100))
    assert code == TOO_MUCH == 5
    assert said.splitlines()[1:] == [
        "leaktop: outstanding memory grew by 436 bytes in 1.0 s (+436/s), more than 100 "
        "(--fail-over)",
        "\t+390 bytes, now 400, from stack",
        "\t\tleaky+0xf [leak] (leak.c:5)",
        "\t\tmain+0x6d [leak]",
        "\t+45 bytes, now 50, from stack",
        "\t\tleaky+0xf [leak] (leak.c:5)",
        "\t\tmain+0x6d [leak]",
        "\t[1 more stacks grew: see --top]",
    ]


def test_within_the_limit_it_says_so() -> None:
    code, said = ran(held(1.0, 10), held(2.0, 20), limit=Limit(10))
    assert code == DONE
    assert said.splitlines()[1:] == [
        "leaktop: outstanding memory grew by 10 bytes in 1.0 s (+10/s), not more than 10 "
        "(--fail-over)"
    ]


def test_without_a_limit_nothing_is_said() -> None:
    code, said = ran(held(1.0, 10), held(2.0, 20_000), limit=None)
    assert (code, said.count("\n")) == (DONE, 1)


def test_what_the_configuration_ignores_is_let_pass() -> None:
    known = snapshot(site(7, 5000, frames=(KNOWN,)), elapsed_s=1.0)
    entry = Entry(("leak!known",))
    assert ran(known, limit=Limit(100))[0] == TOO_MUCH
    code, said = ran(known, limit=Limit(100), ignore=[entry])
    assert code == DONE
    assert "apart from ignored stacks grew by 0 bytes" in said


def test_one_snapshot_counts_from_nothing() -> None:
    assert ran(held(1.0, 101), limit=Limit(100))[0] == TOO_MUCH


def test_of_a_command_all_counts_that_it_still_holds() -> None:
    script = held(1.0, 600), held(2.0, 600, note="exited with code 0")
    assert ran(*script, limit=Limit(100))[0] == DONE
    assert ran(*script, limit=Limit(100), status=0)[0] == TOO_MUCH


@pytest.mark.parametrize("status", [1, -signal.SIGSEGV])
def test_a_command_that_failed_proves_nothing(status: int) -> None:
    script = held(2.0, 50, note="ended")
    code, said = ran(script, limit=Limit(100), status=status)
    assert code == FAILED
    assert "no proof against a leak" in said
    assert ran(script, limit=None, status=status)[0] == DONE
    assert ran(script, limit=Limit(10), status=status)[0] == TOO_MUCH


def test_exports_are_written_at_the_end(tmp_path: Path) -> None:
    paths = [tmp_path / "a.folded", tmp_path / "b.csv"]
    code, said = ran(held(1.0, 10), held(2.0, 400), limit=None, exports=paths)
    assert code == DONE
    assert said.splitlines()[1:] == [
        f"leaktop: folded stacks written to {paths[0]}",
        f"leaktop: table written to {paths[1]}",
    ]
    assert paths[0].read_text() == "leaky;main;leaky 400\n"


def test_an_export_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutFileError, match="No such file"):
        ran(held(1.0, 10), limit=None, exports=[tmp_path / "gone" / "a.svg"])
