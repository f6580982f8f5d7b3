"""Proves that the lake equals PostgreSQL, row by row and column by column, while both live.

A table is read from PostgreSQL in chunks along its key, each one short transaction; the lake's side of a chunk is what
exactly the transactions that the chunk's snapshot sees have made of those keys (by transaction id: the order in which
commits become visible is not the order of their records). Keys that the lake has and no chunk brought are then asked
for by name. The lake's values are rendered back to PostgreSQL's text by another way than they came in.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from claimhouse.change import lsn_text
from claimhouse.errors import LakeError, NotReady, SourceGone
from claimhouse.lake.held import Held, aligned
from claimhouse.lake.lake import Lake, open_lake
from claimhouse.lake.registry import TableState
from claimhouse.lake.snapshot import LakeSnapshot, take
from claimhouse.pipeline.comparing import exact_texts, texts_of, typed_keys
from claimhouse.postgres import catalog
from claimhouse.postgres.server import Capabilities, connect, current_lsn
from claimhouse.postgres.snapshot import (
    Gone,
    copy_out,
    having_keys,
    key_literals,
    key_names,
    lock,
    one,
    parse_csv,
    select,
    storage,
)
from claimhouse.postgres.types import cast, render, same_text
from claimhouse.quoting import quote
from claimhouse.table import Column, Table

TOLD_AT_MOST = 20  # differences that a report names one by one, per table
TRIES = 20

# Begin, commit and logical messages are no rows; a slot that has more than a look can hold does not rest.
_REST = """
SELECT (SELECT count(*) FILTER (WHERE get_byte(data, 0) NOT IN (66, 67, 77)) = 0 AND count(*) < 10000
        FROM pg_logical_slot_peek_binary_changes(s.slot_name, %(lsn)s::pg_lsn, 10000, 'proto_version', '1',
          'publication_names', (SELECT string_agg(quote_ident(p.pubname), ',') FROM pg_publication p
                                WHERE p.pubname::text IN (%(publication)s::text, %(publication)s::text || '_append'))))
FROM pg_replication_slots s
WHERE s.slot_name = %(slot)s AND s.database = current_database() AND NOT s.active
  AND pg_current_wal_flush_lsn() >= %(lsn)s::pg_lsn
"""


@dataclass(slots=True)
class VerifyOptions:
    """What to compare. `wait`: seconds to give a running capture to bring what PostgreSQL shows already."""

    source: str
    dsn: str
    location: str
    storage_options: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[str] = ()
    chunk_rows: int = 20_000
    wait: float = 30.0
    one_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that differs: its key as PostgreSQL's text, and the columns that do; never their values."""

    table: str
    kind: str  # 'values differ', 'only in PostgreSQL', 'only in the lake', 'columns differ', 'not exact'
    key: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[str] = ()


@dataclass(slots=True)
class TableReport:
    """What comparing one table came to; `differing` counts all rows, `told` names the first of them."""

    table: str
    rows: int = 0
    chunks: int = 0
    differing: int = 0
    told: list[Difference] = field(default_factory=list)
    longest: float = 0.0
    seconds: float = 0.0

    def tell(self, difference: Difference, count: int = 1) -> None:
        self.differing += count
        if len(self.told) < TOLD_AT_MOST:
            self.told.append(difference)


@dataclass(slots=True)
class Report:
    """`longest` is the longest transaction on the source, in seconds; `held` how long `--one-snapshot` held it back."""

    source: str
    tables: list[TableReport] = field(default_factory=list)
    held: float | None = None

    @property
    def rows(self) -> int:
        return sum(t.rows for t in self.tables)

    @property
    def differing(self) -> int:
        return sum(t.differing for t in self.tables)

    @property
    def differences(self) -> list[Difference]:
        return [d for t in self.tables for d in t.told]

    @property
    def longest(self) -> float:
        return max((t.longest for t in self.tables), default=0.0)


Progress = Callable[[str, int], None]


def verify(options: VerifyOptions, progress: Progress | None = None) -> Report:
    """Compares every visible table (or those that `tables` name). `progress(table, rows so far)`.

    Raises NotReady (a standby; a lake that does not come up to the source), SourceError, LakeError.
    """
    lake = open_lake(options.location, options.storage_options)
    report = Report(options.source)
    with connect(options.dsn) as conn, connect(options.dsn) as other:
        capabilities = Capabilities.of(conn)
        if capabilities.is_standby:
            raise NotReady("verify cannot run on a standby: its snapshots do not name running transactions")
        run = _Verifying(lake, options, conn, other, progress or (lambda table, rows: None))
        if options.one_snapshot:
            _in_one_snapshot(run, report)
        else:
            for state in run.tables():
                report.tables.append(run.table(state))
    return report


