"""What of a table is not in the lake as it is in the source, and the changes that mend it.

Rows can change without an event: by a rewrite, or while a slot was lost. Such a table is read as a copy reads it, but
its rows are held against the lake's by hash, and only what differs comes into the log: as changes, behind everything
that the stream has brought, so that whoever reads the log needs no rule for them. They have no transaction id.

A row that the stream touches meanwhile is the stream's: it is left out here, and compared again by itself with exactly
what one snapshot of PostgreSQL sees. Which rows these are, the cutter (see copies) can say once the stream has passed
the last read.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import Changes, old_name, section_schema
from claimhouse.lake.defaults import duck_type
from claimhouse.lake.held import Held, aligned
from claimhouse.lake.lake import Lake
from claimhouse.lake.relation import engine
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.lake.state import may_be_exact
from claimhouse.postgres.rows import exact_map, exact_of
from claimhouse.postgres.types import cast, render
from claimhouse.quoting import quote, quote_text
from claimhouse.table import Column, Table

DIFFERING_BYTES = 64 << 20  # more that differs is copied anew, table and all
GONE_ROWS = 500_000
MEMORY = "200MB"
_FIRST = 1 << 40  # `_seq` of a correction: behind all that a transaction can bring


class TooMuch(Exception):
    """So much differs that the table is better copied anew."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Rows that are the stream's, as PostgreSQL's text of their keys: an array per key column. Of `lacking` it did not
    bring all values, and what the lake takes them from may be wrong."""

    keys: list[pa.Array]
    lacking: list[pa.Array]

    @classmethod
    def of(cls, found: list[Touched], columns: int) -> Touched:
        none = pa.array([], pa.string())
        return cls(
            [pa.concat_arrays([none, *(f.keys[i] for f in found)]) for i in range(columns)],
            [pa.concat_arrays([none, *(f.lacking[i] for f in found)]) for i in range(columns)],
        )


@dataclass(frozen=True, slots=True)
class Corrections:
    """Changes that make the lake's rows those of the source, unless the stream touched them: above the position
    `after`, or, where `sees` is given, by a transaction that this snapshot (pg_snapshot text) does not see.

    A cut that takes them ends behind `after`, and not before `until`: what was read is known to the stream by then."""

    changes: Changes
    after: int
    until: int
    sees: str | None = None

    def but(self, touched: Touched) -> tuple[Corrections, list[pa.Array]]:
        """Those of rows that the stream did not touch, and the keys of the others."""
        keys = [texts_of(self.changes.batch, c) for c in self.changes.table.key]
        names = [str(i) for i in range(len(keys))]
        unique = pa.Table.from_arrays(touched.keys, names=names).group_by(names).aggregate([]).combine_chunks()
        places, _, others, _ = aligned(keys, [unique.column(n).combine_chunks() for n in names])
        batch = self.changes.batch.take(others.sort())
        return replace(self, changes=Changes(self.changes.table, batch)), [k.take(places) for k in keys]

    def placed(self, end_lsn: int, committed_at: int) -> Changes:
        """As rows of a cut that ends there; `committed_at` in microseconds."""
        batch, rows = self.changes.batch, self.changes.batch.num_rows
        schema = batch.schema
        meta = {
            "_end_lsn": pa.repeat(pa.scalar(end_lsn, pa.int64()), rows),
            "_seq": pa.array(np.arange(_FIRST, _FIRST + rows, dtype=np.int64)),
            "_committed_at": pa.repeat(pa.scalar(committed_at, pa.int64()), rows).cast(
                schema.field("_committed_at").type
            ),
        }
        arrays = [meta.get(name, batch.column(i)) for i, name in enumerate(schema.names)]
        return Changes(self.changes.table, pa.RecordBatch.from_arrays(arrays, schema=schema))


@contextmanager
def comparing(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """An engine for `differing`, with bounded memory."""
    with tempfile.TemporaryDirectory(prefix="claimhouse-compare-") as spill, engine(lake, spill, memory=MEMORY) as db:
        yield db


def differing(
    db: duckdb.DuckDBPyConnection,
    snapshot: LakeSnapshot,
    table: Table,
    rows: Iterable[Changes],
    *,
    sees: str | None = None,
    keys: list[pa.Array] | None = None,
) -> Changes | None:
    """The changes (c, u, d) from the lake's rows to these, the source's: all of a table with a key, or those of `keys`.

    `rows` are `r` changes of the shape `table`, with `_seq` that no other row of theirs has. With `sees`, the lake's
    rows are what this snapshot of PostgreSQL sees; None where a fold made that impossible. Raises TooMuch, LakeError.
    """
    held = Held(db, snapshot, snapshot.registry.tables[table.folder], sees)
    if held.ahead():
        return None
    lakes = held.sql if keys is None else held.of_keys(table.key, typed_keys(table.key, keys))
    hashes = _hashes(table)
    db.execute(f"CREATE OR REPLACE TEMP TABLE held AS SELECT {hashes} FROM ({lakes}) r")
    db.execute("CREATE OR REPLACE TEMP TABLE brought (_kh UBIGINT, _rh UBIGINT)")
    new, size = [section_schema(table).empty_table()], 0
    for changes in rows:
        db.register("chunk", pa.Table.from_batches([changes.batch]))
        db.execute(f"CREATE OR REPLACE TEMP TABLE hashed AS SELECT r._seq AS place, {hashes} FROM chunk r")
        db.execute("INSERT INTO brought SELECT _kh, _rh FROM hashed")
        places = db.sql("SELECT place FROM hashed ANTI JOIN held USING (_kh, _rh)").to_arrow_table()["place"]
        db.unregister("chunk")
        if len(places):
            some = changes.batch.filter(pc.is_in(changes.batch.column("_seq"), places.combine_chunks()))
            new.append(pa.Table.from_batches([some]))
            if (size := size + some.nbytes) > DIFFERING_BYTES:
                raise TooMuch
    db.execute("CREATE OR REPLACE TEMP TABLE stale AS SELECT _kh, _rh FROM held ANTI JOIN brought USING (_kh, _rh)")
    ((stale,),) = db.execute("SELECT count(*) FROM stale").fetchall()
    if stale > GONE_ROWS:
        raise TooMuch
    names = ", ".join([*(quote(c.physical) for c in table.key), "_exact"])
    wanted = f"SELECT {names} FROM (SELECT *, {hashes} FROM ({lakes}) r) SEMI JOIN stale USING (_kh, _rh)"
    return _changed(table, pa.concat_tables(new).combine_chunks(), db.sql(wanted).to_arrow_table().combine_chunks())


def touched_by(changes: Changes, *, first: bool) -> Touched:
    """The rows that streamed changes are of, before and after. Of `section_schema` only what tells that is needed.

    Where the table was read chunk by chunk (`first`), a row can have moved away from the reading: each that lacks a
    value is to be looked at. Later, when rows were read by their keys, only those under new ones.
    """
    batch, table = changes.batch, changes.table
    exact = batch.column("_exact")
    news = [texts_of(batch, c) for c in table.key]
    olds = [render(batch.column(old_name(c.physical)), exact_of(exact, old_name(c.physical)), c) for c in table.key]
    lacking = batch.column("_missing").is_valid()
    if not first:
        moved = np.any([old.is_valid().to_numpy(zero_copy_only=False) for old in olds], axis=0)
        lacking = pc.and_(lacking, pa.array(moved))
    return Touched(
        [pa.concat_arrays([new, pc.coalesce(old, new)]) for new, old in zip(news, olds, strict=True)],
        [new.filter(lacking) for new in news],
    )


def typed_keys(key: Sequence[Column], texts: Sequence[pa.Array]) -> pa.Table:
    """Keys given as PostgreSQL's text, as `Held.of_keys` wants them."""
    columns: dict[str, pa.Array] = {}
    for i, (column, text) in enumerate(zip(key, texts, strict=True)):
        columns[f"k{i}"], exact = cast(text, column)
        if may_be_exact(column.kind):
            columns[f"x{i}"] = exact if exact is not None else pa.nulls(len(text), pa.string())
    return pa.table(columns)


