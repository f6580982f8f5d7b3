"""Each finding of doctor names what is wrong and holds the SQL that mends it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from psycopg.conninfo import make_conninfo

from claimhouse.errors import UsageError
from claimhouse.postgres import ddl_trigger, doctor
from claimhouse.postgres.doctor import Finding, Patient, examine
from claimhouse.postgres.publication import ensure_slot, slot_state
from claimhouse.postgres.server import Capabilities, connect


def of(findings: list[Finding], code: str) -> list[Finding]:
    return [f for f in findings if f.code == code]


def mend(postgres, findings: list[Finding]) -> None:
    for finding in findings:
        assert finding.sql is not None, finding
        for statement in re.split(r";\s*\n", finding.sql):
            postgres.execute(statement)


@pytest.fixture
def patient(postgres):
    with connect(postgres.dsn) as conn:
        yield Patient(conn, postgres.dsn, Capabilities.of(conn), 0.0, [], [], [], None)


def test_a_sound_server_has_no_error(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    findings = examine(postgres.dsn, slot=f"{postgres.name}_none")
    assert [f for f in findings if f.level == "error"] == []
    assert {f.code: f.level for f in findings} == {
        "version": "ok",
        "wal_level": "ok",
        "slots": "ok",
        "senders": "ok",
        "replication": "ok",
        "identity": "ok",
        "publication": "info",
        "wal_bound": "warn",
        "clock": "ok",
        "memory": "info",
        "ddl": "info",
    }


def test_a_server_that_cannot_be_reached_is_one_finding(postgres):
    (finding,) = examine("host=127.0.0.1 port=1 dbname=x password=hush")
    assert (finding.level, finding.code) == ("error", "connection") and "hush" not in finding.message


def test_a_pattern_that_names_nothing_is_told(postgres):
    with pytest.raises(UsageError, match="clam"):
        examine(postgres.dsn, tables=["clam"])


def test_a_role_with_nothing_is_told_all_it_lacks_and_the_sql_suffices(postgres):
    postgres.execute('CREATE TABLE "Odd one" (a int PRIMARY KEY)')
    dsn = postgres.role("LOGIN")
    postgres.execute("CREATE TABLE shut (a int PRIMARY KEY); CREATE TABLE log (a int)")
    slot = f"{postgres.name}_none"
    findings = examine(dsn, slot=slot, publication="claimhouse")
    wrong = {(f.code, f.subject) for f in findings if f.level == "error"}
    assert wrong == {
        ("replication", postgres.roles[0]),
        ("table", "public.shut"),
        ("table", "public.log"),
        ("publication", "claimhouse"),
    }
    mend(postgres, [f for f in findings if f.level == "error"])
    mend(postgres, of(examine(dsn, slot=slot, publication="claimhouse"), "publication"))
    findings = examine(dsn, slot=slot, publication="claimhouse")
    assert [f for f in findings if f.level == "error"] == []
    assert of(findings, "publication")[0].level == "ok"
    postgres.execute(f"DROP OWNED BY {postgres.roles[0]}")


@pytest.mark.case("O6")
def test_tables_without_a_usable_identity_are_named_and_mended(postgres):
    postgres.execute("""
        CREATE TABLE plain (a int); CREATE TABLE "No.thing" (a int PRIMARY KEY);
        ALTER TABLE "No.thing" REPLICA IDENTITY NOTHING;
        CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)
    """)
    found = of(examine(postgres.dsn), "identity")
    assert {f.subject for f in found if f.level == "warn"} == {"public.plain", "public.No.thing", "public.p"}
    mend(postgres, found)
    after = {f.subject: (f.level, f.message) for f in of(examine(postgres.dsn), "identity")}
    assert [level for level, _ in after.values()].count("warn") == 0
    assert after[postgres.name] == ("ok", "1 tables have a key") and after["public.plain"][0] == "info"


@pytest.mark.case("O13")
def test_what_is_not_captured_is_told_with_its_reason(postgres):
    postgres.execute('CREATE UNLOGGED TABLE u (a int PRIMARY KEY); CREATE TABLE fine (a int, "A" int)')
    findings = examine(postgres.dsn)
    assert {(f.level, f.subject) for f in of(findings, "table")} == {
        ("warn", "public.u"),
        ("error", "public.fine"),
        ("error", postgres.name),
    }
    mend(postgres, [f for f in of(findings, "table") if f.subject == "public.u"])
    assert of(examine(postgres.dsn, tables=["u"]), "table") == []


@pytest.mark.case("N5")
def test_a_publication_that_leaves_out_rows_or_columns_is_a_warning(postgres):
    if postgres.conn.info.server_version < 150000:
        pytest.skip("row filters and column lists came with 15")
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY, b int); CREATE TABLE r (a int PRIMARY KEY)")
    postgres.execute("CREATE PUBLICATION theirs FOR TABLE t (a), r WHERE (a > 1) WITH (publish_via_partition_root)")
    found = of(examine(postgres.dsn, publication="theirs"), "publication")
    assert [(f.level, f.subject) for f in found] == [
        ("warn", "public.t"),
        ("warn", "public.r"),
        ("ok", "theirs"),
    ]
    mend(postgres, found[:2])
    assert [f.level for f in of(examine(postgres.dsn, publication="theirs"), "publication")] == ["ok"]


@pytest.mark.case("R6")
def test_an_unread_slot_is_a_warning_and_a_lost_one_an_error(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    slot = f"claimhouse_{postgres.name}"
    with connect(postgres.dsn) as conn:
        ensure_slot(conn, slot)
        state = slot_state(conn, slot)
    assert state is not None
    findings = examine(postgres.dsn)
    assert [f.level for f in of(findings, "slot") if f.subject == slot] == ["warn"]
    newer = postgres.conn.info.server_version >= 170000
    assert [f.level for f in of(findings, "failover") if f.subject == slot] == ["info"] * newer
    for change, level, word in (
        ({"wal_status": "lost"}, "error", "lost"),
        ({"wal_status": "unreserved"}, "error", "about to be lost"),
        ({"invalidation_reason": "idle_timeout"}, "error", "idle_timeout"),
        ({"active_pid": 7, "safe_wal_size": 5_000_000}, "ok", "5 MB until it is lost"),
    ):
        finding = doctor._slot(replace(state, **change))
        assert finding.level == level and word in finding.message
    mend(postgres, [f for f in of(findings, "slot") if f.subject == slot])
    assert [f for f in of(examine(postgres.dsn), "slot") if f.subject == slot] == []


@pytest.mark.parametrize(
    ("change", "check", "level", "sql"),
    [
        ({"version": 130020}, doctor.version, "error", None),
        ({"version": 180003, "version_text": "18.3"}, doctor.version, "warn", None),
        ({"version": 180004}, doctor.version, "ok", None),
        ({"version": 140022}, doctor.version, "warn", None),
        ({"version": 190000}, doctor.version, "ok", None),
        ({"wal_level": "replica"}, doctor.wal_level, "error", "ALTER SYSTEM SET wal_level = 'logical'"),
        ({"slots": 10, "slots_used": 10}, doctor.room, "error", "ALTER SYSTEM SET max_replication_slots = 14"),
        ({"senders": 10, "senders_used": 10}, doctor.room, "error", "ALTER SYSTEM SET max_wal_senders = 14"),
        ({"replication": False, "role": 'o"dd'}, doctor.rights, "error", 'ALTER ROLE "o""dd" REPLICATION'),
        ({"output_plugin_libraries": "test_decoding"}, doctor.plugins, "error", "'test_decoding, pgoutput'"),
        ({"encoding": "SQL_ASCII"}, doctor.encoding, "warn", None),
        ({"max_slot_wal_keep_mb": 1000}, doctor.wal_bound, "ok", None),
        ({"max_slot_wal_keep_mb": -1}, doctor.wal_bound, "warn", "ALTER SYSTEM SET max_slot_wal_keep_size"),
    ],
)
def test_what_a_server_lacks_is_told(patient, change, check, level, sql):
    findings = check(replace(patient, server=replace(patient.server, **change)))
    assert level in [f.level for f in findings]
    if sql:
        assert any(sql in (f.sql or "") for f in findings)


def test_a_standby_is_no_source(patient):
    found = doctor.wal_level(replace(patient, server=replace(patient.server, is_standby=True)))
    assert [f.code for f in found if f.level == "error"] == ["standby"]


@pytest.mark.case("R9")
def test_a_failover_slot_that_outruns_its_standbys_is_told(patient, postgres):
    ensure_slot(patient.conn, f"{postgres.name}_f")
    state = slot_state(patient.conn, f"{postgres.name}_f")
    assert state is not None
    slots = [replace(state, failover=True)]
    eager = replace(patient.server, version=170010, synchronized_standby_slots="")
    (finding,) = doctor.failover(replace(patient, slots=slots, server=eager))
    assert finding.level == "warn" and "ahead of a promoted standby" in finding.message
    calm = replace(eager, synchronized_standby_slots="standby_1")
    assert doctor.failover(replace(patient, slots=slots, server=calm)) == []


def test_clocks_that_disagree_are_told(patient):
    (finding,) = doctor.clock(replace(patient, clock_ahead=-7.25))
    assert finding.level == "warn" and "7.2 s behind" in finding.message


def test_the_sql_for_telling_ddl_is_printed_and_works(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    (finding,) = of(examine(postgres.dsn), "ddl")
    assert finding.level == "info" and finding.sql is not None
    postgres.execute(finding.sql)
    assert [f.level for f in of(examine(postgres.dsn), "ddl")] == ["ok"]
    postgres.execute(ddl_trigger.remove_sql())


def test_secrets_are_in_no_finding(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    dsn = make_conninfo(postgres.role("LOGIN"), options="-c lock_timeout=1s")
    secret = re.search(r"password=(\w+)", dsn)
    assert secret is not None and secret[1] not in repr(examine(dsn))
