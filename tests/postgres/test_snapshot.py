"""Copying a table: what the rules are for, each shown by what happens without it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from claimhouse.errors import SourceError, SourceGone
from claimhouse.postgres import catalog, snapshot
from claimhouse.postgres.server import connect
from claimhouse.postgres.snapshot import Moved, fence, parse_csv, read_chunks, read_keys, read_whole, storage
from claimhouse.table import Table


def described(postgres: Any, name: str) -> Table:
    (oid,) = postgres.execute(f"SELECT '{name}'::regclass::oid::bigint")[0]
    with connect(postgres.dsn) as conn:
        return catalog.describe(conn, oid)


def rows(batches: list[Any], *names: str) -> list[tuple[Any, ...]]:
    found = [tuple(zip(*(b.batch.column(n).to_pylist() for n in names), strict=True)) for b in batches]
    return [row for batch in found for row in batch]


@pytest.mark.case("N1")
def test_the_fence_waits_for_a_transaction_that_was_open_before_it(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    other = postgres.connect()
    other.execute("INSERT INTO t VALUES (1)")
    done = threading.Event()
    told: list[str] = []

    def wait() -> None:
        with connect(postgres.dsn) as conn:
            fence(conn, lambda: False, told.append)
            done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not done.wait(0.5)
    with connect(postgres.dsn) as conn:
        assert str(other.info.backend_pid) in snapshot.oldest_transaction(conn)
    other.commit()
    assert done.wait(5)
    thread.join()
    other.close()


@pytest.fixture(params=["socket", "libpq"])
def received(request: Any, monkeypatch: Any) -> str:
    """By which way rows come: an encrypted connection has only the second."""
    if request.param == "libpq":
        libpq = snapshot._from_libpq
        monkeypatch.setattr(snapshot, "_from_socket", lambda conn, statement, room: libpq(conn, statement))
    return request.param


def test_chunks_hold_every_row_once_in_values_that_copy_escapes(postgres: Any, received: str) -> None:
    odd = ["", "\\N", "\\", "\\\\n", "\\.", 'a"b', "x,y", "line\nline", "cr\r\nlf", "é€😀", " lead", "NULL", None, "\t"]
    odd += ["\b\f\v\\\n\\t", "\n\\", "dddd\td", "x" * 2650, "\x01\x7f", "\n" * 100]
    postgres.execute('CREATE TABLE "Odd ""T" (id int PRIMARY KEY, "We,ird" text)')
    with postgres.conn.cursor() as cursor:
        cursor.executemany('INSERT INTO "Odd ""T" VALUES (%s, %s)', list(enumerate(odd * 500)))
    table = described(postgres, '"Odd ""T"')
    with connect(postgres.dsn) as conn:
        found = list(read_chunks(conn, table, 3, 77, filenodes=storage(conn, table.oid).filenodes))
    assert len({c.blocks for c in found}) == len(found)
    held = rows([c.changes for c in found], "id", table.columns[1].physical, "_op", "_copy", "_end_lsn")
    assert sorted(held, key=lambda r: r[0]) == [(i, v, "r", 3, 77) for i, v in enumerate(odd * 500)]
    seqs = [s for (s,) in rows([c.changes for c in found], "_seq")]
    assert seqs == list(range(len(seqs)))


def test_a_rewrite_between_two_chunks_starts_the_table_again(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    postgres.execute("INSERT INTO t SELECT g, repeat('x', 2000) FROM generate_series(1, 6000) g")
    table = described(postgres, "t")
    with connect(postgres.dsn) as conn:
        chunks = read_chunks(conn, table, 1, 0, filenodes=storage(conn, table.oid).filenodes)
        next(chunks)
        postgres.execute("VACUUM FULL t")
        with pytest.raises(Moved):
            next(chunks)


@pytest.mark.case("S7")
def test_a_partitioned_table_is_read_through_its_root(postgres: Any) -> None:
    postgres.execute("CREATE TABLE p (id int, kind text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind)")
    postgres.execute("CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a')")
    postgres.execute("CREATE TABLE p_rest PARTITION OF p DEFAULT")
    postgres.execute("INSERT INTO p SELECT g, CASE g % 3 WHEN 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 3000) g")
    table = described(postgres, "p")
    role = postgres.role()
    with connect(role) as conn:
        found = list(read_chunks(conn, table, 1, 0, filenodes=storage(conn, table.oid).filenodes))
    assert sorted(i for (i,) in rows([c.changes for c in found], "id")) == list(range(1, 3001))


def test_large_values_are_read_in_pieces_that_memory_holds(postgres: Any, monkeypatch: Any, received: str) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1 << 20)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, big bytea); ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    postgres.execute(
        "INSERT INTO t SELECT g, decode(repeat(lpad(to_hex(g), 8, '0'), 50000), 'hex') FROM generate_series(1, 20) g"
    )
    table = described(postgres, "t")
    with connect(postgres.dsn) as conn:
        chunks = list(read_chunks(conn, table, 1, 0, filenodes=storage(conn, table.oid).filenodes))
        found = list(read_keys(conn, table, 1, 0, 5, [(str(i),) for i in range(1, 21)]))
        conn.execute("SELECT 1")  # it goes on
    for pieces in ([c.changes for c in chunks], found):
        assert [c.batch.num_rows for c in pieces] == [3] * 6 + [2]
        assert rows(pieces, "id", "big") == [(i, i.to_bytes(4, "big") * 50000) for i in range(1, 21)]
    assert [c.blocks for c in chunks] == [0] * 6 + [1]  # none is passed before it was read whole
    assert rows(found, "_seq") == [(i,) for i in range(5, 25)]


@pytest.mark.parametrize("size", [1, 251, 252, 255, 2546, 2809, 65530, 70_000, 1_100_000, 17_000_000])
def test_rows_of_any_length_are_told_apart(postgres: Any, received: str, size: int) -> None:
    """Lengths whose bytes are separators, of two and three bytes, longer than what is read at once and than a piece."""
    count = max(3, min(300, 3_000_000 // size))
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    postgres.execute("INSERT INTO t SELECT g, repeat('x', %s + g %% 9) FROM generate_series(1, %s) g", (size, count))
    table = described(postgres, "t")
    with connect(postgres.dsn) as conn:
        found = list(read_chunks(conn, table, 1, 0, filenodes=storage(conn, table.oid).filenodes))
        conn.execute("SELECT 1")
    held = rows([c.changes for c in found], "id", "v")
    assert [(i, len(v), v.strip("x")) for i, v in sorted(held)] == [(g, size + g % 9, "") for g in range(1, count + 1)]


def test_what_the_server_says_in_the_middle_of_rows_is_told_without_the_row(postgres: Any, received: str) -> None:
    postgres.execute("CREATE VIEW v AS SELECT 100 / (90000 - g) AS x FROM generate_series(1, 90000) g")
    statement = snapshot.sql.SQL("COPY (SELECT '', x FROM public.v) TO STDOUT")
    with connect(postgres.dsn) as conn:
        with pytest.raises(SourceError, match=r"^PostgreSQL refused to read a table \(22012\)"), conn.transaction():
            list(snapshot.copy_out(conn, statement))
        conn.execute("SELECT 1")  # it goes on
        with pytest.raises(snapshot.Gone):
            list(snapshot.copy_out(conn, snapshot.sql.SQL("COPY (SELECT FROM public.nothing) TO STDOUT")))
        conn.execute("SET client_min_messages = 'debug1'")
        notice = (
            "COPY (SELECT '', set_config('application_name', 'b' || g, false) FROM generate_series(1, 3) g) TO STDOUT"
        )
        assert parse_csv(b"".join(snapshot.copy_out(conn, snapshot.sql.SQL(notice))), 1)[1].to_pylist() == [
            "b1",
            "b2",
            "b3",
        ]
        conn.execute("SELECT 1")


def test_a_connection_that_ends_in_the_middle_of_rows_is_worth_another_try(postgres: Any, received: str) -> None:
    slow = "COPY (SELECT '', repeat('x', 9000), pg_sleep(0.01) FROM generate_series(1, 3000)) TO STDOUT"
    with connect(postgres.dsn) as conn:
        pid = conn.info.backend_pid
        killer = threading.Timer(0.3, lambda: postgres.execute(f"SELECT pg_terminate_backend({pid})"))
        killer.start()
        with pytest.raises(SourceGone):
            list(snapshot.copy_out(conn, snapshot.sql.SQL(slow)))
        killer.join()


def test_a_reading_given_up_between_two_pieces_leaves_nothing_open(
    postgres: Any, monkeypatch: Any, received: str
) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1 << 16)
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('x', 999) FROM"
        " generate_series(1, 3000) g"
    )
    table = described(postgres, "t")
    with connect(postgres.dsn) as conn:
        chunks = read_chunks(conn, table, 1, 0, filenodes=storage(conn, table.oid).filenodes)
        assert next(chunks).blocks == 0
        chunks.close()
        assert conn.closed


def test_a_table_without_a_key_is_read_in_one_snapshot_that_is_told_first(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (a text, b float8)")
    postgres.execute("INSERT INTO t VALUES ('x', 1), ('x', 1), (NULL, NULL)")
    table = described(postgres, "t")
    with connect(postgres.dsn) as conn:
        reading = read_whole(conn, table, 1, 0)
        sees = next(reading)
        postgres.execute("INSERT INTO t VALUES ('later', 2)")
        held = rows([c for c in reading if not isinstance(c, str)], "a", "b")
        assert isinstance(sees, str) and sees.count(":") == 2
    assert sorted(held, key=str) == sorted([("x", 1.0), ("x", 1.0), (None, None)], key=str)


def test_rows_are_read_again_by_key_whatever_the_key_is(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (a text, at timestamptz, v text, PRIMARY KEY (a, at))")
    postgres.execute("INSERT INTO t VALUES ('it''s', '2026-01-02 03:04:05.678+00', 'one'), ('b', 'infinity', 'two')")
    table = described(postgres, "t")
    with connect(postgres.dsn) as conn:
        keys = [("it's", "2026-01-02 03:04:05.678+00"), ("b", "infinity"), ("none", "-infinity")]
        (changes,) = read_keys(conn, table, 1, 0, 9, keys)
    assert sorted(rows([changes], "a", "v", "_seq")) == [("b", "two", 10), ("it's", "one", 9)] or sorted(
        rows([changes], "a", "v")
    ) == [("b", "two"), ("it's", "one")]


def test_a_chunk_waits_until_what_it_saw_is_durable(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    postgres.execute("SET synchronous_commit = off; INSERT INTO t VALUES (1)")
    with connect(postgres.dsn) as conn:
        began = time.monotonic()
        snapshot.wait_flushed(conn)
        (flushed,) = conn.execute("SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()").fetchone() or (0,)
    assert flushed
    assert time.monotonic() - began < 5


def test_an_empty_copy_is_no_row() -> None:
    assert [len(a) for a in parse_csv(b"", 2)] == [0, 0, 0]
    assert [a.to_pylist() for a in parse_csv(b"\t\\N\ndddd\t\n", 1)] == [["", "dddd"], [None, ""]]
