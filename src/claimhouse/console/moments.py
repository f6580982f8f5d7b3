"""The moments that the valued-as-of bar steps through: every transaction that the console knows, in order of the log.

Kept as a few numbers per transaction (position, commit time, transaction id, rows), at most `LIMIT` of them, newest;
what is new is added when a newer snapshot is shown. A moment before them is still reached by its time or position.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from claimhouse.change import lsn_text
from claimhouse.lake import delta
from claimhouse.lake.lake import TRANSACTIONS, Lake
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.query import guard
from claimhouse.query.moment import iso
from claimhouse.quoting import quote_text

LIMIT = 2_000_000


@dataclass(frozen=True)
class Line:
    """Transactions of one source's newest incarnation: end LSN, commit time (µs since 1970), id, rows; by LSN."""

    lsn: np.ndarray
    committed: np.ndarray
    xid: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.lsn)

    def upto(self, lsn: int) -> int:
        """How many of them end at or before that position."""
        return int(np.searchsorted(self.lsn, lsn, side="right"))

    def between(self, first: int, last: int) -> Line:
        return Line(*(a[first:last] for a in (self.lsn, self.committed, self.xid, self.rows)))

    def at(self, index: int) -> dict[str, object]:
        """One of them, for a person and for the address."""
        return {
            "index": index,
            "at": lsn_text(int(self.lsn[index])),
            "xid": int(self.xid[index]),
            "committed_at": iso(int(self.committed[index])),
            "rows": int(self.rows[index]),
        }


_NONE = Line(*(np.empty(0, np.int64) for _ in range(4)))


class Moments:
    """One source's transactions; shared between threads."""

    def __init__(self, lake: Lake, source: str) -> None:
        self.lake, self.source = lake, source
        self._lock = threading.Lock()
        self._line, self._incarnation, self._cut = _NONE, 0, 0

    def line(self, snapshot: LakeSnapshot) -> Line:
        """The transactions up to a snapshot's cut."""
        with self._lock:
            if snapshot.mark.incarnation != self._incarnation and snapshot.mark.cut > self._cut:
                self._line, self._incarnation, self._cut = _NONE, snapshot.mark.incarnation, 0
            if snapshot.mark.cut > self._cut:
                parts = [self._line]
                if snapshot.flushed > self._cut:
                    parts.append(self._flushed(snapshot))
                parts.append(_of_tail(snapshot, max(self._cut, snapshot.flushed)))
                self._line = _joined(parts)
                self._cut = snapshot.mark.cut
            line = self._line
        return line.between(0, line.upto(snapshot.mark.end_lsn))

    def _flushed(self, snapshot: LakeSnapshot) -> Line:
        record = snapshot.record
        assert record is not None
        files = [
            f
            for f in delta.files(self.lake, TRANSACTIONS, record.transactions)
            if f.cut is None or f.cut[1] > self._cut
        ]
        if not files:
            return _NONE
        listed = ", ".join(quote_text(f.uri) for f in files)
        connection = guard.connect(threads=1, memory="256MB")
        try:
            self.lake.store.attach(connection)
            found = connection.execute(
                "SELECT end_lsn, epoch_us(committed_at) AS committed, xid,"
                " CAST(coalesce(list_sum(map_values(counts)), 0) AS BIGINT) AS n"
                f" FROM read_parquet([{listed}]) WHERE source = {quote_text(self.source)}"
                f" AND incarnation = {self._incarnation} AND cut > {self._cut} AND cut <= {record.cut}"
                f" ORDER BY end_lsn DESC LIMIT {LIMIT}"
            ).fetchnumpy()
        finally:
            connection.close()
        return Line(*(np.asarray(found[name], np.int64)[::-1] for name in ("end_lsn", "committed", "xid", "n")))


def _of_tail(snapshot: LakeSnapshot, after: int) -> Line:
    """The transactions of a snapshot's tail beyond a cut."""
    lsn, committed, xid, rows = [], [], [], []
    for cut in snapshot.cuts:
        if cut.mark.cut <= after or cut.mark.incarnation != snapshot.mark.incarnation:
            continue
        table = cut.transactions()
        lsn += table["end_lsn"].to_pylist()
        committed += table["committed_at"].cast("int64").to_pylist()
        xid += table["xid"].to_pylist()
        rows += [sum(n for _, n in counts or ()) for counts in table["counts"].to_pylist()]
    return Line(*(np.array(values, np.int64) for values in (lsn, committed, xid, rows)))


def _joined(parts: list[Line]) -> Line:
    arrays = [
        np.concatenate([getattr(p, name) for p in parts])[-LIMIT:] for name in ("lsn", "committed", "xid", "rows")
    ]
    return Line(*arrays)
