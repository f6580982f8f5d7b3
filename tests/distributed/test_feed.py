"""Debezium's events as the embedded decoder's changes: one update for a key change, missing TOAST named, exact kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from claimhouse.change import Changes, section_schema
from claimhouse.distributed.feed import Events, decode
from claimhouse.table import Column, Table

STAND_IN = "__unchanged_x"
COLUMNS = (
    Column("id", "id", 1, "integer", 23, -1, "int4", key=1),
    Column("note", "note", 2, "text", 25, -1, "text"),
    Column("body", "body", 3, "text", 25, -1, "text"),
    Column("day", "day", 4, "date", 1082, -1, "date"),
)
KEYED = Table("main", "public", "t", 9, 1, "key", COLUMNS)
FULL = replace(KEYED, identity="full", columns=tuple(replace(c, key=0) for c in COLUMNS))
_MAP = pa.map_(pa.string(), pa.string())
ROWS = pa.schema(
    [
        ("xid", pa.int64()),
        ("seq", pa.int64()),
        ("op", pa.string()),
        ("at", pa.int64()),
        ("schema", pa.string()),
        ("name", pa.string()),
        ("before", _MAP),
        ("after", _MAP),
        ("old", _MAP),
        ("end_lsn", pa.int64()),
    ]
)
DONE = pa.schema([("xid", pa.int64()), ("end_lsn", pa.int64()), ("at", pa.int64())])


def image(**values: str | None) -> list[tuple[str, str | None]]:
    return list({"id": None, "note": None, "body": None, "day": None, **values}.items())


def events(*rows: dict[str, Any]) -> Events:
    base = {"xid": 7, "at": 1_000_000, "schema": "public", "name": "t", "end_lsn": 100}
    made = [{**base, "seq": seq, **row} for seq, row in enumerate(rows, 1)]
    ends = sorted({(r["xid"], r["end_lsn"], r["at"]) for r in made}, key=lambda e: e[1])
    done = [dict(zip(DONE.names, e, strict=True)) for e in ends]
    return Events(pa.Table.from_pylist(made, ROWS), pa.Table.from_pylist(done, DONE))


def one(given: Events, table: Table = KEYED) -> Changes:
    decoded = decode(given, lambda schema, name, names, lsn: table, lambda c: c.type_oid, STAND_IN)
    (changes,) = decoded.changes
    assert changes.batch.schema.equals(section_schema(table))
    return changes


def test_inserts_updates_and_deletes_become_typed_rows() -> None:
    batch = one(
        events(
            {"op": "c", "after": image(id="1", note="a", day="2026-01-02Z")},
            {"op": "u", "after": image(id="1", note="b")},
            {"op": "d", "before": image(id="1")},
        )
    ).batch
    assert batch.column("_op").to_pylist() == ["c", "u", "d"]
    assert batch.column("id").to_pylist() == [1, 1, 1]
    assert batch.column("note").to_pylist() == ["a", "b", None]
    assert str(batch.column("day")[0]) == "2026-01-02"
    assert batch.column("_old_id").to_pylist() == [None, None, None]
    assert batch.column("_xid").to_pylist() == [7, 7, 7] and batch.column("_seq").to_pylist() == [1, 2, 3]


def test_a_key_change_is_one_update_with_the_old_key() -> None:
    given = events(
        {"op": "x", "before": image(id="1")},
        {"op": "u", "after": image(id="2", note=STAND_IN), "old": [("id", "1")]},
    )
    batch = one(given).batch
    assert batch.num_rows == 1
    assert (batch.column("id")[0].as_py(), batch.column("_old_id")[0].as_py()) == (2, 1)
    assert batch.column("_missing").to_pylist() == ["note"]


@pytest.mark.case("O3")
def test_values_that_did_not_come_along_are_named_and_not_null_by_accident() -> None:
    batch = one(
        events(
            {"op": "u", "after": image(id="1", note=STAND_IN, body=STAND_IN)},
            {"op": "u", "after": image(id="1", note="x", body=STAND_IN)},
            {"op": "u", "after": image(id="1", note="x", body=None)},
        )
    ).batch
    assert batch.column("_missing").to_pylist() == ["note,body", "body", None]
    assert batch.column("body").to_pylist() == [None, None, None]


def test_with_full_identity_the_old_image_is_kept_and_fills_what_is_missing() -> None:
    given = events({"op": "u", "before": image(id="1", note="long"), "after": image(id="2", note=STAND_IN)})
    batch = one(given, FULL).batch
    assert batch.column("note").to_pylist() == ["long"]
    assert batch.column("_missing").to_pylist() == [None]
    assert (batch.column("_old_id").to_pylist(), batch.column("_old_note").to_pylist()) == ([1], ["long"])


def test_a_value_that_its_kind_cannot_hold_is_kept_as_exact_text() -> None:
    batch = one(events({"op": "c", "after": image(id="1", day="+5877611-06-21Z")})).batch
    assert batch.column("_exact").to_pylist() == [[("day", "infinity")]]


def test_each_set_of_columns_gets_its_own_shape() -> None:
    asked: list[frozenset[str]] = []

    def resolve(schema: str, name: str, names: frozenset[str], lsn: int) -> Table:
        asked.append(names)
        return KEYED

    given = events(
        {"op": "c", "after": [("id", "1"), ("note", "a")]},
        {"op": "d", "before": [("id", "1"), ("note", None)]},
        {"op": "c", "after": image(id="2")},
    )
    decoded = decode(given, resolve, lambda c: c.type_oid, STAND_IN)
    assert asked == [frozenset({"id", "note"}), frozenset({"id", "note", "body", "day"})]
    assert [c.batch.num_rows for c in decoded.changes] == [2, 1]


def test_transactions_that_changed_rows_are_counted_per_table() -> None:
    given = events(
        {"op": "c", "after": image(id="1")},
        {"op": "m", "name": None, "xid": 8, "end_lsn": 200},
        {"op": "c", "after": image(id="2"), "xid": 9, "end_lsn": 300},
    )
    decoded = decode(given, lambda *_: KEYED, lambda c: c.type_oid, STAND_IN)
    assert decoded.transactions is not None
    assert decoded.transactions.column("xid").to_pylist() == [7, 9]
    assert decoded.transactions.column("counts").to_pylist() == [[("public/t", 1)], [("public/t", 1)]]
    assert decoded.end_lsn == 300


@pytest.mark.case("R12")
def test_a_value_that_cannot_be_kept_stops_its_table_alone() -> None:
    given = events({"op": "c", "after": image(id="no number")})
    decoded = decode(given, lambda *_: KEYED, lambda c: c.type_oid, STAND_IN)
    assert decoded.changes == []
    ((table, lsn, message),) = decoded.errors
    assert (table.label, lsn) == ("public.t", 100)
    assert "no number" not in message
