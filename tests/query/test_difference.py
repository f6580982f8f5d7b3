"""What differs between two moments, in tables that nobody here has thought of."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.query.book import Book

from claimhouse.query.difference import difference
from claimhouse.query.names import TableName
from claimhouse.query.session import Session
from claimhouse.table import Column


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "lake")


def told(book: Book, table: str, begin: int) -> list[tuple[str, dict[str, Any], tuple[str, ...]]]:
    name = TableName("main", "public", table)
    with Session(book.lake, at=f"cut:{begin}") as old, Session(book.lake) as new:
        return [(r.kind, r.key, r.columns) for r in difference(old, new, name).rows]


def test_a_column_that_has_another_type_now_is_compared_by_its_text(book: Book) -> None:
    rows = [{"id": 1, "n": 10, "tags": "x"}, {"id": 2, "n": 20, "tags": "x"}]
    table = book.table("t", {"id": "int8", "n": "int8", "tags": "text"}, rows=rows)
    begin = book.cut().cut
    other = {"n": "text", "tags": "list<text>"}
    columns = [
        dataclasses.replace(c, physical=f"{c.name}2", kind=other[c.name], type=other[c.name]) if c.name in other else c
        for c in table.columns
    ]
    changed = book.evolve(table, columns)
    book.commit(("u", changed, {"id": 1, "n": "10", "tags": ["y"]}), ("u", changed, {"id": 2, "n": "many"}))
    book.cut()
    assert told(book, "t", begin) == [("changed", {"id": 1}, ("tags",)), ("changed", {"id": 2}, ("n", "tags"))]


def test_a_column_may_have_any_name_and_keys_come_in_order(book: Book) -> None:
    key = ("a", "b")
    table = book.table("t", {"_here": "text", "_HERE_": "text", "a": "int8", "b": "text"}, key=key)
    book.commit(*(("c", table, {"a": a, "b": b}) for a, b in ((2, "x"), (10, "y"))))
    begin = book.cut().cut
    book.commit(
        ("u", table, {"a": 10, "b": "y", "_here": "now"}),
        ("c", table, {"a": 9, "b": "z"}),
        ("d", table, {"a": 2, "b": "x"}),
    )
    book.cut()
    assert told(book, "t", begin) == [
        ("removed", {"a": 2, "b": "x"}, ()),
        ("added", {"a": 9, "b": "z"}, ()),
        ("changed", {"a": 10, "b": "y"}, ("_here",)),
    ]


FAR = date(9999, 12, 31)


def test_values_that_share_a_stand_in_differ_by_their_exact_text(book: Book) -> None:
    columns = {"id": "int8", "until": "date", "amount": "decimal(12,2)", "tags": "list<int4>", "_exact": "text"}
    odd = {"until": "infinity", "amount": "NaN", "tags": "[0:0]={7}"}
    plain = {"until": FAR, "_exact": {}}
    table = book.table("t", columns, rows=[{"id": n, **plain} for n in range(1, 5)])
    begin = book.cut().cut
    book.flush()
    book.fold(table)
    book.commit(
        ("u", table, {"id": 1, "until": FAR, "_exact": odd}),
        ("u", table, {"id": 2, "until": FAR, "_exact": {"amount": "NaN"}}),
        ("u", table, {"id": 3, "until": FAR}),
    )
    end = book.cut().cut
    assert told(book, "t", begin) == [
        ("changed", {"id": 1}, ("until", "amount", "tags")),
        ("changed", {"id": 2}, ("amount",)),
    ]
    name = TableName("main", "public", "t")
    for folded in (False, True):
        if folded:
            book.flush()
            book.fold(table)
            book.commit(("u", table, {"id": 1, "until": FAR, "_exact": {**odd, "until": "20000-01-01"}}))
            book.cut()
            begin = end
        with Session(book.lake, at=f"cut:{begin}") as old, Session(book.lake) as new:
            found = difference(old, new, name, values=9).rows[0]
        if folded:
            assert (found.before, found.after) == ({"until": "infinity"}, {"until": "20000-01-01"})
        else:
            assert found.before == {"until": "9999-12-31", "amount": None, "tags": None}
            assert found.after == odd


def test_keys_that_share_a_stand_in_are_not_paired(book: Book) -> None:
    table = book.table("t", {"until": "date", "n": "int8"}, key=("until",), rows=[{"until": FAR, "n": 1}])
    begin = book.cut().cut
    book.commit(("c", table, {"until": FAR, "n": 2, "_exact": {"until": "infinity"}}), ("d", table, {"until": FAR}))
    book.cut()
    assert told(book, "t", begin) == [("removed", {"until": FAR}, ()), ("added", {"until": "infinity"}, ())]


def test_a_default_that_its_column_cannot_hold_is_told_of_rows_older_than_the_column(book: Book) -> None:
    table = book.table("t", {"id": "int8"}, rows=[{"id": 1}, {"id": 2}])
    book.cut()
    book.flush()
    book.fold(table)
    added = Column("until", "until", 2, "date", 1082, -1, "date", missing="infinity", since=2)
    newer = book.evolve(table, [*table.columns, added])
    book.commit(("c", newer, {"id": 3}))
    begin = book.cut().cut
    book.commit(("u", newer, {"id": 1, "until": FAR}))
    book.cut()
    with Session(book.lake, at=f"cut:{begin}") as old, Session(book.lake) as new:
        (found,) = difference(old, new, TableName("main", "public", "t"), values=9).rows
    assert (found.key, found.before, found.after) == ({"id": 1}, {"until": "infinity"}, {"until": "9999-12-31"})
