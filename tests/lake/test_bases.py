"""Kept bases: when one is kept, that it stays, and that a past moment is the same with it as from the log alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lake.book import Book
from tests.lake.test_current import FOLDER, append
from tests.lake.test_upkeep import written

from claimhouse.errors import LakeError
from claimhouse.lake import bases, current, delta, snapshot, upkeep
from claimhouse.lake import changes as log
from claimhouse.lake import registry as registries
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import Lake, bases_folder, create
from claimhouse.lake.owner import claim
from claimhouse.lake.registry import Copy, Registry
from claimhouse.lake.tail import Tail
from claimhouse.query.moment import Position
from claimhouse.query.session import Session
from claimhouse.query.views import View

PLACE = bases_folder("main", FOLDER)


def lived(lake: Lake, book: Book, rng: random.Random) -> FlushRecord | None:
    """The book's whole life in a lake, with flushes and folds at random moments."""
    owner = claim(lake, "main")
    tail, record = Tail(lake, "main", owner), None
    registry = Registry("main", tables={FOLDER: book.state})
    saved = registries.save(owner, registry, 1)
    for number in range(1, book.lsn // 10 + 1):
        mark = append(tail, saved, book, number, record)
        if rng.random() < 0.3:
            record = log.flush(lake, "main", owner, tail, mark, registry, record)
            if book.state.copy_at(record.end_lsn) and record.table(FOLDER).changes is not None:
                record = current.fold(lake, "main", registry, record, [FOLDER])
    return record


def at_moments(lake: Lake, book: Book) -> dict[int, list[str]]:
    """The rows at every other moment, and at the last."""
    found: dict[int, list[str]] = {}
    for lsn in sorted(book.visible())[::-2]:
        with Session(lake, at=f"0/{lsn:X}") as session:
            found[lsn] = sorted(map(repr, session.sql("FROM claim").arrow().to_pylist()))
    return found


def built_on_bases(lake: Lake, book: Book) -> int:
    """How many moments are read from a kept base."""
    seen = snapshot.take(lake, "main")
    views = [View(seen, book.state, Position(1, lsn)) for lsn in book.visible()]
    return sum(any(f"/{PLACE}/" in file for file in view.files) for view in views)


@pytest.mark.parametrize("identity", ["key", "full"])
def test_the_past_is_the_same_with_bases_and_without(
    folder_lake: Lake, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "FLOOR", 3)
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    book = Book(rng, identity)
    book.play(40)
    record = lived(folder_lake, book, rng)
    assert record is not None
    names = folder_lake.store.list(PLACE)
    assert 1 < len(names) < 30, seed
    upkeep.sweep(folder_lake, "main", record, retention=0)
    delta._files.cache_clear()
    assert built_on_bases(folder_lake, book) > 5, seed
    before = at_moments(folder_lake, book)
    folder_lake.store.delete(f"{PLACE}/{n}" for n in names)
    assert built_on_bases(folder_lake, book) == 0
    assert at_moments(folder_lake, book) == before, seed
    assert {lsn: len(rows) for lsn, rows in before.items()} == {lsn: len(book.shown(lsn)) for lsn in before}, seed


def test_bases_are_kept_in_a_bucket_as_well(
    bucket: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "FLOOR", 3)
    lake = create(*bucket)
    book = Book(random.Random(5), "key")
    book.play(25)
    lived(lake, book, random.Random(2))
    assert built_on_bases(lake, book) > 0
    found = at_moments(lake, book)
    assert {lsn: len(rows) for lsn, rows in found.items()} == {lsn: len(book.shown(lsn)) for lsn in found}


def test_a_base_is_kept_once_the_log_has_grown_by_the_tables_size(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, record = written(folder_lake, 1, folds=True)
    entry = record.table(FOLDER)
    copy = Copy(entry.current_copy, 1, 0, exact_from=0, rows=100)

    def kept(cut: int, rows: int, seen: int) -> bool:
        at = replace(entry, current_cut=cut, current_lsn=cut * 10, current_rows=rows, current_seen=seen)
        return bases.keep(folder_lake, "main", FOLDER, at, copy)

    floor = bases.FLOOR
    assert not kept(1, rows=100, seen=floor + 99)  # the copy's own rows are no growth
    assert kept(2, rows=100, seen=floor + 100)
    assert not kept(2, rows=100, seen=floor + 100)
    assert not kept(3, rows=100, seen=2 * floor + 99)
    assert not kept(4, rows=2 * floor, seen=2 * floor + 100)  # not yet by the table's size
    assert kept(5, rows=2 * floor, seen=3 * floor + 100)
    names = [f"{cut:020d}.json" for cut in (2, 5)]
    assert folder_lake.store.list(PLACE) == names
    found = {lsn: bases.newest(folder_lake, "main", FOLDER, (1, lsn), copy) for lsn in (19, 20, 49, 50, 999)}
    assert [base and base.cut for base in found.values()] == [None, 2, 2, 5, 5]
    assert bases.newest(folder_lake, "main", FOLDER, (1, 999), replace(copy, number=copy.number + 1)) is None


def test_a_damaged_base_is_named_with_the_way_out(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "FLOOR", 0)
    written(folder_lake, 3, folds=True)
    card = folder_lake.store.list(PLACE)[0]
    (Path(folder_lake.location) / PLACE / card).write_text("{")
    with pytest.raises(LakeError, match=f"{PLACE}/{card} is damaged"):
        bases.newest(folder_lake, "main", FOLDER, (1, 10_000), Copy(1, 1, 0))
