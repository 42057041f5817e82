"""A report as one HTML file for a browser: figures, the flame graph, each stack with its details.

Nothing is loaded from anywhere. A policy in the page lets no script run but its own, whatever the
target calls its functions.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from xml.etree.ElementTree import Element, tostring

from leaktop import __version__
from leaktop import format as fmt
from leaktop.analyze import frame_that_matters, ordered
from leaktop.bands import age_label, size_label
from leaktop.export import Export
from leaktop.export.facts import remarks, title, totals, when
from leaktop.export.figures import histogram, trend
from leaktop.export.flamegraph import flame
from leaktop.export.markup import asset, element, within
from leaktop.export.places import NO_STACK, Places
from leaktop.export.stack_text import figures, frame_lines
from leaktop.format import clean
from leaktop.model import Site, SortKey, Trend
from leaktop.verdicts import SUSPICIOUS

ROWS_MAX = 500
"""Stacks that the table has, the largest ones."""
SUSPECTS_MAX = 10
"""Suspicious stacks that are named first."""


def render(export: Export) -> bytes:
    """Return the file."""
    page = element("html", lang="en")
    scripts = [asset("report.js"), asset("flame.js")]
    _head(within(page, "head"), export, scripts)
    body = within(page, "body")
    _summary(body, export)
    _suspects(body, export)
    within(body, "h2", "Flame graph")
    field = within(body, "p")
    within(
        field,
        "input",
        type="search",
        class_="flame-search",
        placeholder="search functions, modules and files (regular expression)",
        aria_label="search functions, modules and files",
    )
    within(body, "div", class_="wide").append(flame(export))
    _table(body, export)
    _explanations(body, export)
    for script in scripts:
        within(body, "script", script)
    text: str = tostring(page, encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{text}\n".encode()


def _head(head: Element, export: Export, scripts: Sequence[str]) -> None:
    hashes = " ".join(
        f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}"
    within(head, "meta", charset="utf-8")
    within(head, "meta", http_equiv="Content-Security-Policy", content=policy)
    within(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    within(head, "meta", name="color-scheme", content="light dark")
    within(head, "title", title(export))
    within(head, "style", asset("report.css") + asset("flame.css"))


def _summary(body: Element, export: Export) -> None:
    reading = export.reading
    snapshot, mark = reading.snapshot, reading.snapshot.estimated
    within(body, "h1", title(export))
    within(body, "p", f"{totals(export)}; {when(snapshot)}; leaktop {__version__}", class_="sub")
    facts = within(body, "div", class_="facts")
    pages, rss = snapshot.growth is not None, snapshot.target.rss
    held = fmt.format_bytes(snapshot.totals.bytes, estimated=mark)
    for name, value in (
        ("new pages" if pages else "outstanding", held),
        ("growth", fmt.format_growth(reading.rates.bytes_per_s, estimated=mark) + "/s"),
        ("page faults" if pages else "allocations", _rate(reading.rates.allocs_per_s)),
        ("frees", "" if pages else _rate(reading.rates.frees_per_s)),
        ("resident", "" if rss is None else fmt.format_bytes(rss)),
    ):
        if value:
            fact = within(facts, "div")
            within(fact, "b", value)
            within(fact, "span", name)
    if len(export.trend.values) > 1:
        facts.append(trend(export.trend))
    said = list(remarks(export))
    if said:
        notes = within(body, "ul", class_="remarks")
        for each in said:
            within(notes, "li", each)


def _suspects(body: Element, export: Export) -> None:
    verdicts = export.reading.verdicts
    found = [
        (verdicts[site.stack_id], site)
        for site in export.reading.snapshot.sites
        if site.stack_id in verdicts and verdicts[site.stack_id].score >= SUSPICIOUS
    ]
    if not found:
        return
    within(body, "h2", "Suspicious")
    entries, mark = within(body, "ul"), export.reading.snapshot.estimated
    found.sort(key=lambda pair: (-pair[0].score, -pair[1].counters.bytes))
    for verdict, site in found[:SUSPECTS_MAX]:
        entry = within(entries, "li")
        _put_name(entry, export, site)
        held = fmt.format_bytes(site.counters.bytes, estimated=mark)
        within(entry, "div", f"{held}, suspicion {verdict.score:.2f}: {clean(verdict.reason)}")
    if len(found) > SUSPECTS_MAX:
        within(body, "p", f"{len(found) - SUSPECTS_MAX} more are in the table.")


def _rate(per_s: float) -> str:
    return f"{fmt.format_rate(per_s)}/s"


def _table(body: Element, export: Export) -> None:
    sites = ordered(export.reading, SortKey.BYTES)
    shown = sites[:ROWS_MAX]
    within(body, "h2", "Stacks")
    if len(shown) < len(sites):
        rest = sum(site.counters.bytes for site in sites[ROWS_MAX:])
        within(
            body,
            "p",
            f"The largest {len(shown)} of {len(sites)}; the others hold {fmt.format_bytes(rest)} "
            "in all, and are in the flame graph.",
        )
    table = within(body, "table", class_="stacks")
    row = within(within(table, "thead"), "tr")
    for column, _ in _columns(export):
        within(within(row, "th", scope="col"), "button", column, type="button")
    within(row, "th", "function", scope="col")
    lines = within(table, "tbody")
    for site in shown:
        _row(within(lines, "tr"), export, site)
    if not sites:
        within(body, "p", "Nothing is held.")


_Cell = tuple[str, float]  # what is shown, and what it is sorted by


def _columns(export: Export) -> list[tuple[str, Callable[[Site], _Cell]]]:
    reading, mark = export.reading, export.reading.snapshot.estimated
    pages = reading.snapshot.growth is not None

    def size(value: float) -> _Cell:
        return fmt.format_bytes(value, estimated=mark), value

    def number(value: float) -> _Cell:
        return fmt.format_count(value, estimated=mark), value

    def growth(site: Site) -> _Cell:
        value = reading.growth.get(site.stack_id, 0.0)
        return fmt.format_growth(value, estimated=mark), value

    def oldest(site: Site) -> _Cell:
        age = fmt.format_age(site.oldest_s, exact=site.oldest_exact)
        return age, -1.0 if site.oldest_s is None else site.oldest_s

    def suspicion(site: Site) -> _Cell:
        verdict = reading.verdicts.get(site.stack_id)
        return ("-", -1.0) if verdict is None else (f"{verdict.score:.2f}", verdict.score)

    columns: list[tuple[str, Callable[[Site], _Cell]]] = [
        ("bytes", lambda site: size(site.counters.bytes)),
        ("pages" if pages else "blocks", lambda site: number(site.counters.count)),
        ("growth/s", growth),
    ]
    if not pages:
        columns += [
            ("oldest", oldest),
            ("allocs", lambda site: number(site.counters.allocs)),
            ("frees", lambda site: number(site.counters.frees)),
        ]
    return [*columns, ("suspect", suspicion)] if reading.verdicts else columns


def _row(row: Element, export: Export, site: Site) -> None:
    for _, cell in _columns(export):
        text, value = cell(site)
        within(row, "td", text, class_="n", data_v=f"{value:.6g}")
    stack = within(within(row, "td", class_="what"), "details")
    _put_name(within(stack, "summary"), export, site)
    within(stack, "p", figures(export, site))
    verdict = export.reading.verdicts.get(site.stack_id)
    if verdict is not None:
        within(stack, "p", f"Suspicion {verdict.score:.2f}: {clean(verdict.reason)}")
    within(stack, "pre", "\n".join(frame_lines(export, site)))
    _details(stack, export, site)


# The frame that matters, its module and line.
def _put_name(parent: Element, export: Export, site: Site) -> None:
    frames = export.frames_of(site)
    if not frames:
        within(parent, "code", NO_STACK)
        return
    frame = frame_that_matters(frames)
    place = f"{clean(frame.file)}:{frame.line or '?'}" if frame.file else ""
    within(parent, "code", Places(export.mappings).name(export.pid_of(site), frame))
    within(parent, "span", f" {clean(frame.module or '')} {place}", class_="dim")


def _details(stack: Element, export: Export, site: Site) -> None:
    past, detail = export.trends.get(site.stack_id, Trend()), export.details.get(site.stack_id)
    mark = export.reading.snapshot.estimated
    if len(past.values) > 1:
        stack.append(trend(past))
    if detail is not None:
        both = within(stack, "div", class_="both")
        both.append(histogram("age", detail.ages, age_label, estimated=mark))
        both.append(histogram("size", detail.sizes, size_label, estimated=mark))


def _explanations(body: Element, export: Export) -> None:
    within(body, "h2", "Reading it")
    signs = within(body, "p", class_="dim")
    pages = export.reading.snapshot.growth is not None
    signs.text = (
        "Sizes are in powers of 1024. ~ marks an estimate, ≤ an upper bound. Growth is over the "
        "last ten seconds. "
    )
    if not pages:
        signs.text += "A block counts as held from the moment its allocation returned."
    build_ids = dict.fromkeys(
        (each.path, each.build_id) for each in export.mappings if each.path and each.build_id
    )
    if build_ids:
        more = within(body, "details")
        within(more, "summary", "Build ids")
        listed = [f"{build_id}  {clean(path, 4096)}" for path, build_id in build_ids]
        within(more, "pre", "\n".join(listed))
