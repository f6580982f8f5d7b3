"""A table's state, computed by SQL from any log and any base, equals what the table was."""

from __future__ import annotations

import random
from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from tests.lake.book import Book, found

from claimhouse.lake.current import state_schema
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.relation import empty_sql
from claimhouse.lake.state import state_columns, state_sql
from claimhouse.table import Column, Table


def run(book: Book, log: pa.Table, lsn: int, base: pa.Table | None = None) -> pa.Table:
    copy = book.state.copy_at(lsn)
    assert copy is not None
    conn = duckdb.connect(config={"threads": 1})
    conn.register("log_rows", log)
    if base is not None:
        conn.register("base_rows", base)
    shape = book.state.shape_at(lsn)
    relation = None if base is None else f"({empty_sql(state_schema(shape))} UNION ALL BY NAME SELECT * FROM base_rows)"
    sql = state_sql(book.state, log="log_rows", base=relation, copy=copy, upto=(1, lsn), shape=shape)
    return conn.sql(sql).to_arrow_table()


@pytest.mark.case("L5", "O4")
@pytest.mark.parametrize("identity", ["key", "full", "none"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_state_at_any_position_is_the_source_then(identity: str, seed: int) -> None:
    book = Book(random.Random(seed), identity)
    book.play(40)
    rng = random.Random(seed + 1)
    positions = book.visible()
    if identity == "none":  # later updates and deletes are not captured: only until the first of them
        positions = [p for p in positions if len(book.truth[p]) == 0][:1]
    log = book.table(book.log)
    for lsn in rng.sample(positions, min(3, len(positions))):
        state = run(book, log, lsn)
        note(f"at {lsn}, log {[(r['_op'], r['_end_lsn'], r['_copy'], r.get('id')) for r in book.log]}")
        assert state.column_names == state_columns(book.state.shape_at(lsn))
        assert state["_missing"].null_count == state.num_rows
        if identity != "none":
            assert found(state.to_pylist(), book.state.shape_at(lsn)) == book.shown(lsn)


@pytest.mark.parametrize("identity", ["key", "full"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_base_and_the_log_after_it_give_the_same_state(identity: str, seed: int) -> None:
    book = Book(random.Random(seed), identity)
    book.play(40)
    rng = random.Random(seed + 1)
    positions = book.visible()
    lsn = rng.choice(positions)
    earlier = [p for p in positions if p <= lsn and book.state.copy_at(p) is book.state.copy_at(lsn)]
    base_at = rng.choice(earlier)
    log = book.table(book.log)
    base = run(book, log, base_at)
    after = book.table([r for r in book.log if r["_cut"] > base_at // 10])
    assert found(run(book, after, lsn, base).to_pylist(), book.state.shape_at(lsn)) == book.shown(lsn)


def test_the_sql_of_a_wide_table_grows_with_its_columns_alone() -> None:
    def size(columns: int) -> int:
        wide = tuple(
            Column(
                f"c{n}", f"c{n}", n + 1, "numeric(12,2)", 1700, 786438, "decimal(12,2)", key=int(not n), missing="NaN"
            )
            for n in range(columns)
        )
        tables = [
            Table("main", "public", "wide", 1, v, "key", tuple(replace(c, since=v) for c in wide)) for v in (1, 2)
        ]
        copy = Copy(1, 1, 0, exact_from=0)
        state = TableState(1, "public", "wide", "public/wide", "live", versions=tables, since=[0, 1], copies=[copy])
        return len(state_sql(state, log="log", copy=copy))

    assert size(16) < 2.5 * size(8)
