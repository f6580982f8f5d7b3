"""The optional event trigger that tells each DDL in the stream itself, exactly where it happened.

Without it a changed shape is noticed later, by the next row's Relation message or by a look at the catalog, and the
moments between are not known exactly. With it, every DDL that touches a permanent table emits what
`catalog.DESCRIPTION` says of the table afterwards, as a transactional logical message: it stands among the
transaction's rows, and vanishes with a rollback.

It runs as whoever runs the DDL, with a fixed search path and fixed spellings; a failure inside becomes a warning, and
a lock that it cannot have at once makes it give up: the application's DDL never fails of it. Making an event trigger
needs a superuser (or what stands for one in a managed service), once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import psycopg

from claimhouse.postgres.catalog import DESCRIPTION, shape
from claimhouse.postgres.server import explained
from claimhouse.table import Table

PREFIX = "claimhouse.ddl"
TRIGGERS = ("claimhouse_ddl", "claimhouse_drop", "claimhouse_rewrite")


@dataclass(frozen=True, slots=True)
class Told:
    """One message. `event`: 'shape' (the table is now so), 'values' (a type in use changed, old rows may read
    otherwise), 'rewrite' (old rows are about to be rewritten without events), 'drop' (the table is gone).

    `table` is None for 'drop' and 'rewrite'. `partitions` are the oids that hold the rows; `command` is PostgreSQL's
    command tag.
    """

    event: str
    command: str
    oid: int
    table: Table | None
    partitions: tuple[int, ...]


def read(content: bytes, *, source: str = "main", generated: bool = False) -> Told:
    """The message behind a logical message's content with prefix PREFIX. Raises ValueError where it is none."""
    told: dict[str, Any] = json.loads(content)
    try:
        description = told["table"]
        table = shape(description, source=source, generated=generated) if description else None
        partitions = tuple(int(p) for p in description["partitions"]) if description else ()
        return Told(told["event"], told["command"], told["oid"], table, partitions)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a {PREFIX} message of an unknown form") from error


def parse(content: bytes, *, source: str = "main", generated: bool = False) -> Table | None:
    """The table as the message says it is from its position on; None where it says something else.

    Anyone may write messages of our prefix: one that is not ours is None as well.
    """
    try:
        return read(content, source=source, generated=generated).table
    except ValueError:
        return None


def installed(conn: psycopg.Connection[Any]) -> bool:
    """Whether the database tells its DDL: all three triggers are there and enabled."""
    with explained("looking for the DDL trigger"):
        query = "SELECT count(*) FROM pg_catalog.pg_event_trigger WHERE evtname = ANY (%s) AND evtenabled <> 'D'"
        row = conn.execute(query, [[*TRIGGERS]]).fetchone()
    return row is not None and row[0] == len(TRIGGERS)


def install_sql() -> str:
    """The script that installs the trigger, or brings an installed one up to date; for a superuser."""
    return _INSTALL


def remove_sql() -> str:
    """The script that takes it away."""
    drops = "".join(f"DROP EVENT TRIGGER IF EXISTS {name};\n" for name in TRIGGERS)
    return f"{drops}DROP FUNCTION IF EXISTS claimhouse.tell_ddl();\nDROP SCHEMA IF EXISTS claimhouse;\n"


