"""What a tracer leaves in a process: its breakpoints, read from the code itself."""

from pathlib import Path

from tests.live.harness import wait_until


def changed_code(pid: int) -> list[str]:
    """Return the executable mappings of a process that differ from their files.

    A uprobe is a breakpoint instruction in the process's own copy of the page, so this sees every
    one of them, whoever put it there.
    """
    changed = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if "x" not in fields[1] or len(fields) < 6 or not fields[5].startswith("/"):
            continue
        start, end = (int(address, 16) for address in fields[0].split("-"))
        with Path(f"/proc/{pid}/mem").open("rb") as memory:
            memory.seek(start)
            code = memory.read(end - start)
        with Path(fields[5]).open("rb") as file:
            file.seek(int(fields[2], 16))
            # The last page of a mapping may reach beyond the end of its file.
            stored = file.read(end - start)
        if code[: len(stored)] != stored:
            changed.append(fields[5])
    return changed


def assert_no_probe_left(pid: int) -> None:
    """Wait until a process's code is its files' again: the kernel takes probes out in its time."""
    wait_until(lambda: not changed_code(pid), f"probes gone from {changed_code(pid)}")
