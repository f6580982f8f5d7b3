"""A moment of the lake for Spark: which Delta versions hold it, and the tables and logs as it has them.

Spark reads what is flushed. One flush record names the versions of all tables, so all views of one call hold whole
transactions of one moment: that of the newest flush, or any earlier one that the lake knows exactly. A past state is
worked out from `current` where that is not later, else from the log alone, as `claimhouse query --at` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from claimhouse.errors import ClaimhouseError, NotExact, UsageError
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import Lake, changes_key, current_key, open_lake
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.state import eras_of
from claimhouse.lake.tail import cut_numbers
from claimhouse.query.moment import Position
from claimhouse.query.names import TableName
from claimhouse.query.session import Session
from claimhouse.spark.state import rows_at

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def flushed(location: str, *, source: str = "main", storage_options: Mapping[str, str] | None = None) -> str:
    """The position of the newest flush, e.g. `0/16B3748`: a moment that every engine can be asked for.

    Raises NotALake, NotExact where nothing is flushed yet.
    """
    return str(_moment(open_lake(location, storage_options), source, None, "UTC").position)


def register(
    session: SparkSession,
    location: str,
    *,
    at: str | None = None,
    tables: Iterable[str] | None = None,
    source: str = "main",
    zone: str = "UTC",
    storage_options: Mapping[str, str] | None = None,
) -> list[str]:
    """Make or replace a temporary view per table, named as the table (`schema__table` outside of public); their names.

    `at` is a past moment (an LSN, `xid:4711`, `cut:17`, ISO time, or a date in `zone`), by default the newest flush.
    `tables` names those that are wanted, by default all that are known exactly then. A view has the source's columns,
    and `_end_lsn` and `_committed_at` of the row's last change; `_missing` names columns of a row that Spark cannot
    show until the next fold (unchanged TOAST values that came with a key change).

    Raises NotALake; NotExact where nothing is flushed yet, where the moment is not flushed yet or lies before the
    history, or where a wanted table is not known exactly then; UsageError for a table that there is not.
    """
    moment = _moment(open_lake(location, storage_options), source, at, zone)
    wanted = None if tables is None else list(tables)
    made: list[str] = []
    for name, found in moment.chosen(wanted).items():
        found.rows(session).createOrReplaceTempView(name)
        made.append(name)
    return made


def log(
    session: SparkSession,
    location: str,
    table: str,
    *,
    at: str | None = None,
    source: str = "main",
    zone: str = "UTC",
    storage_options: Mapping[str, str] | None = None,
) -> DataFrame:
    """A table's change log: every version of every row up to the moment, in the columns of docs/lake-format.md.

    `table` is named as its view; the other arguments and errors are those of `register`. Rows of a copy (`_op` r) tell
    what was there when the lake began, every other one is a committed change; order by `_incarnation, _end_lsn, _seq`.
    """
    moment = _moment(open_lake(location, storage_options), source, at, zone)
    return moment.chosen([table])[table].log(session)


@dataclass(frozen=True, slots=True)
class _Table:
    """One table at a moment, by the versions that a flush record names."""

    lake: Lake
    state: TableState
    record: FlushRecord
    position: Position
    copy: Copy
    source: str

    def log(self, session: SparkSession) -> DataFrame:
        from pyspark.sql import functions as f

        version = self.record.table(self.state.folder).changes
        rows = _read(session, self.lake.store.uri(changes_key(self.source, self.state.folder)), version)
        incarnation, lsn = self.position.incarnation, self.position.lsn
        same = (f.col("_incarnation") == incarnation) & (f.col("_end_lsn") <= lsn)
        return rows.where((f.col("_incarnation") < incarnation) | same)

    def rows(self, session: SparkSession) -> DataFrame:
        entry, shape = self.record.table(self.state.folder), self.state.shape_at(self.position.lsn)
        base, after = None, Position(self.copy.incarnation, self.copy.at)
        if self._folded:
            base = _read(session, self.lake.store.uri(current_key(self.source, self.state.folder)), entry.current)
            after = Position(entry.current_incarnation, entry.current_lsn)
        return rows_at(shape, self.log(session), base, self.copy, after)

    @property
    def _folded(self) -> bool:
        """Whether `current` was folded from the copy that counts, at a position that is not later."""
        entry = self.record.table(self.state.folder)
        if entry.current is None or entry.current_copy != self.copy.number:
            return False
        return Position(entry.current_incarnation, entry.current_lsn) <= self.position

    @property
    def one_identity(self) -> bool:
        """Whether the rows since the base are all told apart in one way: Spark's state knows no other."""
        entry = self.record.table(self.state.folder)
        first = entry.current_schema if self._folded else self.state.shape_at(self.copy.at).version
        shape = self.state.shape_at(self.position.lsn)
        since = [t for t in self.state.versions if first <= t.version <= shape.version]
        return len(eras_of(since)) <= 1


