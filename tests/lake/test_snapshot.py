"""A reader's view is one cut: whole across tables, whatever the owner does meanwhile."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest
from tests.lake.test_changes import SHAPES, cut, flush, seen
from tests.lake.writing import Writer, changes, registry, table

from claimhouse.errors import LakeError
from claimhouse.lake import snapshot, tail
from claimhouse.lake.lake import Lake, create, open_lake
from claimhouse.lake.tail import Cut

CLAIM = "public/claim"


def test_a_view_is_the_newest_flush_and_the_cuts_after_it(lake: Lake) -> None:
    writer = Writer(lake, *SHAPES)
    with pytest.raises(LakeError, match="no cut yet"):
        snapshot.take(lake, "main")
    cut(writer)
    first = snapshot.take(lake, "main")
    assert (first.record, first.flushed, first.mark.cut) == (None, 0, 1)
    assert first.changes_files(CLAIM) == [] and first.current_files(CLAIM) == []
    record = flush(writer)
    cut(writer)
    view = snapshot.take(lake, "main")
    assert view.record == record and [c.mark.cut for c in view.cuts] == [2, 3]
    rows = view.tail(CLAIM)
    assert rows is not None and rows.schema == snapshot.schema_of(view.registry.tables[CLAIM])
    assert rows["id"].to_pylist() == [20, 30] and rows["_cut"].to_pylist() == [2, 3]
    assert view.tail_transactions()["cut"].to_pylist() == [2, 3]
    assert view.tail("public/nothing") is None


def test_files_are_pruned_by_cut_and_position(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, *SHAPES)
    cut(writer)
    for _ in range(3):
        flush(writer)
    view = snapshot.take(folder_lake, "main")

    def cuts(**bounds: int) -> list[tuple[int, int] | None]:
        return [f.cut for f in view.changes_files(CLAIM, **bounds)]

    assert cuts() == [(1, 1), (2, 2), (3, 3)]
    assert cuts(cut_from=2) == [(2, 2), (3, 3)]
    assert cuts(cut_to=2) == [(1, 1), (2, 2)]
    assert cuts(lsn_to=15) == [(1, 1)]


def test_a_view_of_an_older_cut_while_its_object_is_there(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, *SHAPES)
    for _ in range(3):
        cut(writer)
    flush(writer)
    view = snapshot.take(folder_lake, "main", cut=2)
    assert view.mark.cut == 2 and view.record is None and len(view.cuts) == 2
    writer.tail.drop(2)
    with pytest.raises(LakeError, match="no cut 2"):
        snapshot.take(folder_lake, "main", cut=2)


@pytest.mark.case("L11")
def test_a_view_starts_again_when_its_tail_is_dropped_meanwhile(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = create(str(tmp_path) + "/lake")
    writer = Writer(lake, *SHAPES)
    for _ in range(3):
        cut(writer)
    numbers, calls = tail.cut_numbers, 0

    def then_dropped(at: Lake, source: str) -> list[int]:
        nonlocal calls
        calls += 1
        found = numbers(at, source)
        if calls == 1:  # all is flushed and dropped between the listing and the first look
            flush(writer)
            flush(writer)
            writer.tail.drop(3)
        return found

    monkeypatch.setattr(tail, "cut_numbers", then_dropped)
    view = snapshot.take(lake, "main")
    assert calls > 1 and view.mark.cut == 5 and view.flushed == 4


@pytest.mark.case("L8")
def test_a_gap_that_does_not_close_is_told(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, *SHAPES)
    for _ in range(3):
        cut(writer)
    folder_lake.store.delete([f"tail/main/{tail.cut_name(2)}"])
    with pytest.raises(LakeError, match="gap"):
        snapshot.take(folder_lake, "main")


def test_no_reader_beside_a_writer_sees_half_a_transaction(folder_lake: Lake) -> None:
    ended, views = time.monotonic() + 3, 0
    newest = 0

    def write() -> None:
        writer = Writer(folder_lake, *SHAPES)
        before = None
        while time.monotonic() < ended:
            for _ in range(5):
                cut(writer)
            record = flush(writer)
            if before is not None:
                writer.tail.drop(before.cut)
            before = record

    writing = threading.Thread(target=write)
    writing.start()
    while writing.is_alive():
        try:
            found = seen(create(folder_lake.location))
        except LakeError as error:
            assert "no cut yet" in str(error)
            continue
        assert found["claim"] == found["party"] == list(range(10, len(found["claim"]) * 10 + 10, 10))
        assert len(found["claim"]) >= newest
        newest = len(found["claim"])
        views += 1
    writing.join()
    assert views >= 3 and newest >= 6


def test_rows_without_their_toast_values_are_found_in_log_and_tail(lake: Lake) -> None:
    writer = Writer(lake, table())
    writer.cut(changes(table(), [{"id": 1}, {"id": 2, "_missing": "note"}], 10, "u"))
    flush(writer)
    writer.cut(changes(table(), [{"id": 3, "_missing": "note"}], 30, "u"))
    view = snapshot.take(lake, "main")
    state = registry(table()).tables[CLAIM]
    assert [i for _, b in view.missing_rows(state, 0) for i in b["id"].to_pylist()] == [2, 3]
    assert [i for _, b in view.missing_rows(state, 20) for i in b["id"].to_pylist()] == [3]
    assert view.tail_missing(CLAIM) == 1
    assert [f.missing for f in view.changes_files(CLAIM)] == [1]


def test_opened_cuts_are_let_go_once_they_are_flushed(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, *SHAPES)
    for _ in range(3):
        cut(writer)
    snapshot.take(folder_lake, "main")
    flush(writer)
    snapshot.take(folder_lake, "main")
    held: list[Cut] = [c for n, c in snapshot._CUTS._found.items() if n[0] == folder_lake]
    assert [c.mark.cut for c in held] == [4]


def test_a_copy_of_a_lake_goes_its_own_way_in_the_same_process(folder_lake: Lake, tmp_path: Path) -> None:
    writer = Writer(folder_lake, *SHAPES)
    cut(writer)
    flush(writer)
    snapshot.take(folder_lake, "main").changes_files(CLAIM)
    copied = Path(shutil.copytree(folder_lake.location, tmp_path / "copy"))
    beside = open_lake(copied)
    for number, each in enumerate((writer, Writer(beside, *SHAPES))):
        for _ in range(number + 1):
            cut(each)
        flush(each)
        cut(each)
    first, second = snapshot.take(folder_lake, "main"), snapshot.take(beside, "main")
    assert [v.record.cut if v.record else 0 for v in (first, second)] == [3, 4]
    assert [c.mark.epoch for v in (first, second) for c in v.cuts] == [1, 1, 2, 2]
    for view in (first, second):
        files = view.changes_files(CLAIM)
        assert files and all(Path(f.uri).is_relative_to(view.lake.location) for f in files)
