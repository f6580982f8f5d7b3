"""Small cuts for tests: tables of one key and one text, changes of a few rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from claimhouse.change import TRANSACTIONS, Changes, section_schema
from claimhouse.lake import owner as owners
from claimhouse.lake import registry as registries
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import Copy, Registry, TableState
from claimhouse.lake.tail import CutMark, Tail
from claimhouse.table import Column, Table


def table(name: str = "claim", version: int = 1) -> Table:
    columns = [
        Column("id", "id", 1, "bigint", 20, -1, "int8", key=1),
        Column("note", "note", 2, "text", 25, -1, "text"),
    ]
    if version > 1:
        columns.append(Column("paid", "paid", 3, "numeric", 1700, -1, "decimal(12,2)", missing="7.50", since=2))
    return Table("main", "public", name, 1, version, "key", tuple(columns))


def changes(shape: Table, rows: list[dict[str, Any]], lsn: int, op: str = "c") -> Changes:
    made = [
        {"_op": op, "_end_lsn": lsn, "_seq": i, "_xid": lsn, "_committed_at": lsn, "_schema": shape.version, **row}
        for i, row in enumerate(rows)
    ]
    return Changes(shape, pa.RecordBatch.from_pylist(made, section_schema(shape)))


def transaction(lsn: int, **counts: int) -> pa.RecordBatch:
    row = {"xid": lsn, "end_lsn": lsn, "committed_at": lsn, "counts": list(counts.items())}
    return pa.RecordBatch.from_pylist([row], TRANSACTIONS)


def registry(*shapes: Table, exact_from: int = 5) -> Registry:
    made = Registry("main")
    for shape in shapes:
        state = made.tables.setdefault(
            shape.folder,
            TableState(1, shape.schema, shape.name, shape.folder, "live", copies=[Copy(1, 1, 1, exact_from)]),
        )
        state.versions.append(shape)
        state.since.append(0)
    return made


class Writer:
    """An owner with its tail and registry, that makes cuts one after the other at positions 10, 20, 30 …"""

    def __init__(self, lake: Lake, *shapes: Table, source: str = "main") -> None:
        self.lake, self.source = lake, source
        self.owner = owners.claim(lake, source)
        self.tail = Tail(lake, source, self.owner)
        self.registry = registry(*(shapes or (table(),)))
        self.saved = ""
        last = self.tail.last()
        self.lsn = last.end_lsn if last else 0
        self.flush = (last.flush, last.flushed_cut) if last else (0, 0)

    def cut(self, *given: Changes, lsn: int | None = None, **more: Any) -> CutMark:
        """A cut of these changes (default: one insert into the first table)."""
        self.lsn = lsn or self.lsn + 10
        if not self.saved:
            last = self.tail.last()
            self.saved = registries.save(self.owner, self.registry, (last.cut if last else 0) + 1)
        shape = next(iter(self.registry.tables.values())).table
        found = given or (changes(shape, [{"id": self.lsn, "note": f"note {self.lsn}"}], self.lsn),)
        return self.tail.append(
            found,
            transaction(self.lsn, **{c.table.folder: c.batch.num_rows for c in found}),
            end_lsn=self.lsn,
            max_committed_at=self.lsn,
            incarnation=1,
            registry=self.saved,
            flush=self.flush[0],
            flushed_cut=self.flush[1],
            **more,
        )
