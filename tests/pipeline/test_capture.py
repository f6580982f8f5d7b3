"""Capture end to end on real PostgreSQL: what was committed is what the lake shows, whatever happens on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from claimhouse.change import lsn_text
from claimhouse.errors import (
    ClaimhouseError,
    Fenced,
    NotExact,
    NotReady,
    SlotBusy,
    SlotLost,
    SourceLost,
    Unsupported,
    UsageError,
)
from claimhouse.lake import deadletters, registry
from claimhouse.lake.lake import open_lake
from claimhouse.lake.owner import Owner, claim, newest
from claimhouse.lake.snapshot import take
from claimhouse.lake.tail import Tail, read_mark
from claimhouse.pipeline import Capture, CaptureOptions, resync
from claimhouse.pipeline.admission import Admission
from claimhouse.pipeline.cutting import Cutter
from claimhouse.postgres import catalog, ddl_trigger, rows
from claimhouse.postgres import snapshot as copying
from claimhouse.postgres.server import current_lsn
from claimhouse.query.session import Session
from claimhouse.query.status import status
from claimhouse.verify import VerifyOptions, verify


def options(postgres: Any, tmp_path: Path, **changes: Any) -> CaptureOptions:
    return replace(
        CaptureOptions("main", postgres.dsn, str(tmp_path / "lake"), once=True, flush_interval=0.2), **changes
    )


def once(asked: CaptureOptions) -> Any:
    return Capture(asked).run()


def query(asked: CaptureOptions, text: str, at: str | None = None) -> list[tuple[Any, ...]]:
    with Session(open_lake(asked.location), at=at) as lake:
        table = lake.sql(text).arrow()
        return list(zip(*(c.to_pylist() for c in table.columns), strict=True)) if table.num_rows else []


@contextmanager
def running(asked: CaptureOptions) -> Iterator[Capture]:
    """A capture in a thread; raises what it raised."""
    stop, failed = threading.Event(), []
    capture = Capture(replace(asked, once=False))

    def run() -> None:
        try:
            capture.run(stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield capture
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


def until(question: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if question():
                return
        except ClaimhouseError:
            pass
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.02)


@pytest.mark.case("O2")
def test_once_copies_then_follows(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE claim (id int PRIMARY KEY, amount numeric(12,2), note text)")
    postgres.execute("INSERT INTO claim SELECT g, g / 4.0, 'n' || g FROM generate_series(1, 5000) g")
    asked = options(postgres, tmp_path)
    first = once(asked)
    assert first.copied_rows == 5000
    assert query(asked, "SELECT count(*), sum(amount) FROM claim") == postgres.execute(
        "SELECT count(*), sum(amount) FROM claim"
    )
    postgres.execute(
        "UPDATE claim SET amount = 0 WHERE id <= 10; DELETE FROM claim WHERE id > 4990;"
        " UPDATE claim SET id = -1 WHERE id = 11"
    )
    second = once(asked)
    assert second.copied_rows == 0
    assert sorted(query(asked, "SELECT * FROM claim")) == sorted(postgres.execute("SELECT * FROM claim"))


def test_a_second_once_without_changes_brings_no_rows(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    asked = options(postgres, tmp_path)
    once(asked)
    again = once(asked)
    assert (again.rows, again.copied_rows) == (0, 0)


@pytest.mark.case("N5", "N6")
def test_a_running_capture_shows_commits_and_new_tables(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.3)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        postgres.execute("INSERT INTO t VALUES (1), (2)")
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(2,)])
        postgres.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (7)")
        until(lambda: query(asked, "SELECT id FROM later") == [(7,)])
        postgres.execute("INSERT INTO later VALUES (8)")
        until(lambda: query(asked, "SELECT count(*) FROM later") == [(2,)])


@pytest.mark.case("O6", "O12")
def test_names_and_keys_of_all_sorts_arrive(postgres: Any, tmp_path: Path) -> None:
    postgres.execute('CREATE SCHEMA "We.ird"')
    postgres.execute(
        'CREATE TABLE "We.ird"."Ta ""ble" ("Id" int, "select" text, "_op" text, PRIMARY KEY ("Id", "select"))'
    )
    postgres.execute("""INSERT INTO "We.ird"."Ta ""ble" VALUES (1, 'a', 'x'), (2, 'b', NULL)""")
    postgres.execute("CREATE TABLE nokey (a text); INSERT INTO nokey VALUES ('x'), ('x'), (NULL)")
    postgres.execute("CREATE TABLE full_identity (a text, b int)")
    postgres.execute("ALTER TABLE full_identity REPLICA IDENTITY FULL")
    postgres.execute("INSERT INTO full_identity VALUES ('x', 1), ('x', 1), ('y', 2)")
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute("""UPDATE "We.ird"."Ta ""ble" SET "select" = 'c' WHERE "Id" = 2""")
    postgres.execute("INSERT INTO nokey VALUES ('y')")
    postgres.execute("DELETE FROM full_identity WHERE ctid = (SELECT min(ctid) FROM full_identity)")
    once(asked)
    for name in ('"We.ird"."Ta ""ble"', "nokey", "full_identity"):
        assert sorted(query(asked, f"SELECT * FROM {name}"), key=str) == sorted(
            postgres.execute(f"SELECT * FROM {name}"), key=str
        )


@pytest.mark.case("O6")
def test_an_application_is_never_kept_from_writing_its_tables(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE nokey (a text); INSERT INTO nokey VALUES ('x')")
    once(options(postgres, tmp_path))
    postgres.execute("UPDATE nokey SET a = 'y'; DELETE FROM nokey")


@pytest.mark.case("O8")
def test_a_transaction_larger_than_memory_is_seen_whole_or_not_at_all(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)")
    asked = options(postgres, tmp_path, spill_bytes=100_000)
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM b") == [(0,)])
        with postgres.connect() as other:
            for n in range(20):
                other.execute(
                    "INSERT INTO a SELECT g, repeat('x', 50) FROM generate_series(%s::int, %s) g",
                    (n * 1000, n * 1000 + 999),
                )
                other.execute(
                    "INSERT INTO b SELECT g, repeat('y', 50) FROM generate_series(%s::int, %s) g",
                    (n * 1000, n * 1000 + 999),
                )
            assert query(asked, "SELECT count(*) FROM a") == [(0,)]
        seen = set()
        until(
            lambda: (
                seen.add(query(asked, "SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)")[0]),
                (20000, 20000) in seen,
            )[1]
        )
    assert seen <= {(0, 0), (20000, 20000)}
    snapshot = take(open_lake(asked.location), "main")
    assert snapshot.record is not None
    once(asked)
    assert query(asked, "SELECT count(*), count(DISTINCT id) FROM a") == [(20000, 20000)]


@pytest.mark.case("N1")
def test_a_row_written_before_the_slot_and_committed_after_it_is_there(postgres: Any, tmp_path: Path) -> None:
    """The fence: without it the row is in no chunk (not visible yet) and in no stream (older than the publication)."""
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    postgres.execute("CREATE TABLE other (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    once(replace(asked, tables=["other"]))  # the slot exists from here on
    open_transaction = postgres.connect()
    open_transaction.execute("INSERT INTO t VALUES (1)")
    done = threading.Event()
    thread = threading.Thread(target=lambda: (once(asked), done.set()))
    thread.start()
    assert not done.wait(1.5)
    open_transaction.commit()
    assert done.wait(30)
    thread.join()
    open_transaction.close()
    assert query(asked, "SELECT * FROM t") == [(1,)]


def test_without_the_fence_that_row_is_lost(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(copying, "fence", lambda *_: None)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    postgres.execute("CREATE TABLE other (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    once(replace(asked, tables=["other"]))
    open_transaction = postgres.connect()
    open_transaction.execute("INSERT INTO t VALUES (1)")
    once(asked)
    open_transaction.commit()
    open_transaction.close()
    once(asked)
    assert query(asked, "SELECT * FROM t") == []


@pytest.mark.case("N1", "O3")
def test_a_row_that_moves_behind_the_copy_keeps_its_toast_value(
    postgres: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """An UPDATE moves a row from an unread page to a read one: the stream brings it without its unchanged value."""
    _toasted(postgres)
    asked = options(postgres, tmp_path)
    _move_behind_first_chunk(postgres, monkeypatch)
    once(asked)
    assert query(asked, "SELECT id, touched, length(big) FROM t WHERE id = 3000") == [(3000, 1, 4000)]


def test_without_reading_it_again_that_value_is_lost(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    _toasted(postgres)
    asked = options(postgres, tmp_path)
    _move_behind_first_chunk(postgres, monkeypatch)
    monkeypatch.setattr("claimhouse.pipeline.copying.Copier.missing", lambda *_: None)
    once(asked)
    assert query(asked, "SELECT length(big) FROM t WHERE id = 3000") == [(None,)]


def _toasted(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, touched int, filler text, big text)")
    postgres.execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    postgres.execute("INSERT INTO t SELECT g, 0, repeat('f', 1500), repeat('b', 4000) FROM generate_series(1, 3000) g")


def _move_behind_first_chunk(postgres: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(copying, "FIRST_BLOCKS", 64)
    state = {"chunks": 0}

    def after_chunk(*_: Any) -> int:
        state["chunks"] += 1
        if state["chunks"] == 1:
            postgres.execute("DELETE FROM t WHERE id <= 20")
            postgres.execute("VACUUM t")  # frees room in pages that are read already
            postgres.execute("UPDATE t SET touched = 1 WHERE id = 3000")
        return 64

    monkeypatch.setattr(copying, "_next_step", after_chunk)


@pytest.mark.case("N1")
def test_a_table_rewritten_between_two_chunks_is_copied_again(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    postgres.execute("INSERT INTO t SELECT g, repeat('x', 1500) FROM generate_series(1, 3000) g")
    postgres.execute("DELETE FROM t WHERE id % 2 = 0")
    monkeypatch.setattr(copying, "FIRST_BLOCKS", 64)
    state = {"chunks": 0}

    def after_chunk(*_: Any) -> int:
        state["chunks"] += 1
        if state["chunks"] == 1:
            postgres.execute("VACUUM FULL t")
        return 64

    monkeypatch.setattr(copying, "_next_step", after_chunk)
    asked = options(postgres, tmp_path)
    once(asked)
    assert query(asked, "SELECT count(*), count(DISTINCT id) FROM t") == [(1500, 1500)]
    (copy,) = take(open_lake(asked.location), "main").registry.tables["public/t"].copies
    assert copy.number == 2


@pytest.mark.case("S4")
def test_a_column_with_a_default_shows_it_in_older_rows(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute("ALTER TABLE t ADD COLUMN state text NOT NULL DEFAULT 'open'")
    once(asked)
    assert query(asked, "SELECT * FROM t ORDER BY id") == [(1, "open"), (2, "open")]
    postgres.execute("UPDATE t SET state = 'shut' WHERE id = 2; INSERT INTO t VALUES (3, 'new')")
    once(asked)
    assert query(asked, "SELECT * FROM t ORDER BY id") == [(1, "open"), (2, "shut"), (3, "new")]


@pytest.mark.case("S1", "S2", "S5", "O5")
@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE t RENAME COLUMN a TO z",
        "ALTER TABLE t DROP COLUMN a",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "ALTER TABLE t ALTER COLUMN a TYPE text USING 'v' || a",
        "ALTER TABLE t ALTER COLUMN b TYPE text USING upper(b)",
        "ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN a text DEFAULT 'again'",
        "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (a)",
        "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t",
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, other float8); INSERT INTO t VALUES (9, 0.5)",
        "TRUNCATE t; INSERT INTO t VALUES (5, 5, 'five')",
    ],
)
def test_after_a_ddl_the_table_is_the_sources_again(postgres: Any, tmp_path: Path, ddl: str) -> None:
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b text); INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y')"
    )
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute(ddl)
    once(asked)
    for _ in range(2):
        with Session(open_lake(asked.location)) as lake:
            table = lake.sql("SELECT * FROM t").arrow()
        cursor = postgres.conn.execute("SELECT * FROM t")
        assert table.column_names == [d.name for d in cursor.description]
        held = sorted(zip(*(c.to_pylist() for c in table.columns), strict=True), key=str)
        assert held == sorted(cursor.fetchall(), key=str)
        postgres.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)")
        once(asked)


def test_readers_beside_a_writer_never_see_half_a_transaction(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE debit (id int PRIMARY KEY, v int); CREATE TABLE credit (id int PRIMARY KEY, v int)")
    asked = options(postgres, tmp_path, freshness=0.001, flush_interval=0.05)
    stop = threading.Event()

    def write() -> None:
        with postgres.connect() as other:
            n = 0
            while not stop.is_set():
                n += 1
                other.execute("INSERT INTO debit VALUES (%s, %s)", (n, n))
                other.execute("INSERT INTO credit VALUES (%s, %s)", (n, -n))
                if n % 3 == 0:
                    other.execute("UPDATE debit SET v = v + 1 WHERE id = %s", (n // 2,))
                    other.execute("UPDATE credit SET v = v - 1 WHERE id = %s", (n // 2,))
                other.commit()

    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM credit, debit") == [(0,)])
        writer = threading.Thread(target=write)
        writer.start()
        reads, largest = 0, 0
        deadline = time.monotonic() + 40
        while ((reads < 25 or largest < 150) and time.monotonic() < deadline) or reads < 10:
            ((debit, credit, count),) = query(
                asked,
                "SELECT (SELECT coalesce(sum(v), 0) FROM debit), (SELECT coalesce(sum(v), 0) FROM credit),"
                " (SELECT count(*) FROM debit)",
            )
            assert debit + credit == 0
            reads, largest = reads + 1, max(largest, count)
        stop.set()
        writer.join()
    assert reads >= 10 and largest >= 150


@pytest.mark.case("R7")
def test_a_second_capture_of_the_same_source_is_refused_and_names_the_first(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        with pytest.raises(SlotBusy, match=r"\d"):
            once(asked)
        postgres.execute("INSERT INTO t VALUES (1)")
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(1,)])


@pytest.mark.case("L2")
def test_a_zombie_stops_for_good_when_another_owner_has_taken_over(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    with pytest.raises(Fenced), running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        claim(open_lake(asked.location), "main")
        postgres.execute("INSERT INTO t VALUES (1)")
        time.sleep(1)
    confirmed = postgres.execute("SELECT count(*) FROM pg_replication_slots WHERE active")
    assert confirmed == [(0,)]
    once(asked)
    assert query(asked, "SELECT * FROM t") == [(1,)]


@pytest.mark.case("L2")
def test_a_zombie_whose_connection_breaks_does_not_claim_the_source_back(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    with pytest.raises(Fenced), running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        claim(open_lake(asked.location), "main")
        postgres.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        time.sleep(1)
    assert newest(open_lake(asked.location), "main") == 2


@pytest.mark.case("L2")
def test_the_rightful_owner_goes_on_from_a_cut_that_a_zombie_still_made(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    once(asked)
    lake = open_lake(asked.location)
    with running(asked):
        until(lambda: newest(lake, "main") == 2)
        until(lambda: zombies_cut(lake))
        postgres.execute("INSERT INTO t VALUES (1)")
        until(lambda: query(asked, "SELECT id FROM t") == [(1,)])
    assert newest(lake, "main") == 3  # it claimed the source anew


def zombies_cut(lake: Any) -> bool:
    """Whether a cut that the source's first owner tries to make now is the next one."""
    zombie = Tail(lake, "main", Owner(lake, "main", 1))
    last = zombie.last()
    assert last is not None
    names = {n: getattr(last, n) for n in ("end_lsn", "max_committed_at", "incarnation", "registry", "flush")}
    with pytest.raises(Fenced):
        zombie.append([], None, flushed_cut=last.flushed_cut, **names)
    return read_mark(lake, "main", last.cut + 1).epoch == 1


