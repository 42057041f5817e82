"""What a file says of itself: whose figures these are, and how far they can be trusted."""

from collections.abc import Iterator
from datetime import UTC, datetime

from leaktop import format as fmt
from leaktop.export import Export
from leaktop.model import LOSSES, UNLIMITED, Filters, Snapshot


def title(export: Export) -> str:
    """Return what this is, and of whom, in one harmless line."""
    snapshot = export.reading.snapshot
    what = "new pages" if snapshot.growth is not None else "outstanding memory"
    return f"{what} of {whose(snapshot)}"


def whose(snapshot: Snapshot) -> str:
    """Return the name of the target, harmless."""
    target = snapshot.target
    if snapshot.processes:
        return f"{len(snapshot.processes)} processes"
    name = fmt.clean(target.comm, 64)
    return f"{name} ({target.pid})" if target.pid else f"the {name}"


def when(snapshot: Snapshot) -> str:
    """Return when it was read, in UTC, to the second."""
    at = datetime.fromtimestamp(snapshot.time_ns // 10**9, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def totals(export: Export) -> str:
    """Return the sums in a few words."""
    snapshot = export.reading.snapshot
    held, mark = snapshot.totals, snapshot.estimated
    unit = "new pages" if snapshot.growth is not None else "blocks"
    return (
        f"{fmt.format_bytes(held.bytes, estimated=mark)} in "
        f"{fmt.format_count(held.count, estimated=mark)} {unit}, "
        f"{len(snapshot.sites)} stacks, after {fmt.format_age(snapshot.elapsed_s)}"
    )


def remarks(export: Export) -> Iterator[str]:
    """Yield what is to be known of the figures: filters, sampling, losses, the target's end."""
    snapshot = export.reading.snapshot
    yield from _filters(snapshot.filters)
    if snapshot.estimated:
        yield "figures are estimates: allocations were sampled"
    if snapshot.growth is not None:
        yield "growth mode counts new pages by who touched them first: growth, not leaks"
    if snapshot.note:
        yield f"the target: {fmt.clean(snapshot.note)}"
    for refusal in snapshot.refusals:
        yield f"not traced: {fmt.clean(str(refusal))}"
    for name, count in snapshot.lost.items():
        if count:
            yield f"lost: {fmt.clean(name)} {count}: {LOSSES.get(name, '')}"


def _filters(filters: Filters) -> Iterator[str]:
    if filters.min_size:
        yield f"only blocks of at least {filters.min_size} bytes"
    if filters.max_size != UNLIMITED:
        yield f"only blocks of at most {filters.max_size} bytes"
    if filters.older_s:
        yield f"only blocks held for at least {filters.older_s:g} s"
