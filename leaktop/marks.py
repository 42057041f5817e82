"""What has changed since a moment that was marked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leaktop.model import Counters, Site, Snapshot


@dataclass(frozen=True, slots=True)
class Mark:
    """What was held at one moment. The default is the start, when nothing was."""

    elapsed_s: float = 0.0
    """Seconds since counting started."""
    totals: Counters = field(default_factory=Counters)
    held: Mapping[int, Counters] = field(default_factory=dict)
    """By stack id; stacks that are not here held nothing."""

    def change(self, stack_id: int, now: Counters) -> tuple[int, int]:
        """Return by how many bytes and blocks a stack changed that holds ``now``."""
        before = self.held.get(stack_id)
        if before is None:
            return now.bytes, now.count
        return now.bytes - before.bytes, now.count - before.count

    def bytes_since(self, site: Site) -> int:
        """Return by how many bytes a stack changed."""
        return self.change(site.stack_id, site.counters)[0]

    def count_since(self, site: Site) -> int:
        """Return by how many blocks a stack changed."""
        return self.change(site.stack_id, site.counters)[1]

    def grew(self, site: Site) -> bool:
        """Tell whether a stack holds more than then: more bytes, or more blocks of no bytes."""
        return self.change(site.stack_id, site.counters) > (0, 0)

    def total_change(self, now: Counters) -> tuple[int, int]:
        """Return by how many bytes and blocks all changed, with the stacks that are gone."""
        return now.bytes - self.totals.bytes, now.count - self.totals.count


START = Mark()


def mark_of(snapshot: Snapshot) -> Mark:
    """Return a mark at the moment of ``snapshot``."""
    held = {site.stack_id: site.counters for site in snapshot.sites}
    return Mark(snapshot.elapsed_s, snapshot.totals, held)