@pytest.mark.case("R6")
def test_a_slot_that_is_gone_stops_the_capture_and_says_what_is_missing(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    done = once(asked)
    until(
        lambda: (
            postgres.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (done.slot,)) == [(False,)]
        )
    )
    postgres.execute("SELECT pg_drop_replication_slot(%s)", (done.slot,))
    postgres.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(SourceLost, match=r"slot .* is missing.*0/"):
        once(asked)


@pytest.mark.case("R6")
def test_a_lost_slot_is_bridged_where_that_is_asked_for(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 2)")
    postgres.execute("CREATE TABLE keyless (id int); ALTER TABLE keyless REPLICA IDENTITY FULL")
    asked = options(postgres, tmp_path)
    done = once(asked)
    before = done.end_lsn
    until(lambda: postgres.execute("SELECT bool_or(active) FROM pg_replication_slots") == [(False,)])
    postgres.execute("SELECT pg_drop_replication_slot(%s)", (done.slot,))
    postgres.execute("DELETE FROM t WHERE id = 1; UPDATE t SET a = 20 WHERE id = 2; INSERT INTO keyless VALUES (7)")
    between = current_lsn(postgres.conn)
    with pytest.raises(SlotLost):
        once(asked)
    once(replace(asked, repair=True))
    postgres.execute("INSERT INTO t VALUES (3, 3)")
    once(asked)
    assert query(asked, "SELECT id, a FROM t ORDER BY id") == [(2, 20), (3, 3)]
    assert query(asked, "SELECT id FROM keyless") == [(7,)]
    assert query(asked, "SELECT id, a FROM t ORDER BY id", at=lsn_text(before)) == [(1, 1), (2, 2)]
    with pytest.raises(NotExact):
        query(asked, "SELECT * FROM t", at=lsn_text(between))
    assert verify(VerifyOptions("main", postgres.dsn, asked.location)).differences == []


