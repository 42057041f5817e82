"""Live tests run where they can; where LEAKTOP_LIVE=required or CI=true, they have to."""

import ctypes
import functools
import os
import platform
import shutil
from collections.abc import Iterator

import pytest

BPF_MAP_CREATE = 0
BPF_MAP_TYPE_ARRAY = 2
# bpf(2)'s number; the targets and the tracer are x86-64 so far.
SYS_BPF = 321


def bpf_refusal() -> str | None:
    """Say why the kernel makes no BPF map for us, None where it does."""
    # struct bpf_attr of BPF_MAP_CREATE begins with map_type, key_size, value_size, max_entries.
    attr = (ctypes.c_uint32 * 32)(BPF_MAP_TYPE_ARRAY, 4, 4, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_BPF, BPF_MAP_CREATE, attr, ctypes.sizeof(attr))
    if fd < 0:
        return f"the kernel refuses BPF: {os.strerror(ctypes.get_errno())}"
    os.close(fd)
    return None


@functools.cache
def live_hindrance() -> str | None:
    """Say why nothing can be traced here, None where it can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "needs Linux on x86-64"
    if os.geteuid() != 0:
        return "needs root"
    try:
        import bcc  # noqa: F401
    except ImportError:
        return "needs bcc's Python package"
    if shutil.which("gcc") is None:
        return "needs gcc for the targets"
    return bpf_refusal()


def live_is_required() -> bool:
    return os.environ.get("LEAKTOP_LIVE") == "required" or os.environ.get("CI") == "true"


@pytest.fixture(autouse=True, scope="session")
def _no_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own configuration out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for name in ("SUDO_UID", "PKEXEC_UID", "DOAS_USER"):
            patch.delenv(name, raising=False)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("live") is None:
        return
    hindrance = live_hindrance()
    if hindrance is None:
        return
    if live_is_required():
        pytest.fail(f"live tests are required here, but: {hindrance}", pytrace=False)
    pytest.skip(hindrance)
