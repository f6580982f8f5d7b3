"""Moves cuts from the tail into Delta and folds, off the path from commit to reader: one thread.

A flush ends in a record; it holds for readers only once a cut names it, which the cutter does with its next cut. Only
then may the tail's objects that the record BEFORE it covers go: a reader that took the older record still finds them.
"""

from __future__ import annotations

import threading
import time

from claimhouse.errors import ClaimhouseError, Fenced
from claimhouse.lake import changes, current, upkeep
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import Lake
from claimhouse.lake.owner import Owner
from claimhouse.lake.registry import Registry
from claimhouse.lake.tail import CutMark, Tail, cut_numbers, read_mark

TRIES = 8
IDLE_CUTS = 100


class Flusher(threading.Thread):
    """Flushes at most every `interval` seconds, or when `bytes_due` bytes of tail wait."""

    def __init__(
        self,
        lake: Lake,
        source: str,
        owner: Owner,
        tail: Tail,
        record: FlushRecord | None,
        *,
        interval: float,
        bytes_due: int = 256 << 20,
        idle_cuts: int = IDLE_CUTS,
    ) -> None:
        super().__init__(name="claimhouse-flusher", daemon=True)
        self.record = record
        self.failed: BaseException | None = None
        self.folds = 0
        self._lake, self._source, self._owner, self._tail = lake, source, owner, tail
        self._interval, self._bytes_due, self._idle_cuts = interval, bytes_due, idle_cuts
        self._named = record
        self._before_named: FlushRecord | None = None
        self._newest: tuple[CutMark, Registry] | None = None
        self._waiting_bytes = 0
        self._waiting_cuts = self._left_waiting()
        self._halt = False
        self._wake = threading.Condition()
        self._dropped = 0

    def _left_waiting(self) -> int:
        """What an earlier owner's cuts that no record covers count: as much as ours would."""
        after = self.record.cut if self.record is not None else 0
        numbers = [n for n in cut_numbers(self._lake, self._source) if n > after]
        if len(numbers) < self._idle_cuts:
            marks = (read_mark(self._lake, self._source, n) for n in reversed(numbers))
            if any(mark.sections or mark.parts for mark in marks):
                return self._idle_cuts
        return len(numbers)

    def cut_made(self, mark: CutMark, registry: Registry, size: int) -> None:
        """The cutter made a cut; the record that it names holds for readers from now on."""
        with self._wake:
            self._newest = (mark, registry)
            # A cut that brings nothing (an idle one, one that names a record) is no reason for a flush of its own.
            told = self.record is None or mark.registry != self.record.registry
            self._waiting_cuts += self._idle_cuts if mark.sections or mark.parts or told else 1
            self._waiting_bytes += size
            record = self.record
            if record is not None and mark.flush == record.flush and record is not self._named:
                self._before_named, self._named = self._named, record
            if self._waiting_bytes >= self._bytes_due:
                self._wake.notify_all()

    def flush_now(self, *, fold: bool = False) -> FlushRecord | None:
        """Flushes all cuts made so far in the caller's thread (the thread must be stopped or not started)."""
        self._flush(fold)
        return self.record

    def stop(self) -> None:
        """Ends the thread after the flush under way."""
        with self._wake:
            self._halt = True
            self._wake.notify_all()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        tries = 0
        last = time.monotonic()
        while not self._halt:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._halt or self._waiting_bytes >= self._bytes_due,
                    timeout=max(0.0, self._interval - (time.monotonic() - last)),
                )
            if self._halt:
                return
            last = time.monotonic()
            try:
                self._flush(True)
                self._drop()
                tries = 0
            except Fenced as error:
                self.failed = error
                return
            except Exception as error:
                tries += 1
                if tries >= TRIES or (isinstance(error, ClaimhouseError) and not error.retry):
                    self.failed = error
                    return
                time.sleep(min(0.2 * 2**tries, 10))

    def _flush(self, fold: bool) -> None:
        with self._wake:
            newest, waiting = self._newest, self._waiting_cuts
            self._waiting_bytes = 0
        if newest is None or waiting < self._idle_cuts:
            return
        mark, registry = newest
        if self.record is None or mark.cut > self.record.cut:
            self.record = changes.flush(self._lake, self._source, self._owner, self._tail, mark, registry, self.record)
        with self._wake:
            self._waiting_cuts -= waiting
        if fold:
            due = current.due(self.record, registry)
            if due:
                self.record = current.fold(self._lake, self._source, registry, self.record, due)
                self.folds += 1
            tidied = upkeep.tidy(self._lake, self._source, registry, self.record)
            if tidied is not None:
                self.record = tidied

    def _drop(self) -> None:
        before = self._before_named
        if before is not None and before.cut > self._dropped:
            self._tail.drop(before.cut)
            self._dropped = before.cut