@pytest.mark.case("R6")
def test_a_repair_that_is_killed_before_its_first_cut_can_be_done_again(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    asked = options(postgres, tmp_path)
    done = once(asked)
    until(lambda: postgres.execute("SELECT bool_or(active) FROM pg_replication_slots") == [(False,)])
    postgres.execute("SELECT pg_drop_replication_slot(%s)", (done.slot,))
    postgres.execute("INSERT INTO t VALUES (2)")
    postgres.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (done.slot,))  # all that it had done
    with pytest.raises(SlotLost, match="moved"):
        once(asked)
    once(replace(asked, repair=True))
    assert query(asked, "SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_small_copies_share_their_registries(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    for n in range(25):
        postgres.execute(f"CREATE TABLE t{n} (id int PRIMARY KEY); INSERT INTO t{n} SELECT generate_series(1, {n + 1})")
    real, saved = registry.save, []

    def slowly(*given: Any) -> str:
        time.sleep(0.1)
        saved.append(real(*given))
        return saved[-1]

    monkeypatch.setattr("claimhouse.pipeline.cutting.registry.save", slowly)
    asked = options(postgres, tmp_path)
    once(asked)
    assert len(saved) < 12  # not two for each table
    counts = [query(asked, f"SELECT count(*) FROM t{n}") for n in range(25)]
    assert counts == [[(n + 1,)] for n in range(25)]


@pytest.mark.case("N2")
@pytest.mark.parametrize("again", [False, True], ids=["the first copy", "a later one"])
def test_a_copy_killed_within_a_chunk_shows_no_deleted_row(
    postgres: Any, tmp_path: Path, monkeypatch: Any, again: bool
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    asked = options(postgres, tmp_path)
    if again:
        once(asked)
        resync.ask(postgres.conn, postgres.execute("SELECT 't'::regclass::oid::bigint")[0][0])
    postgres.execute("INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 3000) g")
    monkeypatch.setattr(copying, "CHUNK_BYTES", 1 << 17)
    monkeypatch.setattr("claimhouse.pipeline.copying.LARGE_BYTES", 1 << 14)  # few pieces a cut
    real, cuts = Cutter.cut, []

    def killed(cutter: Cutter, pending: Any, *given: Any) -> Any:
        if any(c.batch["_op"][0].as_py() == "r" for c in pending.changes):
            cuts.append(1)
        if len(cuts) == 5:
            raise KeyboardInterrupt
        return real(cutter, pending, *given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Cutter, "cut", killed)
        once(asked)
    postgres.execute("DELETE FROM t WHERE id <= 1000")
    once(asked)
    assert query(asked, "SELECT count(*), min(id) FROM t") == [(2000, 1001)]
    assert verify(VerifyOptions("main", postgres.dsn, asked.location)).differences == []


def test_a_copy_of_a_table_without_a_key_holds_what_a_column_got_that_came_meanwhile(
    postgres: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Found by the model (seed 300002): rows were read by the shape that the table had when the copy was asked for."""
    postgres.execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 5)")
    real, added = copying.read_whole, []

    def later(conn: Any, *given: Any) -> Any:
        if not added:
            added.append(1)
            postgres.execute("ALTER TABLE t ADD COLUMN a int DEFAULT 7; INSERT INTO t VALUES (6, 8)")
        return real(conn, *given)

    monkeypatch.setattr(copying, "read_whole", later)
    asked = options(postgres, tmp_path)
    once(asked)
    assert query(asked, "SELECT id, a FROM t ORDER BY id") == [*((n, 7) for n in range(1, 6)), (6, 8)]


@pytest.mark.case("N7")
def test_a_table_is_copied_anew_on_request_while_others_stream(postgres: Any, tmp_path: Path) -> None:
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT g, g FROM generate_series(1, 9) g"
    )
    postgres.execute("CREATE TABLE other (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    once(asked)
    lake = open_lake(asked.location)

    def copies() -> list[int]:
        (state,) = [s for s in take(lake, "main").registry.tables.values() if s.name == "t"]
        return [c.number for c in state.copies if c.exact_from is not None]

    with running(asked), psycopg.connect(postgres.dsn) as open_one:
        open_one.execute("INSERT INTO t VALUES (100, 1)")  # the copy's fence waits for it
        resync.ask(postgres.conn, postgres.execute("SELECT 't'::regclass::oid::bigint")[0][0])
        postgres.execute("INSERT INTO other VALUES (1); UPDATE t SET a = -a WHERE id = 1")
        until(lambda: query(asked, "SELECT id FROM other") == [(1,)])
        assert copies() == [1]
        assert query(asked, "SELECT count(*), min(a) FROM t") == [(9, -1)]
        open_one.commit()
        until(lambda: copies() == [1, 2])
    assert query(asked, "SELECT count(*), min(a) FROM t") == [(10, -1)]


@pytest.mark.case("R12", "S8")
def test_a_table_that_an_error_stopped_is_taken_up_again_on_request(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x')")
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute("ALTER TABLE t ADD COLUMN b text, ADD COLUMN \"B\" text; INSERT INTO t VALUES (2, 'y')")
    assert once(asked).errored
    postgres.execute("INSERT INTO t VALUES (3, 'z')")
    postgres.execute('ALTER TABLE t DROP COLUMN "B", ADD r float8 DEFAULT random(); INSERT INTO t VALUES (4, $$z$$)')
    oid = postgres.execute("SELECT 't'::regclass::oid::bigint")[0][0]
    with running(asked):
        resync.ask(postgres.conn, oid)
        until(lambda: query(asked, "SELECT id, a FROM t ORDER BY id") == [(1, "x"), (2, "y"), (3, "z"), (4, "z")])
        postgres.execute("INSERT INTO t VALUES (5, 'later')")
        until(lambda: query(asked, "SELECT max(id) FROM t") == [(5,)])
    assert not once(asked).errored
    assert begun(asked, "t") == 2  # what was looked at before it asks for no third copy
    assert status(open_lake(asked.location)).ok
    assert verify(VerifyOptions("main", postgres.dsn, asked.location)).differences == []


def begun(asked: CaptureOptions, name: str) -> int:
    """How many copies of a table were begun."""
    states = take(open_lake(asked.location), "main").registry.tables.values()
    return next(s.copies_begun for s in states if s.name == name)


@pytest.mark.case("R12")
def test_a_table_that_an_error_stopped_tells_of_it_once_however_many_such_rows_come(
    postgres: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)")
    real = rows.cast

    def unkept(text: Any, column: Any) -> Any:
        if column.name == "v":
            raise Unsupported("column v (text) holds a value that cannot be kept as text")
        return real(text, column)

    monkeypatch.setattr(rows, "cast", unkept)
    asked = options(postgres, tmp_path)
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        for n in range(5):
            postgres.execute(f"INSERT INTO t VALUES ({n}, 'x')")
            postgres.execute(f"INSERT INTO other VALUES ({n})")
            until(lambda n=n: query(asked, "SELECT max(id) FROM other") == [(n,)])
    lake = open_lake(asked.location)
    assert [s.status for s in take(lake, "main").registry.tables.values() if s.name == "t"] == ["errored"]
    assert [letter.folder for letter in deadletters.letters(lake, "main")] == ["public/t"]


@pytest.mark.case("S2")
@pytest.mark.parametrize("told", [True, False], ids=["by the trigger", "by the catalog alone"])
def test_a_rewrite_is_answered_by_one_comparison(postgres: Any, tmp_path: Path, told: bool) -> None:
    if told:
        postgres.execute(ddl_trigger.install_sql())
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)")
    asked = options(postgres, tmp_path)
    with running(asked):
        until(lambda: query(asked, "SELECT id FROM t") == [(1,)])
        postgres.execute("ALTER TABLE t ADD COLUMN r float8 DEFAULT random(); INSERT INTO t VALUES (2, 2, 0.5)")
        until(lambda: query(asked, "SELECT id FROM t WHERE r IS NOT NULL ORDER BY id") == [(1,), (2,)])
    once(asked)
    assert begun(asked, "t") == 1
    assert query(asked, "SELECT _op, id FROM t__log WHERE _op <> 'r' ORDER BY id") == [("u", 1), ("c", 2)]
    assert verify(VerifyOptions("main", postgres.dsn, asked.location)).differences == []


@pytest.mark.parametrize("content", ["", "x", "-1", "99999999999999", "4711"])
def test_a_request_that_names_no_captured_table_changes_nothing(postgres: Any, tmp_path: Path, content: str) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute("SELECT pg_logical_emit_message(true, %s, %s)", (resync.PREFIX, content))
    assert once(asked).copied_rows == 0


@pytest.mark.case("R6")
def test_a_slot_moved_by_someone_else_stops_the_capture(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    done = once(asked)
    postgres.execute("INSERT INTO t VALUES (1)")
    until(
        lambda: (
            postgres.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (done.slot,)) == [(False,)]
        )
    )
    postgres.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_insert_lsn())", (done.slot,))
    with pytest.raises(SourceLost, match="moved"):
        once(asked)


@pytest.mark.case("R8")
def test_another_database_is_not_taken_for_the_captured_one(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    once(asked)
    with pytest.raises(SourceLost, match="database"):
        once(replace(asked, dsn=postgres.dsn.replace(postgres.name, "postgres")))


@pytest.mark.case("R11")
def test_a_role_that_may_not_publish_is_told_the_sql(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with pytest.raises(NotReady) as told:
        once(options(postgres, tmp_path, dsn=postgres.role()))
    assert "CREATE PUBLICATION" in (told.value.hint or "")


def test_patterns_that_match_nothing_are_an_error(postgres: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        once(options(postgres, tmp_path))


def test_two_sources_are_joined_in_one_query_and_live_alone(postgres: Any, server: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')")
    postgres.execute("CREATE TABLE u (id int PRIMARY KEY, w text); INSERT INTO u VALUES (1, 'eins')")
    a = options(postgres, tmp_path, source="claims", tables=["t"])
    b = options(postgres, tmp_path, source="policies", tables=["u"])
    once(a)
    with running(b):
        until(lambda: query(b, "SELECT w FROM policies.public.u") == [("eins",)])
        assert query(a, "SELECT v, w FROM claims.public.t JOIN policies.public.u USING (id)") == [("one", "eins")]
        once(a)
        postgres.execute("UPDATE u SET w = 'uno'")
        until(lambda: query(b, "SELECT w FROM policies.public.u") == [("uno",)])


@pytest.mark.case("R5")
def test_a_broken_connection_is_mended(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path)
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        postgres.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE active AND database = current_database()"
        )
        postgres.execute("INSERT INTO t VALUES (1)")
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(1,)])


@pytest.mark.case("R2")
def test_an_idle_source_moves_its_slot(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.2)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE busy (id int PRIMARY KEY)")
    asked = options(postgres, tmp_path, tables=["t"])
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        postgres.execute("INSERT INTO busy SELECT generate_series(1, 20000)")
        before = current_lsn(postgres.conn)
        until(lambda: take(open_lake(asked.location), "main").mark.end_lsn >= before)
    confirmed = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE database = current_database()"
    until(lambda: postgres.execute(confirmed, [lsn_text(before)]) == [(True,)])


def test_a_catalog_that_is_slow_to_look_at_does_not_hold_the_stream_up(
    postgres: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.1)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    asked, real, looks = options(postgres, tmp_path), Admission.marks, []

    def slowly(*given: Any) -> Any:
        looks.append(time.monotonic())
        time.sleep(0.3)
        return real(*given)

    monkeypatch.setattr(Admission, "marks", slowly)
    with running(asked):
        until(lambda: len(looks) >= 3)
    assert min(later - look for look, later in pairwise(looks)) >= 3


def test_an_idle_capture_does_not_flush_for_ever(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.2)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    asked = options(postgres, tmp_path, flush_interval=0.05)
    once(asked)
    lake = open_lake(asked.location)
    before = take(lake, "main").mark
    with running(asked):
        until(lambda: take(lake, "main").mark.cut >= before.cut + 5)
        flush = take(lake, "main").mark.flush
    assert flush <= before.flush + 2


@pytest.mark.case("L2", "R7")
def test_a_lake_on_s3_has_the_same_guarantees(postgres: Any, tmp_path: Path, bucket: Any) -> None:
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 500) g"
    )
    asked = options(postgres, tmp_path, location=bucket.location, storage_options=bucket.options, freshness=0.1)

    def held(text: str) -> list[tuple[Any, ...]]:
        with Session(open_lake(asked.location, asked.storage_options)) as lake:
            table = lake.sql(text).arrow()
            return list(zip(*(c.to_pylist() for c in table.columns), strict=True))

    once(asked)
    assert held("SELECT count(*), min(v) FROM t") == [(500, "v1")]
    with running(asked):
        postgres.execute("UPDATE t SET v = 'new' WHERE id = 7; DELETE FROM t WHERE id > 400")
        until(lambda: held("SELECT count(*), max(v) FROM t WHERE id = 7 OR id > 400") == [(1, "new")])
        with pytest.raises(SlotBusy):
            once(asked)
    opened = open_lake(asked.location, asked.storage_options)
    before = newest(opened, "main")
    with pytest.raises(Fenced), running(asked):
        until(lambda: newest(opened, "main") > before)
        claim(opened, "main")
        postgres.execute("INSERT INTO t VALUES (1000, 'late')")
        time.sleep(3)
    once(asked)
    assert held("SELECT v FROM t WHERE id = 1000") == [("late",)]
    report = verify(VerifyOptions("main", postgres.dsn, asked.location, asked.storage_options))
    assert (report.rows, report.differences) == (401, [])


def test_a_time_before_the_history_is_refused_and_names_the_first_one(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    asked = options(postgres, tmp_path)
    once(asked)
    with pytest.raises(NotExact, match="not known at that time") as told:
        query(asked, "SELECT * FROM t", at="2001-01-01")
    assert (told.value.hint or "").startswith("its history begins at 20")
    time.sleep(0.01)
    ((now,),) = postgres.execute("SELECT clock_timestamp()")
    moment = now.isoformat()
    postgres.execute("INSERT INTO t VALUES (2)")
    once(asked)
    assert query(asked, "SELECT * FROM t", at=moment) == [(1,)]


def test_moments_between_a_rewrite_without_events_and_its_noticing_are_refused(postgres: Any, tmp_path: Path) -> None:
    """Found by the model (seed 696770713): the column keeps its type, so what the stream announces looks as before."""
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute("ALTER TABLE t ALTER COLUMN b TYPE text USING upper(b)")
    postgres.execute("INSERT INTO t VALUES (3, 'z')")
    ((between,),) = postgres.execute("SELECT pg_current_wal_insert_lsn()::text")
    postgres.execute("INSERT INTO t VALUES (4, 'z')")
    once(asked)
    with pytest.raises(NotExact, match="not known exactly"):
        query(asked, "SELECT * FROM t", at=between)
    assert sorted(query(asked, "SELECT * FROM t")) == [(1, "X"), (2, "Y"), (3, "z"), (4, "z")]


def test_a_truncate_of_a_wide_table_beside_an_unchanged_value_of_a_narrow_one(postgres: Any, tmp_path: Path) -> None:
    """Found by the model (seed 100009): the truncate's columns were sought among the narrow table's cells."""
    postgres.execute("CREATE TABLE narrow (id int PRIMARY KEY, v int, big text)")
    postgres.execute("ALTER TABLE narrow ALTER big SET STORAGE EXTERNAL")
    postgres.execute("INSERT INTO narrow VALUES (1, 1, repeat('x', 4000))")
    postgres.execute("CREATE TABLE wide (id int PRIMARY KEY, a int, b int, c int, d int, e text)")
    postgres.execute("INSERT INTO wide VALUES (1, 1, 1, 1, 1, 'e')")
    asked = options(postgres, tmp_path)
    once(asked)
    with postgres.connect() as other:
        other.execute("UPDATE narrow SET v = 2")
        other.execute("TRUNCATE wide")
    once(asked)
    assert query(asked, "SELECT v, length(big) FROM narrow") == [(2, 4000)]
    assert query(asked, "SELECT count(*) FROM wide") == [(0,)]


def test_a_ddl_right_after_a_look_at_the_catalog_is_not_taken_for_known(
    postgres: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Found by the model (seed 742736326): a dropped column stood in a moment that was called exact."""
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.2)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'x')")
    asked = options(postgres, tmp_path)
    once(asked)
    real, between = catalog.marks, []

    def then_ddl(conn: Any, oids: Any) -> Any:
        found = real(conn, oids)
        if not between and oids:
            postgres.execute("ALTER TABLE t DROP COLUMN b")
            between.append(postgres.execute("SELECT pg_current_wal_insert_lsn()::text")[0][0])
            postgres.execute("CREATE TABLE elsewhere (id int)")
        return found

    with running(replace(asked, tables=["t"])):
        time.sleep(0.5)
        monkeypatch.setattr(catalog, "marks", then_ddl)
        until(lambda: query(asked, "SELECT * FROM t") == [(1,)])
        monkeypatch.undo()
        postgres.execute("INSERT INTO t VALUES (2)")
        until(lambda: sorted(query(asked, "SELECT * FROM t")) == [(1,), (2,)])
    with pytest.raises(NotExact, match="not known exactly"):
        query(asked, "SELECT * FROM t", at=between[0])
    assert sorted(query(asked, "SELECT * FROM t")) == [(1,), (2,)]


@pytest.mark.case("N6")
@pytest.mark.parametrize(
    "meddling",
    [
        "ALTER PUBLICATION {name} DROP TABLE t",
        "ALTER PUBLICATION {name} SET (publish = 'insert')",
        "ALTER PUBLICATION {name} SET TABLE t WHERE (id > 100), other",
        "DROP PUBLICATION {name}",
    ],
)
def test_what_changed_while_nothing_published_a_table_is_in_the_lake(
    postgres: Any, tmp_path: Path, meddling: str
) -> None:
    """Somebody else meddles with our publication: the stream says nothing of the changes that it leaves out."""
    if "DROP PUBLICATION" in meddling and postgres.conn.info.server_version < 180000:
        meddling = "ALTER PUBLICATION {name} DROP TABLE t"  # there the stream itself ends with an error
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 2)")
    postgres.execute("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)")
    asked = options(postgres, tmp_path)
    name = once(asked).slot
    postgres.execute(meddling.format(name=name))
    postgres.execute("UPDATE t SET a = 10 WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 3)")
    between = current_lsn(postgres.conn)
    once(asked)
    postgres.execute("INSERT INTO t VALUES (4, 4)")
    once(asked)
    assert query(asked, "SELECT id, a FROM t ORDER BY id") == [(1, 10), (3, 3), (4, 4)]
    assert query(asked, "SELECT id FROM other") == [(1,)]
    with pytest.raises(NotExact):
        query(asked, "SELECT * FROM t", at=f"{between >> 32:X}/{between & 0xFFFFFFFF:X}")