def texts_of(rows: pa.Table | pa.RecordBatch, column: Column) -> pa.Array:
    """A column's values as PostgreSQL prints them."""
    return render(_flat(rows.column(column.physical)), exact_texts(rows, column), column)


def exact_texts(rows: pa.Table | pa.RecordBatch, column: Column) -> pa.Array:
    """A column's part of `_exact`."""
    exact = _flat(rows.column("_exact"))
    return exact_of(exact, column.physical) if may_be_exact(column.kind) else pa.nulls(len(exact), pa.string())


def _changed(table: Table, new: pa.Table, stale: pa.Table) -> Changes:
    """Rows that the source has so, and the lake's rows that are not so there, as changes of the lake's."""
    schema = section_schema(table)
    theirs, ours = ([texts_of(rows, c) for c in table.key] for rows in (new, stale))
    changed, _, lacking, gone = aligned(theirs, ours)
    # Deletes first: the lake compares keys as values, and -0 is 0.
    batches = [
        _deletes(schema, table, stale.take(gone)),
        _batch(schema, new.take(changed), "u"),
        _batch(schema, new.take(lacking), "c"),
    ]
    whole = pa.concat_tables(pa.Table.from_batches([b]) for b in batches).combine_chunks()
    return Changes(table, whole.to_batches()[0] if whole.num_rows else batches[0])


def _deletes(schema: pa.Schema, table: Table, rows: pa.Table) -> pa.RecordBatch:
    """Deletes carry their key alone."""
    exacts = [(c.physical, exact_texts(rows, c)) for c in table.key if may_be_exact(c.kind)]
    named = {c.physical: _flat(rows.column(c.physical)) for c in table.key}
    named |= {"_exact": exact_map(exacts, rows.num_rows)}
    named["_schema"] = pa.repeat(pa.scalar(table.version, pa.int32()), rows.num_rows)
    filled = [named[f.name].cast(f.type) if f.name in named else pa.nulls(rows.num_rows, f.type) for f in schema]
    return _batch(schema, pa.Table.from_arrays(filled, schema=schema), "d")


def _batch(schema: pa.Schema, rows: pa.Table, op: str) -> pa.RecordBatch:
    meta = {
        "_op": pa.repeat(pa.scalar(op, pa.string()), rows.num_rows),
        "_copy": pa.nulls(rows.num_rows, pa.int32()),
    }
    return pa.RecordBatch.from_arrays([meta.get(n, _flat(rows.column(n))) for n in schema.names], schema=schema)


def _hashes(table: Table) -> str:
    """SQL over relation `r`: a row's key and all of its values, hashed alike on both sides."""
    key = [word for c in table.key for word in _words(c)]
    rest = [word for c in table.columns if not c.key for word in _words(c)]
    return f"hash({', '.join(key)}) AS _kh, hash(r._missing, {', '.join([*key, *rest])}) AS _rh"


def _words(column: Column) -> Iterator[str]:
    value = f"CAST(r.{quote(column.physical)} AS {duck_type(column.kind)})"
    # As numbers -0 is 0, and all NaN are one.
    yield f"CAST({value} AS VARCHAR)" if "float" in column.kind else value
    if column.kind.startswith("list<"):  # an empty list is hashed as NULL is
        yield f"len({value})"
    if may_be_exact(column.kind):
        yield f"r._exact[{quote_text(column.physical)}]"


def _flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
