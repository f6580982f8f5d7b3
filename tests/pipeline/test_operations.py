"""What applications do to rows, one kind at a time, from PostgreSQL to the lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.pipeline.killing import killed
from tests.values.lake import Lake

from claimhouse.postgres.stream import Stream

LONG = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 200) g)"  # leaves the row
# By replica identity, the old values that an UPDATE of the key, of the unique columns and of others tell.
OLD = {
    "DEFAULT": ({"a": 2, "b": "y"}, {}, {}),
    "FULL": ({"a": 2, "b": "y"}, {}, {}),
    "USING INDEX t_c_b_key": ({}, {"c": 30, "b": "z"}, {}),
}


@pytest.mark.case("O1", "O2")
@pytest.mark.parametrize("identity", OLD)
def test_each_replica_identity_tells_which_row_a_change_is_about(postgres: Any, tmp_path: Path, identity: str) -> None:
    postgres.execute(
        "CREATE TABLE t (a int, b text, c int NOT NULL, v int, PRIMARY KEY (a, b), UNIQUE (c, b));"
        f"ALTER TABLE t REPLICA IDENTITY {identity};"
        "INSERT INTO t VALUES (1, 'x', 10, 0), (2, 'y', 20, 0), (3, 'z', 30, 0), (4, 'w', 40, 0)"
    )
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("UPDATE t SET a = 22 WHERE a = 2; UPDATE t SET c = 33 WHERE a = 3; UPDATE t SET v = 1 WHERE a = 1")
    postgres.execute("DELETE FROM t WHERE a = 4")
    lake.capture()
    assert lake.rows("SELECT * FROM t") == [(1, "x", 10, 1), (3, "z", 33, 0), (22, "y", 20, 0)]
    told = [r for r in lake.log("public/t") if r["_op"] == "u"]
    told.sort(key=lambda r: r["_seq"] + r["_end_lsn"])
    old = [{n[5:]: v for n, v in row.items() if n.startswith("_old_") and v is not None} for row in told]
    assert tuple(old) == OLD[identity]
    assert lake.differences() == []


@pytest.mark.case("O1", "O6")
def test_a_table_of_no_identity_brings_its_inserts_and_stops_no_application(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY, v int); ALTER TABLE t REPLICA IDENTITY NOTHING")
    postgres.execute("INSERT INTO t VALUES (1, 0)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO t VALUES (2, 0); UPDATE t SET v = 1; DELETE FROM t WHERE a = 1")
    lake.capture()
    assert lake.rows("SELECT a FROM t") == [(1,), (2,)]
    # Somebody's own publication of everything has the server refuse what it could not tell of.
    postgres.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="replica identity"):
        postgres.execute("UPDATE t SET v = 2")


@pytest.mark.case("O3")
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX t_code_key"])
def test_a_value_that_no_update_touched_is_never_null(postgres: Any, tmp_path: Path, identity: str) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v int, big text)")
    postgres.execute(f"ALTER TABLE t ALTER big SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY {identity}")
    postgres.execute(f"INSERT INTO t SELECT n, 'c' || n, 0, {LONG} FROM generate_series(1, 6) n")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute(f"INSERT INTO t SELECT n, 'c' || n, 0, {LONG} FROM generate_series(7, 9) n")
    postgres.execute("UPDATE t SET v = 1; UPDATE t SET id = id + 100 WHERE id IN (1, 7)")
    postgres.execute("UPDATE t SET code = 'new' || id WHERE id IN (2, 8); UPDATE t SET big = NULL WHERE id = 3")
    postgres.execute("UPDATE t SET v = 2; DELETE FROM t WHERE id IN (4, 9)")
    lake.capture()
    expected = sorted(postgres.execute("SELECT * FROM t"))
    assert [row[0] for row in expected if row[3] is None] == [3]
    assert lake.rows("SELECT * FROM t") == expected
    lake.folded("public/t")
    postgres.execute("UPDATE t SET v = 3")
    lake.capture()
    assert lake.rows("SELECT id, length(big) FROM t") == sorted(postgres.execute("SELECT id, length(big) FROM t"))
    assert lake.differences() == []


# Of each key, what happens to it; 10, 20 … are there before.
SEVERAL = (
    "INSERT INTO t VALUES (1, 'i'); UPDATE t SET v = 'u' WHERE id = 1; DELETE FROM t WHERE id = 1",
    "DELETE FROM t WHERE id = 20; INSERT INTO t VALUES (20, 'again')",
    "UPDATE t SET v = 'u' WHERE id = 30; DELETE FROM t WHERE id = 30",
    "INSERT INTO t VALUES (4, 'i'); DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (4, 'last')",
    "UPDATE t SET v = 'first' WHERE id = 50; UPDATE t SET v = 'last' WHERE id = 50",
    "UPDATE t SET id = 61 WHERE id = 60; INSERT INTO t VALUES (60, 'heir'); DELETE FROM t WHERE id = 61",
    "UPDATE t SET id = 71 WHERE id = 70; UPDATE t SET id = 70 WHERE id = 71",
)


@pytest.mark.case("O4", "L5")
@pytest.mark.parametrize("at_once", [True, False], ids=["one transaction", "one batch"])
def test_of_several_changes_of_a_key_the_last_counts(postgres: Any, tmp_path: Path, at_once: bool) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    postgres.execute("INSERT INTO t SELECT n * 10, 'old' FROM generate_series(1, 8) n")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    statements = "; ".join(SEVERAL)
    if at_once:
        postgres.execute(f"BEGIN; {statements}; COMMIT")
    else:
        for statement in statements.split("; "):
            postgres.execute(statement)
    lake.capture()
    expected = [(4, "last"), (10, "old"), (20, "again"), (40, "old"), (50, "last"), (60, "heir"), (70, "old")]
    assert lake.rows("SELECT * FROM t") == [*expected, (80, "old")]
    assert sorted((r["id"], r["v"]) for r in lake.folded("public/t")) == [*expected, (80, "old")]
    assert len([r for r in lake.log("public/t") if r["_op"] != "r"]) == statements.count(";") + 1
    assert lake.differences() == []


@pytest.mark.case("L3", "O10")
def test_a_batch_that_leaves_nothing_is_passed_for_good(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("BEGIN; INSERT INTO t VALUES (1); DELETE FROM t; COMMIT")
    postgres.execute("BEGIN; INSERT INTO t VALUES (2); SAVEPOINT s; INSERT INTO t VALUES (3); ROLLBACK")
    ((end,),) = postgres.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
    first = lake.capture()
    assert (first.rows, first.end_lsn >= end) == (2, True)
    assert (lake.capture().rows, lake.rows("SELECT * FROM t")) == (0, [])
    assert [r["_op"] for r in lake.log("public/t")] == ["c", "d"]


@pytest.mark.case("O5")
def test_truncate_empties_what_it_names_and_what_hangs_on_it(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)")
    postgres.execute("CREATE TABLE c (id serial PRIMARY KEY, v int); CREATE TABLE d (id int PRIMARY KEY)")
    postgres.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    postgres.execute(
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p DEFAULT"
    )
    fill = (
        "INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, 1); INSERT INTO c (v) VALUES (1), (2);"
        " INSERT INTO d VALUES (1); INSERT INTO p VALUES (1), (11)"
    )
    postgres.execute(fill)
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("TRUNCATE a CASCADE; INSERT INTO a VALUES (3); TRUNCATE c, d RESTART IDENTITY; TRUNCATE p")
    postgres.execute("INSERT INTO c (v) VALUES (3); INSERT INTO p VALUES (2), (12)")
    lake.capture()
    held = {name: lake.rows(f"SELECT * FROM {name}") for name in "abcdp"}
    assert held == {"a": [(3,)], "b": [], "c": [(1, 3)], "d": [], "p": [(2,), (12,)]}
    postgres.execute("BEGIN; TRUNCATE a, b; ROLLBACK; TRUNCATE p1; INSERT INTO p VALUES (4)")
    lake.capture()
    assert (lake.rows("SELECT * FROM a"), lake.rows("SELECT * FROM p")) == ([(3,)], [(4,), (12,)])
    assert lake.differences() == []


@pytest.mark.case("O7")
def test_of_many_rows_at_one_position_a_restart_between_them_loses_none(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    seen = f"{postgres.name}_seen"
    postgres.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [seen])
    with postgres.conn.transaction(), postgres.conn.cursor().copy("COPY t FROM STDIN") as copy:
        for n in range(3000):
            copy.write_row((n, f"copied {n} {'x' * 500}"))
    postgres.execute("INSERT INTO t SELECT g, 'inserted' FROM generate_series(3000, 3499) g")
    ((events, positions),) = postgres.execute(
        "SELECT count(*), count(DISTINCT lsn) FROM pg_logical_slot_get_changes(%s, NULL, NULL)", [seen]
    )
    assert events > 3500 > 2 * positions
    read, parts = Stream.read, (tmp_path / "lake/tail/main").glob

    def until_a_part_is_there(stream: Stream, *given: Any, **more: Any) -> Any:
        if list(parts("*.part")):
            raise KeyboardInterrupt
        return read(stream, *given, **{**more, "max_bytes": 8192})

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Stream, "read", until_a_part_is_there)
        lake.capture(spill_bytes=1 << 14)
    assert lake.rows("SELECT * FROM t") == []  # although it had begun with them
    assert killed(lake, "cut.before_append")
    lake.capture()
    assert lake.rows("SELECT count(*), count(DISTINCT id), left(min(v), 8) FROM t") == [(3500, 3500, "copied 0")]
    assert len(lake.log("public/t")) == 3500
    assert lake.differences() == []


@pytest.mark.case("O8")
def test_a_transaction_that_the_server_spills_is_what_was_committed_of_it(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    postgres.execute(f"ALTER DATABASE {postgres.name} SET logical_decoding_work_mem = '64kB'")
    lake = Lake(postgres.dsn, tmp_path)
    slot = lake.capture().slot
    postgres.execute("BEGIN; INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 3000) g; SAVEPOINT s")
    postgres.execute("DELETE FROM t WHERE id > 10; INSERT INTO t SELECT generate_series(5000, 6000); ROLLBACK TO s")
    postgres.execute("SAVEPOINT r; UPDATE t SET v = 'kept' WHERE id % 2 = 0; RELEASE r; COMMIT")
    lake.capture(spill_bytes=1 << 15)
    ((spilled,),) = postgres.execute("SELECT spill_txns FROM pg_stat_replication_slots WHERE slot_name = %s", [slot])
    assert spilled > 0
    assert lake.rows("SELECT count(*), count(*) FILTER (v = 'kept'), max(id) FROM t") == [(3000, 1500, 3000)]
    assert lake.differences() == []


@pytest.mark.case("O9")
def test_a_prepared_transaction_is_seen_once_it_is_committed(postgres: Any, tmp_path: Path) -> None:
    if not int(postgres.execute("SHOW max_prepared_transactions")[0][0]):
        pytest.skip("the server allows no prepared transactions")
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    try:
        for n in (1, 2):
            postgres.execute(f"BEGIN; INSERT INTO t VALUES ({n}); PREPARE TRANSACTION '{postgres.name}_{n}'")
        postgres.execute("INSERT INTO t VALUES (3)")
        lake.capture()
        assert lake.rows("SELECT id FROM t") == [(3,)]
        postgres.execute(f"COMMIT PREPARED '{postgres.name}_2'")
        postgres.execute(f"ROLLBACK PREPARED '{postgres.name}_1'")
        lake.capture()
        assert lake.rows("SELECT id FROM t") == [(2,), (3,)]
    finally:  # what stays prepared would hold up every new slot of the server
        for (name,) in postgres.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            postgres.execute(f"ROLLBACK PREPARED '{name}'")


@pytest.mark.case("O11", "R1")
def test_transactions_that_overlap_are_each_there_once_whatever_restarts_between(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (0, 'start')")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    with postgres.connect() as long, postgres.connect() as middle, postgres.connect() as short:
        long.execute("INSERT INTO t VALUES (1, 'long')")
        middle.execute("INSERT INTO t VALUES (2, 'middle')")
        short.execute("INSERT INTO t VALUES (3, 'short')")
        long.execute("INSERT INTO t VALUES (11, 'long')")
        short.commit()
        lake.capture()
        assert lake.rows("SELECT id FROM t") == [(0,), (3,)]
        middle.execute("UPDATE t SET v = 'middle' WHERE id = 3")
        middle.commit()
        assert killed(lake, "cut.before_confirm")
        short.execute("UPDATE t SET v = 'last' WHERE id = 2")
        long.execute("UPDATE t SET v = 'long' WHERE id = 0")
        short.commit()
        assert killed(lake, "cut.before_append")
        long.commit()
    lake.capture()
    assert lake.rows("SELECT * FROM t") == [(0, "long"), (1, "long"), (2, "last"), (3, "middle"), (11, "long")]
    log = sorted(lake.log("public/t"), key=lambda r: (r["_end_lsn"], r["_seq"]))
    assert [r["id"] for r in log if r["_op"] != "r"] == [3, 2, 3, 2, 1, 11, 0]
    assert lake.differences() == []


NAMES = ('Quoted_" . Table', "a\\b", "ünï ςode", "1st", "x" * 63, "Ab" * 31, "a/b", "..")


@pytest.mark.case("O12")
def test_tables_and_columns_of_any_name_are_captured_and_asked_for_by_it(postgres: Any, tmp_path: Path) -> None:
    quoted = ['"' + name.replace('"', '""') + '"' for name in NAMES]
    for name in quoted:
        postgres.execute(
            f"CREATE TABLE {name} ({name} int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, 'copied')"
        )
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    for name in quoted:
        postgres.execute(f"INSERT INTO {name} VALUES (2, 'inserted'); UPDATE {name} SET {name} = 3 WHERE {name} = 1")
    assert lake.capture().errored == {}
    for name in quoted:
        assert lake.rows(f"SELECT {name}, v FROM {name} WHERE {name} > 0") == [(2, "inserted"), (3, "copied")], name
    assert lake.differences() == []
