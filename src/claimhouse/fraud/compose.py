"""Puts a rule and the parts that it reads into one query, for one engine.

In the mirror (mirror.py) a model's inputs are views, and a rule is one SELECT over them. For other engines the inputs
come along as CTEs, so that the same text can be run or shown anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from claimhouse.errors import UsageError
from claimhouse.fraud.inputs import INPUTS, MADE
from claimhouse.fraud.rule import Rule, all_files, part
from claimhouse.marts import lint
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


def _parts(rule: Rule, into: dict[str, str]) -> dict[str, str]:
    for name in rule.inputs:
        if name in all_files() and name not in into:
            _parts(part(name), into)
            into[name] = part(name).sql
    return into


def text(rule: Rule, model: Model | None = None) -> str:
    """The whole query in DuckDB's dialect, parameters as `$name`; with `model` its inputs are part of it."""
    ctes: dict[str, str] = {}
    for name in needs(rule) if model is not None else ():
        ctes[name] = model.inputs[name].sql("duckdb")  # type: ignore[union-attr]
    _parts(rule, ctes)
    body = rule.sql
    if rule.then:
        _parts(part(rule.then), ctes)
        ctes["member"], body = body, part(rule.then).sql
    if not ctes:
        return body
    return f"WITH {', '.join(f'{n} AS ({sql})' for n, sql in ctes.items())} SELECT * FROM ({body}) AS found"


def render(rule: Rule, engine: str = "duckdb", model: Model | None = None, pretty: bool = False) -> str:
    """A rule's SQL for an engine, with its parameters' values in it. Raises UsageError."""
    return of_text(text(rule, model), rule.values, f"{rule.name}.sql", engine, pretty)


def of_text(
    sql: str, values: Mapping[str, Any], name: str = "part", engine: str = "duckdb", pretty: bool = False
) -> str:
    """SQL text for an engine, its parameters replaced by these values. Raises UsageError."""
    query: exp.Query = lint.read(name, sql)
    return _render(query, engine, values=values, pretty=pretty).sql
