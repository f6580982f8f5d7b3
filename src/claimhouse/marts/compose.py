"""Puts a figure, the figures and parts it reads, and a model's inputs together into one query for one engine.

Everything becomes a CTE, all of them on one level and under names of their own (SQLGlot flattens nested ones for Spark,
where equal names then meet): no view has to be created anywhere, so the same text runs in a read-only session, in Spark
and in Trino, and can be shown to whoever wants to check a number. Parameters stay
parameters: `$name` for DuckDB, `:name` for Spark, `?` for Trino with their order told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlglot
from sqlglot import ErrorLevel, exp

from claimhouse.errors import UsageError
from claimhouse.marts import lint
from claimhouse.marts.figure import Figure, all_files
from claimhouse.marts.inputs import INPUTS
from claimhouse.marts.model import Model

DIALECTS = ("duckdb", "spark", "trino")
_MARK = re.compile(r"[:$]ch_([a-z_]+)_hc\b")
MOVEMENT = "movement"


@dataclass(frozen=True)
class Rendered:
    """SQL of one dialect. `parameters`: names in the order of the text's `?` (Trino: with repeats), else each once."""

    sql: str
    parameters: tuple[str, ...]


@cache
def query_of(name: str) -> exp.Query:
    """A figure's own query, parsed once; callers copy it."""
    return lint.read(f"{name}.sql", all_files()[name].sql)


def needs(figure: Figure) -> tuple[str, ...]:
    """The logical inputs that a figure reads, itself or through others, sorted."""
    found: set[str] = set()
    for name in (*figure.inputs, *((figure.then,) if figure.then else ())):
        if name in INPUTS:
            found.add(name)
        elif name in all_files():
            found.update(needs(all_files()[name]))
        elif name != MOVEMENT:
            raise UsageError(f"{figure.name}.sql: {name} is neither an input nor a figure")
    return tuple(sorted(found))


def parameters_of(figure: Figure) -> tuple[str, ...]:
    """All parameters that a figure is asked with, its parts' included; its own first."""
    found = list(figure.parameters)
    for name in (*figure.inputs, *((figure.then,) if figure.then else ())):
        if name in all_files():
            found += parameters_of(all_files()[name])
    return tuple(dict.fromkeys(found))


def compose(
    figure: Figure,
    model: Model,
    *,
    given: Mapping[str, str] | None = None,
    claims: Collection[Any] | str | None = None,
    tables: Callable[[exp.Table], exp.Table] | None = None,
) -> exp.Query:
    """The whole query, in DuckDB's dialect.

    `given` names tables that already hold a figure or input. `claims`: only these claims' rows of the per-claim inputs
    (their keys are spelled for DuckDB, or their list is the parameter of that name).
    `tables` renames the model's tables to what another engine calls them. Raises UsageError for a missing input.
    """
    ctes: dict[str, exp.Query] = {}
    given = given or {}

    def add(name: str) -> None:
        if name in ctes or name == MOVEMENT:
            return
        if name in given:
            ctes[name] = exp.select("*").from_(exp.to_table(given[name], dialect="duckdb"))
        elif name in INPUTS:
            ctes[name] = _chosen(name, hoisted(name, _input(model, name, tables)), claims)
        else:
            ctes[name] = unordered(finished(all_files()[name]))

    def finished(item: Figure) -> exp.Query:
        for needed in item.inputs:
            add(needed)
        query = hoisted(item.name, query_of(item.name).copy())
        if item.then is None:
            return query
        for needed in all_files()[item.then].inputs:
            add(needed)
        ctes[f"{item.name}__{MOVEMENT}"] = query
        part = query_of(item.then).copy()
        _refer(part, {MOVEMENT: f"{item.name}__{MOVEMENT}"})
        return hoisted(f"{item.name}__{item.then}", part)

    def hoisted(name: str, query: exp.Query) -> exp.Query:
        return hoist(name, query, ctes)

    return with_ctes(ctes, finished(figure))


