"""The flush: cuts move from the tail into `changes/<table>`, one Delta append per table, none of them twice.

Each append records the flush's cut number as its app transaction, and of each table only the cuts beyond its recorded
number are written: a flush that a kill cut short goes on where it stopped. A table's rows lie in order of their cuts,
so that files tell by their statistics which cuts and positions they can hold. Nothing here is believed by a reader
before a cut names the flush record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from claimhouse.errors import LakeError
from claimhouse.failpoint import hit
from claimhouse.lake import delta, flushes
from claimhouse.lake.flushes import FlushRecord, TableRecord
from claimhouse.lake.lake import TRANSACTIONS, Lake, changes_key
from claimhouse.lake.owner import Owner
from claimhouse.lake.registry import Registry, TableState
from claimhouse.lake.snapshot import TRANSACTION_ROWS, columns_of, transaction_rows, widened
from claimhouse.lake.tail import Cut, CutMark, Tail

STATS = ("_cut", "_end_lsn", "_committed_at", "_schema", "_copy", "_missing")
WRITERS = 2  # delta-rs works outside the interpreter's lock
_TRIES = 5
_AT_ONCE = 100_000  # rows of one table that are joined before they are written
_SLICE = 512 << 10  # bytes of a stream that are handed on at once


def flush(
    lake: Lake,
    source: str,
    owner: Owner,
    tail: Tail,
    mark: CutMark,
    registry: Registry,
    previous: FlushRecord | None,
) -> FlushRecord:
    """Move all cuts after the previous record up to `mark` into Delta; the new record, for the next cut to name.

    Memory stays bounded: cuts are mapped, tables are written as streams. Raises Fenced, LakeError, StorageGone.
    """
    cuts = _open(tail, previous.cut + 1 if previous else 1, mark.cut)
    owner.check()
    folders = sorted({folder for cut in cuts for folder in cut.mark.tables})
    with ThreadPoolExecutor(WRITERS) as pool:
        states = [registry.tables[folder] for folder in folders]
        known = [previous.table(folder).changes if previous else None for folder in folders]
        versions = list(pool.map(lambda state, v: _flush_table(tail, state, cuts, mark.cut, v), states, known))
    transactions = _flush_transactions(tail, cuts, mark.cut, previous.transactions if previous else None)
    if transactions is None and previous:
        transactions = previous.transactions
    owner.check()
    tables = {folder: previous.table(folder) if previous else TableRecord() for folder in registry.tables}
    for folder, version in zip(folders, versions, strict=True):
        rows = tables[folder].rows + sum(cut.mark.rows(folder) for cut in cuts)
        tables[folder] = replace(tables[folder], changes=version, rows=rows)
    record = FlushRecord(
        flush=previous.flush + 1 if previous else 1,
        cut=mark.cut,
        end_lsn=mark.end_lsn,
        max_committed_at=mark.max_committed_at,
        incarnation=mark.incarnation,
        registry=mark.registry,
        at=time.time_ns() // 1000,
        transactions=transactions,
        tables=tables,
    )
    return flushes.put(lake, source, record)


def _open(tail: Tail, first: int, last: int) -> list[Cut]:
    """The cuts, checked, and let go of again: together they may be more than memory."""
    cuts: list[Cut] = []
    try:
        for number in range(first, last + 1):
            cuts += tail.load(number, number)
            cuts[-1].let_go()
    except KeyError as missing:
        raise LakeError(f"{missing.args[0]} is missing before it was flushed", hint="restore it from a copy") from None
    return cuts


def _flush_table(tail: Tail, state: TableState, cuts: Sequence[Cut], upto: int, known: int | None) -> int:
    """Append a table's rows of cuts beyond its recorded number; the version that then holds them all.

    `known`: the version that the flush record before names.
    """
    shapes = {s.schema for cut in cuts for s in cut.mark.all_sections() if s.table == state.folder}
    schema = columns_of(t for t in state.versions if t.version in shapes)

    def rows(cut: Cut) -> Iterator[pa.RecordBatch]:
        return (widened(batch, schema) for _, batch in cut.batches(state.folder))

    app = tail.lake.app_id(tail.source, state.folder)
    groups = _groups([(cut, cut.mark.rows(state.folder)) for cut in cuts])
    hit("flush.before_table")
    key = changes_key(tail.source, state.folder)
    version = _append_once(tail, key, schema, groups, rows, app, upto, STATS, known)
    hit("flush.after_table")
    assert version is not None
    return version


def _flush_transactions(tail: Tail, cuts: Sequence[Cut], upto: int, known: int | None) -> int | None:
    def rows(cut: Cut) -> Iterator[pa.RecordBatch]:
        return iter(transaction_rows(cut).to_batches())

    app = tail.lake.app_id(tail.source, "transactions")
    stats = ("source", "cut", "end_lsn", "committed_at", "xid")
    groups = _groups([(cut, cut.mark.transactions) for cut in cuts])
    return _append_once(tail, TRANSACTIONS, TRANSACTION_ROWS, groups, rows, app, upto, stats, known)


def _groups(cuts: Sequence[tuple[Cut, int]]) -> list[list[Cut]]:
    """Cuts that have rows, in runs of about `_AT_ONCE` rows: what one append takes."""
    groups: list[list[Cut]] = []
    count = _AT_ONCE
    for cut, rows in cuts:
        if not rows:
            continue
        if count + rows > _AT_ONCE:
            groups.append([])
            count = 0
        groups[-1].append(cut)
        count += rows
    return groups


def _append_once(
    tail: Tail,
    key: str,
    schema: pa.Schema,
    groups: Sequence[Sequence[Cut]],
    rows: Callable[[Cut], Iterator[pa.RecordBatch]],
    app: str,
    upto: int,
    stats: Sequence[str],
    known: int | None,
) -> int | None:
    """Append what lies beyond the recorded number, group by group; the table's version, None if there is no table."""
    table = tail.handles.pop(key, None)
    kept = table is not None and (known is None or table.version() >= known)  # joining files made a newer version
    if not kept:
        table = delta.open_table(tail.lake, key)
        at = table.version() if table else -1
        if known is not None and at < known:
            hint = "restore its folder from a copy"
            raise LakeError(f"{key} is at version {at}, a flush record names {known}", hint=hint)
    for group in groups:
        for attempt in range(_TRIES):
            after = delta.recorded(table, app)
            if after > upto:
                raise LakeError(f"{key} holds cuts up to {after}, the tail ends at {upto}", hint="restore the tail")
            new = [cut for cut in group if cut.mark.cut > after]
            if not new:
                break
            last = upto if group is groups[-1] else group[-1].mark.cut
            try:
                table = delta.write(tail.lake, key, _data(schema, new, rows), app, last, stats=stats, table=table)
                for cut in new:
                    cut.let_go()
                break
            except (delta.DeltaError, OSError) as error:
                tail.owner.check()
                if attempt == _TRIES - 1 or not (kept or isinstance(error, delta.CommitFailedError)):
                    raise delta.unwritten(key, error) from error
                table, kept = delta.open_table(tail.lake, key), False
    if table is None:
        return None
    if table.version() % delta.CHECKPOINT_EVERY:  # a kept handle slows down with its commits
        tail.handles[key] = table
    return table.version()


def _data(
    schema: pa.Schema, cuts: Sequence[Cut], rows: Callable[[Cut], Iterator[pa.RecordBatch]]
) -> pa.Table | pa.RecordBatchReader:
    """A group's rows: in one piece, which delta-rs keeps in order, or, of one huge cut, as a stream."""
    batches = (batch for cut in cuts for batch in rows(cut))
    if len(cuts) == 1 and cuts[0].mark.parts:
        return pa.RecordBatchReader.from_batches(schema, _slices(batches))
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _slices(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The Delta writer takes a dozen batches ahead: of large ones that would be much mapped memory."""
    for batch in batches:
        rows = max(1, _SLICE * batch.num_rows // max(1, batch.get_total_buffer_size()))
        yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