# pg_temp stands last in the path: a temporary type may not pose as one of pg_catalog.
_INSTALL = f"""\
CREATE SCHEMA IF NOT EXISTS claimhouse;
CREATE OR REPLACE FUNCTION claimhouse.tell_ddl() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET "DateStyle" = 'ISO, MDY' SET "IntervalStyle" = 'postgres'
SET "TimeZone" = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex'
SET quote_all_identifiers = off SET lock_timeout = '1s'
AS $claimhouse$
#variable_conflict use_column
DECLARE
  touched oid[]; changed_types oid[] := '{{}}'; what text := 'shape'; message json; one oid;
BEGIN
  IF tg_event = 'table_rewrite' THEN
    what := 'rewrite';
    touched := ARRAY[pg_event_trigger_table_rewrite_oid()];
  ELSIF tg_event = 'sql_drop' THEN
    FOR one, message IN
      SELECT d.objid, json_build_object('event', 'drop', 'command', tg_tag, 'oid', d.objid::bigint, 'table', NULL)
      FROM pg_event_trigger_dropped_objects() d
      WHERE d.object_type = 'table' AND NOT d.is_temporary
    LOOP
      PERFORM pg_logical_emit_message(true, '{PREFIX}', convert_to(message::text, 'UTF8'));
    END LOOP;
    -- A column that went with its type or sequence, and whatever may have been identified by an index that went.
    touched := ARRAY(
      SELECT d.objid FROM pg_event_trigger_dropped_objects() d WHERE d.object_type = 'table column'
      UNION
      SELECT c.oid FROM pg_event_trigger_dropped_objects() d JOIN pg_namespace n ON n.nspname = d.schema_name
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relreplident = 'i' WHERE d.object_type = 'index');
  ELSE
    changed_types := ARRAY(
      SELECT t.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_type t ON
        d.command_tag IN ('ALTER TYPE', 'ALTER DOMAIN')
        AND (d.classid = 'pg_type'::regclass AND t.oid = d.objid
             OR d.classid = 'pg_class'::regclass AND t.typrelid = d.objid AND t.typtype = 'c'));
    touched := ARRAY(
      SELECT d.objid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass
      UNION
      SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.relnamespace = d.objid
      WHERE d.classid = 'pg_namespace'::regclass AND d.command_tag = 'ALTER SCHEMA');
  END IF;
  IF changed_types <> '{{}}' THEN
    what := 'values';
    touched := touched || ARRAY(
      WITH RECURSIVE user_of(oid) AS (
        SELECT t FROM unnest(changed_types) t
        UNION
        SELECT t.oid FROM user_of u JOIN pg_type t ON t.typbasetype = u.oid OR t.typelem = u.oid OR t.typrelid IN (
          SELECT a.attrelid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          WHERE c.relkind = 'c' AND a.atttypid = u.oid AND NOT a.attisdropped))
      SELECT a.attrelid FROM pg_attribute a JOIN user_of u ON u.oid = a.atttypid
      WHERE a.attnum > 0 AND NOT a.attisdropped);
  END IF;
  FOR one IN
    WITH RECURSIVE down(oid) AS (
      SELECT t FROM unnest(touched) t
      UNION
      SELECT i.inhrelid FROM down d JOIN pg_inherits i ON i.inhparent = d.oid)
    SELECT DISTINCT coalesce(pg_partition_root(c.oid)::oid, c.oid) FROM down d JOIN pg_class c ON c.oid = d.oid
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
  LOOP
    message := NULL;
    IF what <> 'rewrite' THEN
      message := ({DESCRIPTION.strip().format(oid="one")});
      CONTINUE WHEN message IS NULL;
    END IF;
    message := json_build_object('event', what, 'command', tg_tag, 'oid', one::bigint, 'table', message);
    PERFORM pg_logical_emit_message(true, '{PREFIX}', convert_to(message::text, 'UTF8'));
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'claimhouse was not told of this %: %', tg_tag, SQLERRM;
END
$claimhouse$;
DROP EVENT TRIGGER IF EXISTS claimhouse_ddl;
DROP EVENT TRIGGER IF EXISTS claimhouse_drop;
DROP EVENT TRIGGER IF EXISTS claimhouse_rewrite;
CREATE EVENT TRIGGER claimhouse_ddl ON ddl_command_end EXECUTE FUNCTION claimhouse.tell_ddl();
CREATE EVENT TRIGGER claimhouse_drop ON sql_drop EXECUTE FUNCTION claimhouse.tell_ddl();
CREATE EVENT TRIGGER claimhouse_rewrite ON table_rewrite EXECUTE FUNCTION claimhouse.tell_ddl();
ALTER EVENT TRIGGER claimhouse_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER claimhouse_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER claimhouse_rewrite ENABLE ALWAYS;
"""
