"""Compares what leaktop says with what a target says of itself."""

from collections import defaultdict
from pathlib import Path

from tests.live.harness import Json, Truth

FIGURES = ("bytes", "count", "allocs", "frees")
NOTHING = {"bytes": 0, "count": 0}


def found_sites(snapshot: Json) -> dict[tuple[str, int], dict[str, int]]:
    """Sum the stacks by function and line of the innermost frame."""
    sites: dict[tuple[str, int], dict[str, int]] = defaultdict(lambda: dict.fromkeys(FIGURES, 0))
    for stack in snapshot["stacks"]:
        frame = stack["frames"][0]
        for figure in FIGURES:
            sites[frame["symbol"], frame["line"]][figure] += stack[figure]
    return dict(sites)


def expected_sites(truth: Truth) -> dict[tuple[str, int], dict[str, int]]:
    """The same of the truth; what holds nothing any more is not shown."""
    return {
        (site.function, site.line): {figure: getattr(site, figure) for figure in FIGURES}
        for site in truth.sites
        if site.count
    }


def lost(snapshot: Json) -> dict[str, int]:
    """The losses that are not zero."""
    return {name: count for name, count in snapshot["lost"].items() if count}


def totals(snapshot: Json) -> dict[str, int]:
    """The totals that the truth has too."""
    return {figure: snapshot["totals"][figure] for figure in FIGURES}


def assert_exact(
    snapshot: Json, truth: Truth, binary: Path, source: str, *, losses: dict[str, int] | None = None
) -> None:
    """Check sites, totals, losses and names: all that happened, and nothing else."""
    assert found_sites(snapshot) == expected_sites(truth)
    assert totals(snapshot) == {figure: truth.total(figure) for figure in FIGURES}
    assert lost(snapshot) == (losses or {})
    for stack in snapshot["stacks"]:
        frame = stack["frames"][0]
        assert frame["module"] == binary.name
        assert Path(frame["file"]).name == source
        assert not frame["inlined"]
        assert not stack["estimated"]
        assert "main" in [frame["symbol"] for frame in stack["frames"]]
