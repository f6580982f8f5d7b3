"""Which transaction each message of a stretch belongs to, and what is known of the transactions.

A stretch is a run of messages that are decoded together: whole transactions, or a part of one. pgoutput sends one
transaction after the other, so that a message belongs to the Begin before it. Arrays are int64 unless said otherwise.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from claimhouse.change import TRANSACTIONS
from claimhouse.postgres.frames import Raw
from claimhouse.postgres.tuples import Memory

BEGIN, COMMIT, RELATION, MESSAGE = (ord(c) for c in "BCRM")
INSERT, UPDATE, DELETE, TRUNCATE = (ord(c) for c in "IUDT")
_EPOCH = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970


class ExtendsXids(Protocol):
    def extend(self, xids: np.ndarray) -> np.ndarray:
        """uint32[n] -> int64[n]."""
        ...


@dataclass(slots=True)
class Unfinished:
    """A transaction of which parts were given out: its messages so far, and its rows so far by folder."""

    xid: int
    commit_lsn: int
    committed_at: int
    messages: int
    rows: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages that change rows (n each): what they are, where, and whose."""

    memory: Memory
    kinds: np.ndarray  # uint8: I, U, D or T
    offsets: np.ndarray
    ends: np.ndarray
    end_lsn: np.ndarray
    seq: np.ndarray
    xid: np.ndarray
    committed_at: np.ndarray  # microseconds since 1970

    def __len__(self) -> int:
        return len(self.kinds)


class Stretch:
    """Messages that are decoded together; `before` is the transaction that they go on with, if any.

    Per message: `kinds` (uint8), `transaction` (its index), `seq`. Per transaction: `xid`, `commit_lsn` (where its
    commit record starts), `committed_at` (µs since 1970), `end_lsn` (0 while it has not ended).
    """

    def __init__(self, raw: Raw, before: Unfinished | None, xids: ExtendsXids) -> None:
        self.raw = raw
        self.memory = memory = Memory(raw.buffer)
        self.kinds = memory.bytes[raw.offsets]
        begins = np.flatnonzero(self.kinds == BEGIN)
        self.transaction = np.cumsum(self.kinds == BEGIN) - (0 if before else 1)
        at = raw.offsets[begins]
        self.commit_lsn = memory.longs(at + 1)
        self.committed_at = memory.longs(at + 9) + _EPOCH
        self.xid = xids.extend(memory.words(at + 17))
        if before:
            begins = np.insert(begins, 0, -before.messages)
            self.commit_lsn = np.insert(self.commit_lsn, 0, before.commit_lsn)
            self.committed_at = np.insert(self.committed_at, 0, before.committed_at)
            self.xid = np.insert(self.xid, 0, before.xid)
        self.end_lsn = np.zeros(len(self.xid), np.int64)
        ends = memory.longs(raw.offsets[self.kinds == COMMIT] + 10)
        self.end_lsn[: len(ends)] = ends
        self.seq = np.arange(len(raw)) - begins[self.transaction]

    def rows(self) -> dict[int, np.ndarray]:
        """By relation, the numbers of the messages that change its rows, in order."""
        changing = (self.kinds == INSERT) | (self.kinds == UPDATE) | (self.kinds == DELETE)
        places = np.flatnonzero(changing)
        oids = self.memory.words(self.raw.offsets[places] + 1)
        cleared = np.flatnonzero(self.kinds == TRUNCATE)
        if len(cleared):
            starts = self.raw.offsets[cleared].tolist()
            counts = self.memory.words(self.raw.offsets[cleared] + 1)
            emptied = [
                np.frombuffer(self.raw.buffer, ">u4", count, start + 6)
                for start, count in zip(starts, counts.tolist(), strict=True)
            ]
            places = np.concatenate([places, np.repeat(cleared, counts)])
            oids = np.concatenate([oids, *emptied])
        if not len(places):
            return {}
        order = np.lexsort((places, oids)) if len(cleared) else np.argsort(oids, kind="stable")
        places, oids = places[order], oids[order]
        edges = np.flatnonzero(np.diff(oids)) + 1
        return dict(zip(oids[[0, *edges]].tolist(), np.split(places, edges), strict=True))

    def body(self, place: int) -> bytes:
        """One message."""
        return bytes(self.raw.buffer[int(self.raw.offsets[place]) : int(self.raw.ends[place])])

    def lsn_of(self, place: int) -> int:
        """Where the commit record of the message's transaction starts."""
        return int(self.commit_lsn[self.transaction[place]])

    def position_of(self, place: int) -> int:
        """Where the message's transaction ends; while that is not known, where its commit record starts."""
        return int(self.end_lsn[self.transaction[place]]) or self.lsn_of(place)

    def messages(self, places: np.ndarray) -> Messages:
        """What rows are made of: these messages."""
        whose = self.transaction[places]
        return Messages(
            self.memory,
            self.kinds[places],
            self.raw.offsets[places],
            self.raw.ends[places],
            self.end_lsn[whose],
            self.seq[places],
            self.xid[whose],
            self.committed_at[whose],
        )

    def unfinished(self, before: Unfinished | None, counts: Sequence[tuple[str, np.ndarray]]) -> Unfinished:
        """What to remember of the one transaction that this stretch is a part of."""
        rows = before.rows if before else Counter[str]()
        for folder, whose in counts:
            rows[folder] += len(whose)
        lsn, at = int(self.commit_lsn[-1]), int(self.committed_at[-1])
        return Unfinished(int(self.xid[-1]), lsn, at, int(self.seq[-1]) + 1, rows)

    def table(self, before: Unfinished | None, counts: Sequence[tuple[str, np.ndarray]]) -> pa.RecordBatch:
        """The transactions that changed rows, as TRANSACTIONS. `counts`: a folder, and the transaction of each row."""
        earlier = before.rows if before else {}
        folders = sorted({folder for folder, _ in counts} | set(earlier))
        width = max(1, len(folders))
        number = {folder: place for place, folder in enumerate(folders)}
        cells = [np.empty(0, np.int64), *(whose * width + number[folder] for folder, whose in counts)]
        cells += [np.full(rows, number[folder]) for folder, rows in earlier.items()]
        found, rows = np.unique(np.concatenate(cells), return_counts=True)
        whose, starts = np.unique(found // width, return_index=True)
        names = pa.array(folders, pa.string()).take(pa.array(found % width))
        ends = pa.array(np.append(starts, len(found)).astype(np.int32))
        maps = pa.MapArray.from_arrays(ends, names, pa.array(rows.astype(np.int64)))
        moments = pa.array(self.committed_at[whose]).cast(TRANSACTIONS.field("committed_at").type)
        return pa.RecordBatch.from_arrays(
            [pa.array(self.xid[whose]), pa.array(self.end_lsn[whose]), moments, maps.cast(TRANSACTIONS.field(3).type)],
            schema=TRANSACTIONS,
        )
