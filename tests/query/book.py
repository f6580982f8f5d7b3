"""A lake that tests fill without PostgreSQL: through the lake's own API, one transaction at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from claimhouse.change import TRANSACTIONS, Changes, old_name, section_schema
from claimhouse.lake import registry as registries
from claimhouse.lake.changes import flush
from claimhouse.lake.current import fold
from claimhouse.lake.lake import Lake, create
from claimhouse.lake.owner import claim
from claimhouse.lake.registry import Copy, Registry, TableState
from claimhouse.lake.tail import CutMark, Tail
from claimhouse.table import Column, Identity, Table, encode_name

Row = Mapping[str, Any]  # by source name; None of a column that a row leaves out
SECOND = 1_000_000


class Book:
    """One source of a lake. Time and LSN move by themselves: each commit is 100 bytes and one second later."""

    def __init__(self, location: Path | str, source: str = "main", lake: Lake | None = None) -> None:
        self.lake = lake or create(location)
        self.source = source
        self.owner = claim(self.lake, source)
        self.tail = Tail(self.lake, source, self.owner)
        self.registry = Registry(source=source)
        self.lsn, self.at, self.xid = 1000, 1_700_000_000 * SECOND, 700
        self.record: Any = None
        self._rows: dict[tuple[str, int], tuple[Table, list[Row]]] = {}
        self._transactions: list[dict[str, Any]] = []

    def table(
        self,
        name: str,
        columns: Mapping[str, str],
        *,
        schema: str = "public",
        key: Sequence[str] = ("id",),
        identity: Identity = "key",
        rows: Sequence[Row] = (),
        live: bool = True,
    ) -> Table:
        """A new table with its first copy; visible from the next cut on unless `live` is False."""
        found = tuple(
            Column(n, encode_name(n), place, k, 0, -1, k, key=key.index(n) + 1 if n in key else 0)
            for place, (n, k) in enumerate(columns.items(), 1)
        )
        table = Table(self.source, schema, name, len(self.registry.tables) + 1, 1, identity, found)
        state = TableState(table.oid, schema, name, table.folder, "copying", versions=[table], since=[0])
        self.registry.tables[table.folder] = state
        self.copy(table, rows)
        if live:
            self.live(table)
        return table

    def copy(self, table: Table, rows: Sequence[Row]) -> None:
        """Begin a new copy of the table: its rows count as what it holds now."""
        state = self.registry.tables[table.folder]
        number = len(state.copies) + 1
        state.copies.append(Copy(number, 1, self.lsn))
        state.copies_begun = number
        meta = [{"_op": "r", "_copy": number, "_seq": n} for n in range(len(rows))]
        self._add(table, meta, rows, [{}] * len(rows))

    def live(self, table: Table) -> None:
        """The copy is right from the position on that the next cut has."""
        state = self.registry.tables[table.folder]
        state.copies[-1].exact_from = self.lsn
        state.status = "live"

    def evolve(self, table: Table, columns: Sequence[Column]) -> Table:
        """The next shape of a table, from the next commit on."""
        state = self.registry.tables[table.folder]
        new = Table(
            table.source, table.schema, table.name, table.oid, table.version + 1, table.identity, tuple(columns)
        )
        state.versions.append(new)
        state.since.append(self.lsn + 1)
        return new

    def commit(self, *changes: tuple[Any, ...], later: float = 1.0) -> int:
        """One transaction of (op, table, row[, old key[, names of missing columns]]); its end LSN."""
        self.lsn += 100
        self.xid += 1
        self.at += int(later * SECOND)
        counts: dict[str, int] = {}
        for seq, (op, table, *rest) in enumerate(changes):
            row, old, missing = [*rest, *[None] * 3][:3]
            meta = {"_op": op, "_seq": seq, "_xid": self.xid}
            if missing:
                meta["_missing"] = ",".join(table.column(n).physical for n in missing)
            self._add(table, [meta], [row or {}], [old or {}])
            counts[table.folder] = counts.get(table.folder, 0) + 1
        self._transactions.append(
            {"xid": self.xid, "end_lsn": self.lsn, "committed_at": self.at, "counts": list(counts.items())}
        )
        return self.lsn

    def _add(self, table: Table, meta: Sequence[Row], rows: Sequence[Row], olds: Sequence[Row]) -> None:
        common = {"_end_lsn": self.lsn, "_committed_at": self.at, "_schema": table.version}
        flat = []
        for m, row, old in zip(meta, rows, olds, strict=True):
            values = {table.column(n).physical: v for n, v in row.items() if n != "_exact"}
            before = {old_name(table.column(n).physical): v for n, v in old.items()}
            exact = {"_exact": list(row["_exact"].items())} if "_exact" in row else {}
            flat.append({**common, **m, **values, **before, **exact})
        self._rows.setdefault((table.folder, table.version), (table, []))[1].extend(flat)

    def cut(self) -> CutMark:
        """Commit what has come since the last cut."""
        number = (last.cut if (last := self.tail.last()) else 0) + 1
        name = registries.save(self.owner, self.registry, number)
        changes = [Changes(t, pa.RecordBatch.from_pylist(r, section_schema(t))) for t, r in self._rows.values() if r]
        mark = self.tail.append(
            changes,
            pa.RecordBatch.from_pylist(self._transactions, TRANSACTIONS),
            end_lsn=self.lsn,
            max_committed_at=self.at,
            incarnation=1,
            registry=name,
            flush=self.record.flush if self.record else 0,
            flushed_cut=self.record.cut if self.record else 0,
        )
        self._rows, self._transactions = {}, []
        return mark

    def flush(self) -> None:
        """Move all cuts into Delta, and make a cut that says so."""
        mark = self.tail.last()
        assert mark is not None
        self.record = flush(self.lake, self.source, self.owner, self.tail, mark, self.registry, self.record)
        self.cut()

    def fold(self, *tables: Table) -> None:
        """Bring `current` of these tables to the flushed position, and make a cut that says so."""
        self.record = fold(self.lake, self.source, self.registry, self.record, [t.folder for t in tables])
        self.cut()
