"""A reading to export: a leak, inlined calls, code without names, cut stacks, hostile names."""

from dataclasses import replace

from leaktop.analyze import Rates, Reading
from leaktop.export import Export
from leaktop.model import Counters, Frame, ProcessState, Site, Snapshot, Target, Trend, Verdict
from tests.ui.scripted import (
    CUT,
    LEAK,
    LINES,
    MAPPED,
    UNNAMED,
    detail,
    site,
    sites_at,
    snapshot,
)

HOSTILE = 0xBAD
FREED_BYTES = 12_345
EVIL = (
    Frame(
        0x5603282B2000,
        "=leaky",
        '=HYPERLINK("x");</title><script>alert(1)</script>\x1b[31m\n]]>&amp;',
        4,
        file="-e\u202e'\"<b>.c",
        line=7,
        module_path="/usr/bin/leaky",
    ),
    Frame(0x5603282B2100, "\udcff\udc80", "<img src=x onerror=alert(1)>\udcff\uffff", 8),
)


def export_of(read: Snapshot) -> Export:
    ids = [each.stack_id for each in read.sites]
    return Export(
        Reading(
            read,
            Rates(1.5, 0.5, 48.0),
            growth={each: 10.0 * i for i, each in enumerate(ids)},
            verdicts={LEAK: Verdict(0.97, "<grows> & never frees")},
        ),
        frames={**LINES, HOSTILE: EVIL},
        mappings=MAPPED,
        trend=Trend((0, 10, 5, 20), 3.0),
        trends={LEAK: Trend((0, 1, 2, 3), 3.0)},
        details={LEAK: detail(LEAK)},
    )


def plain() -> Export:
    sites = [_allocated(each) for each in (*sites_at(60), site(HOSTILE, 700_000, 7, EVIL))]
    read = snapshot(60.0, sites, lost={"truncated": 3, "allocs_full": 0})
    freed = sum(each.counters.alloc_bytes for each in sites) + FREED_BYTES
    return export_of(replace(read, totals=replace(read.totals, alloc_bytes=freed)))


def _allocated(held: Site) -> Site:
    return replace(held, counters=replace(held.counters, alloc_bytes=2 * held.counters.bytes))


def empty() -> Export:
    return export_of(snapshot(1.0, []))


def of_two_processes() -> Export:
    read = plain().reading.snapshot
    first, second = Target(4242, "leaky"), Target(77, "wor;ker\n")
    sites = tuple(replace(each, pid=(4242, 77)[i % 2]) for i, each in enumerate(read.sites))
    states = tuple(ProcessState(each, Counters()) for each in (first, second))
    return export_of(replace(read, sites=sites, processes=states))


def without_stack() -> Export:
    return export_of(snapshot(1.0, [site(1, 64, 1, ())]))


ALL = {
    "plain": plain,
    "empty": empty,
    "two processes": of_two_processes,
    "without a stack": without_stack,
}
__all__ = ["ALL", "CUT", "FREED_BYTES", "HOSTILE", "LEAK", "UNNAMED", "export_of", "plain"]
