"""The lake's use of Delta: what delta-rs leaves to its caller.

delta-rs fsyncs nothing, records an app transaction's number without refusing a repeat, and reads a commit that lost its
bytes, or whole lines of them, as if they had never been. So: every commit is made durable here before anybody names its
version, callers ask `recorded` first, and a table is looked at before it is believed: its newest commit is not empty,
and its rows are as many as a flush record counts. Handles are opened anew after a few commits: kept
ones slow down with each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError as CommitFailedError
from deltalake.exceptions import DeltaError, TableNotFoundError

from claimhouse.errors import LakeError, StorageGone
from claimhouse.lake.lake import Lake

CHECKPOINT_EVERY = 20
FILE_SIZE = 32 << 20
ROW_GROUP = 131_072  # rows that a writer holds in memory; readers share groups out among threads
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_PROPERTIES = {
    "delta.enableDeletionVectors": "false",  # delta-rs cannot write them
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
    "delta.logRetentionDuration": "interval 3650 days",  # upkeep decides, by what is still named
    "delta.deletedFileRetentionDuration": "interval 1 days",  # upkeep's is shorter; longer bloats checkpoints
}
_RESTORE = "restore the table's folder from a copy"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file of a table version, with the statistics that readers prune by; None where not known."""

    key: str  # in the lake's storage
    uri: str
    rows: int
    size: int
    cut: tuple[int, int] | None
    lsn: tuple[int, int] | None
    missing: int | None  # rows that have `_missing`
    schema: tuple[int, int] | None = None


def open_table(lake: Lake, key: str, version: int | None = None) -> DeltaTable | None:
    """A handle on a table, None where there is none yet. Raises LakeError when it is damaged."""
    uri = lake.store.uri(key)
    try:
        table = DeltaTable(uri, version=version, storage_options=lake.store.delta_options)
    except TableNotFoundError:
        return None
    except DeltaError as error:
        if version is None and not lake.store.list(f"{key}/_delta_log"):
            return None
        raise LakeError(f"{key} cannot be opened: {_reason(error)}", hint=_RESTORE) from error
    last = _commit_key(key, table.version())
    try:
        empty = not lake.store.end(last, 1)
    except KeyError:
        empty = False  # cleaned up behind a checkpoint
    if empty:
        raise LakeError(f"{last} has zero bytes: the newest commit is lost", hint=_RESTORE)
    return table


def unwritten(key: str, error: Exception) -> StorageGone:
    """What a write that failed is to the caller: nothing of it counts, and trying again is right."""
    text = "no space is left" if "No space left" in str(error) else f"it answers {_reason(error)}"
    hint = "free some space, or stop the other program that writes this table; then run again"
    return StorageGone(f"{key} could not be written: {text}", hint=hint)


def recorded(table: DeltaTable | None, app: str) -> int:
    """The number that an application wrote last into a table, 0 if none."""
    return (table.transaction_version(app) or 0) if table else 0


def write(
    lake: Lake,
    key: str,
    data: pa.Table | pa.RecordBatchReader,
    app: str,
    number: int,
    *,
    stats: Sequence[str],
    table: DeltaTable | None = None,
    mode: Literal["append", "overwrite"] = "append",
) -> DeltaTable:
    """Write rows as one durable commit that records (app, number); the table as it is then.

    Appended rows may bring new columns; others replace all rows and the schema, older versions stay readable. Makes
    the table on first use, with statistics on the columns `stats`. Raises CommitFailedError when another writer came
    in between.
    """
    before = table.version() if table else -1
    keys = [name for name in stats if mode == "overwrite" and not name.startswith("_")]
    where: Any = {} if table else {"storage_options": lake.store.delta_options or None}
    if table is None:
        where["configuration"] = {**_PROPERTIES, "delta.dataSkippingStatsColumns": ",".join(stats)}
    write_deltalake(
        table or lake.store.uri(key),
        data,
        mode=mode,
        schema_mode="merge" if mode == "append" else "overwrite",
        writer_properties=_writer(data.schema, keys),
        commit_properties=CommitProperties(app_transactions=[Transaction(app, number)]),
        post_commithook_properties=_NO_HOOKS,
        target_file_size=FILE_SIZE,
        **where,
    )
    if table is None:
        table = open_table(lake, key)
        assert table is not None
    _settle(lake, key, before, table)
    return table


_PLAIN = ColumnProperties(dictionary_enabled=False)
_TEXT = ColumnProperties(dictionary_enabled=True)
_DELTAS = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED", statistics_enabled="PAGE")


def _writer(schema: pa.Schema, keys: Sequence[str] = ()) -> WriterProperties:
    """How files are written. Dictionaries of text alone: of numbers they double the cost, and are rarely smaller.

    Whole-number `keys` as packed differences: a reader that looks keys up decodes them in a third of the time.
    """
    columns = {f.name: _TEXT for f in schema if pa.types.is_string(f.type)}
    columns |= {name: _DELTAS for name in keys if pa.types.is_integer(schema.field(name).type)}
    return WriterProperties(
        max_row_group_size=ROW_GROUP,
        compression="ZSTD",
        compression_level=1,
        default_column_properties=_PLAIN,
        column_properties=columns or None,
    )