class _Moment:
    """A position of one source that is flushed. Raises NotExact."""

    def __init__(self, lake: Lake, source: str, reader: Session, at: str | None) -> None:
        self.lake, self.source, self.at = lake, source, at
        record = reader.snapshots[source].record
        if record is None:
            raise _nothing(source)
        self.record, newest = record, Position(record.incarnation, record.end_lsn)
        self.position = newest if at is None else reader.positions[source]
        if self.position > newest:
            raise NotExact(
                f"{self.position} is not flushed yet", hint=f"the newest flush is at {newest}; leave `at` out for it"
            )
        self.states = {_view_name(name): state for name, state in reader.states.items()}
        hidden = {_view_name(n): reader.hidden(n) if at else self._unseen(s) for n, s in reader.states.items()}
        self.hidden = {name: why for name, why in hidden.items() if why is not None}

    def _unseen(self, state: TableState) -> ClaimhouseError | None:
        """Why a table has no rows at the newest flush."""
        if state.copy_at(self.record.end_lsn) is None or state.status == "gone":
            return NotExact(f"table {state.label} is not known at {self.position}", hint="see claimhouse status")
        return None

    def chosen(self, wanted: list[str] | None) -> dict[str, _Table]:
        """The tables by the names of their views. Raises NotExact, UsageError."""
        found: dict[str, _Table] = {}
        for name in self.states if wanted is None else wanted:
            table = self._table(name)
            if isinstance(table, _Table):
                found[name] = table
            elif wanted is not None:
                raise table
        if not found and self.hidden:
            raise next(iter(self.hidden.values()))
        return found

    def _table(self, name: str) -> _Table | ClaimhouseError:
        if name not in self.states:
            return UsageError(f"there is no table {name}", hint="one of: " + ", ".join(sorted(self.states)))
        if name in self.hidden:
            return self.hidden[name]
        state, copy = self.states[name], self.states[name].copy_at(self.position.lsn)
        if copy is None or self.record.table(state.folder).changes is None:
            return NotExact(f"table {state.label} is not flushed yet", hint="wait for the next flush")
        table = _Table(self.lake, state, self.record, self.position, copy, self.source)
        if not table.one_identity:
            why = f"how rows of {state.label} are told apart has changed since its base"
            return NotExact(why, hint="read it by claimhouse.open, or after the next fold")
        return table


def _moment(lake: Lake, source: str, at: str | None, zone: str) -> _Moment:
    if not cut_numbers(lake, source):
        raise _nothing(source)
    with closing(Session(lake, at=at, sources=[source], zone=zone)) as reader:
        return _Moment(lake, source, reader, at)


def _nothing(source: str) -> NotExact:
    return NotExact(f"source {source} has no flush yet", hint="wait for the first flush, then again")


def _view_name(name: TableName) -> str:
    return name.name if name.schema == "public" else f"{name.schema}__{name.name}"


def _read(session: SparkSession, uri: str, version: int | None) -> DataFrame:
    uri = uri.replace("s3://", "s3a://", 1)
    return session.read.format("delta").option("versionAsOf", str(version)).load(uri)
