"""The printed snippets run as they stand and give what a session gives at the flush."""

from __future__ import annotations

import ast
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from tests.query.book import Book

from claimhouse.errors import UsageError
from claimhouse.query.recipes import ENGINES, recipes
from claimhouse.query.session import Session
from claimhouse.table import Column, Table, encode_name

COLUMNS = {"id": "int8", "Part no": "text", "amount": "decimal(12,2)", "_op": "text", 'say """': "text"}
NAME = 'Odd "table"'


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "lake")


def odd_table(book: Book, **options: Any) -> Table:
    rows = [{"id": n, "Part no": f"p{n}", "amount": Decimal(n), "_op": "x"} for n in range(6)]
    return book.table(NAME, COLUMNS, key=options.pop("key", ("Part no", "id")), rows=rows, **options)


def run(snippet: str) -> list[Any]:
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    found = scope[encode_name(NAME)]
    found = found.collect() if hasattr(found, "collect") else found
    table = found.to_arrow() if hasattr(found, "to_arrow") else found.to_arrow_table()
    assert table.column_names == list(COLUMNS)
    return sorted(zip(*(c.to_pylist() for c in table.columns), strict=True), key=repr)


def expected(book: Book) -> list[Any]:
    with Session(book.lake, at=f"cut:{book.record.cut}") as session:
        table = session.table(NAME).arrow()
    return sorted(zip(*(c.to_pylist() for c in table.columns), strict=True), key=repr)


def agree(book: Book) -> None:
    rows = expected(book)
    assert rows
    found = recipes(book.lake, NAME)
    assert list(found) == ["polars", "duckdb", "spark", "trino", "dbt"]
    assert run(found["duckdb"]) == rows
    assert run(found["polars"]) == rows


def folded(book: Book, table: Table) -> None:
    book.cut()
    book.flush()
    book.fold(table)


def changed(book: Book, table: Table) -> None:
    book.commit(
        ("u", table, {"id": 1, "Part no": "p1", "amount": Decimal("9.50"), "_op": "y"}),
        ("d", table, {"id": 2, "Part no": "p2"}),
        ("u", table, {"id": 3, "Part no": "moved", "_op": "z"}, {"Part no": "p3", "id": 3}),
        ("c", table, {"id": 3, "Part no": "p3", "_op": "again"}),
        ("u", table, {"id": 4, "Part no": "gone"}, {"Part no": "p4", "id": 4}),
        ("d", table, {"id": 4, "Part no": "gone"}),
        ("c", table, {"id": 8, "Part no": "p8"}),
    )
    book.commit(("u", table, {"id": 8, "Part no": "p8", "_op": "last"}))


def test_a_folded_table_is_read_plainly(book: Book) -> None:
    folded(book, odd_table(book))
    agree(book)
    assert "WITH" not in recipes(book.lake, NAME, "duckdb")["duckdb"]


def test_changes_since_the_fold_are_overlaid_and_the_tail_is_left_out(book: Book) -> None:
    table = odd_table(book)
    folded(book, table)
    changed(book, table)
    book.cut()
    book.flush()
    book.commit(("d", table, {"id": 0, "Part no": "p0"}))
    book.cut()
    agree(book)
    assert len(expected(book)) == 6
    assert "FOR VERSION AS OF" in recipes(book.lake, NAME, "trino")["trino"]


def test_what_plain_sql_cannot_overlay_is_left_to_claimhouses_own_query(book: Book) -> None:
    table = odd_table(book)
    folded(book, table)
    book.commit(("u", table, {"id": 1, "Part no": "p1", "amount": Decimal(3)}, None, ["_op"]))
    book.commit(("u", table, {"id": 7, "Part no": "p1"}, {"Part no": "p1", "id": 1}, ["_op", "amount"]))
    book.cut()
    book.flush()
    agree(book)
    assert "left unchanged large values out" in recipes(book.lake, NAME, "spark")["spark"]


@pytest.mark.parametrize("how", ["truncate", "full"])
def test_truncated_tables_and_those_without_a_key_are_right_too(book: Book, how: str) -> None:
    table = odd_table(book, identity="full", key=()) if how == "full" else odd_table(book)
    folded(book, table)
    change = (
        ("d", table, {"id": 1, "Part no": "p1", "amount": Decimal(1), "_op": "x"}) if how == "full" else ("t", table)
    )
    book.commit(change, ("c", table, {"id": 9, "Part no": "new"}))
    book.cut()
    book.flush()
    agree(book)


def test_a_column_added_since_the_fold_is_there(book: Book) -> None:
    table = odd_table(book)
    folded(book, table)
    added = Column("state", "state", 6, "text", 25, -1, "text", missing="open", since=2)
    newer = book.evolve(table, [*table.columns, added])
    book.commit(("c", newer, {"id": 7, "Part no": "p7", "state": "new"}))
    book.cut()
    book.flush()
    scope: dict[str, Any] = {}
    exec(recipes(book.lake, NAME, "duckdb")["duckdb"], scope)
    found = scope[encode_name(NAME)].aggregate("state, count(*)", "state").fetchall()
    assert sorted(found) == [("new", 1), ("open", 6)]


def test_the_shared_sql_parses_as_spark_and_trino(book: Book) -> None:
    table = odd_table(book)
    folded(book, table)
    changed(book, table)
    book.cut()
    book.flush()
    found = recipes(book.lake, NAME)
    spark = found["spark"].split("spark.sql(")[1].strip().removesuffix(")")
    spark = ast.literal_eval(spark)
    assert sqlglot.parse_one(spark, dialect="spark").find(sqlglot.exp.Window)
    trino = "\n".join(line for line in found["trino"].splitlines() if not line.startswith("--"))
    assert sqlglot.parse_one(trino.rstrip(";"), dialect="trino").find(sqlglot.exp.Window)


def test_a_table_that_is_not_folded_yet_is_read_from_its_log(book: Book) -> None:
    table = odd_table(book)
    book.cut()
    changed(book, table)
    book.cut()
    book.flush()
    agree(book)
    assert "not folded yet" in recipes(book.lake, NAME, "trino")["trino"]


def test_a_table_that_is_not_flushed_yet_and_an_unknown_engine_are_named(book: Book) -> None:
    odd_table(book)
    book.cut()
    with pytest.raises(UsageError, match="not in Delta"):
        recipes(book.lake, NAME)
    with pytest.raises(UsageError) as caught:
        recipes(book.lake, NAME, "excel")
    assert all(engine in str(caught.value.hint) for engine in ENGINES)
