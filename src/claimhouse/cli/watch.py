"""What the demo's panel shows, gathered where a reader would: from the cuts and by SQL over the lake.

The capture tells when each cut became readable; the transactions inside it tell when they were committed. The
difference, per transaction, is the lag from commit to queryable. Rows and newest claims come out of the lake itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claimhouse.claims import Simulator
    from claimhouse.cli.panel import ClaimView, TableView, View
    from claimhouse.lake.lake import Lake

COUNTED_AT_ONCE = 4  # tables a second, so that counting them all does not slow the capture that is watched
NEWEST = """
SELECT c.claim_number, c.line, c.cause, c.loss_place || ' ' || c.loss_state, c.status, r.held
FROM (SELECT * FROM claim ORDER BY claim_id DESC LIMIT 8) c
LEFT JOIN (SELECT claim_id, sum(amount) AS held FROM reserve_txn GROUP BY claim_id) r USING (claim_id)
ORDER BY c.claim_id DESC"""


@dataclass
class Watch:
    """Keeps the newest picture of one source; `gather` runs beside the capture, `look` may be called at any time."""

    location: str
    source: str
    limit: float | None = None
    began: float = field(default_factory=time.monotonic)
    simulator: Simulator | None = None
    report: str | None = None
    equal: bool | None = None
    news: str = ""
    transactions: int = 0
    changes: int = 0
    copied: int = 0
    cuts: int = 0
    lags: deque[float] = field(default_factory=lambda: deque(maxlen=5000))
    _told: dict[int, tuple[float, int]] = field(default_factory=dict)  # cut -> when it was readable, its rows
    _copies: dict[str, int] = field(default_factory=dict)
    _tables: dict[str, TableView] = field(default_factory=dict)
    _changed: Counter[str] = field(default_factory=Counter)
    _counted: dict[str, tuple[int, int]] = field(default_factory=dict)  # folder -> rows counted, at which cut
    _grown: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # folder -> (cut, rows more) since
    _claims: list[ClaimView] = field(default_factory=list)
    _first_flush: int | None = None
    _flush: int = 0
    _in_tail: int = 0
    _rates: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    _medians: deque[float] = field(default_factory=lambda: deque(maxlen=60))

    def on_event(self, kind: str, fields: dict[str, Any]) -> None:
        """Hears the capture."""
        if kind == "cut":
            self._told[fields["cut"]] = time.time(), fields["rows"]
            self.cuts += 1
            self.transactions += fields["transactions"]
        elif kind in ("copy", "copied"):
            self._copies[fields["table"]] = fields["rows"]
            self.copied = sum(self._copies.values())
            self.news = f"{'copied' if kind == 'copied' else 'copying'} {fields['table']}: {fields['rows']:,} rows"
        elif kind != "wait":
            from claimhouse.cli.run import in_words

            self.news = in_words(kind, fields)

    def gather(self, over: threading.Event) -> None:
        """Reads new cuts four times a second, claims once a second, until it is over."""
        beat, changes = time.monotonic(), 0
        while not over.wait(0.25):
            with self._forgiving():
                lake = self._lake()
                changes += sum(self._take(lake, *told) for told in self._untaken())
                if (passed := time.monotonic() - beat) >= 1:
                    self._rates.append(changes / passed)
                    self._medians.append(self.lag(0.5, newest=200) or 0.0)
                    beat, changes = time.monotonic(), 0
                    self._ask(lake)

    def lag(self, share: float, newest: int | None = None) -> float | None:
        """The lag that this share of the (newest) transactions stayed below, in milliseconds."""
        ordered = sorted(list(self.lags)[-newest:] if newest else self.lags)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else None

    def look(self) -> View:
        """The moment as the panel wants it."""
        from claimhouse.cli.panel import View

        seconds = time.monotonic() - self.began
        simulated = self.simulator.counts if self.simulator else None
        return View(
            lake=self.location,
            seconds=seconds,
            remaining=None if self.limit is None else max(self.limit - seconds, 0.0),
            book_date=simulated.book_time.date() if simulated and simulated.book_time else None,
            transactions=self.transactions,
            changes=self.changes,
            copied=self.copied,
            changes_per_second=list(self._rates),
            lags=list(self._medians),
            lag_p50=self.lag(0.5),
            lag_p99=self.lag(0.99),
            lag_max=self.lag(1.0),
            cuts=self.cuts,
            flushes=self._flush - (self._first_flush or 0),
            cuts_in_tail=self._in_tail,
            tables=[t for _, t in sorted(self._tables.items())],
            claims=self._claims,
            verified=self.report,
            equal=self.equal,
            news=self.news,
        )

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """The panel misses a beat where the lake is not there yet, or dropped what was being read."""
        from claimhouse.errors import ClaimhouseError

        with contextlib.suppress(ClaimhouseError, KeyError):
            yield

    def _lake(self) -> Lake:
        from claimhouse.lake.lake import open_lake

        return open_lake(self.location)

    def _untaken(self) -> list[tuple[int, float, int]]:
        """(cut, when it was readable, rows) of the cuts that the capture told of since the last call."""
        return [(cut, *self._told.pop(cut)) for cut in sorted(self._told)]

    def _take(self, lake: Lake, number: int, readable: float, rows: int) -> int:
        """Counts a cut's changes and lags; the number of its streamed rows."""
        from claimhouse.lake.tail import open_cut

        try:
            cut = open_cut(lake, self.source, number)
        except KeyError:  # flushed and dropped before we came to it
            self.changes += rows
            self._counted.clear()
            return rows
        committed = cut.transactions().column("committed_at").cast("int64")
        self.lags.extend(readable - at / 1e6 for at in committed.to_pylist())
        streamed = 0
        for folder in cut.mark.tables:
            ops = Counter(op for _, batch in cut.batches(folder) for op in batch.column("_op").to_pylist())
            self._changed[folder] += ops.total() - ops["r"]
            self._grown.setdefault(folder, []).append((number, ops["c"] - ops["d"]))
            streamed += ops.total() - ops["r"]
        self.changes += streamed
        return streamed

    def _ask(self, lake: Lake) -> None:
        """Rows of each table and the newest claims, by SQL over the newest cut."""
        from claimhouse.cli.panel import ClaimView, TableView
        from claimhouse.query.session import Session

        with Session(lake, sources=[self.source]) as session:
            snapshot = session.snapshots[self.source]
            self._flush, self._in_tail = snapshot.mark.flush, len(snapshot.cuts)
            if self._first_flush is None:
                self._first_flush = self._flush
            visible = {t.name for t in session.tables() if t.schema == "public"}
            states = snapshot.registry.tables.items()
            uncounted = [(f, s) for f, s in states if f not in self._counted and s.name in visible]
            for folder, state in uncounted[:COUNTED_AT_ONCE]:
                rows = session.count(self.source, state.schema, state.name)
                self._counted[folder] = rows, snapshot.mark.cut
            for folder, state in states:
                word = "exact" if state.status == "live" else state.status
                self._tables[folder] = TableView(state.name, self._rows(folder), self._changed[folder], word)
            if {"claim", "reserve_txn"} <= visible:
                self._claims = [
                    ClaimView(n, li, ca, pl, held, st)
                    for n, li, ca, pl, st, held in session.sql(NEWEST).relation.fetchall()
                ]

    def _rows(self, folder: str) -> int | None:
        """A table's rows: as counted once, and what the cuts since then added."""
        if folder not in self._counted:
            return None
        rows, at = self._counted[folder]
        return rows + sum(more for cut, more in self._grown.get(folder, ()) if cut > at)
