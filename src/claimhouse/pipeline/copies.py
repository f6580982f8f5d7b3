"""Which tables are being copied or compared, from the cutter's side: what to begin, what came, what is complete.

A copy begins only once a cut's registry knows of it, so that a kill resumes it; it is complete with the first cut that
has passed its H, and from that cut on readers see it. A comparison likewise; it is over with the cut that brings the
last corrections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import Changes, old_name
from claimhouse.lake import snapshot
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import OPEN_END, Copy, Registry, TableState
from claimhouse.pipeline.comparing import Corrections, Touched, touched_by
from claimhouse.pipeline.copying import Copier, Job, Missing, Step
from claimhouse.postgres.server import Snapshot

NOTED_BYTES = 64 << 20  # of changes beside a comparison: a table that more changes is copied anew

Event = Callable[[str, dict[str, Any]], None]


def begin_copy(state: TableState, incarnation: int, position: int) -> Copy:
    """Begins a copy of a table that counts for `position`; one that was under way is given up."""
    state.copies = [c for c in state.copies if c.exact_from is not None]
    state.copies_begun += 1
    state.doubtful = False  # the copy will show
    copy = Copy(state.copies_begun, incarnation, position)
    state.copies.append(copy)
    return copy


class Watch:
    """A table under comparison: what the stream brings of it meanwhile, and what the comparison found."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.begun = False
        self.found: Step | None = None
        self.left: list[pa.Array] = []  # keys of rows to be compared again
        self.corrected = 0
        self.bytes = 0
        self._ended: list[tuple[int, Changes]] = []
        self._open: list[Changes] = []

    def note(self, changes: Changes, end_lsn: int | None) -> None:
        """Changes that a cut holds; of a transaction that has not ended yet where `end_lsn` is None."""
        if not self.begun:
            return
        keys = (name for c in changes.table.key for name in (c.physical, old_name(c.physical)))
        noted = Changes(changes.table, changes.batch.select(["_op", "_xid", "_missing", "_exact", *keys]))
        self.bytes += noted.batch.nbytes
        if end_lsn is None:
            self._open.append(noted)
        else:
            self._ended.append((end_lsn, noted))

    def note_end(self, end_lsn: int) -> None:
        self._ended += [(end_lsn, noted) for noted in self._open]
        self._open = []

    def touched(self, corrections: Corrections) -> Touched | None:
        """The rows that are the stream's; None where it emptied or reshaped the table meanwhile."""
        self._forget(corrections)
        table, found = corrections.changes.table, []
        for _, noted in self._ended:
            if noted.table.key != table.key or pc.any(pc.equal(noted.batch.column("_op"), "t")).as_py():
                return None
            found.append(touched_by(noted, first=corrections.sees is None))
        return Touched.of(found, len(table.key))

    def _forget(self, corrections: Corrections) -> None:
        """Lets go of what these corrections hold already: those that follow hold it as well."""
        kept: list[tuple[int, Changes]] = []
        for lsn, noted in self._ended:
            batch = noted.batch
            if corrections.sees is not None:
                known = Snapshot.parse(corrections.sees).sees(batch.column("_xid").to_numpy())
                batch = batch.filter(pa.array(~known))
            if batch.num_rows and (corrections.sees or lsn > corrections.after):
                kept.append((lsn, Changes(noted.table, batch)))
        self._ended = kept
        self.bytes = sum(noted.batch.nbytes for noted in (*(n for _, n in kept), *self._open))


