"""One consistent view of a source: a flush record plus the cuts up to one mark, no lock taken.

The newest cut object names its flush record, and both are immutable; the only thing that can happen meanwhile is that
the owner drops flushed cuts, and then taking the view starts again. A whole cut is seen or none of it, so no reader
meets half a transaction, also across tables.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from claimhouse.change import TRANSACTIONS, log_schema, section_schema
from claimhouse.errors import LakeError
from claimhouse.lake import delta, flushes, tail
from claimhouse.lake import registry as registries
from claimhouse.lake.delta import DataFile
from claimhouse.lake.flushes import FlushRecord, TableRecord
from claimhouse.lake.lake import Lake, changes_key, current_key
from claimhouse.lake.registry import Registry, TableState
from claimhouse.lake.tail import Cut, CutMark
from claimhouse.table import Table

_TRIES = 20


@dataclass(frozen=True, slots=True)
class LakeSnapshot:
    """What a reader sees of one source at cut `mark.cut`."""

    lake: Lake
    source: str
    mark: CutMark
    record: FlushRecord | None
    registry: Registry
    cuts: tuple[Cut, ...] = field(repr=False)

    @property
    def flushed(self) -> int:
        """The cut up to which `changes` holds everything; the tail holds the rest. 0: nothing is flushed."""
        return self.record.cut if self.record else 0

    def tail(self, folder: str) -> pa.Table | None:
        """A table's rows since the flush in order of the log, or None. Schema: `schema_of` its state."""
        batches = [b for cut in self.cuts for b in _CUTS.rows(cut, folder)]
        if not batches:
            return None
        state = self.registry.tables[folder]
        return merged(batches, schema_of(state))

    def log(self, state: TableState, files: Sequence[DataFile]) -> pa.Table:
        """The rows of some of a table's log files, and those since the flush. Schema: `schema_of` the state."""
        schema = schema_of(state)
        found = [batch for file in files for batch in _FILES.get(self.lake, file, schema)]
        found += [batch for cut in self.cuts for batch in _CUTS.rows(cut, state.folder)]
        return merged(found, schema) if found else schema.empty_table()

    def tail_transactions(self) -> pa.Table:
        """The transactions since the flush, schema TRANSACTION_ROWS."""
        return pa.concat_tables([TRANSACTION_ROWS.empty_table(), *map(transaction_rows, self.cuts)])

    def changes_files(
        self, folder: str, cut_from: int | None = None, cut_to: int | None = None, lsn_to: int | None = None
    ) -> list[DataFile]:
        """The log's files that can hold rows with `_cut` from … to (both included) and `_end_lsn` up to `lsn_to`."""
        entry = self.record.table(folder) if self.record else TableRecord()
        found = delta.files(self.lake, changes_key(self.source, folder), entry.changes, entry.rows)
        return [f for f in found if _may_hold(f, cut_from, cut_to, lsn_to)]

    def current_files(self, folder: str) -> list[DataFile]:
        """The files of the table's `current` at the record's version; empty if it has none."""
        entry = self.record.table(folder) if self.record else TableRecord()
        return list(delta.files(self.lake, current_key(self.source, folder), entry.current, entry.current_rows))

    def missing_rows(self, state: TableState, after: int) -> Iterator[tuple[Table, pa.RecordBatch]]:
        """(shape, rows) of a table's changes above a position that lack an unchanged TOAST value."""
        needed = pc.field("_missing").is_valid() & (pc.field("_end_lsn") > after)
        for file in self.changes_files(state.folder):
            if file.missing == 0 or (file.lsn and file.lsn[1] <= after):
                continue
            table = pq.read_table(pa.BufferReader(self.lake.store.open(file.key)), filters=needed)
            yield from _by_shape(state, table.filter(pc.field("_cut") <= self.flushed))
        if (rows := self.tail(state.folder)) is not None:
            yield from _by_shape(state, rows.filter(needed))

    def tail_missing(self, folder: str) -> int:
        """How many of a table's rows in the tail lack an unchanged TOAST value."""
        return sum(cut.mark.missing(folder) for cut in self.cuts)


def take(lake: Lake, source: str, cut: int | None = None) -> LakeSnapshot:
    """The newest view of a source, or that of a cut whose object still exists.

    Raises LakeError when the source has no cut yet, or the asked one is no longer in the tail.
    """
    for _ in range(_TRIES):
        numbers = tail.cut_numbers(lake, source)
        if not numbers or (cut is not None and cut not in numbers):
            what = "no cut yet" if cut is None else f"no cut {cut} in its tail"
            raise LakeError(f"source {source} has {what}", hint="`claimhouse status` shows what there is")
        try:
            return _take(lake, source, numbers[-1] if cut is None else cut)
        except KeyError:
            continue  # dropped since the listing
    raise LakeError(f"the tail of source {source} has a gap that does not close", hint="restore its cuts from a copy")


def _take(lake: Lake, source: str, number: int) -> LakeSnapshot:
    newest = _CUTS.get(lake, source, number)
    mark = newest.mark
    record = _record(lake, source, mark.flush) if mark.flush else None
    first = record.cut + 1 if record else 1
    _CUTS.forget_before(lake, source, first)
    cuts = [_CUTS.get(lake, source, n) for n in range(first, number)]
    if first <= number:
        cuts.append(newest)
    return LakeSnapshot(lake, source, mark, record, _registry(lake, source, mark.registry), tuple(cuts))


