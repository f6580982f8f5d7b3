"""Copies a table's rows while the source lives on, without a long transaction.

A keyed table is read in chunks, ranges of heap blocks, each a short transaction of its own. Its rows count as the
table's content at P, and every streamed change above P wins over them; so a chunk may be read late, but never before
the fence: a transaction that wrote before the slot (or the publication) existed is not streamed, and must have ended
before the first chunk looks. A table without a key cannot be put right by the stream, so it is read in one snapshot
whose visible transactions do not count when they come by the stream.

Rows come as COPY's text format, read by Arrow into text columns and cast by the one cast per type that the stream uses
as well. They are taken off the socket in large gulps, or, where the connection is encrypted, from libpq one by one.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, LiteralString
from typing import cast as cast_type

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
from psycopg import pq, sql

from claimhouse.change import Changes, section_schema
from claimhouse.errors import SourceError, SourceGone
from claimhouse.postgres import frames
from claimhouse.postgres.rows import exact_map
from claimhouse.postgres.types import cast
from claimhouse.table import Column, Table, arrow_type

CHUNK_SECONDS = 0.5  # what a chunk's transaction aims at; twice that is design.md's limit
CHUNK_BYTES = 16 << 20
FIRST_BLOCKS = 512
_GULP = 1 << 20  # what is taken off the socket, and parsed, at once: it stays in the processor's cache
_NAP_SECONDS = 0.001  # the server sends 8 KB at a time: to wake up for each costs both sides more than the rows
_READY = b"Z\0\0\0\5"
_LEAD = 0x64646464  # four times d, in the place of a frame's length: what leads a row may be anything but a separator

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
    room = _Room()
    while block < total or block == first_block == 0:
        last = min(block + step, max(total, 1))
        began = time.monotonic()
        size, held = 0, None
        with conn.transaction():
            now = _begin(conn, table)
            if now.filenodes != filenodes:
                raise Moved
            where = sql.SQL("WHERE ctid >= {} AND ctid < {}").format(
                sql.Literal(f"({block},0)"), sql.Literal(f"({last},0)")
            )
            with closing(_pieces(conn, select(table, now.partitioned, where), room)) as pieces:
                for data in pieces:
                    if held is not None:
                        yield Chunk(held, block, total, time.monotonic() - began)
                    held = read_rows(data, table, copy, position, seq)
                    seq += held.batch.num_rows
                    size += len(data)
        seconds = time.monotonic() - began
        assert held is not None
        yield Chunk(held, last, total, seconds)
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


Piece = memoryview | bytearray


class _Room:
    """Where rows are received: one place for a whole copy, since memory that comes anew has to be cleared first."""

    def __init__(self) -> None:
        self.make(CHUNK_BYTES + 2 * _GULP)

    def make(self, size: int, held: memoryview | bytes = b"") -> None:
        """That much room, with what has come so far."""
        self.bytes = np.empty(size, np.uint8)
        self.words = np.ndarray((size - 3,), np.uint32, buffer=self.bytes, strides=(1,))  # at every place
        self.view = self.bytes.data
        self.view[: len(held)] = held

    def frames(self, begin: int, end: int) -> np.ndarray:
        """Where whole frames start, and behind them where the last one ends; of rows alone as far as there are any.

        No text holds a zero or a bare newline, so a row starts behind a newline that a `d` and a zero follow. Lengths
        tell whether that is so; where it is not, frames are followed one by one.
        """
        found = np.flatnonzero(self.bytes[begin:end] == ord("\n")) + (begin + 1)
        found = found[found + 5 <= end]
        found = found[(self.bytes[found] == ord("d")) & (self.bytes[found + 1] == 0)]
        if end - begin >= 5 and self.bytes[begin] == ord("d"):
            starts = np.concatenate([[begin], found])
            after = starts + 1 + self.words[starts + 1].byteswap().astype(np.int64)
            if (after[:-1] == starts[1:]).all():
                return np.append(starts, after[-1]) if after[-1] <= end else starts
        starts, last = frames.split(self.view[begin:end])
        return np.array([*starts, last], np.int64) + begin


def _pieces(
    conn: psycopg.Connection, statement: sql.Composable, room: _Room | None = None
) -> Generator[Piece, None, None]:
    """What `select` sends: whole rows, in pieces of about CHUNK_BYTES, each there until the next is asked for.

    The last may be empty. Given up before, it ends the connection.
    """
    plain = not conn.pgconn.ssl_in_use and not conn.pgconn.used_gssapi
    try:
        yield from _from_socket(conn, statement, room or _Room()) if plain else _from_libpq(conn, statement)
    except GeneratorExit:
        conn.close()  # the server still sends
        raise


def _from_socket(conn: psycopg.Connection, statement: sql.Composable, room: _Room) -> Iterator[Piece]:
    """Past libpq, which is idle and stays so. A row's frame (kind and length) is made part of what leads the row."""
    with socket.socket(fileno=os.dup(conn.pgconn.socket)) as link:
        link.settimeout(5.0)  # to libpq it stays the socket that never blocks: Python waits
        done = come = 0  # up to where `room` holds rows, and bytes
        error: bytes | None = None
        over = False
        try:
            link.sendall(frames.frame(b"Q", statement.as_bytes(conn) + b"\0"))
            while not over:
                come = _gulp(link, room.view, done, come)
                while True:
                    places = room.frames(done, come)
                    rows = min(_first(room.bytes[places[:-1]] != ord("d")), _first(places >= CHUNK_BYTES))
                    room.words[places[:rows] + 1] = _LEAD
                    done = int(places[rows])
                    if done >= CHUNK_BYTES:
                        yield room.view[:done]
                        room.view[: come - done] = room.view[done:come]
                        done, come = 0, come - done
                    elif rows < len(places) - 1:  # something else than a row
                        after = int(places[rows + 1])
                        kind = room.bytes[done]
                        error = bytes(room.view[done + 5 : after]) if kind == ord("E") else error
                        over = kind == ord("Z")
                        room.view[done : come - after + done] = room.view[after:come]
                        come -= after - done
                    elif not rows:
                        break
                wanted = done + frames.size(room.view[done:come]) + _GULP
                if wanted > len(room.view):
                    room.make(wanted, room.view[:come])
        except OSError as broken:
            raise _broke(broken.strerror or "a socket error") from None
    if error is not None:
        raise copy_error(*frames.fields(error)[:2])
    yield room.view[:done]


