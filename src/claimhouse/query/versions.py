"""What a session offers beside each table: `claim__history`, its rows' versions as intervals, and `claim__log`.

    SELECT * FROM claim__history WHERE _valid_from_lsn <= $x AND (_valid_to_lsn > $x OR _valid_to_lsn IS NULL)

shows exactly what `claim` shows at position x, and with `valid_from` and `valid_to` what it shows at a time: they are
commit times, by their running maximum, since a time means the log up to the first commit that is later
(query/moment.py). The log has every change as it came. Both end at the session's moment. Where the source has a column
of the same name, ours has one more underscore in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from claimhouse.change import BY_CUT, META, lsn_text, old_name
from claimhouse.errors import QueryError
from claimhouse.lake import delta
from claimhouse.lake.intervals import intervals_sql, reigns
from claimhouse.lake.lake import TRANSACTIONS
from claimhouse.lake.registry import TableState
from claimhouse.lake.relation import files_sql
from claimhouse.lake.snapshot import LakeSnapshot, schema_of
from claimhouse.query.moment import Position
from claimhouse.query.names import LOG, free_name
from claimhouse.query.past import transactions_sql
from claimhouse.quoting import quote
from claimhouse.table import Table

# name, the expression over the versions' relation
HISTORY_COLUMNS: tuple[tuple[str, str], ...] = (
    ("valid_from", "v._began"),
    ("valid_to", "v._ended"),
    ("_valid_from_lsn", "CAST(v._from % 9223372036854775808 AS BIGINT)"),
    ("_valid_to_lsn", "CAST(v._until % 9223372036854775808 AS BIGINT)"),
    ("_op", "v._op"),
    ("_xid", "v._xid"),
    ("_committed_at", "v._committed_at"),
    ("_cut", "v._cut"),
    ("_incarnation", "v._incarnation"),
    ("_copy", "v._copy"),
    ("_ended_by", "v._by"),
    ("_ended_xid", "v._by_xid"),
    ("_missing", "v._missing"),
    ("_exact", "v._exact"),
)


class _Rows:
    """A table's whole log up to a position, as a relation of a connection. `files` are all that its SQL opens."""

    content: object = None  # not told, see `View.content`

    def __init__(self, snapshot: LakeSnapshot, state: TableState, position: Position) -> None:
        self.snapshot, self.state, self.position = snapshot, state, position
        self.shape: Table = state.shape_at(position.lsn)
        now = (position.incarnation, position.lsn) == (snapshot.mark.incarnation, snapshot.mark.end_lsn)
        self._log = snapshot.changes_files(state.folder, lsn_to=None if now else position.lsn)
        self.files = [f.uri for f in self._log]

    def by_place(self, connection: duckdb.DuckDBPyConnection) -> str | None:
        """There is no faster way; see `View.by_place`."""
        return None

    def _rows(self, connection: duckdb.DuckDBPyConnection, name: str) -> str:
        """The log's relation, made under names that begin with `name`."""
        schema, tail = schema_of(self.state), self.snapshot.tail(self.state.folder)
        connection.register("_tail", tail if tail is not None else schema.empty_table())
        connection.execute(f"CREATE TABLE {name}_tail AS FROM _tail")
        connection.unregister("_tail")
        upto = f"(_incarnation, _end_lsn) <= ({self.position.incarnation}, {self.position.lsn})"
        flushed = f"_cut <= {self.snapshot.flushed} AND {upto}"
        connection.execute(
            f"CREATE VIEW {name}_log AS {files_sql([f.uri for f in self._log], schema, flushed)}"
            f" UNION ALL BY NAME FROM {name}_tail WHERE {upto}"
        )
        return f"{name}_log"


class LogView(_Rows):
    """A table's change log, its columns under the source's names at the moment; values that did not come are NULL."""

    def sql(self, connection: duckdb.DuckDBPyConnection, name: str) -> str:
        columns = [(quote(c.physical), c.name) for c in self.shape.columns]
        columns += [(quote(old_name(c.physical)), old_name(c.name)) for c in self.shape.key]
        ours = [(f.name, f.name) for f in (*META, *BY_CUT)]
        named = _named(self.shape, columns, ours)
        listed = ", ".join(f"{expression} AS {quote(shown)}" for expression, shown in named)
        return f"SELECT {listed} FROM {self._rows(connection, name)}"


class HistoryView(_Rows):
    """A table's versions as intervals. Raises QueryError for a table whose rows have no key."""

    def __init__(self, snapshot: LakeSnapshot, state: TableState, position: Position) -> None:
        super().__init__(snapshot, state, position)
        if self.shape.identity != "key":
            raise QueryError(
                f"rows of {state.label} have no key, so their versions cannot be told apart",
                hint=f"read its changes as they came: {state.name}{LOG}",
            )
        record = snapshot.record
        self._transactions = delta.files(snapshot.lake, TRANSACTIONS, record.transactions if record else None)
        self.files += [f.uri for f in self._transactions]
        unknown = sum(1 if f.missing is None else f.missing for f in self._log)
        self._missing = bool(unknown + snapshot.tail_missing(state.folder))

    @property
    def blurred(self) -> list[str]:
        """Where the versions are not known exactly, in words."""
        return blurred(self.state, self.shape, self.position.lsn)

    def sql(self, connection: duckdb.DuckDBPyConnection, name: str) -> str:
        """A SELECT of the source's columns and HISTORY_COLUMNS. Makes what it needs under names that begin so."""
        log = self._rows(connection, name)
        columns = [(f"v.{quote(c.physical)}", c.name) for c in self.shape.columns]
        return intervals_sql(
            self.state,
            self.shape,
            self.position.lsn,
            log=log,
            times=self._times(connection, name),
            missing=self._missing,
            columns=_named(self.shape, columns, [(expression, shown) for shown, expression in HISTORY_COLUMNS]),
        )

    def _times(self, connection: duckdb.DuckDBPyConnection, name: str) -> str:
        """The running maximum of commit times by place, over all of the source's transactions."""
        connection.register("_found", self.snapshot.tail_transactions())
        connection.execute(f"CREATE TABLE {name}_recent AS FROM _found")
        connection.unregister("_found")
        connection.execute(
            f"CREATE VIEW {name}_times AS SELECT incarnation::HUGEINT * 9223372036854775808 + end_lsn AS _place,"
            " max(committed_at) OVER (ORDER BY incarnation, end_lsn ROWS UNBOUNDED PRECEDING) AS _time"
            f" FROM ({transactions_sql(self.snapshot, f'{name}_recent')})"
        )
        return f"{name}_times"


def blurred(state: TableState, shape: Table, lsn: int) -> list[str]:
    """Where a table's versions up to a position are not known exactly, in words."""
    first = min((r.at for r in reigns(state, shape, lsn)), default=0) % (1 << 63)
    spans = [(a, min(b, lsn)) for a, b in state.inexact if b > first and a <= lsn]
    return [f"the history of {state.label} is not exact from {lsn_text(a)} to {lsn_text(b)}" for a, b in spans]


def _named(shape: Table, columns: Sequence[tuple[str, str]], ours: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """(expression, name) of the source's columns and ours; ours give way where the source has the name."""
    found = list(columns[: len(shape.columns)])
    for expression, wanted in (*columns[len(shape.columns) :], *ours):
        found.append((expression, free_name(wanted, (name for _, name in found))))
    return found
