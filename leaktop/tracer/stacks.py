"""The stacks seen so far: their frames, and which of them are one and the same."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leaktop.model import Frame
from leaktop.modules import Location
from leaktop.symbolize import Symbolizer
from leaktop.tracer import layout
from leaktop.tracer.maps import BpfMap
from leaktop.tracer.target import TargetProcess
from leaktop.tracer.unwind import Unwinder
from leaktop.tracer.walk import stack_id as id_of

_ANSWER_S = 1.0
"""How long a tick waits for questions under way, which take milliseconds, more on a busy host."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as captured: frames for the snapshot, locations for the symbolizer."""

    frames: tuple[Frame, ...]
    locations: tuple[Location, ...]
    truncated: bool
    slot: int
    """Of its process; 0 for the kernel, and for allocations of any process under no stack."""
    cache: str | None = None
    """Slab cache of what it allocates, where there is one."""


UNFILED = Stack(frames=(), locations=(), truncated=True, slot=0)


class StackBook:
    """Every stack that has ever counted, with its code normalised to files.

    The kernel side numbers stacks; what a stack is, its id says. A stack that was cut because a
    rule was missing has an id of its own. The answer to its question says how it went on; from then
    on it counts as the whole stack that it was.
    """

    def __init__(self, stacks: BpfMap, unwinder: Unwinder) -> None:
        self._processes: dict[int, _Code] = {}
        self._kernel = stacks
        self._unwinder = unwinder
        self._ids = [layout.STACK_ID_UNFILED]
        self._numbers: defaultdict[int, list[int]] = defaultdict(list)
        self._numbers[layout.STACK_ID_UNFILED].append(layout.STACK_UNFILED)
        self._known: dict[int, Stack] = {layout.STACK_ID_UNFILED: UNFILED}
        self._whole_of: dict[int, int] = {}
        self._asked: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._still_cut: set[int] = set()

    def add(self, slot: int, process: TargetProcess) -> None:
        """Take in the stacks of one more process."""
        self._processes[slot] = _Code(process)

    def remove(self, slot: int) -> None:
        """Take in no more stacks of a process: new ones stay unknown."""
        self._processes.pop(slot, None)

    @property
    def known(self) -> Mapping[int, Stack]:
        """Stacks by id."""
        return self._known

    @property
    def ids(self) -> Sequence[int]:
        """Ids of the stacks that the kernel side has numbered, by number."""
        return self._ids

    def learn(self, count: int) -> None:
        """Take in the stacks that are new, while the target still maps their code.

        ``count`` is the highest number given away.
        """
        for code in self._processes.values():
            code.begin()
        while len(self._ids) <= count:
            number = len(self._ids)
            stack = self._kernel.lookup(number)
            if stack is None or not stack["id"]:  # its number is given away, but not it stored yet
                break
            stack_id, slot = int(stack["id"]), int(stack["slot"])
            self._ids.append(stack_id)
            self._numbers[stack_id].append(number)
            if stack_id in self._known or slot not in self._processes:
                continue
            pcs, truncation = tuple(stack["pc"][: stack["depth"]].tolist()), int(stack["truncated"])
            self._add(stack_id, slot, pcs, truncation)
            if truncation == layout.ASKED:
                self._asked[stack_id] = slot, pcs
        self._complete()

    def whole(self, stack_id: int) -> int:
        """Return the id of the stack that a cut one was, or the stack's own."""
        return self._whole_of.get(stack_id, stack_id)

    def numbers(self, stack_id: int) -> list[int]:
        """Return all numbers under which a stack has counted."""
        parts = [part for part, whole in self._whole_of.items() if whole == stack_id]
        return [number for each in (stack_id, *parts) for number in self._numbers.get(each, ())]

    @property
    def cut(self) -> Iterable[int]:
        """Ids of stacks that wanted a rule and are not whole for all that is known."""
        return self._asked.keys() | self._still_cut

    def _complete(self) -> None:
        until = time.monotonic() + _ANSWER_S
        while True:
            for stack_id in self._asked.keys() & self._unwinder.completions.keys():
                self._complete_one(stack_id)
            if not self._asked or time.monotonic() > until:
                return
            time.sleep(0.005)

    def _complete_one(self, stack_id: int) -> None:
        slot, inner = self._asked.pop(stack_id)
        rest = self._unwinder.completions.pop(stack_id, None)
        if rest is None or slot not in self._processes:
            self._still_cut.add(stack_id)
            return
        pcs, truncation = inner + rest.pcs, rest.truncation
        if len(pcs) > layout.STACK_DEPTH_MAX:
            pcs, truncation = pcs[: layout.STACK_DEPTH_MAX], layout.TRUNCATED
        if truncation != layout.WHOLE:
            self._still_cut.add(stack_id)
        whole = id_of(slot, pcs, truncation)
        self._whole_of[stack_id] = whole
        if whole not in self._known:
            self._add(whole, slot, pcs, truncation)

    def _add(self, stack_id: int, slot: int, pcs: tuple[int, ...], truncation: int) -> None:
        places = self._processes[slot].places(pcs)
        self._known[stack_id] = Stack(
            frames=tuple(frame for _, frame in places),
            locations=tuple(location for location, _ in places),
            truncated=truncation != layout.WHOLE,
            slot=slot,
        )


class _Code:
    """Where the code addresses of one process lie, as tuples of the same objects.

    Stacks have most of theirs in common.
    """

    def __init__(self, process: TargetProcess) -> None:
        self._process = process
        self._known: dict[int, tuple[Location, Frame]] = {}
        self._version = process.code_version
        self._refreshed = False

    def begin(self) -> None:
        """Allow for another look at the mappings: a tick needs one at most."""
        self._refreshed = False
        self._forget_moved_code()

    def places(self, pcs: Sequence[int]) -> list[tuple[Location, Frame]]:
        """Return where each address lies, and its frame without a name."""
        if not self._refreshed and not self._process.knows(self._new(pcs)):
            self._refreshed = True
            self._process.refresh()
            self._forget_moved_code()
        new = self._new(pcs)
        for pc, location in zip(new, self._process.locate(new), strict=True):
            self._known[pc] = location, _bare_frame(location)
        return [self._known[pc] for pc in pcs]

    def _new(self, pcs: Iterable[int]) -> list[int]:
        return [pc for pc in pcs if pc not in self._known]

    def _forget_moved_code(self) -> None:
        # read before locating: code that moves meanwhile is forgotten the next time
        version = self._process.code_version
        if version != self._version:
            self._known, self._version = {}, version


def _bare_frame(location: Location) -> Frame:
    module = location.module
    if module is None:
        return Frame(address=location.address)
    return Frame(address=location.address, module=module.name, module_path=module.path)


def named(
    symbolizer: Symbolizer, known: Mapping[int, Stack], stack_ids: Iterable[int], *, lines: bool
) -> Mapping[int, tuple[Frame, ...]]:
    """Name the frames of stacks; those that are not known are left out."""
    wanted = {stack_id: known[stack_id].locations for stack_id in stack_ids if stack_id in known}
    return dict(zip(wanted, symbolizer.stacks(wanted.values(), lines=lines), strict=True))
