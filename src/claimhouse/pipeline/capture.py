"""From a source's stream to durable cuts: the loop that everything else hangs on.

    stream ─→ decoder ─→ pending ─→ CUT (one new object in the tail) ─→ slot confirmed ─→ flush, fold (own thread)
    copies (own thread) ──┘

A commit waits for its cut at most `freshness`. Nothing is confirmed that no cut holds; whatever lies beyond the newest
cut at a start is sent again by the server, and what was written of it is discarded, never adopted.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from claimhouse.change import Decoded
from claimhouse.errors import ClaimhouseError, SlotBusy, SlotLost, SourceError, SourceGone
from claimhouse.lake import flushes, registry
from claimhouse.lake.lake import Lake, create
from claimhouse.lake.owner import Owner, claim
from claimhouse.lake.registry import OPEN_END, Registry, TableState
from claimhouse.lake.tail import CutMark, Part, Tail, cut_numbers, read_mark
from claimhouse.pipeline import resync
from claimhouse.pipeline.admission import Admission, insist_continuous, insist_embedded, insist_logical
from claimhouse.pipeline.copies import Copies
from claimhouse.pipeline.cutting import Cutter, Pending
from claimhouse.pipeline.flushing import Flusher
from claimhouse.pipeline.options import CaptureOptions, Summary
from claimhouse.pipeline.shapes import Shapes, Survey
from claimhouse.postgres import catalog, ddl_trigger, publication
from claimhouse.postgres.pgoutput import Decoder
from claimhouse.postgres.server import Capabilities, Xids, connect, current_lsn, explained
from claimhouse.postgres.stream import Stream
from claimhouse.table import Table

IDLE_SECONDS = 10.0  # how often an idle source is moved on, its catalog looked at, an idle cut made
LOOK_SHARE = 0.1  # of the loop's time that looking at the catalog may take, where that is large
EAGER_SECONDS = 0.1  # how often while somebody waits for a position
PENDING_BYTES = 64 << 20
FLOOD_BYTES = 128 << 10
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

        Raises ClaimhouseError: NotReady, UsageError and SlotBusy before anything is written, SourceLost, Fenced.
        """
        stop = stop or threading.Event()
        began = time.monotonic()
        with connect(self.options.dsn):
            pass  # a source that cannot be reached leaves no empty lake behind
        lake = create(self.options.location, self.options.storage_options)
        insist_embedded(lake, self.options.source)
        tries, owner = 0, None
        while True:
            cuts = self.summary.cuts
            loop = CaptureLoop(self.options, self.summary, lake, self._on_event, stop, former=owner)
            try:
                with explained("capturing"):
                    loop.run()
                break
            except ClaimhouseError as error:
                owner = loop.owner
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