def test_a_transaction_open_while_nothing_published_its_table_counts_once(postgres: Any, tmp_path: Path) -> None:
    """Found by the model (seed 300035): its first changes came by the stream, those that took them back did not."""
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 2)")
    asked = options(postgres, tmp_path)
    name = once(asked).slot
    published = f"SELECT count(*) FROM pg_publication_tables WHERE pubname = '{name}'"
    with psycopg.connect(postgres.dsn) as open_one, ThreadPoolExecutor() as pool:
        open_one.execute("UPDATE t SET id = 100 WHERE id = 1")
        postgres.execute(f"ALTER PUBLICATION {name} DROP TABLE t")
        open_one.execute("DELETE FROM t WHERE id = 100")
        running_once = pool.submit(once, asked)
        until(lambda: postgres.execute(published) == [(1,)])
        open_one.execute("UPDATE t SET a = 20 WHERE id = 2")
        time.sleep(0.3)
        open_one.commit()
        running_once.result(timeout=30)
    assert query(asked, "SELECT id, a FROM t") == [(2, 20)]


@pytest.mark.case("N6")
def test_a_publication_that_we_may_not_mend_stops_the_capture(postgres: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.2)
    monkeypatch.setattr("claimhouse.pipeline.capture.LOOK_SHARE", 1.0)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    postgres.execute("CREATE PUBLICATION theirs FOR TABLE t WITH (publish_via_partition_root)")
    asked = options(postgres, tmp_path, publication="theirs")
    with pytest.raises(NotReady, match="theirs"), running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        postgres.execute("ALTER PUBLICATION theirs SET (publish = 'insert')")
        time.sleep(2.0)


