"""The flush: every row once in Delta, whatever moment a kill chooses."""

from __future__ import annotations

import json
import multiprocessing
import signal
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from tests.lake.writing import Writer, changes, table

from claimhouse import failpoint
from claimhouse.errors import Fenced, LakeError
from claimhouse.lake import bases, current, delta, flushes, snapshot
from claimhouse.lake import changes as log
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import FLUSHES, TRANSACTIONS, Lake, bases_folder, changes_key, create

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["claimhouse.lake.current", "tests.lake.writing"])
SHAPES = (table(), table("party"))


def cut(writer: Writer) -> None:
    """One transaction over all tables."""
    lsn = writer.lsn + 10
    shapes = [state.table for state in writer.registry.tables.values()]
    writer.cut(*(changes(shape, [{"id": lsn, "note": shape.name}], lsn) for shape in shapes))


def flush(writer: Writer, name: bool = True) -> FlushRecord:
    mark = writer.tail.last()
    assert mark is not None
    previous = flushes.load(writer.lake, writer.source, writer.flush[0]) if writer.flush[0] else None
    record = log.flush(writer.lake, writer.source, writer.owner, writer.tail, mark, writer.registry, previous)
    if name:
        writer.flush = record.flush, record.cut
        cut(writer)
    return record


def rows(lake: Lake, key: str, version: int | None, columns: str) -> list[tuple]:
    uris = [f.uri for f in delta.files(lake, key, version)]
    conn = duckdb.connect()
    lake.store.attach(conn)
    return conn.execute(f"SELECT {columns} FROM read_parquet(?) ORDER BY ALL", [uris]).fetchall() if uris else []


def seen(lake: Lake) -> dict[str, list[int]]:
    """What a reader finds in both tables, log and tail."""
    view = snapshot.take(lake, "main")
    found = {}
    for shape in SHAPES:
        version = view.record.table(shape.folder).changes if view.record else None
        flushed = rows(lake, changes_key("main", shape.folder), version, "id")
        tail = view.tail(shape.folder)
        found[shape.name] = [r[0] for r in flushed] + (tail["id"].to_pylist() if tail else [])
    return found


def test_a_flush_moves_cuts_and_the_next_only_what_is_new(lake: Lake) -> None:
    writer = Writer(lake, *SHAPES)
    for _ in range(3):
        cut(writer)
    first = flush(writer)
    assert (first.flush, first.cut, first.end_lsn) == (1, 3, 30)
    second = flush(writer)
    assert (second.flush, second.cut) == (2, 4)
    expected = [10, 20, 30, 40, 50]
    assert seen(lake) == {"claim": expected, "party": expected}
    key = changes_key("main", "public/claim")
    assert rows(lake, key, first.table("public/claim").changes, "id, _cut, _end_lsn") == [
        (10, 1, 10),
        (20, 2, 20),
        (30, 3, 30),
    ]
    assert [f.cut for f in delta.files(lake, key, second.table("public/claim").changes)] == [(1, 3), (4, 4)]
    assert rows(lake, TRANSACTIONS, second.transactions, "source, cut, end_lsn") == [
        ("main", n, n * 10) for n in range(1, 5)
    ]
    handle = delta.open_table(lake, FLUSHES)
    assert handle and [r[0] for r in rows(lake, FLUSHES, handle.version(), "flush")] == [1, 2]


def _flush_until_killed(location: str, name: str) -> None:
    writer = Writer(create(location), *SHAPES)
    cut(writer)
    cut(writer)
    flush(writer)
    cut(writer)
    failpoint.arm(name)
    flush(writer)


