"""What differs between two moments, in tables that nobody here has thought of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.query.book import Book

from claimhouse.query.difference import difference
from claimhouse.query.names import TableName
from claimhouse.query.session import Session


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
