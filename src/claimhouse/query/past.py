"""What a source's transactions tell about past positions: those that are flushed, and those of the tail.

Implements `moment.Past` over one snapshot; each answer reads as little of `control/transactions` as statistics allow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from claimhouse.errors import LakeError
from claimhouse.lake import delta
from claimhouse.lake.lake import TRANSACTIONS
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.lake.tail import read_mark
from claimhouse.query.guard import quote_text
from claimhouse.query.moment import Position
from claimhouse.query.render import pc


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
        found = self._flushed(f"epoch_us(committed_at) > {micros}", "ASC")
        if found:
            return found
        moment = pa.scalar(micros, pa.timestamp("us", tz="UTC"))
        return self._in_tail(lambda t: pc.greater(t["committed_at"], moment), first=True)

    def committed_at(self, position: Position) -> int:
        """The newest commit time up to a position, microseconds; 0 where there is none."""
        place = f"({position.incarnation}, {position.lsn})"
        files = self._transactions()
        found = 0
        if files:
            found = self.connection.execute(
                f"SELECT coalesce(max(epoch_us(committed_at)), 0) FROM read_parquet([{files}])"
                f" WHERE {self._own()} AND (incarnation, end_lsn) <= {place}"
            ).fetchall()[0][0]
        for cut in self.snapshot.cuts:
            if cut.mark.incarnation <= position.incarnation:
                rows = cut.transactions()
                if cut.mark.incarnation == position.incarnation:
                    rows = rows.filter(pc.less_equal(rows["end_lsn"], position.lsn))
                found = max(found, pc.max(rows["committed_at"].cast(pa.int64())).as_py() or 0)
        return found

    def end_of_xid(self, xid: int) -> Position | None:
        """Where a transaction ends; of the newest incarnation, should its number have come twice."""
        return self._in_tail(lambda t: pc.equal(t["xid"], xid), first=False) or self._flushed(f"xid = {xid}", "DESC")

    def end_of_cut(self, cut: int) -> Position | None:
        """Where a cut ends; of one whose object is gone, just before the first transaction of a later one."""
        with contextlib.suppress(KeyError):
            mark = read_mark(self.snapshot.lake, self.snapshot.source, cut)
            return Position(mark.incarnation, mark.end_lsn)
        record = self.snapshot.record
        if record and record.cut == cut:
            return Position(record.incarnation, record.end_lsn)
        later = self._flushed(f"cut > {cut}", "ASC") or self._in_tail(lambda t: pc.greater(t["cut"], cut), first=True)
        return Position(later.incarnation, later.lsn - 1) if later else self.newest

    def _transactions(self) -> str:
        """The files of the flushed transactions as SQL lists them."""
        record = self.snapshot.record
        return ", ".join(
            quote_text(f.uri)
            for f in delta.files(self.snapshot.lake, TRANSACTIONS, record.transactions if record else None)
        )

    def _own(self) -> str:
        return f"source = {quote_text(self.snapshot.source)} AND cut <= {self.snapshot.flushed}"

    def _flushed(self, condition: str, order: str) -> Position | None:
        files = self._transactions()
        if not files:
            return None
        rows = self.connection.execute(
            f"SELECT incarnation, end_lsn FROM read_parquet([{files}]) WHERE {self._own()} AND {condition}"
            f" ORDER BY incarnation {order}, end_lsn {order} LIMIT 1"
        ).fetchall()
        return Position(*rows[0]) if rows else None

    def _in_tail(self, condition: Callable[[pa.Table], Any], *, first: bool) -> Position | None:
        table = self.snapshot.tail_transactions()
        found = table.filter(condition(table))
        if not found.num_rows:
            return None
        row = found.slice(0 if first else found.num_rows - 1, 1).to_pylist()[0]
        for opened in self.snapshot.cuts:
            if opened.mark.cut == row["cut"]:
                return Position(opened.mark.incarnation, row["end_lsn"])
        raise LakeError(f"cut {row['cut']} of source {self.snapshot.source} vanished while it was read")
