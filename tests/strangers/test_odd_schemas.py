"""Databases that the authors did not think of: each was once answered wrongly, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.values.lake import Lake

from claimhouse.change import lsn_text
from claimhouse.errors import NotExact, QueryError
from claimhouse.postgres import snapshot
from claimhouse.postgres.server import current_lsn


def test_columns_may_be_called_as_our_own_sql_calls_its_keys(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, k0 int, ok0 int, o0 int, v0 int, r int, txt text)")
    postgres.execute("INSERT INTO t VALUES (1, 1, 1, 1, 1, 1, 'a'), (2, 2, 2, 2, 2, 2, 'b')")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("UPDATE t SET k0 = 9, ok0 = 8; UPDATE t SET id = 5 WHERE id = 1")
    lake.capture()
    assert lake.rows("SELECT id, k0, ok0 FROM t") == [(2, 9, 8), (5, 9, 8)]
    assert lake.differences() == []


def test_a_column_of_one_letter_is_taken_for_nothing_else(postgres: Any, tmp_path: Path) -> None:
    names = "abcdefghijklmnopqrstuvwxyz"
    postgres.execute(f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'{n} numeric(5,2)' for n in names)})")
    postgres.execute("INSERT INTO t (id, e) VALUES (1, 'NaN'), (2, 2)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("UPDATE t SET a = 1, x = 'NaN'")
    lake.capture()
    assert lake.differences() == []


@pytest.mark.case("S5")
def test_a_renamed_table_goes_on_in_its_folder_and_its_old_name_is_free(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE SCHEMA s; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (2)")
    lake.capture()
    assert lake.rows("SELECT id FROM t2") == [(1,), (2,)]
    postgres.execute("ALTER TABLE t2 ADD c int DEFAULT 7; INSERT INTO t2 VALUES (3, 3)")
    lake.capture()
    postgres.execute("ALTER TABLE t2 SET SCHEMA s; CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('new')")
    lake.capture()
    postgres.execute("INSERT INTO s.t2 VALUES (4, 4); INSERT INTO t VALUES ('newer')")
    lake.capture()
    assert lake.rows("SELECT * FROM s.t2") == [(1, 7), (2, 7), (3, 3), (4, 4)]
    assert lake.rows("SELECT * FROM t") == [("new",), ("newer",)]
    assert lake.differences() == []


@pytest.mark.case("S5")
def test_a_table_made_again_under_its_old_name_never_shows_the_former_ones_rows(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO t VALUES (1, 'old')")
    was = current_lsn(postgres.conn)
    postgres.execute("INSERT INTO other VALUES (0)")
    lake.capture()
    postgres.execute("DROP TABLE t; INSERT INTO other VALUES (1)")
    lake.capture()
    gone = current_lsn(postgres.conn)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (2, 'new')")
    made = current_lsn(postgres.conn)
    lake.capture()
    assert lake.rows("SELECT * FROM t") == [(2, "new")]
    assert lake.rows("SELECT * FROM t", at=lsn_text(was)) == [(1, "old")]
    for moment in (gone, made):
        with pytest.raises(NotExact):
            lake.rows("SELECT * FROM t", at=lsn_text(moment))
    postgres.execute("DROP TABLE t; INSERT INTO other VALUES (2)")
    after = lake.capture().end_lsn
    with pytest.raises(QueryError, match="no longer exists"):
        lake.rows("SELECT * FROM t", at=lsn_text(after))
    assert lake.differences() == []


@pytest.mark.case("S5")
def test_a_name_that_another_table_took_over_before_its_copy_went_on_is_not_read_for_the_former(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'former')")
    lake = Lake(postgres.dsn, tmp_path)
    read, swapped = snapshot.storage, []

    def swap_first(conn: Any, oid: int) -> snapshot.Storage:
        found = read(conn, oid)
        if not swapped:
            swapped.append(oid)
            postgres.execute("ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id int PRIMARY KEY, v text)")
            postgres.execute("INSERT INTO t VALUES (2, 'heir')")
        return found

    monkeypatch.setattr(snapshot, "storage", swap_first)
    lake.capture()
    lake.capture()
    assert lake.rows("SELECT * FROM t_old") == [(1, "former")]
    assert lake.rows("SELECT * FROM t") == [(2, "heir")]
    assert lake.differences() == []


@pytest.mark.case("S5")
def test_a_schema_that_goes_under_a_copy_stops_no_capture(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); INSERT INTO s.t VALUES (1)")
    lake = Lake(postgres.dsn, tmp_path)
    read, renamed = snapshot.storage, []

    def rename_first(conn: Any, oid: int) -> snapshot.Storage:
        found = read(conn, oid)
        if not renamed:
            renamed.append(oid)
            postgres.execute("ALTER SCHEMA s RENAME TO r")
        return found

    monkeypatch.setattr(snapshot, "storage", rename_first)
    lake.capture()
    assert lake.rows("SELECT * FROM r.t") == [(1,)]
    assert lake.differences() == []


def test_a_table_that_inherits_is_published_as_its_own_identity_asks_for(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE base (id int PRIMARY KEY, v text); CREATE TABLE keyless (w int) INHERITS (base)")
    postgres.execute("CREATE TABLE keyed (PRIMARY KEY (id)) INHERITS (base); INSERT INTO keyless VALUES (1, 'a', 1)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("UPDATE base SET v = 'b'")  # the server refuses it where `keyless` is published for updates
    postgres.execute("INSERT INTO keyed VALUES (2, 'k')")
    postgres.execute("ALTER TABLE base DROP CONSTRAINT base_pkey")
    lake.capture()
    postgres.execute("UPDATE base SET v = 'c'")
    lake.capture()
    assert lake.rows("SELECT * FROM keyed") == [(2, "c")]


@pytest.mark.case("O5", "S7")
def test_a_truncated_partition_is_noticed(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE p (id int, k text, PRIMARY KEY (id, k)) PARTITION BY LIST (k)")
    postgres.execute("CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_d PARTITION OF p DEFAULT")
    postgres.execute("INSERT INTO p SELECT g, CASE WHEN g % 2 = 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 6) g")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("TRUNCATE p_a; INSERT INTO p VALUES (8, 'a')")
    lake.capture()
    assert lake.rows("SELECT id FROM p") == [(1,), (3,), (5,), (8,)]
    assert lake.differences() == []


@pytest.mark.case("S8")
def test_a_column_that_is_added_in_another_case_stops_its_table_by_name(postgres: Any, tmp_path: Path) -> None:
    postgres.execute('CREATE TABLE t (id int PRIMARY KEY, "X" int); CREATE TABLE other (id int PRIMARY KEY)')
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("ALTER TABLE t ADD x int; INSERT INTO t VALUES (1, 2, 3); INSERT INTO other VALUES (1)")
    assert lake.capture().errored == {"public.t": "columns X and x differ only by case"}
    assert lake.rows("SELECT * FROM other") == [(1,)]


def test_schemas_called_as_duckdb_calls_its_catalogs_are_read_by_the_whole_path(postgres: Any, tmp_path: Path) -> None:
    for name in ("system", "temp", "memory"):
        postgres.execute(f"CREATE SCHEMA {name}; CREATE TABLE {name}.t (id int PRIMARY KEY)")
        postgres.execute(f"INSERT INTO {name}.t VALUES (1)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    for name in ("system", "temp", "memory"):
        assert lake.rows(f"SELECT id FROM main.{name}.t") == [(1,)]
    assert len(lake.rows("SHOW ALL TABLES")) >= 3


@pytest.mark.case("N5")
def test_rows_of_a_table_without_columns_are_counted(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE zero (); INSERT INTO zero DEFAULT VALUES; INSERT INTO zero DEFAULT VALUES")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO zero DEFAULT VALUES")
    lake.capture()
    assert lake.rows("SELECT count(*) FROM zero") == [(3,)]
    assert lake.differences() == []


def test_verify_needs_no_run_beside_it_where_the_wal_grew_without_a_row_of_ours(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("SELECT pg_logical_emit_message(true, 'x', 'y')")
    postgres.execute("VACUUM FULL t")
    assert lake.differences() == []


@pytest.mark.case("R12")
def test_bytes_that_are_no_utf8_cost_their_table_and_no_other(postgres: Any, tmp_path: Path) -> None:
    name = f"{postgres.name}_ascii"
    postgres.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    lake = Lake(make_conninfo(postgres.dsn, dbname=name), tmp_path)
    with psycopg.connect(lake.dsn, autocommit=True, client_encoding="UTF8") as conn:
        for table in ("copied", "streamed", "sound"):
            conn.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v text)".encode())
        conn.execute("INSERT INTO copied VALUES (1, E'\\xff'); INSERT INTO sound VALUES (1, 'é')")
        lake.capture()
        conn.execute("INSERT INTO streamed VALUES (1, E'\\xfe'); INSERT INTO sound VALUES (2, '😀')")
        errored = lake.capture().errored
        assert errored.keys() == {"public.copied", "public.streamed"}
        assert not any(byte in why for why in errored.values() for byte in ("ff", "fe"))
        assert lake.rows("SELECT * FROM sound") == [(1, "é"), (2, "😀")]
        conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [name])
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
