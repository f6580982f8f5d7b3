"""docs/figures.md, written from the headers of the SQL files, the inputs and the parameters.

`python -m claimhouse.marts.document docs/figures.md` writes it; a test holds the page equal to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from claimhouse.marts.compose import needs, parameters_of
from claimhouse.marts.figure import PARAMETERS, TODAY, Figure, Parameter, columns_of, figure_names, find
from claimhouse.marts.inputs import INPUTS, InputColumn
from claimhouse.marts.model import load, shipped

HEAD = """\
# Figures

<!-- Written from marts/sql by `python -m claimhouse.marts.document docs/figures.md`: change it there. -->

Each figure is one SQL file. It reads logical inputs, which a *model file* fills from an insurer's own tables; a figure
whose inputs a model does not have is off. All of them run at any past moment (`--at`), and value money at any day
(`valuation`): the moment chooses what the book knew, the valuation which bookings count.

Kinds of columns: `key` tells things apart, `count` a whole number, `money` exact in units of `currency`, `amount` a
share of money as a double, `ratio` a double, `days` a double, `flag` true or false; `?` may be NULL.
"""
MODELS = """\
## Model files

A model is a TOML file: one SELECT per input, in the same subset of SQL as the figures, whose columns are those below.
`[changed]` tells, per table of the insurer, whose claims a changed row touches, so that figures per claim are kept
fresh at the cost of the claims that changed. An input with a wrong column is an error that names file, input, column.
A table `claim__log` is the change log of `claim` up to the moment that is read: its columns, and `_op`, `_incarnation`,
`_end_lsn`, `_seq`, `_committed_at` (docs/lake-format.md).
"""


def markdown() -> str:
    """The whole page."""
    parts = [HEAD, _grid(("figure", "what"), ((f"[{n}](#{n})", find(n).title) for n in figure_names()))]
    parts += [_figure(find(name)) for name in figure_names()]
    parts += [
        "## Parameters\n",
        _grid(("parameter", "kind", "meaning", "default"), map(_parameter, PARAMETERS.values())),
    ]
    parts += [MODELS, "Shipped: " + "; ".join(f"`{n}` ({load(n).title})" for n in shipped()) + ".\n"]
    for item in INPUTS.values():
        parts += [f"### {item.name}\n", f"Rows: {item.row}.\n", _columns(item.columns)]
    return "\n".join(parts)


def _figure(figure: Figure) -> str:
    lines = [
        f"## {figure.name}\n",
        f"**{figure.title}.** {figure.definition}\n",
        f"- Source: {figure.source}",
        f"- Rows: {figure.rows}",
        f"- Inputs: {', '.join(needs(figure))}",
        f"- Parameters: {', '.join(parameters_of(figure))}\n",
    ]
    return "\n".join([*lines, _columns(columns_of(figure))])


def _columns(columns: Iterable[InputColumn]) -> str:
    rows = ((f"`{c.name}`", c.kind + ("?" if c.nullable else ""), c.meaning) for c in columns)
    return _grid(("column", "kind", "meaning"), rows)


def _parameter(parameter: Parameter) -> tuple[str, str, str, str]:
    choices = f"; one of {', '.join(map(str, parameter.choices))}" if parameter.choices else ""
    default = "today" if parameter.default is TODAY else parameter.default
    shown = str(default) if isinstance(default, (str, int)) or str(default).isdigit() else ""
    return f"`{parameter.name}`", parameter.kind, parameter.meaning + choices, shown


def _grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown())
