"""Rows out of their messages: the batches that go into a cut.

A batch is built column by column (see tuples). What an update leaves out (unchanged TOAST) is taken from the old tuple
where that was sent, else its column is named in `_missing`. Where a kind cannot hold a value, its text goes to
`_exact`. An identity column's old value stands in `_old_…` where the key changed.

A cut often brings a few rows of many tables, and then the calls cost more than the rows. So the small groups are built
together: one walk, one cast per kind, and each table gets its slices. A large group is built in blocks that stay in
the processor's cache.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast as cast_type

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import EXACT, META, section_schema
from claimhouse.errors import SourceError, Unsupported
from claimhouse.postgres.transactions import DELETE, INSERT, TRUNCATE, UPDATE, Stretch
from claimhouse.postgres.tuples import TEXT, UNCHANGED, Cells, walk
from claimhouse.postgres.types import cast
from claimhouse.table import Column, Table

SMALL = 1 << 10  # rows: a group below is built together with others
BLOCK = 1 << 14  # rows: a larger group is built in blocks
CELLS = (
    1 << 22
)  # what is walked at once: each cell takes 17 bytes, and a narrow row has as many as the widest beside it
POOL = 1 << 17  # bytes of text: more is not pooled
_DAMAGED = "the stream brought a row that has not the columns its table was announced with"
_NEW = ord("N")
_OPS = np.zeros(256, np.uint8)
_OPS[[INSERT, UPDATE, DELETE, TRUNCATE]] = np.frombuffer(b"cudt", np.uint8)

Cast = tuple[pa.Array, pa.Array | None]
Built = pa.RecordBatch | Unsupported
_Ask = tuple[int, int, Column, Cells]  # the group, the column's number in its table, and what is to be cast


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


class Shape:
    """A table version together with the relation under which its rows come: which cell goes to which column."""

    def __init__(self, relation: Relation, table: Table) -> None:
        self.relation = relation
        self.table = table
        places = {column.name: place for place, column in enumerate(relation.columns)}
        self.folder = table.folder
        self.schema = section_schema(table)
        fields = list(self.schema)[len(META) :]
        self.columns = list(zip(table.columns, (places.get(c.name) for c in table.columns), fields, strict=False))
        self.key = list(
            zip(table.key, (places.get(c.name) for c in table.key), fields[len(table.columns) :], strict=True)
        )


Group = tuple[Shape, np.ndarray]  # a shape, and the numbers of the messages that tell its rows, in order


def build(stretch: Stretch, groups: Sequence[Group]) -> list[Built]:
    """One batch for each group; Unsupported in its stead where a value cannot be kept."""
    built: list[Built | None] = [None] * len(groups)
    small: list[int] = []
    for number, (shape, places) in enumerate(groups):
        if len(places) < SMALL:
            small.append(number)
        else:
            built[number] = _large(stretch, shape, places)
    for pack in _packs(groups, small):
        batches = _Builder(stretch, [groups[number] for number in pack]).batches()
        for number, batch in zip(pack, batches, strict=True):
            built[number] = batch
    return cast_type(list[Built], built)


def _packs(groups: Sequence[Group], small: list[int]) -> list[list[int]]:
    """Which of the small groups are built together: all, or those alike in width where that would be too much."""
    widths = {number: len(groups[number][0].relation.columns) for number in small}
    rows = sum(len(groups[number][1]) for number in small)
    if rows * max(widths.values(), default=0) <= CELLS:
        return [small] if small else []
    packs: list[list[int]] = []
    rows = 0
    for number in sorted(small, key=lambda number: widths[number]):
        rows += len(groups[number][1])
        if not packs or rows * widths[number] > CELLS:
            packs.append([])
            rows = len(groups[number][1])
        packs[-1].append(number)
    return packs


def _large(stretch: Stretch, shape: Shape, places: np.ndarray) -> Built:
    blocks: list[pa.RecordBatch] = []
    step = min(BLOCK, max(SMALL, CELLS // max(1, len(shape.relation.columns))))
    for begin in range(0, len(places), step):
        (block,) = _Builder(stretch, [(shape, places[begin : begin + step])]).batches()
        if isinstance(block, Unsupported):
            return block
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else pa.concat_batches(blocks)


class _Builder:
    """Batches in the making: the rows of all groups one after the other, group g's are `self.spans[g]`."""

    def __init__(self, stretch: Stretch, groups: Sequence[Group]) -> None:
        self.shapes = [shape for shape, _ in groups]
        sizes = [len(places) for _, places in groups]
        ends = np.cumsum(sizes).tolist()
        self.spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.messages = stretch.messages(np.concatenate([places for _, places in groups]))
        self.memory = stretch.memory
        self.n = len(self.messages)
        counts = np.repeat([len(shape.relation.columns) for shape in self.shapes], sizes)
        counts[self.messages.kinds == TRUNCATE] = 0
        self._walk(self.messages.offsets, counts)

    def _walk(self, offsets: np.ndarray, counts: np.ndarray) -> None:
        """Find all cells: `first` of the tuple that comes first, `cells` of the row as it is now."""
        memory = self.memory
        told = counts > 0
        self._expect(offsets[told] + 6, counts[told])
        self.first, end = walk(memory, offsets + 8, counts)
        self.cells = self.first
        # The rows with an old tuple before the new one.
        self.old = np.flatnonzero((self.messages.kinds == UPDATE) & (memory.bytes[offsets + 5] != _NEW))
        if len(self.old):
            self._expect(end[self.old] + 1, counts[self.old])
            second, end[self.old] = walk(memory, end[self.old] + 3, counts[self.old])
            # Other tables' rows may be wider than any of these.
            told_twice = [self._now(*pair) for pair in zip(self.first, second, strict=False)]
            self.cells = [*told_twice, *self.first[len(second) :]]
        if (end[told] != self.messages.ends[told]).any():
            raise SourceError(_DAMAGED)

    def _expect(self, places: np.ndarray, counts: np.ndarray) -> None:
        cells = self.memory.bytes
        if ((cells[places].astype(np.int64) << 8 | cells[places + 1]) != counts).any():
            raise SourceError(_DAMAGED)

    def _now(self, first: Cells, second: Cells) -> Cells:
        """The new tuple's cells; unchanged TOAST from the old tuple where that has it."""
        given = ~((second.kind == UNCHANGED) & (first.kind[self.old] == TEXT))
        return first.put(self.old[given], second.take(given))

    def batches(self) -> list[Built]:
        meta = self._meta()
        unchanged = np.zeros(self.n, bool)  # which rows lack anything
        for cells in self.cells:
            unchanged |= cells.kind == UNCHANGED
        casts = self._casts()
        built: list[Built] = []
        for number, shape in enumerate(self.shapes):
            mine = casts[number]
            if isinstance(mine, Unsupported):
                built.append(mine)
                continue
            try:
                built.append(self._batch(number, shape, meta, mine, unchanged))
            except Unsupported as error:
                built.append(error)
        return built

    def _batch(
        self, number: int, shape: Shape, meta: list[pa.Array], casts: list[Cast], unchanged: np.ndarray
    ) -> pa.RecordBatch:
        span = self.spans[number]
        begin, size = span.start, span.stop - span.start
        olds = self._olds(shape, span)
        meta = [array.slice(begin, size) for array in meta]
        names = [field.name for _, _, field in (*shape.columns, *shape.key)]
        exact = [(name, text) for name, (_, text) in zip(names, (*casts, *olds), strict=True) if text is not None]
        meta.append(self._missing(shape, span) if unchanged[span].any() else pa.nulls(size, pa.string()))
        meta.append(exact_map(exact, size))
        return pa.RecordBatch.from_arrays([*meta, *(a for a, _ in casts), *(a for a, _ in olds)], schema=shape.schema)

    def _meta(self) -> list[pa.Array]:
        """The first seven columns of META, over all groups."""
        n, messages = self.n, self.messages
        ends = pa.py_buffer(np.arange(n + 1, dtype=np.int32))
        versions = [shape.table.version for shape in self.shapes]
        return [
            pa.Array.from_buffers(pa.string(), n, [None, ends, pa.py_buffer(_OPS[messages.kinds])]),
            pa.array(messages.end_lsn),
            pa.array(messages.seq),
            pa.array(messages.xid),
            pa.Array.from_buffers(pa.timestamp("us", tz="UTC"), n, [None, pa.py_buffer(messages.committed_at)]),
            pa.array(np.repeat(np.array(versions, np.int32), [s.stop - s.start for s in self.spans])),
            pa.nulls(n, pa.int32()),
        ]

    def _casts(self) -> list[list[Cast] | Unsupported]:
        """Per group, its columns; columns of one kind are cast together where they are small."""
        wanted: defaultdict[str, list[_Ask]] = defaultdict(list)
        done: list[dict[int, Cast]] = [{} for _ in self.shapes]
        failed: dict[int, Unsupported] = {}
        for group, (shape, span) in enumerate(zip(self.shapes, self.spans, strict=True)):
            for number, (column, place, field) in enumerate(shape.columns):
                if place is None or place >= len(self.cells):  # not published; nothing but truncates
                    done[group][number] = (pa.nulls(span.stop - span.start, field.type), None)
                else:
                    wanted[column.kind].append((group, number, column, self.cells[place].take(span)))
        for asks in wanted.values():
            for (group, number, column, cells), pooled in zip(asks, self._pooled(asks), strict=True):
                try:
                    done[group][number] = pooled or cast(cells.strings(self.memory), column)
                except Unsupported as error:
                    failed[group] = error
        return [
            failed.get(group) or [casts[number] for number in range(len(shape.columns))]
            for group, (shape, casts) in enumerate(zip(self.shapes, done, strict=True))
        ]

    def _pooled(self, asks: list[_Ask]) -> Sequence[Cast | None]:
        """One cast for all of these columns; None for each where that does not pay, or does not work."""
        if len(asks) == 1:
            return [None]
        length = np.concatenate([cells.length for *_, cells in asks])
        if int(length.sum()) > POOL:
            return [None] * len(asks)
        start = np.concatenate([cells.start for *_, cells in asks])
        present = np.concatenate([cells.kind for *_, cells in asks]) == TEXT
        try:
            typed, exact = cast(self.memory.few_strings(start, length, present), asks[0][2])
        except Unsupported:
            return [None] * len(asks)
        slices: list[Cast] = []
        begin = 0
        for *_, cells in asks:
            size = len(cells.kind)
            text = exact and exact.slice(begin, size)
            slices.append((typed.slice(begin, size), text if text is not None and text.null_count < size else None))
            begin += size
        return slices

    def _olds(self, shape: Shape, span: slice) -> list[Cast]:
        """The identity columns before the change, where it has been told and changed."""
        size = span.stop - span.start
        rows = self.old[np.searchsorted(self.old, span.start) : np.searchsorted(self.old, span.stop)]
        if len(rows) and shape.table.identity == "key":
            rows = rows[self._changed(shape, rows)]
        olds: list[Cast] = []
        for column, place, field in shape.key:
            if place is None or not len(rows):
                olds.append((pa.nulls(size, field.type), None))
            else:
                typed, exact = cast(self.first[place].take(rows).strings(self.memory), column)
                where = np.full(size, -1)
                where[rows - span.start] = np.arange(len(rows))
                index = pa.array(where, mask=where < 0)
                olds.append((typed.take(index), exact and exact.take(index)))
        return olds

    def _changed(self, shape: Shape, rows: np.ndarray) -> np.ndarray:
        """Which of these rows, all with an old tuple, have another key now: by text, in any key column."""
        changed = np.zeros(len(rows), bool)
        for _, place, _ in shape.key:
            if place is not None:
                before, after = (cells[place].take(rows).strings(self.memory) for cells in (self.first, self.cells))
                changed |= ~pc.fill_null(pc.equal(before, after), False).to_numpy(zero_copy_only=False)
        return changed

    def _missing(self, shape: Shape, span: slice) -> pa.Array:
        """The names of the columns that an update left out, comma-joined, where it left any out."""
        # A table of which there are only truncates may be wider than any tuple here.
        here = [(c.physical, p) for c, p, _ in shape.columns if p is not None and p < len(self.cells)]
        if not here:
            return pa.nulls(span.stop - span.start, pa.string())
        names = [name for name, _ in here]
        left_out = [self.cells[place].kind[span] == UNCHANGED for _, place in here]
        patterns, which = np.unique(np.stack(left_out, axis=1), axis=0, return_inverse=True)
        texts = [
            ",".join(name for name, out in zip(names, pattern, strict=True) if out) or None for pattern in patterns
        ]
        return pa.array(texts, pa.string()).take(pa.array(which.ravel()))


def exact_map(exact: list[tuple[str, pa.Array]], size: int) -> pa.Array:
    """`_exact` of `size` rows, from columns of texts that are mostly NULL."""
    if not exact:
        return pa.nulls(size, EXACT)
    rows = [np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False)) for _, text in exact]
    order = np.argsort(np.concatenate(rows), kind="stable")
    counts = np.bincount(np.concatenate(rows), minlength=size)
    names = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    keys = pa.array([name for name, _ in exact], pa.string()).take(pa.array(names[order]))
    texts = pa.concat_arrays([text.drop_null() for _, text in exact]).take(pa.array(order))
    ends = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.MapArray.from_arrays(ends, keys, texts, mask=pa.array(counts == 0)).cast(EXACT)


def exact_of(exact: pa.Array, name: str) -> pa.Array:
    """One name's texts out of `_exact`, NULL where a row has none (the way back from `exact_map`)."""
    if exact.null_count == len(exact):
        return pa.nulls(len(exact), pa.string())
    return pc.map_lookup(exact, pa.scalar(name), "first").cast(pa.string())
