"""Show what the last runs measured as Markdown, from bench/results/*.json.

Usage: python bench/table.py [--into docs/performance.md]

With --into the tables replace what is between the two marks in that file, so that figures are
copied and never typed; refused where a result is of a quick run.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from common import RESULTS, Figure

BEGIN, END = "<!-- bench/table.py: begin -->", "<!-- bench/table.py: end -->"


def figure_of(stored: dict[str, Any]) -> Figure:
    """Return a figure as it was written."""
    names = {each.name for each in fields(Figure)}
    return Figure(**{name: value for name, value in stored.items() if name in names})


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table, figures to the right."""
    lines = [heading, ("---", *["---:"] * (len(heading) - 1)), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """Return where it was measured, the figures that have targets, and the others."""
    places = {", ".join(run["machine"].values()) for run in runs}
    lines = [f"Measured on: {'; '.join(sorted(places))}."]
    counts = [f"{run['script']} {run['rounds']} (load {run['load']})" for run in runs]
    lines += [f"Rounds, and the load average before: {', '.join(counts)}.", ""]
    figures = [figure_of(figure) for run in runs for figure in run["figures"]]
    aimed = [figure.columns for figure in figures if figure.target is not None]
    lines += [*table(("figure", "measured", "target", "met"), aimed), "", "The rest:", ""]
    rest = [figure.columns[:2] for figure in figures if figure.target is None]
    return "\n".join([*lines, *table(("figure", "measured"), rest)])


def main() -> None:
    """Print the tables, or put them into a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--into", type=Path, metavar="FILE", help="replace the tables in FILE")
    options = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    runs = [run for run in runs if "figures" in run]
    if not runs:
        sys.exit("nothing was measured yet: make bench")
    shown = markdown(runs)
    quick = [run["script"] for run in runs if run["quick"]]
    if options.into is None:
        print(shown)
        if quick:
            print(f"\nOf quick runs, to be measured again: {', '.join(quick)}")
    elif quick:
        sys.exit(f"results of quick runs are no figures: {', '.join(quick)}")
    else:
        before, _, rest = options.into.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        options.into.write_text(f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}")


if __name__ == "__main__":
    main()
