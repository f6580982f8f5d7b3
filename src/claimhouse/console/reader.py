"""Reading for pages: one session per moment, kept for a short while, bounded in number, memory, time and rows.

A session never moves and takes no lock in the lake, so no page can hold up the writer. Pages at the same cut share one;
of the present a session is kept for at most `fresh` seconds once a newer cut is there. One page at a time reads in a
session; a query that takes longer than `seconds` is interrupted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from claimhouse.errors import ClaimhouseError, QueryError
from claimhouse.lake.lake import Lake
from claimhouse.lake.tail import cut_numbers
from claimhouse.query.names import TableName
from claimhouse.query.session import Session
from claimhouse.quoting import quote


class Busy(ClaimhouseError):
    """Too many pages are read at once; trying again is right."""

    retry = True


@dataclass
class Reading:
    """The lake at one moment, for one page."""

    session: Session
    at: str | None
    seconds: float = 20.0

    def sql(self, text: str) -> pa.Table:
        """The whole answer; the text limits its rows. Raises QueryError, NotExact."""
        answer = self.session.sql(text)
        over = threading.Event()

        def stop() -> None:
            over.set()
            answer.interrupt()

        timer = threading.Timer(self.seconds, stop)
        timer.start()
        try:
            return answer.arrow()
        except QueryError:
            if over.is_set():
                raise QueryError(
                    f"this took longer than {self.seconds:g} s and was stopped", hint="ask for less: a filter, a line"
                ) from None
            raise
        finally:
            timer.cancel()

    def rows(self, text: str) -> list[dict[str, object]]:
        return self.sql(text).to_pylist()

    def prepare(self, tables: Iterable[str]) -> None:
        """Make the views of all a page's tables at once, which its queries then share."""
        each = " AND ".join(f"NOT EXISTS (FROM {table} WHERE false)" for table in tables)
        self.session.sql(f"SELECT 1 WHERE {each}")

    def place(self, table: TableName) -> str:
        """A table's full name in SQL."""
        return ".".join(map(quote, (table.source, table.schema, table.name)))


@dataclass
class _Kept:
    """A session, its moment, and who uses it."""

    session: Session
    cuts: dict[str, int]
    opened: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    dropped: bool = False


class Reader:
    """Hands out readings. `memory` and `threads` are each session's."""

    def __init__(
        self,
        lake: Lake,
        *,
        zone: str = "UTC",
        keep: int = 4,
        fresh: float = 2.0,
        seconds: float = 20.0,
        memory: str = "512MB",
        threads: int = 2,
    ) -> None:
        self.lake, self.zone, self.keep, self.fresh, self.seconds = lake, zone, keep, fresh, seconds
        self._options = {"memory": memory, "threads": threads}
        self._kept: OrderedDict[str | None, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    @contextlib.contextmanager
    def at(self, moment: str | None) -> Iterator[Reading]:
        """The lake at a moment, None for now. Raises NotExact, UsageError, LakeError, Busy."""
        kept = self._take(moment)
        try:
            if not kept.lock.acquire(timeout=self.seconds):
                raise Busy("the console is busy with other pages", hint="try again in a moment")
            try:
                yield Reading(kept.session, moment, self.seconds)
            finally:
                kept.lock.release()
        finally:
            self._give(kept)

    def close(self) -> None:
        """Let go of every session that no page reads."""
        with self._lock:
            for moment in list(self._kept):
                self._drop(moment)

    def _take(self, moment: str | None) -> _Kept:
        with self._opening:  # one at a time: pages that want the same moment get the same session
            with self._lock:
                found = self._kept.get(moment)
                if found and (moment is not None or self._holds(found)):
                    self._kept.move_to_end(moment)
                    found.users += 1
                    return found
                # The present has moved on; what read it last serves again, if no page is still at it.
                idle = found.session if found and moment is None and not found.users else None
            session = idle.renewed() if idle else Session(self.lake, at=moment, zone=self.zone, **self._options)
            cuts = {name: snapshot.mark.cut for name, snapshot in session.snapshots.items()}
            with self._lock:
                if moment in self._kept:
                    self._drop(moment)
                found = self._kept[moment] = _Kept(session, cuts, time.monotonic(), users=1)
                while len(self._kept) > self.keep:
                    self._drop(next(iter(self._kept)))
            return found

    def _holds(self, kept: _Kept) -> bool:
        """Whether a session of the present still may be shown as it."""
        if time.monotonic() - kept.opened < self.fresh:
            return True
        newest = {name: numbers[-1] for name in self.lake.sources() if (numbers := cut_numbers(self.lake, name))}
        if newest != kept.cuts:
            return False
        kept.opened = time.monotonic()
        return True

    def _drop(self, moment: str | None) -> None:
        kept = self._kept.pop(moment)
        kept.dropped = True
        if not kept.users:
            kept.session.close()

    def _give(self, kept: _Kept) -> None:
        with self._lock:
            kept.users -= 1
            if kept.dropped and not kept.users:
                kept.session.close()
