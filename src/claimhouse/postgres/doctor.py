"""What a source lacks or risks, each finding with the exact SQL that mends it. Nothing is changed, no row is read.

One function per concern, in the order of the CHECKS table; each looks at the same Patient and returns findings. Levels:
`error` capture cannot work or harms the source, `warn` it works but something will be missing or at risk, `info` worth
knowing, `ok` looked at and fine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from claimhouse.errors import ClaimhouseError, NotReady
from claimhouse.postgres import ddl_trigger
from claimhouse.postgres.catalog import TableInfo, describe, find_tables
from claimhouse.postgres.publication import SlotState, plan, quoted, slot_states
from claimhouse.postgres.server import Capabilities, connect, explained
from claimhouse.table import Table

Level = Literal["ok", "info", "warn", "error"]

# The newest minor releases that fix losses or wrong answers in logical decoding.
FLOORS = {14: 23, 15: 18, 16: 14, 17: 10, 18: 4}
CLOCK_SECONDS = 1.0
SUGGESTED_BOUND = "64GB"
RESTART = "-- then restart the server"
RELOAD = "SELECT pg_reload_conf();"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: `code` names the check, `subject` what it is about, `sql` what mends it."""

    level: Level
    code: str
    subject: str
    message: str
    sql: str | None = None


@dataclass(frozen=True, slots=True)
class Patient:
    """What the checks look at. `infos` are all tables that the patterns name, `tables` those that can be captured."""

    conn: psycopg.Connection[Any]
    dsn: str
    server: Capabilities
    clock_ahead: float  # the server's clock against ours, seconds; 0 within the round trip
    infos: list[TableInfo]
    tables: list[Table]
    slots: list[SlotState]
    publication: str | None


def examine(
    dsn: str, *, tables: Sequence[str] = (), slot: str | None = None, publication: str | None = None
) -> list[Finding]:
    """All findings on a source. `slot`: else every slot of claimhouse's is looked at.

    Raises UsageError for a pattern that names nothing; a server that cannot be reached is a finding.
    """
    try:
        conn = connect(dsn)
    except ClaimhouseError as error:
        return [Finding("error", "connection", "server", f"{error}" + (f" ({error.hint})" if error.hint else ""))]
    with conn:
        patient = _look(conn, dsn, tables, slot, publication)
        return [finding for check in CHECKS for finding in check(patient)]


def _look(
    conn: psycopg.Connection[Any], dsn: str, patterns: Sequence[str], slot: str | None, publication: str | None
) -> Patient:
    sent = time.time()
    server = Capabilities.of(conn)
    came = time.time()
    ahead = server.clock - min(max(server.clock, sent), came)
    infos = find_tables(conn, patterns)
    shapes = [
        describe(conn, i.oid, generated=server.version >= 180000)
        for i in infos
        if i.ignored is None and i.problem is None
    ]
    slots = slot_states(conn, slot or "claimhouse_%")
    return Patient(conn, dsn, server, ahead, infos, shapes, slots, publication)


def version(p: Patient) -> list[Finding]:
    major, minor = p.server.version // 10000, p.server.version % 10000
    if major < min(FLOORS):
        return [
            Finding("error", "version", "server", f"PostgreSQL {p.server.version_text} is older than 14: upgrade it")
        ]
    floor = FLOORS.get(major, 0)
    if minor < floor:
        message = f"PostgreSQL {p.server.version_text} lacks fixes of {major}.{floor}: take the newest minor release"
        return [Finding("warn", "version", "server", message)]
    return [Finding("ok", "version", "server", f"PostgreSQL {p.server.version_text}")]


def wal_level(p: Patient) -> list[Finding]:
    if p.server.wal_level != "logical":
        sql = f"ALTER SYSTEM SET wal_level = 'logical';\n{RESTART}"
        return [Finding("error", "wal_level", "server", f"wal_level is {p.server.wal_level}, and must be logical", sql)]
    found = [Finding("ok", "wal_level", "server", "wal_level is logical")]
    if p.server.is_standby:
        found.append(Finding("error", "standby", "server", "this is a hot standby: name the primary as the source"))
    return found


def room(p: Patient) -> list[Finding]:
    """Slots and senders: one of each is needed, unless ours is there already."""
    found = []
    for what, setting, free, total, needed in (
        ("slots", "max_replication_slots", p.server.slots_free, p.server.slots, not p.slots),
        ("senders", "max_wal_senders", p.server.senders_free, p.server.senders, not any(s.active_pid for s in p.slots)),
    ):
        if free < 1 and needed:
            sql = f"ALTER SYSTEM SET {setting} = {total + 4};\n{RESTART}"
            found.append(Finding("error", what, "server", f"no replication {what[:-1]} of {total} is free", sql))
        else:
            found.append(Finding("ok", what, "server", f"{free} of {total} replication {what} free"))
    return found


