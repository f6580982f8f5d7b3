"""A value's type and text in Trino: what a kind is there, and Debezium's or PostgreSQL's text as a value of it.

Values of the tail are Debezium's text; they are read here as `values` reads them, for the types that SQL can bring
back. What a type cannot hold shows as the lake's stand-in: the first or last moment.
"""

from __future__ import annotations

from claimhouse.distributed.values import HEX
from claimhouse.quoting import quote_text

_KINDS = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double",
    "text": "varchar",
    "bytes": "varbinary",
    "date": "date",
    "timestamp": "timestamp(6)",
    "timestamptz": "timestamp(3) with time zone",  # Trino's Delta connector knows milliseconds
}
_FIRST, _LAST = "0001-01-01 00:00:00.000000", "9999-12-31 23:59:59.999999"


def trino_type(kind: str) -> str:
    """Trino's type of a kind, as its Delta connector shows it. Raises KeyError."""
    if kind.startswith("list<"):
        return f"array({trino_type(kind[5:-1])})"
    return kind if kind.startswith("decimal(") else _KINDS[kind]


def typed_sql(value: str, kind: str, wire: int) -> str:
    """Debezium's text as a value of Trino's type; `value` is SQL that gives the text."""
    kind_sql = trino_type(kind)
    if kind.startswith("list<"):
        return _list_sql(value, kind[5:-1], wire)
    if kind == "bool":
        return f"{value} = 'true'"
    if kind == "bytes":
        return f"from_hex({value})"
    if kind == "text":
        return _plain_text_sql(value, wire)
    if kind.startswith("decimal("):
        return f"TRY_CAST({value} AS {kind_sql})"
    if kind == "date":
        return _far(value, f"CAST(substr({value}, 1, 10) AS date)", f"date '{_FIRST[:10]}'", f"date '{_LAST[:10]}'")
    if kind in ("timestamp", "timestamptz"):
        return _moment_sql(value, kind)
    return f"CAST({value} AS {kind_sql})"


def _moment_sql(value: str, kind: str) -> str:
    text = f"replace(replace({value}, 'T', ' '), 'Z', '')"
    if kind == "timestamp":
        return _far(value, f"CAST({text} AS timestamp(6))", f"timestamp '{_FIRST}'", f"timestamp '{_LAST}'")
    # To the nearest millisecond, as Trino reads the same value from the lake: a flush must change nothing.
    zoned = f"with_timezone(CAST(CAST({text} AS timestamp(6)) AS timestamp(3)), 'UTC')"
    first, last = f"timestamp '{_FIRST[:23]} UTC'", f"timestamp '{_LAST[:23]} UTC'"
    return f"CAST({_far(value, zoned, first, last)} AS timestamp(3) with time zone)"


def _far(value: str, plain: str, first: str, last: str) -> str:
    """The stand-ins for what the type cannot hold; the exact text shows once the row is flushed."""
    return (
        f"CASE WHEN {value} LIKE '-%' OR {value} LIKE '0000%' THEN {first}"
        f" WHEN {value} LIKE '+%' OR {value} = 'infinity' THEN {last} ELSE {plain} END"
    )


def _plain_text_sql(value: str, wire: int) -> str:
    if wire == HEX:
        return f"from_utf8(from_hex({value}))"
    if wire == 1700:
        return (
            f"CASE {value} WHEN 'NAN' THEN 'NaN' WHEN 'POSITIVE_INFINITY' THEN 'Infinity'"
            f" WHEN 'NEGATIVE_INFINITY' THEN '-Infinity' ELSE {value} END"
        )
    if wire == 1083:
        return f"replace({value}, 'Z', '')"
    return value


def _list_sql(value: str, kind: str, wire: int) -> str:
    inner = typed_sql("x", kind, wire)
    return f"transform(CAST(json_parse({value}) AS array(varchar)), x -> {inner})"


def default_sql(text: str, kind: str) -> str:
    """PostgreSQL's text for a column's default as a Trino expression of its type."""
    kind_sql = trino_type(kind)
    if kind == "bool":
        return "true" if text == "t" else "false"
    if kind == "bytes":
        return f"from_hex({quote_text(text[2:])})"
    if kind.startswith("list<"):
        return f"CAST(NULL AS {kind_sql})"
    if kind == "timestamptz":
        return f"TRY_CAST({quote_text(text.removesuffix('+00') + ' UTC')} AS {kind_sql})"
    return f"TRY_CAST({quote_text(text)} AS {kind_sql})"
