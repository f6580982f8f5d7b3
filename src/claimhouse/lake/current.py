"""The fold: `current/<table>` made anew as the state after a flush record's cut, from its old version and the log.

A fold rewrites the table, so it is due only when the log since the last one has grown to a share of it; readers merge
the rest. All folds of a call stand at one position and become one new flush record, which no reader believes before a
cut names it. DuckDB computes within bounded memory, batch by batch into the Delta writer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection, OutOfMemoryException

from claimhouse.errors import StorageGone
from claimhouse.failpoint import hit
from claimhouse.lake import bases, delta, flushes
from claimhouse.lake.flushes import FlushRecord, TableRecord
from claimhouse.lake.lake import Lake, changes_key, current_key
from claimhouse.lake.registry import Copy, Registry, TableState
from claimhouse.lake.relation import engine, files_sql
from claimhouse.lake.snapshot import schema_of
from claimhouse.lake.state import state_schema, state_sql
from claimhouse.table import Table

SHARE = 0.1  # of current's rows, that the log may grow by before it is folded
FLOOR = 20_000  # rows of log that are never worth a fold of their own
MEMORY, LARGE = "200MB", "1GB"  # what DuckDB may take, and what it gets where rows are too wide for that
_BATCH = 8_192  # rows; the Delta writer holds several batches


def due(record: FlushRecord, registry: Registry) -> list[str]:
    """The folders whose log has outgrown their `current`, or that have none yet; none while a copy is under way."""
    return [f for f, state in registry.tables.items() if _is_due(record, state)]


def _is_due(record: FlushRecord, state: TableState) -> bool:
    entry, copy = record.table(state.folder), state.copy_at(record.end_lsn)
    if entry.changes is None or copy is None or state.status in ("errored", "gone"):
        return False
    if entry.current is None or entry.current_copy != copy.number:
        return True
    return entry.rows - entry.current_seen >= max(FLOOR, SHARE * entry.current_rows)


def fold(
    lake: Lake,
    source: str,
    registry: Registry,
    record: FlushRecord,
    folders: Sequence[str],
) -> FlushRecord:
    """Bring these tables' `current` to the record's cut; the new record, for the next cut to name.

    Tables that are not visible at the record's position are left out. Raises LakeError, StorageGone.
    """
    tables = dict(record.tables)
    with tempfile.TemporaryDirectory(prefix="claimhouse-fold-") as spill, engine(lake, spill, memory=MEMORY) as conn:
        for folder in folders:
            state = registry.tables[folder]
            copy = state.copy_at(record.end_lsn)
            if copy is not None and record.table(folder).changes is not None:
                tables[folder] = _fold_within(conn, lake, source, state, copy, record)
    made = replace(record, flush=record.flush + 1, at=time.time_ns() // 1000, tables=tables)
    made = flushes.put(lake, source, made)
    for folder in folders:
        copy = registry.tables[folder].copy_at(record.end_lsn)
        if copy is not None and tables[folder] is not record.table(folder):
            bases.keep(lake, source, folder, tables[folder], copy)
    return made


def _fold_within(conn: DuckDBPyConnection, *what: Any) -> TableRecord:
    """Fold a table with little memory, or, where that does not do, with more."""
    try:
        return _fold_table(conn, *what)
    except (OutOfMemoryException, StorageGone) as error:
        # In the middle of an answer it is the Delta writer that tells.
        if "Out of Memory" not in str(error.__cause__ or error):
            raise
    conn.execute(f"SET memory_limit = '{LARGE}'")
    return _fold_table(conn, *what)


def _fold_table(
    conn: DuckDBPyConnection, lake: Lake, source: str, state: TableState, copy: Copy, record: FlushRecord
) -> TableRecord:
    entry, shape = record.table(state.folder), state.shape_at(record.end_lsn)
    key, schema = current_key(source, state.folder), state_schema(shape)
    keys = [c.physical for c in shape.key] if shape.identity == "key" else []
    rows = _Counted(conn.sql(_sql(lake, source, state, copy, record, shape)).to_arrow_reader(_BATCH), schema)
    hit("fold.before_commit")
    try:
        made = delta.write(
            lake,
            key,
            pa.RecordBatchReader.from_batches(schema, iter(rows)),
            lake.app_id(source, f"current/{state.folder}"),
            record.cut,
            stats=("_cut", "_end_lsn", "_missing", "_schema", *keys),
            table=delta.open_table(lake, key),
            mode="overwrite",
        )
    except (delta.DeltaError, OSError) as error:
        raise delta.unwritten(key, error) from error
    hit("fold.after_commit")
    return replace(
        entry,
        current=made.version(),
        current_cut=record.cut,
        current_lsn=record.end_lsn,
        current_incarnation=record.incarnation,
        current_copy=copy.number,
        current_schema=shape.version,
        current_rows=rows.rows,
        current_seen=entry.rows,
    )


def _sql(lake: Lake, source: str, state: TableState, copy: Copy, record: FlushRecord, shape: Table) -> str:
    entry = record.table(state.folder)
    known = entry.current is not None and entry.current_copy == copy.number
    after = entry.current_cut if known else 0
    log_files = [
        f
        for f in delta.files(lake, changes_key(source, state.folder), entry.changes, entry.rows)
        if f.cut is None or f.cut[1] > after
    ]
    log = files_sql([f.uri for f in log_files], schema_of(state), f"_cut > {after} AND _cut <= {record.cut}")
    base = None
    if known:
        files = delta.files(lake, current_key(source, state.folder), entry.current, entry.current_rows)
        base = f"({files_sql([f.uri for f in files], state_schema(state.table))})"
    versions = {v for f in log_files if f.schema for v in range(f.schema[0], f.schema[1] + 1)}
    return state_sql(
        state,
        log=f"({log})",
        base=base,
        copy=copy,
        upto=(record.incarnation, record.end_lsn),
        shape=shape,
        versions=versions if all(f.schema for f in log_files) else None,
        missing=any(f.missing != 0 for f in log_files),
    )


class _Counted:
    """Batches in a fixed schema, counted as they pass."""

    def __init__(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> None:
        self.reader, self.schema, self.rows = reader, schema, 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self.reader:
            self.rows += batch.num_rows
            yield batch.cast(self.schema)
