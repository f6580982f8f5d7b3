"""When is a transaction complete? The pure part of the streaming job: no Spark, no clock, no storage.

Rows and END events of one transaction come by different topics, so a micro-batch may hold the END without all rows, or
rows without their END. A transaction is complete once as many events have arrived as its END counts; a cut takes
complete transactions in the order of their ENDs and stops at the first incomplete one. So what a reader sees after any
batch is a prefix of the source's commits, never half a transaction.

Events are told apart by transaction id (32 bits, as Debezium gives it: unique among what is open) and counted once:
replays are dropped by Kafka offset where the broker is the same, and by transaction where it was replaced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class End:
    """An END event: `end_lsn` of the commit, `count` of all events that the transaction has, `at` µs of the commit."""

    xid: int
    end_lsn: int
    count: int
    at: int


@dataclass(slots=True)
class Cuts:
    """What has arrived of transactions that no cut holds yet. `end_lsn` is where the newest cut ends."""

    end_lsn: int = 0
    arrived: dict[int, int] = field(default_factory=dict)
    ends: deque[End] = field(default_factory=deque)
    done: dict[int, int] = field(default_factory=dict)  # xid -> end LSN of transactions that the tail still holds

    def replayed(self, xids: Iterable[int]) -> set[int]:
        """Those of the transactions that are complete already: their rows must not be appended again."""
        return {x for x in xids if x in self.done}

    def rows(self, counts: Iterable[tuple[int, int]]) -> None:
        """Events arrived: (transaction, how many)."""
        for xid, count in counts:
            if xid not in self.done:
                self.arrived[xid] = self.arrived.get(xid, 0) + count

    def ended(self, ends: Iterable[End]) -> None:
        """END events arrived, in the order of their topic; those at or below the newest cut are replays."""
        known = self.ends[-1].end_lsn if self.ends else self.end_lsn
        for end in ends:
            if end.end_lsn > known:
                self.ends.append(end)
                known = end.end_lsn
            elif end.end_lsn <= self.end_lsn:
                self.arrived.pop(end.xid, None)

    def cut(self) -> list[End]:
        """The transactions that are complete now and follow the newest cut without a gap; they count as cut."""
        made: list[End] = []
        while self.ends and self.arrived.get(self.ends[0].xid, 0) >= self.ends[0].count:
            end = self.ends.popleft()
            self.arrived.pop(end.xid, None)
            self.done[end.xid] = end.end_lsn
            self.end_lsn = end.end_lsn
            made.append(end)
        return made

    @property
    def waiting(self) -> int:
        """How many transactions have begun to arrive and are in no cut."""
        return len(self.arrived.keys() | {e.xid for e in self.ends})
