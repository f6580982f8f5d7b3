"""Asks a figure: of a session of the lake, or of any DuckDB connection in which the insurer's tables stand.

    figures(session, load("demo"), "totals", {"valuation": "2024-12-31"}) -> pa.Table

Parameters are typed and bound, never pasted. A figure whose inputs are missing is off: `available` tells why, asking
for it is a UsageError; the figures beside it are not touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from claimhouse.errors import QueryError, UsageError
from claimhouse.marts import compose
from claimhouse.marts.figure import Figure, all_files, bound, columns_of, figure_names, find
from claimhouse.marts.model import Model, ModelError, check_types, load, shipped

if TYPE_CHECKING:
    from claimhouse.query.session import Session

TRIANGLE_YEARS = 80  # of accident periods up to the valuation, as sql/parts/cells.sql has them


@dataclass(frozen=True)
class Availability:
    """Whether a figure can be had. `missing`: `input: why` for each input that stands in its way."""

    name: str
    title: str
    missing: tuple[str, ...]

    @property
    def on(self) -> bool:
        return not self.missing


def figures(
    target: duckdb.DuckDBPyConnection | Session,
    model: Model,
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    given: Mapping[str, str] | None = None,
    claims: Collection[Any] | None = None,
) -> pa.Table:
    """The rows of a figure, in its order.

    `params` by name, text accepted (see PARAMETERS); `valuation` defaults to `day_of(target)`. `given` and `claims` as
    in `compose.compose`. Raises UsageError for an unknown figure or parameter and for a figure that is off, ModelError
    naming file, input and column for a model that does not fit the tables.
    """
    figure = find(name)
    chosen = dict(params or {})
    today = date.max if chosen.get("valuation") is not None else day_of(target)
    values = bound(compose.parameters_of(figure), chosen, today)
    if off := _missing(model, figure, given or {}):
        raise UsageError(f"the figure {name} is off: {'; '.join(off)}", hint=f"the model is {model.file}")
    query = compose.compose(figure, model, given=given, claims=claims)
    try:
        return run(target, query, values).rename_columns([c.name for c in columns_of(figure)])
    except (duckdb.Error, QueryError) as error:
        raise _explained(target, model, figure, given or {}) or error from None


def available(model: Model, target: duckdb.DuckDBPyConnection | Session | None = None) -> list[Availability]:
    """All figures, on or off with the inputs that are missing; with `target`, tables that are not there count too."""
    absent = {} if target is None else {name: why for name in model.inputs if (why := _absent(target, model, name))}
    found = []
    for name in figure_names():
        figure = find(name)
        off = _missing(model, figure, {})
        off += tuple(f"{i}: {absent[i]}" for i in compose.needs(figure) if i in absent)
        found.append(Availability(name, figure.title, off))
    return found


def check(target: duckdb.DuckDBPyConnection | Session, model: Model) -> None:
    """Raises ModelError for the first input whose columns are not of their documented kinds.

    Inputs whose tables are not there are passed over: they turn figures off, which `available` tells.
    """
    for name in model.inputs:
        if _absent(target, model, name) is None:
            _check(target, model, name)


def fitting(target: duckdb.DuckDBPyConnection | Session) -> Model:
    """The shipped model under which most figures are on. Raises UsageError where none has any."""
    found = [(sum(a.on for a in available(model, target)), model) for model in map(load, shipped())]
    count, best = max(found, key=lambda item: item[0])
    if not count:
        raise UsageError(
            "no shipped model fits these tables", hint="write a model file (docs/figures.md) and name it: --model"
        )
    return best


def day_of(target: duckdb.DuckDBPyConnection | Session) -> date:
    """The day that valuations default to: that of a session's past moment, else today in UTC."""
    at = getattr(target, "at", None)
    if at is None or isinstance(target, duckdb.DuckDBPyConnection):
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(at[:10])
    except ValueError:
        return target.day() or datetime.now(UTC).date()


