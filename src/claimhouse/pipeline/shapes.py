"""Keeps the registry's shapes in step with the source's: from the stream, from the DDL trigger, from the catalog.

The stream announces a table's columns before its next row (Relation), after the DDL happened; the optional event
trigger announces it exactly where it happened; and a look at the catalog finds what neither has told yet. Only the
trigger's word is exact: what the other two bring leaves a range of positions named as not exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from claimhouse.errors import ClaimhouseError
from claimhouse.lake.registry import Registry, TableState
from claimhouse.postgres.catalog import evolve
from claimhouse.postgres.pgoutput import Relation
from claimhouse.table import Column, Table


class Shapes:
    """Applies what is learnt of the source's tables to the registry. `dirty` tells that a cut must bring a new one.

    `describe(oid)` asks the source's catalog (None: no such table). `copy_anew(folder)` is called where rows that the
    stream never brings again have changed.
    """

    def __init__(
        self,
        registry: Registry,
        describe: Callable[[int], Table | None],
        copy_anew: Callable[[TableState, int], None],
    ) -> None:
        self.registry = registry
        self.dirty = False
        self._describe = describe
        self._copy_anew = copy_anew
        self._by_oid: dict[int, TableState] = {}
        self._seen: dict[int, int] = {}
        self._prints: dict[int, str] = {}
        self.index()

    def index(self) -> None:
        """Builds the look-up by oid anew, after tables were added."""
        self._by_oid = {t.oid: t for t in self.registry.tables.values() if t.status != "gone"}

    def oids(self) -> list[int]:
        return list(self._by_oid)

    def resolve(self, relation: Relation, lsn: int) -> Table | None:
        """The shape that rows after this Relation message have; None where their table is not captured."""
        state = self._by_oid.get(relation.oid)
        if state is None or state.status in ("errored", "gone"):
            return None
        for shape in reversed(state.versions):
            if agrees(shape, relation):
                self._seen[state.oid] = lsn
                return shape
        described = self._describe(relation.oid)
        if described is None or not agrees(described, relation):
            described = _from_relation(relation, described, state.table)
        self._take(state, described, lsn, exact=False)
        self._seen[state.oid] = lsn
        return state.table

    def announced(self, described: Table, lsn: int) -> None:
        """The DDL trigger tells the shape that holds from this position."""
        state = self._by_oid.get(described.oid)
        if state is not None and state.status not in ("errored", "gone"):
            self._take(state, described, lsn, exact=True)
            self._seen[state.oid] = lsn

    def survey(self, fingerprints: dict[int, str]) -> dict[int, tuple[Table | None, int]]:
        """What the catalog shows of each table whose fingerprint moved since the last survey (None: it is gone).

        To be applied once the stream has passed the moment of the look: what the stream itself tells comes first.
        """
        found: dict[int, tuple[Table | None, int]] = {}
        for oid, state in self._by_oid.items():
            fingerprint = fingerprints.get(oid)
            if state.status != "gone" and (fingerprint is None or self._prints.get(oid) != fingerprint):
                described = self._describe(oid) if fingerprint is not None else None
                found[oid] = (described, len(state.versions))
                if fingerprint is not None:
                    self._prints[oid] = fingerprint
        return found

    def apply(self, found: dict[int, tuple[Table | None, int]], lsn: int) -> None:
        """Takes over a survey that was made before the position `lsn`, which the stream has passed now."""
        for oid, (described, versions) in found.items():
            state = self._by_oid.get(oid)
            if state is None:
                continue
            if described is None:
                state.status, state.error = "gone", "the table was dropped at the source"
                state.inexact.append((self.known_to(state), lsn))
                self._by_oid.pop(oid)
                self.dirty = True
                continue
            if (state.schema, state.name) != (described.schema, described.name):
                state.schema, state.name = described.schema, described.name
                self.dirty = True
            if state.status == "errored":
                continue
            if len(state.versions) == versions:
                self._take(state, described, lsn, exact=False)
            else:
                self._prints.pop(oid, None)  # the stream told of a newer shape meanwhile: look again
        self.registry.surveyed = max(self.registry.surveyed, lsn)

    def known_to(self, state: TableState) -> int:
        """The last position at which the newest shape of a table is known to have been the source's."""
        return max(self._seen.get(state.oid, 0), state.since[-1], self.registry.surveyed)

    def errored(self, folder: str, lsn: int, message: str) -> None:
        """Stops a table at a position; the others go on."""
        state = self.registry.tables[folder]
        if state.status != "errored":
            state.status, state.error, state.errored_at = "errored", message, lsn
            self.dirty = True

    def _take(self, state: TableState, described: Table, lsn: int, *, exact: bool) -> bool:
        try:
            shape = evolve(state.table, described)
        except ClaimhouseError as error:
            self.errored(state.folder, lsn, str(error))
            return True
        if shape is None:
            return False
        old = state.table
        known = self.known_to(state)
        state.versions.append(shape)
        state.since.append(lsn)
        self.dirty = True
        if not exact and known < lsn:
            state.inexact.append((known, lsn))
        if rewritten(old, shape):
            self._copy_anew(state, lsn)
        return True


def agrees(shape: Table, relation: Relation) -> bool:
    """Whether a Relation message describes that shape: same columns by name, type and modifier, in any order."""
    known = {(c.name, c.type_oid, c.typmod) for c in shape.columns}
    sent = {(c.name, c.type_oid, c.typmod) for c in relation.columns}
    return known == sent


def rewritten(old: Table, new: Table) -> bool:
    """Whether old rows show other values than those that the log has for them, apart from a default filled in."""
    if old.identity != new.identity or [c.attnum for c in old.key] != [c.attnum for c in new.key]:
        return True
    before = {c.attnum: c for c in old.columns}
    for column in new.columns:
        was = before.get(column.attnum)
        if was is None:
            continue
        if was.physical != column.physical or (was.type_oid, was.typmod) != (column.type_oid, column.typmod):
            return True
    return False


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
