"""What a lake holds, table by table, told from the lake alone: no source is asked.

Lag per hop and the slot's health need the source; whoever runs or watches a capture adds them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from claimhouse.change import lsn_text
from claimhouse.lake import deadletters
from claimhouse.lake.deadletters import DeadLetter
from claimhouse.lake.flushes import TableRecord
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import TableState
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.query.moment import iso
from claimhouse.query.session import Session


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table. `exact_from` is the position since when its history is right, None while it is first copied.

    `lossy`: by column, what its streamed values have lost before they reached the lake.
    """

    source: str
    schema: str
    name: str
    folder: str
    status: str
    error: str | None
    shape: int
    columns: int
    exact_from: str | None
    rows: int | None
    copied_rows: int
    tail_rows: int
    changes_version: int | None
    current_version: int | None
    current_cut: int
    files: int
    bytes: int
    dead_letters: int
    lossy: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source at its newest cut. Times are ISO 8601, positions as PostgreSQL prints them."""

    source: str
    slot: str
    publication: str
    incarnation: int
    owner_epoch: int
    cut: int
    cut_at: str
    end_lsn: str
    committed_at: str
    flush: int
    flushed_cut: int
    flushed_at: str | None
    tail_cuts: int
    tail_rows: int
    tables: list[TableStatus]
    dead_letters: list[DeadLetter]

    @property
    def ok(self) -> bool:
        """Whether every table is kept: none errored, no dead letter open."""
        return not self.dead_letters and all(t.status != "errored" for t in self.tables)


@dataclass(frozen=True, slots=True)
class LakeStatus:
    """`empty` names the sources that have no cut yet."""

    location: str
    lake_id: str
    sources: list[SourceStatus] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(s.ok for s in self.sources)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        for place, source in enumerate(self.sources):
            data["sources"][place]["ok"] = source.ok
        return {**data, "ok": self.ok}


def status(lake: Lake) -> LakeStatus:
    """Every source of a lake at its newest cut. Raises LakeError."""
    with Session(lake) as session:
        sources = [_source(session, snapshot) for snapshot in session.snapshots.values()]
        return LakeStatus(lake.location, lake.lake_id, sources, session.empty)


def _source(session: Session, snapshot: LakeSnapshot) -> SourceStatus:
    mark, record, registry = snapshot.mark, snapshot.record, snapshot.registry
    found, end = deadletters.letters(snapshot.lake, snapshot.source), mark.end_lsn
    letters = [d for state in registry.tables.values() for d in deadletters.still_open(found, state, end)]
    by_folder = Counter(letter.folder for letter in letters)
    tables = [_table(session, snapshot, state, by_folder[f]) for f, state in sorted(registry.tables.items())]
    return SourceStatus(
        source=snapshot.source,
        slot=registry.slot,
        publication=registry.publication,
        incarnation=mark.incarnation,
        owner_epoch=mark.epoch,
        cut=mark.cut,
        cut_at=iso(mark.written_at),
        end_lsn=lsn_text(mark.end_lsn),
        committed_at=iso(mark.max_committed_at),
        flush=record.flush if record else 0,
        flushed_cut=snapshot.flushed,
        flushed_at=iso(record.at) if record else None,
        tail_cuts=len(snapshot.cuts),
        tail_rows=sum(t.tail_rows for t in tables),
        tables=tables,
        dead_letters=letters,
    )


def _table(session: Session, snapshot: LakeSnapshot, state: TableState, letters: int) -> TableStatus:
    record = snapshot.record.table(state.folder) if snapshot.record else TableRecord()
    files = [*snapshot.current_files(state.folder), *snapshot.changes_files(state.folder)]
    exact = [c.exact_from for c in state.copies if c.exact_from is not None]
    visible = state.status != "gone" and state.copy_at(snapshot.mark.end_lsn) is not None
    return TableStatus(
        source=snapshot.source,
        schema=state.schema,
        name=state.name,
        folder=state.folder,
        status=state.status,
        error=state.error,
        shape=state.table.version,
        columns=len(state.table.columns),
        exact_from=lsn_text(exact[0]) if exact else None,
        rows=session.count(snapshot.source, state.schema, state.name) if visible else None,
        copied_rows=state.copies[-1].rows if state.copies else 0,
        tail_rows=sum(c.mark.rows(state.folder) for c in snapshot.cuts),
        changes_version=record.changes,
        current_version=record.current,
        current_cut=record.current_cut,
        files=len(files),
        bytes=sum(f.size for f in files),
        dead_letters=letters,
        lossy=state.lossy,
    )
