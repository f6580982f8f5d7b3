"""Keeps the registry's shapes in step with the source's: from the stream, from the DDL trigger, from the catalog.

The stream announces a table's columns before its next row (Relation), after the DDL happened; the optional event
trigger announces it exactly where it happened; and a look at the catalog finds what neither has told yet. Only the
trigger's word is exact: what the other two bring leaves a range of positions named as not exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from claimhouse.errors import ClaimhouseError
from claimhouse.lake.registry import OPEN_END, Registry, TableState
from claimhouse.postgres.catalog import Mark, evolve, folded_twins
from claimhouse.postgres.pgoutput import Relation
from claimhouse.table import Column, Table


@dataclass(frozen=True, slots=True)
class Finding:
    """What a survey found of a table that had so many `versions` then, and had been `marked` so often."""

    table: Table | None
    versions: int
    marked: int
    mark: Mark | None


Survey = dict[int, Finding]


class Shapes:
    """Applies what is learnt of the source's tables to the registry. `dirty` tells that a cut must bring a new one.

    `describe(oid)` asks the source's catalog (None: no such table). `copy_anew` is called where the log no longer tells
    what rows show, `doubt` where some may show something else: the stream never brings them again.
    """

    def __init__(
        self,
        registry: Registry,
        describe: Callable[[int], Table | None],
        copy_anew: Callable[[TableState, int], None],
        doubt: Callable[[TableState, int], None],
    ) -> None:
        self.registry = registry
        self.dirty = False
        self._describe = describe
        self._copy_anew, self._doubt = copy_anew, doubt
        self._by_oid: dict[int, TableState] = {}
        self._seen: dict[int, int] = {}
        self._again: set[int] = set()
        self._marked: Counter[int] = Counter()
        self.index()

    def index(self) -> None:
        """Builds the look-up by oid anew, after tables were added."""
        self._by_oid = {t.oid: t for t in self.registry.tables.values() if t.status != "gone"}

    def rewritten(self, oid: int, lsn: int) -> None:
        """The DDL trigger tells that old rows show other values from this position on, without events."""
        state = self._by_oid.get(oid)
        if state is not None and state.status not in ("errored", "gone"):
            state.inexact.append((lsn, OPEN_END))
            self._doubt(state, lsn)

    def resync(self, oid: int, lsn: int) -> None:
        """Somebody asks for a new copy; a table that was stopped is taken up again, by the shape that it has now."""
        state = self._by_oid.get(oid)
        if state is None or state.status == "gone":
            return
        if state.status == "errored":
            state.inexact.append((state.errored_at or lsn, OPEN_END))
            state.status, state.error, state.errored_at = "copying", None, None
            described = self._describe(oid)
            if described is not None and self.take(state, described, lsn, exact=False):
                return  # its new shape asked for the copy already
        if state.status != "errored":
            self._copy_anew(state, lsn)

    def copying(self, states: Collection[TableState], marks: Mapping[int, Mark]) -> None:
        """Copies begin now, behind `marks`: what rewrote these tables before is in the copies, and asks for no other.

        A table whose shape is another one by now is left as it is: the next survey tells.
        """
        for state in states:
            mark, described = marks.get(state.oid), self._describe(state.oid)
            if mark is None or described is None or evolve(state.table, described, earlier=state.versions[:-1]):
                continue
            if state.storage and mark.rewritten_since(Mark.from_json(state.storage), state.oid):
                state.inexact.append((self._rewritten_after(state), OPEN_END))
            state.storage = mark.to_json()
            self._marked[state.oid] += 1
            self.dirty = True

    def dropped(self, oid: int, lsn: int, known: int | None = None) -> None:
        """The table is gone from this position on; with `known`, the last position at which it was there."""
        state = self._by_oid.pop(oid, None)
        if state is None:
            return
        state.status, state.error, state.errored_at = "gone", "the table was dropped at the source", lsn
        if known is not None:
            state.inexact.append((known, lsn))
        self.dirty = True

    def changed(self) -> None:
        """Something else in the registry changed: the next cut brings a new one."""
        self.dirty = True

    @property
    def unsettled(self) -> bool:
        """Whether the last survey came too early for a table: it must be looked at again before all is known."""
        return not self._again.isdisjoint(self._by_oid)

    def oids(self) -> list[int]:
        return list(self._by_oid)

    def resolve(self, relation: Relation, lsn: int) -> Table | None:
        """The shape that rows after this Relation message have; None where their table is not captured."""
        state = self._by_oid.get(relation.oid)
        if state is None or state.status in ("errored", "gone"):
            return None
        ends = [*state.since[1:], None]
        for shape, until in reversed(list(zip(state.versions, ends, strict=True))):
            if agrees(shape, relation):
                if until is not None and lsn > until:
                    break  # beyond a newer one: the source went back to what the table was before
                self._seen[state.oid] = lsn
                return shape
        described = self._describe(relation.oid)
        if described is None or not agrees(described, relation):
            described = _from_relation(relation, described, state.table)
        self.take(state, described, lsn, exact=False)
        self._seen[state.oid] = lsn
        return state.table

    def announced(self, described: Table, lsn: int) -> None:
        """The DDL trigger tells the shape that holds from this position."""
        state = self._by_oid.get(described.oid)
        if state is not None and state.status not in ("errored", "gone"):
            state.schema, state.name = described.schema, described.name
            self.take(state, described, lsn, exact=True)
            self._seen[state.oid] = lsn

    def survey(self, marks: dict[int, Mark]) -> Survey:
        """What the catalog shows of each table whose mark moved since the last survey (None: it is gone).

        To be applied once the stream has passed the moment of the look: what the stream itself tells comes first.
        """
        found: Survey = {}
        for oid, state in self._by_oid.items():
            mark = marks.get(oid)
            if mark is None:
                found[oid] = Finding(None, len(state.versions), self._marked[oid], None)
            elif mark.to_json() != state.storage or oid in self._again:
                self._again.discard(oid)
                described = self._describe(oid)
                if described is not None:  # else it went between the two looks: the next survey tells
                    found[oid] = Finding(described, len(state.versions), self._marked[oid], mark)
        return found

    def apply(self, found: Survey, begun: int, lsn: int) -> None:
        """Takes over a survey made between the positions `begun` and `lsn`; the stream has passed the later one now.

        What came after the look itself it does not know: up to `begun` the shapes are the source's, not up to `lsn`.
        """
        whole = True
        for oid, finding in found.items():
            state = self._by_oid.get(oid)
            if state is None:
                continue
            self.dirty = True
            if finding.table is None or finding.mark is None:
                self.dropped(oid, lsn, self.known_to(state))
                continue
            state.schema, state.name = finding.table.schema, finding.table.name
            if state.status == "errored":
                continue
            if len(state.versions) != finding.versions or self._marked[oid] != finding.marked:
                self._again.add(oid)  # the stream told of a newer shape meanwhile, or a copy began: look again
                whole = False
                continue
            known = self._rewritten_after(state)
            copying = self.take(state, finding.table, lsn, exact=False)
            before = Mark.from_json(state.storage) if state.storage else finding.mark
            rewritten = finding.mark.rewritten_since(before, oid)
            state.storage = finding.mark.to_json()
            if rewritten and not copying and state.status != "errored":
                state.inexact.append((known, OPEN_END))
                self._doubt(state, lsn)
        if whole:
            self.registry.surveyed = max(self.registry.surveyed, begun)

    def _rewritten_after(self, state: TableState) -> int:
        """The last position before a rewrite that a look found: it may leave the columns as they are, so that what the
        stream announced since tells nothing of it."""
        return max(self.registry.surveyed, state.since[0])

    def known_to(self, state: TableState) -> int:
        """The last position at which the newest shape of a table is known to have been the source's."""
        return max(self._seen.get(state.oid, 0), state.since[-1], self.registry.surveyed)

    def errored(self, folder: str, lsn: int, message: str) -> None:
        """Stops a table at a position; the others go on."""
        state = self.registry.tables[folder]
        if state.status != "errored":
            state.status, state.error, state.errored_at = "errored", message, lsn
            self.dirty = True

    def take(self, state: TableState, described: Table, lsn: int, *, exact: bool) -> bool:
        """Appends the next version if there is one; whether the table is copied anew because of it."""
        try:
            shape = evolve(state.table, described, earlier=state.versions[:-1])
        except ClaimhouseError as error:
            self.errored(state.folder, lsn, str(error))
            return False
        if shape is None:
            return False
        if twins := folded_twins(c.name for c in shape.columns):
            self.errored(state.folder, lsn, f"columns {' and '.join(twins)} differ only by case")
            return False
        known, anew = self.known_to(state), reshaped(state.table, shape)
        state.versions.append(shape)
        state.since.append(lsn)
        self.dirty = True
        if anew:
            state.inexact.append((lsn if exact else known, OPEN_END))
            self._copy_anew(state, lsn)
        elif not exact and known < lsn:
            state.inexact.append((known, lsn))
        return anew


