"""The stacks seen so far: their frames, and which of them are one and the same."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leaktop.model import Frame
from leaktop.modules import Location
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


_UNFILED = Stack(frames=(), locations=(), truncated=True)


class StackBook:
    """Every stack that has ever counted, with its code normalised to files.

    The kernel side numbers stacks; what a stack is, its id says. A stack that was cut because a
    rule was missing has an id of its own. The answer to its question says how it went on; from then
    on it counts as the whole stack that it was.
    """

    def __init__(self, process: TargetProcess, stacks: BpfMap, unwinder: Unwinder) -> None:
        self._process = process
        self._kernel = stacks
        self._unwinder = unwinder
        self._ids = [layout.STACK_ID_UNFILED]
        self._numbers: defaultdict[int, list[int]] = defaultdict(list)
        self._numbers[layout.STACK_ID_UNFILED].append(layout.STACK_UNFILED)
        self._known: dict[int, Stack] = {layout.STACK_ID_UNFILED: _UNFILED}
        self._whole_of: dict[int, int] = {}
        self._asked: dict[int, tuple[int, ...]] = {}
        self._still_cut: set[int] = set()
        # by code address: stacks have most of theirs in common, and are tuples of the same objects
        self._places: dict[int, tuple[Location, Frame]] = {}
        self._places_version = process.code_version

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
        self._forget_moved_code()
        refreshed = False
        while len(self._ids) <= count:
            number = len(self._ids)
            stack = self._kernel.lookup(number)
            if stack is None or not stack["id"]:  # its number is given away, but not it stored yet
                break
            stack_id = int(stack["id"])
            self._ids.append(stack_id)
            self._numbers[stack_id].append(number)
            if stack_id in self._known:
                continue
            pcs, truncation = tuple(stack["pc"][: stack["depth"]].tolist()), int(stack["truncated"])
            if not refreshed and not self._process.knows(self._unplaced(pcs)):
                refreshed = True
                self._process.refresh()
                self._forget_moved_code()
            self._add(stack_id, pcs, truncation)
            if truncation == layout.ASKED:
                self._asked[stack_id] = pcs
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
        inner = self._asked.pop(stack_id)
        rest = self._unwinder.completions.pop(stack_id, None)
        if rest is None:
            self._still_cut.add(stack_id)
            return
        pcs, truncation = inner + rest.pcs, rest.truncation
        if len(pcs) > layout.STACK_DEPTH_MAX:
            pcs, truncation = pcs[: layout.STACK_DEPTH_MAX], layout.TRUNCATED
        if truncation != layout.WHOLE:
            self._still_cut.add(stack_id)
        whole = id_of(pcs, truncation)
        self._whole_of[stack_id] = whole
        if whole not in self._known:
            self._add(whole, pcs, truncation)

    def _add(self, stack_id: int, pcs: tuple[int, ...], truncation: int) -> None:
        new = self._unplaced(pcs)
        for pc, location in zip(new, self._process.locate(new), strict=True):
            self._places[pc] = location, _bare_frame(location)
        places = [self._places[pc] for pc in pcs]
        self._known[stack_id] = Stack(
            frames=tuple(frame for _, frame in places),
            locations=tuple(location for location, _ in places),
            truncated=truncation != layout.WHOLE,
        )

    def _unplaced(self, pcs: Iterable[int]) -> list[int]:
        return [pc for pc in pcs if pc not in self._places]

    def _forget_moved_code(self) -> None:
        # read before locating: code that moves meanwhile is forgotten the next time
        version = self._process.code_version
        if version != self._places_version:
            self._places, self._places_version = {}, version


def _bare_frame(location: Location) -> Frame:
    module = location.module
    if module is None:
        return Frame(address=location.address)
    return Frame(address=location.address, module=module.name, module_path=module.path)