@pytest.mark.case("L1", "L6")
@pytest.mark.parametrize("place", [n for n in failpoint.NAMES if n.startswith("flush.")])
def test_a_flush_repeated_after_a_kill_writes_nothing_twice(tmp_path: Path, place: str) -> None:
    count = 2 if place.endswith("table") else 1  # after one of the two tables
    killed = _fork.Process(target=_flush_until_killed, args=(str(tmp_path / "lake"), f"{place}:{count}"))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    lake = create(tmp_path / "lake")
    assert seen(lake)["claim"] == [10, 20, 30, 40]
    writer = Writer(lake, *SHAPES)
    repeated = flush(writer, name=False)
    assert repeated.cut == 4
    if place in ("flush.after_record", "flush.before_row", "flush.after_row"):
        assert repeated.flush == 2  # the dead owner's record says the same: taken over
    flush(writer)
    flush(writer)
    expected = list(range(10, 70, 10))
    assert seen(lake) == {"claim": expected, "party": expected}
    record = snapshot.take(lake, "main").record
    assert record is not None
    assert [r[0] for r in rows(lake, TRANSACTIONS, record.transactions, "end_lsn")] == expected[:-1]
    handle = delta.open_table(lake, FLUSHES)
    assert handle is not None
    numbers = [r[0] for r in rows(lake, FLUSHES, handle.version(), "flush")]
    assert numbers == sorted(set(numbers)) and numbers[-1] == record.flush


@pytest.mark.case("L2")
def test_a_dead_owners_record_for_another_cut_is_not_believed(lake: Lake) -> None:
    writer = Writer(lake, *SHAPES)
    cut(writer)
    unnamed = flush(writer, name=False)
    heir = Writer(lake, *SHAPES)
    cut(heir)
    record = flush(heir)
    assert (unnamed.flush, record.flush, record.cut) == (1, 2, 2)
    assert snapshot.take(lake, "main").record == record
    assert seen(lake)["party"] == [10, 20, 30]


@pytest.mark.case("L2")
def test_a_zombies_flush_is_stopped(folder_lake: Lake) -> None:
    zombie = Writer(folder_lake, *SHAPES)
    cut(zombie)
    Writer(folder_lake, *SHAPES)
    with pytest.raises(Fenced):
        flush(zombie, name=False)


def test_a_log_ahead_of_the_tail_is_refused(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, *SHAPES)
    cut(writer)
    cut(writer)
    flush(writer, name=False)
    writer.tail.last()
    early = snapshot.take(folder_lake, "main", cut=1).mark
    with pytest.raises(LakeError, match="holds cuts up to 2"):
        log.flush(folder_lake, "main", writer.owner, writer.tail, early, writer.registry, None)


def test_a_new_shape_is_added_to_the_log(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, table())
    writer.cut()
    flush(writer)
    writer.registry.tables["public/claim"].versions.append(table(version=2))
    writer.registry.tables["public/claim"].since.append(25)
    writer.cut(
        changes(table(version=2), [{"id": 7, "paid": Decimal("1.5"), "note": None}], 40),
        changes(table(), [{"id": 8}], 40),
        lsn=40,
    )
    record = flush(writer)
    key, version = changes_key("main", "public/claim"), record.table("public/claim").changes
    conn = duckdb.connect()
    folder_lake.store.attach(conn)
    uris = [f.uri for f in delta.files(folder_lake, key, version)]
    found = conn.execute(
        "SELECT id, paid::VARCHAR FROM read_parquet(?, union_by_name=true) ORDER BY id", [uris]
    ).fetchall()
    assert (7, "1.50") in found and (8, None) in found and (10, None) in found


