"""One measured figure, and the table and file that they are told in."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Figure:
    """`value` is the median of `runs`, `spread` (max - min) of them; `ratio` is value / reference.

    `aim` is for the ratio, or for the value where there is none: at most that, or, with `at_least`, at least.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    runs: list[float] = field(default_factory=list)
    spread: float = 0.0
    aim: float | None = None
    at_least: bool = False
    note: str = ""


def figure(
    name: str,
    runs: Sequence[float],
    unit: str,
    *,
    reference: Sequence[float] | None = None,
    aim: float | None = None,
    at_least: bool = False,
    note: str = "",
) -> Figure:
    """A figure from its runs; with a reference, the ratio is the median of the ratios pair by pair."""
    value = statistics.median(runs)
    ratio = middle = None
    if reference:
        middle = statistics.median(reference)
        ratio = statistics.median(a / b for a, b in zip(runs, reference, strict=True))
    return Figure(name, value, unit, middle, ratio, list(runs), max(runs) - min(runs), aim, at_least, note)


def progress(text: str) -> None:
    """One line of what is being done, on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


def tell(figures: Sequence[Figure], path: Path) -> None:
    """Writes build/bench.json and prints the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n")
    table = Table(title=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for heading in ("figure", "value", "unit", "reference", "ratio", "aim", "runs", "note"):
        table.add_column(heading, justify="left" if heading in ("figure", "unit", "note") else "right")
    for f in figures:
        table.add_row(
            f.name,
            f"{f.value:.3g}",
            f.unit,
            f"{f.reference:.3g}" if f.reference is not None else "",
            f"{f.ratio:.2f}" if f.ratio is not None else "",
            f"{'≥' if f.at_least else '≤'} {f.aim:g}" if f.aim is not None else "",
            str(len(f.runs)),
            f.note,
        )
    Console(width=160).print(table)
    print(path)
