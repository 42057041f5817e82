"""Stacks that the user knows and does not want to see, as patterns that survive restarts. Pure.

A pattern is a list of frames, innermost first, as in a suppression of valgrind: ``MODULE!FUNCTION``
with ``*`` for any text and ``?`` for any character, or ``...`` for any number of frames, none
included. What a stack has beyond the last one does not matter. Names match with their parameters or
without; inlined calls are passed over, and a frame without a name only matches ``*``.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import or_

from leaktop.analyze import frame_that_matters, is_plumbing
from leaktop.model import Frame, Site
from leaktop.names import LIMIT, short_name

ANY_FRAMES = "..."
FRAMES_MAX = 128
"""Frames of a pattern."""
TEXT_MAX = 1024
"""Characters of one of them."""

_CACHED = 16_384
_Call = tuple[str | None, str | None]  # module and symbol
_VERSION = re.compile(r"(?:(-)\d[\d.]*)?\.so(?:\.[\d.]+)?$")
_NO_TEXT = re.compile(r"[\0-\x1f\x7f\ud800-\udfff]")  # what TOML cannot hold, or nobody can read


@dataclass(frozen=True, slots=True)
class Entry:
    """One pattern."""

    stack: tuple[str, ...]
    name: str = ""
    """What the user calls it; does not matter."""

    @property
    def label(self) -> str:
        """It in a few words: its name, or the outermost frame that it names."""
        named = [frame for frame in self.stack if frame != ANY_FRAMES]
        return self.name or (named[-1] if named else ANY_FRAMES)


@dataclass(frozen=True, slots=True)
class Ignored:
    """Which of the stacks of a snapshot are ignored, and what they hold together."""

    entries: Mapping[int, Entry] = field(default_factory=dict)
    """By stack id, what each of them matches first."""
    bytes: int = 0
    count: int = 0
    """Blocks; in growth mode pages."""

    def rest(self, sites: Sequence[Site]) -> Sequence[Site]:
        """Return the sites that are not ignored, in their order."""
        if not self.entries:
            return sites
        return [site for site in sites if site.stack_id not in self.entries]


NOTHING_IGNORED = Ignored()


class IgnoreList:
    """Finds the entry that a stack matches; remembers what it has found out about frames."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = tuple(entries)
        texts = dict.fromkeys(text for entry in self.entries for text in entry.stack)
        texts.pop(ANY_FRAMES, None)
        bits = {text: 1 << i for i, text in enumerate(texts)}
        self._frames = [(bit, _frame_pattern(text)) for text, bit in bits.items()]
        self._patterns = [_Pattern(entry, bits) for entry in self.entries]
        self._masks: dict[_Call, int] = {}
        begins = [bits.get(entry.stack[0]) if entry.stack else None for entry in self.entries]
        # what an innermost frame has to match; 0 where it may be any
        self._begin = 0 if None in begins else reduce(or_, filter(None, begins), 0)

    def find(self, frames: Sequence[Frame]) -> Entry | None:
        """Return the first entry that a stack with names matches; None where none does."""
        masks: list[int] = []
        known = self._masks
        for frame in frames:  # for all stacks at once where the list changes
            if frame.inlined:
                continue
            call = (frame.module, frame.symbol)
            mask = known.get(call)
            if mask is None:
                mask = self._match(call)
            if not masks and self._begin and not mask & self._begin:
                return None
            masks.append(mask)
        if not masks:
            return None
        seen = reduce(or_, masks)
        for each in self._patterns:
            if not each.needed & ~seen and each.matches(masks):
                return each.entry
        return None

    # A bit for each frame of the patterns that the call matches.
    def _match(self, call: _Call) -> int:
        if len(self._masks) >= _CACHED:
            self._masks.clear()
        found = sum(bit for bit, pattern in self._frames if pattern.matches(call))
        self._masks[call] = found
        return found