def hoist(name: str, query: exp.Query, ctes: dict[str, exp.Query]) -> exp.Query:
    """The query without its own CTEs: they go into `ctes` under names of their own."""
    clause = query.args.get("with_")
    if clause is None:
        return query
    query.set("with_", None)
    names = {cte.alias: f"{name}__{cte.alias}" for cte in clause.expressions}
    _refer(query, names)
    for cte in clause.expressions:
        _refer(cte.this, names)
        ctes[names[cte.alias]] = cte.this
    return query


def _refer(query: exp.Expr, names: Mapping[str, str]) -> None:
    """Let references to these tables go to their new names, under the alias that the query knows them by."""
    for table in list(query.find_all(exp.Table)):
        if table.name in names and not table.args.get("db"):
            if not table.alias:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name)))
            table.set("this", exp.to_identifier(names[table.name]))


def _input(model: Model, name: str, tables: Callable[[exp.Table], exp.Table] | None) -> exp.Query:
    if name not in model.inputs:
        raise UsageError(f"{model.file}: the model has no {name}")
    query = model.inputs[name].copy()
    if tables is not None:
        names = {cte.alias for cte in query.find_all(exp.CTE)}
        for table in list(query.find_all(exp.Table)):
            if table.name not in names:
                _rename(table, tables)
    return query


def _chosen(name: str, query: exp.Query, claims: Collection[Any] | str | None) -> exp.Query:
    """An input's rows of these claims only, where its rows belong to claims."""
    if claims is None or not INPUTS[name].per_claim:
        return query
    columns = [exp.column(c.name) for c in INPUTS[name].columns]
    if isinstance(claims, str):
        text = f"SELECT UNNEST(${claims})"
    else:
        text = ", ".join(exp.convert(x).sql("duckdb") for x in claims) or "NULL"
    chosen = exp.In(this=exp.column("claim_id"), expressions=[exp.Var(this=text)])  # one node, however many
    return exp.select(*columns).from_(query.subquery("one_input")).where(chosen)


def _rename(table: exp.Table, tables: Callable[[exp.Table], exp.Table]) -> None:
    """The engine's name for a table, under the alias that the query knows it by."""
    named = tables(exp.Table(this=table.this, db=table.args.get("db"), catalog=table.args.get("catalog")))
    alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name))
    named.set("alias", alias)
    table.replace(named)


def unordered(query: exp.Query) -> exp.Query:
    """The query without its ORDER BY."""
    query.set("order", None)
    return query


def with_ctes(ctes: Mapping[str, exp.Query], query: exp.Query) -> exp.Query:
    """The query with these CTEs."""
    if ctes:
        listed = [exp.CTE(this=body, alias=exp.TableAlias(this=exp.to_identifier(name))) for name, body in ctes.items()]
        query.set("with_", exp.With(expressions=listed))
    return query


def render(
    query: exp.Query, dialect: str, *, values: Mapping[str, Any] | None = None, pretty: bool = False
) -> Rendered:
    """SQL text for an engine; with `values`, parameters become literals of their type.

    Raises UsageError for a dialect there is not; sqlglot's UnsupportedError for what a dialect cannot say.
    """
    if dialect not in DIALECTS:
        raise UsageError(f"there is no dialect {dialect}", hint=f"one of: {', '.join(DIALECTS)}")
    marked = query.transform(lambda node: _marked(node, values))
    text = marked.sql(dialect, unsupported_level=ErrorLevel.RAISE, pretty=pretty)
    names = tuple(found[1] for found in _MARK.finditer(text))
    if dialect == "trino":
        return Rendered(_MARK.sub("?", text), names)
    return Rendered(_MARK.sub(r":\1" if dialect == "spark" else r"$\1", text), tuple(sorted(set(names))))


def _marked(node: exp.Expr, values: Mapping[str, Any] | None) -> exp.Expr:
    if not isinstance(node, (exp.Parameter, exp.Placeholder)):
        return node
    if values is None:
        return exp.Placeholder(this=f"ch_{node.name}_hc")
    value = values[node.name]
    return exp.null() if value is None else exp.Literal.string(str(value))


def parses(sql: str, dialect: str) -> exp.Expr:
    """The tree of rendered SQL, read again in its own dialect. Raises sqlglot's ParseError."""
    return sqlglot.parse_one(sql, read=dialect)
