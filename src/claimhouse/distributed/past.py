"""A past state for Trino: which positions it can read, and the SELECT of a table at one of them.

Up to the newest flush a state comes from the log alone, laid over `current` where that was folded before the position,
else over the rows of the copy. Beyond it the tail is laid over the flush, up to the position. So the past that Trino
knows ends where the tail's newest cut ends; cuts of the embedded runtime that are not flushed yet it does not see.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.distributed.typed import trino_type
from claimhouse.distributed.views import Behind, Writer
from claimhouse.errors import NotExact, QueryError
from claimhouse.lake import delta
from claimhouse.lake.lake import tail_events_key
from claimhouse.lake.registry import TableState
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.lake.state import eras_of
from claimhouse.query.moment import Position
from claimhouse.query.past import SourcePast
from claimhouse.quoting import quote, quote_text

_NONE = pa.table({"xid": pa.array([], pa.int64()), "end_lsn": pa.array([], pa.int64()), "at": pa.array([], pa.int64())})


@dataclass(slots=True)
class TrinoPast:
    """What a source's transactions tell, as far as Trino reads it: those that are flushed, and those of the tail.

    Implements `moment.Past`. `tail` is the tail table's version that was looked at, None where there is none.
    """

    snapshot: LakeSnapshot
    connection: duckdb.DuckDBPyConnection
    tail: int | None = None
    commits: pa.Table = field(default_factory=lambda: _NONE)  # of the tail beyond the flush, by end_lsn

    def __post_init__(self) -> None:
        table = delta.open_table(self.snapshot.lake, tail_events_key(self.snapshot.source))
        if table is not None:
            self.tail = table.version()
            beyond = (pc.field("kind") == "commit") & (pc.field("end_lsn") > self.flushed)
            self.commits = table.to_pyarrow_dataset().to_table(_NONE.schema.names, filter=beyond).sort_by("end_lsn")

    @property
    def flushed(self) -> int:
        """Where the newest flush ends, 0 before the first."""
        return self.snapshot.record.end_lsn if self.snapshot.record else 0

    @property
    def newest(self) -> Position:
        """Where Trino's knowledge ends; a lake's position moves on without changes, too."""
        mark = self.snapshot.mark
        reached = self.commits["end_lsn"][-1].as_py() if self.commits.num_rows else self.flushed
        cut = self.snapshot.tail_transactions()["end_lsn"].to_pylist()
        unseen = any(lsn > reached for lsn in cut)
        return Position(mark.incarnation, reached if unseen else max(reached, mark.end_lsn))

    @property
    def max_committed_at(self) -> int:
        record = self.snapshot.record
        return max([record.max_committed_at if record else 0, *self.commits["at"].to_pylist()])

    @property
    def cut(self) -> int:
        return self.snapshot.mark.cut if self.newest.lsn >= self.snapshot.mark.end_lsn else self.snapshot.flushed

    def first_later_than(self, micros: int) -> Position | None:
        """Where the first transaction ends whose commit time is later."""
        flushed = self._within(SourcePast(self.snapshot, self.connection).first_later_than(micros))
        return flushed or self._first(pc.greater(self.commits["at"], micros))

    def end_of_xid(self, xid: int) -> Position | None:
        """Where a transaction ends. The tail has the low 32 bits of its number."""
        known = self._within(SourcePast(self.snapshot, self.connection).end_of_xid(xid))
        return known or self._first(pc.equal(self.commits["xid"], xid & 0xFFFFFFFF))

    def end_of_cut(self, cut: int) -> Position | None:
        """Where a cut of the lake ends."""
        return self._within(SourcePast(self.snapshot, self.connection).end_of_cut(cut))

    def _within(self, found: Position | None) -> Position | None:
        return found if found is not None and found <= self.newest else None

    def _first(self, mask: pa.Array) -> Position | None:
        found = self.commits.filter(mask)
        return Position(self.newest.incarnation, found["end_lsn"][0].as_py()) if found.num_rows else None


def past_sql(state: TableState, behind: Behind, position: Position) -> str:
    """The SELECT of a table at a position, columns under the source's names; NULL never stands for an unknown value.

    Raises NotExact where the table is not visible there, QueryError where this SQL cannot tell its rows apart.
    """
    copy = state.copy_at(position.lsn)
    if copy is None:
        raise NotExact(f"table {state.label} is not known at {position}")
    beyond = position.lsn > behind.end_lsn
    shape = state.shape_at(position.lsn)
    writer = Writer(state, shape, replace(behind, upto=position, tailed=beyond), copy)
    ground = behind.record.current_schema if writer.folded else state.shape_at(copy.at).version
    concerned = [t for t in state.versions if ground <= t.version <= shape.version]
    if len(eras_of(concerned)) > 1:
        raise QueryError(
            f"trino cannot read table {state.label} at {position}: its key has changed since its rows were copied",
            hint="leave --engine out",
        )
    columns = ", ".join(
        f"{_known(c.physical, trino_type(c.kind), state.label) if c in writer.lackable else quote(c.physical)}"
        f" AS {quote(c.name)}"
        for c in shape.columns
    )
    return f"SELECT {columns} FROM ({writer.state_sql()})"


def _known(physical: str, kind: str, label: str) -> str:
    """A value, or a failure where it came with a key change that left it out."""
    told = quote_text(f"a large value of {label} came with a change of its row's key: leave --engine out")
    lacks = f"contains(split(_missing, ','), {quote_text(physical)})"
    return f"IF({lacks}, CAST(fail({told}) AS {kind}), {quote(physical)})"
