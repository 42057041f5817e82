"""A limit on growth, for runs that are to fail where something leaks: pure.

What is measured: outstanding bytes in the last snapshot less those in the first one. Of a command,
and where there is only one snapshot, less nothing: counting began with nothing held.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leaktop import format as fmt
from leaktop.format import parse_bytes
from leaktop.model import Site, Snapshot


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
        return (
            f"outstanding memory grew by {self.bytes} bytes in {self.seconds:.1f} s "
            f"({fmt.format_growth(self.per_s)}/s), {than} {self.limit} (--fail-over)"
        )


def parse_limit(text: str) -> Limit:
    """Return the limit that ``1M`` or ``64k/s`` stands for. Raises ValueError, for people."""
    size, slash, unit = text.strip().partition("/")
    if slash and unit.strip() != "s":
        raise ValueError(f"'{fmt.clean(text, 24)}' is no limit: use bytes, or bytes/s, as in 64k/s")
    return Limit(parse_bytes(size), bool(slash))


def growth_between(first: Snapshot | None, last: Snapshot, limit: Limit) -> Grown:
    """Measure growth; ``first`` None: since counting began."""
    before = {} if first is None else {each.stack_id: _bytes(each) for each in first.sites}
    change = {each.stack_id: _bytes(each) - before.get(each.stack_id, 0) for each in last.sites}
    grew = sorted(((size, each) for each, size in change.items() if size > 0), reverse=True)
    return Grown(
        limit,
        last.totals.bytes - (0 if first is None else first.totals.bytes),
        last.elapsed_s - (0.0 if first is None else first.elapsed_s),
        {stack_id: size for size, stack_id in grew},
    )


def _bytes(site: Site) -> int:
    return site.counters.bytes
