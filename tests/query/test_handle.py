"""The lake as a Python program meets it."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from tests.query.book import Book

import claimhouse
from claimhouse.errors import NotALake, QueryError
from claimhouse.query import guard
from claimhouse.table import Column


@pytest.fixture
def book(tmp_path: Path) -> Book:
    made = Book(tmp_path / "lake")
    columns = {"id": "int8", "amount": "decimal(38,2)", "at": "timestamptz", "tags": "list<text>"}
    big = Decimal("999999999999999999999999999999999999.99")
    at = datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    made.table("claim", columns, rows=[{"id": 2**62, "amount": big, "at": at, "tags": ["a", None]}, {"id": 1}])
    made.table("Order", {"id": "int8"}, schema="Sales.EU", rows=[{"id": 7}])
    made.cut()
    return made


def test_the_public_names_are_listed_and_sorted() -> None:
    assert claimhouse.__all__ == sorted(claimhouse.__all__)
    assert all(hasattr(claimhouse, name) for name in claimhouse.__all__)
    assert claimhouse.__version__


def test_importing_the_package_does_not_import_the_query_engine() -> None:
    code = "import claimhouse, sys; sys.exit('duckdb' in sys.modules or 'deltalake' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_table_comes_as_arrow_polars_pandas_and_duckdb_with_every_digit(book: Book) -> None:
    with claimhouse.open(book.lake.location) as lake:
        table = lake.table("claim")
        expected = table.arrow().sort_by("id").to_pylist()
        assert expected[1]["amount"] == Decimal("999999999999999999999999999999999999.99")
        assert table.polars().sort("id").to_dicts() == expected
        frame = table.pandas().sort_values("id")
        assert frame["id"].tolist() == [1, 2**62]
        assert str(frame["amount"].iloc[1]) == "999999999999999999999999999999999999.99"
        assert table.duckdb().filter("id > 1").project("id").fetchall() == [(2**62,)]
        assert table.reader(1).read_all().num_rows == table.count() == 2
        assert table.columns == ["id", "amount", "at", "tags"]


def test_tables_are_found_by_name_or_parts(book: Book) -> None:
    with claimhouse.open(book.lake.location) as lake:
        assert lake.tables() == ['"Sales.EU"."Order"', "claim"]
        for name in ("claim", "public.claim", "main.public.claim", ("claim",), ("main", "public", "claim")):
            assert lake.table(name).count() == 2
        for name in ("Sales.EU.Order", ("Sales.EU", "Order")):
            assert lake.table(name).arrow().to_pylist() == [{"id": 7}]
        with pytest.raises(QueryError):
            lake.table("claims")


def test_names_are_listed_as_sql_takes_them(tmp_path: Path) -> None:
    made = Book(tmp_path / "lake")
    for name in ("order", "claim", "Größe", "at", "between"):
        made.table(name, {"id": "int8"}, rows=[{"id": 7}])
    made.cut()
    with claimhouse.open(made.lake.location) as lake:
        assert "claim" in lake.tables()
        assert [lake.sql(f"SELECT id FROM {name}").relation.fetchall() for name in lake.tables()] == [[(7,)]] * 5


def test_a_handle_stays_at_its_cut_until_it_is_refreshed(book: Book) -> None:
    with claimhouse.open(book.lake.location) as lake:
        table = lake.table("claim")
        state = book.registry.tables["public/claim"]
        book.commit(("d", state.table, {"id": 1}))
        book.cut()
        assert (table.count(), lake.cuts) == (2, {"main": 1})
        lake.refresh()
        assert (table.count(), lake.cuts) == (1, {"main": 2})
    with claimhouse.open(book.lake.location, at="cut:1") as lake:
        assert lake.refresh().table("claim").count() == 2
        assert lake.positions == {"main": "0/3E8"}


def test_a_refresh_makes_no_engine_anew_where_no_file_came(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, order = (s.table for s in book.registry.tables.values())
    made: list[object] = []
    connect = guard.connect
    monkeypatch.setattr(guard, "connect", lambda **how: made.append(how) or connect(**how))
    with claimhouse.open(book.lake.location) as lake:
        counts = 'SELECT (SELECT count(*) FROM claim), (SELECT count(*) FROM "Sales.EU"."Order")'
        assert lake.sql(counts).relation.fetchall() == [(2, 1)]
        for n in range(10, 14):
            book.commit(("c", claim, {"id": n}), ("c", order, {"id": n}))
            book.cut()
            lake.refresh()
            assert lake.sql(counts).relation.fetchall() == [(n - 7, n - 8)]
    assert len(made) == 1


def test_an_answer_from_before_a_refresh_keeps_its_moment(book: Book) -> None:
    state = book.registry.tables["public/claim"]
    with claimhouse.open(book.lake.location) as lake:
        relation, batches = lake.table("claim").duckdb(), lake.table("claim").reader(1)
        for key in (1, 2**62):
            book.commit(("d", state.table, {"id": key}))
            book.cut()
            lake.refresh()
        assert lake.table("claim").count() == 0
        assert relation.project("id").order("id").fetchall() == [(1,), (2**62,)]
        assert batches.read_all().num_rows == 2


def test_a_refreshed_handle_sees_a_new_shape_and_a_new_table(book: Book) -> None:
    state = book.registry.tables["public/claim"]
    with claimhouse.open(book.lake.location) as lake:
        assert lake.table("claim").columns == ["id", "amount", "at", "tags"]
        wider = book.evolve(state.table, [*state.table.columns, Column("note", "note", 9, "text", 0, -1, "text")])
        book.commit(("c", wider, {"id": 3, "note": "x"}))
        book.table("letter", {"id": "int8"}, rows=[{"id": 5}])
        book.cut()
        lake.refresh()
        assert lake.table("claim").columns == ["id", "amount", "at", "tags", "note"]
        assert lake.table("claim").count() == 3
        assert lake.sql("SELECT note, l.id FROM claim c, letter l WHERE c.id = 3").relation.fetchall() == [("x", 5)]


def test_a_place_without_a_lake_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotALake):
        claimhouse.open(tmp_path)
