"""From a source's stream to durable cuts: the loop that everything else hangs on.

    stream ─→ decoder ─→ pending ─→ CUT (one new object in the tail) ─→ slot confirmed ─→ flush, fold (own thread)
    copies (own thread) ──┘

A commit waits for its cut at most `freshness`. Nothing is confirmed that no cut holds; whatever lies beyond the newest
cut at a start is sent again by the server, and what was written of it is discarded, never adopted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from claimhouse import failpoint
from claimhouse.change import Changes, Decoded, old_name
from claimhouse.errors import ClaimhouseError, SlotBusy, SourceError, SourceGone
from claimhouse.lake import deadletters, flushes, registry, snapshot
from claimhouse.lake.lake import Lake, create
from claimhouse.lake.owner import claim
from claimhouse.lake.registry import OPEN_END, Registry, TableState
from claimhouse.lake.tail import CutMark, Part, Tail, cut_numbers, read_mark
from claimhouse.pipeline.admission import Admission, begin_copy, insist_continuous, insist_logical
from claimhouse.pipeline.copying import Copier, Job, Missing, Step
from claimhouse.pipeline.flushing import Flusher
from claimhouse.pipeline.options import CaptureOptions, Summary
from claimhouse.pipeline.shapes import Shapes, Survey
from claimhouse.postgres import catalog, ddl_trigger, publication
from claimhouse.postgres.pgoutput import Decoder
from claimhouse.postgres.server import Capabilities, Xids, connect, current_lsn, explained
from claimhouse.postgres.stream import Stream
from claimhouse.postgres.types import render
from claimhouse.table import Table

IDLE_SECONDS = 10.0  # how often an idle source is moved on, its catalog looked at, an idle cut made
EAGER_SECONDS = 0.1  # how often while somebody waits for a position
PENDING_BYTES = 64 << 20
SLOT_PATIENCE = 3.0
HEARTBEAT = "claimhouse.heartbeat"

Event = Callable[[str, dict[str, Any]], None]


class Capture:
    """One owner of one source in one lake. `on_event(kind, fields)` is told of cuts, copies, waits and refusals."""

    def __init__(self, options: CaptureOptions, on_event: Event | None = None) -> None:
        self.options = options
        self.summary = Summary(options.source)
        self._on_event: Event = on_event or (lambda kind, fields: None)

    def run(self, stop: threading.Event | None = None) -> Summary:
        """Captures until stopped (or, with `once`, until caught up). Broken connections are mended.

        Raises ClaimhouseError: NotReady and SlotBusy before anything is written, SourceLost, Fenced.
        """
        stop = stop or threading.Event()
        began = time.monotonic()
        with connect(self.options.dsn):
            pass  # a source that cannot be reached leaves no empty lake behind
        lake = create(self.options.location, self.options.storage_options)
        tries = 0
        while True:
            cuts = self.summary.cuts
            try:
                with explained("capturing"):
                    _Run(self.options, self.summary, lake, self._on_event, stop).run()
                break
            except ClaimhouseError as error:
                if not error.retry:
                    raise
                tries = 1 if self.summary.cuts > cuts else tries + 1
                if stop.is_set():
                    break
                if tries > 5 and (self.options.once or not self.summary.cuts):
                    raise
                pause = min(0.1 * 2 ** min(tries, 8), 15.0)
                self._on_event("reconnect", {"reason": str(error), "seconds": pause})
                stop.wait(pause)
        self.summary.seconds = time.monotonic() - began
        return self.summary


@dataclass(slots=True)
class _Pending:
    """What the next cut will hold. `since` is when its oldest commit arrived."""

    changes: list[Changes] = field(default_factory=list)
    transactions: list[pa.RecordBatch] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    errors: list[tuple[Table, int, str]] = field(default_factory=list)
    end_lsn: int = 0
    max_committed_at: int = 0
    since: float | None = None
    bytes: int = 0


class _Run:
    """One connection's life: from claiming the source to the last flush."""

    def __init__(
        self, options: CaptureOptions, summary: Summary, lake: Lake, emit: Event, stop: threading.Event
    ) -> None:
        self.options, self.summary, self.lake, self.emit, self.stop = options, summary, lake, emit, stop
        self.pending = _Pending()
        self.open_parts: list[Part] = []
        self.to_copy: list[TableState] = []
        self.heights: dict[str, int] = {}  # folder -> H of a copy that has ended
        self.survey: tuple[int, Survey] | None = None
        self.target: int | None = None
        self.idle_to = 0
        self.surveyed_once = False
        self.cut_at = self.beat_at = self.looked_at = time.monotonic()

    # --- setting up

    def run(self) -> None:
        with contextlib.ExitStack() as stack:
            self.admin = stack.enter_context(connect(self.options.dsn))
            self._prepare()
            self.stream = self._open_stream()
            stack.callback(self.stream.close)
            # The slot is ours from here on, nobody else reads it: only now is an earlier owner replaced.
            self.owner = claim(self.lake, self.options.source)
            self.tail = Tail(self.lake, self.options.source, self.owner)
            if self.tail.last() != self.mark:
                raise SourceGone("an earlier owner made a cut while it was replaced")
            self.decoder = Decoder(
                self.shapes.resolve, self.xids, spill_bytes=self.options.spill_bytes, on_message=self._message
            )
            self.flusher = Flusher(
                self.lake, self.options.source, self.owner, self.tail, self.record, interval=self.options.flush_interval
            )
            self.copier = Copier(lambda: connect(self.options.dsn), lambda text: self.emit("wait", {"text": text}))
            stack.callback(self.flusher.stop)
            stack.callback(self.copier.stop)
            self.copier.start()
            self.flusher.start()
            self._loop()
            self._finish()

    def _open_stream(self) -> Stream:
        """The stream from where the lake ends; the server may need a moment to see that an earlier reader is gone."""
        deadline = time.monotonic() + SLOT_PATIENCE
        while True:
            try:
                return Stream(self.options.dsn, self.registry.slot, self.admission.publications, self.position)
            except SlotBusy:
                if time.monotonic() > deadline or self.stop.wait(0.2):
                    raise

    def _prepare(self) -> None:
        options, conn = self.options, self.admin
        capabilities = Capabilities.of(conn)
        insist_logical(capabilities)
        numbers = cut_numbers(self.lake, options.source)
        self.mark: CutMark | None = read_mark(self.lake, options.source, numbers[-1]) if numbers else None
        first = self.mark is None
        self.record = None
        self.registry_name = ""
        if self.mark is None:
            name = options.slot or publication.default_name(options.source, self.lake.lake_id)
            self.registry = Registry(
                options.source,
                capabilities.system_id,
                capabilities.timeline,
                slot=name,
                publication=options.publication or name,
                database=capabilities.database,
            )
        else:
            self.registry_name = self.mark.registry
            self.registry = registry.load(self.lake, options.source, self.registry_name)
            if self.mark.flush:
                self.record = flushes.load(self.lake, options.source, self.mark.flush)
            self._insist_continuous(capabilities, self.mark)
        self.summary.slot = self.registry.slot
        self.xids = Xids.of(conn)
        self.shapes = Shapes(self.registry, self._describe, self._copy_anew)
        self.admission = Admission(conn, options, self.registry, self._refused, self._waiting_for_slot)
        self._resume_copies()
        fresh, position = self.admission.start(first=first)
        self.position = position if self.mark is None else self.mark.end_lsn
        self.max_committed_at = 0 if self.mark is None else self.mark.max_committed_at
        if first:
            self.registry.surveyed = position
        self._admitted(fresh)
        self.saved = Registry.from_bytes(self.registry.to_bytes())
        if options.once:
            self.target = current_lsn(conn)
        self._look(time.monotonic())

    def _insist_continuous(self, capabilities: Capabilities, mark: CutMark) -> None:
        insist_continuous(self.admin, capabilities, self.registry, mark)

    def _describe(self, oid: int) -> Table | None:
        try:
            return catalog.describe(self.admin, oid, source=self.options.source)
        except SourceError:
            return None

    def _refused(self, label: str, reason: str) -> None:
        self.summary.refused[label] = reason
        self.emit("refused", {"table": label, "reason": reason})

    def _waiting_for_slot(self, seconds: float) -> None:
        if self.stop.is_set():
            raise SourceGone("stopped while the slot was made")
        self.emit("wait", {"text": f"waiting {seconds:.0f} s for open transactions to end, to make the slot"})

    def _admitted(self, fresh: list[TableState]) -> None:
        if fresh:
            self.to_copy += fresh
            self.shapes.index()
            self.shapes.dirty = True

    # --- the loop

    def _loop(self) -> None:
        while not self.stop.is_set():
            raw = self.stream.read(self._patience())
            for decoded in self.decoder.feed(raw):
                self._take(decoded)
            idle = self.decoder.idle_position(raw)
            self.idle_to = max(self.idle_to, idle)
            steps = self._take_steps()
            now = time.monotonic()
            if steps or self._due(now):
                self._cut()
            self._start_copies()
            self._beat(now)
            self._look(now)
            for thread in (self.copier, self.flusher):
                if thread.failed is not None:
                    raise thread.failed
            if self.target is not None and self._caught_up(self.target):
                return

    def _patience(self) -> float:
        """How long the next read may wait for a first byte, in seconds."""
        if not self.copier.steps.empty():
            return 0.0
        if self.pending.since is not None:
            return max(0.0, self.options.freshness - (time.monotonic() - self.pending.since))
        return 0.02 if self._awaited() else 0.1

    def _take(self, decoded: Decoded) -> None:
        pending = self.pending
        for changes in decoded.changes:
            if self.copier.watches(changes.table.folder):
                self._note_missing(changes, decoded.end_lsn)
        if decoded.part:
            self.open_parts.append(self.tail.put_part(decoded.changes))
            return
        if self.open_parts:
            pending.parts += [replace(part, end_lsn=decoded.end_lsn) for part in self.open_parts]
            self.open_parts = []
        pending.changes += decoded.changes
        pending.errors += decoded.errors
        if decoded.transactions is not None:
            pending.transactions.append(decoded.transactions)
        if decoded.end_lsn:
            pending.end_lsn = decoded.end_lsn
            pending.max_committed_at = max(pending.max_committed_at, decoded.max_committed_at)
            pending.bytes += sum(c.batch.nbytes for c in decoded.changes)
            if pending.since is None and (decoded.changes or pending.parts or self._awaited()):
                pending.since = time.monotonic()

    def _due(self, now: float) -> bool:
        pending = self.pending
        if pending.since is not None and now - pending.since >= self.options.freshness:
            return True
        if pending.bytes >= PENDING_BYTES or self.shapes.dirty:
            return True
        ahead = max(pending.end_lsn, self.idle_to) > self.position
        if ahead and self._awaited() and now - self.cut_at >= self.options.freshness:
            return True
        unnamed = self.flusher.record is not None and (
            self.mark is None or self.flusher.record.flush != self.mark.flush
        )
        return unnamed or (ahead and now - self.cut_at >= IDLE_SECONDS)

    def _cut(self) -> None:
        began = time.perf_counter()
        pending, self.pending = self.pending, _Pending()
        end = max(self.position, pending.end_lsn, self.idle_to if not self.open_parts else 0)
        for table, lsn, message in pending.errors:
            folder = table.folder
            deadletters.put(
                self.lake, self.options.source, (self.mark.cut if self.mark else 0) + 1, folder, lsn, message
            )
            self.shapes.errored(folder, lsn, message)
        if self.survey is not None and self.survey[0] <= end:
            (lsn, found), self.survey = self.survey, None
            self.shapes.apply(found, lsn)
        self._complete_copies(end)
        if self.shapes.dirty or not self.registry_name:
            number = (self.mark.cut if self.mark else 0) + 1
            self.registry_name = registry.save(self.owner, self.registry, number)
            self.saved = Registry.from_bytes(self.registry.to_bytes())
            self.shapes.dirty = False
        record = self.flusher.record
        self.max_committed_at = max(self.max_committed_at, pending.max_committed_at)
        failpoint.hit("cut.before_append")
        self.mark = self.tail.append(
            pending.changes,
            pending.transactions,
            end_lsn=end,
            max_committed_at=self.max_committed_at,
            incarnation=self.registry.incarnation,
            registry=self.registry_name,
            flush=record.flush if record else 0,
            flushed_cut=record.cut if record else 0,
            parts=pending.parts,
        )
        failpoint.hit("cut.before_confirm")
        self.position = end
        self.stream.confirm(end)
        failpoint.hit("cut.after_confirm")
        self.cut_at = time.monotonic()
        self.copier.reached(end)
        self.flusher.cut_made(self.mark, self.saved, pending.bytes)
        self._count(pending, time.perf_counter() - began)

    def _count(self, pending: _Pending, seconds: float) -> None:
        summary, mark = self.summary, self.mark
        assert mark is not None
        summary.cuts += 1
        summary.cut, summary.end_lsn = mark.cut, mark.end_lsn
        summary.transactions += mark.transactions
        rows = sum(c.batch.num_rows for c in pending.changes)
        summary.rows += rows
        summary.flushes = mark.flush
        self.emit(
            "cut",
            {
                "cut": mark.cut,
                "end_lsn": mark.end_lsn,
                "committed_at": pending.max_committed_at,
                "transactions": mark.transactions,
                "rows": rows,
                "flush": mark.flush,
                "seconds": seconds,
            },
        )

    # --- what the source must do for us

    def _awaited(self) -> bool:
        """Whether somebody waits for the stream to pass a position that was read on another connection."""
        return self.target is not None or bool(self.heights) or not self.copier.idle or self.survey is not None

    def _beat(self, now: float) -> None:
        """Moves an idle source on, so that waits end and its newest cut tells a recent time."""
        if now - self.beat_at < (EAGER_SECONDS if self._awaited() else IDLE_SECONDS):
            return
        if now - self.cut_at < EAGER_SECONDS and self.pending.since is not None:
            return
        self.beat_at = now
        self.admin.execute("SELECT pg_logical_emit_message(true, %s, '')", (HEARTBEAT,))

    def _message(self, prefix: str, content: bytes, lsn: int, xid: int) -> None:
        """A logical message of ours: the DDL trigger tells what happened exactly here; a heartbeat asks for a cut."""
        if prefix == HEARTBEAT and self.pending.since is None:
            self.pending.since = time.monotonic()
        if prefix != ddl_trigger.PREFIX:
            return
        try:
            told = ddl_trigger.read(content, source=self.options.source)
        except ValueError:
            return  # anyone may write messages of our prefix
        if told.table is not None:
            self.shapes.announced(told.table, lsn)
        if told.event in ("rewrite", "values"):
            self.shapes.rewritten(told.oid, lsn)
        elif told.event == "drop":
            self.shapes.dropped(told.oid, lsn)

    def _look(self, now: float) -> None:
        """Surveys the catalog now and then; what it finds is applied once the stream has passed this moment."""
        if self.survey is not None or (now - self.looked_at < IDLE_SECONDS and self.surveyed_once):
            return
        self.looked_at = now
        if self.surveyed_once:
            self._admitted(self.admission.admit())
        self.surveyed_once = True
        found = self.shapes.survey(catalog.marks(self.admin, self.shapes.oids()))
        self.survey = (current_lsn(self.admin), found)

    def _caught_up(self, target: int) -> bool:
        return (
            self.position >= target
            and self.survey is None
            and not (self.to_copy or self.heights or self.open_parts or self.pending.since)
            and self.copier.idle
        )

    # --- copies

    def _copy_anew(self, state: TableState, position: int) -> None:
        """Rows changed that the stream never brings again; readers see the old copy until the new one is complete."""
        begin_copy(state, self.registry.incarnation, position)
        self.heights.pop(state.folder, None)
        if state not in self.to_copy:
            self.to_copy.append(state)
        self.shapes.dirty = True

    def _resume_copies(self) -> None:
        for state in self.registry.tables.values():
            if state.status in ("errored", "gone") or not state.copies or state.copies[-1].exact_from is not None:
                continue
            if state.table.identity != "key":  # one snapshot, which ended with the process that held it
                begin_copy(state, self.registry.incarnation, state.copies[-1].at)
            self.to_copy.append(state)
            self.shapes.dirty = True

    def _start_copies(self) -> None:
        """Hands copies to the copier once a cut's registry knows them: a kill then resumes them."""
        if not self.to_copy or self.shapes.dirty or self.mark is None:
            return
        self.admission.publish()  # before the copies' fence: a table may have got, or lost, its key
        for state in self.to_copy:
            if state.status not in ("errored", "gone"):
                copy = state.copies[-1]
                missing = self._missing_so_far(state) if copy.blocks else None
                self.copier.add(Job(state.folder, state.table, replace(copy), missing))
        self.to_copy = []

    def _take_steps(self) -> bool:
        taken = False
        while True:
            try:
                step = self.copier.steps.get_nowait()
            except queue.Empty:
                return taken
            taken = True
            self._take_step(step)
            if self.pending.bytes >= PENDING_BYTES:
                return True

    def _take_step(self, step: Step) -> None:
        state = self.registry.tables[step.folder]
        copy = state.copies[-1]
        if copy.number != step.copy or copy.exact_from is not None or state.status in ("errored", "gone"):
            return  # given up meanwhile
        self.shapes.dirty = True
        if step.error is not None:
            self.shapes.errored(step.folder, self.position, step.error)
        elif step.anew:
            self.looked_at = 0.0
            self._copy_anew(state, copy.at)
        else:
            if step.changes is not None:
                self.pending.changes.append(step.changes)
                self.pending.bytes += step.changes.batch.nbytes
                copy.rows += step.changes.batch.num_rows
                self.summary.copied_rows += step.changes.batch.num_rows
            copy.blocks = max(copy.blocks, step.blocks)
            copy.filenodes = step.filenodes or copy.filenodes
            copy.sees = step.sees or copy.sees
            if step.done is not None:
                self.heights[step.folder] = step.done
            self.emit("copy", {"table": state.label, "rows": copy.rows, "blocks": copy.blocks, "total": step.total})

    def _complete_copies(self, end: int) -> None:
        for folder, height in list(self.heights.items()):
            if height <= end:
                state = self.registry.tables[folder]
                state.copies[-1].exact_from = height
                state.inexact = [(a, height if b == OPEN_END else b) for a, b in state.inexact]
                if state.status == "copying":
                    state.status = "live"
                del self.heights[folder]
                self.shapes.dirty = True
                self.emit("copied", {"table": state.label, "rows": state.copies[-1].rows})

    def _note_missing(self, changes: Changes, lsn: int) -> None:
        keys, rekeyed = missing_keys(changes)
        if keys:
            self.copier.missing(changes.table.folder, keys, rekeyed, lsn)

    def _missing_so_far(self, state: TableState) -> Missing:
        """What an earlier run of this copy had noted, read back from the log."""
        noted = Missing()
        for table, batch in snapshot.take(self.lake, self.options.source).missing_rows(state, state.copies[-1].at):
            keys, rekeyed = missing_keys(Changes(table, batch))
            noted.keys.update(dict.fromkeys(keys, self.position))
            noted.rekeyed.update(dict.fromkeys(rekeyed, self.position))
        return noted

    # --- the end

    def _finish(self) -> None:
        """A last cut, a last flush, and a cut that names it."""
        self.copier.stop()
        if self.pending.since is not None or self.shapes.dirty:
            self._cut()
        self.flusher.stop()
        if self.flusher.failed is not None:
            raise self.flusher.failed
        if self.mark is not None:
            record = self.flusher.flush_now()
            if record is not None and record.flush != self.mark.flush:
                self._cut()
        self.stream.confirm(self.position, flush=True)
        self.summary.errored = {s.label: s.error or "" for s in self.registry.tables.values() if s.status == "errored"}
        slot = publication.slot_state(self.admin, self.registry.slot)
        self.summary.held_bytes = slot.retained_bytes if slot is not None else None


def missing_keys(changes: Changes) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """(keys of rows that lack unchanged TOAST values, those of them whose key changed), as PostgreSQL's text."""
    batch, table = changes.batch, changes.table
    lacking = batch.filter(batch.column("_missing").is_valid())
    if lacking.num_rows == 0 or table.identity != "key":
        return [], []
    exact = lacking.column("_exact")
    texts = [render(lacking.column(c.physical), _exact_of(exact, c.physical), c).to_pylist() for c in table.key]
    keys = list(zip(*texts, strict=True))
    moved = lacking.column(old_name(table.key[0].physical)).is_valid().to_pylist()
    return keys, [key for key, was in zip(keys, moved, strict=True) if was]


def _exact_of(exact: pa.Array, physical: str) -> pa.Array:
    found = [dict(entry).get(physical) if entry is not None else None for entry in exact.to_pylist()]
    return pa.array(found, pa.string())
