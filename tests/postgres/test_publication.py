"""Publications that never harm the application, the slot, and the trigger that tells DDL in the stream."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from claimhouse.errors import NotReady, SlotBusy, SourceError, SourceGone
from claimhouse.postgres import ddl_trigger
from claimhouse.postgres.catalog import describe
from claimhouse.postgres.publication import (
    append_name,
    default_name,
    detach,
    ensure,
    ensure_slot,
    plan,
    slot_state,
)
from claimhouse.postgres.server import connect, current_lsn
from claimhouse.table import Table

NAME = "claimhouse_test"


@pytest.fixture
def conn(postgres):
    with connect(postgres.dsn) as opened:
        yield opened


def described(conn, *names: str) -> list[Table]:
    oids = [conn.execute("SELECT %s::regclass::oid::bigint", [f"public.{n}"]).fetchone()[0] for n in names]
    return [describe(conn, oid) for oid in oids]


def published(postgres, name: str = NAME) -> list[str]:
    return [
        r[0]
        for r in postgres.execute("SELECT tablename FROM pg_publication_tables WHERE pubname = %s ORDER BY 1", [name])
    ]


def test_names_suit_slots_whatever_the_source_is_called():
    assert default_name("claims", "0123456789abcdef") == "claimhouse_claims_01234567"
    odd = default_name("Ünïcode names, " * 9, "0123456789abcdef")
    assert len(odd) <= 52 and set(odd) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


@pytest.mark.case("O6")
def test_a_table_without_an_identity_is_published_for_inserts_alone_and_the_application_goes_on(postgres, conn):
    postgres.execute("CREATE TABLE keyed (a int PRIMARY KEY, b int); CREATE TABLE log (a int)")
    assert ensure(conn, NAME, described(conn, "keyed", "log")) == [NAME, append_name(NAME)]
    assert (published(postgres), published(postgres, append_name(NAME))) == (["keyed"], ["log"])
    postgres.execute("INSERT INTO log VALUES (1); UPDATE log SET a = 2; DELETE FROM log")
    assert plan(conn, NAME, described(conn, "keyed", "log")) == []


def test_both_publications_stand_before_there_is_a_table_for_either(postgres, conn):
    assert ensure(conn, NAME, []) == [NAME, append_name(NAME)]


@pytest.mark.case("O6", "S6")
def test_a_table_that_lost_its_key_is_moved_at_the_next_look_and_back_when_it_has_one(postgres, conn):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    ensure(conn, NAME, described(conn, "t"))
    postgres.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (1)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        postgres.execute("UPDATE t SET a = 2")
    ensure(conn, NAME, described(conn, "t"))
    postgres.execute("UPDATE t SET a = 2")
    assert (published(postgres), published(postgres, append_name(NAME))) == ([], ["t"])
    postgres.execute("ALTER TABLE t ADD PRIMARY KEY (a)")
    ensure(conn, NAME, described(conn, "t"))
    assert (published(postgres), published(postgres, append_name(NAME))) == (["t"], [])


def test_what_the_lake_believes_of_a_table_does_not_keep_it_where_it_harms(postgres, conn):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE gone (a int PRIMARY KEY)")
    believed = described(conn, "t", "gone")
    ensure(conn, NAME, believed)
    postgres.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (1); DROP TABLE gone")
    ensure(conn, NAME, believed)
    postgres.execute("UPDATE t SET a = 2")
    assert (published(postgres), published(postgres, append_name(NAME))) == ([], ["t"])


@pytest.mark.case("S7")
def test_partitions_are_published_as_their_root(postgres, conn):
    postgres.execute("CREATE TABLE p (a int PRIMARY KEY) PARTITION BY RANGE (a)")
    postgres.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)")
    ensure(conn, NAME, described(conn, "p"))
    assert published(postgres) == ["p"]
    assert plan(conn, NAME, described(conn, "p")) == []


@pytest.mark.case("O12")
def test_odd_names_are_quoted(postgres, conn):
    postgres.execute('CREATE TABLE "a.b ""c""; DROP" (a int PRIMARY KEY)')
    oid = postgres.execute("SELECT oid::bigint FROM pg_class WHERE relname LIKE 'a.b%%'")[0][0]
    ensure(conn, NAME, [describe(conn, oid)])
    assert published(postgres) == ['a.b "c"; DROP']


@pytest.mark.case("N6")
def test_a_publication_for_all_tables_is_taken_as_it_is(postgres, conn):
    postgres.execute("CREATE TABLE keyed (a int PRIMARY KEY); CREATE TABLE log (a int)")
    postgres.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    tables = described(conn, "keyed", "log")
    assert plan(conn, "everything", tables) == []
    assert ensure(conn, "everything", tables) == ["everything"]


@pytest.mark.case("N6")
def test_options_of_anothers_publication_are_not_changed_but_named(postgres, conn):
    postgres.execute(
        "CREATE TABLE t (a int PRIMARY KEY); CREATE PUBLICATION theirs FOR TABLE t WITH (publish = 'insert')"
    )
    with pytest.raises(NotReady) as refused:
        ensure(conn, "theirs", described(conn, "t"))
    assert "SET (publish = 'insert, update, delete, truncate')" in str(refused.value.hint)
    assert postgres.execute("SELECT pubupdate FROM pg_publication") == [(False,)]


def test_ours_is_mended_when_someone_narrowed_it(postgres, conn):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    ensure(conn, NAME, described(conn, "t"))
    postgres.execute(f"ALTER PUBLICATION {NAME} SET (publish = 'insert')")
    ensure(conn, NAME, described(conn, "t"))
    assert postgres.execute("SELECT pubupdate, pubdelete FROM pg_publication WHERE pubname = %s", [NAME]) == [
        (True, True)
    ]


def test_a_low_role_is_given_the_script_and_nothing_is_done_by_halves(postgres):
    postgres.execute("CREATE TABLE keyed (a int PRIMARY KEY); CREATE TABLE log (a int)")
    with connect(postgres.role()) as low:
        tables = described(low, "keyed", "log")
        with pytest.raises(NotReady) as refused:
            ensure(low, NAME, tables)
        assert postgres.execute("SELECT count(*) FROM pg_publication") == [(0,)]
        postgres.execute(str(refused.value.hint).partition("\n")[2])
        assert ensure(low, NAME, tables) == [NAME, append_name(NAME)]
        slot = f"{postgres.name}_low"
        assert ensure_slot(low, slot) > 0
        assert detach(low, slot, None, dry_run=False) and slot_state(low, slot) is None


def test_a_slot_is_made_once_and_begins_where_it_was_confirmed(postgres, conn):
    slot = f"{postgres.name}_slot"
    before = current_lsn(conn)
    position = ensure_slot(conn, slot)
    assert before <= position <= current_lsn(conn) and ensure_slot(conn, slot) == position
    state = slot_state(conn, slot)
    assert state is not None
    assert (state.plugin, state.active_pid, state.wal_status, state.failover) == ("pgoutput", None, "reserved", False)
    assert state.retained_bytes is not None and state.retained_bytes >= (state.behind_bytes or 0)
    assert state.invalidation_reason is None
    assert (state.inactive_since is not None) is (conn.info.server_version >= 170000)
    assert slot_state(conn, slot.replace("_slot", "%slot")) is not None
    assert slot_state(conn, slot.replace("t", "_", 1)) is None


@pytest.mark.case("R9")
def test_a_slot_can_be_one_that_standbys_keep(postgres, conn):
    if conn.info.server_version < 170000:
        pytest.skip("failover slots came with 17")
    slot = f"{postgres.name}_failover"
    ensure_slot(conn, slot, failover=True)
    state = slot_state(conn, slot)
    assert state is not None and state.failover


def test_making_a_slot_tells_that_it_waits_and_can_be_given_up(postgres, conn):
    slot = f"{postgres.name}_wait"
    with postgres.connect() as older:
        older.execute("CREATE TABLE held (a int)")
        told: list[float] = []

        def waiting(seconds: float) -> None:
            told.append(seconds)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ensure_slot(conn, slot, waiting=waiting)
        assert told == [1.0]
        assert slot_state(conn, slot) is None
        threading.Timer(0.3, older.commit).start()
        assert ensure_slot(conn, slot) > 0


def test_anothers_slot_of_that_name_is_refused(postgres, conn):
    slot = f"{postgres.name}_other"
    postgres.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [slot])
    with pytest.raises(SourceError, match="test_decoding"):
        ensure_slot(conn, slot)


def test_a_role_without_replication_is_told_what_it_lacks(postgres):
    with connect(postgres.role("LOGIN")) as low, pytest.raises(NotReady) as refused:
        ensure_slot(low, f"{postgres.name}_x")
    assert "REPLICATION" in str(refused.value.hint)


def test_detach_says_first_what_it_would_do_then_leaves_nothing(postgres, conn):
    slot = f"claimhouse_{postgres.name}"
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    postgres.execute(ddl_trigger.install_sql())
    ensure(conn, NAME, described(conn, "t"))
    ensure_slot(conn, slot)
    would = detach(conn, slot, NAME)
    assert slot_state(conn, slot) is not None and len(would) == 8
    assert detach(conn, slot, NAME, dry_run=False) == would
    assert detach(conn, slot, NAME) == [] and slot_state(conn, slot) is None
    left = "SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_event_trigger)"
    assert postgres.execute(left) == [(0, 0)]


def test_detach_keeps_the_trigger_while_another_lake_reads_and_anothers_publication(postgres, conn):
    postgres.execute(ddl_trigger.install_sql())
    postgres.execute("CREATE PUBLICATION theirs FOR ALL TABLES")
    ensure_slot(conn, f"claimhouse_{postgres.name}_1")
    ensure_slot(conn, f"claimhouse_{postgres.name}_2")
    assert len(detach(conn, f"claimhouse_{postgres.name}_1", "theirs", dry_run=False)) == 1
    assert ddl_trigger.installed(conn)


def test_detach_of_a_slot_that_is_read_names_the_reader(postgres, conn):
    slot = f"{postgres.name}_busy"
    ensure_slot(conn, slot)
    ensure(conn, NAME, [])
    with connect(postgres.dsn, replication=True) as reader:
        reader.pgconn.send_query(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{NAME}')".encode()
        )
        deadline = time.monotonic() + 5
        while (state := slot_state(conn, slot)) and state.active_pid is None and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(SlotBusy, match=str(state and state.active_pid)):
            detach(conn, slot, NAME, dry_run=False)
        reader.close()


# --- the DDL trigger


@pytest.fixture
def told(postgres, conn):
    """The messages of one statement, in order: what the trigger says of the DDL that it is given."""
    postgres.execute(ddl_trigger.install_sql())
    slot = f"{postgres.name}_ddl"
    ensure_slot(conn, slot)
    ensure(conn, NAME, [])

    def run(statement: str) -> list[ddl_trigger.Told]:
        postgres.execute(statement)
        query = (
            "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
            " 'publication_names', %s, 'messages', 'true') WHERE get_byte(data, 0) = ascii('M')"
        )
        rows = postgres.execute(query, [slot, NAME])
        prefix = ddl_trigger.PREFIX.encode() + b"\0"
        return [ddl_trigger.read(bytes(data).partition(prefix)[2][4:]) for (data,) in rows]

    return run


@pytest.mark.parametrize(
    ("ddl", "name"),
    [
        ("CREATE TABLE u (a numeric(12,2) PRIMARY KEY, b text[])", "u"),
        ("ALTER TABLE t ADD c timestamptz DEFAULT '2026-01-02 03:04:05+02'", "t"),
        ("ALTER TABLE t ADD c text DEFAULT 'it''s \"ü\"', DROP b, ALTER a TYPE bigint", "t"),
        ("ALTER TABLE t RENAME b TO c", "t"),
        ("ALTER TABLE t RENAME TO u", "u"),
        ("ALTER TABLE t SET SCHEMA s", "s.t"),
        ("ALTER TABLE t REPLICA IDENTITY FULL", "t"),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "t"),
        ("ALTER TABLE t ADD d s.dom, ADD e s.mood DEFAULT 'sad', ADD f s.pair[]", "t"),
        ("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)", "p"),
        ("ALTER TABLE p1 REPLICA IDENTITY NOTHING", "p"),
        ("ALTER TABLE p ADD c int DEFAULT 7", "p"),
        ("ALTER TABLE p DETACH PARTITION p1", "p"),
        ("ALTER TABLE parent ADD c int", "child"),
        ("ALTER SCHEMA s RENAME TO z", "z.odd"),
        ("CREATE TABLE made AS SELECT 1 AS x", "made"),
    ],
)
def test_what_the_trigger_tells_is_what_the_catalog_says(postgres, conn, told, ddl, name):
    postgres.execute("""
        CREATE SCHEMA s; CREATE DOMAIN s.dom AS numeric(9,3); CREATE TYPE s.mood AS ENUM ('sad');
        CREATE TYPE s.pair AS (x int); CREATE TABLE s.odd (m s.mood);
        CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'x');
        CREATE TABLE p (a int PRIMARY KEY, b text) PARTITION BY RANGE (a);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1);
        CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent)
    """)
    told("SELECT 1")
    shapes = [m.table for m in told(ddl) if m.event == "shape"]
    oid = postgres.execute("SELECT %s::regclass::oid::bigint", [name])[0][0]
    assert describe(conn, oid) in shapes


def test_it_tells_what_changes_old_rows_without_events(postgres, told):
    postgres.execute(
        "CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (x int); CREATE TABLE t (a int, m mood[], p pair)"
    )
    oid = postgres.execute("SELECT 't'::regclass::oid::bigint")[0][0]
    told("SELECT 1")
    for ddl, events in [
        ("ALTER TABLE t ALTER a TYPE bigint", ["rewrite", "shape"]),
        ("ALTER TABLE t ADD b float DEFAULT random()", ["rewrite", "shape"]),
        ("ALTER TABLE t ADD c float DEFAULT 1", ["shape"]),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'", ["values"]),
        ("ALTER TYPE pair ADD ATTRIBUTE y int", ["values"]),
        ("DROP TYPE pair CASCADE", ["shape"]),
        ("DROP TABLE t", ["drop"]),
    ]:
        assert [m.event for m in told(ddl) if m.oid == oid] == events, ddl


def test_a_dropped_identity_index_is_told(postgres, told):
    postgres.execute("CREATE TABLE t (a int NOT NULL); CREATE UNIQUE INDEX i ON t (a)")
    postgres.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX i")
    told("SELECT 1")
    assert [m.table and m.table.identity for m in told("DROP INDEX i")] == ["none"]


def test_rolled_back_and_temporary_tables_are_not_told(postgres, told):
    assert (
        told("BEGIN; CREATE TABLE t (a int); ROLLBACK; CREATE TEMP TABLE tt (a int); CREATE VIEW v AS SELECT 1") == []
    )


def test_a_failing_trigger_never_fails_the_applications_ddl(postgres, told):
    postgres.execute("""
        CREATE OR REPLACE FUNCTION claimhouse.tell_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM 1; END $$
    """)
    assert told("CREATE TABLE quiet (a int)") == []
    broken = ddl_trigger.install_sql().replace("'partitions', leaf.list::text[]", "'partitions', leaf.list::int")
    postgres.execute(broken)
    notices: list[str] = []
    postgres.conn.add_notice_handler(lambda d: notices.append(d.message_primary))
    assert told("CREATE TABLE t (a int)") == []
    assert postgres.execute("SELECT count(*) FROM t") == [(0,)] and "claimhouse was not told" in notices[0]


def test_a_role_that_may_only_use_its_own_schema_can_still_change_its_tables(postgres, told):
    postgres.execute("CREATE SCHEMA mine")
    dsn = postgres.role("LOGIN")
    postgres.execute(f"GRANT CREATE ON SCHEMA mine TO {postgres.roles[0]}")
    told("SELECT 1")
    with psycopg.connect(dsn) as low:
        low.execute("CREATE TABLE mine.t (a int PRIMARY KEY); ALTER TABLE mine.t ADD b text")
        notices: list[str] = []
        low.add_notice_handler(lambda d: notices.append(d.message_primary))
    assert [len(m.table.columns) for m in told("SELECT 1") if m.table] == [1, 2] and notices == []
    postgres.execute("DROP SCHEMA mine CASCADE")


def test_a_forged_message_is_not_taken_for_a_table():
    for content in (b"", b"{}", b"[1]", b"\xff", b'{"table": {"oid": 1}, "event": "shape", "command": "x", "oid": 1}'):
        assert ddl_trigger.parse(content) is None


def test_a_slot_that_the_server_still_makes_for_a_killed_run_is_waited_for(postgres):
    """Found by the model (seed 402932491): it was taken for a slot that has lost its WAL."""
    slot = f"claimhouse_{postgres.name}"
    writer = postgres.connect()
    writer.execute("CREATE TABLE t (a int PRIMARY KEY)")
    maker = postgres.connect(autocommit=True)
    maker.pgconn.send_query(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')".encode())
    with connect(postgres.dsn) as conn:
        deadline = time.monotonic() + 20
        while slot_state(conn, slot) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(SourceGone, match="still being made"):
            ensure_slot(conn, slot)
        writer.commit()
        while True:
            try:
                position = ensure_slot(conn, slot)
                break
            except SourceGone:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert position > 0
    maker.close()
    writer.close()