def left_out(
    target: duckdb.DuckDBPyConnection | Session, model: Model, valuation: date, line: str | None = None
) -> int:
    """How many claims no triangle can hold: lost before its first period, or dated more than a year from now.

    Raises as `figures`.
    """
    latest = f"DATE '{max(valuation, datetime.now(UTC).date() + timedelta(days=366))}'"
    odd = exp.condition(
        f"loss_date < DATE '{max(1, valuation.year - TRIANGLE_YEARS + 1):04}-01-01' OR loss_date > {latest}"
        f" OR reported_on > {latest}",
        dialect="duckdb",
    )
    of_line = exp.true() if line is None else exp.column("line").eq(line)
    claims = model.inputs["claim_input"].copy().subquery("c")
    query = exp.select("COUNT(*) AS claims").from_(claims).where(odd.and_(of_line))
    return run(target, query, {})[0][0].as_py()


def _missing(model: Model, figure: Figure, given: Mapping[str, str]) -> tuple[str, ...]:
    needed = {i for name in figure.inputs if name not in given for i in _inputs_of(name)}
    return tuple(f"{name}: not in the model" for name in sorted(needed) if name not in model.inputs)


def _inputs_of(name: str) -> tuple[str, ...]:
    item = all_files().get(name)
    return (name,) if item is None else compose.needs(item)


def run(target: duckdb.DuckDBPyConnection | Session, query: exp.Query, values: Mapping[str, Any]) -> pa.Table:
    """The rows of a composed query."""
    if isinstance(target, duckdb.DuckDBPyConnection):
        rendered = compose.render(query, "duckdb")
        bound_values = {name: values[name] for name in rendered.parameters}
        return target.cursor().sql(rendered.sql, params=bound_values).to_arrow_table()
    return target.sql(compose.render(query, "duckdb", values=values).sql).arrow()


def _types(target: duckdb.DuckDBPyConnection | Session, model: Model, name: str) -> dict[str, str]:
    """Column name -> DuckDB type of an input. Raises duckdb.Error or QueryError."""
    text = compose.render(model.inputs[name], "duckdb").sql
    relation = target.cursor().sql(text) if isinstance(target, duckdb.DuckDBPyConnection) else target.sql(text).relation
    return {c.lower(): str(t) for c, t in zip(relation.columns, relation.types, strict=True)}


def _check(target: duckdb.DuckDBPyConnection | Session, model: Model, name: str) -> None:
    try:
        types = _types(target, model, name)
    except (duckdb.Error, QueryError) as error:
        why = str(error).splitlines()[0]
        raise ModelError(f"{model.file}: {name}: {why}", hint=getattr(error, "hint", None)) from None
    check_types(model, name, types)


def _absent(target: duckdb.DuckDBPyConnection | Session, model: Model, name: str) -> str | None:
    """Which of an input's tables is not there, or not at the session's moment, if any."""
    for table in model.tables(name):
        if isinstance(target, duckdb.DuckDBPyConnection):
            try:
                target.cursor().sql(f"SELECT 1 FROM {table} LIMIT 0")
            except duckdb.CatalogException:
                return f"there is no table {table}"
            continue
        found = target.names.relation(tuple(part.name for part in exp.to_table(table, dialect="duckdb").parts))
        if found is None:
            return f"there is no table {table}"
        if error := target.hidden(found.table):
            return str(error)
    return None


def _explained(
    target: duckdb.DuckDBPyConnection | Session, model: Model, figure: Figure, given: Mapping[str, str]
) -> Exception | None:
    """What a failed figure's inputs say about it: a table that is not there, or a column that does not fit."""
    needed = sorted({i for name in figure.inputs if name not in given for i in _inputs_of(name)})
    for name in needed:
        if why := _absent(target, model, name):
            return UsageError(f"the figure {figure.name} is off: {name}: {why}", hint=f"the model is {model.file}")
        try:
            _check(target, model, name)
        except ModelError as error:
            return error
    return None
