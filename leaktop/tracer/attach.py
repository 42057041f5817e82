"""Puts loaded BPF programs on functions of one process, in the best way this kernel offers.

uprobe-multi links (kernel commit 89ae89f53d20) attach all functions of a program at once and
detach in milliseconds; as sessions (kernel commit d920179b3d48) they run one program at a
function's entry and at its return, and the entry says whether the return is of interest. Links to
perf events (kernel commit b89fbfbb854c) work on older kernels, one a probe. Which one works is
found by trying. All hang on descriptors alone: when the last one is closed, by us or by the kernel
after kill -9, the probes are gone.
"""

import ctypes as ct
import errno
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Protocol

from leaktop.model import TracedFunction
from leaktop.tracer import TracerError, kernel
from leaktop.tracer.arch import Architecture
from leaktop.tracer.loader import Program
from leaktop.tracer.probes import Exit, Probe, Traced, probes_for
from leaktop.tracer.process import NO_TARGET
from leaktop.tracer.ways import LinkCreate, Way

BPF_PERF_EVENT = 41
BPF_F_UPROBE_MULTI_RETURN = 1
PERF_FLAG_FD_CLOEXEC = 8
_PERF_TYPE_TRACEPOINT = 2
PMU = Path("/sys/bus/event_source/devices/uprobe")

RETRY_S = 1.0
"""How long to try again where attaching fails for the moment, as it does for an instant beside
another tracer that attaches or detaches at the same place."""
RETRY_ONE_S = 0.1
"""The same for one function, once all together were tried."""
OTHER_PLACES_MAX = 3
"""Other places of a function that are tried, each once."""
_RETRY_STEP_S = 0.02
_FOR_THE_MOMENT = (errno.EINVAL, errno.EBUSY, errno.EAGAIN, errno.EINTR)


class Attached:
    """What is attached; closing it detaches."""

    def __init__(self) -> None:
        self.returns_at_ret = False
        """Whether a function's ends are seen at its rets since its entry was refused, where another
        tracer may have a return probe."""
        self._descriptors: list[int] = []
        self._closing: list[Thread] = []

    def own(self, descriptors: Iterable[int]) -> None:
        """Own the descriptors that keep probes attached."""
        self._descriptors.extend(descriptors)

    def let_go(self) -> None:
        """Begin to detach from a process that has ended, at which nothing can be hit any more.

        A perf event may take the kernel 0.1 s, one after the other.
        """
        # each waits for programs that run on any processor: all at once, so that it is one wait
        closing = [Thread(target=os.close, args=(each,)) for each in self._descriptors]
        self._descriptors.clear()
        for thread in closing:
            thread.start()
        self._closing += closing

    def close(self) -> None:
        """Detach everything; safe to call twice."""
        self.let_go()
        for thread in self._closing:
            thread.join()
        self._closing.clear()


@dataclass(frozen=True, slots=True)
class Place:
    """A process that is traced, and the slot that the BPF program knows it by."""

    pid: int
    slot: int


class Attacher(Protocol):
    """One way to attach."""

    all_at_once: bool
    """Whether probes on many functions cost hardly more than those on one."""

    def attach(self, path: str, place: Place, probes: Sequence[Probe]) -> list[int]:
        """Attach probes of one file, all or none; return what keeps them attached.

        ``path`` opens the very file that the process maps. Raises OSError.
        """
        ...


