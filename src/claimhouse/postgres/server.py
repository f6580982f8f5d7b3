"""How we speak to a PostgreSQL server: one way to connect, one place that asks what it can do and reads its errors.

Every session reads values in the same spelling whatever a role or a database has set (SESSION), resolves no name by
a search path, and gives up its locks soon. What the server says is turned into our errors here: broken connections are
worth trying again, refusals are not, and nothing shows a password or a row's value.

Positions are `int` (change.lsn_text prints them). Transaction ids on the wire have 32 bits; `Xids` finds all 64.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import namedtuple_row

from claimhouse.change import parse_lsn
from claimhouse.errors import ClaimhouseError, NotReady, SettingsError, SlotBusy, SourceError, SourceGone

SESSION: dict[str, str] = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    # A serializable reader can make transactions of the application fail.
    "default_transaction_isolation": "read committed",
    "row_security": "off",  # a policy that would hide rows is an error instead
    "search_path": "",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "0",
    "lock_timeout": "20s",
    "statement_timeout": "0",
}
_LINK = {
    "application_name": "claimhouse",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
_OURS = ("application_name", "client_encoding")  # the rest of _LINK gives way to what the DSN says

# A failed connection tells no SQLSTATE, only text: these are worth no second try.
_REFUSED = re.compile(
    r"authentication(?! due to timeout)|no pg_hba.conf entry|does not exist|not permitted to log in|no password"
    r"|permission denied|certificate|does not support SSL|definition of service|invalid (connection|port)|must be ",
    re.IGNORECASE,
)


def connect(
    dsn: str, *, replication: bool = False, autocommit: bool = True, settings: Mapping[str, str] | None = None
) -> psycopg.Connection[Any]:
    """A connection with SESSION and `settings` in force; with `replication` one that also takes replication commands.

    `dsn` is a libpq URI, `key=value` words, `service=name`, or '' for the PG* variables. Such a connection speaks the
    simple protocol only. Raises SettingsError (malformed), SourceError (refused), SourceGone (not reachable now).
    """
    given = _parsed(dsn)
    link = {k: v for k, v in _LINK.items() if k in _OURS or k not in given}
    if replication:
        link["replication"] = "database"
    try:
        conn = psycopg.connect(
            make_conninfo(dsn, **link),
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor if replication else psycopg.Cursor,
        )
    except psycopg.Error as error:
        raise _unconnected(error, dsn) from None
    except UnicodeError:
        raise SettingsError("the DSN's host cannot be a host's name") from None
    with explained("setting up the session"):
        newer = {"transaction_timeout": "0"} if conn.info.server_version >= 170000 else {}
        statements = [_set(name, value) for name, value in {**SESSION, **newer, **(settings or {})}.items()]
        conn.execute(sql.SQL("; ").join(statements))
        conn.autocommit = autocommit
    return conn


def shown(dsn: str) -> str:
    """The DSN as it may be shown: who and where, never a password."""
    try:
        given = _parsed(dsn)
    except SettingsError:
        return "(a malformed DSN)"
    words = {k: given[k] for k in ("service", "user", "host", "port", "dbname") if k in given}
    return make_conninfo("", **words) or "the server that the PG* variables name"


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what psycopg raises inside into our errors; `doing` says what failed, e.g. "creating the slot"."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, doing) from error


def explain(error: psycopg.Error, doing: str) -> ClaimhouseError:
    """Our error for one of psycopg's; see errors.py for the kinds."""
    state = error.sqlstate or ""
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not state:
        return SourceGone(f"the connection to PostgreSQL broke while {doing}")
    # Classes 22 and 23 quote values of rows.
    said = f"SQLSTATE {state}" if state[:2] in ("22", "23") else (error.diag.message_primary or str(error))
    message = f"{doing} failed: {said}"
    hint = error.diag.message_hint
    if state[:2] in ("08", "40") or state in ("57P01", "57P02", "57P03", "57P05", "53300", "55P03", "57014", "25P03"):
        return SourceGone(message, hint=hint)
    if state == "55006":
        return SlotBusy(message, hint=hint or "stop the other reader, or give this one another --source name")
    if state in ("42501", "53400", "55000", "0A000"):
        return NotReady(message, hint=hint or "claimhouse doctor names what is missing, with the SQL that mends it")
    return SourceError(message, hint=hint)


def branched_at(dsn: str, timeline: int, earlier: int) -> int | None:
    """Where the server's timeline left an earlier one, None where it does not come from that. Needs REPLICATION."""
    if timeline < earlier:
        return None
    with connect(dsn, replication=True) as conn, explained("reading the timeline's history"):
        row = conn.execute(f"TIMELINE_HISTORY {int(timeline)}".encode()).fetchone()
    text = row[1] if row is not None else ""
    lines = (text.decode() if isinstance(text, bytes) else text).splitlines()
    found = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return next((parse_lsn(words[1]) for words in found if words[0] == str(earlier)), None)


