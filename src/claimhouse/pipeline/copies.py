"""Which tables are being copied, from the cutter's side: what to begin, what came, what is complete.

A copy begins only once a cut's registry knows of it, so that a kill resumes it; it is complete with the first cut that
has passed its H, and from that cut on readers see it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import psycopg

from claimhouse.change import Changes, old_name
from claimhouse.lake import snapshot
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import OPEN_END, Copy, Registry, TableState
from claimhouse.pipeline.copying import Copier, Job, Missing, Step
from claimhouse.postgres.rows import exact_of
from claimhouse.postgres.types import render

Event = Callable[[str, dict[str, Any]], None]


def begin_copy(state: TableState, incarnation: int, position: int) -> Copy:
    """Begins a copy of a table that counts for `position`; one that was under way is given up."""
    state.copies = [c for c in state.copies if c.exact_from is not None]
    state.copies_begun += 1
    copy = Copy(state.copies_begun, incarnation, position)
    state.copies.append(copy)
    return copy


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
        self.copier = Copier(connect, lambda text: emit("wait", {"text": text}))
        self.rows = 0
        self._lake, self._registry, self._changed, self._emit = lake, registry, changed, emit
        self._waiting: list[TableState] = []
        self._heights: dict[str, int] = {}  # folder -> H of a copy whose last row was read
        self._read_as: dict[str, int] = {}  # and the version of the shape that it read
        self._parts: list[tuple[str, list[tuple[str, ...]], list[tuple[str, ...]]]] = []

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._heights) or not self.copier.idle

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
        self.add([state])
        self._changed()

    def resume(self) -> None:
        """Takes up what an earlier run had not ended."""
        for state in self._registry.tables.values():
            if state.status in ("errored", "gone") or not state.copies or state.copies[-1].exact_from is not None:
                continue
            copy = state.copies[-1]
            # One snapshot ended with the process that held it; rows may be in the log that were read behind another P.
            if state.table.identity != "key" or (copy.number > 1 and not copy.rows and not copy.blocks):
                begin_copy(state, self._registry.incarnation, copy.at)
            self.add([state])
            self._changed()

    def start(self, position: int, ready: Callable[[Collection[TableState]], None]) -> None:
        """Hands the waiting ones to the copier. `ready` comes before their fence: a key may have come or gone."""
        if not self._waiting:
            return
        ready(self._waiting)
        for state in self._waiting:
            if state.status not in ("errored", "gone"):
                copy = state.copies[-1]
                missing = self._missing_so_far(state, position) if copy.blocks else Missing()
                self.copier.add(Job(state.folder, state.table, replace(copy), missing))
        self._waiting = []

    def steps(self) -> list[tuple[TableState, Step]]:
        """What the copier brought since the last call, less what was given up meanwhile."""
        found: list[tuple[TableState, Step]] = []
        while (step := self.copier.step()) is not None:
            state = self._registry.tables[step.folder]
            copy = state.copies[-1]
            if copy.number == step.copy and copy.exact_from is None and state.status not in ("errored", "gone"):
                found.append((state, step))
        return found

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
    batch, table = changes.batch, changes.table
    lacking = batch.filter(batch.column("_missing").is_valid())
    if lacking.num_rows == 0 or table.identity != "key":
        return [], []
    exact = lacking.column("_exact")
    texts = [render(lacking.column(c.physical), exact_of(exact, c.physical), c).to_pylist() for c in table.key]
    keys = list(zip(*texts, strict=True))
    moved = [False] * len(keys)
    for column in table.key:
        old = old_name(column.physical)
        was = lacking.column(old).is_valid().to_pylist()
        text = exact_of(exact, old).is_valid().to_pylist()
        moved = [a or b or c for a, b, c in zip(moved, was, text, strict=True)]
    return keys, [key for key, was in zip(keys, moved, strict=True) if was]
