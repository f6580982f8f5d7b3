"""Which tables a source brings, and whether this source still continues what the lake holds.

Two questions are asked before a stream is opened: is this the server, database and slot that the newest cut came from
(else nothing is read: a lake never goes on with another history), and which tables match that are not captured yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import psycopg

from claimhouse.change import lsn_text
from claimhouse.errors import NotReady, SlotBusy, SlotLost, SourceLost, UsageError
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import OPEN_END, Registry, TableState
from claimhouse.lake.tail import CutMark
from claimhouse.pipeline.copies import begin_copy
from claimhouse.pipeline.options import CaptureOptions
from claimhouse.postgres import catalog, publication
from claimhouse.postgres.server import Capabilities, branched_at, current_lsn
from claimhouse.table import Table


def insist_logical(capabilities: Capabilities) -> None:
    """Raises NotReady where the server cannot decode its WAL."""
    if capabilities.wal_level != "logical":
        raise NotReady(
            f"wal_level is {capabilities.wal_level}, and must be logical",
            hint="ALTER SYSTEM SET wal_level = 'logical';  -- then restart the server",
        )
    if capabilities.is_standby:
        raise NotReady(
            "this server is a standby: a publication cannot be made on it", hint="name the primary as the source"
        )


def insist_embedded(lake: Lake, source: str) -> None:
    """Raises UsageError where the distributed runtime captures the source: slot and tail are not ours to go on with."""
    if lake.streamed(source):
        raise UsageError(
            f"source {source} is captured by the distributed runtime: its slot is Debezium's",
            hint="`claimhouse stack up` goes on with it; the embedded runtime needs a lake or a --name of its own",
        )


def insist_continuous(
    conn: psycopg.Connection, dsn: str, capabilities: Capabilities, registry: Registry, mark: CutMark
) -> None:
    """Raises SourceLost unless this source goes on from exactly where the lake's newest cut ends; SlotLost where it is
    the same history, and only the slot's changes are gone; SourceGone while the slot is being made."""

    def lost(
        what: str,
        hint: str = "capture it under a new source name (--name), or into a new lake",
        kind: type[SourceLost] = SourceLost,
    ) -> SourceLost:
        return kind(f"source {registry.source}: {what}", hint=hint)

    end = lsn_text(mark.end_lsn)
    if capabilities.system_id != registry.system_id:
        raise lost(
            f"this is another server (system identifier {capabilities.system_id}) than the one captured so far"
            f" ({registry.system_id})",
            "check the DSN; another server belongs under another source name (--name)",
        )
    if capabilities.database != registry.database:
        raise lost(
            f"this is database {capabilities.database}, the lake holds {registry.database}",
            "check the DSN; another database belongs under another source name (--name)",
        )
    here = current_lsn(conn)
    if here < mark.end_lsn:
        raise lost(f"the server is at {lsn_text(here)}, behind the lake's {end}: it was restored from a backup")
    if registry.timeline and capabilities.timeline != registry.timeline:
        branched = branched_at(dsn, capabilities.timeline, registry.timeline)
        if branched is None or branched < mark.end_lsn:
            where = "" if branched is None else f" since {lsn_text(branched)}"
            raise lost(
                f"the server goes another way{where}: it was promoted or restored (timeline"
                f" {capabilities.timeline}, was {registry.timeline}), and the lake ends at {end}"
            )
    bridge = f"claimhouse repair --name {registry.source}: a new slot, and every table compared and corrected"
    slot = publication.slot_state(conn, registry.slot)
    if slot is None or slot.wal_status == "lost":
        state = "missing" if slot is None else "lost"
        gone = f"the changes from {end} to {lsn_text(here)} are gone"
        raise lost(f"slot {registry.slot} is {state}: {gone}", bridge, SlotLost)
    publication.insist_made(registry.slot, slot)
    if (slot.confirmed_flush_lsn or 0) > mark.end_lsn:
        moved = lsn_text(slot.confirmed_flush_lsn or 0)
        raise lost(
            f"slot {registry.slot} was moved to {moved} by someone else, the lake ends at {end}", bridge, SlotLost
        )


