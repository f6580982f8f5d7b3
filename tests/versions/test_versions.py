"""What capture promises, of PostgreSQL 14 to 18: values, operations, DDL, partitions, publications, slots, restarts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.model.harness import Round
from tests.values.book import book
from tests.values.lake import Lake
from tests.values.paths import INSERTED, Typed

from claimhouse.errors import NotReady
from claimhouse.postgres import ddl_trigger, doctor, publication
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.server import connect

pytestmark = pytest.mark.versions

SEED = int(os.environ.get("CLAIMHOUSE_MODEL_SEED", "300000"))
LONG = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 200) g)"  # leaves the row


def version(postgres: Any) -> int:
    return postgres.conn.info.server_version // 10000


def same(postgres: Any, lake: Lake, *tables: str) -> None:
    """The lake's rows are PostgreSQL's, and verify, which goes another way, finds so too."""
    for table in tables:
        assert lake.rows(f"SELECT * FROM {table}") == sorted(postgres.execute(f"SELECT * FROM {table}")), table
    assert lake.differences() == []


@pytest.mark.case("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13", "T14")
def test_values_of_every_type_are_the_same_by_copy_and_by_stream(postgres: Any, tmp_path: Path) -> None:
    print("seed", SEED)
    table = Typed(postgres, book(postgres), SEED, rows=6)
    table.insert()
    table.insert_empty()
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    table.insert(INSERTED)
    table.update()
    lake.capture()
    rows = {row["id"]: row for row in lake.asked("SELECT * FROM typed")}
    log = {row["id"]: row for row in lake.log("public/typed") if row["_op"] in ("r", "c")}
    log |= {row["id"]: row for row in lake.log("public/typed") if row["_op"] == "u"}
    wrong = table.wrong("DuckDB", rows) + table.wrong("delta-rs", log, exact=True)
    assert not wrong, "\n".join(wrong[:20])
    assert lake.differences() == []


@pytest.mark.case("R12")
def test_a_byte_that_is_no_text_makes_its_table_errored_and_no_other(postgres: Any, tmp_path: Path) -> None:
    """PostgreSQL 15 and newer print a "char" beyond ASCII as an escape, 14 as the bare byte."""
    postgres.execute(
        'CREATE TABLE copied (id int PRIMARY KEY, c "char"); CREATE TABLE streamed (LIKE copied INCLUDING ALL)'
    )
    postgres.execute("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO copied VALUES (1, 'é')")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO streamed VALUES (1, 'é'); INSERT INTO other VALUES (1)")
    errored = lake.capture().errored
    assert lake.rows("SELECT * FROM other") == [(1,)]
    if version(postgres) >= 15:
        assert errored == {} and lake.rows("SELECT c FROM copied UNION ALL SELECT c FROM streamed") == [("\\303",)] * 2
    else:
        assert errored.keys() == {"public.copied", "public.streamed"}


KEYED = ("plain", "full_key", "by_index")


@pytest.mark.case("O1", "O2", "O3", "O4", "O5", "O9", "O10")
def test_every_operation_arrives_whatever_tells_rows_apart(postgres: Any, tmp_path: Path) -> None:
    for name in (*KEYED, "loose", "nothing"):
        key = "" if name == "loose" else ", PRIMARY KEY (a, b)" if name != "by_index" else ", UNIQUE (b, a)"
        postgres.execute(f"CREATE TABLE {name} (a int NOT NULL, b text NOT NULL, v int, big text{key})")
        postgres.execute(f"ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL")
        postgres.execute(f"INSERT INTO {name} SELECT n, 'k' || n, n, {LONG} FROM generate_series(1, 8) n")
    postgres.execute("ALTER TABLE full_key REPLICA IDENTITY FULL; ALTER TABLE loose REPLICA IDENTITY FULL")
    postgres.execute("ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b_a_key")
    postgres.execute("ALTER TABLE nothing REPLICA IDENTITY NOTHING")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    for name in (*KEYED, "loose"):
        postgres.execute(f"UPDATE {name} SET v = v + 1 WHERE a < 4")  # big does not come along
        postgres.execute(f"UPDATE {name} SET b = 'other' WHERE a = 2; UPDATE {name} SET a = 20 WHERE a = 3")
        postgres.execute(f"UPDATE {name} SET big = NULL WHERE a = 4; DELETE FROM {name} WHERE a = 5")
        postgres.execute(f"BEGIN; INSERT INTO {name} VALUES (30, 'x', 1, {LONG}); UPDATE {name} SET v = 2 WHERE a = 30")
        postgres.execute(f"DELETE FROM {name} WHERE a = 30; INSERT INTO {name} VALUES (30, 'x', 3, 'new'); COMMIT")
        postgres.execute(f"BEGIN; INSERT INTO {name} VALUES (31, 'y', 1, ''); SAVEPOINT s; DELETE FROM {name}")
        postgres.execute("ROLLBACK TO s; COMMIT")
        postgres.execute(f"BEGIN; TRUNCATE {name}; ROLLBACK")
        with postgres.conn.cursor().copy(f"COPY {name} (a, b, v) FROM STDIN") as copy:
            for n in range(100, 150):
                copy.write_row((n, f"c{n}", n))
    postgres.execute(f"BEGIN; DELETE FROM plain WHERE a = 6; PREPARE TRANSACTION '{postgres.name}'")
    postgres.execute("INSERT INTO nothing VALUES (9, 'k9', 9, NULL)")
    postgres.execute(f"COMMIT PREPARED '{postgres.name}'")
    lake.capture()
    same(postgres, lake, *KEYED, "loose", "nothing")
    postgres.execute("TRUNCATE plain, loose; INSERT INTO plain VALUES (1, 'again', 1, NULL)")
    lake.capture()
    same(postgres, lake, *KEYED, "loose", "nothing")


@pytest.mark.case("O8")
def test_a_transaction_larger_than_the_servers_memory_and_ours_arrives_whole(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
    postgres.execute("SELECT pg_reload_conf()")
    try:
        postgres.execute("BEGIN; INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 5000) n")
        other = postgres.connect(autocommit=True)
        other.execute("INSERT INTO other SELECT generate_series(1, 500)")
        other.close()
        postgres.execute("SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; UPDATE t SET v = 'y' WHERE id % 2 = 0; COMMIT")
        lake.capture(spill_bytes=1 << 16)
    finally:
        postgres.execute("ALTER SYSTEM RESET logical_decoding_work_mem")
        postgres.execute("SELECT pg_reload_conf()")
    same(postgres, lake, "t", "other")


@pytest.mark.case("S1", "S2", "S3", "S4", "S5")
@pytest.mark.parametrize("told", [False, True], ids=["noticed", "told"])
def test_schema_changes_are_followed(postgres: Any, tmp_path: Path, told: bool) -> None:
    if told:
        postgres.execute(ddl_trigger.install_sql())
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b text, c numeric(6,2)); CREATE TABLE u (id int)")
    postgres.execute("INSERT INTO t SELECT n, n, 'b' || n, n / 7.0 FROM generate_series(1, 20) n")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    for change in (
        "ADD d text DEFAULT 'as ''ever''', ADD e date DEFAULT '2026-02-03'",
        "ADD f float8 DEFAULT random()",  # old rows get values that no event tells
        "DROP b",
        "RENAME a TO b",
        "ADD a int[] DEFAULT '{1,NULL}'",
        "ALTER c TYPE text USING c::text || '!'",
        "DROP f, ADD f int",
    ):
        postgres.execute(
            f"BEGIN; UPDATE t SET id = -id WHERE id = (SELECT min(id) FROM t WHERE id > 0); ALTER TABLE t {change}"
        )
        postgres.execute(
            "INSERT INTO t (id) SELECT max(id) + 1 FROM t; COMMIT; INSERT INTO t (id) SELECT max(id) + 1 FROM t"
        )
    lake.capture()
    same(postgres, lake, "t")
    postgres.execute("ALTER TABLE t RENAME TO renamed; DROP TABLE u; CREATE TABLE u (id int PRIMARY KEY, x text)")
    postgres.execute("INSERT INTO u VALUES (1, 'another'); DELETE FROM renamed WHERE id < -5")
    postgres.execute("VACUUM FULL renamed")
    lake.capture()
    same(postgres, lake, "renamed", "u")
    postgres.execute("ALTER TABLE u ADD till date DEFAULT 'infinity'; UPDATE u SET x = 'new'; INSERT INTO u VALUES (2)")
    lake.capture()
    assert lake.differences() == []


@pytest.mark.case("S7")
def test_partitions_are_captured_as_their_root_as_they_come_and_go(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE p (id int, k text, v numeric(8,2), PRIMARY KEY (id, k)) PARTITION BY LIST (k)")
    postgres.execute("CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_rest PARTITION OF p DEFAULT")
    # A partition with its columns in another order, and one that was dropped; and one that is itself partitioned.
    postgres.execute(
        "CREATE TABLE p_b (gone int, v numeric(8,2), k text NOT NULL, id int NOT NULL); ALTER TABLE p_b DROP gone"
    )
    postgres.execute(
        "INSERT INTO p SELECT n, CASE n % 3 WHEN 0 THEN 'a' ELSE 'z' END, n / 3.0 FROM generate_series(1, 30) n"
    )
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO p_b VALUES (1.5, 'b', 100); ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b')")
    postgres.execute("INSERT INTO p VALUES (101, 'b', 2), (102, 'a', 3); UPDATE p SET k = 'a' WHERE id = 101")
    postgres.execute("UPDATE p SET v = v + 1 WHERE k = 'b'; DELETE FROM p WHERE id < 5")
    lake.capture()
    same(postgres, lake, "p")
    postgres.execute("TRUNCATE p_rest; INSERT INTO p VALUES (103, 'new', 4); ALTER TABLE p DETACH PARTITION p_b")
    lake.capture()
    same(postgres, lake, "p", "p_b")


@pytest.mark.case("N6", "S7")
def test_a_publication_that_shows_partitions_one_by_one_is_refused_by_name(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    postgres.execute("CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    postgres.execute("CREATE PUBLICATION theirs FOR TABLE p")
    lake = Lake(postgres.dsn, tmp_path)
    with pytest.raises(NotReady, match="theirs") as refused:
        lake.capture(publication="theirs")
    postgres.execute(str(refused.value.hint).partition("\n")[2])
    postgres.execute("INSERT INTO p VALUES (1)")
    lake.capture(publication="theirs")
    postgres.execute("INSERT INTO p VALUES (2)")
    lake.capture(publication="theirs")
    same(postgres, lake, "p")


@pytest.mark.case("N6")
@pytest.mark.parametrize("whole", ["FOR ALL TABLES", "FOR TABLES IN SCHEMA public"])
def test_a_publication_of_all_there_is_takes_new_tables_along(postgres: Any, tmp_path: Path, whole: str) -> None:
    if "SCHEMA" in whole and version(postgres) < 15:
        pytest.skip("publications of a schema came with PostgreSQL 15")
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    postgres.execute(f"CREATE PUBLICATION theirs {whole} WITH (publish_via_partition_root = true)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture(publication="theirs")
    postgres.execute("INSERT INTO t VALUES (2); CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")
    lake.capture(publication="theirs")
    postgres.execute("DELETE FROM later; INSERT INTO later VALUES (2)")
    lake.capture(publication="theirs")
    same(postgres, lake, "t", "later")


@pytest.mark.case("O13")
def test_generated_columns_are_captured_where_the_server_sends_them(postgres: Any, tmp_path: Path) -> None:
    virtual = ", w int GENERATED ALWAYS AS (a + 1) VIRTUAL" if version(postgres) >= 18 else ""
    postgres.execute(
        f"CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a int, s serial,"
        f" twice int GENERATED ALWAYS AS (a * 2) STORED{virtual}, b text)"
    )
    postgres.execute("INSERT INTO t (a, b) VALUES (1, 'one')")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO t (a, b) VALUES (2, 'two'); UPDATE t SET a = 10 WHERE a = 1")
    lake.capture()
    shown = ["id", "a", "s", "twice", "b"] if version(postgres) >= 18 else ["id", "a", "s", "b"]
    assert list(lake.asked("SELECT * FROM t")[0]) == shown
    assert lake.rows("SELECT * FROM t") == sorted(postgres.execute(f"SELECT {', '.join(shown)} FROM t"))
    assert lake.differences() == []


@pytest.mark.case("N5")
def test_doctor_finds_nothing_wrong_and_names_what_a_publication_leaves_out(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE log (a int)")
    findings = doctor.examine(postgres.dsn, tables=["t"], slot=f"{postgres.name}_none")
    assert [f for f in findings if f.level == "error" or (f.code == "version" and f.level != "ok")] == []
    (log,) = [f for f in doctor.examine(postgres.dsn, slot="none") if f.subject == "public.log"]
    postgres.execute(str(log.sql))
    assert [f for f in doctor.examine(postgres.dsn, slot="none") if f.code == "identity" and f.level == "warn"] == []
    if version(postgres) < 15:
        return  # neither row filters nor column lists
    postgres.execute("CREATE PUBLICATION theirs FOR TABLE t (id), log WHERE (a > 5)")
    found = doctor.examine(postgres.dsn, slot="none", publication="theirs")
    narrowed = [f for f in found if f.code == "publication" and "leaves out" in f.message]
    assert {f.subject for f in narrowed} == {"public.t", "public.log"}
    for finding in narrowed:
        for statement in str(finding.sql).splitlines():
            postgres.execute(statement)
    found = doctor.examine(postgres.dsn, slot="none", publication="theirs")
    assert [f.message for f in found if f.code == "publication" and "leaves out" in f.message] == []


@pytest.mark.case("R9")
def test_a_slot_outlives_a_failover_where_the_server_can_have_it_so(postgres: Any) -> None:
    with connect(postgres.dsn) as conn:
        publication.ensure_slot(conn, postgres.name, failover=True)
        found = publication.slot_state(conn, postgres.name)
        assert found is not None and found.failover == (version(postgres) >= 17)
        assert found.wal_status == "reserved" and found.retained_bytes is not None
        publication.drop_slot(conn, postgres.name)


def test_capture_goes_on_after_the_server_was_restarted(server: Embedded, tmp_path: Path) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE restarted")
    lake = Lake(make_conninfo(server.dsn, dbname="restarted"), tmp_path)
    with psycopg.connect(lake.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
        lake.capture()
        conn.execute("INSERT INTO t VALUES (2, 'b'); UPDATE t SET v = 'c' WHERE id = 1")
    server.stop()
    server.start()
    lake.dsn = make_conninfo(server.dsn, dbname="restarted")
    with psycopg.connect(lake.dsn, autocommit=True) as conn:
        conn.execute("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 'd')")
        lake.capture()
        assert lake.rows("SELECT * FROM t") == [(1, "c"), (3, "d")]
        assert lake.differences() == []
        conn.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'restarted'"
        )


@pytest.mark.case("N2", "O11")
def test_random_transactions_and_kills_leave_the_lake_equal(postgres: Any, tmp_path: Path) -> None:
    print("seed", SEED)
    played = Round(SEED, postgres.dsn, tmp_path, steps=80)
    played.play()
    assert played.kills and played.compared
