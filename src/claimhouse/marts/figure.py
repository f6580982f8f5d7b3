"""A figure IS one SQL file: its header says what it means, its body computes it.

    -- title: one line
    -- definition: prose
    -- source: where the definition comes from
    -- rows: what one row is
    -- inputs: inputs, figures and parts that the body reads
    -- parameters: names from PARAMETERS
    -- then: a part that finishes the rows (it reads them as `movement`)
    -- columns:
    --   name kind meaning

A field may run over several comment lines. Column kinds are those of inputs, and: `ratio` a double, `amount` a double
in units of `currency` (a share of money), `days` a double, `flag` a boolean. Files in `sql/parts` are not figures by
themselves; they hold what several figures share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from typing import Any

from claimhouse.errors import UsageError
from claimhouse.marts.inputs import InputColumn

_FIELD = re.compile(r"--\s?([a-z]+):\s*(.*)")
_NAME = re.compile(r"[a-z][a-z_]*\Z")


@dataclass(frozen=True)
class Parameter:
    """A value that a figure is asked with; `default` NONE: it must be given, TODAY: the day of asking."""

    name: str
    kind: str
    meaning: str
    default: Any
    choices: tuple[Any, ...] = ()


NONE, TODAY = object(), object()

PARAMETERS: dict[str, Parameter] = {
    p.name: p
    for p in (
        Parameter("valuation", "date", "valued as of the end of this day: later money does not count", TODAY),
        Parameter("prior", "date", "the earlier valuation that is compared with", NONE),
        Parameter("line", "text", "only this line of business; all if not given", None),
        Parameter("claim", "text", "a claim number, or the claim's key as text", NONE),
        Parameter("threshold", "money", "smallest incurred amount that is listed", Decimal(100_000)),
        Parameter("origin_months", "count", "months of an accident period", 12, (1, 3, 6, 12)),
        Parameter("development_months", "count", "months of a development period", 12, (1, 3, 6, 12)),
    )
}


@dataclass(frozen=True)
class Figure:
    """One figure or part, as its file says."""

    name: str
    title: str
    definition: str
    source: str
    rows: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    then: str | None
    columns: tuple[InputColumn, ...]
    sql: str
    part: bool = False


def parse(name: str, text: str, *, part: bool = False) -> Figure:
    """The figure of a file's text. Raises UsageError naming file and field."""
    fields, columns, body = _header(name, text)
    known = {"title", "definition", "source", "rows", "inputs", "parameters", "then"}
    if wrong := sorted(set(fields) - known):
        raise UsageError(f"figure {name}: unknown header field {wrong[0]}", hint=f"known: {', '.join(sorted(known))}")
    for needed in ("title", "inputs") if part else ("title", "definition", "source", "rows", "inputs"):
        if not fields.get(needed):
            raise UsageError(f"figure {name}: the header has no {needed}")
    if not columns and not fields.get("then"):
        raise UsageError(f"figure {name}: the header lists no columns")
    listed = {key: tuple(x.strip() for x in fields.get(key, "").split(",") if x.strip()) for key in known}
    for parameter in listed["parameters"]:
        if parameter not in PARAMETERS:
            raise UsageError(f"figure {name}: unknown parameter {parameter}")
    plain = {key: fields.get(key, "") for key in ("title", "definition", "source", "rows")}
    return Figure(
        name=name,
        inputs=tuple(x for x in listed["inputs"] if x != "none"),
        parameters=listed["parameters"],
        then=fields.get("then") or None,
        columns=tuple(columns),
        sql=body,
        part=part,
        **plain,
    )


def _header(name: str, text: str) -> tuple[dict[str, str], list[InputColumn], str]:
    fields: dict[str, str] = {}
    columns: list[InputColumn] = []
    lines = text.splitlines()
    place, field = 0, ""
    for place, line in enumerate(lines):
        if not line.startswith("--"):
            break
        if found := _FIELD.match(line):
            field = found[1]
            fields[field] = found[2].strip()
        elif field == "columns":
            words = line[2:].split(None, 2)
            if len(words) != 3 or not _NAME.match(words[0]):
                raise UsageError(f"figure {name}: line {place + 1} is not `name kind meaning`")
            columns.append(InputColumn(words[0], words[1].rstrip("?"), words[2], words[1].endswith("?")))
        elif field:
            fields[field] = f"{fields[field]} {line[2:].strip()}".strip()
    fields.pop("columns", None)
    return fields, columns, "\n".join(lines[place:]).strip()


@cache
def all_files() -> dict[str, Figure]:
    """Figures and parts by name, in order of name."""
    root = files("claimhouse.marts") / "sql"
    found = [(item, False) for item in root.iterdir()] + [(item, True) for item in (root / "parts").iterdir()]
    named = {item.name[:-4]: (item, part) for item, part in found if item.name.endswith(".sql")}
    return {name: parse(name, named[name][0].read_text(), part=named[name][1]) for name in sorted(named)}


def figure_names() -> list[str]:
    """The figures that can be asked for, sorted."""
    return [name for name, item in all_files().items() if not item.part]


def find(name: str) -> Figure:
    """The figure of that name. Raises UsageError with the names there are."""
    found = all_files().get(name)
    if found is None or found.part:
        raise UsageError(f"there is no figure {name}", hint=f"one of: {', '.join(figure_names())}")
    return found


def columns_of(figure: Figure) -> tuple[InputColumn, ...]:
    """The columns of its result: its own, or those of the part that finishes it."""
    return all_files()[figure.then].columns if figure.then else figure.columns


def bound(names: tuple[str, ...], given: dict[str, Any], today: date) -> dict[str, Any]:
    """Typed values for these parameters, defaults filled in. Raises UsageError for what is unknown or malformed."""
    if wrong := sorted(set(given) - set(names)):
        raise UsageError(f"there is no parameter {wrong[0]} here", hint=f"there are: {', '.join(names) or 'none'}")
    return {name: _value(PARAMETERS[name], given.get(name), today) for name in names}


def _value(parameter: Parameter, given: Any, today: date) -> Any:
    if given is None:
        if parameter.default is NONE:
            raise UsageError(
                f"the parameter {parameter.name} is missing", hint=f"--{parameter.name}: {parameter.meaning}"
            )
        return today if parameter.default is TODAY else parameter.default
    try:
        value = _CASTS[parameter.kind](given)
    except (ValueError, TypeError, InvalidOperation) as error:
        raise UsageError(f"the parameter {parameter.name} is not a {parameter.kind}") from error
    if parameter.choices and value not in parameter.choices:
        raise UsageError(f"the parameter {parameter.name} is one of {', '.join(map(str, parameter.choices))}")
    return value


def _date(value: Any) -> date:
    return value if type(value) is date else date.fromisoformat(str(value)[:10])


def _decimal(value: Any) -> Decimal:
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError("not finite")
    return number


_CASTS = {"date": _date, "text": str, "money": _decimal, "count": int}