class CaptureLoop:
    """One connection's life: from claiming the source to the last flush.

    What stands for stream and decoder may be another's than PostgreSQL's own: the distributed runtime feeds the same
    loop from what its streaming query has cut.
    """

    stream: Any
    decoder: Any

    def __init__(
        self,
        options: CaptureOptions,
        summary: Summary,
        lake: Lake,
        emit: Event,
        stop: threading.Event,
        former: Owner | None = None,
    ) -> None:
        self.options, self.summary, self.lake, self.emit, self.stop = options, summary, lake, emit, stop
        self.owner = former
        self.pending = Pending()
        self.open_parts: list[Part] = []
        self.survey: tuple[int, int, Survey] | None = None  # with the positions before and after the look
        self.target: int | None = None
        self.idle_to = 0
        self.copied_before = summary.copied_rows
        self.beat_at = -math.inf  # at once: a copy that is complete knows a time from then on
        self.looked_at: float | None = None
        self.look_seconds = 0.0
        self.flood = False

    # --- setting up

    def run(self) -> None:
        with contextlib.ExitStack() as stack:
            self.admin = stack.enter_context(connect(self.options.dsn))
            self.prepare()
            self.stream = self._open_stream()
            stack.callback(self.stream.close)
            # The slot is ours from here on, nobody else reads it: only now is an earlier owner replaced.
            self._insist_unmoved()
            self.claim()
            self.decoder = Decoder(
                self.shapes.resolve, self.xids, spill_bytes=self.options.spill_bytes, on_message=self._message
            )
            self.work(stack, interval=self.options.flush_interval)

    def prepare(self) -> None:
        """Makes sure that the source is the lake's, and its tables and slot are ready."""
        options, conn = self.options, self.admin
        capabilities = Capabilities.of(conn)
        insist_logical(capabilities)
        bridged = False
        numbers = cut_numbers(self.lake, options.source)
        self.found = mark = read_mark(self.lake, options.source, numbers[-1]) if numbers else None
        if mark is None:
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
            self.registry = registry.load(self.lake, options.source, mark.registry)
            try:
                self._insist_continuous(capabilities, mark)
            except SlotLost:
                if not options.repair:
                    raise
                bridged = True
        self.summary.slot = self.registry.slot
        self.xids = Xids.of(conn)
        self.shapes = Shapes(self.registry, self._describe, self._copy_anew, self._doubt)
        self.copies = Copies(self.lake, self.registry, lambda: connect(options.dsn), self.shapes.changed, self.emit)
        self.admission = Admission(conn, options, self.registry, self._refused, self._waiting_for_slot)
        if self.registry.timeline != capabilities.timeline:  # beyond where it branched off, only the new one is right
            self.registry.timeline = capabilities.timeline
            self.shapes.changed()
        self.copies.resume()
        fresh, self.begin = self.admission.start(first=mark is None)
        if mark is None:
            self.registry.surveyed = self.begin
        elif bridged:
            self.begin = self._bridge(mark)
        else:
            self.begin = mark.end_lsn
        self._admitted(fresh)
        if options.once:
            self.target = current_lsn(conn)
        self._look(time.monotonic())

    def _bridge(self, mark: CutMark) -> int:
        """A slot of its own again, and every table compared: what the old slot would have brought is a range that is
        not known exactly. The position to stream from."""
        begin = self.admission.renew_slot()
        for state in self.registry.tables.values():
            if state.status not in ("errored", "gone"):
                state.inexact.append((mark.end_lsn + 1, OPEN_END))  # what the lake ends with is known
                self.copies.doubt(state, begin)
        return begin

    def claim(self) -> Owner:
        """Becomes the source's owner. Raises SourceGone where an earlier one has just made another cut, Fenced where we
        were that and another one came."""
        if self.owner is not None:
            self.owner.check()
        self.owner = owner = claim(self.lake, self.options.source)
        self.tail = Tail(self.lake, self.options.source, owner)
        if self.tail.last() != self.found:
            raise SourceGone("an earlier owner made a cut while it was replaced")
        return owner

    def work(self, stack: contextlib.ExitStack, **flushing: Any) -> None:
        """Captures until stopped or caught up. `flushing` are the Flusher's `interval`, `bytes_due`, `idle_cuts`."""
        source, mark = self.options.source, self.found
        record = flushes.load(self.lake, source, mark.flush) if mark and mark.flush else None
        self.flusher = Flusher(self.lake, source, self.tail.owner, self.tail, record, **flushing)
        self.cutter = Cutter(self.tail, self.shapes, self.flusher, self.stream.confirm, mark, self.begin)
        stack.callback(self.flusher.stop)
        stack.callback(self.copies.copier.stop)
        self.copies.copier.start()
        self.flusher.start()
        self._loop()
        self._finish()

    def _insist_continuous(self, capabilities: Capabilities, mark: CutMark) -> None:
        insist_continuous(self.admin, self.options.dsn, capabilities, self.registry, mark)

    def _insist_unmoved(self) -> None:
        """The server streams from where a slot was confirmed, whatever is asked: it may be another one by now."""
        slot = publication.slot_state(self.admin, self.registry.slot)
        if slot is None or (slot.confirmed_flush_lsn or 0) > self.begin:
            raise SourceGone(f"slot {self.registry.slot} was made anew meanwhile")

    def _open_stream(self) -> Stream:
        """The stream from where the lake ends; the server may need a moment to see that an earlier reader is gone."""
        deadline = time.monotonic() + SLOT_PATIENCE
        while True:
            try:
                return Stream(self.options.dsn, self.registry.slot, self.admission.publications, self.begin)
            except SlotBusy:
                if time.monotonic() > deadline or self.stop.wait(0.2):
                    raise

    def _describe(self, oid: int) -> Table | None:
        try:
            return catalog.describe(self.admin, oid, source=self.options.source, generated=self.registry.generated)
        except SourceError:
            return None

    def _copy_anew(self, state: TableState, position: int) -> None:
        self.copies.anew(state, position)

    def _doubt(self, state: TableState, position: int) -> None:
        self.copies.doubt(state, position)

    def _before_copying(self, states: Collection[TableState]) -> None:
        self.admission.publish()
        # One that goes on may have read all before a rewrite: it answers none.
        new = [s for s in states if s.doubtful or s.copies[-1].unread]
        later = [s for s in new if s.status not in ("errored", "gone")]
        if later:
            self.shapes.copying(later, self.admission.marks([s.oid for s in later]))

    def _refused(self, label: str, reason: str) -> None:
        self.summary.refused[label] = reason
        self.emit("refused", {"table": label, "reason": reason})

    def _waiting_for_slot(self, seconds: float) -> None:
        if self.stop.is_set():
            raise SourceGone("stopped while the slot was made")
        self.emit("wait", {"text": f"waiting {seconds:.0f} s for open transactions to end, to make the slot"})

    def _admitted(self, fresh: list[TableState]) -> None:
        if fresh:
            self.copies.add(fresh)
            self.shapes.index()
            self.shapes.changed()

    # --- the loop

    def _loop(self) -> None:
        while not self.stop.is_set():
            raw = self._read()
            for decoded in self.decoder.feed(raw):
                self._take(decoded)
            self.idle_to = max(self.idle_to, self.decoder.idle_position(raw))
            stepped = self._take_steps()
            now = time.monotonic()
            # A server that asks is about to shut down: it waits until what it sent is confirmed.
            if stepped or raw.asked or self._due(now):
                self._cut()
            self._beat(now)
            if not self.shapes.dirty:
                self.copies.start(self.cutter.position, self._before_copying)
            self._look(now)
            for thread in (self.copies.copier, self.flusher):
                if thread.failed is not None:
                    raise thread.failed
            if self.target is not None and self._caught_up(self.target):
                return

    def _read(self) -> Any:
        """What has come. A trickle is gathered for most of `freshness` and decoded at once, a flood as it comes."""
        raw = self.stream.read(self._patience(), linger=0.0 if self.flood else 0.8 * self.options.freshness)
        self.flood = len(raw.buffer) > FLOOD_BYTES
        return raw

    def _patience(self) -> float:
        """How long the next read may wait for a first byte, in seconds."""
        if self.copies.has_steps:
            return 0.0
        if self.pending.since is not None:
            return max(0.0, self.options.freshness - (time.monotonic() - self.pending.since))
        return 0.02 if self._awaited() else 0.1

    def _take(self, decoded: Decoded) -> None:
        pending = self.pending
        for changes in decoded.changes:
            self.copies.note(changes, decoded.end_lsn, part=decoded.part)
        pending.errors += decoded.errors
        if decoded.part:
            self.open_parts.append(self.tail.put_part(decoded.changes))
            return
        self.copies.note_end(decoded.end_lsn)
        pending.parts += [replace(part, end_lsn=decoded.end_lsn) for part in self.open_parts]
        self.open_parts = []
        pending.changes += decoded.changes
        pending.bytes += decoded.size
        if decoded.transactions is not None:
            pending.transactions.append(decoded.transactions)
        if decoded.end_lsn:
            pending.end_lsn = decoded.end_lsn
            pending.max_committed_at = max(pending.max_committed_at, decoded.max_committed_at)
            if decoded.changes or pending.parts or self._awaited():
                self._wants_cut()

    def _wants_cut(self) -> None:
        if self.pending.since is None:
            self.pending.since = time.monotonic()

    def _take_steps(self) -> bool:
        """What the copier brought; whether a cut must tell of it."""
        told = False
        for state, step in self.copies.steps():
            told = told or not step.comparison or step.whole or step.corrections is not None
            if step.error is not None:
                self.shapes.errored(step.folder, self.cutter.position, step.error)
            elif step.anew:
                self.looked_at = None  # its shape may be another one by now
                self.copies.again(state)
            elif step.comparison:
                self.copies.compared(state, step)
            elif self.copies.outdated(state, step):
                self.copies.anew(state, step.at or 0)
            else:
                if step.changes is not None:
                    self.pending.changes.append(step.changes)
                    self.pending.bytes += step.changes.batch.nbytes
                self.copies.take(state, step)
        return told

    def _due(self, now: float) -> bool:
        pending, cutter = self.pending, self.cutter
        if pending.since is not None and now - pending.since >= self.options.freshness:
            return True
        if pending.bytes >= PENDING_BYTES or self.shapes.dirty or not cutter.names_newest_flush:
            return True
        ahead = max(pending.end_lsn, self.idle_to) > cutter.position
        return ahead and now - cutter.at >= (self.options.freshness if self._awaited() else IDLE_SECONDS)

    def _cut(self) -> None:
        began = time.perf_counter()
        pending, self.pending = self.pending, Pending()
        end = max(self.cutter.position, pending.end_lsn, 0 if self.open_parts else self.idle_to)
        if self.survey is not None and self.survey[1] <= end:
            (begun, lsn, found), self.survey = self.survey, None
            self.shapes.apply(found, begun, lsn)
            if self.shapes.unsettled:
                self.looked_at = None
        committed_at = max(self.cutter.max_committed_at, pending.max_committed_at)
        pending.changes += self.copies.corrections(end, committed_at)
        mark = self.cutter.cut(pending, end, self.copies)
        for table, _, _ in pending.errors:
            self.decoder.forget(table.oid)  # its rows are wanted no more
        self._count(pending, mark, time.perf_counter() - began)

    def _count(self, pending: Pending, mark: CutMark, seconds: float) -> None:
        summary, rows = self.summary, pending.rows
        summary.cuts += 1
        summary.cut, summary.end_lsn, summary.flushes = mark.cut, mark.end_lsn, mark.flush
        summary.transactions += mark.transactions
        summary.rows += rows
        summary.copied_rows = self.copied_before + self.copies.rows
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
        return self.target is not None or self.copies.busy or self.survey is not None

    def _beat(self, now: float) -> None:
        """Moves an idle source on, so that waits end and its newest cut tells a recent time."""
        if now - self.beat_at < (EAGER_SECONDS if self._awaited() else IDLE_SECONDS):
            return
        if now - self.cutter.at < EAGER_SECONDS and self.pending.since is not None:
            return
        self.beat_at = now
        self.admin.execute("SELECT pg_logical_emit_message(true, %s, '')", (HEARTBEAT,))

    def _message(self, prefix: str, content: bytes, lsn: int, xid: int) -> None:
        """A logical message of ours: the DDL trigger tells what happened exactly here; a heartbeat asks for a cut."""
        if prefix == HEARTBEAT:
            self._wants_cut()
        if prefix == resync.PREFIX and (oid := resync.read(content)) is not None:
            self.shapes.resync(oid, lsn)
            self.decoder.forget(oid)
        if prefix != ddl_trigger.PREFIX:
            return
        try:
            told = ddl_trigger.read(content, source=self.options.source, generated=self.registry.generated)
        except ValueError:
            return  # anyone may write messages of our prefix
        if told.table is not None:
            if told.table.identity == "none":
                self.looked_at = -math.inf  # the application's UPDATE fails until it is published as append-only
            self.shapes.announced(told.table, lsn)
        if told.event in ("rewrite", "values"):
            self.shapes.rewritten(told.oid, lsn)
        elif told.event == "drop":
            self.shapes.dropped(told.oid, lsn)

    def _look(self, now: float) -> None:
        """Surveys the catalog now and then; what it finds is applied once the stream has passed this moment."""
        pause = max(IDLE_SECONDS, self.look_seconds / LOOK_SHARE)
        if self.survey is not None or (self.looked_at is not None and now - self.looked_at < pause):
            return
        began = time.monotonic()
        if self.looked_at is not None:
            self._admitted(self.admission.admit())
        self.looked_at = now
        begun = current_lsn(self.admin)
        found = self.shapes.survey(self.admission.marks(self.shapes.oids()))
        self.survey = (begun, current_lsn(self.admin), found)
        self.look_seconds = time.monotonic() - began

    def _caught_up(self, target: int) -> bool:
        open_work = self.copies.busy or self.open_parts or self.pending.since or self.survey or self.shapes.unsettled
        return self.cutter.position >= target and not open_work

    # --- the end

    def _finish(self) -> None:
        """A last cut, a last flush, and a cut that names it."""
        self.copies.copier.stop()
        # Else a DDL that a later run notices would blur what this one knows.
        if self.summary.transactions and self.registry.surveyed > self.cutter.saved.surveyed:
            self.shapes.changed()
        if self.pending.since is not None or self.shapes.dirty:
            self._cut()
        self.flusher.stop()
        if self.flusher.failed is not None:
            raise self.flusher.failed
        self.flusher.flush_now()
        if not self.cutter.names_newest_flush:
            self._cut()
        self.stream.confirm(self.cutter.position, flush=True)
        self.summary.errored = {s.label: s.error or "" for s in self.registry.tables.values() if s.status == "errored"}
        slot = publication.slot_state(self.admin, self.registry.slot)
        self.summary.held_bytes = slot.retained_bytes if slot is not None else None
