"""Trino's answers as Arrow: each column by Trino's own type, page by page, so that memory follows the page.

Values come as JSON; decimals, dates and times are text there, bytes are base64. Types that Arrow has no equal for
(JSON, rows, intervals, times of day) stay the text that Trino writes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from claimhouse.distributed.trino import Page, TrinoError

Reads = Callable[[Any], Any]
_SIMPLE: dict[str, tuple[pa.DataType, Reads]] = {
    "boolean": (pa.bool_(), bool),
    "tinyint": (pa.int8(), int),
    "smallint": (pa.int16(), int),
    "integer": (pa.int32(), int),
    "bigint": (pa.int64(), int),
    "real": (pa.float32(), float),
    "double": (pa.float64(), float),
    "varbinary": (pa.binary(), base64.b64decode),
    "date": (pa.date32(), date.fromisoformat),
}


def reader(pages: Iterator[Page]) -> pa.RecordBatchReader:
    """The answer in batches. Raises TrinoError, QueryError while it is read."""
    first = next((p for p in pages if p.columns), None)
    if first is None:
        return pa.RecordBatchReader.from_batches(pa.schema([]), iter(()))
    kinds = [_kind(c["typeSignature"]) for c in first.columns]
    schema = pa.schema([pa.field(c["name"], kind) for c, (kind, _) in zip(first.columns, kinds, strict=True)])
    reads = [read for _, read in kinds]

    def batches() -> Iterator[pa.RecordBatch]:
        if first.rows:
            yield _batch(first.rows, schema, reads)
        for page in pages:
            if page.rows:
                yield _batch(page.rows, schema, reads)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _batch(rows: list[list[Any]], schema: pa.Schema, reads: list[Reads]) -> pa.RecordBatch:
    arrays: list[pa.Array] = []
    for values, read, column in zip(zip(*rows, strict=True), reads, schema, strict=True):
        try:
            arrays.append(pa.array([None if v is None else read(v) for v in values], column.type))
        except (ValueError, OverflowError, ArithmeticError):
            raise TrinoError(
                f"column {column.name} has a value that {column.type} cannot hold", hint="CAST it AS varchar"
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _kind(signature: dict[str, Any]) -> tuple[pa.DataType, Reads]:
    """(Arrow's type, how a value is read) of a type as Trino's protocol describes it."""
    name, arguments = signature["rawType"], [a["value"] for a in signature.get("arguments", ())]
    if name in _SIMPLE:
        return _SIMPLE[name]
    if name == "decimal":
        return pa.decimal128(*arguments), Decimal
    if name == "timestamp" and arguments[0] <= 6:
        return pa.timestamp("us"), datetime.fromisoformat
    if name == "timestamp with time zone" and arguments[0] <= 6:
        return pa.timestamp("us", tz="UTC"), _zoned
    if name == "array":
        kind, read = _kind(arguments[0])
        return pa.list_(kind), lambda values: [None if v is None else read(v) for v in values]
    return pa.string(), _text


def _zoned(text: str) -> datetime:
    """`2026-01-02 03:04:05.678 Europe/Berlin`, or with +01:00 for the zone."""
    clock, _, zone = text.rpartition(" ")
    if zone[:1] in "+-":
        return datetime.fromisoformat(clock + zone)
    return datetime.fromisoformat(clock).replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