@pytest.mark.case("N3")
def test_an_untouched_publication_copies_nothing_again(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    postgres.execute("CREATE SCHEMA s; CREATE TABLE s.u (id int); CREATE TABLE s.w (id int) PARTITION BY RANGE (id)")
    postgres.execute("CREATE TABLE s.w1 PARTITION OF s.w DEFAULT")
    asked = options(postgres, tmp_path)
    assert once(asked).copied_rows == 1
    postgres.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")
    assert once(asked).copied_rows == 1
    assert once(asked).copied_rows == 0


@pytest.mark.case("O13")
def test_stored_generated_columns_are_captured_where_the_server_can_send_them(postgres: Any, tmp_path: Path) -> None:
    newer = postgres.conn.info.server_version >= 180000
    postgres.execute(
        "CREATE TABLE line (id int PRIMARY KEY, qty int, price numeric(10,2), big text,"
        " total numeric(12,2) GENERATED ALWAYS AS (qty * price) STORED,"
        " name text GENERATED ALWAYS AS (left(big, 3)) STORED)"
    )
    postgres.execute("INSERT INTO line SELECT g, g, 1.5, repeat('abc', 2000) FROM generate_series(1, 5) g")
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute("UPDATE line SET qty = 10 WHERE id = 2; INSERT INTO line VALUES (6, 6, 2, 'xyz')")
    postgres.execute("CREATE TABLE keyed (a int, b int GENERATED ALWAYS AS (a * 2) STORED NOT NULL PRIMARY KEY)")
    postgres.execute("INSERT INTO keyed VALUES (1), (2)")
    once(asked)
    assert verify(VerifyOptions("main", postgres.dsn, asked.location)).differences == []
    if newer:
        assert query(asked, "SELECT id, total, name FROM line WHERE id IN (2, 6) ORDER BY id") == [
            (2, Decimal("15.00"), "abc"),
            (6, Decimal("12.00"), "xyz"),
        ]
        postgres.execute("UPDATE keyed SET a = 5 WHERE a = 1; DELETE FROM keyed WHERE a = 2")
    postgres.execute("ALTER TABLE line ADD COLUMN twice int GENERATED ALWAYS AS (qty * 2) STORED")
    postgres.execute("UPDATE line SET qty = 0 WHERE id = 1")
    once(asked)
    assert verify(VerifyOptions("main", postgres.dsn, asked.location)).differences == []
    if newer:
        assert query(asked, "SELECT twice FROM line ORDER BY id") == [(0,), (20,), (6,), (8,), (10,), (12,)]
        assert query(asked, "SELECT a, b FROM keyed") == [(5, 10)]
        postgres.execute("ALTER TABLE line ALTER COLUMN twice SET EXPRESSION AS (qty * 3)")
        once(asked)
        assert query(asked, "SELECT twice FROM line ORDER BY id") == [(0,), (30,), (9,), (12,), (15,), (18,)]


def test_a_run_once_knows_a_rewrite_that_the_stream_announced_before_the_catalog_was_read(
    postgres: Any, tmp_path: Path
) -> None:
    """The column's values in old rows come by no event, and the look that notices it must not be left to a next run."""
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    asked = options(postgres, tmp_path)
    once(asked)
    postgres.execute("ALTER TABLE t ADD COLUMN drawn float8 NOT NULL DEFAULT random()")
    postgres.execute("INSERT INTO t VALUES (3)")
    once(asked)
    assert query(asked, "SELECT count(drawn) FROM t") == [(3,)]
    assert verify(VerifyOptions("main", postgres.dsn, asked.location)).differences == []


@pytest.mark.case("O6", "S6")
def test_a_table_that_lost_its_key_can_soon_be_written_again(postgres: Any, tmp_path: Path) -> None:
    postgres.execute(ddl_trigger.install_sql())
    postgres.execute("CREATE TABLE t (id int CONSTRAINT pk PRIMARY KEY); INSERT INTO t VALUES (1)")
    asked = options(postgres, tmp_path)
    with running(asked):
        until(lambda: query(asked, "SELECT id FROM t") == [(1,)])
        postgres.execute("ALTER TABLE t DROP CONSTRAINT pk")
        deadline = time.monotonic() + 8  # looking by itself, it would notice after ten seconds at the earliest
        while time.monotonic() < deadline:
            try:
                postgres.execute("UPDATE t SET id = 2")
                break
            except psycopg.errors.ObjectNotInPrerequisiteState:
                time.sleep(0.05)
        assert postgres.execute("SELECT id FROM t") == [(2,)]