class MultiLink:
    """uprobe-multi: one link for all functions that run the same program.

    Without sessions there are two, one for their entries and one for their returns.
    """

    all_at_once = True

    def __init__(self, program: Program, *, sessions: bool) -> None:
        self._program = program
        self._sessions = sessions

    def attach(self, path: str, place: Place, probes: Sequence[Probe]) -> list[int]:
        """See Attacher."""
        groups: defaultdict[tuple[str, bool], list[Probe]] = defaultdict(list)
        for probe in probes:
            if not (self._sessions and probe.is_return_probe):  # its entry's session sees it
                groups[probe.program, probe.is_return_probe].append(probe)
        return _all(partial(self._link, path, place, group) for group in groups.values())

    def _link(self, path: str, place: Place, probes: Sequence[Probe]) -> int:
        first = probes[0]
        way = Way.SESSION if self._sessions else Way.MULTI
        attach_type = way.attach_type(with_end=first.function.exit is not Exit.NONE)
        offsets = (ct.c_uint64 * len(probes))(*(probe.offset for probe in probes))
        cookies = (ct.c_uint64 * len(probes))(*(probe.cookie(place.slot) for probe in probes))
        name = ct.create_string_buffer(os.fsencode(path))
        attributes = LinkCreate(
            prog_fd=self._program.load(first.program, attach_type),
            attach_type=attach_type,
            path=ct.addressof(name),
            offsets=ct.addressof(offsets),
            cookies=ct.addressof(cookies),
            count=len(probes),
            multi_flags=BPF_F_UPROBE_MULTI_RETURN if first.is_return_probe else 0,
            pid=place.pid,
        )
        return kernel.bpf(kernel.LINK_CREATE, attributes)


