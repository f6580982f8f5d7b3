"""A slot of a test's own, its stream decoded, and the decoded rows told as PostgreSQL's text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from claimhouse.change import Changes, Decoded, old_name, section_schema
from claimhouse.postgres.pgoutput import Decoder, Relation
from claimhouse.postgres.stream import Raw, Stream
from claimhouse.postgres.types import kind_of, render
from claimhouse.table import Column, Table, encode_name


class Xids:
    """All transactions of the tests lie in the third epoch."""

    def extend(self, xids: np.ndarray) -> np.ndarray:
        assert xids.dtype == np.uint32
        return xids.astype(np.int64) + (3 << 32)


def table_of(relation: Relation, version: int = 1) -> Table:
    """The table as its relation announces it."""
    identity = "full" if relation.identity == "f" else "key"
    places = iter(range(1, 100))
    columns = (
        Column(c.name, encode_name(c.name), n, "?", c.type_oid, c.typmod, kind_of(c.type_oid, c.typmod),
               key=next(places) if identity == "key" and c.flags & 1 else 0)
        for n, c in enumerate(relation.columns, 1)
    )  # fmt: skip
    return Table("main", relation.schema, relation.name, relation.oid, version, identity, tuple(columns))


@dataclass
class Source:
    """A publication and a slot in the test's database. `resolved` lists every call of resolve."""

    postgres: Any
    tables: str = "ALL TABLES"
    slot: str = field(init=False)
    resolved: list[tuple[str, int]] = field(default_factory=list)
    resolve: Callable[[Relation, int], Table | None] | None = None

    def __post_init__(self) -> None:
        self.slot = f"slot_{self.postgres.name}"
        self.postgres.execute(f"CREATE PUBLICATION p FOR {self.tables}")
        self.postgres.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])

    def open(self, **options: Any) -> Stream:
        for _ in range(100):
            if not self.postgres.execute(
                "SELECT FROM pg_replication_slots WHERE slot_name = %s AND active", [self.slot]
            ):
                break
            time.sleep(0.02)
        return Stream(self.postgres.dsn, self.slot, ["p"], **options)

    def decoder(self, **options: Any) -> Decoder:
        return Decoder(self._resolve, Xids(), **options)

    def _resolve(self, relation: Relation, lsn: int) -> Table | None:
        self.resolved.append((relation.name, lsn))
        if self.resolve is not None:
            return self.resolve(relation, lsn)
        return table_of(relation, sum(name == relation.name for name, _ in self.resolved))

    def lsn(self) -> int:
        return int(self.postgres.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])

    def raws(self, **options: Any) -> list[Raw]:
        """Everything from the slot's start to now; the slot stays where it is."""
        end = self.lsn()
        self.postgres.execute("SELECT pg_logical_emit_message(false, 'test', '')")
        with self.open(**options) as stream:
            return list(until(stream, end))

    def decode(self, *, piece: int | None = None, **options: Any) -> list[Decoded]:
        """All of it, `piece` messages a feed."""
        decoder = self.decoder(**options)
        raw = Raw.join(self.raws())
        pieces = range(0, len(raw), piece or max(1, len(raw)))
        return [d for n in pieces for d in decoder.feed(raw.part(n, min(len(raw), n + (piece or len(raw)))))]


def until(stream: Stream, lsn: int, seconds: float = 20.0) -> Iterator[Raw]:
    """Reads until a keepalive or a message tells that all up to `lsn` has come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        raw = stream.read(0.2)
        yield raw
        if raw.wal_end >= lsn:
            return
    raise AssertionError("the stream did not come that far")


def all_changes(decoded: Iterable[Decoded]) -> list[Changes]:
    return [changes for d in decoded for changes in d.changes]


def as_text(changes: Changes) -> list[dict[str, str | None]]:
    """Each row as {log column: text}: source and old columns in PostgreSQL's spelling, `_op`, `_missing` and `_seq`."""
    batch, table = changes.batch, changes.table
    assert batch.schema.equals(section_schema(table))
    batch.validate(full=True)
    exacts = [dict(row or ()) for row in batch.column("_exact").to_pylist()]
    columns: dict[str, list[Any]] = {name: batch.column(name).to_pylist() for name in ("_op", "_missing", "_seq")}
    fields = [(c.physical, c) for c in table.columns] + [(old_name(c.physical), c) for c in table.key]
    for name, column in fields:
        exact = pa.array([row.get(name) for row in exacts], pa.string())
        columns[name] = render(batch.column(name), exact, column).to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def replay(changes: Iterable[Changes]) -> dict[tuple[str | None, ...], dict[str, str | None]]:
    """The table's rows by key, after all changes of it (identity 'key')."""
    state: dict[tuple[str | None, ...], dict[str, str | None]] = {}
    for change in changes:
        key = [c.physical for c in change.table.key]
        for row in as_text(change):
            new = {c.physical: row[c.physical] for c in change.table.columns}
            at = tuple(new[k] for k in key)
            if row["_op"] == "t":
                state.clear()
            elif row["_op"] == "d":
                del state[at]
            elif row["_op"] == "c":
                assert at not in state
                state[at] = new
            else:
                old = tuple(row[old_name(k)] if row[old_name(k)] is not None else row[k] for k in key)
                before = state.pop(old)
                for name in (row["_missing"] or "").split(","):
                    if name:
                        assert new[name] is None
                        new[name] = before[name]
                state[at] = new
    return state
