"""Upkeep changes files and versions, never rows; what a kept record names stays readable."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.lake.test_changes import SHAPES, cut, flush, rows, seen
from tests.lake.writing import Writer

from claimhouse.errors import LakeError
from claimhouse.lake import current, delta, flushes, snapshot, upkeep
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import FLUSHES, Lake, changes_key, create

KEY = changes_key("main", "public/claim")


def written(lake: Lake, flushes_made: int, folds: bool = False) -> tuple[Writer, FlushRecord]:
    writer = Writer(lake, *SHAPES)
    cut(writer)
    for _ in range(flushes_made):
        record = flush(writer)
        if folds:
            record = current.fold(lake, "main", writer.registry, record, ["public/claim"])
            name(writer, record)
    return writer, record


def name(writer: Writer, record: FlushRecord) -> None:
    writer.flush = record.flush, record.cut
    cut(writer)


@pytest.mark.case("L11")
def test_small_files_are_joined_and_the_new_record_says_so(lake: Lake) -> None:
    writer, record = written(lake, 5)
    before = seen(lake)
    made = upkeep.compact(lake, "main", record, every=4)
    assert made is not None and made.flush == record.flush + 1 and made.cut == record.cut
    assert len(delta.files(lake, KEY, record.table("public/claim").changes)) == 5
    assert [f.cut for f in delta.files(lake, KEY, made.table("public/claim").changes)] == [(1, 5)]
    assert seen(lake) == before  # nobody believes it yet
    name(writer, made)
    assert {k: v[:-1] for k, v in seen(lake).items()} == before
    assert upkeep.compact(lake, "main", made, every=4) is None
    again = flush(writer)
    assert [f.cut for f in delta.files(lake, KEY, again.table("public/claim").changes)] == [(1, 5), (6, 7)]
    assert [r[0] for r in rows(lake, "control/transactions", made.transactions, "cut")] == [1, 2, 3, 4, 5]


@pytest.mark.case("L11")
def test_what_only_old_records_name_goes_and_the_rest_stays_readable(folder_lake: Lake) -> None:
    writer, record = written(folder_lake, 6, folds=True)
    made = upkeep.compact(folder_lake, "main", record, every=4)
    assert made is not None
    name(writer, made)
    view = snapshot.take(folder_lake, "main")
    before = seen(folder_lake)
    upkeep.sweep(folder_lake, "main", made, retention=3600)
    assert len(folder_lake.store.list("control/flushed/main")) == made.flush  # all may still be read
    assert len([n for n in folder_lake.store.list(KEY) if n.endswith(".parquet")]) == 7
    upkeep.sweep(folder_lake, "main", made, retention=0)
    assert [int(n[:20]) for n in folder_lake.store.list("control/flushed/main")] == [made.flush]
    data = [n for n in folder_lake.store.list(KEY) if n.endswith(".parquet")]
    assert (
        len(data) == 1
        and len([n for n in folder_lake.store.list("current/main/public/claim") if n.endswith(".parquet")]) == 1
    )
    delta._files.cache_clear()
    assert seen(folder_lake) == before
    assert len(view.current_files("public/claim")) == 1
    name(writer, flush(writer))
    assert seen(folder_lake)["claim"] == seen(folder_lake)["party"]


def test_registry_objects_that_no_kept_record_can_need_go(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, *SHAPES)
    for _ in range(5):
        writer.saved = ""  # the next cut brings another registry
        cut(writer)
        record = flush(writer)

    def registries() -> list[int]:
        return [int(n[:20]) for n in folder_lake.store.list("control/registry/main")]

    assert registries() == [1, 3, 5, 7, 9]
    upkeep.sweep(folder_lake, "main", record, retention=3600)
    assert registries() == [1, 3, 5, 7, 9]  # a reader may have taken any of these records
    upkeep.sweep(folder_lake, "main", record, retention=0)
    assert registries() == [9]
    snapshot._registry.cache_clear()
    assert sorted(seen(folder_lake)) == ["claim", "party"]
    assert Writer(folder_lake).tail.last() is not None


@pytest.mark.case("L11")
def test_an_unnamed_record_does_not_take_files_from_the_named_one(folder_lake: Lake) -> None:
    _, record = written(folder_lake, 5)
    before = seen(folder_lake)
    made = upkeep.compact(folder_lake, "main", record, every=4)
    assert made is not None
    upkeep.sweep(folder_lake, "main", made, retention=0)
    delta._files.cache_clear()
    assert seen(folder_lake) == before


def test_rows_that_no_record_names_yet_are_not_joined(folder_lake: Lake) -> None:
    writer, record = written(folder_lake, 5)
    flush(writer, name=False)
    made = upkeep.compact(folder_lake, "main", record, every=4)
    assert made is None or made.table("public/claim") == record.table("public/claim")


@pytest.mark.case("L6")
def test_orphans_of_a_killed_writer_go(tmp_path: Path) -> None:
    lake = create(tmp_path / "lake")
    _, record = written(lake, 2)
    orphan = tmp_path / "lake" / KEY / "part-00000-orphan.parquet"
    orphan.write_bytes(b"half")
    upkeep.sweep(lake, "main", record)
    assert orphan.exists()  # it may be under way
    os.utime(orphan, (0, 0))
    upkeep.sweep(lake, "main", record)
    assert not orphan.exists() and len(seen(lake)["claim"]) == 3


@pytest.mark.case("L7")
def test_old_commits_go_behind_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "CHECKPOINT_EVERY", 4)
    lake = create(tmp_path / "lake")
    writer, record = written(lake, 10)
    log = tmp_path / "lake" / KEY / "_delta_log"
    assert (log / f"{8:020d}.checkpoint.parquet").exists()
    before = seen(lake)
    upkeep.sweep(lake, "main", record, retention=0)
    left = sorted(int(p.name[:20]) for p in log.glob("*.json"))
    assert left == [8, 9]
    delta._files.cache_clear()
    assert seen(lake) == before
    cut(writer)
    flush(writer)
    assert flushes.load(lake, "main", 11).table("public/claim").changes == 10


def test_two_sources_share_the_transactions(folder_lake: Lake) -> None:
    other = Writer(folder_lake, *SHAPES, source="other")
    cut(other)
    theirs = flush(other)
    _, record = written(folder_lake, 5)
    made = upkeep.compact(folder_lake, "main", record, every=4)
    assert made is not None and made.transactions == 6
    upkeep.sweep(folder_lake, "main", made, retention=0)
    delta._files.cache_clear()
    for version, cuts in (theirs.transactions, [1]), (made.transactions, [1, 1, 2, 3, 4, 5]):
        assert [r[0] for r in rows(folder_lake, "control/transactions", version, "cut")] == cuts
    assert folder_lake.sources() == ["main", "other"]


def test_nothing_is_due_after_most_flushes(folder_lake: Lake) -> None:
    writer, record = written(folder_lake, 3)
    assert upkeep.tidy(folder_lake, "main", writer.registry, record) is None
    handle = delta.open_table(folder_lake, FLUSHES)
    assert handle is not None and handle.version() == 2


@pytest.mark.case("L11")
def test_a_reader_within_the_retention_meets_no_error_beside_joining_folding_and_vacuum(folder_lake: Lake) -> None:
    ended, failed, made = time.monotonic() + 3, [], [0]
    first = "control/flushed/main/00000000000000000001.json"

    def write() -> None:
        writer = Writer(folder_lake, *SHAPES)
        try:
            while time.monotonic() < ended or made[0] < 5 or folder_lake.store.exists(first):
                cut(writer)
                record = flush(writer)
                record = current.fold(folder_lake, "main", writer.registry, record, ["public/claim"])
                record = upkeep.compact(folder_lake, "main", record, every=3) or record
                name(writer, record)
                upkeep.sweep(folder_lake, "main", record, retention=2)
                writer.tail.drop(record.cut - 4)
                made[0] += 1
        except BaseException as error:
            failed.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    held: list[tuple[float, snapshot.LakeSnapshot]] = []
    reads = 0
    while writing.is_alive():
        delta._files.cache_clear()
        try:
            held.append((time.monotonic(), snapshot.take(folder_lake, "main")))
        except LakeError as error:
            assert "no cut yet" in str(error)
            continue
        held = [(at, view) for at, view in held if time.monotonic() - at < 0.5]
        view = held[reads % len(held)][1]  # an older one, as a long query would hold
        counts = []
        for shape in SHAPES:
            files = [*view.changes_files(shape.folder), *view.current_files(shape.folder)]
            rows_of = [pq.read_metadata(f.uri).num_rows for f in files]
            assert rows_of == [f.rows for f in files]
            tail = view.tail(shape.folder)
            counts.append(sum(f.rows for f in view.changes_files(shape.folder)) + (tail.num_rows if tail else 0))
        assert counts[0] == counts[1]
        reads += 1
    writing.join()
    assert failed == [] and reads > 20


def _killed_between_file_and_commit(location: str) -> None:
    writer = Writer(create(location), *SHAPES)
    cut(writer)
    record = flush(writer)
    folder, real = Path(location) / "current/main/public/claim", delta.pa.RecordBatchReader.from_batches

    def batches(rows: Any) -> Iterator[Any]:
        for batch in rows:
            yield batch
            yield from [batch] * 3000  # enough that the writer closes a file before the last
            while not list(folder.glob("*.parquet")):
                yield batch
            os.kill(os.getpid(), signal.SIGKILL)

    class Reader:
        @staticmethod
        def from_batches(schema: Any, rows: Any) -> Any:
            return real(schema, batches(rows))

    current.pa = SimpleNamespace(RecordBatchReader=Reader)  # type: ignore[assignment]
    delta.FILE_SIZE = 1000
    current.fold(writer.lake, "main", writer.registry, record, ["public/claim"])


@pytest.mark.case("L6")
def test_a_file_whose_commit_a_kill_prevented_is_read_by_nobody_and_goes(tmp_path: Path) -> None:
    location = str(tmp_path / "lake")
    killed = multiprocessing.get_context("forkserver").Process(target=_killed_between_file_and_commit, args=(location,))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    lake, folder = create(location), tmp_path / "lake/current/main/public/claim"
    orphans = list(folder.glob("*.parquet"))
    assert orphans and not list(folder.glob("_delta_log/*.json"))
    assert seen(lake)["claim"] == [10, 20]
    writer = Writer(lake, *SHAPES)
    record = current.fold(lake, "main", writer.registry, flush(writer), ["public/claim"])
    name(writer, record)
    assert len(snapshot.take(lake, "main").current_files("public/claim")) == 1
    for orphan in orphans:
        os.utime(orphan, (0, 0))
    upkeep.sweep(lake, "main", record)
    assert [p for p in orphans if p.exists()] == [] and len(list(folder.glob("*.parquet"))) == 1