def _gulp(link: socket.socket, view: memoryview, done: int, come: int) -> int:
    """Receives behind what has come: until that is much, or the end of an answer; how far it goes then."""
    while True:
        try:
            count = link.recv_into(view[come : done + _GULP] if come < done + _GULP else view[come:])
        except TimeoutError:
            if come > done:
                return come
            continue
        if not count:
            raise _broke("no answer")
        come += count
        if come >= done + _GULP or bytes(view[max(done, come - 6) : come - 1]) == _READY:
            return come
        time.sleep(_NAP_SECONDS)


def _first(those: np.ndarray) -> int:
    """The place of the first that is true; behind the last where none is."""
    return int(those.argmax()) if those.any() else len(those)


def _from_libpq(conn: psycopg.Connection, statement: sql.Composable) -> Iterator[Piece]:
    """libpq hands out one row a message: no more is done for each than to append it."""
    pgconn = conn.pgconn
    result = pgconn.exec_(statement.as_bytes(conn))
    if result.status != pq.ExecStatus.COPY_OUT:
        raise _copy_error(result)
    get, piece, enough = pgconn.get_copy_data, bytearray(), CHUNK_BYTES
    size, row = get(0)
    while size > 0:
        piece += row
        if len(piece) >= enough:
            yield piece
            piece = bytearray()
        size, row = get(0)
    result = pgconn.get_result()
    while (more := pgconn.get_result()) is not None:
        result = more if result is None or result.status == pq.ExecStatus.COMMAND_OK else result
    if result is None or result.status != pq.ExecStatus.COMMAND_OK:
        raise _copy_error(result)
    yield piece


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


def read_rows(data: Piece, table: Table, copy: int, position: int, first_seq: int) -> Changes:
    """Rows as `select` sends them, as `r` changes of a copy."""
    texts = _parsed(data, len(table.columns))
    rows = texts.num_rows
    values: list[pa.Array] = []
    exacts: list[tuple[str, pa.Array]] = []
    for place, column in enumerate(table.columns, 1):
        made = [cast(_unescaped(text), column) for text in texts.column(place).chunks]
        values.append(_joined([value for value, _ in made], arrow_type(column.kind)))
        if any(exact is not None for _, exact in made):
            kept = [pa.nulls(len(value), pa.string()) if exact is None else exact for value, exact in made]
            exacts.append((column.physical, pa.concat_arrays(kept)))
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
    """The text columns of what `select` sends, the constant one that leads them included."""
    read = _parsed(data, columns)
    return [_joined([_unescaped(text) for text in column.chunks], pa.string()) for column in read.columns]


