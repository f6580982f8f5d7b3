"""From the first copy to the stream: nothing is lost between them, nothing is there twice or seen too early."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.pipeline.killing import killed
from tests.pipeline.test_capture import begun, once, options, query, running, until
from tests.values.lake import Lake

from claimhouse.errors import QueryError
from claimhouse.postgres import snapshot


@pytest.mark.case("N1", "N4")
def test_what_is_written_while_a_table_is_copied_is_there_once_and_nothing_before_the_copy_is_whole(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v int, filler text)")
    postgres.execute("INSERT INTO t SELECT g, 0, repeat('x', 900) FROM generate_series(1, 3000) g")
    lake, chunks = Lake(postgres.dsn, tmp_path), count()
    monkeypatch.setattr(snapshot, "FIRST_BLOCKS", 64)

    def beside_the_copy(*_: Any) -> int:
        n = next(chunks)
        if n < 5:
            postgres.execute(f"INSERT INTO t VALUES ({-n - 1}, 1, ''); UPDATE t SET v = v + 1 WHERE id % 7 = {n}")
            postgres.execute(
                f"DELETE FROM t WHERE id IN ({3000 - n}, {n + 1}); UPDATE t SET id = -id WHERE id = {100 + n}"
            )
            with pytest.raises(QueryError, match="still being copied"):
                lake.rows("SELECT count(*) FROM t")
        return 64

    monkeypatch.setattr(snapshot, "_next_step", beside_the_copy)
    assert lake.capture().errored == {}
    assert next(chunks) > 5
    assert lake.rows("SELECT id, v FROM t") == sorted(postgres.execute("SELECT id, v FROM t"))
    streamed = [(r["_end_lsn"], r["_seq"]) for r in lake.log("public/t") if r["_op"] != "r"]
    assert len(streamed) == len(set(streamed)) > 2000
    assert lake.differences() == []


@pytest.mark.case("N2")
def test_a_first_run_killed_after_each_of_its_cuts_ends_where_one_that_was_not_would(
    postgres: Any, tmp_path: Path
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE loose (v int)")
    postgres.execute(
        "INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 2000) g; INSERT INTO loose VALUES (1), (1)"
    )
    lake, kills = Lake(postgres.dsn, tmp_path), 0
    places = (
        "cut.before_append",
        "cut.before_confirm",
        *(f"cut.after_confirm:{n}" for n in (2, 3)),
        "fold.after_commit",
    )
    for n, place in enumerate(places, 1):
        kills += killed(lake, place)
        postgres.execute(f"INSERT INTO t VALUES ({-n}, 'between'); UPDATE t SET v = 'new' WHERE id = {n}")
        postgres.execute("INSERT INTO loose VALUES (2)")
    assert kills >= 4
    lake.capture()
    assert lake.rows("SELECT * FROM t") == sorted(postgres.execute("SELECT * FROM t"))
    assert lake.rows("SELECT * FROM loose") == sorted(postgres.execute("SELECT * FROM loose"))
    for folder in ("public/t", "public/loose"):
        places = [(r["_incarnation"], r["_end_lsn"], r["_seq"], r["_copy"]) for r in lake.log(folder)]
        assert len(places) == len(set(places))
    assert lake.differences() == []


@pytest.mark.case("N3", "R11")
def test_a_restart_streams_on_although_its_role_may_no_longer_read_the_tables(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    postgres.execute("INSERT INTO t SELECT g, 'v' FROM generate_series(1, 500) g")
    lake = Lake(postgres.role(), tmp_path)
    (role,) = postgres.roles
    postgres.execute(f"GRANT CREATE ON DATABASE {postgres.name} TO {role}; ALTER TABLE t OWNER TO {role}")
    assert lake.capture().copied_rows == 500
    postgres.execute(
        f"REVOKE SELECT ON t FROM {role}; UPDATE t SET v = 'new' WHERE id = 1; INSERT INTO t VALUES (501, 'w')"
    )
    with psycopg.connect(lake.dsn) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT FROM t")
    again = lake.capture()
    assert (again.copied_rows, again.rows) == (0, 2)
    assert lake.rows("SELECT count(*), min(v), max(v) FROM t") == [(501, "new", "w")]


@pytest.mark.case("N6")
@pytest.mark.parametrize("whole", ["FOR ALL TABLES", "FOR TABLES IN SCHEMA public"])
def test_a_publication_of_the_users_own_brings_new_tables_and_loses_none_that_leave_it(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str
) -> None:
    if "SCHEMA" in whole and postgres.conn.info.server_version < 150000:
        pytest.skip("publications of a schema came with PostgreSQL 15")
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.2)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE SCHEMA other")
    postgres.execute(f"CREATE PUBLICATION theirs {whole} WITH (publish_via_partition_root = true)")
    asked = options(postgres, tmp_path, publication="theirs")
    with running(asked):
        until(lambda: query(asked, "SELECT id FROM t") == [(1,)])
        postgres.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")
        postgres.execute("CREATE TABLE other.elsewhere (id int PRIMARY KEY); INSERT INTO other.elsewhere VALUES (1)")
        for name in ("later", "other.elsewhere"):
            until(lambda name=name: query(asked, f"SELECT id FROM {name}") == [(1,)])
        postgres.execute(
            "INSERT INTO t VALUES (2); INSERT INTO later VALUES (2); INSERT INTO other.elsewhere VALUES (2)"
        )
        for name in ("t", "later", "other.elsewhere"):
            until(lambda name=name: query(asked, f"SELECT count(*) FROM {name}") == [(2,)])
        before = begun(asked, "t")
    # Their publication goes and comes back while rows are written that it does not publish.
    postgres.execute("DROP PUBLICATION theirs; INSERT INTO t VALUES (3); DELETE FROM later WHERE id = 1")
    postgres.execute(f"CREATE PUBLICATION theirs {whole} WITH (publish_via_partition_root = true)")
    once(asked)
    assert query(asked, "SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    assert query(asked, "SELECT id FROM later") == [(2,)]
    assert begun(asked, "t") == before  # what nobody published is compared, and only what differs brought
    assert query(asked, "SELECT _op, id FROM t__log WHERE _op <> 'r' AND _xid IS NULL") == [("c", 3)]


@pytest.mark.case("N6")
def test_a_table_that_we_may_not_add_to_the_users_publication_is_refused_by_name_and_others_go_on(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.2)
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION theirs FOR TABLE t")
    asked = options(postgres, tmp_path, publication="theirs", dsn=postgres.role())
    with running(asked) as capture:
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        postgres.execute(f"CREATE TABLE later (id int PRIMARY KEY); GRANT SELECT ON later TO {postgres.roles[0]}")
        until(lambda: "must be owner of publication theirs" in capture.summary.refused.get("public.later", ""))
        postgres.execute("INSERT INTO t VALUES (1)")
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(1,)])
        postgres.execute("ALTER PUBLICATION theirs ADD TABLE later; INSERT INTO later VALUES (1)")
        until(lambda: query(asked, "SELECT id FROM later") == [(1,)])


@pytest.mark.case("N6")
@pytest.mark.parametrize("live", [True, False])
def test_a_new_table_of_another_owner_stops_neither_a_run_nor_a_restart_nor_the_other_new_tables(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    monkeypatch.setattr("claimhouse.pipeline.capture.IDLE_SECONDS", 0.2)
    asked = options(postgres, tmp_path, dsn=postgres.role())
    (role,) = postgres.roles
    postgres.execute(f"GRANT CREATE ON DATABASE {postgres.name} TO {role}; GRANT CREATE ON SCHEMA public TO {role}")
    create = "CREATE TABLE {0} (id int PRIMARY KEY); INSERT INTO {0} VALUES (1); ALTER TABLE {0} OWNER TO {1}"
    postgres.execute(create.format("t", role))

    def make() -> None:
        postgres.execute(create.format("theirs", postgres.conn.info.user) + f"; GRANT SELECT ON theirs TO {role}")
        postgres.execute(create.format("mine", role) + "; INSERT INTO t VALUES (2)")

    if not live:
        once(asked)
        make()
    with running(asked) as capture:
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(1 if live else 2,)])
        if live:
            make()
        until(lambda: query(asked, "SELECT id FROM mine") == [(1,)])
        until(lambda: "must be owner of table theirs" in capture.summary.refused.get("public.theirs", ""))
        postgres.execute("INSERT INTO t VALUES (3); INSERT INTO mine VALUES (2)")
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(3,)])
        until(lambda: query(asked, "SELECT count(*) FROM mine") == [(2,)])
    assert "mine" not in str(capture.summary.refused)
