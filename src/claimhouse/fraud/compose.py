"""Puts a rule and the parts that it reads into one query, for one engine.

In the mirror (mirror.py) a model's inputs are views, and a rule is one SELECT over them. For other engines the inputs
come along as CTEs, so that the same text can be run or shown anywhere; all CTEs stand on one level, because SQLGlot
flattens nested ones for Spark, where equal names then meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlglot import exp

from claimhouse.errors import UsageError
from claimhouse.fraud.inputs import INPUTS, MADE
from claimhouse.fraud.rule import Rule, all_files, part
from claimhouse.marts import lint
from claimhouse.marts.compose import hoist, unordered, with_ctes
from claimhouse.marts.compose import render as _render
from claimhouse.marts.model import Model

_ALSO = ("not in the subset: REPLACE",)


def findings(sql: str, name: str) -> list[str]:
    """What of a rule's SQL lies outside the subset, in words."""
    found = lint.findings(lint.read(name, sql), ordered=False)
    return [text for text in found if text not in _ALSO]


def needs(rule: Rule) -> tuple[str, ...]:
    """The logical inputs that a rule reads, itself or through parts, sorted; without those that are made."""
    found: set[str] = set()
    for name in (*rule.inputs, *((rule.then,) if rule.then else ())):
        if name in INPUTS:
            found.add(name)
        elif name in all_files():
            found.update(needs(part(name)))
        elif name not in MADE and name != "none":
            raise UsageError(f"{rule.name}.sql: {name} is neither an input nor a part")
    return tuple(sorted(found))


def tables(rule: Rule, model: Model) -> frozenset[str]:
    """The insurer's tables whose changes concern a rule."""
    return frozenset(table for name in needs(rule) for table in model.tables(name))


SUBJECT = "SELECT c.claim_id FROM claim_input AS c"
NO_COMPONENTS = "SELECT c.claim_id, 0 AS component FROM claim_input AS c WHERE 1 = 0"


def query(rule: Rule, model: Model | None = None, components: str = NO_COMPONENTS) -> exp.Query:
    """The whole query in DuckDB's dialect, parameters as `$name`, its CTEs all on one level under names of their own.

    With `model` its inputs are part of it, and every claim is scored; `components` is then SQL of `component_input`
    (graph.py finds them, SQL cannot).
    """
    ctes: dict[str, exp.Query] = {}

    def add(name: str, sql: str) -> None:
        ctes[name] = unordered(hoist(name, lint.read(name, sql), ctes))

    def parts(of: Rule) -> None:
        for name in of.inputs:
            if name in all_files() and name not in ctes:
                parts(part(name))
                add(name, part(name).sql)

    if model is not None:
        for name in needs(rule):
            add(name, model.inputs[name].sql("duckdb"))
        add("claim_input", model.inputs["claim_input"].sql("duckdb"))
        add("subject", SUBJECT)
        add("component_input", components)
    parts(rule)
    if not rule.then:
        return with_ctes(ctes, hoist(rule.name, lint.read(rule.name, rule.sql), ctes))
    parts(part(rule.then))
    add("member", rule.sql)
    return with_ctes(ctes, hoist(rule.then, lint.read(rule.then, part(rule.then).sql), ctes))


def render(
    rule: Rule,
    engine: str = "duckdb",
    model: Model | None = None,
    pretty: bool = False,
    components: str = NO_COMPONENTS,
) -> str:
    """A rule's SQL for an engine, with its parameters' values in it. Raises UsageError."""
    if model is None:
        return _over_inputs(rule, engine, pretty)
    return _render(query(rule, model, components), engine, values=rule.values, pretty=pretty).sql


@lru_cache(maxsize=256)
def _over_inputs(rule: Rule, engine: str, pretty: bool) -> str:
    """Kept, because every scorer asks for every rule and writing one takes milliseconds."""
    return _render(query(rule), engine, values=rule.values, pretty=pretty).sql


def of_text(
    sql: str, values: Mapping[str, Any], name: str = "part", engine: str = "duckdb", pretty: bool = False
) -> str:
    """SQL text for an engine, its parameters replaced by these values. Raises UsageError."""
    return _render(lint.read(name, sql), engine, values=values, pretty=pretty).sql


def renamed(sql: str, tables: Mapping[str, str]) -> str:
    """DuckDB SQL that reads other tables in the place of these."""
    query = lint.read("renamed", sql)
    for table in query.find_all(exp.Table):
        if table.name in tables:
            table.set("this", exp.to_identifier(tables[table.name]))
    return query.sql("duckdb")
