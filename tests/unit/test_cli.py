"""What the command line refuses before anything is loaded, and what it costs to ask for help."""

import subprocess
import sys

import pytest

import leaktop


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leaktop", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-p", "1", "-z", "4k", "-Z", "1k"], ["-z", "-Z"]),
        (["--replay", "f", "-p", "1"], ["--replay", "--pid"]),
        (["--replay", "f", "-z", "4k"], ["--replay", "--min-size"]),
        (["--replay", "f", "--record", "g"], ["--replay", "--record"]),
        (["--replay", "f", "--diff", "a", "b"], ["--replay", "--diff"]),
        (["--replay", "f", "what"], ["what"]),
        (["--replay", ""], ["--replay", "name"]),
        (["--replay", "f", "--", "true"], ["--replay", "--command"]),
        (["--diff", "a"], ["--diff", "2"]),
        (["--diff", "a", "b", "-k"], ["--diff", "--kernel"]),
        (["-p", "1", "--record-limit", "1k"], ["--record-limit", "64k"]),
        (["-p", "1", "-s", "0"], ["-s", "1"]),
        (["-p", "1", "-s", "-3"], ["-s"]),
        (["-p", "1", "-s", "ten"], ["-s", "ten"]),
        (["-p", "1", "-s", "4294967296"], ["-s"]),
        (["-p", "1", "-d", "0"], ["-d"]),
        (["-p", "1", "-d", "-1"], ["-d"]),
        (["-p", "1", "-d", "nan"], ["-d"]),
        (["-p", "1", "-d", "inf"], ["-d"]),
        (["-p", "1", "-n", "0"], ["-n"]),
        (["-p", "1", "-T", "0"], ["-T"]),
        (["-p", "1", "-o", "-1"], ["-o"]),
        (["-p", "1", "-z", "4x"], ["-z", "4x"]),
        (["-p", "1", "-z", "-4"], ["-z"]),
        (["-p", "1", "-z", "1.5"], ["-z", "1.5"]),
        (["-p", "1", "-z", ""], ["-z"]),
        (["-p", "1", "-Z", "999999999999G"], ["-Z"]),
        (["-p", "1", "--fail-over", "1x"], ["--fail-over", "1x"]),
        (["-p", "1", "--fail-over", "1M/min"], ["--fail-over", "64k/s"]),
        (["-p", "1", "--fail-over", "-1"], ["--fail-over"]),
        (["-p", "1", "--export", "x.png"], ["--export", "x.png", ".svg", ".pb.gz"]),
        (["-p", "1", "--export", "/no/such/x.svg"], ["--export", "No such file"]),
        (["-p", "1", "--export", "/etc/x.json/y.svg"], ["--export", "/etc/x.json"]),
        (["-p", "1", "--sort", "colour"], ["colour", "bytes"]),
        (["-p", "one"], ["-p", "one"]),
        (["-p", "0"], ["-p"]),
        (["-p", "-5"], ["-p"]),
        (["-p", "1", "--", "/bin/true"], ["-p"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["--max-allocs", "0", "-p", "1"], ["--max-allocs"]),
        (["--max-stacks", "many", "-p", "1"], ["--max-stacks", "many"]),
        (["--percpu", "-p", "1"], ["--percpu", "-k"]),
        (["--wa-missing-free", "-p", "1"], ["--wa-missing-free", "-k"]),
        (["-k", "-p", "1,2"], ["-k", "one process"]),
        (["-k", "-O", "/lib/x.so"], ["-O", "-k"]),
        (["-k", "--symbols-prefix", "je_"], ["--symbols-prefix", "-k"]),
        (["-k", "--probe-at-entry"], ["--probe-at-entry", "-k"]),
        (["-k", "--follow"], ["--follow", "-k"]),
        (["-k", "--name", "x"], ["--name", "-k"]),
        (["-k", "--", "/bin/true"], ["-k", "-p PID"]),
        # Neither a target nor a terminal to pick one on.
        ([], ["-p"]),
        (["-b"], ["-p"]),
    ],
)
def test_usage_error(args: list[str], words: list[str]) -> None:
    done = run(*args)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("leaktop: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"leaktop {leaktop.__version__}\n",
        "",
    )


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str) -> None:
    done = run(flag)
    assert done.returncode == 0
    assert done.stderr == ""
    for option in ("-p", "-z", "-Z", "-s", "-o", "-T", "-d", "-b", "-n", "--json", "--sort"):
        assert option in done.stdout


def test_help_loads_neither_the_screen_nor_the_tracer() -> None:
    script = (
        "import sys; from leaktop.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'bcc', 'textual', 'numpy', 'elftools', 'symbolic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
