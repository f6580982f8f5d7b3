"""Going on: after lost answers and connections, with a slot that is gone, on a server that stops or was set back."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.pipeline.killing import killed
from tests.pipeline.test_capture import once, options, query, running, until
from tests.values.lake import Lake

from claimhouse.errors import SlotLost, SourceLost, StorageGone
from claimhouse.lake import delta
from claimhouse.lake.lake import open_lake
from claimhouse.lake.snapshot import take
from claimhouse.lake.storage import FolderStore
from claimhouse.lake.tail import Tail
from claimhouse.pipeline.flushing import Flusher
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.stream import Stream


def confirmed(postgres: Any) -> int:
    query = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE database = current_database()"
    return postgres.execute(query)[0][0]


@pytest.mark.case("R1", "R3")
def test_confirmations_that_never_arrive_bring_no_row_twice(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)")
    postgres.execute("CREATE TABLE loose (v int); ALTER TABLE loose REPLICA IDENTITY FULL")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    until(lambda: postgres.execute("SELECT bool_or(active) FROM pg_replication_slots") == [(False,)])
    before = confirmed(postgres)
    with monkeypatch.context() as lost:
        lost.setattr(Stream, "_tell", lambda stream: None)
        for n in range(2, 5):
            postgres.execute(f"INSERT INTO t VALUES ({n}, 1); UPDATE t SET v = v + 1; INSERT INTO loose VALUES (1)")
            assert lake.capture().rows == n + 2
            assert confirmed(postgres) == before
    assert lake.capture().rows == 0
    until(lambda: confirmed(postgres) > before)
    assert lake.rows("SELECT * FROM t") == sorted(postgres.execute("SELECT * FROM t"))
    assert lake.rows("SELECT count(*) FROM loose") == [(3,)]
    assert lake.differences() == []


@pytest.mark.case("R4")
@pytest.mark.parametrize("lost", ["of a cut", "of a flush"])
def test_a_write_whose_answer_is_lost_is_found_and_not_made_again(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE loose (v int)")
    asked, answers = options(postgres, tmp_path), []
    put, write = FolderStore.put_new, delta.write

    def put_unanswered(store: Any, key: str, *given: Any) -> None:
        put(store, key, *given)
        if lost == "of a cut" and key.startswith("tail/") and len(answers) == 1:
            answers.append(key)
            raise StorageGone(f"{key}: its answer was lost")

    def write_unanswered(lake: Any, key: str, *given: Any, **more: Any) -> Any:
        made = write(lake, key, *given, **more)
        if lost == "of a flush" and key.endswith("/t") and len(answers) == 1:
            answers.append(key)
            raise OSError("its answer was lost")
        return made

    monkeypatch.setattr(FolderStore, "put_new", put_unanswered)
    monkeypatch.setattr(delta, "write", write_unanswered)
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        answers.append("")  # from now on
        for n in range(20):
            postgres.execute(f"INSERT INTO t VALUES ({n}); INSERT INTO loose VALUES (1)")
        until(lambda: len(answers) == 2 and query(asked, "SELECT count(*) FROM loose") == [(20,)])
        postgres.execute("INSERT INTO t VALUES (20); INSERT INTO loose VALUES (1)")
        until(lambda: query(asked, "SELECT count(*) FROM loose") == [(21,)])
    once(asked)
    lake = Lake(postgres.dsn, tmp_path)
    assert [len(lake.log(f"public/{name}")) for name in ("t", "loose")] == [21, 21]
    assert lake.differences() == []


@pytest.mark.case("R10", "L3")
def test_what_a_killed_run_left_unflushed_is_flushed_by_the_next_although_nothing_is_new(
    postgres: Any, tmp_path: Path
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO t VALUES (1)")
    assert killed(lake, "cut.after_confirm")
    assert lake.rows("SELECT id FROM t") == [(1,)]
    assert lake.capture().rows == 0
    assert [r["id"] for r in lake.log("public/t")] == [1]


@pytest.mark.case("L3")
def test_idle_runs_one_after_the_other_do_not_let_the_tail_grow(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Flusher.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "idle_cuts", 4)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    lake = Lake(postgres.dsn, tmp_path)
    waiting = []
    for _ in range(7):
        lake.capture()
        waiting.append(len(take(open_lake(lake.location), "main").cuts))
    assert max(waiting) < 6, waiting


@pytest.mark.case("R5")
def test_a_connection_lost_while_a_cut_is_written_costs_nothing(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE TABLE loose (v int)")
    asked, append = options(postgres, tmp_path), Tail.append
    wanted, held, go_on = threading.Event(), threading.Event(), threading.Event()

    def slowly(tail: Tail, *given: Any, **more: Any) -> Any:
        if wanted.is_set() and not held.is_set():
            held.set()
            assert go_on.wait(20)
        return append(tail, *given, **more)

    monkeypatch.setattr(Tail, "append", slowly)
    active = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database() AND active"
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM loose") == [(0,)])
        wanted.set()
        postgres.execute("INSERT INTO loose VALUES (1)")
        assert held.wait(20)
        postgres.execute("INSERT INTO loose VALUES (2)")
        ((pid,),) = postgres.execute(active)
        postgres.execute("SELECT pg_terminate_backend(%s)", [pid])
        until(lambda: postgres.execute(active) == [])
        postgres.execute("INSERT INTO loose VALUES (3)")
        go_on.set()
        until(lambda: query(asked, "SELECT count(*) FROM loose") == [(3,)])
        assert postgres.execute(active) != [(pid,)]
    once(asked)
    assert sorted(query(asked, "SELECT v FROM loose")) == [(1,), (2,), (3,)]


@pytest.mark.case("R6")
def test_a_slot_that_lost_its_wal_stops_the_capture_until_it_is_bridged(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    asked = options(postgres, tmp_path)
    slot = once(asked).slot
    postgres.execute("INSERT INTO t VALUES (2); DELETE FROM t WHERE id = 1")
    postgres.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    postgres.execute("SELECT pg_reload_conf()")
    try:
        for _ in range(4):
            postgres.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            postgres.execute("SELECT pg_switch_wal()")
        postgres.execute("CHECKPOINT")
    finally:
        postgres.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        postgres.execute("SELECT pg_reload_conf()")
    with pytest.raises(SlotLost, match=rf"slot {slot} is lost: the changes from \S+ to \S+ are gone") as told:
        once(asked)
    assert "claimhouse repair" in (told.value.hint or "")
    assert query(asked, "SELECT id FROM t") == [(1,)]
    once(replace(asked, repair=True))
    assert query(asked, "SELECT id FROM t") == [(2,)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Embedded]:
    """A server that a test may stop and set back."""
    server = Embedded(tmp_path / "server", fast=True).start()
    yield server
    server.stop(wait=5.0)


def run(server: Embedded, statement: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


def copied(folder: Path, target: Path) -> None:
    """A stopped server's folder as it is, with its files' owner."""
    shutil.rmtree(place := target.resolve(), ignore_errors=True)
    subprocess.run(["cp", "-a", str(folder.resolve()), str(place)], check=True)


@pytest.mark.case("R8")
def test_a_server_that_was_set_back_behind_the_lake_is_never_gone_on_with(own: Embedded, tmp_path: Path) -> None:
    lake, backup = Lake(own.dsn, tmp_path), tmp_path / "backup"
    run(own, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    lake.capture()
    own.stop()
    copied(own.data, backup)
    own.start()
    run(own, "INSERT INTO t SELECT generate_series(2, 20000)")
    lake.capture()
    before = lake.rows("SELECT count(*), max(id) FROM t")
    own.stop()
    copied(backup, own.data)
    own.start()
    for _ in range(2):
        with pytest.raises(SourceLost, match=r"behind the lake's .* restored from a backup") as told:
            lake.capture()
        assert not isinstance(told.value, SlotLost)  # nothing that a repair may bridge
        run(own, "INSERT INTO t VALUES (-1) ON CONFLICT DO NOTHING")
    assert lake.rows("SELECT count(*), max(id) FROM t") == before == [(20000, 20000)]


@pytest.mark.case("R10")
def test_a_server_that_shuts_down_is_let_go_at_once_and_gone_on_with_when_it_is_back(
    own: Embedded, tmp_path: Path
) -> None:
    run(own, "CREATE TABLE t (id int PRIMARY KEY)")
    asked = options(own, tmp_path)
    with running(asked):
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        run(own, "INSERT INTO t SELECT generate_series(1, 1000)")
        began = time.monotonic()
        own.stop(wait=20.0)  # in order; it would wait as long for whoever does not confirm what was sent
        assert time.monotonic() - began < 15
        assert query(asked, "SELECT count(*) FROM t") == [(1000,)]
        own.start()
        run(own, "INSERT INTO t VALUES (0)")
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(1001,)], 40)
    assert Lake(own.dsn, tmp_path).differences() == []
