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


def test_a_place_without_a_lake_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotALake):
        claimhouse.open(tmp_path)