def current_lsn(conn: psycopg.Connection[Any]) -> int:
    """The insert position: everything committed before this call lies below it."""
    with explained("reading the WAL position"):
        row = conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server is and has, and what our role may do there; asked once, by `of`."""

    version: int  # 180006
    version_text: str
    database: str
    encoding: str
    role: str
    superuser: bool
    replication: bool  # may start a walsender
    may_create: bool  # has CREATE in the database, as publications need
    wal_level: str
    is_standby: bool
    system_id: str
    timeline: int
    slots: int
    slots_used: int
    senders: int
    senders_used: int
    max_slot_wal_keep_mb: int  # -1: without bound
    decoding_work_mem_kb: int
    output_plugin_libraries: str | None  # None: no such setting, or hidden from our role
    synchronized_standby_slots: str | None
    clock: float  # the server's, seconds since 1970

    @property
    def has_failover_slots(self) -> bool:
        return self.version >= 170000

    @property
    def slots_free(self) -> int:
        return self.slots - self.slots_used

    @property
    def senders_free(self) -> int:
        return self.senders - self.senders_used

    @classmethod
    def of(cls, conn: psycopg.Connection[Any]) -> Capabilities:
        """Ask the server. Raises SourceError."""
        with explained("asking what the server can do"), conn.cursor(row_factory=namedtuple_row) as cursor:
            row = cursor.execute(_CAPABILITIES).fetchone()
            assert row is not None
            return cls(**row._asdict())


# The timeline of the last checkpoint lags behind a promotion; a primary's WAL file name does not.
_CAPABILITIES = """
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS version_text,
       current_database()::text AS database, current_setting('server_encoding') AS encoding,
       current_user::text AS role, r.rolsuper AS superuser,
       r.rolsuper OR r.rolreplication OR EXISTS (
           SELECT FROM pg_catalog.pg_roles m
           WHERE m.rolname IN ('rds_replication', 'cloudsqlsuperuser', 'azure_pg_admin')
           AND pg_has_role(current_user, m.oid, 'USAGE')) AS replication,
       has_database_privilege(current_database(), 'CREATE') AS may_create,
       current_setting('wal_level') AS wal_level, pg_is_in_recovery() AS is_standby,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_id,
       CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END AS timeline,
       current_setting('max_replication_slots')::int AS slots,
       (SELECT count(*)::int FROM pg_catalog.pg_replication_slots) AS slots_used,
       current_setting('max_wal_senders')::int AS senders,
       (SELECT count(*)::int FROM pg_catalog.pg_stat_replication) AS senders_used,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size') AS max_slot_wal_keep_mb,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'logical_decoding_work_mem')
           AS decoding_work_mem_kb,
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'output_plugin_libraries') AS output_plugin_libraries,
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'synchronized_standby_slots')
           AS synchronized_standby_slots,
       extract(epoch FROM clock_timestamp())::float8 AS clock
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""


class Xids:
    """64-bit transaction ids from the 32 bits on the wire: of all that end in these, the one nearest to a reference.

    The reference starts at the server's next id and moves forward with what is seen. Right as long as the WAL read lies
    less than 2^31 transactions behind it, which PostgreSQL's own wraparound limit ensures.
    """

    def __init__(self, reference: int) -> None:
        self.reference = reference

    @classmethod
    def of(cls, conn: psycopg.Connection[Any]) -> Xids:
        with explained("reading the transaction counter"):
            row = conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        assert row is not None
        return cls(int(row[0]))

    def extend(self, xids: np.ndarray) -> np.ndarray:
        """uint32[n] → int64[n]."""
        if not len(xids):
            return np.empty(0, np.int64)
        low = np.asarray(xids, np.uint32)
        away = (low - np.uint32(self.reference & 0xFFFFFFFF)).view(np.int32).astype(np.int64)
        full = away + self.reference
        full[full < 0] += 1 << 32
        self.reference = max(self.reference, int(full.max()))
        return full


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What pg_current_snapshot() printed: `xmin:xmax:xip,…`, all 64-bit."""

    xmin: int
    xmax: int
    xip: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Raises ValueError."""
        xmin, xmax, xip = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(x) for x in xip.split(",") if x))

    def sees(self, xids: np.ndarray) -> np.ndarray:
        """int64[n] → bool[n]: whether the work of these committed transactions is visible in the snapshot."""
        running = np.isin(xids, np.asarray(self.xip, np.int64))
        return (xids < self.xmin) | ((xids < self.xmax) & ~running)

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.xip))}"


def _parsed(dsn: str) -> dict[str, Any]:
    try:
        return {k: v for k, v in conninfo_to_dict(dsn).items() if v is not None}
    except psycopg.Error:  # libpq quotes the text it stumbles over, which may be a password
        raise SettingsError(
            "the DSN is malformed", hint="postgresql://user@host:5432/database, or host=… dbname=…, or service=…"
        ) from None


def _set(name: str, value: str) -> sql.Composed:
    return sql.SQL("SET {} = {}").format(sql.SQL(name), sql.Literal(value))  # type: ignore[arg-type]


def _unconnected(error: psycopg.Error, dsn: str) -> ClaimhouseError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = next((line for line in lines if "FATAL:" in line), lines[0]).rpartition("FATAL:")[2].strip()
    message = f"cannot connect to {shown(dsn)}: {said}"
    if isinstance(error, psycopg.errors.ConnectionTimeout) or not _REFUSED.search(str(error)):
        return SourceGone(message, hint="is the server running, and reachable from here?")
    hint = "check user, password (PGPASSWORD, a passfile or a service file) and pg_hba.conf"
    if "WAL sender" in str(error) or "replication" in str(error):
        hint = "as superuser: ALTER ROLE <the role> REPLICATION"
        return NotReady(message, hint=hint)
    return SourceError(message, hint=hint)
