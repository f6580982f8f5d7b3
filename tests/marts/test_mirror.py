"""What log rows come to: rows that go and rows that stand, without those that stay as they were."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest

from claimhouse.marts.mirror import apply, settle


@pytest.fixture
def tables() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("CREATE TABLE t AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) v(id, name)")
    connection.execute("CREATE TABLE line AS SELECT * FROM (VALUES (1, 1, 'a'), (1, 2, 'b')) v(id, no, name)")
    return connection


def _log(*rows: tuple[Any, ...]) -> pa.Table:
    """Rows of (op, id, name, old id)."""
    return pa.table({n: [r[i] for r in rows] for i, n in enumerate(("_op", "id", "name", "_old_id"))}).cast(
        pa.schema([("_op", pa.string()), ("id", pa.int32()), ("name", pa.string()), ("_old_id", pa.int32())])
    )


@pytest.mark.parametrize(
    ("rows", "before", "after", "left"),
    [
        ([("c", 4, "d", None)], [], [(4, "d")], [(1, "a"), (2, "b"), (3, None), (4, "d")]),
        ([("u", 1, "a", None), ("u", 3, None, None)], [], [], [(1, "a"), (2, "b"), (3, None)]),
        ([("u", 1, "z", None), ("u", 1, "y", None)], [(1, "a")], [(1, "y")], [(1, "y"), (2, "b"), (3, None)]),
        ([("u", 1, "z", None), ("u", 1, "a", None)], [], [], [(1, "a"), (2, "b"), (3, None)]),
        ([("d", 2, None, None)], [(2, "b")], [], [(1, "a"), (3, None)]),
        ([("c", 4, "d", None), ("d", 4, None, None)], [], [], [(1, "a"), (2, "b"), (3, None)]),
        ([("u", 9, "a", 1)], [(1, "a")], [(9, "a")], [(2, "b"), (3, None), (9, "a")]),
        ([("u", 9, "a", 1), ("c", 1, "new", None)], [(1, "a")], [(1, "new"), (9, "a")], None),
    ],
)
def test_log_rows_come_to_what_goes_and_what_stands(
    tables: duckdb.DuckDBPyConnection, rows: Any, before: Any, after: Any, left: Any
) -> None:
    settled = settle(tables, "t", ("id",), _log(*rows), sure=False)
    assert sorted(tuple(r.values()) for r in settled.before.to_pylist()) == before
    assert sorted(tuple(r.values()) for r in settled.after.to_pylist()) == after
    apply(tables, "t", settled)
    left = left or sorted([(2, "b"), (3, None), *after])
    assert tables.sql("FROM t ORDER BY id").fetchall() == left


def test_keys_of_several_columns_tell_rows_apart(tables: duckdb.DuckDBPyConnection) -> None:
    rows = pa.table(
        {"_op": ["u", "d"], "id": [1, 1], "no": [2, 1], "name": ["c", None], "_old_id": [1, None], "_old_no": [2, None]}
    )
    apply(tables, "line", settle(tables, "line", ("id", "no"), rows, sure=True))
    assert tables.sql("FROM line").fetchall() == [(1, 2, "c")]
