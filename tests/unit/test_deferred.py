"""A source that is made when it starts: what is refused at once, and what only then."""

import os
import subprocess
import sys
from typing import cast

import pytest

from leaktop.model import Filters, Target
from leaktop.source import Source, SourceError
from leaktop.tracer.deferred import DeferredSource
from tests.unit.test_report import Scripted, site, snapshot

NO_TARGET = 4


def never() -> Source:
    raise AssertionError("made before it was started")


def test_no_such_process_is_said_at_once() -> None:
    with pytest.raises(SourceError, match="4194304") as refused:
        DeferredSource([4194304], never)
    assert refused.value.exit_code == NO_TARGET


def test_nothing_is_made_before_it_starts() -> None:
    source = DeferredSource([os.getpid()], never)
    assert source.target == Target(os.getpid(), source.target.comm)
    assert source.end_descriptor is not None
    assert source.resolve([1], lines=False) == {}
    assert source.problems() == {}
    assert source.mappings() == ()
    for early in (source.snapshot, lambda: source.detail(1), lambda: source.apply(Filters())):
        with pytest.raises(SourceError, match="not begun"):
            early()
    source.close()
    source.close()
    assert source.end_descriptor is None


def test_started_it_is_the_source_that_was_made() -> None:
    made = Scripted(snapshot(site()))
    source = DeferredSource([os.getpid()], lambda: cast("Source", made))
    source.start(lambda step: None)
    assert source.tracing is made.tracing
    assert source.snapshot().sites == snapshot(site()).sites
    source.close()


def test_a_process_that_ended_meanwhile_is_not_traced() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        source = DeferredSource([process.pid], lambda: cast("Source", Scripted(snapshot(site()))))
        process.kill()
    with pytest.raises(SourceError, match="exited before") as refused:
        source.start(lambda step: None)
    assert refused.value.exit_code == NO_TARGET
    source.close()


def test_the_screen_appears_without_the_tracers_libraries() -> None:
    program = """
import sys
import leaktop.app, leaktop.cli, leaktop.tracer.deferred
print([name for name in ("numpy", "capstone", "elftools", "bcc") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