def rights(p: Patient) -> list[Finding]:
    role = quoted(p.server.role)
    if not p.server.replication:
        sql = f"ALTER ROLE {role} REPLICATION;"
        return [Finding("error", "replication", p.server.role, "the role may not read the WAL", sql)]
    try:
        connect(p.dsn, replication=True).close()
    except ClaimhouseError as error:
        hint = "pg_hba.conf needs a line for this role and database; `replication` as database name is not needed"
        return [Finding("error", "replication", p.server.role, f"{error} ({hint})")]
    return [Finding("ok", "replication", p.server.role, "the role may read the WAL")]


def plugins(p: Patient) -> list[Finding]:
    listed = p.server.output_plugin_libraries
    if listed is None or "pgoutput" in [word.strip() for word in listed.split(",")]:
        return []
    both = ", ".join(filter(None, [listed, "pgoutput"]))
    sql = f"ALTER SYSTEM SET output_plugin_libraries = '{both}';\n{RELOAD}"
    return [Finding("error", "output_plugins", "server", "output_plugin_libraries does not allow pgoutput", sql)]


def encoding(p: Patient) -> list[Finding]:
    if p.server.encoding != "SQL_ASCII":
        return []
    message = "the database's encoding is SQL_ASCII: bytes that are not UTF-8 make a table errored"
    return [Finding("warn", "encoding", p.server.database, message)]


def tables(p: Patient) -> list[Finding]:
    """What is not captured, and why."""
    found = []
    for info in p.infos:
        if info.problem or info.ignored:
            level: Level = "error" if info.problem else "warn"
            found.append(Finding(level, "table", info.label, info.problem or info.ignored or "", _ended(info.sql)))
    if not p.tables:
        found.append(Finding("error", "table", p.server.database, "there is no table to capture"))
    return found


def identity(p: Patient) -> list[Finding]:
    """Whether UPDATE and DELETE of each table can be captured."""
    found = [_identity(p, table) for table in p.tables if table.identity != "key"]
    keyed = len(p.tables) - len(found)
    if keyed:
        found.append(Finding("ok", "identity", p.server.database, f"{keyed} tables have a key"))
    return found


def _identity(p: Patient, table: Table) -> Finding:
    if table.identity == "full":
        message = "no key: rows are told apart by all their columns, which is slow; a primary key would help"
        return Finding("info", "identity", table.label, message)
    leaves = p.conn.execute(_LEAVES, [table.oid, table.oid]).fetchall()
    mend = [
        f"ALTER TABLE {quoted(*leaf)} REPLICA IDENTITY {'DEFAULT' if has_key else 'FULL'};" for *leaf, has_key in leaves
    ]
    message = "no usable replica identity: append-only, neither UPDATE nor DELETE is captured"
    return Finding("warn", "identity", table.label, message, "\n".join(mend))


_LEAVES = """
SELECT n.nspname::text, c.relname::text,
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE (c.oid = %s OR c.oid IN (SELECT relid FROM pg_partition_tree(%s) WHERE isleaf)) AND c.relkind = 'r'
ORDER BY 1, 2
"""


def published(p: Patient) -> list[Finding]:
    """Whether the publications are there, or ours to make; and what they leave out."""
    name = p.publication or (p.slots[0].name if p.slots else "claimhouse")
    try:
        statements = plan(p.conn, name, p.tables, generated=p.server.version >= 180000)
    except NotReady as error:
        return [Finding("error", "publication", name, str(error), error.hint)]
    found = _narrowed(p, name)
    if not statements:
        return [*found, Finding("ok", "publication", name, "all tables are published")]
    foreign = p.conn.execute(_OTHERS_TABLES, [[t.oid for t in p.tables]]).fetchall()
    if p.server.may_create and not foreign:
        return [*found, Finding("info", "publication", name, "`run` will publish what is not published yet")]
    whose = f"tables of {', '.join(owner for (owner,) in foreign)}" if foreign else "a publication here"
    message = f"the role may not publish {whose}: once this is run, name it by --publication {name}"
    return [*found, Finding("error", "publication", name, message, "".join(f"{s};\n" for s in statements).strip())]


def _narrowed(p: Patient, name: str) -> list[Finding]:
    with explained("reading the publication's tables"):
        rows = p.conn.execute(_NARROWED, [name]).fetchall() if p.server.version >= 150000 else []
    return [
        Finding(
            "warn",
            "publication",
            f"{schema}.{table}",
            f"publication {name} leaves out rows or columns: the lake cannot equal the table",
            f"ALTER PUBLICATION {quoted(name)} DROP TABLE {quoted(schema, table)};\n"
            f"ALTER PUBLICATION {quoted(name)} ADD TABLE {quoted(schema, table)};",
        )
        for schema, table in rows
    ]


