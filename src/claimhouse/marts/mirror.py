"""The insurer's tables that a model reads, in memory, moved from cut to cut by the rows that each cut brought.

It begins as what a session reads at one cut, and holds only the columns that the model names. A cut's rows then take
the place of those with their keys, whole rows from the log: the lake is not asked again. What that cannot follow (a
truncate, a new copy, another shape of a needed column, a table whose rows have no key, a cut that was dropped before it
was read) is told by `Stale`; the mirror is then made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import old_name
from claimhouse.errors import ClaimhouseError, UsageError
from claimhouse.lake import registry as registries
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import OPEN_END, Registry, TableState
from claimhouse.lake.tail import Cut, CutMark, load
from claimhouse.marts.model import Model, columns
from claimhouse.query.session import Session
from claimhouse.quoting import quote
from claimhouse.table import Table

ANEW = 3600.0  # seconds after which a mirror is made anew, so that memory of deleted rows is given back


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in a source a mirror stands: a cut, its end and its newest commit time (microseconds)."""

    source: str
    incarnation: int
    cut: int
    lsn: int
    at: int


class Stale(ClaimhouseError):
    """The mirror cannot follow; make it anew."""


class NotThere(ClaimhouseError):
    """A table that the model reads is not visible yet."""

    retry = True


@dataclass(frozen=True)
class _Kept:
    """One table: where it lies in the lake, the model's name of it, its columns and key by the source's names."""

    folder: str
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    print: tuple[object, ...]  # what must stay as it is


class Mirror:
    """The tables of a model at `moment`. `connection` holds them under the model's names."""

    def __init__(self, lake: Lake, model: Model, source: str | None = None) -> None:
        self.lake, self.model = lake, model
        self.connection = duckdb.connect(config={"threads": 1})
        self.connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        self._registry: tuple[str, Registry] | None = None
        with Session(lake, sources=None if source is None else [source]) as session:
            self.source, found = _places(session, model)
            mark, registry = session.snapshots[self.source].mark, session.snapshots[self.source].registry
            self._kept = {f: _kept(registry.tables[f], n, c) for f, (n, c) in found.items()}
            for kept in self._kept.values():
                listed = ", ".join(map(quote, kept.columns))
                rows = session.sql(f"SELECT {listed} FROM {kept.name}").arrow()
                self._make(kept, rows)
        self.moment = _moment(mark)

    def _make(self, kept: _Kept, rows: pa.Table) -> None:
        self.connection.register("_rows", rows)
        self.connection.execute(f"CREATE TABLE {kept.name} AS FROM _rows")
        self.connection.unregister("_rows")

    @property
    def tables(self) -> list[str]:
        return [kept.name for kept in self._kept.values()]

    def read(self, last: int) -> Change:
        """What the cuts after this one up to `last` change. Raises Stale."""
        try:
            cuts = load(self.lake, self.source, self.moment.cut + 1, last)
        except KeyError:
            raise Stale("cuts were dropped before they were read") from None
        registry = self._look(cuts[-1].mark)
        for folder, kept in self._kept.items():
            state = registry.tables.get(folder)
            if state is None or _print(state, kept.columns) != kept.print:
                raise Stale(f"table {kept.name} was copied anew or changed its shape")
        settled = {}
        for folder, kept in self._kept.items():
            state = registry.tables[folder]
            if found := _log_rows(cuts, state, kept):
                # Where changes were lost, an insert may bring a row again that was deleted unseen.
                sure = all(end != OPEN_END for _, end in state.inexact)
                settled[kept.name] = settle(self.connection, kept.name, kept.key, pa.concat_tables(found), sure=sure)
        return Change(self, settled, _moment(cuts[-1].mark), _first(cuts))

    def _look(self, mark: CutMark) -> Registry:
        if self._registry is None or self._registry[0] != mark.registry:
            self._registry = (mark.registry, registries.load(self.lake, self.source, mark.registry))
        return self._registry[1]

    def key(self, table: str) -> tuple[str, ...]:
        """The key columns of a table, by its name in the model."""
        return next(kept.key for kept in self._kept.values() if kept.name == table)

    def close(self) -> None:
        self.connection.close()


