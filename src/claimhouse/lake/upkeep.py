"""Upkeep: what keeps a lake that is written every two seconds cheap to open and bounded in size.

Small files of the log are joined (by delta-rs, which keeps the table's app transactions), and that ends in a new flush
record. What no kept record names any more goes after a time that readers may take (`RETENTION`): old flush records,
then registry objects, data files, and commits behind a checkpoint. A record is kept as long as a reader can have taken
it, so its versions stay openable that long.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from claimhouse.lake import delta, flushes
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import FLUSHES, TRANSACTIONS, Lake, changes_key, current_key, flushed_folder
from claimhouse.lake.registry import Registry, drop_before
from claimhouse.lake.tail import cut_numbers, read_mark

RETENTION = 3600  # seconds that a reader may hold on to what it has taken
COMPACT_EVERY = 32  # commits of a log after which its small files are joined
SMALL, LARGE = 8 << 20, 128 << 20  # bytes up to which files are joined: mostly, and every sixteenth time
_SWEEP_EVERY = 64  # flush records between two looks for what may go


def tidy(
    lake: Lake, source: str, registry: Registry, record: FlushRecord, *, retention: int = RETENTION
) -> FlushRecord | None:
    """Whatever is due after a flush; the new record if versions moved. Raises LakeError, StorageGone."""
    made = compact(lake, source, record)
    if (
        record.flush % _SWEEP_EVERY < 3
    ):  # a fold and a compaction take numbers too: from one flush to the next at most 3
        sweep(lake, source, made or record, retention=retention)
    return made


def compact(lake: Lake, source: str, record: FlushRecord, every: int = COMPACT_EVERY) -> FlushRecord | None:
    """Join the small files of logs that had so many commits since the last time; the new record, if there were any."""
    tables = dict(record.tables)
    for folder, entry in record.tables.items():
        if entry.changes is not None and entry.changes - entry.compacted >= every:
            size = LARGE if _rarely(entry.changes, every) else SMALL
            version = _join(lake, changes_key(source, folder), size, lake.app_id(source, folder), record.cut)
            if version is not None:
                tables[folder] = replace(entry, changes=version, compacted=version)
    transactions, since = record.transactions, record.transactions_compacted
    if transactions is not None and transactions - since >= every:
        size = LARGE if _rarely(transactions, every) else SMALL
        _join(lake, FLUSHES, SMALL, lake.app_id(source, "flushes"), record.flush)
        version = _join(lake, TRANSACTIONS, size, lake.app_id(source, "transactions"), record.cut)
        transactions = since = version or transactions
    if tables == record.tables and transactions == record.transactions:
        return None
    now = time.time_ns() // 1000
    made = replace(record, flush=record.flush + 1, at=now, tables=tables)
    return flushes.put(lake, source, replace(made, transactions=transactions, transactions_compacted=since))


def _rarely(version: int, every: int) -> bool:
    return version // every % 16 == 0


def _join(lake: Lake, key: str, size: int, app: str, number: int) -> int | None:
    """Join a table's files that are smaller than `size`; its version.

    None when another writer came in between, or a killed flush left rows beyond `number`: they wait for their record.
    """
    table = delta.open_table(lake, key)
    if table is None or delta.recorded(table, app) > number:
        return None
    with contextlib.suppress(delta.CommitFailedError):
        delta.compact(lake, key, table, size)
        return table.version()
    return None


def sweep(lake: Lake, source: str, record: FlushRecord, *, retention: int = RETENTION) -> None:
    """Remove what only records older than `retention` seconds name, and orphans of killed writers as old."""
    kept = _drop_records(lake, source, record, retention)
    drop_before(lake, source, min(r.registry for r in kept))
    for folder in record.tables:
        entries = [r.table(folder) for r in kept]
        _clean(lake, changes_key(source, folder), ([e.changes for e in entries]), retention)
        _clean(lake, current_key(source, folder), ([e.current for e in entries]), retention)
    _clean(lake, TRANSACTIONS, ([*(r.transactions for r in kept), *_others(lake, source)]), retention)


def _drop_records(lake: Lake, source: str, record: FlushRecord, retention: int) -> list[FlushRecord]:
    """Remove records that were replaced longer ago; the oldest kept, the one that readers get now, and the newest."""
    named = _named(lake, source)
    numbers = [int(name[:20]) for name in lake.store.list(flushed_folder(source))]
    numbers = [n for n in numbers if n <= record.flush]
    before = time.time_ns() // 1000 - retention * 1_000_000
    while len(numbers) > 1 and numbers[0] < named and flushes.load(lake, source, numbers[1]).at < before:
        lake.store.delete([f"{flushed_folder(source)}/{numbers.pop(0):020d}.json"])
    kept = {numbers[0], named, record.flush} & set(numbers)
    return [flushes.load(lake, source, n) for n in sorted(kept)]


def _named(lake: Lake, source: str) -> int:
    """The record that a reader gets now, 0 if none."""
    numbers = cut_numbers(lake, source)
    return read_mark(lake, source, numbers[-1]).flush if numbers else 0


def _others(lake: Lake, source: str) -> list[int | None]:
    """The oldest versions of `control/transactions` that other sources' records name."""
    found: list[int | None] = []
    for other in lake.sources():
        names = lake.store.list(flushed_folder(other)) if other != source else []
        if names:
            found.append(flushes.load(lake, other, int(names[0][:20])).transactions)
    return found


def _clean(lake: Lake, key: str, kept: Sequence[int | None], retention: int) -> None:
    """Remove a table's files and commits that none of the kept versions needs."""
    versions = sorted({version for version in kept if version is not None})
    table = delta.open_table(lake, key) if versions else None
    if table is not None:
        with contextlib.suppress(delta.CommitFailedError):
            delta.vacuum(lake, key, table, versions, retention)
        delta.forget_commits(lake, key, versions[0])