class Admission:
    """Brings matching tables into publication and registry. `admit` may be called again while streaming."""

    def __init__(
        self,
        conn: psycopg.Connection,
        options: CaptureOptions,
        registry: Registry,
        refused: Callable[[str, str], None],
        waiting: Callable[[float], None],
    ) -> None:
        self.publications: list[str] = []
        self._conn, self._options, self._registry, self._refused = conn, options, registry, refused
        self._waiting = waiting
        self._told: set[str] = set()

    def start(self, *, first: bool) -> tuple[list[TableState], int]:
        """(new tables, position to stream from). Makes publication and slot on the first start."""
        self._look_at_publication()
        described, storage = self._new()
        if first and not described:
            raise UsageError(
                "no table to capture matches " + (", ".join(self._options.tables) or "(all tables)"),
                hint="patterns look like claim, sales.*, !audit.*; `claimhouse doctor` lists the tables",
            )
        position = current_lsn(self._conn)
        if first:
            self.publish(described)
            position = publication.ensure_slot(self._conn, self._registry.slot, waiting=self._waiting)
        else:
            described = self._published(described)
        return self._register_all(described, position, storage), position

    def renew_slot(self) -> int:
        """Drops a slot whose changes are lost and makes it anew; where it begins. Raises SlotBusy while it is read."""
        name = self._registry.slot
        found = publication.slot_state(self._conn, name)
        if found is not None and found.active_pid is not None:
            raise SlotBusy(f"slot {name} is being read by server process {found.active_pid}", hint="stop it first")
        if found is not None:
            publication.drop_slot(self._conn, name)
        return publication.ensure_slot(self._conn, name, waiting=self._waiting)

    def admit(self) -> list[TableState]:
        """Tables that match and are new since the last look; their P is the position before they are published."""
        self._look_at_publication()
        described, storage = self._new()
        position = current_lsn(self._conn)
        return self._register_all(self._published(described), position, storage)

    def _published(self, fresh: list[Table]) -> list[Table]:
        """Those of the new tables that are published now; what the role may not publish is refused by name."""
        try:
            self.publish(fresh)
        except NotReady as error:
            if len(fresh) > 1:
                return [table for one in fresh for table in self._published([one])]
            for table in fresh:
                self._refuse(table.label, f"{error}; {error.hint}")
            self.publish()  # a captured table that nothing publishes any more must not go on in silence
            return []
        return fresh

    def publish(self, fresh: Sequence[Table] = ()) -> None:
        """Brings the publications in step with the tables' identities: an application must never fail to write."""
        kept = [s.table for s in self._registry.tables.values() if s.status != "gone"]
        self.publications = publication.ensure(
            self._conn, self._registry.publication, [*kept, *fresh], generated=self._registry.generated
        )

    def _look_at_publication(self) -> None:
        known = self._registry
        known.generated = self._options.generated and publication.sends_generated(self._conn, known.publication)

    def marks(self, oids: Collection[int]) -> dict[int, catalog.Mark]:
        """The marks of the captured tables, with what publishes them."""
        covered = publication.coverage(self._conn, self._registry.publication, oids)
        return {o: replace(m, published=covered.get(o, "")) for o, m in catalog.marks(self._conn, oids).items()}

    def _refuse(self, label: str, reason: str) -> None:
        if label not in self._told:
            self._told.add(label)
            self._refused(label, reason)

    def _new(self) -> tuple[list[Table], dict[int, catalog.Mark]]:
        """Matching tables that are not captured yet, and their marks.

        The marks are taken first: a DDL in between then shows as a change of them, and is looked at again.
        """
        known = {t.oid for t in self._registry.tables.values() if t.status != "gone"}
        fresh: list[int] = []
        for info in catalog.find_tables(self._conn, self._options.tables):
            if info.oid in known:
                continue
            if reason := info.problem or info.ignored:
                self._refuse(info.label, reason)
            else:
                fresh.append(info.oid)
        marks = catalog.marks(self._conn, fresh) if fresh else {}
        known = self._registry
        described = catalog.describe_all(self._conn, fresh, source=known.source, generated=known.generated)
        return [described[oid] for oid in fresh if oid in described], marks

    def _register_all(
        self, described: list[Table], position: int, storage: dict[int, catalog.Mark]
    ) -> list[TableState]:
        covered = publication.coverage(self._conn, self._registry.publication, [t.oid for t in described])
        storage = {oid: replace(mark, published=covered.get(oid, "")) for oid, mark in storage.items()}
        return [self._register(t, position, storage) for t in described]

    def _register(self, table: Table, position: int, storage: dict[int, catalog.Mark]) -> TableState:
        tables = self._registry.tables
        while table.folder in tables and tables[table.folder].status != "gone":  # of another, renamed since
            table = replace(table, place=f"{table.folder}__2")
        state = tables.get(table.folder)
        if state is None:
            shape = replace(table, version=1)
            state = TableState(table.oid, table.schema, table.name, table.folder, "copying", versions=[shape])
            state.since.append(position)
            tables[table.folder] = state
        else:  # dropped, and made again under its old name: the same folder, a new copy
            shape = catalog.evolve(state.table, table, earlier=state.versions[:-1])
            state.inexact.append((state.errored_at or position, OPEN_END))  # the former table's rows until then
            state.oid, state.status, state.error, state.errored_at = table.oid, "copying", None, None
            state.schema, state.name = table.schema, table.name
            if shape is not None:
                state.versions.append(shape)
                state.since.append(position)
        if table.oid in storage:
            state.storage = storage[table.oid].to_json()
        begin_copy(state, self._registry.incarnation, position)
        return state
