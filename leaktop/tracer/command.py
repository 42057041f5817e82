"""Traces a command from the first instruction of its program on."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from leaktop.command import Command, Output, describe_end, open_terminal, shown
from leaktop.format import clean
from leaktop.model import Snapshot, Target
from leaktop.source import Source
from leaktop.source.relayed import RelayedSource
from leaktop.tracer import TracerError
from leaktop.tracer.arch import this_machine
from leaktop.tracer.held_start import HeldStart
from leaktop.tracer.privilege import check_privileges
from leaktop.tracer.process import NO_TARGET

_LAST_WORDS_S = 0.2


class CommandSource(RelayedSource):
    """A Source (see ``leaktop.source``) over a command.

    The command is started at once, with the environment as it is, and held at its entry point until
    ``command.go``. Where tracing cannot start, it is ended without having run.
    """

    def __init__(
        self,
        words: Sequence[str],
        make: Callable[[int], Source],
        *,
        terminal: tuple[int, int] | None = None,
    ) -> None:
        """``make`` returns the source for a PID.

        ``terminal``: its output goes to a terminal of so many columns and rows, read by leaktop; it
        has a session of its own and nothing on standard input. Without, its output goes to our
        standard error, and it has our standard input, session and process group.

        Raises TracerError (exit code 4) where the command cannot be started.
        """
        check_privileges()
        arch = this_machine()
        if arch is None:
            raise TracerError("leaktop runs on x86-64 only, so far", exit_code=3)
        output, theirs = None, None
        if terminal is not None:
            try:
                ours, theirs = open_terminal(*terminal)
            except OSError as error:
                raise TracerError(
                    f"there is no terminal for the command's output: {error.strerror}; with -b it "
                    "needs none"
                ) from None
            output = Output(ours)

        def spawn(preexec: Callable[[], None]) -> "subprocess.Popen[bytes]":
            return subprocess.Popen(  # noqa: S603  (what the user asked for)
                words,
                stdin=None if theirs is None else subprocess.DEVNULL,
                stdout=2 if theirs is None else theirs,
                stderr=theirs,
                start_new_session=theirs is not None,
                preexec_fn=preexec,  # noqa: PLW1509
            )

        self._held = HeldStart(spawn, arch)
        try:
            process = self._held.wait()
        except OSError as error:
            raise TracerError(_why_not(words[0], error), NO_TARGET) from None
        except subprocess.SubprocessError:  # ptrace(2) in the child
            raise TracerError(
                "the kernel lets leaktop hold no command at its start (see seccomp, and "
                "kernel.yama.ptrace_scope): start it, then leaktop -p PID",
                exit_code=3,
            ) from None
        except TracerError as error:
            raise _with_last_words(error, output) from None
        finally:
            if theirs is not None:
                os.close(theirs)
        try:
            self.command = Command(process, shown(words), output, self._held)
            self._source = make(process.pid)
        except BaseException:
            self._held.abandon()
            raise

    def start(self, progress: Callable[[str], None]) -> None:
        """Trace it; ``command.go`` lets it run."""
        try:
            self._source.start(progress)
        except TracerError as error:
            self._held.abandon()
            raise TracerError(f"{error}\nthe command was not run", error.exit_code) from None
        except BaseException:
            self._held.abandon()
            raise

    def snapshot(self) -> Snapshot:
        """Read the counters; once it has exited, with how it did."""
        # before, else what it did last might not be in
        ended = self.command.status is not None
        snapshot = self._source.snapshot()
        status = self.command.status if ended or snapshot.note else None
        return snapshot if status is None else self._with_end(snapshot, status)

    def close(self) -> None:
        """Detach; a command that runs goes on, one that was never let go is ended."""
        self._source.close()
        self._held.abandon()

    @property
    def _relayed(self) -> Source:
        return self._source

    def _with_end(self, snapshot: Snapshot, status: int) -> Snapshot:
        def told(target: Target) -> Target:
            if target.pid != self.command.pid:
                return target
            code, number = (status, None) if status >= 0 else (None, -status)
            return replace(target, alive=False, exit_code=code, signal=number)

        end, target = describe_end(status), told(snapshot.target)
        if (last := self.command.last_comm) not in (None, self._comm_of(snapshot)):
            # an exec that no tick came to see
            end += f" as {last}: where that is another program, what it did is counted in"
        states = tuple(
            replace(each, target=told(each.target), note=each.note and end)
            if each.target.pid == self.command.pid
            else each
            for each in snapshot.processes
        )
        note = snapshot.note
        if not target.alive and not any(each.target.alive for each in states):
            note = f"all ended; {self.command.name} {end}" if states else end
        return replace(snapshot, target=target, processes=states, note=note)

    def _comm_of(self, snapshot: Snapshot) -> str | None:
        targets = (snapshot.target, *(each.target for each in snapshot.processes))
        return next((each.comm for each in targets if each.pid == self.command.pid), None)


def _why_not(name: str, error: OSError) -> str:
    # what execvp(3) refused, for people
    shown_name = clean(name, 200)
    found = name if "/" in name else shutil.which(name, os.F_OK)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if found is None or not Path(found).exists():
            where = "no such file" if "/" in name else "not found in PATH"
            return f"cannot start '{shown_name}': {where}"
        return f"cannot start '{shown_name}': the interpreter that it names does not exist"
    if error.errno == errno.EACCES:
        if found is not None and Path(found).is_dir():
            return f"cannot start '{shown_name}': it is a directory"
        return f"cannot start '{shown_name}': it is not executable (chmod +x makes it so)"
    if error.errno == errno.ENOEXEC:
        return (
            f"cannot start '{shown_name}': it is no program of this machine, nor a script that "
            f"begins with #!; for a shell script: leaktop -- sh {shown_name}"
        )
    return f"cannot start '{shown_name}': {error.strerror}"


# What a command said that ended before its program began (the dynamic linker says what is missing);
# without a screen it has said so already.
def _with_last_words(error: TracerError, output: Output | None) -> TracerError:
    if output is None:
        return error
    output.wait(_LAST_WORDS_S)
    words = [line for line in output.lines(0, output.total) if line.strip()]
    return TracerError(f"{error}:\n{words[-1]}", error.exit_code) if words else error
