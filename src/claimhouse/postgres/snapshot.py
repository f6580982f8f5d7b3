"""Copies a table's rows while the source lives on, without a long transaction.

A keyed table is read in chunks, ranges of heap blocks, each a short transaction of its own. Its rows count as the
table's content at P, and every streamed change above P wins over them; so a chunk may be read late, but never before
the fence: a transaction that wrote before the slot (or the publication) existed is not streamed, and must have ended
before the first chunk looks. A table without a key cannot be put right by the stream, so it is read in one snapshot
whose visible transactions do not count when they come by the stream.

Rows come as COPY's CSV with every value quoted, read by Arrow into text columns and cast by the one cast per type
that the stream uses as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, LiteralString
from typing import cast as cast_type

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv as pc_csv
from psycopg import pq, sql

from claimhouse.change import Changes, section_schema
from claimhouse.errors import SourceError, SourceGone
from claimhouse.postgres.rows import exact_map
from claimhouse.postgres.types import cast
from claimhouse.table import Column, Table

CHUNK_SECONDS = 0.5  # what a chunk's transaction aims at; twice that is design.md's limit
CHUNK_BYTES = 16 << 20
FIRST_BLOCKS = 512
_PIECE_BYTES = 4 << 20

_NAMED = """
SELECT c.oid::bigint FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one short read, or a piece of them where they are large. `blocks` is the first block not read whole yet,
    `total` the blocks to read in all."""

    changes: Changes
    blocks: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Storage:
    """`filenodes` is a fingerprint over the table and its leaves, `blocks` the size of the largest of them."""

    filenodes: str
    blocks: int
    partitioned: bool

    @property
    def leaves(self) -> int:
        return self.filenodes.count(",") + 1


class Moved(Exception):
    """The table's storage was rewritten under the copy (VACUUM FULL, CLUSTER): it has to start again."""


class Gone(Exception):
    """The table was dropped, renamed or reshaped under the copy."""