_OTHERS_TABLES = """
SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
WHERE c.oid = ANY (%s) AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""
_NARROWED = """
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = %s AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)
"""


def wal_bound(p: Patient) -> list[Finding]:
    if p.server.max_slot_wal_keep_mb >= 0:
        bound = f"a slot may hold back {p.server.max_slot_wal_keep_mb} MB of WAL, then it is lost: keep `run` up"
        return [Finding("ok", "wal_bound", "server", bound)]
    sql = f"ALTER SYSTEM SET max_slot_wal_keep_size = '{SUGGESTED_BOUND}';\n{RELOAD}"
    message = "max_slot_wal_keep_size has no bound: a slot that nobody reads fills the server's disk"
    return [Finding("warn", "wal_bound", "server", message, sql)]


def slots(p: Patient) -> list[Finding]:
    """How our slots are: lost, soon lost, or holding back WAL unread."""
    return [_slot(slot) for slot in p.slots]


def _slot(slot: SlotState) -> Finding:
    drop = f"SELECT pg_drop_replication_slot('{slot.name}');"
    held = f"{(slot.retained_bytes or 0) / 1e6:,.0f} MB of WAL"
    if slot.wal_status == "lost" or slot.invalidation_reason:
        why = f" ({slot.invalidation_reason})" if slot.invalidation_reason else ""
        return Finding("error", "slot", slot.name, f"lost{why}: what was committed since is not in the lake", drop)
    if slot.wal_status == "unreserved":
        return Finding("error", "slot", slot.name, f"about to be lost, {held} behind: start `run` now", RELOAD)
    if slot.active_pid is None:
        since = f" since {slot.inactive_since}" if slot.inactive_since else ""
        message = f"nobody reads it{since}; it holds back {held}: start `run`, or `claimhouse detach`"
        return Finding("warn", "slot", slot.name, message, drop)
    margin = f", {slot.safe_wal_size / 1e6:,.0f} MB until it is lost" if slot.safe_wal_size is not None else ""
    return Finding("ok", "slot", slot.name, f"read by server process {slot.active_pid}, holds {held}{margin}")


def failover(p: Patient) -> list[Finding]:
    if not p.server.has_failover_slots:
        return []
    found = []
    for slot in p.slots:
        if slot.failover and not p.server.synchronized_standby_slots:
            message = "a failover slot without synchronized_standby_slots: the lake may run ahead of a promoted standby"
            sql = f"ALTER SYSTEM SET synchronized_standby_slots = '<the physical slots of the standbys>';\n{RELOAD}"
            found.append(Finding("warn", "failover", slot.name, message, sql))
        elif not slot.failover:
            found.append(Finding("info", "failover", slot.name, "the slot does not survive a failover to a standby"))
    return found


def clock(p: Patient) -> list[Finding]:
    if abs(p.clock_ahead) < CLOCK_SECONDS:
        return [Finding("ok", "clock", "server", "the server's clock agrees with this machine's")]
    way = "ahead of" if p.clock_ahead > 0 else "behind"
    message = f"the server's clock is {abs(p.clock_ahead):.1f} s {way} this machine's: shown lags are off by as much"
    return [Finding("warn", "clock", "server", message)]


def memory(p: Patient) -> list[Finding]:
    if p.server.decoding_work_mem_kb > 65536:
        return []
    message = (
        f"logical_decoding_work_mem is {p.server.decoding_work_mem_kb // 1024} MB: larger transactions spill to disk"
    )
    sql = f"ALTER SYSTEM SET logical_decoding_work_mem = '256MB';\n{RELOAD}"
    return [Finding("info", "memory", "server", message, sql)]


def told_ddl(p: Patient) -> list[Finding]:
    if ddl_trigger.installed(p.conn):
        return [Finding("ok", "ddl", p.server.database, "DDL is told in the stream")]
    message = "DDL is not told in the stream: moments between one and its noticing are not known exactly (optional)"
    return [Finding("info", "ddl", p.server.database, message, ddl_trigger.install_sql().strip())]


CHECKS: tuple[Callable[[Patient], list[Finding]], ...] = (
    version,
    wal_level,
    room,
    rights,
    plugins,
    encoding,
    tables,
    identity,
    published,
    wal_bound,
    slots,
    failover,
    clock,
    memory,
    told_ddl,
)


def _ended(sql: str | None) -> str | None:
    return f"{sql.rstrip(';')};" if sql else None