def agrees(shape: Table, relation: Relation) -> bool:
    """Whether a Relation message describes that shape: same columns by name, type and modifier, and the same key."""
    known = {(c.name, c.type_oid, c.typmod) for c in shape.columns}
    sent = {(c.name, c.type_oid, c.typmod) for c in relation.columns}
    if known != sent:
        return False
    if shape.identity != "key" or relation.identity not in ("d", "i"):
        return True
    return {c.name for c in shape.key} == {c.name for c in relation.columns if c.flags & 1}


def reshaped(old: Table, new: Table) -> bool:
    """Whether the log's rows no longer tell what old rows show: another identity, or values of another kind."""
    if old.identity != new.identity or [c.attnum for c in old.key] != [c.attnum for c in new.key]:
        return True
    before = {c.attnum: c.physical for c in old.columns}
    return any(before.get(c.attnum, c.physical) != c.physical for c in new.columns)


def _from_relation(relation: Relation, described: Table | None, last: Table) -> Table:
    """A shape for columns that the catalog does not show any more: the DDL ran ahead of the stream."""
    known: dict[tuple[str, int], Column] = {(c.name, c.type_oid): c for c in last.columns}
    if described is not None:
        known |= {(c.name, c.type_oid): c for c in described.columns}
    fresh = max((c.attnum for c in last.columns), default=0)
    columns: list[Column] = []
    for sent in relation.columns:
        found = known.get((sent.name, sent.type_oid))
        if found is None:
            fresh += 1
            found = Column(sent.name, sent.name, -fresh, "text", sent.type_oid, sent.typmod, "text")
        columns.append(replace(found, typmod=sent.typmod))
    return replace(described or last, columns=tuple(columns))