class Copies:
    """The copies of one source. `changed()` is called whenever the registry is; the cutter then saves it."""

    def __init__(
        self,
        lake: Lake,
        registry: Registry,
        connect: Callable[[], psycopg.Connection],
        changed: Callable[[], None],
        emit: Event,
    ) -> None:
        self.copier = Copier(lake, registry.source, connect, lambda text: emit("wait", {"text": text}))
        self.rows = 0
        self._lake, self._registry, self._changed, self._emit = lake, registry, changed, emit
        self._waiting: list[TableState] = []
        self._heights: dict[str, int] = {}  # folder -> H of a copy whose last row was read
        self._read_as: dict[str, int] = {}  # and the version of the shape that it read
        self._parts: list[tuple[str, list[tuple[str, ...]], list[tuple[str, ...]]]] = []
        self._watched: dict[str, Watch] = {}
        self._comparisons = 0

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._heights or self._watched) or not self.copier.idle

    @property
    def has_steps(self) -> bool:
        return self.copier.has_steps

    def add(self, states: list[TableState]) -> None:
        """Tables whose copy is in the registry already."""
        self._waiting += [s for s in states if s not in self._waiting]

    def anew(self, state: TableState, position: int) -> None:
        """Rows changed that the stream never brings again; readers see the old copy until the new one is complete."""
        begin_copy(state, self._registry.incarnation, position)
        self._heights.pop(state.folder, None)
        self._end_watch(state)
        self.add([state])
        self._changed()

    def doubt(self, state: TableState, position: int) -> None:
        """Some rows may have changed that the stream never brings again: what differs is brought by corrections."""
        known = state.copies and state.copies[-1].exact_from is not None and state.status == "live"
        if not known or state.table.identity != "key":
            self.anew(state, position)
            return
        state.doubtful = True
        self._end_watch(state)
        self.add([state])
        self._changed()

    def again(self, state: TableState) -> None:
        """The table was rewritten or reshaped while it was read: its copy or comparison starts anew."""
        if state.doubtful:
            self.doubt(state, state.copies[-1].at)
        else:
            self.anew(state, state.copies[-1].at)

    def resume(self) -> None:
        """Takes up what an earlier run had not ended."""
        for state in self._registry.tables.values():
            if state.status in ("errored", "gone") or not state.copies:
                continue
            copy = state.copies[-1]
            if copy.exact_from is not None:
                if state.doubtful:
                    self.add([state])
                continue
            # One snapshot ended with the process that held it; rows may be in the log that were read behind another P.
            if state.table.identity != "key" or copy.unread:
                begin_copy(state, self._registry.incarnation, copy.at)
            self.add([state])
            self._changed()

    def start(self, position: int, ready: Callable[[Collection[TableState]], None]) -> None:
        """Hands the waiting ones to the copier. `ready` comes before their fence: a key may have come or gone."""
        if not self._waiting:
            return
        ready(self._waiting)
        for state in self._waiting:
            if state.status in ("errored", "gone"):
                continue
            if state.doubtful:
                self._comparisons += 1
                self._watched[state.folder] = Watch(self._comparisons)
                self.copier.add(Job(state.folder, state.table, comparison=self._comparisons))
            else:
                copy = state.copies[-1]
                missing = self._missing_so_far(state, position) if copy.blocks else Missing()
                self.copier.add(Job(state.folder, state.table, replace(copy), missing))
        self._waiting = []

    def steps(self) -> list[tuple[TableState, Step]]:
        """What the copier brought since the last call, less what was given up meanwhile."""
        found: list[tuple[TableState, Step]] = []
        while (step := self.copier.step()) is not None:
            state = self._registry.tables[step.folder]
            if state.status in ("errored", "gone"):
                self._end_watch(state)
            elif step.comparison:
                watch = self._watched.get(step.folder)
                if watch is not None and watch.number == step.comparison:
                    found.append((state, step))
            elif state.copies[-1].number == step.copy and state.copies[-1].exact_from is None:
                found.append((state, step))
        return found

    def compared(self, state: TableState, step: Step) -> None:
        """Notes what a comparison tells; its corrections go into the next cut behind them."""
        if step.whole:
            self.anew(state, state.copies[-1].at)
        elif step.begun:
            self._watched[step.folder].begun = True
            self.copier.answer(step.folder, [])
        elif step.corrections is not None:
            self._watched[step.folder].found = step
        else:
            self._emit("compare", {"table": state.label, "rows": step.rows, "blocks": step.blocks, "total": step.total})

    def corrections(self, end: int, committed_at: int) -> list[Changes]:
        """The corrections for a cut that ends there and holds all that was noted. `committed_at` in microseconds."""
        made: list[Changes] = []
        for folder, watch in list(self._watched.items()):
            state, step = self._registry.tables[folder], watch.found
            if state.status in ("errored", "gone"):
                self._end_watch(state)
                continue
            if watch.bytes > NOTED_BYTES:
                self.anew(state, state.copies[-1].at)
                continue
            corrections = step.corrections if step is not None else None
            if step is None or corrections is None or end <= corrections.after or end < corrections.until:
                continue
            watch.found = None
            if corrections.changes.table.version != state.table.version:
                self.again(state)
                continue
            if (touched := watch.touched(corrections)) is None:
                self.anew(state, state.copies[-1].at)  # what is emptied again and again would never be compared
                continue
            right, left = corrections.but(touched)
            left = [pa.concat_arrays(some) for some in zip(left, touched.lacking, strict=True)]
            if rows := right.changes.batch.num_rows:
                made.append(right.placed(end, committed_at or time.time_ns() // 1000))
                watch.corrected += rows
            watch.left = [pa.concat_arrays(some) for some in zip(watch.left, left, strict=True)] if watch.left else left
            if step.last and not len(watch.left[0]):
                self._settled(state, end, watch)
            elif step.last:
                self.copier.answer(folder, watch.left)
                watch.left = []
            else:
                self.copier.answer(folder, [])
        return made

    def _settled(self, state: TableState, end: int, watch: Watch) -> None:
        """With a cut that ends there, the table is the source's again."""
        state.doubtful = False
        state.inexact = [(a, end if b == OPEN_END else b) for a, b in state.inexact]
        self._end_watch(state)
        self._changed()
        self._emit("compared", {"table": state.label, "rows": watch.corrected})

    def _end_watch(self, state: TableState) -> None:
        if self._watched.pop(state.folder, None) is not None:
            self.copier.answer(state.folder, None)

    def outdated(self, state: TableState, step: Step) -> bool:
        """Whether a copy stands behind a P at which the table had another shape than it reads: what was committed
        before that is in the copy alone, and would lack a column's values there."""
        return step.at is not None and state.shape_at(step.at).version != step.version

    def take(self, state: TableState, step: Step) -> None:
        """Notes a step's progress; its rows go into the same cut."""
        copy = state.copies[-1]
        rows = step.changes.batch.num_rows if step.changes is not None else 0
        copy.at = copy.at if step.at is None else step.at
        copy.rows += rows
        self.rows += rows
        copy.blocks = max(copy.blocks, step.blocks)
        copy.filenodes = step.filenodes or copy.filenodes
        copy.sees = step.sees or copy.sees
        if step.done is not None:
            self._heights[step.folder], self._read_as[step.folder] = step.done, step.version
        self._changed()
        self._emit("copy", {"table": state.label, "rows": copy.rows, "blocks": copy.blocks, "total": step.total})

    def complete(self, end: int, committed_at: int) -> None:
        """A cut up to `end` is about to be made: the copies whose H it passes are exact from there.

        `committed_at` is the running maximum of commit times in that cut, microseconds.
        """
        for folder, height in list(self._heights.items()):
            if height <= end:
                state = self._registry.tables[folder]
                # Likewise of what one snapshot of a table without a key sees.
                if state.copies[-1].sees and state.shape_at(height).version != self._read_as[folder]:
                    self.anew(state, height)
                    continue
                state.copies[-1].exact_from = height
                state.copies[-1].exact_at = committed_at
                state.inexact = [(a, height if b == OPEN_END else b) for a, b in state.inexact]
                if state.status == "copying":
                    state.status = "live"
                del self._heights[folder]
                self._changed()
                self._emit("copied", {"table": state.label, "rows": state.copies[-1].rows})

    def reached(self, end: int) -> None:
        self.copier.reached(end)

    def note(self, changes: Changes, end_lsn: int, *, part: bool) -> None:
        """Notes streamed rows whose unchanged TOAST values did not come along, of tables under copy."""
        folder = changes.table.folder
        if watch := self._watched.get(folder):
            watch.note(changes, None if part else end_lsn)
        if not self.copier.watches(folder):
            return
        keys, rekeyed = missing_keys(changes)
        if keys and part:  # where its transaction ends is not known yet
            self._parts.append((folder, keys, rekeyed))
        elif keys:
            self.copier.missing(folder, keys, rekeyed, end_lsn)

    def note_end(self, end_lsn: int) -> None:
        """The transaction of which parts were noted ends here."""
        for folder, keys, rekeyed in self._parts:
            self.copier.missing(folder, keys, rekeyed, end_lsn)
        self._parts = []
        for watch in self._watched.values():
            watch.note_end(end_lsn)

    def _missing_so_far(self, state: TableState, position: int) -> Missing:
        """What an earlier run of this copy had noted, read back from the log."""
        noted = Missing()
        seen = snapshot.take(self._lake, self._registry.source)
        for table, batch in seen.missing_rows(state, state.copies[-1].at):
            keys, rekeyed = missing_keys(Changes(table, batch))
            noted.keys.update(dict.fromkeys(keys, position))
            noted.rekeyed.update(dict.fromkeys(rekeyed, position))
        return noted


def missing_keys(changes: Changes) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """(keys of rows that lack unchanged TOAST values, those of them whose key changed), as PostgreSQL's text."""
    lacking = changes.batch.filter(changes.batch.column("_missing").is_valid())
    if lacking.num_rows == 0 or changes.table.identity != "key":
        return [], []
    both = (touched_by(Changes(changes.table, lacking), first=first).lacking for first in (True, False))
    keys, rekeyed = (list(zip(*(texts.to_pylist() for texts in found), strict=True)) for found in both)
    return keys, rekeyed