def _in_one_snapshot(run: _Verifying, report: Report) -> None:
    """All tables in one REPEATABLE READ transaction: proves a single moment, and holds VACUUM back meanwhile."""
    began = time.monotonic()
    run.conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        run.snapshot_text = one(run.conn, "SELECT pg_current_snapshot()::text")
        for state in run.tables():
            report.tables.append(run.table(state))
    finally:
        if not run.conn.closed:
            run.conn.execute("ROLLBACK")
    report.held = time.monotonic() - began


@dataclass(slots=True)
class _Chunk:
    """Rows of one short read: text per column, and what the read saw."""

    texts: list[pa.Array]
    rows: int
    sees: str
    lsn: int


class _Verifying:
    def __init__(
        self,
        lake: Lake,
        options: VerifyOptions,
        conn: psycopg.Connection,
        other: psycopg.Connection,
        progress: Progress,
    ) -> None:
        self.lake, self.options, self.conn, self.other, self.progress = lake, options, conn, other, progress
        self.snapshot_text: str | None = None

    def tables(self) -> list[TableState]:
        states = take(self.lake, self.options.source).registry.tables.values()
        wanted = {i.oid for i in catalog.find_tables(self.other, self.options.tables)}
        return [s for s in states if s.status != "gone" and s.oid in wanted]

    def table(self, state: TableState) -> TableReport:
        began = time.monotonic()
        report = TableReport(state.label)
        snapshot = self._caught_up(current_lsn(self.other))
        state = snapshot.registry.tables[state.folder]
        if not self._comparable(snapshot, state, report):
            report.seconds = time.monotonic() - began
            return report
        try:
            if state.table.identity == "key":
                self._by_key(state, report)
            else:
                self._whole(state, report)
        except Gone:
            report.tell(Difference(state.label, "not exact: the table went, or got another name or shape, meanwhile"))
        report.seconds = time.monotonic() - began
        return report

    def _comparable(self, snapshot: LakeSnapshot, state: TableState, report: TableReport) -> bool:
        """Whether rows can be compared at all; says so in the report if not."""
        doubtful = any(a <= snapshot.mark.end_lsn < b for a, b in state.inexact)
        if state.status != "live" or doubtful or state.copy_at(snapshot.mark.end_lsn) is None:
            report.tell(Difference(state.label, f"not exact: {state.error or 'its copy is not complete yet'}"))
            return False
        generated = snapshot.registry.generated
        described = catalog.describe(self.other, state.oid, source=self.options.source, generated=generated)
        here = {(c.name, c.type_oid, c.typmod) for c in described.columns}
        there = {(c.name, c.type_oid, c.typmod) for c in state.table.columns}
        if here != there:
            names = sorted({name for name, _, _ in here ^ there})
            report.tell(Difference(state.label, "columns differ", columns=names))
            return False
        return True

    # --- tables with a key

    def _by_key(self, state: TableState, report: TableReport) -> None:
        table = state.table
        with duckdb.connect() as db:
            db.execute(f"CREATE TABLE brought ({', '.join(f'k{i} VARCHAR' for i in range(len(table.key)))})")
            limit = self.options.chunk_rows
            after: tuple[str, ...] | None = None
            while True:
                chunk, lake_rows = self._pair(state, report, _after(table, after, limit))
                self._compare(table, chunk, lake_rows, report)
                keys = [chunk.texts[table.columns.index(c)] for c in table.key]
                _remember(db, keys)
                report.rows += chunk.rows
                report.chunks += 1
                self.progress(state.label, report.rows)
                if chunk.rows < limit:
                    break
                after = tuple(k[-1].as_py() for k in keys)
            self._unseen(state, db, report)

    def _unseen(self, state: TableState, db: duckdb.DuckDBPyConnection, report: TableReport) -> None:
        """Rows that only the lake has: came behind the reading, or should not be there."""
        table = state.table
        snapshot = self._caught_up(current_lsn(self.other))
        for batch in self._lake_keys(snapshot, state):
            names = [f"k{i}" for i in range(len(table.key))]
            db.register("lake_keys", pa.Table.from_arrays(batch, names=names))
            match = " AND ".join(f"b.{n} = l.{n}" for n in names)
            left = db.sql(f"SELECT l.* FROM lake_keys l ANTI JOIN brought b ON {match}").to_arrow_table()
            db.unregister("lake_keys")
            for at in range(0, left.num_rows, 500):
                some = left.slice(at, 500).to_pylist()
                keys = [tuple(row[n] for n in names) for row in some]
                chunk, rows = self._pair(state, report, having_keys(table, keys), keys=keys)
                self._compare(table, chunk, rows, report)

    def _lake_keys(self, snapshot: LakeSnapshot, state: TableState) -> Iterator[list[pa.Array]]:
        table = state.table
        names = ", ".join([*(quote(c.physical) for c in table.key), "_exact"])
        with _held(snapshot, state, None) as held:
            for batch in held.db.sql(f"SELECT {names} FROM ({held.sql})").to_arrow_reader(50_000):
                yield [texts_of(batch, c) for c in table.key]

    def _pair(
        self,
        state: TableState,
        report: TableReport,
        where: sql.Composable,
        keys: list[tuple[str, ...]] | None = None,
    ) -> tuple[_Chunk, pa.Table]:
        """A chunk and the lake's rows for its keys (and `keys`), as the chunk's snapshot sees them."""
        table = state.table
        for _ in range(TRIES):
            began = time.monotonic()
            chunk = self._read(table, where)
            report.longest = max(report.longest, time.monotonic() - began)
            snapshot = self._caught_up(chunk.lsn)
            now = snapshot.registry.tables[state.folder]
            wanted = [chunk.texts[table.columns.index(c)] for c in table.key]
            if keys is not None:
                given = [pa.array([k[i] for k in keys], pa.string()) for i in range(len(table.key))]
                wanted = [pa.concat_arrays([a, b]) for a, b in zip(wanted, given, strict=True)]
            with _held(snapshot, now, chunk.sees) as held:
                if held.ahead():
                    time.sleep(0.2)  # a fold holds what this chunk did not see yet: read it again
                    continue
                return chunk, held.db.sql(held.of_keys(table.key, typed_keys(table.key, wanted))).to_arrow_table()
        raise LakeError(
            f"table {state.label} was folded faster than it could be compared",
            hint="run verify again, or --one-snapshot",
        )

    def _read(self, table: Table, tail: sql.Composable) -> _Chunk:
        own = self.snapshot_text is None
        if own:
            self.conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            lock(self.conn, table)
            sees = self.snapshot_text or one(self.conn, "SELECT pg_current_snapshot()::text")
            statement = select(table, storage(self.conn, table.oid).partitioned, tail)
            first, *texts = parse_csv(b"".join(copy_out(self.conn, statement)), len(table.columns))
        finally:
            if own and not self.conn.closed:
                self.conn.execute("ROLLBACK")
        return _Chunk(texts, len(first), sees, current_lsn(self.other))

    def _compare(self, table: Table, chunk: _Chunk, held: pa.Table, report: TableReport) -> None:
        """Aligns both sides by key and tells each row that differs."""
        ours = [texts_of(held, c) for c in table.key]
        theirs = [chunk.texts[table.columns.index(c)] for c in table.key]
        left, right, extra, lacking = aligned(ours, theirs)
        differs = pa.array([False] * len(left), pa.bool_())
        masks: dict[str, pa.Array] = {}
        for column, text in zip(table.columns, chunk.texts, strict=True):
            values = held.column(column.physical).combine_chunks().take(left)
            exact = exact_texts(held, column).take(left)
            masks[column.name] = pc.invert(same_text(values, exact, text.take(right), column))
            differs = pc.or_(differs, masks[column.name])
        for place in pc.indices_nonzero(differs).to_pylist():
            wrong = [name for name, mask in masks.items() if mask[place].as_py()]
            report.tell(Difference(table.label, "values differ", _key(table, theirs, right[place].as_py()), wrong))
        for place in extra.to_pylist():
            report.tell(Difference(table.label, "only in the lake", _key(table, ours, place)))
        for place in lacking.to_pylist():
            report.tell(Difference(table.label, "only in PostgreSQL", _key(table, theirs, place)))

    # --- tables without a key

    def _whole(self, state: TableState, report: TableReport) -> None:
        """Both sides as bags of rows, compared by their images' counts."""
        table = state.table
        began = time.monotonic()
        chunk = self._read(table, sql.SQL(""))
        report.longest = time.monotonic() - began
        snapshot = self._caught_up(chunk.lsn)
        with _held(snapshot, snapshot.registry.tables[state.folder], chunk.sees) as rows:
            held = rows.db.sql(rows.sql).to_arrow_table()
        report.rows, report.chunks = chunk.rows, 1
        if not table.columns:
            if missing := chunk.rows - held.num_rows:
                report.tell(Difference(table.label, f"row counts differ by {abs(missing)}"), abs(missing))
            return
        names = [f"c{i}" for i in range(len(table.columns))]
        theirs = [_comparable_text(t, c) for t, c in zip(chunk.texts, table.columns, strict=True)]
        ours = [_comparable_text(texts_of(held, c), c) for c in table.columns]
        with duckdb.connect() as db:
            db.register("theirs", pa.Table.from_arrays(theirs, names=names))
            db.register("ours", pa.Table.from_arrays(ours, names=names))
            for kind, a, b in (("only in PostgreSQL", "theirs", "ours"), ("only in the lake", "ours", "theirs")):
                found = db.execute(f"SELECT count(*) FROM (FROM {a} EXCEPT ALL FROM {b})").fetchone()
                if found and found[0]:
                    report.tell(Difference(table.label, f"{kind}: {found[0]} rows"), found[0])

    # --- waiting

    def _caught_up(self, lsn: int) -> LakeSnapshot:
        """A view of the lake that holds everything up to a position."""
        deadline = time.monotonic() + self.options.wait
        pause, rest, look = 0.01, 0.25, 0.0
        beat = time.monotonic() + rest  # a heartbeat of ours would end the rest
        while True:
            snapshot = take(self.lake, self.options.source)
            if snapshot.mark.end_lsn >= lsn:
                return snapshot
            if time.monotonic() > look:
                look, rest = time.monotonic() + rest, rest * 2
                if self._at_rest(snapshot, lsn):
                    return take(self.lake, self.options.source)
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the lake is at {lsn_text(snapshot.mark.end_lsn)}, the source at {lsn_text(lsn)}",
                    hint="start `claimhouse run` beside verify, or run it with --once on a source that rests",
                )
            if time.monotonic() > beat:
                beat = time.monotonic() + 0.5
                self._heartbeat()
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    def _at_rest(self, snapshot: LakeSnapshot, lsn: int) -> bool:
        """Whether no run is live and the source has no row for the lake up to a position.

        The WAL also grows where nothing of ours happens (autovacuum, checkpoints, other databases): so what the slot
        would send is looked at, without taking it. Where our role may not, the answer is no.
        """
        registry = snapshot.registry
        try:
            names = {"slot": registry.slot, "publication": registry.publication}
            row = self.other.execute(_REST, {**names, "lsn": lsn_text(lsn)}).fetchone()
        except psycopg.OperationalError as error:
            if self.other.closed:
                raise SourceGone("the connection broke while waiting for the lake") from error
            return False  # the slot is in use after all
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject):
            return False
        return row is not None and bool(row[0])

    def _heartbeat(self) -> None:
        try:
            self.other.execute("SELECT pg_logical_emit_message(true, 'claimhouse.heartbeat', '')")
        except psycopg.errors.InsufficientPrivilege:
            return
        except psycopg.OperationalError as error:
            raise SourceGone("the connection broke while waiting for the lake") from error


