"""Status tells what the lake holds without asking any source."""

from __future__ import annotations

import json
from pathlib import Path

from tests.query.book import Book

from claimhouse.lake import deadletters
from claimhouse.query.status import status


def test_rows_versions_files_and_positions_are_told_per_table(tmp_path: Path) -> None:
    book = Book(tmp_path / "lake")
    table = book.table("claim", {"id": "int8"}, rows=[{"id": n} for n in range(10)])
    book.table("Copying", {"id": "int8"}, schema="Sales", live=False)
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("d", table, {"id": 1}), ("c", table, {"id": 11}), ("c", table, {"id": 12}))
    book.cut()
    told = status(book.lake)
    (source,) = told.sources
    assert (source.source, source.cut, source.end_lsn, source.flushed_cut, source.tail_cuts) == (
        "main",
        4,
        "0/44C",
        1,
        3,
    )
    copying, claim = source.tables
    assert (claim.name, claim.status, claim.rows, claim.tail_rows, claim.current_cut) == ("claim", "live", 11, 3, 1)
    assert (claim.exact_from, claim.changes_version, claim.current_version) == ("0/3E8", 0, 0)
    assert claim.files == 2
    assert claim.bytes > 0
    assert (copying.status, copying.rows, copying.exact_from) == ("copying", None, None)
    assert told.ok
    assert json.loads(json.dumps(told.to_json()))["sources"][0]["tables"][1]["rows"] == 11


def test_an_errored_table_and_an_open_dead_letter_are_not_ok(tmp_path: Path) -> None:
    book = Book(tmp_path / "lake")
    table = book.table("claim", {"id": "int8"}, rows=[{"id": 1}])
    book.cut()
    assert status(book.lake).ok
    deadletters.put(book.lake, "main", 1, table.folder, 1100, "too large")
    assert status(book.lake).ok, "the newest cut does not reach it yet"
    book.commit()
    book.cut()
    told = status(book.lake)
    assert not told.ok
    assert told.sources[0].tables[0].dead_letters == 1
    book.copy(table, [{"id": 1}])
    book.live(table)
    book.cut()
    assert status(book.lake).ok, "a copy behind it answers a dead letter"
    deadletters.put(book.lake, "main", 1, table.folder, 1200, "too large")
    book.commit()
    book.cut()
    other = Book("", "billing", lake=book.lake)
    broken = other.table("invoice", {"id": "int8"}, rows=[{"id": 1}])
    state = other.registry.tables[broken.folder]
    state.status, state.error = "errored", "no such type"
    other.cut()
    assert [s.ok for s in status(book.lake).sources] == [False, False]


def test_a_lake_without_cuts_has_no_sources_yet(tmp_path: Path) -> None:
    book = Book(tmp_path / "lake")
    told = status(book.lake)
    assert (told.sources, told.empty, told.ok) == ([], ["main"], True)
