"""What a source's transactions tell about past positions: those that are flushed, and those of the tail.

Implements `moment.Past` over one snapshot; each answer reads as little of `control/transactions` as statistics allow.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import duckdb

from claimhouse.lake import delta
from claimhouse.lake.lake import TRANSACTIONS
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.lake.tail import read_mark
from claimhouse.query.moment import Position
from claimhouse.quoting import quote_text


@dataclass(frozen=True, slots=True)
class SourcePast:
    """One source's transactions up to a snapshot's cut. The connection must still be free to open files."""

    snapshot: LakeSnapshot
    connection: duckdb.DuckDBPyConnection

    @property
    def newest(self) -> Position:
        return Position(self.snapshot.mark.incarnation, self.snapshot.mark.end_lsn)

    @property
    def max_committed_at(self) -> int:
        return self.snapshot.mark.max_committed_at

    @property
    def cut(self) -> int:
        return self.snapshot.mark.cut

    def first_later_than(self, micros: int) -> Position | None:
        """Where the first transaction ends whose commit time is later."""
        return self._first(f"epoch_us(committed_at) > {micros}")

    def committed_at(self, position: Position) -> int:
        """The newest commit time up to a position, microseconds; 0 where there is none."""
        upto = f"(incarnation, end_lsn) <= ({position.incarnation}, {position.lsn})"
        return self._ask("SELECT coalesce(max(epoch_us(committed_at)), 0)", f"WHERE {upto}")[0][0]

    def end_of_xid(self, xid: int) -> Position | None:
        """Where a transaction ends; of the newest incarnation, should its number have come twice."""
        return self._first(f"xid = {xid}", "DESC")

    def end_of_cut(self, cut: int) -> Position | None:
        """Where a cut ends; of one whose object is gone, just before the first transaction of a later one."""
        with contextlib.suppress(KeyError):
            mark = read_mark(self.snapshot.lake, self.snapshot.source, cut)
            return Position(mark.incarnation, mark.end_lsn)
        record = self.snapshot.record
        if record and record.cut == cut:
            return Position(record.incarnation, record.end_lsn)
        later = self._first(f"cut > {cut}")
        return Position(later.incarnation, later.lsn - 1) if later else self.newest

    def _first(self, condition: str, order: str = "ASC") -> Position | None:
        placed = f"ORDER BY incarnation {order}, end_lsn {order} LIMIT 1"
        rows = self._ask("SELECT incarnation, end_lsn", f"WHERE {condition} {placed}")
        return Position(*rows[0]) if rows else None

    def _ask(self, what: str, where: str) -> list[Any]:
        self.connection.register("_recent", self.snapshot.tail_transactions())
        try:
            known = transactions_sql(self.snapshot, "_recent")
            return self.connection.execute(f"{what} FROM ({known}) {where}").fetchall()
        finally:
            self.connection.unregister("_recent")


def transactions_sql(snapshot: LakeSnapshot, tail: str) -> str:
    """A SELECT of a source's transactions: the flushed ones, and those of relation `tail` (its `tail_transactions`)."""
    columns = "incarnation, cut, xid, end_lsn, committed_at"
    files = delta.files(snapshot.lake, TRANSACTIONS, snapshot.record.transactions if snapshot.record else None)
    if not files:
        return f"SELECT {columns} FROM {tail}"
    own = f"source = {quote_text(snapshot.source)} AND cut <= {snapshot.flushed}"
    listed = ", ".join(quote_text(f.uri) for f in files)
    return f"SELECT {columns} FROM read_parquet([{listed}]) WHERE {own} UNION ALL SELECT {columns} FROM {tail}"
