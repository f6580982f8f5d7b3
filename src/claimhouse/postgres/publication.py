"""What lets the WAL be read: publications, and the slot that holds it back for us.

A table goes into the publication `name` only if PostgreSQL can say which row an UPDATE or DELETE is about; else the
application's own UPDATE and DELETE would fail there. Tables without a usable identity go into `name_append`, which
publishes inserts and truncates alone. `ensure` looks at the identities that tables have now, whatever it was told: one
that lost its own is moved. What a DBA published by FOR ALL TABLES or by schema is taken as it is; options of a
publication that is not ours (its name does not begin with `claimhouse_`) are never changed, for it may have other
readers and tables.

Both publications are made before the slot: the stream reads the catalog as it was at each position, and a publication
that did not exist there ends it. Where our role may not do something, nothing is done by halves: NotReady holds the
whole script for one who may.

A slot holds back WAL on the source's disk until it is read or dropped: `detach` takes away all that we put there.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from claimhouse.errors import NotReady, SlotBusy, SourceError, SourceGone, SourceLost
from claimhouse.postgres import ddl_trigger
from claimhouse.postgres.catalog import describe_all
from claimhouse.postgres.server import explain, explained
from claimhouse.table import Table, encode_name

FULL_ACTIONS = "insert, update, delete, truncate"
APPEND_ACTIONS = "insert, truncate"
TRIES = 5
_WENT = ("3F000", "42P01", "42704", "42710")  # a schema, a table, its membership: by a DDL since the catalog was read


def default_name(source: str, lake_id: str) -> str:
    """What slot and publication are called unless set: letters, digits and underscores, at most 52 of them."""
    name = encode_name(source)
    if len(name) > 32:
        name = f"{name[:23]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"claimhouse_{name}_{lake_id[:8]}"


def append_name(name: str) -> str:
    """The publication of the tables without a usable identity, beside `name`."""
    return f"{name[:56]}_append"


def is_ours(publication: str) -> bool:
    """Whether its options are ours to change, and itself ours to drop."""
    return publication.startswith("claimhouse_")


def sends_generated(conn: psycopg.Connection[Any], name: str) -> bool:
    """Whether rows of that publication come with their stored generated columns: PostgreSQL 18 can be asked to.

    One of ours is asked to as soon as it is made or looked after (`ensure`); another's is taken as it is.
    """
    if conn.info.server_version < 180000:
        return False
    with explained("reading the publications"):
        return is_ours(name) or _Publication.read(conn, name).generated


def ensure(conn: psycopg.Connection[Any], name: str, tables: Sequence[Table], *, generated: bool = False) -> list[str]:
    """Publish the tables under `name`; the publications to stream from. Needs autocommit.

    `generated`: with their stored generated columns, where the publication is ours (see `sends_generated`).
    In one transaction, which no row of the application waits for. Raises NotReady with the script where our role may
    not, SourceError, SourceGone.
    """
    for _ in range(TRIES):
        statements = plan(conn, name, tables, generated=generated)
        try:
            with explained(f"publishing {len(tables)} tables"), conn.transaction():
                for statement in statements:
                    conn.execute(statement.encode())
            break
        except NotReady as error:
            script = "".join(f"{s};\n" for s in statements)
            raise NotReady(str(error), hint=f"let the tables' owner or a superuser run:\n{script}") from error
        except SourceError as error:
            cause = error.__cause__
            if not isinstance(cause, psycopg.Error) or cause.sqlstate not in _WENT:
                raise
    else:
        raise SourceGone(f"the tables changed faster than they could be published under {name}")
    return [p for p in (name, append_name(name)) if _exists(conn, p)]


def plan(conn: psycopg.Connection[Any], name: str, tables: Sequence[Table], *, generated: bool = False) -> list[str]:
    """The statements that `ensure` would run: none where all is as it must be."""
    tables = list(describe_all(conn, [t.oid for t in tables], generated=generated).values())
    with explained("reading the publications"):
        full, append = _Publication.read(conn, name), _Publication.read(conn, append_name(name))
        tables_only = _without_partitions(conn, tables)
    keyed = [t for t in tables if t.identity != "none"]
    keyless = [t for t in tables if t.identity == "none"]
    lost = [t for t in keyless if t.oid in full.direct]
    narrowed = [t for t in keyed if t.oid in full.narrowed] if is_ours(name) else []
    return [
        *full.options(FULL_ACTIONS if keyed else "", tables_only, generated),
        *append.options(APPEND_ACTIONS, tables_only, generated),
        *full.without([*lost, *narrowed]),
        *append.without([t for t in keyed if t.oid in append.direct]),
        *full.having(keyed, FULL_ACTIONS, True, generated, anew=narrowed),
        *append.having(
            [t for t in keyless if t in lost or t.oid not in full.members], APPEND_ACTIONS, not full.exists, generated
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Publication:
    """`direct` are the oids of tables published one by one, `narrowed` those of them with a row filter or a column
    list, `members` of all published, as their roots."""

    name: str
    exists: bool
    actions: frozenset[str] = frozenset()
    via_root: bool = False
    direct: frozenset[int] = frozenset()
    members: frozenset[int] = frozenset()
    narrowed: frozenset[int] = frozenset()
    generated: bool = False

    @classmethod
    def read(cls, conn: psycopg.Connection[Any], name: str) -> _Publication:
        row = conn.execute(_PUBLICATION, {"name": name}).fetchone()
        if row is None:
            return cls(name, False)
        return cls(name, True, frozenset(row[0]), row[1], *map(frozenset, row[2:5]), generated=row[5])

    def without(self, tables: Sequence[Table]) -> list[str]:
        return [f"ALTER PUBLICATION {quoted(self.name)} DROP TABLE {_list(tables)}"] if tables else []

    def options(self, actions: str, tables_only: bool, generated: bool) -> list[str]:
        """What sets actions and the view of partitions as must be. Raises NotReady where that is not ours to do."""
        wrong = []
        if self.exists and not self.via_root and not tables_only:
            wrong.append(f"ALTER PUBLICATION {quoted(self.name)} SET (publish_via_partition_root = true)")
        if self.exists and set(filter(None, actions.split(", "))) - self.actions:
            wrong.append(f"ALTER PUBLICATION {quoted(self.name)} SET (publish = '{actions}')")
        if self.exists and generated and not self.generated and is_ours(self.name):
            wrong.append(f"ALTER PUBLICATION {quoted(self.name)} SET (publish_generated_columns = stored)")
        if wrong and not is_ours(self.name):
            script = "".join(f"{s};\n" for s in wrong)
            hint = f"if its other readers and tables allow, or else choose another publication:\n{script}"
            raise NotReady(f"publication {self.name} does not publish what a lake needs", hint=hint)
        return wrong

    def having(
        self, tables: Sequence[Table], actions: str, wanted: bool, generated: bool, anew: Sequence[Table] = ()
    ) -> list[str]:
        """What publishes the tables, those of `anew` again; it is made without any if it is `wanted` all the same."""
        if not self.exists:
            if not tables and not wanted:
                return []
            these = f" FOR TABLE {_list(tables)}" if tables else ""
            options = f"publish = '{actions}', publish_via_partition_root = true"
            if generated:
                options += ", publish_generated_columns = stored"
            return [f"CREATE PUBLICATION {quoted(self.name)}{these} WITH ({options})"]
        new = [t for t in tables if t.oid not in self.members or t in anew]
        return [f"ALTER PUBLICATION {quoted(self.name)} ADD TABLE {_list(new)}"] if new else []


_PUBLICATION = """
SELECT array_remove(ARRAY[CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
                          CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END], NULL),
       p.pubviaroot,
       ARRAY(SELECT r.prrelid::bigint FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid),
       ARRAY(SELECT coalesce(pg_partition_root(c.oid)::oid, c.oid)::bigint FROM pg_catalog.pg_publication_tables t
             JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
             WHERE t.pubname = p.pubname
             UNION SELECT r.prrelid::bigint FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid),
       ARRAY(SELECT r.prrelid::bigint FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid
             AND coalesce(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') IS NOT NULL),
       coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false)
FROM pg_catalog.pg_publication p WHERE p.pubname = %(name)s
"""


def coverage(conn: psycopg.Connection[Any], name: str, oids: Collection[int]) -> dict[int, str]:
    """What publishes each of the tables, as a word that moves with any change of it; '' where nothing does.

    A table that was taken out of its publication, or a publication that was made again, brought no changes meanwhile:
    from PostgreSQL 18 on the server says nothing of that to the reader.
    """
    members = [_DIRECT_MEMBERS, *([_SCHEMA_MEMBERS] if conn.info.server_version >= 150000 else [])]
    query = _COVERAGE.format(members=" UNION ALL ".join(members))
    with explained("reading the publications"):
        rows = conn.execute(query.encode(), {"oids": list(oids), "names": [name, append_name(name)]}).fetchall()
    return dict(rows)


_COVERAGE = """
WITH asked AS (SELECT unnest(%(oids)s::oid[]) AS oid),
member AS MATERIALIZED (
  SELECT p.oid AS publication, p.xmin, m.relation, m.word FROM pg_catalog.pg_publication p JOIN (
    SELECT oid AS publication, NULL::oid AS relation, 'all' AS word FROM pg_catalog.pg_publication WHERE puballtables
    UNION ALL {members}) m ON m.publication = p.oid
  WHERE p.pubname = ANY (%(names)s)),
above AS (
  SELECT oid, oid AS relation FROM asked
  UNION SELECT asked.oid, a.relid FROM asked, pg_partition_ancestors(asked.oid) a)
SELECT asked.oid::bigint,
       coalesce(string_agg(concat_ws(' ', f.publication, f.xmin, f.word), ', ' ORDER BY f.publication, f.word), '')
FROM asked LEFT JOIN (
  SELECT above.oid, m.publication, m.xmin, m.word FROM above JOIN member m ON m.relation = above.relation
  UNION ALL SELECT asked.oid, m.publication, m.xmin, m.word FROM asked, member m WHERE m.relation IS NULL) f
ON f.oid = asked.oid
GROUP BY asked.oid
"""
_DIRECT_MEMBERS = """
SELECT prpubid, prrelid, concat_ws(' ', 'table', oid, xmin) FROM pg_catalog.pg_publication_rel"""
_SCHEMA_MEMBERS = """
SELECT n.pnpubid, c.oid, concat_ws(' ', 'schema', n.oid, n.xmin) FROM pg_catalog.pg_publication_namespace n
JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid"""


@dataclass(frozen=True, slots=True)
class SlotState:
    """What the server says of a slot. Positions and sizes in bytes; None where its version does not tell.

    `retained_bytes` of WAL are held back by it, `behind_bytes` are not confirmed. `wal_status`: reserved, extended,
    unreserved (about to be lost), lost. `inactive_since` is ISO 8601.
    """

    name: str
    plugin: str
    database: str
    active_pid: int | None
    confirmed_flush_lsn: int | None
    restart_lsn: int | None
    wal_status: str | None
    safe_wal_size: int | None
    retained_bytes: int | None
    behind_bytes: int | None
    inactive_since: str | None = None
    invalidation_reason: str | None = None
    failover: bool = False


def slot_state(conn: psycopg.Connection[Any], slot: str) -> SlotState | None:
    """The state of the slot, None if there is none of that name."""
    return next(iter(slot_states(conn, slot)), None)


def slot_states(conn: psycopg.Connection[Any], like: str) -> list[SlotState]:
    """The states of our database's slots with that name; `%` stands for any characters."""
    pattern = like.replace("\\", "\\\\").replace("_", "\\_")
    with explained("reading the slots"):
        rows = conn.execute(_SLOTS, [pattern]).fetchall()
    return [SlotState(**row[0]) for row in rows]


_SLOTS = """
SELECT jsonb_build_object(
  'name', slot_name, 'plugin', plugin, 'database', database, 'active_pid', active_pid,
  'confirmed_flush_lsn', (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint,
  'restart_lsn', (restart_lsn - '0/0'::pg_lsn)::bigint, 'wal_status', wal_status, 'safe_wal_size', safe_wal_size,
  'retained_bytes', greatest(here - restart_lsn, 0)::bigint,
  'behind_bytes', greatest(here - confirmed_flush_lsn, 0)::bigint,
  'inactive_since', to_jsonb(s) ->> 'inactive_since', 'invalidation_reason', to_jsonb(s) ->> 'invalidation_reason',
  'failover', coalesce((to_jsonb(s) ->> 'failover')::bool, false))
FROM pg_catalog.pg_replication_slots s
CROSS JOIN LATERAL (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                ELSE pg_current_wal_insert_lsn() END AS here) position
WHERE slot_name LIKE %s AND slot_type = 'logical' ORDER BY slot_name
"""


def ensure_slot(
    conn: psycopg.Connection[Any],
    slot: str,
    *,
    failover: bool = False,
    waiting: Callable[[float], None] | None = None,
) -> int:
    """Make the slot if there is none; the position that it begins at, or that was last confirmed. Needs autocommit.

    PostgreSQL makes it only once all transactions that run now have ended: `waiting` is told each second for how long
    that has been waited for, may raise to give up, and must not use `conn`. `failover` (17 and newer): standbys keep
    it as well.
    Raises NotReady, SourceError (another's slot of that name), SourceLost (it is lost), SourceGone.
    """
    found = slot_state(conn, slot)
    if found is None:
        return _create_slot(conn, slot, failover, waiting)
    row = conn.execute("SELECT current_database()").fetchone()
    if found.plugin != "pgoutput" or row is None or found.database != row[0]:
        raise SourceError(
            f"slot {slot} is another's: {found.plugin} of database {found.database}", hint="choose another --slot"
        )
    insist_made(slot, found)
    if found.wal_status == "lost" or found.confirmed_flush_lsn is None:
        raise SourceLost(f"slot {slot} has lost its WAL", hint=f"detach it, then start anew: {_drop(slot)}")
    return found.confirmed_flush_lsn


def insist_made(slot: str, found: SlotState) -> None:
    """Raises SourceGone while the server still makes the slot: where it begins is not known before.

    A run was killed meanwhile; the making goes on until the transactions that it waits for have ended.
    """
    if found.confirmed_flush_lsn is None and found.active_pid is not None:
        raise SourceGone(f"slot {slot} is still being made by server process {found.active_pid}")


def drop_slot(conn: psycopg.Connection[Any], slot: str) -> None:
    """Take the slot away, and with it what it holds back. Needs autocommit. Raises SourceError."""
    with explained(f"dropping slot {slot}"):
        conn.execute("SELECT pg_drop_replication_slot(%s)", [slot])


def _create_slot(
    conn: psycopg.Connection[Any], slot: str, failover: bool, waiting: Callable[[float], None] | None
) -> int:
    more = ", failover => true" if failover and conn.info.server_version >= 170000 else ""
    statement = f"SELECT lsn - '0/0'::pg_lsn FROM pg_create_logical_replication_slot(%s, 'pgoutput'{more})"
    done: list[int | psycopg.Error] = []

    def create() -> None:
        try:
            row = conn.execute(statement.encode(), [slot]).fetchone()
            done.append(int(row[0]) if row else 0)
        except psycopg.Error as error:
            done.append(error)

    worker = threading.Thread(target=create, name="create-slot", daemon=True)
    worker.start()
    seconds = 0
    try:
        while worker.join(1.0) is None and worker.is_alive():
            seconds += 1
            if waiting is not None:
                waiting(float(seconds))
    except BaseException:
        while worker.is_alive():  # a half-made slot goes with its command
            with suppress(psycopg.Error):
                conn.cancel_safe()
            worker.join(0.2)
        raise
    if isinstance(done[0], int):
        return done[0]
    raise _slot_refused(done[0], slot) from done[0]


def _slot_refused(error: psycopg.Error, slot: str) -> Exception:
    hints = {
        "42501": "as superuser: ALTER ROLE <the role> REPLICATION",
        "55000": "ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
        "53400": "drop a slot that nobody needs, or: ALTER SYSTEM SET max_replication_slots = 20; then restart",
    }
    if error.sqlstate in hints:
        return NotReady(f"slot {slot} cannot be made: {error.diag.message_primary}", hint=hints[error.sqlstate])
    return explain(error, f"creating slot {slot}")


def detach(
    conn: psycopg.Connection[Any], slot: str, publication: str | None = None, *, dry_run: bool = True
) -> list[str]:
    """Take away slot, publications and, with the last of our slots, the DDL trigger; the statements (to be) run.

    `publication` is called as the slot unless given; one that is not ours stays. Needs autocommit.
    Raises SlotBusy while the slot is read, NotReady with what is left to do where our role may not.
    """
    found = slot_state(conn, slot)
    if found is not None and found.active_pid is not None and not dry_run:
        raise SlotBusy(f"slot {slot} is being read by server process {found.active_pid}", hint="stop `run` first")
    statements = [_drop(slot)] if found is not None else []
    publication = publication or slot
    ours = (publication, append_name(publication)) if is_ours(publication) else ()
    statements += [f"DROP PUBLICATION {quoted(p)}" for p in ours if _exists(conn, p)]
    here = conn.info.dbname  # the triggers are this database's; another's slots have no need of them
    others = [s for s in slot_states(conn, "claimhouse_%") if s.name != slot and s.database == here]
    triggers = conn.execute(
        "SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = ANY (%s)", [[*ddl_trigger.TRIGGERS]]
    )
    if triggers.fetchone() is not None and not others:
        statements += [line.rstrip(";") for line in ddl_trigger.remove_sql().splitlines()]
    if not dry_run:
        _run(conn, statements)
    return statements


def _run(conn: psycopg.Connection[Any], statements: Sequence[str]) -> None:
    refused: list[str] = []
    for statement in statements:
        try:
            with explained(f"running {statement}"):
                conn.execute(statement.encode())
        except NotReady:
            refused.append(statement)
    if refused:
        script = "".join(f"{s};\n" for s in refused)
        raise NotReady("our role may not take everything away", hint=f"let the owner or a superuser run:\n{script}")


def quoted(*names: str) -> str:
    """An identifier for SQL, dotted if of several names."""
    return sql.Identifier(*names).as_string(None)


def _without_partitions(conn: psycopg.Connection[Any], tables: Sequence[Table]) -> bool:
    query = "SELECT FROM pg_catalog.pg_class WHERE relkind = 'p' AND oid = ANY (%s)"
    return conn.execute(query, [[t.oid for t in tables]]).fetchone() is None


def _list(tables: Sequence[Table]) -> str:
    """ONLY: a table that inherits is published for itself, in the publication that its own identity asks for."""
    return ", ".join(f"ONLY {quoted(t.schema, t.name)}" for t in tables)


def _drop(slot: str) -> str:
    return f"SELECT pg_drop_replication_slot({sql.Literal(slot).as_string(None)})"


def _exists(conn: psycopg.Connection[Any], publication: str) -> bool:
    found = conn.execute("SELECT FROM pg_catalog.pg_publication WHERE pubname = %s", [publication])
    return found.fetchone() is not None
