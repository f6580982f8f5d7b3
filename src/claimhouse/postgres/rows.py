"""Rows of one table version out of their messages: the batch that goes into a cut.

All rows of the group are built column by column (see tuples). What an update leaves out (unchanged TOAST) is taken from
the old tuple where that was sent, else its column is named in `_missing`. Where a kind cannot hold a value, its text
goes to `_exact`. An identity column's old value stands in `_old_…` where the key changed.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import EXACT, old_name, section_schema
from claimhouse.errors import Unsupported
from claimhouse.postgres.tuples import TEXT, UNCHANGED, Cells, Memory, walk
from claimhouse.postgres.types import cast
from claimhouse.table import Column, Table

INSERT, UPDATE, DELETE, TRUNCATE = (ord(c) for c in "IUDT")
BLOCK = 1 << 14  # rows: the columns are walked one after the other, faster while their messages stay in the cache
_NEW = ord("N")
_OPS = np.zeros(256, np.uint8)
_OPS[[INSERT, UPDATE, DELETE, TRUNCATE]] = np.frombuffer(b"cudt", np.uint8)


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """`flags` 1: part of the replica identity."""

    flags: int
    name: str
    type_oid: int
    typmod: int


@dataclass(frozen=True, slots=True)
class Relation:
    """What the stream says about a table before its rows. `identity` is pg_class.relreplident: d, n, f or i."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Messages:
    """Row messages of one table version, in commit order (n each): what they are, where, and whose."""

    memory: Memory
    kinds: np.ndarray  # uint8: I, U, D or T
    offsets: np.ndarray  # int64
    end_lsn: np.ndarray
    seq: np.ndarray
    xid: np.ndarray
    committed_at: np.ndarray  # microseconds since 1970
    transaction: np.ndarray  # its index in the stretch

    def __len__(self) -> int:
        return len(self.kinds)

    def part(self, begin: int, end: int) -> Messages:
        """Those in [begin, end)."""
        fields = (self.kinds, self.offsets, self.end_lsn, self.seq, self.xid, self.committed_at, self.transaction)
        return Messages(self.memory, *(f[begin:end] for f in fields))


class Shape:
    """A table version together with the relation under which its rows come: which cell goes to which column."""

    def __init__(self, relation: Relation, table: Table) -> None:
        self.relation = relation
        self.table = table
        places = {column.name: place for place, column in enumerate(relation.columns)}
        self.places = [places.get(column.name) for column in table.columns]
        self.key = [(places.get(column.name), column) for column in table.key]
        self.schema = section_schema(table)

    def batch(self, messages: Messages) -> pa.RecordBatch:
        """The changes that these messages tell. Raises Unsupported."""
        if len(messages) <= BLOCK:
            return pa.RecordBatch.from_arrays(_Rows(self, messages).arrays(), schema=self.schema)
        blocks = range(0, len(messages), BLOCK)
        return pa.concat_batches([self.batch(messages.part(begin, begin + BLOCK)) for begin in blocks])


