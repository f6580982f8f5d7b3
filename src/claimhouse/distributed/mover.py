"""Moves what the streaming query has cut into the lake: the embedded runtime's capture, fed from the tail table.

Admission, copies, shapes, cuts, flushes and folds are the same code in both runtimes; only what stands in for the
stream differs. Here `read` takes the next window of whole transactions out of the tail table, and nothing is confirmed
to PostgreSQL: Debezium holds the slot, and Kafka keeps what is not appended yet. A cut of the lake is made every
`flush_every` seconds (every second while a copy waits for the stream), and flushed at once.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import Decoded
from claimhouse.distributed import feed
from claimhouse.distributed.tail import TailEvents
from claimhouse.distributed.values import HEX, KNOWN, KNOWN_BY_NAME, NOT_CARRIED, TEXT, loses
from claimhouse.errors import SlotLost
from claimhouse.lake import flushes, registry
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import Lake
from claimhouse.lake.owner import Owner
from claimhouse.lake.registry import Registry, TableState
from claimhouse.lake.tail import CutMark
from claimhouse.pipeline.capture import CaptureLoop
from claimhouse.pipeline.options import CaptureOptions, Summary
from claimhouse.postgres import ddl_trigger, publication
from claimhouse.postgres.server import Capabilities, connect
from claimhouse.table import Column, Table

AWAITED_EVERY = 1.0
LOOK_EVERY = 30.0
IDLE_FLUSH = 120.0  # how often a source that only moves on is flushed, which lets old cuts go
SLOT_LOST = "capture into a new lake: a stack in another folder; this lake stays, and can be queried"
APPEND_ONLY = "the distributed runtime needs a primary key or REPLICA IDENTITY FULL"


@dataclass(slots=True)
class Window:
    """What stands for a read of the stream: a window of the tail table, or nothing yet."""

    events: feed.Events | None = None
    wal_end: int = 0
    asked: bool = False


class Mover(CaptureLoop):
    """One source's mover. `named(record, registry)` is called once a cut names a new flush record."""

    def __init__(
        self,
        options: CaptureOptions,
        lake: Lake,
        emit: Callable[[str, dict[str, Any]], None],
        stop: threading.Event,
        *,
        placeholder: str,
        every: float,
        named: Callable[[FlushRecord, Registry], None],
    ) -> None:
        super().__init__(options, Summary(options.source), lake, emit, stop)
        self.placeholder, self.every, self.named = placeholder, every, named
        self.known_flush, self.known_registry = 0, ""
        self.moved_at = 0.0
        self.read_to = 0
        self._wires: dict[int, int] = {}

    def open(self) -> Owner:
        """Claim the source, make publication and slot; what the connector and the streaming query need to start."""
        self.admin = connect(self.options.dsn)
        self.prepare()
        owner = self.claim()
        self.events = TailEvents(self.lake, self.options.source, self.xids)
        return owner

    def run(self) -> None:
        """Move until stopped; `open` comes first. Raises ClaimhouseError."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.admin.close)
            self.stream = self.decoder = self  # feed, idle_position, confirm
            # A cut that brings rows is flushed at once: any byte is due.
            self.work(stack, interval=IDLE_FLUSH, bytes_due=1, idle_cuts=1)

    @property
    def flushed(self) -> FlushRecord | None:
        """The flush record that the newest cut named when the source was claimed."""
        mark = self.found
        return flushes.load(self.lake, self.options.source, mark.flush) if mark and mark.flush else None

    def _insist_continuous(self, capabilities: Capabilities, mark: CutMark) -> None:
        """Debezium confirms what Kafka holds, so the slot may be ahead of the lake: Kafka and the tail bridge that."""
        slot = publication.slot_state(self.admin, self.registry.slot)
        ahead = slot.confirmed_flush_lsn or 0 if slot is not None else 0
        try:
            super()._insist_continuous(capabilities, replace(mark, end_lsn=max(mark.end_lsn, ahead)))
        except SlotLost as error:  # `repair` knows the embedded runtime's slot alone
            raise SlotLost(str(error), hint=SLOT_LOST) from None

    def _admitted(self, fresh: list[TableState]) -> None:
        """Debezium reads one publication: tables of the other one, which have no usable identity, cannot come by it."""
        super()._admitted(fresh)
        for state in [s for s in fresh if s.table.identity == "none"]:
            self.shapes.errored(state.folder, self.begin, APPEND_ONLY)
            self._refused(state.label, APPEND_ONLY)

    # --- what stands for stream and decoder

    def _read(self) -> Window:
        """The next window, when one is due; else nothing after at most 0.2 s."""
        every = AWAITED_EVERY if self._awaited() else self.every
        if time.monotonic() - self.moved_at >= every and self.pending.since is None:
            found = self.events.after(max(self.cutter.position, self.read_to))
            if found is not None and found.transactions.num_rows:
                self.read_to = int(found.transactions.column("end_lsn")[-1].as_py())
                return Window(found)
            self.moved_at = time.monotonic()
            return Window()
        self.stop.wait(min(max(self._patience(), 0.05), 0.2))
        return Window()

    def feed(self, raw: Window) -> list[Decoded]:
        """The window's changes; where the DDL trigger spoke in it, what came before counts under the former shape."""
        decoded: list[Decoded] = []
        for events, message in _spoken(raw.events):
            if message is not None:
                self._message(*message)
            if events.transactions.num_rows:
                decoded.append(feed.decode(events, self._resolve, self._wire, self.placeholder))
        return decoded

    def idle_position(self, raw: Window) -> int:
        return 0

    def forget(self, oid: int) -> None:
        """Nothing to forget: each window asks for its tables' shapes."""

    def confirm(self, lsn: int, flush: bool = False) -> None:
        """Nothing to confirm: Debezium holds the slot."""

    def _cut(self) -> None:
        if self.shapes.dirty:  # the registry that this cut brings tells what its shapes' columns lose on the way
            for state in self.registry.tables.values():
                told = {c.name: loses(c, self._wire(c)) for c in state.table.columns}
                state.lossy = {name: words for name, words in told.items() if words is not None}
        super()._cut()
        mark = self.cutter.mark
        assert mark is not None
        if mark.registry != self.known_registry:  # views follow the registry of a flush: flush it
            self.known_registry = mark.registry
            self.flusher.cut_made(mark, self.cutter.saved, 1)
        if mark.flush and mark.flush != self.known_flush:
            self.known_flush = mark.flush
            record = flushes.load(self.lake, self.options.source, mark.flush)
            self.named(record, registry.load(self.lake, self.options.source, record.registry))

    def _beat(self, now: float) -> None:
        """As the embedded runtime's, no more often than the streaming query cuts."""
        if now - self.beat_at >= AWAITED_EVERY:
            super()._beat(now)

    def _look(self, now: float) -> None:
        """As the embedded runtime's, less often: each look makes the source write a heartbeat and waits for it."""
        if self.looked_at is None or now - self.looked_at >= LOOK_EVERY:
            super()._look(now)

    # --- shapes

    def _resolve(self, schema: str, name: str, names: frozenset[str], lsn: int) -> Table | None:
        """The shape that rows with these columns have, asking the catalog where none is known."""
        state = self._state(schema, name)
        if state is None:
            return None
        if not names:
            return state.table
        for shape in reversed(state.versions):
            if names == self._carried(shape, names):
                return shape
        described = self._describe(state.oid)
        if described is None or names != self._carried(described, names):
            described = _as_sent(described or state.table, state.table, names)
        self.shapes.take(state, described, lsn, exact=False)
        return state.table

    def _state(self, schema: str, name: str) -> TableState | None:
        for state in self.registry.tables.values():
            if (state.schema, state.name) == (schema, name) and state.status not in ("errored", "gone"):
                return state
        return None

    def _carried(self, shape: Table, names: frozenset[str]) -> frozenset[str]:
        """The columns of a shape that Debezium sends."""
        return frozenset(c.name for c in shape.columns if c.name in names or c.type not in NOT_CARRIED)

    def _wire(self, column: Column) -> int:
        """The type that Debezium takes a column (of a list: its elements) for."""
        if column.type_oid not in self._wires:
            self._wires[column.type_oid] = wire_type(self.admin, column.type_oid)
        return self._wires[column.type_oid]


