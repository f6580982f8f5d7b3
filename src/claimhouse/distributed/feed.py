"""Rows of the distributed tail as `Decoded`: what the embedded runtime's decoder yields, from Debezium's events.

From here on both runtimes are one: the same cut, flush, fold and registry take what comes. A table's events of one
shape are made into columns together: the values are looked up in the maps by Arrow, brought back to PostgreSQL's text
(`values`) and cast by the one cast per type.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import EXACT, TRANSACTIONS, Changes, Decoded, old_name, section_schema
from claimhouse.distributed.values import source_text
from claimhouse.errors import Unsupported
from claimhouse.postgres.types import cast
from claimhouse.table import Column, Table

Resolve = Callable[[str, str, frozenset[str], int], Table | None]
Wire = Callable[[Column], int]


@dataclass(frozen=True, slots=True)
class Events:
    """Rows of whole transactions, by `end_lsn` and `seq`: columns of the tail table, with 64-bit `xid`."""

    rows: pa.Table
    transactions: pa.Table  # xid (64 bits), end_lsn, at; by end_lsn


def decode(events: Events, resolve: Resolve, wire: Wire, placeholder: str) -> Decoded:
    """Whole transactions as changes. `resolve(schema, name, columns, lsn)` gives the shape that such rows have.

    A value that cannot be kept makes an error of its table.
    """
    changes: list[Changes] = []
    errors: list[tuple[Table, int, str]] = []
    counts: dict[int, dict[str, int]] = {}
    at = events.transactions.column("at").to_numpy() if events.transactions.num_rows else np.empty(0, np.int64)
    rows = events.rows.combine_chunks()
    for schema, name, names, some in _groups(rows):
        table = resolve(schema, name, names, int(some.column("end_lsn")[0].as_py()))
        if table is None:
            continue
        try:
            changes.append(_changes(some, table, wire, placeholder))
        except Unsupported as error:  # this table stops here, the others go on
            errors.append((table, int(some.column("end_lsn")[0].as_py()), str(error)))
            continue
        for lsn, number in zip(*np.unique(some.column("end_lsn").to_numpy(), return_counts=True), strict=True):
            per = counts.setdefault(int(lsn), {})
            per[table.folder] = per.get(table.folder, 0) + int(number)
    return Decoded(
        changes=_ordered(changes),
        errors=errors,
        transactions=_transactions(events.transactions, counts),
        end_lsn=int(events.transactions.column("end_lsn")[-1].as_py()) if len(at) else 0,
        max_committed_at=int(at.max()) if len(at) else 0,
        size=sum(c.batch.nbytes for c in changes),
    )


def _groups(rows: pa.Table) -> Iterator[tuple[str, str, frozenset[str], pa.Table]]:
    """Runs of events of one table and one set of columns, each table's in order of the log."""
    keep = pc.and_(pc.is_in(rows.column("op"), pa.array(["c", "u", "d", "t"])), pc.is_valid(rows.column("name")))
    rows = rows.filter(keep)
    if not rows.num_rows:
        return
    label = pc.binary_join_element_wise(rows.column("schema"), rows.column("name"), "\0")
    label = label.combine_chunks().dictionary_encode()
    for place, word in enumerate(label.dictionary.to_pylist()):
        schema, _, name = word.partition("\0")
        mine = rows.filter(pc.equal(label.indices, place)).sort_by([("end_lsn", "ascending"), ("seq", "ascending")])
        yield from _by_columns(schema, name, mine)


def _by_columns(schema: str, name: str, rows: pa.Table) -> Iterator[tuple[str, str, frozenset[str], pa.Table]]:
    """Cut where the set of columns changes; deletes and truncates go with what is before them."""
    rows = rows.combine_chunks()
    image = pc.if_else(pc.is_valid(rows.column("after")), rows.column("after"), rows.column("before")).combine_chunks()
    offsets = image.offsets.to_numpy()
    keys = image.keys.dictionary_encode()
    codes = keys.indices.to_numpy(zero_copy_only=False)
    words = keys.dictionary.to_pylist()
    valid = image.is_valid().to_numpy(zero_copy_only=False)
    start, held = 0, b""
    for i in range(len(image)):
        if not valid[i]:
            continue
        now = codes[offsets[i] : offsets[i + 1]].tobytes()
        if held and now != held:
            yield schema, name, _names(held, codes.dtype, words), rows.slice(start, i - start)
            start = i
        held = now
    yield schema, name, _names(held, codes.dtype, words), rows.slice(start)


def _names(codes: bytes, dtype: np.dtype, words: list[str]) -> frozenset[str]:
    return frozenset(words[c] for c in np.frombuffer(codes, dtype))


