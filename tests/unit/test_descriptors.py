"""Waiting for descriptors that select(2) does not take, and room for them."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from leaktop.descriptors import make_room, wait_readable


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for each in ends:
        os.close(each)


def test_descriptor_above_those_of_select(pipe: tuple[int, int]) -> None:
    make_room()
    reader, writer = pipe
    high = 1500
    os.dup2(reader, high)
    try:
        assert not wait_readable([high], 0)
        os.write(writer, b"x")
        assert wait_readable([high, reader], None)
    finally:
        os.close(high)


def test_end_of_file_is_readable() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    assert wait_readable([reader], 0)
    os.close(reader)


def test_waits_no_less_than_it_is_told(pipe: tuple[int, int]) -> None:
    began = time.monotonic()
    assert not wait_readable([pipe[0]], 0.0101)
    assert time.monotonic() - began >= 0.0101


def test_nothing_to_wait_for() -> None:
    assert not wait_readable([], 0.001)


@pytest.mark.parametrize(("limits", "wanted"), [((64, 4096), 4096), ((64, 64), 64)])
def test_room_is_what_the_host_allows(limits: tuple[int, int], wanted: int) -> None:
    script = (
        "import resource; from leaktop.descriptors import make_room\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {limits})\n"
        "make_room(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str((wanted, limits[1]))


def test_more_is_never_taken_away() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    make_room()
    after = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert after[0] >= before[0]
    assert after[1] == before[1]