def _spoken(events: feed.Events | None) -> Iterator[tuple[feed.Events, tuple[str, bytes, int, int] | None]]:
    """A window cut before each transaction in which the DDL trigger spoke, with the message that comes first."""
    if events is None:
        return
    rows = events.rows
    ours = pc.starts_with(pc.fill_null(rows.column("note"), ""), ddl_trigger.PREFIX + " ")
    told = pc.and_(pc.equal(rows.column("op"), "m"), ours)
    begin, message = 0, None
    for row in rows.filter(told).to_pylist():
        lsn = row["end_lsn"]
        yield _between(events, begin, lsn), message
        content = bytes.fromhex(row["note"].partition(" ")[2])
        begin, message = lsn, (ddl_trigger.PREFIX, content, lsn, row["xid"])
    yield _between(events, begin, 1 << 62), message


def _between(events: feed.Events, begin: int, end: int) -> feed.Events:
    """Transactions with begin <= end LSN < end."""

    def part(table: pa.Table) -> pa.Table:
        lsn = table.column("end_lsn")
        return table.filter(pc.and_(pc.greater_equal(lsn, begin), pc.less(lsn, end)))

    return feed.Events(part(events.rows), part(events.transactions))


def _as_sent(described: Table, last: Table, names: frozenset[str]) -> Table:
    """A shape for columns that the catalog does not show (any more): the DDL ran ahead of the stream."""
    known = {c.name: c for c in (*last.columns, *described.columns)}
    fresh = max((c.attnum for c in last.columns), default=0)
    columns: list[Column] = []
    for name in sorted(names, key=lambda n: known[n].attnum if n in known else 1 << 20):
        if name not in known:
            fresh += 1
        columns.append(known.get(name) or Column(name, name, -fresh, "text", TEXT, -1, "text"))
    return replace(described, columns=tuple(columns))


_WIRE = """
WITH RECURSIVE base AS (
  SELECT t.oid, t.typtype, t.typbasetype, t.typname, t.typelem, t.typcategory FROM pg_catalog.pg_type t WHERE t.oid = %s
  UNION ALL
  SELECT t.oid, t.typtype, t.typbasetype, t.typname, t.typelem, t.typcategory FROM base b JOIN pg_catalog.pg_type t
  ON t.oid = CASE WHEN b.typtype = 'd' THEN b.typbasetype WHEN b.typcategory = 'A' THEN b.typelem END)
SELECT oid::bigint, typtype::text, typname::text, typcategory::text FROM base
"""


def wire_type(conn: psycopg.Connection[Any], oid: int) -> int:
    """What Debezium takes a type for: a domain's base type; of an array its element's; HEX for what it does not know.

    Elements of a domain type it does not know.
    """
    chain = conn.execute(_WIRE, (oid,)).fetchall()
    if not chain:
        return TEXT
    array = any(category == "A" for _, _, _, category in chain[:1]) or (len(chain) > 1 and chain[0][3] == "A")
    if array and len(chain) > 2 and chain[1][1] == "d":
        return HEX
    last, kind, name, _ = chain[-1]
    if kind == "e" or name in KNOWN_BY_NAME:
        return TEXT
    return int(last) if last in KNOWN else HEX