@dataclass(frozen=True, slots=True)
class Settled:
    """What log rows come to in a table: the rows that they take away and those that they leave.

    A row that is the same afterwards, as far as the model's columns go, is in neither.
    """

    key: tuple[str, ...]
    before: pa.Table
    after: pa.Table


@dataclass
class Change:
    """What cuts bring, not yet in the mirror: by table. `first_at`: the oldest commit time in them, microseconds."""

    mirror: Mirror
    settled: dict[str, Settled]
    moment: Moment
    first_at: int

    def apply(self) -> None:
        """Take it into the mirror."""
        for name, settled in self.settled.items():
            apply(self.mirror.connection, name, settled)
        self.mirror.moment = self.moment


def settle(
    connection: duckdb.DuckDBPyConnection, name: str, key: tuple[str, ...], rows: pa.Table, *, sure: bool
) -> Settled:
    """What rows in order of the log come to: `_op`, the table's columns, `_old_<key>` where an update moved the row.

    `sure`: what an insert brings is not there yet.

    Arrow does most of it, not SQL: DuckDB plans every statement anew, which costs more than these few rows.
    """
    columns = [c for c in rows.column_names if not c.startswith("_")]
    after = rows.select(columns)
    if sure and set(pc.unique(rows["_op"]).to_pylist()) == {"c"}:
        return Settled(key, after.slice(0, 0), after)
    place = pa.array(range(rows.num_rows), pa.int64())
    events = rows.select(key).append_column("_at", pc.add(pc.multiply(place, 2), 1))
    moved = rows.append_column("_at", pc.multiply(place, 2)).filter(pc.equal(rows["_op"], "u"))
    olds = [pc.coalesce(moved[old_name(k)], moved[k]).cast(events.schema.field(k).type) for k in key]
    events = pa.concat_tables([events, pa.table([*olds, moved["_at"]], names=[*key, "_at"])])
    last = events.group_by(list(key), use_threads=False).aggregate([("_at", "max")])
    # An odd place is that of a row under its own key, an even one that of a key which a row has left.
    own = last["_at_max"].filter(pc.equal(pc.bit_wise_and(last["_at_max"], 1), 1))
    kept = rows.take(pc.shift_right(own, 1))
    after = kept.filter(pc.not_equal(kept["_op"], "d")).select(columns)
    listed = ", ".join(f"t.{quote(c)}" for c in columns)
    given = last  # noqa: F841  named in the SQL below
    before = connection.sql(f"SELECT {listed} FROM {name} t WHERE {_given(key)}").to_arrow_table()
    return Settled(key, *_differing(before, after))