def fence(conn: psycopg.Connection, stopped: Callable[[], bool], waiting: Callable[[str], None]) -> None:
    """Returns once every transaction that was running at the call has ended.

    `waiting` is told, at most every 5 s, which session is waited for. Needs autocommit. Returns early when stopped.
    """
    border = one(conn, "SELECT pg_current_xact_id()::text::bigint")
    told = time.monotonic()
    pause = 0.005
    while one(conn, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint") <= border:
        if stopped():
            return
        if time.monotonic() - told > 5:
            told = time.monotonic()
            waiting(oldest_transaction(conn))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def oldest_transaction(conn: psycopg.Connection) -> str:
    """Names the session (or prepared transaction) that holds the oldest transaction id."""
    row = conn.execute(
        "SELECT 'process ' || pid || ' (' || coalesce(nullif(application_name, ''), 'unnamed') || '), open since '"
        " || date_trunc('second', xact_start)::text FROM pg_stat_activity"
        " WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY age(backend_xid) DESC LIMIT 1"
    ).fetchone()
    if row is None:
        row = conn.execute(
            "SELECT 'prepared transaction of ' || owner || ', since ' || date_trunc('second', prepared)::text"
            " FROM pg_prepared_xacts ORDER BY age(transaction) DESC LIMIT 1"
        ).fetchone()
    return str(row[0]) if row else "a transaction that this role may not see"


def storage(conn: psycopg.Connection, oid: int) -> Storage:
    """Where a table's rows lie now. Raises Gone where there is no such table."""
    row = conn.execute(
        "SELECT string_agg(relid::oid || ':' || coalesce(pg_relation_filenode(relid), 0), ',' ORDER BY relid::oid),"
        " coalesce(max(pg_relation_size(relid)), 0) / current_setting('block_size')::int,"
        " (SELECT relkind = 'p' FROM pg_class WHERE oid = %(oid)s)"
        " FROM (SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass) WHERE isleaf"
        "       UNION SELECT %(oid)s::oid::regclass) leaves",
        {"oid": oid},
    ).fetchone()
    if row is None or row[2] is None:
        raise Gone
    return Storage(str(row[0]), int(row[1]), bool(row[2]))


def read_chunks(
    conn: psycopg.Connection,
    table: Table,
    copy: int,
    position: int,
    *,
    filenodes: str,
    first_block: int = 0,
    first_seq: int = 0,
    pause: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Chunk]:
    """The rows of a keyed table from `first_block` on, chunk by chunk.

    `filenodes` is the fingerprint at the copy's first chunk. Nothing is yielded before all that its snapshot sees is
    durable on the server. Values can be large: what a chunk brings beyond CHUNK_BYTES is yielded in pieces while its
    transaction is still open. Raises Moved, Gone, SourceGone.
    """
    seq, block = first_seq, first_block
    found = storage(conn, table.oid)
    total, step = found.blocks, max(1, FIRST_BLOCKS // found.leaves)
    while block < total or block == first_block == 0:
        last = min(block + step, max(total, 1))
        began = time.monotonic()
        size, held = 0, b""
        with conn.transaction():
            now = _begin(conn, table)
            if now.filenodes != filenodes:
                raise Moved
            where = sql.SQL("WHERE ctid >= {} AND ctid < {}").format(
                sql.Literal(f"({block},0)"), sql.Literal(f"({last},0)")
            )
            for data in _pieces(conn, select(table, now.partitioned, where)):
                if held:
                    changes = read_rows(held, table, copy, position, seq)
                    seq += changes.batch.num_rows
                    yield Chunk(changes, block, total, time.monotonic() - began)
                held = data
                size += len(data)
        seconds = time.monotonic() - began
        changes = read_rows(held, table, copy, position, seq)
        seq += changes.batch.num_rows
        yield Chunk(changes, last, total, seconds)
        block = last
        step = _next_step(step, seconds, size)
        pause(seconds)


def read_whole(conn: psycopg.Connection, table: Table, copy: int, position: int) -> Iterator[str | Changes]:
    """The rows of a table without a key, in one snapshot: first the pg_snapshot's text, then batches of rows."""
    seq = 0
    with conn.transaction():
        now = _begin(conn, table)
        yield str(one(conn, "SELECT pg_current_snapshot()::text"))
        for data in _pieces(conn, select(table, now.partitioned, sql.SQL(""))):
            changes = read_rows(data, table, copy, position, seq)
            seq += changes.batch.num_rows
            yield changes


def read_keys(
    conn: psycopg.Connection, table: Table, copy: int, position: int, first_seq: int, keys: Sequence[tuple[str, ...]]
) -> Iterator[Changes]:
    """The rows that have these keys now (PostgreSQL's text per key column, in key order), in pieces."""
    seq = first_seq
    with conn.transaction():
        now = _begin(conn, table)
        for data in _pieces(conn, select(table, now.partitioned, having_keys(table, keys))):
            changes = read_rows(data, table, copy, position, seq)
            seq += changes.batch.num_rows
            yield changes


def read_keys_at_once(
    conn: psycopg.Connection, table: Table, keys: Sequence[tuple[str, ...]], some: int
) -> tuple[str, list[Changes]]:
    """What one snapshot (its text) sees of the rows with these keys, `some` of them a statement."""
    found: list[Changes] = []
    seq = 0
    with conn.transaction():
        now = _begin(conn, table)
        sees = str(one(conn, "SELECT pg_current_snapshot()::text"))
        for at in range(0, len(keys), some):
            for data in _pieces(conn, select(table, now.partitioned, having_keys(table, keys[at : at + some]))):
                found.append(read_rows(data, table, 0, 0, seq))
                seq += found[-1].batch.num_rows
    return sees, found


def _begin(conn: psycopg.Connection, table: Table) -> Storage:
    """One snapshot for the transaction just begun; returns once all that it sees is durable. Raises Gone."""
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    lock(conn, table)  # LOCK takes no snapshot: the next statement does
    now = storage(conn, table.oid)
    wait_flushed(conn)
    return now


def _pieces(conn: psycopg.Connection, statement: sql.Composable) -> Iterator[bytes]:
    """What a COPY sends, in pieces of about CHUNK_BYTES; the last may be empty. Given up, it ends the connection."""
    rows: list[bytes | bytearray] = []
    size = 0
    try:
        with closing(copy_out(conn, statement)) as sent:
            for row in sent:
                rows.append(row)
                size += len(row)
                if size >= CHUNK_BYTES:
                    yield b"".join(rows)
                    rows, size = [], 0
    except GeneratorExit:
        conn.close()  # the server still sends
        raise
    yield b"".join(rows)


def having_keys(table: Table, keys: Sequence[Sequence[str]]) -> sql.Composable:
    """`WHERE (key) IN (VALUES …)`, for `select`."""
    rows = sql.SQL(", ").join(sql.SQL("({})").format(key_literals(table, key)) for key in keys)
    return sql.SQL("WHERE ({}) IN (VALUES {})").format(key_names(table), rows)


def key_names(table: Table) -> sql.Composable:
    """The key's columns, comma-joined."""
    return sql.SQL(", ").join(sql.Identifier(c.name) for c in table.key)


def key_literals(table: Table, key: Sequence[str]) -> sql.Composable:
    """One key's values (PostgreSQL's text) as literals of their types, comma-joined."""
    return sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(cast_to(column)))
        for value, column in zip(key, table.key, strict=True)
    )


