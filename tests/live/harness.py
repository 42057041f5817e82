"""Drives a target and leaktop as a user's script would: by their output, never by the clock."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]
LEAKTOP = (sys.executable, "-m", "leaktop")
# When to give up on something that has to happen; nothing passes or fails by how long it took.
PATIENCE_S = 180.0  # the kernel takes off some ten perf events a second

Json = dict[str, Any]


def require(*paths: Path) -> None:
    """Skip where a package is missing; on CI it must not be."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert not missing


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once `condition` holds; fail where it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def compiled_anew() -> tuple[str, str]:
    """Return options with which leaktop can use no program that it compiled before."""
    return "--max-stacks", str(16_385 + time.time_ns() // 1000 % 100_000)


def command_lines_of_children(pid: int) -> list[str]:
    """Return the command lines of a process's children; empty once it is gone."""
    lines = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                lines.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
    return lines


def open_files(pid: int) -> list[str]:
    """Return what a process has open; empty once it is gone."""
    names = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            names.append(str(link.readlink()))
    return names


class Lines:
    """The lines of a stream, taken as they come by a thread of their own."""

    def __init__(self, stream: IO[str]) -> None:
        self.seen: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.seen.append(line.rstrip("\n"))
            self._queue.put(self.seen[-1])
        self._queue.put(None)

    def next(self) -> str:
        """Return the next line; EOFError at the end of the stream."""
        line = self._queue.get(timeout=PATIENCE_S)
        if line is None:
            self._queue.put(None)
            raise EOFError
        return line

    def skip_to_now(self) -> None:
        """Forget the lines that are here already, but not the end of the stream."""
        with contextlib.suppress(queue.Empty):
            while self._queue.get_nowait() is not None:
                pass
            self._queue.put(None)

    def rest(self) -> list[str]:
        """Return every line seen, once the stream has ended."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the stream does not end"
        return self.seen


@dataclass(frozen=True, slots=True)
class TruthSite:
    """What a target did on one line."""

    function: str
    line: int
    bytes: int
    count: int
    allocs: int
    frees: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What a target did since it was ready."""

    checksum: int
    sites: tuple[TruthSite, ...]

    def total(self, figure: str) -> int:
        return sum(getattr(site, figure) for site in self.sites)


class TargetProcess:
    """A target of tests/targets: `tell` it a phase and it answers with the truth."""

    def __init__(self, binary: Path, *args: str) -> None:
        self.process = subprocess.Popen(
            [binary, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdout is not None
        self.lines = Lines(self.process.stdout)
        self.pid = int(self.lines.next().removeprefix("ready "))

    def say(self, phase: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{phase}\n")
        self.process.stdin.flush()

    def tell(self, phase: str = "go") -> Truth:
        self.say(phase)
        return self.truth()

    def truth(self) -> Truth:
        """Wait until the phase is done."""
        found = json.loads(self.lines.next())
        return Truth(found["checksum"], tuple(TruthSite(**site) for site in found["sites"]))

    def close(self) -> None:
        """End it as it is meant to end; fail where something hurt it."""
        if self.process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self.say("quit")
        assert self.process.wait(PATIENCE_S) == 0, "the target came to harm"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for leaktop, which is run from the tree and by any interpreter."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **(extra or {})}


class Leaktop:
    """A running `leaktop`; leave it with `stop`, or with `close` in any state."""

    def __init__(
        self,
        *args: str,
        command: Sequence[str] = LEAKTOP,
        extra_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment(extra_environment),
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = Lines(self.process.stdout)
        self.err = Lines(self.process.stderr)

    def wait_ready(self, pid: int) -> str:
        """Return the ready line of this PID."""
        try:
            while True:
                line = self.err.next()
                if line.startswith((f"leaktop: tracing {pid} (", f"leaktop: watching {pid} (")):
                    return line
        except EOFError:
            raise AssertionError(f"leaktop was never ready: {self.err.seen}") from None

    def snapshot(self) -> Json:
        """Return the next snapshot of a --json run."""
        return parse(self.out.next())

    def snapshot_from_now(self) -> Json:
        """Return a snapshot that was begun after this call."""
        self.out.skip_to_now()
        # One may have been under way.
        self.snapshot()
        return self.snapshot()

    def wait(self) -> int:
        """Return the exit code once leaktop has ended by itself."""
        code = self.process.wait(PATIENCE_S)
        self.out.rest()
        self.err.rest()
        return code

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)


def parse(line: str) -> Json:
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


@dataclass(frozen=True, slots=True)
class Finished:
    """What a leaktop that ended by itself left."""

    code: int
    out: list[str]
    err: list[str]

    def assert_refused(self, code: int, *words: str) -> None:
        """Check an error as the user sees it: short, plain, and with the words that help."""
        text = "\n".join(self.err)
        assert self.code == code, text
        assert self.out == []
        assert 1 <= len(self.err) <= 2, text
        assert self.err[0].startswith("leaktop: "), text
        assert "Traceback" not in text
        assert "Errno" not in text
        for word in words:
            assert word in text, text


def run_leaktop(
    *args: str,
    command: Sequence[str] = LEAKTOP,
    extra_environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run leaktop to its end."""
    leaktop = Leaktop(*args, command=command, extra_environment=extra_environment)
    try:
        code = leaktop.wait()
    finally:
        leaktop.close()
    return Finished(code, leaktop.out.seen, leaktop.err.seen)