def _differing(before: pa.Table, after: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both without the rows that are in both."""
    try:
        both = pa.concat_tables([before, after.cast(before.schema)])
        both = both.append_column("_after", pa.array([False] * before.num_rows + [True] * after.num_rows))
        counted = both.group_by(before.column_names, use_threads=False).aggregate(
            [("_after", "any"), ([], "count_all")]
        )
    except pa.ArrowException:  # of a type that Arrow cannot compare: then all of them count
        return before, after
    single = counted.filter(pc.equal(counted["count_all"], 1))
    new = single["_after_any"]
    return tuple(single.filter(side).select(before.column_names) for side in (pc.invert(new), new))  # type: ignore


def apply(connection: duckdb.DuckDBPyConnection, name: str, settled: Settled) -> None:
    """Put the rows of a change in the place of those that it takes away."""
    given = settled.before
    if given.num_rows:
        connection.execute(f"DELETE FROM {name} t WHERE {_given(settled.key)}")
    given = settled.after
    if given.num_rows:
        connection.execute(f"INSERT INTO {name} BY NAME FROM given")


def _given(key: Sequence[str]) -> str:
    """That a row of `t` has one of the keys in `given`."""
    if len(key) == 1:
        return f"t.{quote(key[0])} IN (SELECT {quote(key[0])} FROM given)"
    match = " AND ".join(f"t.{quote(k)} = k.{quote(k)}" for k in key)
    return f"EXISTS (SELECT 1 FROM given k WHERE {match})"


def _places(session: Session, model: Model) -> tuple[str, dict[str, tuple[str, set[str]]]]:
    """The one source whose tables a model names, and folder -> (name in the model, columns). Raises NotThere."""
    found: dict[str, tuple[str, set[str]]] = {}
    sources = set()
    visible = set(session.tables())
    for name, needed in columns(model).items():
        parts = tuple(p.strip('"') for p in name.split("."))
        table = session.names.find(parts)
        if table is None or table not in visible:
            raise NotThere(f"table {name} is not in the lake yet", hint="it is still being copied, or not captured")
        sources.add(table.source)
        found[session.states[table].folder] = (name, needed)
    if len(sources) != 1:
        raise UsageError("the model's tables lie in several sources", hint="name one: --name")
    return sources.pop(), found


def _kept(state: TableState, name: str, needed: set[str]) -> _Kept:
    shape = state.table
    if shape.identity != "key":
        raise UsageError(
            f"table {state.label} has no key, so its rows cannot be followed", hint="give it a primary key"
        )
    key = tuple(c.name for c in shape.key)
    listed = tuple(c.name for c in shape.columns if c.name in needed or c.name in key)
    if missing := needed - {c.name for c in shape.columns}:
        raise UsageError(f"table {state.label} has no column {min(missing)}", hint="the model names it")
    return _Kept(state.folder, name, listed, key, _print(state, listed))


def _print(state: TableState, names: Iterable[str]) -> tuple[object, ...]:
    """What of a table's state decides how its log rows are read."""
    held = {c.name: (c.physical, c.kind, c.key) for c in state.table.columns}
    copies = tuple((c.number, c.exact_from) for c in state.copies)
    return (state.status == "gone", state.table.identity, copies, *state.inexact, *(held.get(n) for n in names))


def _log_rows(cuts: Sequence[Cut], state: TableState, kept: _Kept) -> list[pa.Table]:
    found = []
    for cut in cuts:
        if kept.folder not in cut.mark.tables:
            continue
        for version, batch in cut.batches(kept.folder):
            found.append(_named(batch, state.shape(version), kept))
    return found


def _named(batch: pa.RecordBatch, shape: Table, kept: _Kept) -> pa.Table:
    """Log rows under the source's names: `_op`, the kept columns, `_old_<key>`."""
    ops = set(pc.unique(batch["_op"]).to_pylist())
    if not ops <= {"c", "u", "d"}:
        raise Stale(f"table {kept.name} was truncated or copied")
    physical = {c.name: c.physical for c in shape.columns}
    if not set(kept.columns) <= physical.keys():
        raise Stale(f"table {kept.name} had another shape")
    missing = {name for text in pc.unique(batch["_missing"]).to_pylist() if text for name in text.split(",")}
    if missing & {physical[c] for c in kept.columns}:
        raise Stale(f"table {kept.name} has a large value that did not come along")
    columns = {"_op": batch["_op"], **{c: batch[physical[c]] for c in kept.columns}}
    columns |= {old_name(k): batch[old_name(physical[k])] for k in kept.key}
    return pa.table(columns)


def _first(cuts: Sequence[Cut]) -> int:
    times = [pc.min(cut.transactions()["committed_at"].cast(pa.int64())).as_py() for cut in cuts]
    return min((t for t in times if t is not None), default=cuts[-1].mark.max_committed_at)


def _moment(mark: CutMark) -> Moment:
    return Moment(mark.source, mark.incarnation, mark.cut, mark.end_lsn, mark.max_committed_at)
