"""Reading the distributed tail: transactions that a cut holds, in commit order, with their rows.

The table has one writer, the streaming query; here it is read by delta-rs, without a JVM. Whoever needs transactions
after a position asks for them a window at a time, so memory stays bounded.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.distributed.events import ERA
from claimhouse.distributed.feed import Events
from claimhouse.lake import delta
from claimhouse.lake.lake import Lake, tail_events_key
from claimhouse.postgres.server import Xids

WINDOW = 500_000  # events of one window; a larger transaction is a window of its own
_COMMIT = ["xid", "end_lsn", "at", "events", "batch"]
_ROW = ["xid", "seq", "lsn", "op", "at", "schema", "name", "before", "after", "old", "note", "batch"]


@dataclass(slots=True)
class TailEvents:
    """One source's tail table, read window by window.

    `xids` extends transaction ids to 64 bits; `floor(lsn)` is the oldest batch needed beyond a position.
    """

    lake: Lake
    source: str
    xids: Xids
    floor: Callable[[int], int] = lambda _: 0

    def after(self, lsn: int) -> Events | None:
        """The next window of transactions that end above that position, None where there is none (yet)."""
        table = delta.open_table(self.lake, tail_events_key(self.source))
        if table is None:
            return None
        dataset = table.to_pyarrow_dataset()
        era = pc.field("era") >= self.floor(lsn) // ERA
        commits = dataset.to_table(_COMMIT, filter=era & (pc.field("kind") == "commit") & (pc.field("end_lsn") > lsn))
        if not commits.num_rows:
            return None
        commits = _window(commits.sort_by("end_lsn"))
        low = commits.column("xid").unique()
        rows = dataset.to_table(_ROW, filter=era & (pc.field("kind") == "row") & pc.field("xid").isin(low))
        return self._events(commits, rows)

    def _events(self, commits: pa.Table, rows: pa.Table) -> Events:
        low = commits.column("xid").to_numpy()
        wide = self.xids.extend(low.astype(np.uint32))
        done = pa.table({"xid": wide, "end_lsn": commits.column("end_lsn"), "at": commits.column("at")})
        order = np.argsort(low, kind="stable")
        place = order[np.searchsorted(low[order], rows.column("xid").to_numpy())] if rows.num_rows else order[:0]
        rows = rows.set_column(rows.column_names.index("xid"), "xid", pa.array(wide[place], pa.int64()))
        ends = commits.column("end_lsn").to_numpy()[place] if rows.num_rows else np.empty(0, np.int64)
        rows = rows.append_column("end_lsn", pa.array(ends, pa.int64()))
        return Events(rows.sort_by([("end_lsn", "ascending"), ("seq", "ascending")]), done)


def _window(commits: pa.Table) -> pa.Table:
    """The first transactions, together at most WINDOW events, at least one."""
    total = np.cumsum(commits.column("events").to_numpy())
    return commits.slice(0, max(1, int(np.searchsorted(total, WINDOW, side="right"))))