@contextlib.contextmanager
def _held(snapshot: LakeSnapshot, state: TableState, sees: str | None) -> Iterator[Held]:
    with duckdb.connect() as db:
        snapshot.lake.store.attach(db)
        yield Held(db, snapshot, state, sees)


def _after(table: Table, after: tuple[str, ...] | None, limit: int) -> sql.Composable:
    names = key_names(table)
    where = sql.SQL("")
    if after is not None:
        where = sql.SQL("WHERE ({}) > ({})").format(names, key_literals(table, after))
    return sql.SQL("{} ORDER BY {} LIMIT {}").format(where, names, sql.Literal(limit))


def _remember(db: duckdb.DuckDBPyConnection, keys: list[pa.Array]) -> None:
    if len(keys[0]):
        db.register("chunk", pa.Table.from_arrays(keys, names=[f"k{i}" for i in range(len(keys))]))
        db.execute("INSERT INTO brought FROM chunk")
        db.unregister("chunk")


def _comparable_text(text: pa.Array, column: Column) -> pa.Array:
    """One spelling per value: floats as their shortest text by our own rule, whatever side they come from."""
    if column.kind in ("float4", "float8"):
        typed, _ = cast(text, column)
        return render(typed, None, column)
    return text


def _key(table: Table, keys: list[pa.Array], place: int) -> dict[str, str]:
    return {c.name: k[place].as_py() for c, k in zip(table.key, keys, strict=True)}
