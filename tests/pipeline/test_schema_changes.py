"""DDL beside rows: each row is read in the shape that it was written in, and what differs is copied anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.killing import killed
from tests.values.lake import Lake

from claimhouse.lake.lake import open_lake
from claimhouse.lake.snapshot import take
from claimhouse.postgres import ddl_trigger


def copies(lake: Lake) -> dict[str, int]:
    """How many copies of each table were begun."""
    states = take(open_lake(lake.location), "main").registry.tables.values()
    return {s.name: s.copies_begun for s in states}


def same(postgres: Any, lake: Lake, *tables: str) -> None:
    for table in tables:
        found = postgres.conn.execute(f"SELECT * FROM {table}")
        names = [d.name for d in found.description]
        assert lake.rows(f"SELECT * FROM {table}") == sorted(found.fetchall()), table
        assert [list(row) for row in lake.asked(f"SELECT * FROM {table} LIMIT 1")] in ([names], [])
    assert lake.differences() == []


@pytest.mark.case("S1")
@pytest.mark.parametrize("told", [False, True], ids=["noticed", "told by the trigger"])
def test_columns_that_come_go_and_change_their_names_are_followed(postgres: Any, tmp_path: Path, told: bool) -> None:
    if told:
        postgres.execute(ddl_trigger.install_sql())
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b text, c text, d date); INSERT INTO t VALUES (0, 0)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    changes = (
        "ADD e int",
        "DROP a",
        "RENAME b TO a",  # its name is another's now
        "ADD f text DEFAULT 'old', DROP c, ADD c int DEFAULT 7",
        "DROP d",
        "DROP e",
        "RENAME COLUMN f TO d",
    )
    for n, change in enumerate(changes, 1):
        postgres.execute(
            f"ALTER TABLE t {change}; INSERT INTO t (id) VALUES ({n}); UPDATE t SET id = -id WHERE id = {n - 1}"
        )
        if n % 3 == 0:
            lake.capture()
    lake.capture()
    same(postgres, lake, "t")


@pytest.mark.case("S2")
def test_a_column_of_another_type_has_its_table_copied_anew_while_others_stream_on(
    postgres: Any, tmp_path: Path
) -> None:
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b numeric(10,4), c varchar(9)); CREATE TABLE u (id int PRIMARY KEY)"
    )
    postgres.execute(
        "INSERT INTO t SELECT g, g, g / 3.0, 'c' || g FROM generate_series(1, 50) g; INSERT INTO u VALUES (1)"
    )
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    begun = 1
    for change, anew in (
        ("a TYPE bigint", True),
        ("a TYPE smallint", True),
        ("b TYPE numeric(8,2)", True),
        ("c TYPE varchar(99)", False),  # the rows stay as they are
        ("c TYPE int USING id", True),
    ):
        postgres.execute(
            f"UPDATE t SET id = -id WHERE id = 1; ALTER TABLE t ALTER {change}; INSERT INTO u SELECT max(id) + 1 FROM u"
        )
        postgres.execute("UPDATE t SET id = 1 WHERE id = -1")
        lake.capture()
        begun += anew
        assert copies(lake) == {"t": begun, "u": 1}, change
    same(postgres, lake, "t", "u")
    assert lake.rows("SELECT count(*) FROM u") == [(6,)]


@pytest.mark.case("S3")
@pytest.mark.parametrize("told", [False, True], ids=["noticed", "told by the trigger"])
def test_rows_before_and_after_a_ddl_of_their_transaction_are_each_read_in_their_shape_through_kills(
    postgres: Any, tmp_path: Path, told: bool
) -> None:
    if told:
        postgres.execute(ddl_trigger.install_sql())
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b int); INSERT INTO t VALUES (0, 'zero', 0)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute(
        "BEGIN; INSERT INTO t VALUES (1, 'one', 1); ALTER TABLE t ADD c text DEFAULT 'was';"
        "INSERT INTO t VALUES (2, 'two', 2, 'c'); ALTER TABLE t DROP b; UPDATE t SET c = 'new' WHERE id = 1;"
        "ALTER TABLE t RENAME a TO b; INSERT INTO t VALUES (3, 'three', 'c'); COMMIT; INSERT INTO t VALUES (4, 'four')"
    )
    assert killed(lake, "cut.before_confirm")  # the server never hears of the cut
    postgres.execute(
        "BEGIN; DELETE FROM t WHERE id = 2; ALTER TABLE t ADD a int; UPDATE t SET a = id WHERE id < 2; COMMIT"
    )
    assert killed(lake, "cut.before_append")  # it comes again
    lake.capture()
    same(postgres, lake, "t")
    log = sorted((r for r in lake.log("public/t") if r["_op"] != "r"), key=lambda r: (r["_end_lsn"], r["_seq"]))
    assert [(r["_op"], r["id"]) for r in log] == [
        *(("c", 1), ("c", 2), ("u", 1), ("c", 3), ("c", 4)),
        *(("d", 2), ("u", 0), ("u", 1)),
    ]
    shapes = [r["_schema"] for r in log]
    assert shapes == sorted(shapes) and len(set(shapes[:5])) == 4 and shapes[5] < shapes[6]


@pytest.mark.case("S4")
def test_a_default_that_came_with_its_column_is_shown_by_every_older_row(postgres: Any, tmp_path: Path) -> None:
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, 0 FROM generate_series(1, 6) g"
    )
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("UPDATE t SET v = 1 WHERE id = 1")
    added = "ADD a text NOT NULL DEFAULT 'it''s', ADD b numeric(8,2) DEFAULT 1.5, ADD c date DEFAULT 'infinity'"
    postgres.execute(f"ALTER TABLE t {added}")
    postgres.execute("UPDATE t SET v = 2 WHERE id = 2; ALTER TABLE t ALTER a SET DEFAULT 'another'")
    postgres.execute(
        "INSERT INTO t (id) VALUES (7); UPDATE t SET a = 'set' WHERE id = 3; UPDATE t SET id = 60 WHERE id = 6"
    )
    lake.capture()
    shown = "SELECT id, v, a, b FROM t"
    assert lake.rows(shown) == sorted(postgres.execute(shown))
    folded = {r["id"]: (r["a"], dict(r["_exact"] or ()).get("c")) for r in lake.folded("public/t")}
    assert folded[1] == ("it's", "infinity") and folded[7] == ("another", "infinity")
    assert lake.differences() == []


@pytest.mark.case("S6")
def test_rows_after_another_replica_identity_are_right(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v int, big text)")
    postgres.execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    postgres.execute("INSERT INTO t SELECT g, 'c' || g, 0, repeat('x', 4000) FROM generate_series(1, 20) g")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    for n, identity in enumerate(("FULL", "USING INDEX t_code_key", "NOTHING"), 1):
        postgres.execute(f"UPDATE t SET v = {n}; ALTER TABLE t REPLICA IDENTITY {identity}")
        if identity == "NOTHING":  # the server refuses what it could not tell of, until the next look
            postgres.execute(f"INSERT INTO t VALUES ({-n}, 'n', 0, '')")
        else:
            postgres.execute(f"UPDATE t SET v = -v; UPDATE t SET id = id + 100 WHERE id = {n}")
            postgres.execute(f"UPDATE t SET code = 'new' || id WHERE id = 5; DELETE FROM t WHERE id = {20 - n}")
        lake.capture()
        shown = "SELECT id, code, v, length(big) FROM t"
        assert lake.rows(shown) == sorted(postgres.execute(shown)), identity
    assert lake.differences() == []
