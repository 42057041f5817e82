"""Which capabilities are missing, from the status of processes of every kind."""

from pathlib import Path

import pytest

from leaktop.tracer.privilege import (
    CAP_BPF,
    CAP_CHECKPOINT_RESTORE,
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    NEEDED,
    NEEDED_FOR_KERNEL,
    missing_capabilities,
)

ALL = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_CHECKPOINT_RESTORE"]


def status(*capabilities: int) -> str:
    granted = sum(1 << capability for capability in capabilities)
    return f"Name:\tleaktop\nCapPrm:\t{2**41 - 1:016x}\nCapEff:\t{granted:016x}\nThreads:\t1\n"


def test_nobody_lacks_all() -> None:
    assert missing_capabilities(status()) == ALL


def test_root_lacks_none() -> None:
    assert missing_capabilities(status(*range(41))) == []


def test_the_four_suffice() -> None:
    assert missing_capabilities(status(*NEEDED)) == []


@pytest.mark.parametrize("capability", list(NEEDED))
def test_the_one_that_is_missing_is_named(capability: int) -> None:
    others = [other for other in NEEDED if other != capability]
    assert missing_capabilities(status(*others)) == [NEEDED[capability]]


def test_sys_admin_stands_for_what_was_split_off_it_but_not_for_ptrace() -> None:
    assert missing_capabilities(status(CAP_SYS_ADMIN)) == ["CAP_SYS_PTRACE"]
    assert missing_capabilities(status(CAP_SYS_ADMIN, CAP_SYS_PTRACE)) == []


def test_the_kernel_takes_less() -> None:
    assert missing_capabilities(status(), NEEDED_FOR_KERNEL) == ["CAP_BPF", "CAP_PERFMON"]
    assert missing_capabilities(status(CAP_BPF, CAP_PERFMON), NEEDED_FOR_KERNEL) == []
    assert missing_capabilities(status(CAP_SYS_ADMIN), NEEDED_FOR_KERNEL) == []


def test_root_of_a_kernel_that_knows_fewer_capabilities_lacks_none() -> None:
    # Linux 5.7: CAP_AUDIT_READ (37) is the last
    assert missing_capabilities("CapEff:\t0000003fffffffff\n") == []


def test_a_status_without_the_field_grants_nothing() -> None:
    assert missing_capabilities("Name:\tleaktop\n") == ALL


def test_numbers_are_those_of_the_kernel() -> None:
    # include/uapi/linux/capability.h
    assert (CAP_SYS_PTRACE, CAP_SYS_ADMIN) == (19, 21)
    assert (CAP_PERFMON, CAP_BPF, CAP_CHECKPOINT_RESTORE) == (38, 39, 40)


def test_the_kernel_s_own_text_is_understood() -> None:
    text = Path("/proc/self/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("CapEff:"))
    assert missing_capabilities(text) == missing_capabilities(line)
    assert missing_capabilities(text.replace(line, f"CapEff:\t{2**41 - 1:016x}")) == []
