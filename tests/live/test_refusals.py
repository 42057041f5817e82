"""Where leaktop cannot start: what it says, how it ends, and that nothing stays attached."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.live.conftest import Builder, StartTarget
from tests.live.harness import LEAKTOP, ROOT, compiled_anew, run_leaktop
from tests.live.traces import changed_code

pytestmark = pytest.mark.live

PF_KTHREAD = 0x00200000
NOBODY = "65534"


def unused_pid() -> int:
    # PIDs end below this, so nobody has it.
    return int(Path("/proc/sys/kernel/pid_max").read_text())


def test_no_such_process() -> None:
    pid = unused_pid()
    run_leaktop("-b", "-p", str(pid)).assert_refused(4, str(pid))


def test_process_that_ended(build: Builder) -> None:
    process = subprocess.Popen([build("phases")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    # Not yet waited for: a zombie, which has a PID and no memory.
    assert process.stdout is not None
    process.stdout.read()
    run_leaktop("-b", "-p", str(process.pid)).assert_refused(4, str(process.pid))
    process.wait()


def test_kernel_thread() -> None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        text = stat.read_text()
        if int(text.rsplit(")", 1)[1].split()[6]) & PF_KTHREAD:
            pid = text.split()[0]
            run_leaktop("-b", "-p", pid).assert_refused(4, pid, "kernel thread")
            return
    pytest.skip("no kernel thread is visible in this PID namespace")


def test_no_allocator(build: Builder) -> None:
    process = subprocess.Popen([build("bare")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    done = run_leaktop("-b", "-p", str(process.pid))
    process.communicate()
    assert process.returncode == 0
    done.assert_refused(4, "malloc", "bare")


def test_not_root(start_target: StartTarget) -> None:
    target = start_target("phases")
    # The one capability lets nobody read a checkout in root's folder, and does not help to trace.
    as_nobody = (
        *("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"),
        *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
    )
    done = run_leaktop("-b", "-p", str(target.pid), command=(*as_nobody, *LEAKTOP))
    done.assert_refused(3, "sudo")


def test_root_without_capabilities(start_target: StartTarget) -> None:
    target = start_target("phases")
    without = (
        "setpriv",
        "--bounding-set",
        "-sys_admin,-bpf,-perfmon,-sys_ptrace",
        "--inh-caps",
        "-sys_admin,-bpf,-perfmon,-sys_ptrace",
    )
    done = run_leaktop("-b", "-p", str(target.pid), command=(*without, *LEAKTOP))
    done.assert_refused(3, "CAP_BPF", "CAP_PERFMON")
    assert changed_code(target.pid) == []


@pytest.fixture
def python_without_bcc(tmp_path: Path) -> str:
    """An interpreter that sees all of our packages but not the distribution's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    looked = [python, "-c", "import importlib.util as u; print(u.find_spec('bcc'))"]
    assert subprocess.run(looked, check=True, capture_output=True).stdout == b"None\n"
    return python


def test_no_bcc(start_target: StartTarget, python_without_bcc: str) -> None:
    target = start_target("phases")
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    done = run_leaktop(
        *("-b", *compiled_anew(), "-p", str(target.pid)),
        command=(python_without_bcc, "-m", "leaktop"),
        extra_environment={"PYTHONPATH": path},
    )
    done.assert_refused(3, "python3-bpfcc")


def test_program_that_does_not_compile(start_target: StartTarget, tmp_path: Path) -> None:
    target = start_target("phases")
    shutil.copytree(ROOT / "leaktop", tmp_path / "leaktop")
    with (tmp_path / "leaktop" / "bpf" / "memleak.bpf.c").open("a") as program:
        program.write("\nint broken = no_such_name;\n")
    done = run_leaktop(
        *("-b", "-p", str(target.pid)), extra_environment={"PYTHONPATH": str(tmp_path)}
    )
    # clang's own words, its first error, and not the rest of what it prints.
    done.assert_refused(3, "no_such_name", "error:")
