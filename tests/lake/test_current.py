"""A whole lake's life, cut by cut, with flushes and folds at any moment: `current` is what the table was."""

from __future__ import annotations

import random
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from tests.lake.book import Book, found

from claimhouse.change import Changes, section_schema
from claimhouse.errors import StorageGone
from claimhouse.lake import changes as log
from claimhouse.lake import current, delta, snapshot, upkeep
from claimhouse.lake import registry as registries
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import Lake, create, current_key
from claimhouse.lake.owner import Owner, claim
from claimhouse.lake.registry import Registry
from claimhouse.lake.tail import CutMark, Tail

FOLDER = "public/claim"


def append(tail: Tail, name: str, book: Book, number: int, record: FlushRecord | None) -> CutMark:
    rows = [r for r in book.log if r["_cut"] == number]
    given = []
    for version, some in groupby(rows, key=lambda r: r["_schema"]):
        shape = book.tables[version - 1]
        given.append(Changes(shape, pa.RecordBatch.from_pylist(list(some), section_schema(shape))))
    return tail.append(
        given,
        None,
        end_lsn=number * 10,
        max_committed_at=number,
        incarnation=1,
        registry=name,
        flush=record.flush if record else 0,
        flushed_cut=record.cut if record else 0,
    )


def check(lake: Lake, book: Book, record: FlushRecord) -> None:
    entry = record.table(FOLDER)
    if entry.current is None:
        return
    conn = duckdb.connect()
    lake.store.attach(conn)
    uris = [f.uri for f in delta.files(lake, current_key("main", FOLDER), entry.current)]
    rows = conn.sql("SELECT * FROM read_parquet($u)", params={"u": uris}).to_arrow_table() if uris else None
    assert entry.current_rows == (rows.num_rows if rows else 0)
    shape = book.state.shape(entry.current_schema)
    assert found(rows.to_pylist() if rows else [], shape) == book.shown(entry.current_lsn)


def folded(lake: Lake, owner: Owner, book: Book, rng: random.Random) -> int:
    tail, record, folds = Tail(lake, "main", owner), None, 0
    registry = Registry("main", tables={FOLDER: book.state})
    name = registries.save(owner, registry, 1)
    for number in range(1, book.lsn // 10 + 1):
        mark = append(tail, name, book, number, record)
        if rng.random() < 0.3:
            record = log.flush(lake, "main", owner, tail, mark, registry, record)
            if rng.random() < 0.5 and book.state.copy_at(record.end_lsn) and record.table(FOLDER).changes is not None:
                record = current.fold(lake, "main", registry, record, [FOLDER])
                check(lake, book, record)
                folds += 1
    return folds


@pytest.mark.case("L5")
@pytest.mark.parametrize(("identity", "seed"), [("key", 11), ("full", 12)])
def test_current_is_what_the_table_was(folder_lake: Lake, identity: str, seed: int) -> None:
    rng = random.Random(seed)
    book = Book(rng, identity)
    book.play(40)
    assert folded(folder_lake, claim(folder_lake, "main"), book, rng) > 2


def test_current_is_what_the_table_was_on_s3(bucket: tuple[str, dict[str, str]]) -> None:
    lake = create(*bucket)
    book = Book(random.Random(5), "key")
    book.play(15)
    assert folded(lake, claim(lake, "main"), book, random.Random(2)) > 0


def test_a_fold_is_due_at_first_and_when_the_log_has_outgrown_the_table() -> None:
    book = Book(random.Random(5), "key")
    book.play(15)
    registry = Registry("main", tables={FOLDER: book.state})
    lsn = book.lsn
    copy = book.state.copy_at(lsn)
    assert copy is not None

    def record(end_lsn: int, **entry: int | None) -> FlushRecord:
        table = {"changes": 1, "rows": 1000, "current": 1, "current_copy": copy.number, **entry}
        return FlushRecord(1, 9, end_lsn, 1, 1, "r", 1, tables={FOLDER: current.TableRecord(**table)})  # type: ignore[arg-type]

    assert current.due(record(lsn, current=None), registry) == [FOLDER]
    assert current.due(record(0, current=None), registry) == []
    assert current.due(record(lsn), registry) == []
    assert current.due(record(lsn, rows=current.FLOOR), registry) == [FOLDER]
    assert current.due(record(lsn, rows=current.FLOOR, current_rows=current.FLOOR * 11), registry) == []
    assert current.due(record(lsn, current_copy=copy.number - 1), registry) == [FOLDER]
    book.state.status = "errored"


def test_snapshot_columns_cover_all_shapes() -> None:
    book = Book(random.Random(5), "key")
    book.version = 2
    book.since = [0, 5]
    assert {"paid", "_old_day"} <= set(snapshot.schema_of(book.state).names)
    assert upkeep.__doc__


def test_a_fold_that_little_memory_does_not_do_for_gets_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "MEMORY", "1MB")
    book = Book(random.Random(11), "key")
    book.play(40)
    enough, tight = create(tmp_path / "enough"), create(tmp_path / "tight")
    assert folded(enough, claim(enough, "main"), book, random.Random(11)) > 0
    monkeypatch.setattr(current, "LARGE", "1MB")
    with pytest.raises((duckdb.OutOfMemoryException, StorageGone)):
        folded(tight, claim(tight, "main"), book, random.Random(11))