class _Rows:
    """One batch in the making."""

    def __init__(self, shape: Shape, messages: Messages) -> None:
        self.shape = shape
        self.messages = messages
        self.memory = messages.memory
        self.n = len(messages)
        told = np.flatnonzero(messages.kinds != TRUNCATE)
        self.told = None if len(told) == self.n else told  # the rows that have a tuple, if not all do
        self.kinds = messages.kinds[told]
        self.exact: list[tuple[str, pa.Array]] = []
        self._walk(messages.offsets[told])

    def _walk(self, offsets: np.ndarray) -> None:
        """Find all cells: `first` of the tuple that comes first, `cells` of the row as it is now."""
        memory, columns = self.memory, len(self.shape.relation.columns)
        self._expect(offsets + 6, columns)
        self.first, end = walk(memory, offsets + 8, columns)
        self.cells = self.first
        self.old = np.flatnonzero(
            (self.kinds == UPDATE) & (memory.bytes[offsets + 5] != _NEW)
        )  # rows with an old tuple
        if len(self.old):
            self._expect(end[self.old] + 1, columns)
            second, _ = walk(memory, end[self.old] + 3, columns)
            self.cells = [self._now(old, new) for old, new in zip(self.first, second, strict=True)]

    def _expect(self, places: np.ndarray, columns: int) -> None:
        cells = self.memory.bytes
        if ((cells[places].astype(np.int64) << 8 | cells[places + 1]) != columns).any():
            raise Unsupported(f"table {self.shape.table.label}: a row has not the columns that were announced")

    def _now(self, first: Cells, second: Cells) -> Cells:
        """The new tuple's cells; unchanged TOAST from the old tuple where that has it."""
        given = ~((second.kind == UNCHANGED) & (first.kind[self.old] == TEXT))
        return first.put(self.old[given], second.take(given))

    def arrays(self) -> list[pa.Array]:
        columns = [self._column(column, place) for column, place in self._columns()]
        olds = self._olds()
        return [*self._meta(), *columns, *olds]

    def _columns(self) -> list[tuple[Column, int | None]]:
        return list(zip(self.shape.table.columns, self.shape.places, strict=True))

    def _column(self, column: Column, place: int | None) -> pa.Array:
        if place is None:
            return pa.nulls(self.n, self.shape.schema.field(column.physical).type)
        typed, exact = cast(self.cells[place].strings(self.memory), column)
        return self._spread(typed, exact, column.physical, self.told)

    def _spread(self, typed: pa.Array, exact: pa.Array | None, name: str, rows: np.ndarray | None) -> pa.Array:
        """Bring values that are there for `rows` only to all n; keep what is exact under that name."""
        if rows is not None:
            places = np.full(self.n, -1)
            places[rows] = np.arange(len(rows))
            index = pa.array(places, mask=places < 0)
            typed = typed.take(index)
            exact = None if exact is None else exact.take(index)
        if exact is not None and exact.null_count < len(exact):
            self.exact.append((name, exact))
        return typed

    def _olds(self) -> list[pa.Array]:
        key, olds = self.shape.key, self.old
        if not key:
            return []
        before: list[pa.Array | None] = [None] * len(key)
        if len(olds):
            before = [None if p is None else self.first[p].take(olds).strings(self.memory) for p, _ in key]
            if self.shape.table.identity == "key":
                changed = self._changed(before)
                olds = olds[changed]
                before = [None if b is None else b.filter(pa.array(changed)) for b in before]
        rows = olds if self.told is None else self.told[olds]
        return [self._old(column, text, rows) for (_, column), text in zip(key, before, strict=True)]

    def _old(self, column: Column, text: pa.Array | None, rows: np.ndarray) -> pa.Array:
        name = old_name(column.physical)
        if text is None or not len(rows):
            return pa.nulls(self.n, self.shape.schema.field(name).type)
        typed, exact = cast(text, column)
        return self._spread(typed, exact, name, rows)

    def _changed(self, before: list[pa.Array | None]) -> np.ndarray:
        """Which of the rows with an old tuple have another key now: by text, in any key column."""
        changed = np.zeros(len(self.old), bool)
        for (place, _), text in zip(self.shape.key, before, strict=True):
            if place is not None and text is not None:
                same = pc.equal(text, self.cells[place].take(self.old).strings(self.memory))
                changed |= ~pc.fill_null(same, False).to_numpy(zero_copy_only=False)
        return changed

    def _meta(self) -> list[pa.Array]:
        """The columns META, in its order."""
        n, messages = self.n, self.messages
        ends = pa.py_buffer(np.arange(n + 1, dtype=np.int32))
        moments = pa.py_buffer(np.ascontiguousarray(messages.committed_at))
        return [
            pa.Array.from_buffers(pa.string(), n, [None, ends, pa.py_buffer(_OPS[messages.kinds])]),
            pa.array(messages.end_lsn),
            pa.array(messages.seq),
            pa.array(messages.xid),
            pa.Array.from_buffers(pa.timestamp("us", tz="UTC"), n, [None, moments]),
            pa.array(np.full(n, self.shape.table.version, np.int32)),
            pa.nulls(n, pa.int32()),
            self._missing(),
            exact_map(self.exact, self.n),
        ]

    def _missing(self) -> pa.Array:
        """The names of the columns that an update left out, comma-joined, where it left any out."""
        left_out = [
            (column.physical, self.cells[place].kind == UNCHANGED)
            for column, place in self._columns()
            if place is not None
        ]
        left_out = [(name, rows) for name, rows in left_out if rows.any()]
        if not left_out:
            return pa.nulls(self.n, pa.string())
        pattern = np.packbits(np.stack([rows for _, rows in left_out], axis=1), axis=1)
        patterns, which = np.unique(pattern, axis=0, return_inverse=True)
        names = [
            ",".join(name for (name, _), bit in zip(left_out, np.unpackbits(p), strict=False) if bit) or None
            for p in patterns
        ]
        texts = pa.array(names, pa.string()).take(pa.array(which.ravel()))
        return self._spread(texts, None, "", self.told)


def exact_map(exact: list[tuple[str, pa.Array]], n: int) -> pa.Array:
    """The `_exact` of n rows: names with their texts (string arrays of n, NULL where a row needs none)."""
    if not exact:
        return pa.nulls(n, EXACT)
    rows = [np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False)) for _, text in exact]
    names = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    order = np.argsort(np.concatenate(rows), kind="stable")
    counts = np.bincount(np.concatenate(rows), minlength=n)
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    keys = pa.array([name for name, _ in exact], pa.string()).take(pa.array(names[order]))
    texts = pa.concat_arrays([text.drop_null() for _, text in exact]).take(pa.array(order))
    return pa.MapArray.from_arrays(pa.array(ends), keys, texts, mask=pa.array(counts == 0)).cast(EXACT)