def _changes(rows: pa.Table, table: Table, wire: Wire, placeholder: str) -> Changes:
    count = rows.num_rows
    op = rows.column("op").combine_chunks()
    before, after, old = (rows.column(n).combine_chunks() for n in ("before", "after", "old"))
    delete, update = pc.equal(op, "d"), pc.equal(op, "u")
    key = {c.name for c in table.key}
    values: dict[str, pa.Array] = {}
    exacts: dict[str, pa.Array] = {}
    missing: list[tuple[str, pa.Array]] = []
    for column in table.columns:
        text = _lookup(after, column.name)
        if column.name in key:
            text = pc.if_else(delete, _lookup(before, column.name), text)
        lacks = _lacks(text, column, placeholder)
        if lacks is not None:
            was = _lookup(before, column.name)  # REPLICA IDENTITY FULL brings the old value
            text = pc.if_else(lacks, was, text)
            missing.append((column.physical, pc.and_(lacks, pc.is_null(was))))
        values[column.physical], exact = cast(source_text(text, column, wire(column)), column)
        if exact is not None:
            exacts[column.physical] = exact
    for column, text in _olds(table, update, before, after, old):
        typed, exact = cast(source_text(text, column, wire(column)), column)
        values[old_name(column.physical)] = typed
        if exact is not None:
            exacts[old_name(column.physical)] = exact
    schema = section_schema(table)
    meta = {
        "_op": op,
        "_end_lsn": rows.column("end_lsn").combine_chunks(),
        "_seq": rows.column("seq").combine_chunks(),
        "_xid": rows.column("xid").combine_chunks(),
        "_committed_at": rows.column("at").combine_chunks().cast(schema.field("_committed_at").type),
        "_schema": pa.array(np.full(count, table.version, np.int32)),
        "_missing": _joined(missing, count),
        "_exact": _exact(exacts, count),
    }
    named = values | meta
    arrays = [named[f.name].cast(f.type) if f.name in named else pa.nulls(count, f.type) for f in schema]
    return Changes(table, pa.RecordBatch.from_arrays(arrays, schema=schema))


def _olds(
    table: Table, update: pa.Array, before: pa.Array, after: pa.Array, old: pa.Array
) -> Iterator[tuple[Column, pa.Array]]:
    """The identity columns' values before an update: always for identity 'full', else where any of them changed."""
    texts: list[tuple[Column, pa.Array]] = []
    moved = update if table.identity == "full" else pa.array(np.zeros(len(update), bool))
    for column in table.key:
        was = pc.coalesce(_lookup(before, column.name), _lookup(old, column.name))
        texts.append((column, was))
        if table.identity != "full":
            is_ = _lookup(after, column.name)
            differs = pc.and_(pc.fill_null(pc.not_equal(was, is_), False), update)
            moved = pc.or_(moved, differs)
    for column, was in texts:
        yield column, pc.if_else(moved, was, pa.scalar(None, pa.string()))


def _lookup(maps: pa.Array, name: str) -> pa.Array:
    return pc.map_lookup(maps, name, "first")


def _lacks(text: pa.Array, column: Column, placeholder: str) -> pa.Array | None:
    """Which values are the stand-in for an unchanged TOAST value; None where none is."""
    words = [placeholder, f'["{placeholder}"]', placeholder.encode().hex(), f'["{placeholder.encode().hex()}"]']
    found = pc.is_in(text, pa.array(words))
    return found if pc.any(found).as_py() else None


def _joined(missing: Sequence[tuple[str, pa.Array]], count: int) -> pa.Array:
    """The names of the columns that each row lacks, comma-joined; NULL where it lacks none."""
    if not missing:
        return pa.nulls(count, pa.string())
    lacks = np.stack([pc.fill_null(m, False).to_numpy(zero_copy_only=False) for _, m in missing], axis=1)
    patterns, which = np.unique(lacks, axis=0, return_inverse=True)
    words = [",".join(n for (n, _), out in zip(missing, p, strict=True) if out) or None for p in patterns]
    return pa.array(words, pa.string()).take(pa.array(which.ravel()))


def _exact(exacts: dict[str, pa.Array], count: int) -> pa.Array:
    if not exacts:
        return pa.nulls(count, EXACT)
    columns = {name: e.to_pylist() for name, e in exacts.items()}
    rows = [[(n, c[i]) for n, c in columns.items() if c[i] is not None] or None for i in range(count)]
    return pa.array(rows, EXACT)


def _ordered(changes: list[Changes]) -> list[Changes]:
    """Batches of one table by position (shapes alternate only at a DDL)."""
    return sorted(changes, key=lambda c: (c.table.folder, c.table.version))


def _transactions(done: pa.Table, counts: dict[int, dict[str, int]]) -> pa.RecordBatch:
    """The transactions that changed rows, schema TRANSACTIONS."""
    done = done.filter(pc.is_in(done.column("end_lsn"), pa.array(list(counts), pa.int64()))).combine_chunks()
    per = [list(counts[lsn].items()) for lsn in done.column("end_lsn").to_pylist()]
    arrays = [
        done.column("xid").combine_chunks(),
        done.column("end_lsn").combine_chunks(),
        done.column("at").combine_chunks().cast(TRANSACTIONS.field("committed_at").type),
        pa.array(per, TRANSACTIONS.field("counts").type),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=TRANSACTIONS)
