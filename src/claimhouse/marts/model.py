"""A model file says where an insurer's own tables hold what figures read: one SELECT per logical input.

    [model]
    name = "demo"
    title = "the demo claims book"

    [inputs]
    claim_input = "SELECT claim_id, … FROM claim"

    [changed]                       # optional: whose claims a changed row touches, for figures kept fresh
    payment_line = "SELECT p.claim_id FROM changed AS c INNER JOIN payment AS p ON p.payment_id = c.payment_id"

The SELECTs are written in the figures' subset of SQL (see lint.py), so that a model too runs on all three engines. An
input that the model leaves out, or whose tables are not there, turns off the figures that need it, and no others.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlglot import exp

from claimhouse.errors import SettingsError, UsageError
from claimhouse.marts import lint
from claimhouse.marts.inputs import INPUTS, Input, InputColumn


class ModelError(SettingsError):
    """A model file does not fill an input as its columns are documented."""


@dataclass(frozen=True)
class Model:
    """A model file: the query of each input that it has, and of each table's touched claims."""

    name: str
    title: str
    file: str
    inputs: dict[str, exp.Query]
    changed: dict[str, exp.Query] = field(default_factory=dict)

    def tables(self, name: str) -> list[str]:
        """The insurer's tables that an input reads, as written."""
        query = self.inputs[name]
        ctes = {cte.alias for cte in query.find_all(exp.CTE)}
        return sorted({t.sql("duckdb") for t in map(_bare, query.find_all(exp.Table)) if t.name not in ctes})


def _bare(table: exp.Table) -> exp.Table:
    return exp.Table(this=table.this, db=table.args.get("db"), catalog=table.args.get("catalog"))


def shipped() -> list[str]:
    """Names of the models that come with claimhouse."""
    return sorted(x.name[:-5] for x in (files("claimhouse.marts") / "models").iterdir() if x.name.endswith(".toml"))


def load(model: str | Path) -> Model:
    """A shipped model by name, or a model file by path. Raises ModelError naming file, input and column."""
    text = str(model)
    if text in shipped():
        return parse((files("claimhouse.marts") / "models" / f"{text}.toml").read_text(), f"{text}.toml")
    path = Path(text)
    if not path.is_file():
        raise ModelError(f"there is no model {text}", hint=f"a .toml file, or one of: {', '.join(shipped())}")
    return parse(path.read_text(), str(path))


def parse(text: str, file: str) -> Model:
    """The model of a file's text; `file` is its name in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{file}: {error}") from error
    head = _table(data, "model", file)
    if unknown := sorted(set(data) - {"model", "inputs", "changed"}):
        raise ModelError(f"{file}: unknown section [{unknown[0]}]", hint="there are [model], [inputs] and [changed]")
    inputs = {name: read_input(name, sql, file, INPUTS) for name, sql in _table(data, "inputs", file).items()}
    changed = {name: read_query(f"changed.{name}", sql, file) for name, sql in data.get("changed", {}).items()}
    for name, query in changed.items():
        if query.named_selects != ["claim_id"]:
            raise ModelError(f"{file}: changed.{name}: it must select claim_id and nothing else")
    return Model(str(head.get("name", Path(file).stem)), str(head.get("title", "")), file, inputs, changed)


def _table(data: dict[str, Any], name: str, file: str) -> dict[str, Any]:
    if not isinstance(data.get(name), dict):
        raise ModelError(f"{file}: the section [{name}] is missing")
    return data[name]


def read_input(name: str, sql: Any, file: str, inputs: Mapping[str, Input]) -> exp.Query:
    """A model's SELECT for one of `inputs`, with all of its columns. Raises ModelError."""
    if name not in inputs:
        raise ModelError(f"{file}: {name} is not an input", hint=f"inputs: {', '.join(inputs)}")
    query = read_query(name, sql, file)
    have = query.named_selects
    for column in inputs[name].columns:
        if column.name not in have:
            raise ModelError(f"{file}: {name}: the column {column.name} is missing", hint=_wanted(column))
    return query


def read_query(name: str, sql: Any, file: str) -> exp.Query:
    """A SELECT of a model file, within the figures' subset. Raises ModelError."""
    if not isinstance(sql, str):
        raise ModelError(f"{file}: {name}: it must be a SELECT in quotes")
    try:
        query = lint.read(name, sql)
    except UsageError as error:
        raise ModelError(f"{file}: {error}") from error
    if found := lint.findings(query, ordered=False):
        raise ModelError(f"{file}: {name}: {found[0]}", hint="models are written in the figures' subset of SQL")
    return query


def columns(model: Model) -> dict[str, set[str]]:
    """The insurer's tables that a model reads, each with the columns that its queries name.

    Raises ModelError for a column that no alias places.
    """
    found: dict[str, set[str]] = {}
    for name, query in {**model.inputs, **{f"changed.{t}": q for t, q in model.changed.items()}}.items():
        ctes = {cte.alias for cte in query.find_all(exp.CTE)}
        for select in query.find_all(exp.Select):
            own = name.removeprefix("changed.")
            names = {t.alias_or_name: own if t.name == "changed" else t.sql("duckdb", comments=False)
                     for t in select.find_all(exp.Table) if t.parent_select is select}  # fmt: skip
            names = {alias: text.split(" AS ")[0] for alias, text in names.items()}
            for column in select.find_all(exp.Column):
                if column.parent_select is not select:
                    continue
                if column.table not in names:
                    raise ModelError(f"{model.file}: {name}: write {column.name} with its table's alias")
                if names[column.table] not in ctes:
                    found.setdefault(names[column.table], set()).add(column.name)
    return found


def _wanted(column: InputColumn) -> str:
    return f"{column.name}: {column.kind}{', NULL allowed' if column.nullable else ''}; {column.meaning}"


_FITS = {
    "key": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "VARCHAR", "UUID"),
    "text": ("VARCHAR",),
    "date": ("DATE",),
    "moment": ("TIMESTAMP",),
    "money": ("DECIMAL", "TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    "count": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
}


def check_types(model: Model, name: str, types: dict[str, str]) -> None:
    """Raises ModelError where a column of an input (name -> DuckDB type) is not of its documented kind."""
    for column in INPUTS[name].columns:
        found = types[column.name]
        if found == '"NULL"' and column.nullable:
            continue
        if found.split("(")[0] not in _FITS[column.kind]:
            raise ModelError(
                f"{model.file}: {name}: {column.name} is {found}, not a {column.kind}", hint=_wanted(column)
            )
