"""Makes cuts: the one moment at which what was read becomes what the lake holds.

In this order: what the cut itself changes of the registry (errors, a survey that the stream has passed, copies that are
complete), a new registry object if anything did, the cut object, and only then the slot's confirmation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from claimhouse import failpoint
from claimhouse.change import Changes
from claimhouse.lake import deadletters, registry
from claimhouse.lake.tail import CutMark, Part, Tail
from claimhouse.pipeline.copies import Copies
from claimhouse.pipeline.flushing import Flusher
from claimhouse.pipeline.shapes import Shapes
from claimhouse.table import Table


@dataclass(slots=True)
class Pending:
    """What the next cut will hold. `since` is when its oldest commit arrived (monotonic seconds)."""

    changes: list[Changes] = field(default_factory=list)
    transactions: list[pa.RecordBatch] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    errors: list[tuple[Table, int, str]] = field(default_factory=list)
    end_lsn: int = 0
    max_committed_at: int = 0
    since: float | None = None
    bytes: int = 0

    @property
    def rows(self) -> int:
        return sum(c.batch.num_rows for c in self.changes)


class Cutter:
    """The owner's hand on the tail. `mark` is the newest cut, `position` up to where it holds everything."""

    def __init__(
        self,
        tail: Tail,
        shapes: Shapes,
        flusher: Flusher,
        confirm: Callable[[int], None],
        mark: CutMark | None,
        position: int,
    ) -> None:
        self.mark, self.position = mark, position
        self.at = time.monotonic()
        self.saved = shapes.registry.copy()  # as the newest cut names it
        self._tail, self._shapes, self._flusher, self._confirm = tail, shapes, flusher, confirm
        self.max_committed_at = mark.max_committed_at if mark else 0
        self._registry_name = mark.registry if mark else ""

    @property
    def number(self) -> int:
        return self.mark.cut if self.mark else 0

    @property
    def names_newest_flush(self) -> bool:
        """Whether readers know of the newest flush record: the newest cut names it."""
        record = self._flusher.record
        return record is None or (self.mark is not None and record.flush == self.mark.flush)

    def cut(self, pending: Pending, end: int, copies: Copies) -> CutMark:
        """The next cut, which holds everything up to `end`. Raises Fenced, StorageGone."""
        for table, lsn, message in pending.errors:
            deadletters.put(self._tail.lake, self._tail.source, self.number + 1, table.folder, lsn, message)
            self._shapes.errored(table.folder, lsn, message)
        self.max_committed_at = max(self.max_committed_at, pending.max_committed_at)
        copies.complete(end, self.max_committed_at)
        if self._shapes.dirty or not self._registry_name:
            self._registry_name = registry.save(self._tail.owner, self._shapes.registry, self.number + 1)
            self.saved = self._shapes.registry.copy()
            self._shapes.dirty = False
        record = self._flusher.record
        failpoint.hit("cut.before_append")
        self.mark = self._tail.append(
            pending.changes,
            pending.transactions,
            end_lsn=end,
            max_committed_at=self.max_committed_at,
            incarnation=self._shapes.registry.incarnation,
            registry=self._registry_name,
            flush=record.flush if record else 0,
            flushed_cut=record.cut if record else 0,
            parts=pending.parts,
        )
        self.position = end
        failpoint.hit("cut.before_confirm")
        self._confirm(end)
        failpoint.hit("cut.after_confirm")
        self.at = time.monotonic()
        copies.reached(end)
        self._flusher.cut_made(self.mark, self.saved, pending.bytes)
        return self.mark
