"""Flush records: which Delta versions together hold exactly the cuts up to one number.

A record is immutable and believed only because a cut mark names it: what a killed owner left is never read, though it
is taken over if it says the same. Numbers only grow; a number may be skipped. The same records stand as rows in
`control/flushes` for readers that know Delta only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from claimhouse.errors import LakeError
from claimhouse.failpoint import hit
from claimhouse.lake import delta
from claimhouse.lake.lake import FLUSHES, Lake, flushed_folder
from claimhouse.lake.storage import Exists


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One table in a flush record: Delta versions of its log and of its `current`, None where there are no rows yet.

    `current` is the state at position (`current_incarnation`, `current_lsn`), after cut `current_cut`, built on copy
    `current_copy`, in the shape of version `current_schema`. `rows`: how many rows the log has in all, `current_seen`:
    how many it had at the fold, `current_rows`: how many `current` has, `compacted`: the log's version that its small
    files were last joined at.
    """

    changes: int | None = None
    rows: int = 0
    compacted: int = 0
    current: int | None = None
    current_cut: int = 0
    current_lsn: int = 0
    current_incarnation: int = 0
    current_copy: int = 0
    current_schema: int = 0
    current_rows: int = 0
    current_seen: int = 0


@dataclass(frozen=True, slots=True)
class FlushRecord:
    """A consistent set of versions; field by field as in docs/lake-format.md."""

    flush: int
    cut: int
    end_lsn: int
    max_committed_at: int
    incarnation: int
    registry: str
    at: int
    transactions: int | None = None
    transactions_compacted: int = 0
    tables: Mapping[str, TableRecord] = field(default_factory=dict)

    def table(self, folder: str) -> TableRecord:
        return self.tables.get(folder, _NONE)

    def same(self, other: FlushRecord) -> bool:
        """Whether both name the same versions for the same cut."""
        return replace(self, flush=0, at=0) == replace(other, flush=0, at=0)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> FlushRecord:
        raw: dict[str, Any] = json.loads(data)
        raw["tables"] = {folder: TableRecord(**t) for folder, t in raw["tables"].items()}
        return cls(**raw)


_NONE = TableRecord()


def load(lake: Lake, source: str, flush: int) -> FlushRecord:
    """The record of that number. Raises KeyError, or LakeError if it is damaged."""
    key = _key(source, flush)
    try:
        return FlushRecord.from_bytes(lake.store.get(key))
    except (ValueError, TypeError) as error:
        raise LakeError(f"{key} is damaged", hint="restore it from a copy") from error


def put(lake: Lake, source: str, record: FlushRecord) -> FlushRecord:
    """Store a record under the first free number from its own on, and its row; the record as stored."""
    hit("flush.before_record")
    while True:
        try:
            lake.store.put_new(_key(source, record.flush), record.to_bytes())
            break
        except Exists:
            found = load(lake, source, record.flush)
            if found.same(record):
                record = found
                break
            record = replace(record, flush=record.flush + 1)
    hit("flush.after_record")
    _put_row(lake, source, record)
    return record


_ROW = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("flush", pa.int64()),
        pa.field("cut", pa.int64()),
        pa.field("end_lsn", pa.int64()),
        pa.field("max_committed_at", pa.timestamp("us", tz="UTC")),
        pa.field("incarnation", pa.int32()),
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("transactions", pa.int64()),
        pa.field("changes", pa.map_(pa.string(), pa.int64())),
        pa.field("current", pa.map_(pa.string(), pa.int64())),
    ]
)


def _put_row(lake: Lake, source: str, record: FlushRecord) -> None:
    table = delta.open_table(lake, FLUSHES)
    app = lake.app_id(source, "flushes")
    if delta.recorded(table, app) >= record.flush:
        return
    row = {name: getattr(record, name) for name in _ROW.names if hasattr(record, name)}
    row["source"] = source
    for name in ("changes", "current"):
        row[name] = [(f, getattr(t, name)) for f, t in record.tables.items() if getattr(t, name) is not None]
    hit("flush.before_row")
    rows, stats = pa.Table.from_pylist([row], _ROW), ("source", "flush", "cut")
    delta.write(lake, FLUSHES, rows, app, record.flush, stats=stats, table=table)
    hit("flush.after_row")


def _key(source: str, flush: int) -> str:
    return f"{flushed_folder(source)}/{flush:020d}.json"
