"""What is attached where the kernel refuses some of it."""

import errno
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import pytest

from leaktop.elf import FileOffset
from leaktop.model import TracedFunction
from leaktop.tracer import TracerError, attach
from leaktop.tracer.attach import Attached, attach_functions
from leaktop.tracer.probes import Entry, Exit, Function, Probe, Site, Traced

MALLOC = Traced(Function("malloc", Entry.MALLOC), Site(FileOffset(10), instruction="push r12"))
FREE = Traced(Function("free", Entry.FREE, Exit.NONE), Site(FileOffset(29), 9, "push rbp"))
SPARE = Site(FileOffset(20), why="the cheapest place was refused")


class Kernel:
    """Refuses probes at some offsets; each descriptor that it gives is a real one."""

    def __init__(self, refused: Collection[int], reason: int = errno.EINVAL) -> None:
        self.refused = refused
        self.reason = reason
        self.asked: list[list[int]] = []
        self.attached: list[int] = []

    def attach(self, probes: Sequence[Probe]) -> list[int]:
        self.asked.append([probe.offset for probe in probes])
        if any(probe.offset in self.refused for probe in probes):
            raise OSError(self.reason, os.strerror(self.reason))
        self.attached += [probe.offset for probe in probes]
        return [os.open(os.devnull, os.O_RDONLY) for _ in probes]


@pytest.fixture
def attached() -> Iterator[Attached]:
    made = Attached()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "RETRY_S", 0.0)
    monkeypatch.setattr(attach, "RETRY_ONE_S", 0.0)


def nowhere(_: Traced) -> list[Traced]:
    return []


def done(
    kernel: Kernel,
    attached: Attached,
    elsewhere: Callable[[Traced], list[Traced]] = nowhere,
    *,
    all_at_once: bool = True,
) -> tuple[TracedFunction, ...]:
    return attach_functions(
        kernel.attach, [MALLOC, FREE], elsewhere, attached, all_at_once=all_at_once
    )


@pytest.mark.parametrize("all_at_once", [True, False])
def test_all_is_attached_where_nothing_is_refused(attached: Attached, all_at_once: bool) -> None:
    kernel = Kernel(())
    assert done(kernel, attached, all_at_once=all_at_once) == (
        TracedFunction("malloc", 0, "push r12"),
        TracedFunction("free", 9, "push rbp"),
    )
    assert kernel.attached == [10, 10, 29]
    assert len(kernel.asked) == (1 if all_at_once else 2)


@pytest.mark.parametrize("all_at_once", [True, False])
def test_one_that_is_refused_names_itself_and_the_rest_go_on(
    attached: Attached, all_at_once: bool
) -> None:
    kernel = Kernel([29])
    malloc, free = done(kernel, attached, all_at_once=all_at_once)
    assert not malloc.refused
    assert free.refused == "Invalid argument (is another tracer attached?)"
    assert free.effect == FREE.function.effect
    assert kernel.attached == [10, 10]


def test_the_same_function_of_another_library_is_attached(attached: Attached) -> None:
    assert all(each.refused for each in done(Kernel([10, 29]), attached))
    assert not any(each.refused for each in done(Kernel(()), attached))


def test_another_place_is_tried_once(attached: Attached) -> None:
    kernel = Kernel([29])
    malloc, free = done(kernel, attached, lambda each: [replace(each, site=SPARE)])
    assert not malloc.refused
    assert free == TracedFunction("free", why="the cheapest place was refused")
    assert kernel.attached == [10, 10, 20]
    assert kernel.asked.count([20]) == 1


def test_the_reason_is_that_of_the_best_place(attached: Attached) -> None:
    kernel = Kernel([29, 20])
    _, free = done(kernel, attached, lambda each: [replace(each, site=SPARE)] * 9)
    assert free.shift == 9
    assert free.refused.startswith("Invalid argument")
    assert kernel.asked.count([20]) == attach.OTHER_PLACES_MAX


@pytest.mark.parametrize(
    ("reason", "code"), [(errno.ESRCH, 4), (errno.EPERM, 3), (errno.EACCES, 3)]
)
def test_what_ends_the_run(attached: Attached, reason: int, code: int) -> None:
    for all_at_once in (True, False):
        with pytest.raises(TracerError) as raised:
            done(Kernel([29], reason), attached, all_at_once=all_at_once)
        assert raised.value.exit_code == code
