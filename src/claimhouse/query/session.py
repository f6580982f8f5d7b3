"""A reader's SQL session: one cut of each source, every table at it, read-only.

A session takes its snapshots when it opens and never moves: two queries in it see the same moment. Views are made for
the tables that a query names and for no others, so opening costs the same with two tables or two thousand. A query that
names other tables gets a further engine, which may open their files and no others; the last few are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from claimhouse.change import lsn_text
from claimhouse.errors import LakeError, NotExact, QueryError, StorageGone
from claimhouse.lake import deadletters
from claimhouse.lake.deadletters import DeadLetter
from claimhouse.lake.lake import LAKE, Lake
from claimhouse.lake.registry import OPEN_END, TableState
from claimhouse.lake.relation import files_sql
from claimhouse.lake.snapshot import LakeSnapshot, schema_of, take
from claimhouse.lake.tail import cut_numbers
from claimhouse.query import guard
from claimhouse.query.engine import Engine, Shown
from claimhouse.query.guard import Statement
from claimhouse.query.moment import AtTime, Past, Position, iso, parse_for, resolve
from claimhouse.query.names import EXACT, HISTORY, LOG, Names, Path, Relation, TableName
from claimhouse.query.past import SourcePast
from claimhouse.query.versions import HistoryView, LogView
from claimhouse.query.views import ExactView, View
from claimhouse.quoting import quote

BATCH_ROWS = 10_000
ENGINES = 8  # how many sets of tables a session keeps ready
_VIEWS = {"": View, HISTORY: HistoryView, LOG: LogView, EXACT: ExactView}
_AS_TEXT = ("BIT", "BIGNUM", "UHUGEINT", "INTERVAL", "TIME WITH TIME ZONE", "UNION", "VARIANT", "TIME_NS")


class Session:
    """Read a lake by SQL. `at` as in `moment.parse_for`; `sources` defaults to all that have a cut.

    `past` tells what a source's transactions say of past positions (another runtime keeps some elsewhere).
    `warnings` grows by what a reader of the named tables must know (an errored table, an open dead letter).
    Raises NotExact for a moment that is not in the lake, UsageError, LakeError.
    """

    def __init__(
        self,
        lake: Lake,
        *,
        at: str | None = None,
        sources: Iterable[str] | None = None,
        zone: str = "UTC",
        threads: int | None = None,
        memory: str | None = None,
        past: Callable[[LakeSnapshot, duckdb.DuckDBPyConnection], Past] = SourcePast,
        engines: Iterable[Engine] = (),
    ) -> None:
        self.lake = lake
        self.at = at
        self._past, self._zone = past, zone
        self._sources = None if sources is None else list(sources)
        self.warnings: list[str] = []
        self.snapshots, self.empty = _take(lake, self._sources)
        self._options: dict[str, Any] = {"threads": threads, "memory": memory}
        self._engines = [] if engines else [Engine(lake, **self._options)]  # the one used last comes first
        self._earlier = list(engines)  # of an earlier moment
        self._times: dict[str, int] = {}  # of the sources that are asked for by time
        self.positions = self._resolve(at, zone)
        self.states = {
            TableName(source, state.schema, state.name): state
            for source, snapshot in self.snapshots.items()
            for state in sorted(snapshot.registry.tables.values(), key=lambda s: s.status != "gone")  # a name's heir
        }
        self.names = Names(self.states)
        self._views: dict[Relation, Shown] = {}
        self._read: set[TableName] = set()
        self._letters: dict[str, list[DeadLetter]] = {}

    def sql(self, text: str) -> Answer:
        """Run one reading statement. Raises QueryError, NotExact, LakeError."""
        statement = guard.read(self._any_engine().connection, text, ours=lambda p: self.names.relation(p) is not None)
        named = self._named(statement)
        engine = self._catalog(named) if statement.catalog else self._ready(named, statement.selective)
        columns = {c for table in self._read for c in self.columns(table)}
        return Answer(engine, statement.sql, columns)

    def table(self, name: str | tuple[str, ...]) -> Answer:
        """A whole table, named as in SQL without quotes (`claim`, `sales.Order`) or by its parts."""
        path = self.path(name)
        return self.sql(f"SELECT * FROM {'.'.join(map(quote, path))}")

    def exact(self, table: TableName) -> Answer:
        """A whole table and, as its last column, the texts that its columns cannot hold: see `views.ExactView`."""
        path = ("claimhouse_exact", table.source, table.schema, table.name)  # longer than any that a query can name
        engine = self._ready({path: self._view(Relation(table, EXACT))}, selective=False)
        return Answer(engine, f"SELECT * FROM {'.'.join(map(quote, path))}", self.columns(table))

    def count(self, source: str, schema: str, name: str) -> int:
        """How many rows a table has. Raises NotExact, LakeError."""
        path = ".".join(map(quote, (source, schema, name)))
        return self.sql(f"SELECT count(*) FROM {path}").arrow()[0][0].as_py()

    def log(self, folder: str, source: str | None = None) -> duckdb.DuckDBPyRelation | None:
        """Every row of a table's change log up to this cut, None where there is none. For a lake's own upkeep."""
        snapshot = self.snapshots[source or next(iter(self.snapshots))]
        files, tail = snapshot.changes_files(folder), snapshot.tail(folder)
        if not files and tail is None:
            return None
        connection = Engine(self.lake, **self._options).connection
        schema = schema_of(snapshot.registry.tables[folder])
        connection.from_arrow(tail if tail is not None else schema.empty_table()).create("tail")
        return connection.sql(f"{files_sql([f.uri for f in files], schema)} UNION ALL BY NAME FROM tail")

    def tables(self) -> list[TableName]:
        """The tables that are visible at this session's moment, sorted."""
        return [t for t in self.names.tables if self.hidden(t) is None]

    def columns(self, table: TableName) -> list[str]:
        """The source's names of a table's columns at this session's moment."""
        return [c.name for c in self.states[table].shape_at(self.positions[table.source].lsn).columns]

    def day(self) -> date | None:
        """The day, in the book's zone, of a past moment: of the time it is, or of the newest commit in it.

        None for now, and where nothing was committed yet.
        """
        if self.at is None:
            return None
        connection = Engine(self.lake, **self._options).connection
        times = [
            self._times.get(s) or SourcePast(snapshot, connection).committed_at(self.positions[s])
            for s, snapshot in self.snapshots.items()
        ]
        newest = max(times, default=0)
        return datetime.fromtimestamp(newest // 1_000_000, ZoneInfo(self._zone)).date() if newest else None

    def renewed(self) -> Session:
        """The same session opened anew, at the newest cuts unless it has a moment; it takes this one's engines over."""
        engines = [*self._engines, *self._earlier][:ENGINES] if self.at is None else []
        how: dict[str, Any] = {"at": self.at, "sources": self._sources, "zone": self._zone, "past": self._past}
        fresh = Session(self.lake, **how, engines=engines, **self._options)
        self._engines = [e for e in (*self._engines, *self._earlier) if e not in engines]
        self._earlier = []
        return fresh

    def close(self) -> None:
        """Let go of the engines; answers that are still being read go on."""
        for engine in (*self._engines, *self._earlier):
            engine.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- moments

    def _resolve(self, at: str | None, zone: str) -> dict[str, Position]:
        pasts = {s: self._past(snapshot, self._any_engine().connection) for s, snapshot in self.snapshots.items()}
        if at is None:
            return {source: past.newest for source, past in pasts.items()}
        moments = parse_for(at, pasts, zone=zone)
        self._times = {source: m.micros for source, m in moments.items() if isinstance(m, AtTime)}
        return {source: resolve(moments[source], past) for source, past in pasts.items()}

    def reads(self, table: TableName) -> TableState:
        """A table that a statement reads; its warnings are noted once. Raises NotExact, QueryError."""
        if error := self.hidden(table):
            raise error
        self.note(table)
        return self.states[table]

    def note(self, table: TableName) -> None:
        """Add to `warnings` what a reader of a table must know, once."""
        if table not in self._read:
            self._read.add(table)
            self._warn(table)

    @property
    def read(self) -> list[TableName]:
        """The tables that statements have read so far, sorted."""
        return sorted(self._read)

    def hidden(self, table: TableName) -> LakeError | QueryError | None:
        """Why a table cannot be read at this session's moment, None if it can."""
        state, position = self.states[table], self.positions[table.source]
        label = state.label
        if state.copy_at(position.lsn) is None:
            first = [c.exact_from for c in state.copies if c.exact_from is not None]
            if not first and state.status == "errored":
                return QueryError(f"table {label} is errored: {state.error}", hint="see claimhouse status")
            if not first:
                return QueryError(f"table {label} is still being copied", hint="see claimhouse status, try again later")
            return NotExact(
                f"table {label} is not known at {position}", hint=f"its history begins at {lsn_text(first[0])}"
            )
        begins_at = next((c.exact_at for c in state.copies if c.exact_from is not None), 0)
        if self._times.get(table.source, begins_at) < begins_at:
            return NotExact(f"table {label} is not known at that time", hint=f"its history begins at {iso(begins_at)}")
        if state.status == "gone" and (self.at is None or position.lsn >= (state.errored_at or OPEN_END)):
            return QueryError(
                f"table {label} no longer exists in the source", hint="read it at a moment when it did: --at"
            )
        for begins, ends in state.inexact:
            # Now, while a copy repairs the table, the old state is shown, with a warning; a past moment must be exact.
            if begins <= position.lsn < ends and not (ends == OPEN_END and self.at is None):
                return NotExact(
                    f"table {label} is not known exactly at {position}", hint=f"it is exact again from {lsn_text(ends)}"
                )
        return None

    # --- tables

    def path(self, name: str | Path) -> Path:
        """The path that a name without quotes (`claim`, `sales.Order`) means. Raises QueryError."""
        parts = name.split(".") if isinstance(name, str) else list(name)
        splits = [(".".join(parts[:n]), ".".join(parts[n:])) for n in range(1, len(parts))]
        for path in [name] if isinstance(name, tuple) else [(name,), *splits, tuple(parts)]:
            if self.names.relation(path):
                return path
        raise self.names.unknown(tuple(parts))

    def _named(self, statement: Statement) -> dict[Path, Shown]:
        """The views that a statement names, by its paths. Raises QueryError for a name that means no table."""
        found: dict[Path, Shown] = {}
        for path in statement.paths:
            relation = self.names.relation(path)
            if relation is not None:
                found[self.names.spelled(path, relation)] = self._view(relation)
            elif not guard.is_catalog(path):
                raise self.names.unknown(path)
        return found

    def _view(self, relation: Relation) -> Shown:
        if relation not in self._views:
            table = relation.table
            state = self.reads(table)
            view = _VIEWS[relation.suffix](self.snapshots[table.source], state, self.positions[table.source])
            if isinstance(view, HistoryView):
                self.warnings += view.blurred
            self._views[relation] = view
        return self._views[relation]

    def _ready(self, named: dict[Path, Shown], selective: bool) -> Engine:
        """An engine with a view for each name: one that has them, else a new one with these alone."""
        paths = set(named)
        engine = next((e for e in self._engines if e.locked and paths <= e.shown.keys()), None)
        if engine is None and (engine := self._renewed(named)) is None:
            free = self._engines[0] if self._engines and not self._engines[0].locked else None
            engine = free or Engine(self.lake, **self._options)
            engine.show(named)
        self._engines = [engine, *(e for e in self._engines if e is not engine)]
        while len(self._engines) > ENGINES:
            self._engines.pop().close()
        engine.use(paths, selective=selective)
        return engine

    def _renewed(self, named: dict[Path, Shown]) -> Engine | None:
        """An engine of an earlier moment that shows these now, the likeliest tried first."""
        for engine in sorted(self._earlier, key=lambda e: e.shown.keys() != named.keys()):
            if engine.renew(named):
                self._earlier.remove(engine)
                return engine
        return None

    def _any_engine(self) -> Engine:
        return (self._engines or self._earlier)[0]

    def _catalog(self, named: dict[Path, Shown]) -> Engine:
        """An engine for one statement about tables: every visible one is there, empty unless the statement names it."""
        engine = Engine(self.lake, **self._options)
        stubs = {}
        for table in self.tables():
            path = self.names.shortest(table)
            if len(path) == 1 and guard.is_catalog(path):  # there it would stand in for the engine's own list
                path = table.paths[-1]
            if path not in named:
                stubs[path] = self.states[table].shape_at(self.positions[table.source].lsn)
        engine.show(named, stubs)
        return engine

    def _warn(self, table: TableName) -> None:
        state, position = self.states[table], self.positions[table.source]
        if state.status == "errored" and (state.errored_at or 0) <= position.lsn:
            since = f" since {lsn_text(state.errored_at)}" if state.errored_at else ""
            self.warnings.append(f"table {state.label} is errored{since}: {state.error or 'see claimhouse status'}")
        if any(begins <= position.lsn < ends for begins, ends in state.inexact):
            self.warnings.append(f"table {state.label} is not exact: rows changed unseen, and are yet to be compared")
        if table.source not in self._letters:
            self._letters[table.source] = deadletters.letters(self.lake, table.source)
        if open_ := deadletters.still_open(self._letters[table.source], state, position.lsn):
            self.warnings.append(f"table {state.label} is not exact: {len(open_)} changes could not be kept")


class Answer:
    """What a query gives: read it once as batches, or whole as the frame you like."""

    def __init__(self, engine: Engine, text: str, columns: Collection[str] = ()) -> None:
        self._text, self._columns = text, columns
        with _explained(text, columns):
            self._cursor = engine.cursor()
            #: the answer as a DuckDB relation
            self.relation = _exportable(self._cursor.sql(text))

    @property
    def columns(self) -> list[str]:
        return self.relation.columns

    def interrupt(self) -> None:
        """Stop it, from another thread: whoever reads it gets a QueryError."""
        self._cursor.interrupt()

    def reader(self, rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """The answer in batches of about that many rows; memory follows the batch. Errors are QueryError."""
        with _explained(self._text, self._columns):
            found = self.relation.to_arrow_reader(rows)
        return pa.RecordBatchReader.from_batches(found.schema, self._batches(found))

    def _batches(self, found: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with _explained(self._text, self._columns):
            yield from found

    def arrow(self) -> pa.Table:
        with _explained(self._text, self._columns):
            return self.relation.to_arrow_table()

    def polars(self) -> Any:
        """A polars.DataFrame. Needs the extra `frames`."""
        import polars

        return polars.from_arrow(self.arrow())

    def pandas(self) -> Any:
        """A pandas.DataFrame with Arrow-backed columns, so that no value is rounded. Needs the extra `frames`."""
        import pandas

        return self.arrow().to_pandas(types_mapper=pandas.ArrowDtype)


def _exportable(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The relation with types that Arrow cannot hold exactly as text."""
    odd = [any(word in str(kind) for word in _AS_TEXT) for kind in relation.types]
    if not any(odd):
        return relation
    items = zip(relation.columns, odd, strict=True)
    columns = [f"{f'CAST(#{n} AS VARCHAR)' if o else f'#{n}'} AS {quote(c)}" for n, (c, o) in enumerate(items, 1)]
    return relation.project(", ".join(columns))


@contextlib.contextmanager
def _explained(text: str, columns: Collection[str]) -> Iterator[None]:
    """DuckDB's errors as QueryError, which may name these columns."""
    try:
        yield
    except duckdb.Error as error:
        raise guard.query_error(error, text, columns) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise guard.query_error(error, text, columns) from None


def _take(lake: Lake, sources: Iterable[str] | None) -> tuple[dict[str, LakeSnapshot], list[str]]:
    """The snapshots of the sources, and the names of those that have no cut yet. Raises LakeError."""
    if sources is not None:
        return {s: take(lake, s) for s in sources}, []
    found: dict[str, LakeSnapshot] = {}
    empty: list[str] = []
    for source in lake.sources():
        if cut_numbers(lake, source):
            found[source] = take(lake, source)
        else:
            empty.append(source)
    if not found and not empty and not lake.store.exists(LAKE):
        raise StorageGone(f"the lake is no longer at {lake.location}", hint="is its storage there?")
    return found, empty
