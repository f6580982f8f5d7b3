"""A row's history: what each committed change left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.query.book import Book

from claimhouse.errors import QueryError, UsageError
from claimhouse.lake import deadletters
from claimhouse.query.history import Version, history
from claimhouse.query.names import TableName
from claimhouse.query.session import Session

CLAIM = TableName("main", "public", "claim")


def versions(book: Book, key: Any, at: str | None = None, table: TableName = CLAIM) -> list[Version]:
    with Session(book.lake, at=at) as session:
        return history(session, table, {"id": str(key)})


def told(found: list[Version]) -> list[tuple[str, Any, tuple[str, ...]]]:
    return [(v.op, v.values.get("status"), v.changed) for v in found]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "lake")


def claims(book: Book, *rows: dict[str, Any], **more: Any) -> Any:
    columns = {"id": "int8", "status": "text", "note": "text", "paid": "decimal(12,2)"}
    return book.table("claim", columns, rows=rows, **more)


def test_every_change_is_a_version_with_what_it_changed_flushed_or_not(book: Book) -> None:
    claim = claims(book, {"id": 1, "status": "new", "note": "a"}, {"id": 2, "status": "new"})
    book.cut()
    book.commit(("u", claim, {"id": 1, "status": "open", "note": "a"}))
    book.cut()
    book.flush()
    book.commit(("u", claim, {"id": 1, "status": "closed", "note": "b"}))
    book.cut()
    found = versions(book, 1)
    assert told(found) == [("r", "new", ()), ("u", "open", ("status",)), ("u", "closed", ("status", "note"))]
    assert [v.lsn for v in found] == sorted(v.lsn for v in found)
    assert told(versions(book, 2)) == [("r", "new", ())]
    assert versions(book, 3) == []


def test_a_deleted_and_inserted_row_has_both_lives(book: Book) -> None:
    claim = claims(book)
    book.commit(("c", claim, {"id": 1, "status": "new"}))
    book.commit(("d", claim, {"id": 1}))
    book.commit(("c", claim, {"id": 1, "status": "again"}))
    book.cut()
    assert told(versions(book, 1)) == [("c", "new", ()), ("d", "new", ()), ("c", "again", ())]


def test_a_key_change_leads_back_to_the_life_under_the_old_key_alone(book: Book) -> None:
    claim = claims(book)
    book.commit(("c", claim, {"id": 1, "status": "other"}))
    book.commit(("d", claim, {"id": 1}))
    book.commit(("c", claim, {"id": 1, "status": "new"}))
    book.commit(("u", claim, {"id": 7, "status": "moved"}, {"id": 1}))
    book.commit(("c", claim, {"id": 1, "status": "third"}))
    book.commit(("u", claim, {"id": 7, "status": "open"}))
    book.cut()
    assert told(versions(book, 7)) == [
        ("c", "new", ()),
        ("u", "moved", ("id", "status")),
        ("u", "open", ("status",)),
    ]
    under_one = versions(book, 1)
    assert told(under_one)[-1] == ("c", "third", ())
    assert [v.moved_to for v in under_one] == [None, None, None, {"id": "7"}, None]


def test_a_row_that_comes_back_to_its_key_is_told_once(book: Book) -> None:
    claim = claims(book, {"id": 1, "status": "0"})
    book.cut()
    for n in range(1, 41):
        here, there = (1, 2) if n % 2 else (2, 1)
        book.commit(("u", claim, {"id": there, "status": str(n)}, {"id": here}))
    book.cut()
    for key in (1, 2):
        found = versions(book, key)
        assert [v.values["status"] for v in found] == [str(n) for n in range(41)]
        assert [v.changed for v in found[1:]] == [("id", "status")] * 40


def test_a_row_that_left_a_key_is_no_part_of_the_next_one_under_it(book: Book) -> None:
    claim = claims(book, {"id": 1, "status": "first"})
    book.cut()
    book.commit(("u", claim, {"id": 2, "status": "first moved"}, {"id": 1}))
    book.commit(("c", claim, {"id": 1, "status": "second"}))
    book.commit(("u", claim, {"id": 3, "status": "second moved"}, {"id": 1}))
    book.cut()
    assert told(versions(book, 3)) == [("c", "second", ()), ("u", "second moved", ("id", "status"))]
    assert told(versions(book, 2)) == [("r", "first", ()), ("u", "first moved", ("id", "status"))]


def test_a_truncate_ends_every_row(book: Book) -> None:
    claim = claims(book, {"id": 1, "status": "new"})
    book.cut()
    book.commit(("t", claim, {}))
    book.cut()
    assert told(versions(book, 1)) == [("r", "new", ()), ("t", "new", ())]


def test_a_past_moment_shows_the_versions_up_to_it(book: Book) -> None:
    claim = claims(book)
    book.commit(("c", claim, {"id": 1, "status": "new"}))
    first = book.cut().cut
    book.commit(("u", claim, {"id": 1, "status": "open"}))
    book.cut()
    assert told(versions(book, 1, at=f"cut:{first}")) == [("c", "new", ())]


def test_a_second_copy_is_a_version_only_where_it_found_something_else(book: Book) -> None:
    rows = [{"id": 1, "status": "new"}, {"id": 2, "status": "new"}, {"id": 3, "status": "new"}]
    claim = claims(book, *rows)
    book.cut()
    book.commit(("u", claim, {"id": 1, "status": "open"}))
    book.cut()
    book.copy(claim, [{"id": 1, "status": "open"}, {"id": 2, "status": "lost and found"}])
    book.live(claim)
    book.cut()
    book.commit(("u", claim, {"id": 1, "status": "closed"}))
    book.cut()
    assert told(versions(book, 1)) == [("r", "new", ()), ("u", "open", ("status",)), ("u", "closed", ("status",))]
    assert told(versions(book, 2)) == [("r", "new", ()), ("r", "lost and found", ("status",))]
    assert told(versions(book, 3)) == [("r", "new", ()), ("d", "new", ())]


def test_a_second_copy_that_finds_what_an_update_left_out_is_no_version(book: Book) -> None:
    claim = claims(book, {"id": 1, "status": "new", "note": "kept"})
    book.cut()
    book.commit(("u", claim, {"id": 1, "status": "open"}, {}, ("note",)))
    book.copy(claim, [{"id": 1, "status": "open", "note": "kept"}])
    book.live(claim)
    book.cut()
    assert told(versions(book, 1)) == [("r", "new", ()), ("u", "open", ("status",))]


def test_a_history_that_is_not_exact_says_so(book: Book) -> None:
    claim = claims(book, {"id": 1, "status": "new"})
    book.cut()
    begins = book.commit(("u", claim, {"id": 1, "status": "open"}))
    ends = book.commit(("u", claim, {"id": 1, "status": "closed"}))
    book.registry.tables[claim.folder].inexact.append((begins, ends))
    book.commit(("u", claim, {"id": 1, "status": "reopened"}))
    book.cut()
    deadletters.put(book.lake, "main", 1, claim.folder, ends, "a value cannot be kept")
    with Session(book.lake) as session:
        history(session, CLAIM, {"id": "1"})
        history(session, CLAIM, {"id": "1"})
        assert session.warnings == [
            "table public.claim is not exact: 1 changes could not be kept",
            "the history of public.claim is not exact from 0/44C to 0/4B0",
        ]


def test_a_wrong_key_and_a_table_without_one_are_told(book: Book) -> None:
    claims(book, {"id": 1})
    book.table("event", {"what": "text"}, key=(), identity="none", rows=[{"what": "x"}])
    book.table("blob", {"id": "bytes"}, rows=[{"id": b"x"}])
    book.cut()
    with Session(book.lake) as session:
        with pytest.raises(UsageError, match=r"the key of public\.claim is id"):
            history(session, CLAIM, {"number": "1"})
        with pytest.raises(UsageError, match="no key"):
            history(session, CLAIM, {"id": "x'; DROP"})
        with pytest.raises(UsageError, match="no key"):
            history(session, TableName("main", "public", "blob"), {"id": "no hex"})
        with pytest.raises(QueryError, match="have no key") as error:
            history(session, TableName("main", "public", "event"), {})
        assert "event__log" in str(error.value.hint)
