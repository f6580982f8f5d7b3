"""The lake's pulse: a thread that follows the newest cuts and times each hop on the way from commit to query.

Per second it keeps one `Beat`, for an hour. A hop is timed where it ends: commit → cut by the cut's own clock, cut →
query by the moment at which this process had read the cut's rows. New claims are taken out of the cuts as they come, so
pages that watch cost no query.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from claimhouse.console.background import Background
from claimhouse.errors import ClaimhouseError
from claimhouse.lake.lake import Lake
from claimhouse.lake.snapshot import LakeSnapshot, take
from claimhouse.lake.tail import Cut, cut_numbers

HOUR = 3600


@dataclass(slots=True)
class Beat:
    """One second: what came in it, and the slowest hops seen in it, in milliseconds; None where nothing came."""

    second: int
    transactions: int = 0
    rows: int = 0
    to_cut: float | None = None
    to_query: float | None = None
    delta_behind: float | None = None  # seconds that the Delta tables are behind the newest cut


@dataclass(frozen=True, slots=True)
class News:
    """Something worth a line in a live feed. `what` names the feed, `row` is shown as text."""

    number: int
    what: str
    row: dict[str, Any]


@dataclass(slots=True)
class SourcePulse:
    """The newest that is known of one source; times in seconds since 1970."""

    cut: int = 0
    lsn: int = 0
    written_at: float = 0.0
    committed_at: float = 0.0
    flushed_cut: int = 0
    flushed_at: float = 0.0
    tail_cuts: int = 0


Watch = Callable[[LakeSnapshot, list[Cut]], list[tuple[str, dict[str, Any]]]]


@dataclass
class Pulse(Background):
    """Start it once; read it from any thread. `watch` makes news of new cuts."""

    lake: Lake
    watch: Watch | None = None
    began: float = field(default_factory=time.time)
    sources: dict[str, SourcePulse] = field(default_factory=dict)
    trouble: str | None = None
    _beats: dict[int, Beat] = field(default_factory=dict)
    _news: deque[News] = field(default_factory=lambda: deque(maxlen=200))
    _recent: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=2000))
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def beats(self, seconds: int = HOUR) -> list[Beat]:
        """The beats of the last so many seconds, oldest first; seconds without a cut have none."""
        first = int(time.time()) - seconds
        with self._lock:
            return sorted((b for b in self._beats.values() if b.second >= first), key=lambda b: b.second)

    def since(self, number: int, what: str | None = None) -> list[News]:
        """News beyond a number, oldest first."""
        with self._lock:
            return [n for n in self._news if n.number > number and (what is None or n.what == what)]

    @property
    def number(self) -> int:
        """The number of the newest news."""
        return self._number

    def lags(self, share: float, seconds: float = 60.0) -> tuple[float, float] | None:
        """(commit → cut, cut → query) in ms that this share of the last seconds' cuts stayed below."""
        since = time.time() - seconds
        with self._lock:
            recent = [(c, q) for at, c, q in self._recent if at >= since]
        if not recent:
            return None
        place = min(int(len(recent) * share), len(recent) - 1)
        return sorted(c for c, _ in recent)[place], sorted(q for _, q in recent)[place]

    def tell(self, what: str, row: dict[str, Any]) -> None:
        """Add a line of news."""
        with self._lock:
            self._number += 1
            self._news.append(News(self._number, what, row))

    def _run(self) -> None:
        pause = 0.05 if self.lake.store.local else 1.0
        first = True
        while True:
            try:
                for source in self.lake.sources():
                    self._look(source, first)
                self.trouble, first = None, False
            except (ClaimhouseError, OSError) as error:
                self.trouble = str(error)
            if self._stop.wait(pause if self.trouble is None else 1.0):
                return

    def _look(self, source: str, first: bool) -> None:
        numbers = cut_numbers(self.lake, source)
        known = self.sources.setdefault(source, SourcePulse())
        if not numbers or numbers[-1] <= known.cut:
            return
        snapshot = take(self.lake, source)
        new = [c for c in snapshot.cuts if c.mark.cut > known.cut]
        told = self.watch(snapshot, new) if self.watch else []
        self._count(new, time.time(), first, snapshot)
        self._place(known, snapshot)
        for what, row in () if first else told:  # what was there before is no news
            self.tell(what, row)

    def _place(self, known: SourcePulse, snapshot: LakeSnapshot) -> None:
        mark, record = snapshot.mark, snapshot.record
        known.cut, known.lsn, known.tail_cuts = mark.cut, mark.end_lsn, len(snapshot.cuts)
        known.written_at, known.committed_at = mark.written_at / 1e6, mark.max_committed_at / 1e6
        if record is not None:
            known.flushed_cut, known.flushed_at = record.cut, record.at / 1e6

    def _count(self, cuts: list[Cut], now: float, first: bool, snapshot: LakeSnapshot) -> None:
        for cut in cuts:
            table = cut.transactions()
            committed = [t / 1e6 for t in table["committed_at"].cast("int64").to_pylist()]
            written = cut.mark.written_at / 1e6
            rows = sum(s.rows for s in cut.mark.all_sections() if s.table)
            with self._lock:
                beat = self._beat(int(written))
                beat.transactions += len(committed)
                beat.rows += rows
                if committed:
                    beat.to_cut = max(beat.to_cut or 0.0, (written - min(committed)) * 1000)
                    if not first:
                        beat.to_query = max(beat.to_query or 0.0, (now - written) * 1000)
                        self._recent.append((now, (written - min(committed)) * 1000, (now - written) * 1000))
                if snapshot.record is not None:
                    beat.delta_behind = max(written - snapshot.record.max_committed_at / 1e6, 0.0)

    def _beat(self, second: int) -> Beat:
        if second not in self._beats:
            self._beats[second] = Beat(second)
            while len(self._beats) > HOUR:
                del self._beats[min(self._beats)]
        return self._beats[second]