def _parsed(data: Piece | bytes, columns: int) -> pa.Table:
    """The text columns, still with their escapes; in chunks that stay in the processor's cache."""
    names = [str(n) for n in range(columns + 1)]
    if not len(data):
        return pa.schema([(name, pa.string()) for name in names]).empty_table()
    try:
        return _read_csv(data, names, _GULP)
    except pa.ArrowInvalid:  # a row is longer
        return _read_csv(data, names, len(data) + 1)


def _read_csv(data: Piece | bytes, names: list[str], block: int) -> pa.Table:
    return pc_csv.read_csv(
        pa.BufferReader(data),
        read_options=pc_csv.ReadOptions(column_names=names, block_size=block, use_threads=False),
        parse_options=pc_csv.ParseOptions(
            delimiter="\t", quote_char=False, double_quote=False, newlines_in_values=False, ignore_empty_lines=False
        ),
        convert_options=pc_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=["\\N"],
            strings_can_be_null=True,
            check_utf8=False,  # the cast does, and says whose table it is
        ),
    )


def _unescaped(text: pa.Array) -> pa.Array:
    """Texts without COPY's escapes: a backslash before itself or a letter that stands for a control character."""
    if not _has_backslash(text):
        return text
    odd = pc.fill_null(pc.match_substring(text, "\\"), False)
    found = pc.replace_substring(text.filter(odd), "\\\\", "\0")  # PostgreSQL has no text with a zero
    if _has_backslash(found):
        for letter, char in _ESCAPES:
            found = pc.replace_substring(found, letter, char)
    return pc.replace_with_mask(text, odd, pc.replace_substring(found, "\0", "\\"))


_ESCAPES = (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r"), ("\\b", "\b"), ("\\f", "\f"), ("\\v", "\v"))


def _has_backslash(text: pa.Array) -> bool:
    data = text.buffers()[2]
    return data is not None and bool((np.frombuffer(data, np.uint8) == ord("\\")).any())


def _joined(arrays: list[pa.Array], kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(arrays) if arrays else pa.nulls(0, kind)


def copy_out(conn: psycopg.Connection, statement: sql.Composable) -> Iterator[bytes]:
    """What `select` sends, in pieces of whole rows."""
    return (bytes(piece) for piece in _pieces(conn, statement))


def _copy_error(result: pq.abc.PGresult | None) -> Exception:
    fields = (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY)
    return copy_error(*((result.error_field(f) or b"").decode() if result is not None else "" for f in fields))


def copy_error(state: str, primary: str) -> Exception:
    """What PostgreSQL said, without the row it said it of (DETAIL and CONTEXT may hold values)."""
    if state in {"42P01", "42703", "55000", "3F000"}:
        return Gone()
    if not state or state.startswith(("08", "57")):
        return _broke(state or "no answer")
    said = "" if state[:2] in ("22", "23") else f": {primary}"  # those classes quote values of rows
    return SourceError(f"PostgreSQL refused to read a table{said} ({state})", hint="see `claimhouse doctor`")


def _broke(reason: str) -> SourceGone:
    return SourceGone(f"the connection broke while a table was read ({reason})")


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
    """COPY … TO STDOUT of the table's columns behind an empty one, as `read_rows` and `parse_csv` read it."""
    # The first column is no value's: what leads a row may stand there, and a row without columns is one. Children by
    # inheritance are tables of their own; leaves of a partitioned table are read through it, which needs no right on
    # them.
    columns = sql.SQL(", ").join([sql.SQL("''"), *(sql.Identifier(c.name) for c in table.columns)])
    return sql.SQL("COPY (SELECT {} FROM {} {} {}) TO STDOUT").format(
        columns, sql.SQL("" if partitioned else "ONLY"), _name(table), where
    )


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)


def _constant(value: object, rows: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), rows)


def _next_step(step: int, seconds: float, size: int) -> int:
    """Blocks of the next chunk: toward CHUNK_SECONDS and CHUNK_BYTES, at most doubled at a time."""
    by_time = CHUNK_SECONDS / max(seconds, 1e-3)
    by_size = 0.9 * CHUNK_BYTES / max(size, 1)  # more would be two pieces
    return max(1, int(step * min(2.0, by_time, by_size)))


def one(conn: psycopg.Connection, statement: str) -> Any:
    """The first value of a statement's first row."""
    row = conn.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]
