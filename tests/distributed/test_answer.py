"""Trino's JSON as Arrow, type by type."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from claimhouse.distributed.answer import reader
from claimhouse.distributed.trino import Page, TrinoError


def kind(name: str, *arguments: Any) -> dict[str, Any]:
    return {"rawType": name, "arguments": [{"kind": "X", "value": a} for a in arguments]}


CASES = [
    (kind("boolean"), True, pa.bool_(), True),
    (kind("smallint"), 7, pa.int16(), 7),
    (kind("bigint"), 9007199254740993, pa.int64(), 9007199254740993),
    (kind("double"), "Infinity", pa.float64(), float("inf")),
    (kind("real"), 1.5, pa.float32(), 1.5),
    (kind("decimal", 12, 2), "1234567.80", pa.decimal128(12, 2), Decimal("1234567.80")),
    (kind("varchar", 2147483647), "ä|b", pa.string(), "ä|b"),
    (kind("varbinary"), "AP8=", pa.binary(), b"\x00\xff"),
    (kind("date"), "2026-01-02", pa.date32(), date(2026, 1, 2)),
    (kind("timestamp", 6), "2026-01-02 03:04:05.123456", pa.timestamp("us"), datetime(2026, 1, 2, 3, 4, 5, 123456)),
    (kind("timestamp with time zone", 3), "2026-01-02 03:04:05.678 UTC", pa.timestamp("us", "UTC"),
     datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)),
    (kind("timestamp with time zone", 3), "2026-07-02 03:04:05.678 Europe/Berlin", pa.timestamp("us", "UTC"),
     datetime(2026, 7, 2, 1, 4, 5, 678000, UTC)),
    (kind("timestamp with time zone", 0), "2026-07-02 03:04:05 +02:00", pa.timestamp("us", "UTC"),
     datetime(2026, 7, 2, 1, 4, 5, 0, UTC)),
    (kind("timestamp", 9), "2026-01-02 03:04:05.123456789", pa.string(), "2026-01-02 03:04:05.123456789"),
    (kind("array", kind("array", kind("decimal", 5, 2))), [["1.50", None], None],
     pa.list_(pa.list_(pa.decimal128(5, 2))), [[Decimal("1.50"), None], None]),
    (kind("map", kind("varchar"), kind("bigint")), {"a": 1}, pa.string(), '{"a": 1}'),
    (kind("unknown"), None, pa.string(), None),
]  # fmt: skip


@pytest.mark.parametrize(("signature", "told", "arrow", "value"), CASES)
def test_a_value_keeps_its_type_and_every_digit(signature: Any, told: Any, arrow: pa.DataType, value: Any) -> None:
    found = reader(iter([Page([], []), Page([{"name": "x", "typeSignature": signature}], [[told], [None]])])).read_all()
    assert found.schema.field("x").type == arrow
    assert found["x"].to_pylist() == [value, None]


def test_an_answer_comes_page_by_page_and_an_empty_one_has_its_columns() -> None:
    columns = [{"name": "n", "typeSignature": kind("integer")}, {"name": "n", "typeSignature": kind("varchar")}]
    batches = list(reader(iter([Page(columns, []), Page(columns, [[1, "a"]]), Page(columns, [[2, "b"], [3, None]])])))
    assert [b.num_rows for b in batches] == [1, 2]
    assert reader(iter([Page(columns, [])])).read_all().schema.names == ["n", "n"]


def test_a_value_that_does_not_fit_is_told_with_the_way_out() -> None:
    columns = [{"name": "far", "typeSignature": kind("date")}]
    with pytest.raises(TrinoError, match="column far") as caught:
        reader(iter([Page(columns, [["+12345-01-01"]])])).read_all()
    assert "varchar" in str(caught.value.hint) and "12345" not in str(caught.value)
