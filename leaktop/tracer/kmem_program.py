"""Loads the BPF programs of ``leaktop -k``, and puts them on the kernel's tracepoints."""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leaktop.tracer import TracerError, kernel
from leaktop.tracer.arch import Architecture
from leaktop.tracer.attach import Attached, attach_tracepoint
from leaktop.tracer.cache import Cache
from leaktop.tracer.image import image_of, program_cache
from leaktop.tracer.loader import Accounting
from leaktop.tracer.objects import Capacity, Objects, common_flags
from leaktop.tracer.tracefs import Format, opened_tracefs, read_format

MAIN = "kmem.bpf.c"
_POSSIBLE = "/sys/devices/system/cpu/possible"


@dataclass(frozen=True, slots=True, eq=False)
class Tracepoint:
    """One event, and what the program for it needs of its record."""

    name: str
    """``kmem:kfree``."""
    fields: Mapping[str, int]
    """Name to size in bytes, of what it must have."""
    helpful: Mapping[str, int]
    """The same of what it may have."""
    required: bool
    percpu: bool = False
    """Whether only ``--percpu`` asks for it."""
    raw: bool = False
    """Whether its program takes the event's arguments, (call site, object, …) in all kernels."""

    @property
    def macro(self) -> str:
        """What kmem.bpf.c calls it."""
        return self.name.partition(":")[2].upper()

    @property
    def program(self) -> str:
        """The name of its program there."""
        return f"on_{self.macro.lower()}"


_OBJECT = {"ptr": 8, "bytes_alloc": 8, "call_site": 8}
_NAME = {"name": 4}
TRACEPOINTS = (
    Tracepoint("kmem:kmalloc", _OBJECT, {}, required=True),
    # gone since kernel commit 11e9734bcb6a, which made one of two
    Tracepoint("kmem:kmalloc_node", _OBJECT, {}, required=False),
    Tracepoint("kmem:kfree", {"ptr": 8}, {}, required=True, raw=True),
    Tracepoint("kmem:kmem_cache_alloc", _OBJECT, _NAME, required=True),
    Tracepoint("kmem:kmem_cache_alloc_node", _OBJECT, _NAME, required=False),
    Tracepoint("kmem:kmem_cache_free", {"ptr": 8}, {}, required=True, raw=True),
    Tracepoint("kmem:mm_page_alloc", {"pfn": 8, "order": 4}, {}, required=True),
    # of pages freed in a batch there is mm_page_free_batched besides, never instead
    Tracepoint("kmem:mm_page_free", {"pfn": 8, "order": 4}, {}, required=True),
    Tracepoint(
        "percpu:percpu_alloc_percpu",
        {"ptr": 8, "size": 8},
        {"bytes_alloc": 8, "call_site": 8},  # since kernel commit f67bed134a05
        required=True,
        percpu=True,
    ),
    Tracepoint("percpu:percpu_free_percpu", {"ptr": 8}, {}, required=True, percpu=True),
)


class KernelProgram(Accounting):
    """The programs for the kernel's tracepoints, of those that this kernel has.

    Raises TracerError where tracepoints are missing, cannot be read or have another form.
    """

    def __init__(self, capacity: Capacity, *, percpu: bool, cache: Cache | None = None) -> None:
        self._formats = _formats([each for each in TRACEPOINTS if percpu or not each.percpu])
        flags = [*common_flags(capacity), f"-DPROCESSORS={_processors()}"]
        for tracepoint, form in self._formats.items():
            flags += field_flags(tracepoint, form)
        programs = [tracepoint.program for tracepoint in self._formats]
        super().__init__(Objects(image_of(MAIN, programs, flags, cache or program_cache())))
        self.kernel_config = self._map("kernel_config", np.dtype("u4"))
        self.cache_names = self._map("cache_names", np.dtype("u8"))
        self._missed_before = 0

    @property
    def tracepoints(self) -> Sequence[str]:
        """The names of the events there are programs for."""
        return [tracepoint.name for tracepoint in self._formats]

    def attach(self, arch: Architecture, attached: Attached) -> None:
        """Attach to every tracepoint. Raises TracerError (exit code 3)."""
        for tracepoint, form in self._formats.items():
            try:
                attached.own([self._attach(arch, tracepoint, form)])
            except OSError as error:
                raise TracerError(_refusal(tracepoint, error), exit_code=3) from None
        self._missed_before = self._missed()

    def _attach(self, arch: Architecture, tracepoint: Tracepoint, form: Format) -> int:
        if tracepoint.raw:
            program = self._objects.load(tracepoint.program, 0, kernel.PROG_TYPE_RAW_TRACEPOINT)
            return kernel.attach_raw_tracepoint(program, tracepoint.name.partition(":")[2])
        program = self._objects.load(tracepoint.program, 0, kernel.PROG_TYPE_TRACEPOINT)
        return attach_tracepoint(arch, program, form.number)

    @property
    def missed(self) -> int:
        """Events since it was attached that no program has seen, as far as the kernel counts."""
        return self._missed() - self._missed_before

    def _missed(self) -> int:
        return sum(kernel.recursion_misses(loaded) for loaded in self._objects.loaded)


def field_flags(tracepoint: Tracepoint, form: Format) -> list[str]:
    """Return what tells the compiler that an event is there, and where its fields lie.

    Raises TracerError where a field is missing or of another size.
    """
    flags = [f"-D{tracepoint.macro}"]
    for name, size in (*tracepoint.fields.items(), *tracepoint.helpful.items()):
        field = form.fields.get(name)
        if field is not None and field.size == size and (name == "name") == field.located:
            flags.append(f"-D{tracepoint.macro}_{name.upper()}={field.offset}")
        elif name in tracepoint.fields:
            raise TracerError(
                f"this kernel's tracepoint {tracepoint.name} has no field {name} of {size} bytes\n"
                f"please report it, with the kernel's version ({os.uname().release})",
                exit_code=3,
            )
    return flags


def _formats(tracepoints: Iterable[Tracepoint]) -> dict[Tracepoint, Format]:
    found = {}
    with opened_tracefs() as tracefs:
        for tracepoint in tracepoints:
            form = read_format(tracefs, tracepoint.name)
            if form is not None:
                found[tracepoint] = form
            elif tracepoint.required:
                raise TracerError(
                    f"this kernel has no tracepoint {tracepoint.name}: "
                    "leaktop -k needs one with CONFIG_TRACEPOINTS and CONFIG_EVENT_TRACING",
                    exit_code=3,
                )
    return found


def _processors() -> int:
    # what is per CPU is there for each processor that there may ever be: 0-3,8
    with open(_POSSIBLE) as file:  # noqa: PTH123
        ranges = [part.partition("-") for part in file.read().strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _refusal(tracepoint: Tracepoint, error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            f"the kernel does not let leaktop trace {tracepoint.name}: {error.strerror}; "
            "run it as root"
        )
    return f"the kernel refused the tracepoint {tracepoint.name}: {error.strerror}"
