"""Where frames are, and what to call them outside leaktop."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from leaktop.format import clean
from leaktop.model import CodeMapping, Frame, Site

KERNEL_HALF = 1 << 63
"""Addresses from here on are the kernel's (arch/x86/x86_64/mm.rst in Linux)."""
NO_STACK = "[no room for its stack]"
CUT = "[the stack goes on]"


class Places:
    """The mappings of all processes, by address."""

    def __init__(self, mappings: Iterable[CodeMapping]) -> None:
        self._of: dict[int, list[CodeMapping]] = {}
        for each in sorted(mappings, key=lambda mapping: mapping.start):
            self._of.setdefault(each.pid, []).append(each)
        self._starts = {pid: [each.start for each in own] for pid, own in self._of.items()}

    def find(self, pid: int, address: int) -> CodeMapping | None:
        """Return the mapping that the call before a return address lies in."""
        pid, call = (0 if address >= KERNEL_HALF else pid), address - 1
        index = bisect_right(self._starts.get(pid, ()), call) - 1
        if index < 0 or call >= self._of[pid][index].end:
            return None
        return self._of[pid][index]

    def name(self, pid: int, frame: Frame) -> str:
        """Return what a frame is called, harmless, and the same in the next run.

        Without a symbol: the file, and the offset in it of the return address.
        """
        if frame.symbol:
            return clean(frame.symbol)
        mapping = self.find(pid, frame.address)
        module = clean(frame.module or "")
        if mapping is None or not module:
            return f"{frame.address:#x}"
        return f"{module}+{frame.address - mapping.start + mapping.offset:#x}"


def calls(frames: Sequence[Frame]) -> Iterator[Sequence[Frame]]:
    """Yield the frames of each call: those inlined there, innermost first, and it itself, last."""
    begin = 0
    for i, frame in enumerate(frames):
        if not frame.inlined:
            yield frames[begin : i + 1]
            begin = i + 1
    if begin < len(frames):
        yield frames[begin:]


def missing_frames(site: Site) -> tuple[str, ...]:
    """Return what stands for frames that are not known, outermost first."""
    if not site.frames:
        return (NO_STACK,)
    return (CUT,) if site.truncated else ()