class Sieve:
    """Finds the ignored stacks of one source; each is matched once, when its names are known."""

    def __init__(self, ignored: IgnoreList) -> None:
        self._list = ignored
        self._known: dict[int, tuple[Sequence[Frame], Entry | None]] = {}

    def replace(self, ignored: IgnoreList) -> None:
        """Go by another list from now on."""
        self._list, self._known = ignored, {}

    def unknown(self, sites: Iterable[Site]) -> list[int]:
        """Return the ids of the stacks that were never matched: they want names."""
        if not self._list.entries:
            return []
        return [site.stack_id for site in sites if site.stack_id not in self._known]

    def is_ignored(self, frames: Sequence[Frame]) -> bool:
        """Tell whether a stack with these frames is ignored."""
        return bool(self._list.entries) and self._list.find(frames) is not None

    def sift(self, sites: Iterable[Site], names: Mapping[int, Sequence[Frame]]) -> Ignored:
        """Return which ``sites`` are ignored; those without ``names`` only if they were before."""
        if not self._list.entries:
            return NOTHING_IGNORED
        known = self._known
        found: dict[int, Entry] = {}
        kept: dict[int, tuple[Sequence[Frame], Entry | None]] = {}
        size = count = 0
        for site in sites:
            stack_id = site.stack_id
            frames, matched = names.get(stack_id), known.get(stack_id)
            if frames and (matched is None or matched[0] is not frames):
                matched = (frames, self._list.find(frames))
            if matched is None:
                continue
            kept[stack_id] = matched
            if matched[1] is not None:
                found[stack_id] = matched[1]
                size += site.counters.bytes
                count += site.counters.count
        self._known = kept  # stacks come and go for ever
        return Ignored(found, size, count)


def entry_for(frames: Sequence[Frame]) -> Entry | None:
    """Return the entry for a stack: its frames up to the one that matters, of whatever version.

    None where there is none that would not ignore much else: its functions have no names, or only
    allocate for others.
    """
    physical = [frame for frame in frames if not frame.inlined]
    matters = frame_that_matters(physical)
    if not matters.symbol or is_plumbing(matters.symbol):
        return None
    at = next(i for i, frame in enumerate(physical) if frame is matters)
    stack = [_as_pattern(frame) for frame in physical[: at + 1]]
    if len(stack) >= FRAMES_MAX:
        stack = [*stack[: FRAMES_MAX - 3], ANY_FRAMES, stack[-1]]
    return Entry((*stack, ANY_FRAMES))


def _as_pattern(frame: Frame) -> str:
    module = (frame.module or "*")[:256].replace("!", "?")
    symbol = short_name(frame.symbol, LIMIT) if frame.symbol else "*"
    text = _NO_TEXT.sub("?", f"{_VERSION.sub(_any_version, module)}!{symbol}")
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}*"


def _any_version(found: re.Match[str]) -> str:
    return f"{'-*' if found[1] else ''}.so*"


class _Pattern:
    def __init__(self, entry: Entry, bits: Mapping[str, int]) -> None:
        self.entry = entry
        self._bits = [bits.get(text) for text in entry.stack]  # None: any frames
        self.needed = reduce(or_, (bit for bit in self._bits if bit), 0)

    # Each ``...`` takes as few frames as will do: where what follows it is found there, further
    # out it need not be looked for, so this takes frames times patterns at most.
    def matches(self, masks: Sequence[int]) -> bool:
        at, i = 0, 0
        retry: tuple[int, int] | None = None  # behind the last ``...``: of pattern, of stack
        while i < len(self._bits):
            bit = self._bits[i]
            if bit is None:
                i += 1
                retry = (i, at)
            elif at < len(masks) and masks[at] & bit:
                i, at = i + 1, at + 1
            elif retry is not None and retry[1] < len(masks):
                retry = (retry[0], retry[1] + 1)
                i, at = retry
            else:
                return False
        return True


@lru_cache(maxsize=256)  # other lists mostly have the same ones
def _frame_pattern(text: str) -> "_FramePattern":
    return _FramePattern(text)


class _FramePattern:
    def __init__(self, text: str) -> None:
        module, mark, symbol = text.partition("!")
        self._module = _glob(module) if mark else _glob("*")
        self._symbol = _glob(symbol if mark else module)
        self._found: dict[_Call, bool] = {}

    def matches(self, call: _Call) -> bool:
        known = self._found.get(call)
        if known is None:
            if len(self._found) >= _CACHED:
                self._found.clear()
            known = self._found[call] = self._match(call[0] or "", call[1] or "")
        return known

    def _match(self, module: str, symbol: str) -> bool:
        if not self._module(module):
            return False
        if not symbol:
            return self._symbol("")
        return self._symbol(symbol[:LIMIT]) or self._symbol(short_name(symbol, LIMIT)[:LIMIT])


# fnmatch's expressions take time in proportion to text and pattern, however many stars there are;
# its sets in brackets are not wanted, since names have brackets.
def _glob(pattern: str) -> Callable[[str], bool]:
    if pattern == "*":
        return lambda _: True
    match = re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match
    return lambda text: match(text) is not None