def cast_to(column: Column) -> LiteralString:
    """A column's type as SQL, as PostgreSQL spelled it."""
    return cast_type(LiteralString, column.type)


def read_rows(data: bytes, table: Table, copy: int, position: int, first_seq: int) -> Changes:
    """Rows of COPY's CSV (every value quoted, NULL unquoted) as `r` changes of a copy."""
    texts = parse_csv(data, len(table.columns))
    rows = len(texts[0]) if texts else 0
    values: list[pa.Array] = []
    exacts: list[tuple[str, pa.Array]] = []
    for text, column in zip(texts[1:], table.columns, strict=True):
        value, exact = cast(text, column)
        values.append(value)
        if exact is not None:
            exacts.append((column.physical, exact))
    schema = section_schema(table)
    now = time.time_ns() // 1000
    meta: dict[str, pa.Array] = {
        "_op": _constant("r", rows, pa.string()),
        "_end_lsn": _constant(position, rows, pa.int64()),
        "_seq": pa.array(np.arange(first_seq, first_seq + rows, dtype=np.int64)),
        "_committed_at": _constant(now, rows, pa.int64()).cast(schema.field("_committed_at").type),
        "_schema": _constant(table.version, rows, pa.int32()),
        "_copy": _constant(copy, rows, pa.int32()),
        "_exact": exact_map(exacts, rows),
    }
    named = dict(zip((c.physical for c in table.columns), values, strict=True)) | meta
    arrays = [named[f.name] if f.name in named else pa.nulls(rows, f.type) for f in schema]
    return Changes(table, pa.RecordBatch.from_arrays(arrays, schema=schema))


def parse_csv(data: bytes, columns: int) -> list[pa.Array]:
    """The text columns of COPY's CSV, the leading constant column of `select` included."""
    names = [str(n) for n in range(columns + 1)]
    if not data:
        return [pa.array([], pa.string()) for _ in names]
    read = pc_csv.read_csv(
        pa.BufferReader(data),
        read_options=pc_csv.ReadOptions(column_names=names, block_size=max(len(data) + 1, 1 << 20)),
        parse_options=pc_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pc_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,  # the cast does, and says whose table it is
        ),
    )
    return [read.column(n).combine_chunks() if read.num_rows else pa.array([], pa.string()) for n in names]


