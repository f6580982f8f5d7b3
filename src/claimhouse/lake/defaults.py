"""What rows older than a column show in it: pg_attribute.attmissingval's text as an SQL literal of the column's kind.

ADD COLUMN … DEFAULT rewrites nothing: older rows have the value only by this rule (`_schema` < `since`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from claimhouse.quoting import quote, quote_text
from claimhouse.table import Column, Table, arrow_type

_TYPES = {
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "binary": "BLOB",
    "date32[day]": "DATE",
    "timestamp[us]": "TIMESTAMP",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}
_MOMENTS = ("date", "timestamp", "timestamptz")
_PLAIN_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T][\d:.]+([+-][\d:]+)?)?\Z")
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,"{}]+)')


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's type of an Arrow type of the log. Raises KeyError."""
    if pa.types.is_list(kind):
        return sql_type(kind.value_type) + "[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    return _TYPES[str(kind)]


def duck_type(kind: str) -> str:
    """DuckDB's type of a kind. Raises KeyError."""
    return sql_type(arrow_type(kind))


def literal(text: str | None, kind: str) -> tuple[str, str | None]:
    """(SQL literal, exact text or None) of PostgreSQL's text for a value of a kind."""
    kind_sql = duck_type(kind)
    if text is None:
        return f"CAST(NULL AS {kind_sql})", None
    if kind == "bytes":
        return f"from_hex({quote_text(text.removeprefix(chr(92) + 'x'))})", None
    if kind in _MOMENTS and not _PLAIN_MOMENT.match(text):
        early = text.startswith("-") or text.endswith("BC")
        return f"CAST('{'0001-01-01' if early else '9999-12-31 23:59:59.999999'}' AS {kind_sql})", text
    if kind.startswith("decimal(") and text.strip("-").lower() in ("nan", "infinity"):
        return f"CAST(NULL AS {kind_sql})", text
    if kind.startswith("list<"):
        return _list_literal(text, kind[5:-1], kind_sql)
    return f"CAST({quote_text(text)} AS {kind_sql})", None


def _list_literal(text: str, element: str, kind_sql: str) -> tuple[str, str | None]:
    inner = text[1:-1]
    if not text.startswith("{") or _outside_quotes(inner, "{"):
        return f"CAST(NULL AS {kind_sql})", text  # odd bounds or several dimensions
    items = [literal(_item(m), element) for m in _ITEM.finditer(inner)]
    if any(exact for _, exact in items):
        return f"CAST(NULL AS {kind_sql})", text
    return f"CAST([{', '.join(sql for sql, _ in items)}] AS {kind_sql})", None


def _outside_quotes(text: str, char: str) -> bool:
    return char in re.sub(r'"(?:[^"\\]|\\.)*"', "", text)


def _item(found: re.Match[str]) -> str | None:
    if found[2] is not None:
        return None if found[2].upper() == "NULL" else found[2]
    return re.sub(r"\\(.)", r"\1", found[1])


def filled(column: Column, row: str = "", name: str = "") -> str:
    """A column's value as its table shows it; `row`: the relation's alias, `name`: another column that keeps it."""
    at = f"{row}." if row else ""
    value = f"{at}{quote(name or column.physical)}"
    if column.missing is None or column.since <= 1:
        return value
    return f"CASE WHEN {at}_schema < {column.since} THEN {literal(column.missing, column.kind)[0]} ELSE {value} END"


def filled_exact(table: Table, row: str = "") -> str:
    """The `_exact` that belongs to the filled columns."""
    at = f"{row}." if row else ""
    added: list[tuple[Column, str, str]] = []
    for column in table.columns:
        exact = literal(column.missing, column.kind)[1] if column.missing is not None else None
        if exact is not None and column.since > 1:
            added.append((column, f"{at}_schema < {column.since}", quote_text(exact)))
    return with_exact(f"{at}_exact", added)


def with_exact(exact: str, added: Sequence[tuple[Column, str, str]]) -> str:
    """`_exact` with further (column, condition, text), each where its condition holds; the text is not NULL there."""
    if not added:
        return exact
    entries = ", ".join(
        f"{{'k': {quote_text(column.physical)}, 'v': CASE WHEN {condition} THEN {text} END}}"
        for column, condition, text in added
    )
    # No column is called as the lambda's parameter is: it would be taken for the column.
    more = f"map_from_entries(list_filter([{entries}], lambda _added: _added.v IS NOT NULL))"
    some = " OR ".join(f"({condition})" for _, condition, _ in added)
    return f"CASE WHEN {some} THEN map_concat(coalesce({exact}, MAP {{}}), {more}) ELSE {exact} END"
