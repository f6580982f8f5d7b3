"""Connecting, what a server can do, its errors, and transaction ids of 64 bits."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from claimhouse.errors import NotReady, SettingsError, SlotBusy, SourceError, SourceGone
from claimhouse.postgres.server import (
    Capabilities,
    Snapshot,
    Xids,
    connect,
    current_lsn,
    explain,
    explained,
    shown,
)

MODES = [False, True]


@pytest.mark.case("T16")
@pytest.mark.parametrize("replication", MODES)
def test_values_read_the_same_whatever_a_role_or_database_has_set(postgres, replication):
    dsn = postgres.role()
    for setting in (
        "DateStyle = 'German'",
        "extra_float_digits = -5",
        "TimeZone = 'Asia/Tokyo'",
        "search_path = pg_temp",
        "quote_all_identifiers = on",
        "default_transaction_isolation = serializable",
        "idle_session_timeout = '1s'",
    ):
        postgres.execute(f"ALTER ROLE {postgres.roles[0]} SET {setting}")
        postgres.execute(f"ALTER DATABASE {postgres.name} SET {setting}")
    values = "timestamptz '2026-02-03 04:05:06.7+09', 0.1::float8 + 0.2::float8, '\\xff'::bytea::text, interval '1 mon'"
    values += ", 'pg_catalog.pg_class'::regclass::text, current_setting('transaction_isolation')"
    with connect(dsn, replication=replication) as conn:
        result = conn.pgconn.exec_(f"SELECT {values}".encode())
        assert [result.get_value(0, i) for i in range(6)] == [
            b"2026-02-02 19:05:06.7+00",
            b"0.30000000000000004",
            b"\\xff",
            b"1 mon",
            b"pg_class",
            b"read committed",
        ]
        assert conn.execute("SHOW idle_session_timeout").fetchone() == ("0",)
        assert conn.execute("SELECT current_setting('search_path')").fetchone() in [("",), ('""',)]
        assert conn.info.encoding == "utf-8" and conn.autocommit


def test_settings_and_transactions_are_as_asked(postgres):
    with connect(postgres.dsn, autocommit=False, settings={"work_mem": "77MB"}) as conn:
        conn.rollback()
        assert conn.execute("SHOW work_mem").fetchone() == ("77MB",)
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS


def test_a_replication_connection_takes_sql_with_parameters_and_commands(postgres):
    with connect(postgres.role(), replication=True) as conn:
        assert conn.execute("SELECT %s::text", ["it's"]).fetchone() == ("it's",)
        assert len(conn.execute("IDENTIFY_SYSTEM").fetchone() or ()) == 4


@pytest.mark.parametrize("replication", MODES)
def test_refusals_are_told_from_absence(postgres, replication):
    low = postgres.role()
    for dsn in (
        make_conninfo(low, password="hush"),
        make_conninfo(low, user="nobody_here", password="hush"),
        make_conninfo(low, dbname="nowhere"),
        "service=nowhere",
    ):
        with pytest.raises(SourceError) as refused:
            connect(dsn, replication=replication)
        assert refused.value.hint and "hush" not in f"{refused.value}"
    with pytest.raises(SourceGone) as gone:
        connect("host=127.0.0.1 port=1", replication=replication)
    assert gone.value.hint


def test_a_role_that_may_not_read_the_wal_is_told_which_right_it_lacks(postgres):
    with pytest.raises(NotReady) as refused:
        connect(postgres.role("LOGIN"), replication=True)
    assert "REPLICATION" in str(refused.value.hint)


def test_a_malformed_dsn_is_not_repeated():
    for dsn in ("hush hush", "postgresql://u:hush@[::1/db", "nosuchword=hush", f"host=hush{'x' * 70}.com"):
        with pytest.raises(SettingsError) as refused:
            connect(dsn)
        assert "hush" not in f"{refused.value} {refused.value.hint}"


def test_a_dsn_is_shown_without_its_secrets():
    assert (
        shown("postgresql://u:hush@h:5433/d?sslpassword=hush&application_name=x") == "user=u host=h port=5433 dbname=d"
    )
    assert shown("host=h password=hush") == "host=h"
    assert shown("service=claims") == "service=claims"
    assert shown("") == "the server that the PG* variables name"
    assert "hush" not in shown("hush=hush")


def test_pg_variables_name_the_server_of_an_empty_dsn(postgres, monkeypatch):
    for variable, part in (("PGHOST", "host"), ("PGPORT", "port"), ("PGUSER", "user"), ("PGDATABASE", "dbname")):
        monkeypatch.setenv(variable, psycopg.conninfo.conninfo_to_dict(postgres.dsn)[part])
    monkeypatch.setenv("PGPASSFILE", psycopg.conninfo.conninfo_to_dict(postgres.dsn)["passfile"])
    with connect("") as conn:
        assert conn.info.dbname == postgres.name


def test_what_a_server_can_do_is_asked_by_a_low_role_as_well(postgres):
    with connect(postgres.dsn) as conn, connect(postgres.role()) as low_conn:
        high, low = Capabilities.of(conn), Capabilities.of(low_conn)
    assert (high.wal_level, high.is_standby, high.timeline, high.database) == ("logical", False, 1, postgres.name)
    assert (high.superuser, high.replication, high.may_create) == (True, True, True)
    assert (low.superuser, low.replication, low.may_create) == (False, True, False)
    assert high.system_id == low.system_id and int(high.system_id) > 0
    assert high.version == postgres.conn.info.server_version and high.has_failover_slots is (high.version >= 170000)
    assert 0 < high.slots_free <= high.slots == 20 and 0 < high.senders_free <= high.senders


def test_used_slots_and_senders_are_counted(postgres):
    with connect(postgres.dsn) as conn, connect(postgres.dsn, replication=True):
        before = Capabilities.of(conn)
        conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"{postgres.name}_s"])
        assert Capabilities.of(conn).slots_free == before.slots_free - 1
        assert before.senders_used >= 0


def test_positions_grow(postgres):
    with connect(postgres.dsn) as conn:
        before = current_lsn(conn)
        conn.execute("CREATE TABLE public.t (a int)")
        assert before < current_lsn(conn)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT FROM nowhere", SourceError),
        ("SELECT pg_drop_replication_slot('nowhere')", SourceError),
        ("SELECT pg_terminate_backend(pg_backend_pid())", SourceGone),
        ("SET lock_timeout = 1; LOCK TABLE public.held", SourceGone),
        ("SET statement_timeout = 1; SELECT pg_sleep(1)", SourceGone),
    ],
)
def test_what_the_server_says_becomes_an_error_of_ours(postgres, statement, kind):
    postgres.execute("CREATE TABLE held (a int)")
    postgres.execute("BEGIN; LOCK TABLE held")
    with (
        connect(postgres.dsn) as conn,
        pytest.raises(kind, match=r"looking failed|broke while looking"),
        explained("looking"),
    ):
        conn.execute(statement)
    postgres.execute("ROLLBACK")


@pytest.mark.case("R11")
def test_a_right_that_is_missing_is_not_tried_again(postgres):
    postgres.execute("CREATE TABLE t (a int)")
    dsn = postgres.role("LOGIN")
    postgres.execute(f"REVOKE ALL ON t FROM {postgres.roles[0]}")
    with connect(dsn) as conn, pytest.raises(NotReady, match="permission denied"), explained("reading"):
        conn.execute("SELECT * FROM public.t")


def test_values_of_rows_are_in_no_message(postgres):
    postgres.execute("CREATE TABLE t (a text PRIMARY KEY); INSERT INTO t VALUES ('hush')")
    for statement in ("INSERT INTO public.t VALUES ('hush')", "SELECT a::int FROM public.t"):
        with connect(postgres.dsn) as conn, pytest.raises(SourceError) as refused, explained("reading"):
            conn.execute(statement)
        assert "hush" not in f"{refused.value} {refused.value.hint}"


def test_a_slot_in_use_is_another_kind_of_error():
    assert isinstance(explain(psycopg.errors.ObjectInUse(), "reading"), SlotBusy)


def test_32_bits_of_a_transaction_id_become_the_nearest_64():
    xids = Xids((5 << 32) + 10)
    wire = np.array([11, 0xFFFFFFFA, 9, 10], np.uint32)
    assert xids.extend(wire).tolist() == [(5 << 32) + 11, (5 << 32) - 6, (5 << 32) + 9, (5 << 32) + 10]
    assert xids.reference == (5 << 32) + 11
    assert xids.extend(np.empty(0, np.uint32)).tolist() == []


def test_the_reference_follows_the_counter_over_an_epochs_end():
    xids = Xids((1 << 32) - 5)
    seen = [
        xids.extend(np.array([n & 0xFFFFFFFF], np.uint32))[0]
        for n in range((1 << 32) - 3, (1 << 32) + 5_000_000, 99_991)
    ]
    assert seen == list(range((1 << 32) - 3, (1 << 32) + 5_000_000, 99_991))


def test_a_young_server_has_no_negative_ids():
    assert Xids(700).extend(np.array([3, 0x90000000], np.uint32)).tolist() == [3, 0x90000000]


def test_the_reference_is_the_servers_next_id(postgres):
    with connect(postgres.dsn) as conn:
        reference = Xids.of(conn).reference
        row = conn.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None and 0 <= row[0] - reference < 100


def test_a_snapshot_sees_what_had_ended_before_it():
    snapshot = Snapshot.parse("10:20:10,14,15")
    assert snapshot.sees(np.array([9, 10, 11, 14, 15, 16, 19, 20, 99])).tolist() == [
        *(True, False, True, False, False, True, True, False, False),
    ]
    assert str(snapshot) == "10:20:10,14,15"
    assert Snapshot.parse("5:5:").sees(np.array([4, 5])).tolist() == [True, False]


def test_a_snapshot_read_from_the_server_does_not_see_an_open_transaction(postgres):
    with postgres.connect() as other, connect(postgres.dsn) as conn:
        open_xid = other.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]
        snapshot = Snapshot.parse(conn.execute("SELECT pg_current_snapshot()::text").fetchone()[0])
        assert snapshot.sees(np.array([open_xid, snapshot.xmin - 1])).tolist() == [False, True]