def copy_out(conn: psycopg.Connection, statement: sql.Composable) -> Generator[bytes | bytearray, None, None]:
    """The bytes of a COPY … TO STDOUT in pieces of many rows; none is split."""
    pgconn = conn.pgconn
    result = pgconn.exec_(statement.as_bytes(conn))
    if result.status != pq.ExecStatus.COPY_OUT:
        raise copy_error(result)
    get, piece, enough = pgconn.get_copy_data, bytearray(), min(_PIECE_BYTES, CHUNK_BYTES)
    size, row = get(0)  # libpq hands out one row a message: no more is done for each than to append it
    while size > 0:
        piece += row
        if len(piece) >= enough:
            yield piece
            piece = bytearray()
        size, row = get(0)
    if piece:
        yield piece
    result = pgconn.get_result()
    while (more := pgconn.get_result()) is not None:
        result = more if result is None or result.status == pq.ExecStatus.COMMAND_OK else result
    if result is None or result.status != pq.ExecStatus.COMMAND_OK:
        raise copy_error(result)


def copy_error(result: pq.abc.PGresult | None) -> Exception:
    """What PostgreSQL said, without the row it said it of (DETAIL and CONTEXT may hold values)."""
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode() if result is not None else ""
    primary = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode() if result is not None else ""
    if state in {"42P01", "42703", "55000", "3F000"}:
        return Gone()
    if not state or state.startswith(("08", "57")):
        return SourceGone(f"the connection broke while a table was read ({state or 'no answer'})")
    said = "" if state[:2] in ("22", "23") else f": {primary}"  # those classes quote values of rows
    return SourceError(f"PostgreSQL refused to read a table{said} ({state})", hint="see `claimhouse doctor`")


def wait_flushed(conn: psycopg.Connection) -> None:
    """Returns once what was visible to an earlier read is durable on the server.

    A commit with synchronous_commit = off is visible before it is durable: a crash would leave a row that never was.
    """
    seen = one(conn, "SELECT pg_current_wal_insert_lsn()::text")
    while not one(conn, f"SELECT pg_current_wal_flush_lsn() >= '{seen}'::pg_lsn"):
        time.sleep(0.02)


def lock(conn: psycopg.Connection, table: Table) -> None:
    """ACCESS SHARE on the table, to be taken before the snapshot. Raises Gone, also where its name is another's now.

    A lock that waited for VACUUM FULL would otherwise read through a snapshot older than it.
    """
    try:
        conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(_name(table)))
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.WrongObjectType):
        raise Gone from None
    if conn.execute(_NAMED, (table.schema, table.name)).fetchone() != (table.oid,):
        raise Gone


def select(table: Table, partitioned: bool, where: sql.Composable) -> sql.Composed:
    """COPY … TO STDOUT of the table's columns behind a constant one, as `parse_csv` reads it."""
    # The constant first column keeps a row of NULLs from being an empty line. Children by inheritance are tables of
    # their own; leaves of a partitioned table are read through it, which needs no right on them.
    columns = sql.SQL(", ").join([sql.SQL("''"), *(sql.Identifier(c.name) for c in table.columns)])
    return sql.SQL("COPY (SELECT {} FROM {} {} {}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)").format(
        columns, sql.SQL("" if partitioned else "ONLY"), _name(table), where
    )


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)


def _constant(value: object, rows: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), rows)


def _next_step(step: int, seconds: float, size: int) -> int:
    """Blocks of the next chunk: toward CHUNK_SECONDS and CHUNK_BYTES, at most doubled at a time."""
    by_time = CHUNK_SECONDS / max(seconds, 1e-3)
    by_size = CHUNK_BYTES / max(size, 1)
    return max(1, int(step * min(2.0, by_time, by_size)))


def one(conn: psycopg.Connection, statement: str) -> Any:
    """The first value of a statement's first row."""
    row = conn.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]
