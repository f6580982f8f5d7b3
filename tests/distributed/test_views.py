"""The views' SQL: valid for Trino, pinned to a flush's versions, and with the columns of the shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import sqlglot

from claimhouse.distributed.views import Behind, view_sql
from claimhouse.lake.flushes import TableRecord
from claimhouse.lake.registry import Copy, TableState
from claimhouse.table import Column, Table

COLUMNS = (
    Column("id", "id", 1, "integer", 23, -1, "int4", key=1),
    Column("note", "note", 2, "text", 25, -1, "text"),
    Column("at", "at", 3, "timestamptz", 1184, -1, "timestamptz"),
    Column("tags", "tags", 4, "text[]", 25, -1, "list<text>"),
    Column("currency", "currency", 5, "text", 25, -1, "text", missing="it's EUR", since=2),
)
TABLE = Table("main", "public", "claim", 9, 2, "key", COLUMNS)


def state(identity: Literal["key", "full", "none"] = "key", exact_from: int | None = 20) -> TableState:
    table = replace(TABLE, identity=identity)
    made = TableState(9, "public", "claim", table.folder, "live", versions=[table], since=[0])
    made.copies.append(Copy(1, 1, 10, exact_from))
    return made


def behind(changes: int | None = 3, current: int | None = None) -> Behind:
    record = TableRecord(changes=changes, current=current, current_lsn=77, current_incarnation=1, current_copy=1)
    names = {"_op", "_end_lsn", "id", "note", "at", "_old_id"}
    return Behind("claimhouse", "main", record, names, names, 12, 99, 70, "__unchanged", lambda c: c.type_oid)


@pytest.mark.parametrize("identity", ["key", "full", "none"])
@pytest.mark.parametrize("versions", [(3, None), (3, 5), (None, None)])
def test_every_kind_of_table_gets_a_statement_that_parses(
    identity: Literal["key", "full", "none"], versions: tuple[int | None, int | None]
) -> None:
    sql = view_sql(state(identity), behind(*versions))
    assert sql is not None
    shown = sqlglot.parse_one(sql, dialect="trino").named_selects
    assert shown == [*(c.physical for c in COLUMNS), "_end_lsn", "_committed_at", "_missing"]


def test_what_the_flush_holds_is_pinned_and_the_tail_is_read_beyond_the_flush() -> None:
    sql = view_sql(state(), behind(3, 5)) or ""
    assert '"main__public__log"."claim" WHERE _cut <= 12' in sql
    assert '"main__public__current"."claim" FOR VERSION AS OF 5' in sql
    assert "end_lsn > 99" in sql and "era >= 4 AND batch >= 70" in sql
    assert sql.count("'row'") == 2, "the tail's rows are read once"
    assert "_end_lsn > 77" in sql, "the log counts above the position of current"


def test_a_table_whose_copy_is_under_way_is_not_shown() -> None:
    assert view_sql(state(exact_from=None), behind()) is None


def test_a_current_that_was_folded_from_another_copy_is_no_ground() -> None:
    known = state()
    known.copies.append(Copy(2, 1, 80, 90))
    sql = view_sql(known, behind(3, 5)) or ""
    assert "__current" not in sql and "_op = 'r' AND _copy = 2" in sql and "_end_lsn > 80" in sql


def test_a_value_counts_only_within_the_life_of_its_row() -> None:
    """A key that another row had before: what that one left behind is not this row's."""
    sql = view_sql(state(), behind()) or ""
    assert "max(_at) FILTER (WHERE _begins) AS _begun" in sql
    assert 'WHEN n._begun IS NULL THEN g."note"' in sql