TRANSACTION_ROWS = pa.schema(
    [pa.field("source", pa.string()), pa.field("incarnation", pa.int32()), pa.field("cut", pa.int64()), *TRANSACTIONS]
)


def transaction_rows(cut: Cut) -> pa.Table:
    """A cut's transactions as `control/transactions` keeps them."""
    found, mark = cut.transactions(), cut.mark
    same = [pa.repeat(value, found.num_rows) for value in (mark.source, mark.incarnation, mark.cut)]
    return pa.Table.from_arrays([*same, *found.columns], names=TRANSACTION_ROWS.names).cast(TRANSACTION_ROWS)


def schema_of(state: TableState) -> pa.Schema:
    """The log's columns over all shapes of a table: what `changes` has once every shape was flushed."""
    return columns_of(state.versions)


def columns_of(shapes: Iterable[Table]) -> pa.Schema:
    """The log's columns over these shapes of a table."""
    fields: dict[str, pa.Field] = {}
    for table in shapes:
        for column in log_schema(table):
            fields.setdefault(column.name, column)
    return pa.schema(list(fields.values()))


def merged(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Batches of several shapes as one table of a schema."""
    return pa.Table.from_batches([widened(batch, schema) for batch in batches], schema)


def widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch of one shape in the columns of another, or of several; absent ones are NULL."""
    if batch.schema.equals(schema):
        return batch
    have = set(batch.schema.names)
    columns = [batch.column(f.name) if f.name in have else pa.nulls(batch.num_rows, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _by_shape(state: TableState, rows: pa.Table) -> Iterator[tuple[Table, pa.RecordBatch]]:
    for version in rows["_schema"].unique().to_pylist():
        shape = state.shape(version)
        found = merged(rows.filter(pc.field("_schema") == version).to_batches(), section_schema(shape))
        for batch in found.to_batches():
            yield shape, batch


def _may_hold(file: DataFile, cut_from: int | None, cut_to: int | None, lsn_to: int | None) -> bool:
    if file.cut and cut_from is not None and file.cut[1] < cut_from:
        return False
    if file.cut and cut_to is not None and file.cut[0] > cut_to:
        return False
    return not (file.lsn and lsn_to is not None and file.lsn[0] > lsn_to)


class _CutCache:
    """Cuts that this process has opened and checked; they never change, so only their number is bounded."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[Lake, str, int], Cut] = OrderedDict()
        self._rows: dict[tuple[Lake, str, int], dict[str, list[pa.RecordBatch]]] = {}

    def get(self, lake: Lake, source: str, number: int) -> Cut:
        name = (lake, source, number)
        with self._lock:
            if found := self._found.get(name):
                return found
        opened = tail.open_cut(lake, source, number)
        with self._lock:
            self._found[name] = opened
            while len(self._found) > self.size:
                self._rows.pop(self._found.popitem(last=False)[0], None)
        return opened

    def rows(self, cut: Cut, folder: str) -> list[pa.RecordBatch]:
        """A table's rows in a cut in order of the log. They are mapped memory; those of parts are not kept open."""
        if cut.mark.parts:
            return [batch for _, batch in cut.batches(folder)]
        name = (cut.lake, cut.mark.source, cut.mark.cut)
        with self._lock:
            kept = self._rows.setdefault(name, {}) if name in self._found else {}
        if folder not in kept:
            kept[folder] = [batch for _, batch in cut.batches(folder)]
        return kept[folder]

    def forget_before(self, lake: Lake, source: str, number: int) -> None:
        """Let go of flushed cuts, and with them of the disk space that a dropped but mapped object holds."""
        with self._lock:
            for name in [n for n in self._found if n[:2] == (lake, source) and n[2] < number]:
                del self._found[name]
                self._rows.pop(name, None)


class _FileCache:
    """Small data files of logs that this process has read; they never change, so only their bytes are bounded."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._found: OrderedDict[str, pa.Table] = OrderedDict()

    def get(self, lake: Lake, file: DataFile, schema: pa.Schema) -> list[pa.RecordBatch]:
        """A file's rows, in the types that the schema has for its columns."""
        with self._lock:
            table = self._found.get(file.uri)
        if table is None:
            try:
                table = pq.read_table(pa.BufferReader(lake.store.open(file.key)))
            except KeyError:
                raise LakeError(f"{file.key} is missing", hint="restore the table's folder from a copy") from None
            table = table.cast(pa.schema([schema.field(name) for name in table.schema.names]))
            with self._lock:
                self._found[file.uri] = table
                while sum(t.nbytes for t in self._found.values()) > self.size:
                    self._found.popitem(last=False)
        return table.to_batches()


_FILES = _FileCache(32 << 20)
_CUTS = _CutCache(1024)


@lru_cache(maxsize=64)
def _record(lake: Lake, source: str, flush: int) -> FlushRecord:
    return flushes.load(lake, source, flush)


@lru_cache(maxsize=64)
def _registry(lake: Lake, source: str, name: str) -> Registry:
    return registries.load(lake, source, name)
