"""Which capabilities tracing needs (capabilities(7)), and which of them are missing."""

import os
from collections.abc import Mapping
from pathlib import Path

from leaktop import procfs
from leaktop.tracer import TracerError

CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
CAP_BPF = 39
CAP_CHECKPOINT_RESTORE = 40

NEEDED = {
    CAP_BPF: "CAP_BPF",
    CAP_PERFMON: "CAP_PERFMON",
    CAP_SYS_PTRACE: "CAP_SYS_PTRACE",
    CAP_CHECKPOINT_RESTORE: "CAP_CHECKPOINT_RESTORE",
}
"""To load the program, to probe with it, to read the target's memory map, and to open the very
files that are mapped (/proc/PID/map_files)."""

NEEDED_FOR_KERNEL = {CAP_BPF: "CAP_BPF", CAP_PERFMON: "CAP_PERFMON"}
"""The same where only the kernel's tracepoints are used."""

_COVERED_BY_ADMIN = (CAP_BPF, CAP_PERFMON, CAP_CHECKPOINT_RESTORE)


def missing_capabilities(status: str, needed: Mapping[int, str] = NEEDED) -> list[str]:
    """Return the names of needed capabilities that a /proc/PID/status text does not grant."""
    granted = int(procfs.parse_status(status).get("CapEff", "0"), 16)
    return [
        name
        for capability, name in needed.items()
        if not granted >> capability & 1
        and not (capability in _COVERED_BY_ADMIN and granted >> CAP_SYS_ADMIN & 1)
    ]


def what_is_missing(needed: Mapping[int, str] = NEEDED) -> str:
    """Return which privileges are missing and what to do, in a line; empty where none is."""
    missing = missing_capabilities(os.fsdecode(Path("/proc/self/status").read_bytes()), needed)
    if not missing:
        return ""
    what = "another process" if needed is NEEDED else "the kernel"
    return f"tracing {what} needs {', '.join(missing)}: {_remedy()}"


def check_privileges(needed: Mapping[int, str] = NEEDED) -> None:
    """Raise TracerError (exit code 3) naming what is missing."""
    if missing := what_is_missing(needed):
        raise TracerError(missing, exit_code=3)


def _remedy() -> str:
    if os.geteuid() != 0:
        return "run it with sudo"
    return "root does not have them here; in a container, start it with --privileged"