def compact(lake: Lake, key: str, table: DeltaTable, size: int) -> None:
    """Join files smaller than `size` bytes, durably; no commit where there are none. Raises CommitFailedError."""
    before = table.version()
    table.optimize.compact(
        target_size=size,
        max_concurrent_tasks=1,
        writer_properties=_writer(pa.schema(table.schema())),
        post_commithook_properties=_NO_HOOKS,
    )
    _settle(lake, key, before, table)


def vacuum(lake: Lake, key: str, table: DeltaTable, keep: list[int], retention: int) -> None:
    """Remove files that no version to keep needs and that were let go so many seconds ago. Raises CommitFailedError."""
    before = table.version()
    options: Any = {"retention_hours": -(-retention // 3600), "enforce_retention_duration": False, "full": True}
    if table.vacuum(dry_run=True, keep_versions=keep, **options):
        table.vacuum(dry_run=False, keep_versions=keep, post_commithook_properties=_NO_HOOKS, **options)
    _settle(lake, key, before, table)


def forget_commits(lake: Lake, key: str, version: int) -> None:
    """Remove commits and checkpoints that opening that version, or a later one, does not need."""
    log = f"{key}/_delta_log"
    names = lake.store.list(log)
    start = max((n for n in map(_checkpoint_version, names) if n is not None and n <= version), default=0)
    lake.store.delete(f"{log}/{name}" for name in names if name[:20].isdigit() and int(name[:20]) < start)


def _checkpoint_version(name: str) -> int | None:
    return int(name[:20]) if name.endswith(".checkpoint.parquet") and name[:20].isdigit() else None


def _settle(lake: Lake, key: str, before: int, table: DeltaTable) -> None:
    """Make the commits after `before` durable; every so often with a checkpoint, so that opening stays cheap."""
    _sync(lake, key, before + 1, table.version())
    if table.version() // CHECKPOINT_EVERY > max(before, 0) // CHECKPOINT_EVERY:
        checkpoint(lake, key, table)


def checkpoint(lake: Lake, key: str, table: DeltaTable) -> None:
    """Write a durable checkpoint of that version, so that opening stays cheap."""
    table.create_checkpoint()
    log = f"{key}/_delta_log"
    if lake.store.local:
        lake.store.sync([f"{log}/{table.version():020d}.checkpoint.parquet", f"{log}/_last_checkpoint"])


def _sync(lake: Lake, key: str, first: int, last: int) -> None:
    """Make the commits first … last and the files that they added durable."""
    if not lake.store.local:
        return
    for version in range(first, last + 1):
        commit = _commit_key(key, version)
        lake.store.sync([*(f"{key}/{path}" for path in _added(lake, commit)), commit])


def _added(lake: Lake, commit: str) -> Iterator[str]:
    for line in lake.store.get(commit).splitlines():
        action = json.loads(line)
        if "add" in action:
            yield action["add"]["path"]


def files(lake: Lake, key: str, version: int | None, rows: int | None = None) -> tuple[DataFile, ...]:
    """The data files of a table version, in order of their cuts. Empty for version None.

    `rows` is how many they must have: a commit that lost whole lines reads as if it had never had them. Raises
    LakeError.
    """
    if version is None:
        return ()
    found = _files(lake, key, version)
    if rows is not None and (held := sum(f.rows for f in found)) != rows:
        raise LakeError(f"{key} has {held} rows at version {version} and must have {rows}", hint=_RESTORE)
    return found


@lru_cache(maxsize=512)
def _files(lake: Lake, key: str, version: int) -> tuple[DataFile, ...]:
    table = open_table(lake, key, version)
    if table is None:
        lake.store.list(f"{key}/_delta_log")  # delta-rs takes what may not be read for what is not there
        raise LakeError(f"{key} is missing, but a flush record names it", hint=_RESTORE)
    rows = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    found = [_file(lake, f"{key}/{row['path']}", row) for row in rows]
    return tuple(sorted(found, key=lambda f: (f.cut or (0, 0), f.uri)))


def _file(lake: Lake, key: str, row: dict[str, Any]) -> DataFile:
    def span(name: str) -> tuple[int, int] | None:
        low, high = row.get(f"min.{name}"), row.get(f"max.{name}")
        return None if low is None or high is None else (low, high)

    nulls = row.get("null_count._missing")
    missing = None if nulls is None else row["num_records"] - nulls
    size, spans = row["size_bytes"], (span("_cut"), span("_end_lsn"))
    return DataFile(key, lake.store.uri(key), row["num_records"], size, *spans, missing, span("_schema"))


def _commit_key(key: str, version: int) -> str:
    return f"{key}/_delta_log/{version:020d}.json"


def _reason(error: Exception) -> str:
    """The kind of a delta-rs error; its text may quote a path or a value."""
    return type(error).__name__