class PerfEvents:
    """One perf event a probe."""

    all_at_once = False

    def __init__(self, program: Program, arch: Architecture) -> None:
        self._program = program
        self._arch = arch
        try:
            self._type = int((PMU / "type").read_text())
            bit = (PMU / "format" / "retprobe").read_text().strip().removeprefix("config:")
            self._return_flag = 1 << int(bit)
        except (OSError, ValueError):
            raise TracerError(
                f"this kernel has no uprobes ({PMU} is missing): CONFIG_UPROBE_EVENTS is needed",
                exit_code=3,
            ) from None

    def attach(self, path: str, place: Place, probes: Sequence[Probe]) -> list[int]:
        """See Attacher."""
        return _all(partial(self._event, path, place, probe) for probe in probes)

    def _event(self, path: str, place: Place, probe: Probe) -> int:
        program = self._program.load(probe.program, 0)
        name = ct.create_string_buffer(os.fsencode(path))
        attributes = _PerfEventAttr(
            type=self._type,
            size=ct.sizeof(_PerfEventAttr),
            config=self._return_flag if probe.is_return_probe else 0,
            config1=ct.addressof(name),
            config2=probe.offset,
        )
        event = kernel.system_call(
            self._arch.sys_perf_event_open,
            ct.byref(attributes),
            place.pid,
            -1,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
        try:
            link = _PerfLinkCreate(
                prog_fd=program,
                target_fd=event,
                attach_type=BPF_PERF_EVENT,
                cookie=probe.cookie(place.slot),
            )
            return kernel.bpf(kernel.LINK_CREATE, link)
        finally:
            os.close(event)  # the link holds it


def attach_tracepoint(arch: Architecture, program_fd: int, number: int) -> int:
    """Attach a program to a tracepoint; return the descriptor that keeps it attached.

    ``number`` is the tracepoint's in tracefs. The program runs on every processor, whichever the
    event is opened for (perf_event_attach_bpf_prog, kernel/trace/bpf_trace.c). Raises OSError.
    """
    attributes = _PerfEventAttr(
        type=_PERF_TYPE_TRACEPOINT, size=ct.sizeof(_PerfEventAttr), config=number
    )
    event = kernel.system_call(
        arch.sys_perf_event_open, ct.byref(attributes), -1, 0, -1, PERF_FLAG_FD_CLOEXEC
    )
    try:
        link = _PerfLinkCreate(prog_fd=program_fd, target_fd=event, attach_type=BPF_PERF_EVENT)
        return kernel.bpf(kernel.LINK_CREATE, link)
    finally:
        os.close(event)  # the link holds it


def attacher(way: Way, program: Program, arch: Architecture) -> Attacher:
    """Return what attaches a program's probes that way; see ``best_way``."""
    if way is Way.PERF:
        return PerfEvents(program, arch)
    return MultiLink(program, sessions=way is Way.SESSION)


def attach_functions(
    attach: Callable[[Sequence[Probe]], list[int]],
    functions: Sequence[Traced],
    elsewhere: Callable[[Traced], Iterable[Traced]],
    attached: Attached,
    *,
    all_at_once: bool,
) -> tuple[TracedFunction, ...]:
    """Attach probes on functions of one library, each function wholly or not at all.

    A function that the kernel refuses is tried again for a moment, then at the other places that
    ``elsewhere`` knows; one that stays refused says so. Raises TracerError where the process is
    gone, or where the kernel allows no probe at all.
    """
    if all_at_once:
        try:
            attached.own(_patiently(lambda: attach(list(probes_for(functions))), RETRY_S))
        except OSError as error:  # find out which ones it is
            _raise_if_hopeless(error)
        else:
            return tuple(map(_described, functions))
    return tuple(_one(attach, each, elsewhere, attached) for each in functions)


def _one(
    attach: Callable[[Sequence[Probe]], list[int]],
    function: Traced,
    elsewhere: Callable[[Traced], Iterable[Traced]],
    attached: Attached,
) -> TracedFunction:
    try:
        attached.own(_patiently(lambda: attach(list(probes_for([function]))), RETRY_ONE_S))
    except OSError as error:
        _raise_if_hopeless(error)
        refusal = error
    else:
        return _described(function)
    for other in islice(elsewhere(function), OTHER_PLACES_MAX):
        try:
            attached.own(attach(list(probes_for([other]))))
        except OSError as error:
            _raise_if_hopeless(error)
        else:
            attached.returns_at_ret = attached.returns_at_ret or bool(other.site.pushed)
            return _described(other)
    reason = refusal.strerror or str(refusal)
    if refusal.errno in _FOR_THE_MOMENT:
        reason += " (is another tracer attached?)"
    return replace(_described(function), refused=reason, effect=function.function.effect)


def _described(traced: Traced) -> TracedFunction:
    site = traced.site
    return TracedFunction(traced.function.name, site.shift, site.instruction, site.why)


def _raise_if_hopeless(error: OSError) -> None:
    if error.errno == errno.ESRCH:
        raise TracerError("the process exited while leaktop was attaching", NO_TARGET) from None
    if error.errno in (errno.EPERM, errno.EACCES):
        raise TracerError(
            f"the kernel does not let leaktop attach probes: {error.strerror}; run it as root",
            exit_code=3,
        ) from None


def _all(steps: Iterable[Callable[[], int]]) -> list[int]:
    done: list[int] = []
    try:
        for step in steps:
            done.append(step())
    except OSError:
        for descriptor in done:
            os.close(descriptor)
        raise
    return done


def _patiently(attach: Callable[[], list[int]], seconds: float) -> list[int]:
    until = time.monotonic() + seconds
    while True:
        try:
            return attach()
        except OSError as error:
            if error.errno not in _FOR_THE_MOMENT or time.monotonic() > until:
                raise
        time.sleep(_RETRY_STEP_S)


class _PerfLinkCreate(ct.Structure):
    """The same, with its perf_event part."""

    _fields_ = [
        ("prog_fd", ct.c_uint32),
        ("target_fd", ct.c_uint32),
        ("attach_type", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cookie", ct.c_uint64),
    ]


class _PerfEventAttr(ct.Structure):
    """``struct perf_event_attr``, version 5, of which a uprobe uses few fields."""

    _fields_ = [
        ("type", ct.c_uint32),
        ("size", ct.c_uint32),
        ("config", ct.c_uint64),
        ("sample_period", ct.c_uint64),
        ("sample_type", ct.c_uint64),
        ("read_format", ct.c_uint64),
        ("flags", ct.c_uint64),
        ("wakeup_events", ct.c_uint32),
        ("bp_type", ct.c_uint32),
        ("config1", ct.c_uint64),
        ("config2", ct.c_uint64),
        ("rest", ct.c_uint64 * 5),
    ]
