"""A limit on growth, for runs that are to fail where something leaks: pure.

What is measured: outstanding bytes in the last snapshot less those in the first one. Of a command,
and where there is only one snapshot, less nothing: counting began with nothing held.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from leaktop import format as fmt
from leaktop.format import parse_bytes
from leaktop.model import Snapshot


@dataclass(frozen=True, slots=True)
class Limit:
    """How much growth is let pass: bytes, or bytes a second."""

    bytes: int
    per_s: bool = False

    def __str__(self) -> str:
        """Return it as it may be given."""
        return fmt.format_bytes(self.bytes) + ("/s" if self.per_s else "")


@dataclass(frozen=True, slots=True)
class Grown:
    """What was found."""

    limit: Limit
    bytes: int
    """More outstanding bytes than before."""
    seconds: float
    stacks: Mapping[int, int] = field(default_factory=dict)
    """By how many bytes stacks grew, those that did, by stack id, the largest first."""
    ignores: bool = False
    """Whether stacks were left out."""

    @property
    def too_much(self) -> bool:
        """Whether it is above the limit."""
        return (self.per_s if self.limit.per_s else self.bytes) > self.limit.bytes

    @property
    def per_s(self) -> float:
        """Bytes a second."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        """Say what was found, in one line."""
        than = "more than" if self.too_much else "not more than"
        apart = " apart from ignored stacks" if self.ignores else ""
        return (
            f"outstanding memory{apart} grew by {self.bytes} bytes in {self.seconds:.1f} s "
            f"({fmt.format_growth(self.per_s)}/s), {than} {self.limit} (--fail-over)"
        )


def parse_limit(text: str) -> Limit:
    """Return the limit that ``1M`` or ``64k/s`` stands for. Raises ValueError, for people."""
    size, slash, unit = text.strip().partition("/")
    if slash and unit.strip() != "s":
        raise ValueError(f"'{fmt.clean(text, 24)}' is no limit: use bytes, or bytes/s, as in 64k/s")
    return Limit(parse_bytes(size), bool(slash))


def growth_between(
    first: Snapshot | None, last: Snapshot, limit: Limit, ignored: Collection[int] = ()
) -> Grown:
    """Measure growth; ``first`` None: since counting began; ``ignored``: ids of stacks left out."""
    before = {} if first is None else _held(first, ignored)
    after = _held(last, ignored)
    change = {each: size - before.get(each, 0) for each, size in after.items()}
    grew = sorted(((size, each) for each, size in change.items() if size > 0), reverse=True)
    return Grown(
        limit,
        sum(after.values()) - sum(before.values()),
        last.elapsed_s - (0.0 if first is None else first.elapsed_s),
        {stack_id: size for size, stack_id in grew},
        ignores=bool(ignored),
    )


def _held(snapshot: Snapshot, ignored: Collection[int]) -> dict[int, int]:
    return {
        site.stack_id: site.counters.bytes
        for site in snapshot.sites
        if site.stack_id not in ignored
    }