def test_a_large_flush_is_written_in_runs_of_cuts(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_AT_ONCE", 100)
    monkeypatch.setattr(log, "_SLICE", 500)
    writer = Writer(folder_lake, table())
    for n in range(4):
        writer.cut(changes(table(), [{"id": n * 40 + i} for i in range(40)], 10 * n + 10))
    part = writer.tail.put_part([changes(table(), [{"id": 160 + i} for i in range(300)], 0)])
    writer.cut(changes(table(), [{"id": 460}], 50), parts=[replace(part, end_lsn=50)])
    record = flush(writer, name=False)
    files = delta.files(folder_lake, changes_key("main", "public/claim"), record.table("public/claim").changes)
    assert [f.cut for f in files] == [(1, 2), (3, 4), (5, 5)]
    assert [f.rows for f in files] == [80, 80, 301]
    found = [duckdb.sql(f"SELECT id FROM '{f.uri}'").fetchall() for f in files]
    assert [r[0] for rows in found[:2] for r in rows] == list(range(160))
    assert sorted(r[0] for r in found[2]) == list(range(160, 461))


@pytest.mark.case("L14")
def test_a_flush_is_fsynced_before_its_record_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = create(tmp_path / "lake")
    writer = Writer(lake, table())
    writer.cut()
    synced: list[str] = []
    put, sync = lake.store.put_new, lake.store.sync
    monkeypatch.setattr(lake.store, "sync", lambda keys: sync([synced.append(k) or k for k in keys]), raising=False)
    monkeypatch.setattr(lake.store, "put_new", lambda key, *a: (synced.append(key), put(key, *a))[1], raising=False)
    flush(writer, name=False)
    base = tmp_path / "lake/changes/main/public/claim"
    written = {f"changes/main/public/claim/{p.relative_to(base)}" for p in base.rglob("*") if p.is_file()}
    record = synced.index("control/flushed/main/00000000000000000001.json")
    assert written and written <= set(synced[:record])


@pytest.mark.case("L8")
def test_a_commit_of_zero_bytes_is_named(tmp_path: Path) -> None:
    lake = create(tmp_path / "lake")
    writer = Writer(lake, table())
    writer.cut()
    flush(writer)
    path = tmp_path / "lake/changes/main/public/claim/_delta_log/00000000000000000000.json"
    path.with_name("00000000000000000001.json").write_bytes(b"")
    with pytest.raises(LakeError, match=r"00000000000000000001\.json has zero bytes"):
        flush(writer)


def _fold_until_killed(location: str, name: str) -> None:
    writer = Writer(create(location), *SHAPES)
    cut(writer)
    record = flush(writer)
    bases.FLOOR = 0
    failpoint.arm(name)
    current.fold(writer.lake, "main", writer.registry, record, [s.folder for s in SHAPES])


@pytest.mark.case("L1", "L6")
@pytest.mark.parametrize(
    "place",
    ["fold.before_commit:2", "fold.after_commit:2", "flush.before_record", "flush.after_record", "base.before_card"],
)
def test_a_fold_repeated_after_a_kill_is_right(tmp_path: Path, place: str) -> None:
    killed = _fork.Process(target=_fold_until_killed, args=(str(tmp_path / "lake"), place))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    lake = create(tmp_path / "lake")
    writer = Writer(lake, *SHAPES)
    assert [lake.store.list(bases_folder("main", s.folder)) for s in SHAPES] == [[], []]
    record = current.fold(lake, "main", writer.registry, flush(writer), [s.folder for s in SHAPES])
    for shape in SHAPES:
        entry = record.table(shape.folder)
        assert (entry.current_cut, entry.current_rows) == (2, 2)
        assert [r[0] for r in rows(lake, f"current/main/{shape.folder}", entry.current, "id")] == [10, 20]


def _drop_until_killed(location: str) -> None:
    writer = Writer(create(location))
    for _ in range(6):
        writer.cut()
    failpoint.arm("drop.midway")
    writer.tail.drop(5)


def test_a_drop_cut_short_leaves_no_gap(tmp_path: Path) -> None:
    killed = _fork.Process(target=_drop_until_killed, args=(str(tmp_path / "lake"),))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    numbers = [int(n[:20]) for n in create(tmp_path / "lake").store.list("tail/main")]
    assert numbers == list(range(numbers[0], 7)) and 1 < numbers[0] < 6


def test_records_say_what_they_said(folder_lake: Lake) -> None:
    writer = Writer(folder_lake, *SHAPES)
    cut(writer)
    record = flush(writer)
    assert FlushRecord.from_bytes(record.to_bytes()) == record == flushes.load(folder_lake, "main", 1)
    assert json.loads(record.to_bytes())["tables"]["public/claim"]["changes"] == 0
    with pytest.raises(KeyError):
        flushes.load(folder_lake, "main", 9)


@pytest.mark.case("L3")
def test_transactions_of_an_empty_cut_are_none(folder_lake: Lake) -> None:
    writer = Writer(folder_lake)
    writer.tail.append([], None, end_lsn=5, max_committed_at=5, incarnation=1, registry="none")
    record = log.flush(folder_lake, "main", writer.owner, writer.tail, writer.tail.last(), writer.registry, None)  # type: ignore[arg-type]
    assert record.transactions is None and record.table("public/claim").changes is None
    assert pa.types.is_int64(snapshot.TRANSACTION_ROWS.field("cut").type)
