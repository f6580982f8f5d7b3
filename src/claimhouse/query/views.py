"""One table of a snapshot at a position, as SQL that DuckDB can run.

Four ways, cheapest first. Nothing changed since `current` was folded: its files, plainly. Little did: the few rows that
the log leads to are worked out once, and the others are `current` less the rows that they supersede, told by their keys
(a filter reaches into the files) or, for whole scans of tables with long keys, by their places in the files, which are
found once. A sum over 2 M rows beside 1,000 changed ones costs 1.35 times the plain sum either way. Whatever does not
fit there is left to `lake.state` as one query over `current` and the log, or the log alone. A moment before the fold
builds on a kept base in place of `current`, where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from claimhouse.change import old_name
from claimhouse.errors import LakeError
from claimhouse.lake import bases
from claimhouse.lake.current import state_schema
from claimhouse.lake.defaults import literal, sql_type, with_exact
from claimhouse.lake.delta import DataFile
from claimhouse.lake.flushes import TableRecord
from claimhouse.lake.registry import TableState
from claimhouse.lake.relation import empty_sql, files_sql
from claimhouse.lake.snapshot import LakeSnapshot, schema_of
from claimhouse.lake.state import may_be_exact, newest_sql, state_columns, state_sql
from claimhouse.query.moment import Position
from claimhouse.query.names import free_name
from claimhouse.quoting import quote, quote_text

LITTLE = 200_000  # log rows that are worked out once and kept in memory
HERE = 16 << 20  # bytes of log files that are read into memory, not by the engine
TWICE = "CROSS JOIN range(2)"  # DuckDB sizes a join's table by its rows: of twice the rows, half the places are empty
NO_COLUMNS = 'NULL::INTEGER AS "(no columns)"'  # a table may have none, SQL's answers may not; its rows count
_FILE, _ROW = "_file", "file_row_number"  # where a row stands; no encoded source name begins with an underscore


class View:
    """A table at a position. `files` are all that its SQL opens. Raises LakeError if the table is not visible there."""

    def __init__(self, snapshot: LakeSnapshot, state: TableState, position: Position) -> None:
        copy = state.copy_at(position.lsn)
        if copy is None:
            raise LakeError(f"table {state.label} is not visible at {position}")
        self.snapshot, self.state, self.position, self.copy = snapshot, state, position, copy
        self.shape = state.shape_at(position.lsn)
        mark, folder = snapshot.mark, state.folder
        self.now = (position.incarnation, position.lsn) == (mark.incarnation, mark.end_lsn)
        self.record = snapshot.record.table(folder) if snapshot.record else TableRecord()
        self.based = self._base_fits(self.record)
        self._base = snapshot.current_files(folder) if self.based else []
        self._after, self._folded_as = self.record.current_cut if self.based else 0, self.record.current_schema
        self._folded_at = self.record.current_lsn
        if not self.based and not self.now:
            self._seek_base()
        self._log = snapshot.changes_files(folder, self._after + 1, lsn_to=None if self.now else position.lsn)
        cuts = [cut.mark for cut in snapshot.cuts if folder in cut.mark.tables]
        self.rows = sum(f.rows for f in self._log) + sum(mark.rows(folder) for mark in cuts)
        unknown = sum(1 if f.missing is None else f.missing for f in self._log)
        self._missing = bool(unknown + snapshot.tail_missing(folder))
        self._name, self._by_key = "", False
        self._kept = self._little()
        # A small log is read into memory here, so that an engine that has the base's files can show what follows.
        self._here = self._kept and sum(f.size for f in self._log) <= HERE
        self.files = [f.uri for f in (self._base if self._here else (*self._base, *self._log))]
        #: equal for two views of the present that show the same; None where it does not tell
        self.content: object = None
        if self.now:
            files = [f.uri for f in (*self._base, *self._log)]
            held = (self.copy.number, self.shape, *state.versions, self._after, *files)
            self.content = (snapshot.source, folder, held, tuple(mark.cut for mark in cuts))

    def _base_fits(self, record: TableRecord) -> bool:
        """Whether `current` was folded from the copy that counts, at a position that is not later."""
        if record.current is None or record.current_copy != self.copy.number:
            return False
        folded = (record.current_incarnation, record.current_lsn)
        return folded <= (self.position.incarnation, self.position.lsn)

    def _seek_base(self) -> None:
        """Build on a kept base, where there is one between the copy and the position."""
        lake, source, position = self.snapshot.lake, self.snapshot.source, self.position
        base = bases.newest(lake, source, self.state.folder, (position.incarnation, position.lsn), self.copy)
        if base is not None:
            self.based, self._base = True, bases.files(lake, source, self.state.folder, base)
            self._after, self._folded_as, self._folded_at = base.cut, base.schema, base.end_lsn

    def sql(self, connection: duckdb.DuckDBPyConnection, name: str) -> str:
        """A SELECT with the source's columns. Makes what it needs under names that begin with `name`."""
        self._name = name
        if self.based and not self.rows:
            return f"SELECT {self._base_columns()} FROM {self._current()} b"
        tail = self.snapshot.log(self.state, self._log if self._here else ())
        connection.register("_tail", tail)
        if self._here:
            connection.execute(f"CREATE TABLE {name}_log AS FROM _tail WHERE {self._where()}")
        else:
            connection.execute(f"CREATE TABLE {name}_tail AS FROM _tail")
            connection.execute(f"CREATE {'TABLE' if self._kept else 'VIEW'} {name}_log AS {self._log_rows()}")
        connection.unregister("_tail")
        if self._kept and self._worked_out(connection):
            match = " AND ".join(f"y.{quote(c.physical)} = b.{quote(c.physical)}" for c in self.shape.key)
            return self._without(f"ANTI JOIN {name}_keys y ON {match}")
        if self.based:
            connection.execute(f"CREATE VIEW {name}_base AS {self._base_rows()}")
        base = f"{name}_base" if self.based else None
        return f"SELECT {self._state_columns()} FROM ({self._state_sql(base)})"

    def by_place(self, connection: duckdb.DuckDBPyConnection) -> str | None:
        """The SELECT that leaves superseded rows out by their places, None if it is in use or of no use."""
        if not self._by_key or all(c.kind in ("int2", "int4", "int8") for c in self.shape.key):
            return None  # whole-number keys lie packed in the files: reading them costs no more
        self._by_key = False
        match = " AND ".join(f"y.{quote(c.physical)} = b.{quote(c.physical)}" for c in self.shape.key)
        connection.execute(
            f"CREATE TABLE {self._name}_places AS SELECT b.{_FILE}, b.{_ROW}"
            f" FROM {self._current(places=True)} b SEMI JOIN {self._name}_keys y ON {match} {TWICE}"
        )
        joined = f"ANTI JOIN {self._name}_places y ON y.{_FILE} = b.{_FILE} AND y.{_ROW} = b.{_ROW}"
        return self._without(joined, places=True)

    # --- a little log, worked out once

    def _little(self) -> bool:
        """Whether the changed rows can be worked out without a look at `current`."""
        shapes = {(t.identity, *(c.physical for c in t.key)) for t in self.state.versions}
        simple = not any(may_be_exact(c.kind) for c in self.shape.key)
        if not self.based or self._missing or self.rows > LITTLE:
            return False
        return self.shape.identity == "key" and len(shapes) == 1 and simple and not self._has(_ROW)

    def _worked_out(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Keep the log's live rows and the keys of `current` that it supersedes. False if a truncate came."""
        name = self._name
        # Where changes were lost since, a row may have been deleted unseen that an insert brings again.
        ops = "('c', 'u', 'd')" if any(end > self._folded_at for _, end in self.state.inexact) else "('u', 'd')"
        moved = " OR ".join(f"{quote(old_name(c.physical))} IS NOT NULL" for c in self.shape.key)
        cleared, changed, moves = connection.execute(
            f"SELECT count(*) FILTER (_op = 't'), count(*) FILTER (_op IN {ops}), count(*) FILTER ({moved})"
            f" FROM {name}_log"
        ).fetchall()[0]
        if cleared:
            return False
        if moves:
            columns = ", ".join(quote(c) for c in state_columns(self.shape))
            connection.execute(f"CREATE VIEW {name}_none AS SELECT {columns} FROM {name}_log LIMIT 0")
            live = self._state_sql(f"{name}_none")
        else:
            live = newest_sql(self.shape, log=f"{name}_log", copy=self.copy)
        connection.execute(f"CREATE TABLE {name}_live AS {live}")
        self._by_key = bool(changed)
        if changed:
            new = ", ".join(quote(c.physical) for c in self.shape.key)
            old = ", ".join(f"coalesce({quote(old_name(c.physical))}, {quote(c.physical)})" for c in self.shape.key)
            connection.execute(
                f"CREATE TABLE {name}_keys AS SELECT k.* FROM (SELECT {new} FROM {name}_log WHERE _op IN {ops}"
                f" UNION SELECT {old} FROM {name}_log WHERE _op = 'u') k {TWICE}"
            )
        return True

    def _without(self, join: str, *, places: bool = False) -> str:
        rest = f"SELECT {self._base_columns()} FROM {self._current(places=places)} b"
        live = f"SELECT {self._state_columns()} FROM {self._name}_live"
        return f"{rest} {join if self._by_key or places else ''} UNION ALL {live}"

    # --- the pieces

    def _state_sql(self, base: str | None) -> str:
        return state_sql(
            self.state,
            log=f"{self._name}_log",
            copy=self.copy,
            base=base,
            shape=self.shape,
            versions=self._versions(),
            missing=self._missing,
        )

    def _versions(self) -> set[int] | None:
        """The shapes that the log's rows may have, None if a file does not tell."""
        spans = [f.schema for f in self._log]
        tail = {s.schema for c in self.snapshot.cuts for s in c.mark.all_sections() if s.table == self.state.folder}
        return None if None in spans else tail | {v for span in spans if span for v in range(span[0], span[1] + 1)}

    def _log_rows(self) -> str:
        where = self._where()
        tail = f"FROM {self._name}_tail WHERE {where}"
        if not self._log:
            return tail
        return f"{files_sql([f.uri for f in self._log], schema_of(self.state), where)} UNION ALL BY NAME {tail}"

    def _where(self) -> str:
        where = f"_cut > {self._after}"
        if not self.now:
            incarnation, lsn = self.position.incarnation, self.position.lsn
            where += f" AND (_incarnation < {incarnation} OR (_incarnation = {incarnation} AND _end_lsn <= {lsn}))"
        return where

    def _current(self, *, places: bool = False) -> str:
        if self._base:
            return _parquet(self._base, places=places)
        none = empty_sql(state_schema(self.state.shape(self._folded_as)))  # folded when it had no row
        return f"(SELECT *, '' AS {_FILE}, 0::BIGINT AS {_ROW} FROM ({none}))" if places else f"({none})"

    def _held(self) -> list[str]:
        return state_columns(self.state.shape(self._folded_as))

    def _base_rows(self) -> str:
        """`current` with the columns of every shape."""
        held = self._held()
        fields = [f for f in schema_of(self.state) if f.name not in held and not f.name.startswith("_old_")]
        nulls = "".join(f", CAST(NULL AS {sql_type(f.type)}) AS {quote(f.name)}" for f in fields)
        return f"SELECT *{nulls} FROM {self._current()}"

    def _base_columns(self) -> str:
        held = self._held()
        columns = [
            f"{'b.' + quote(c.physical) if c.physical in held else literal(c.missing, c.kind)[0]} AS {quote(c.name)}"
            for c in self.shape.columns
        ]
        added = [(c, literal(c.missing, c.kind)[1]) for c in self.shape.columns if c.physical not in held]
        exact = [(c, "true", quote_text(text)) for c, text in added if text is not None]
        return ", ".join([*columns, *self._beside(with_exact("b._exact", exact))]) or NO_COLUMNS

    def _state_columns(self) -> str:
        columns = [f"{quote(c.physical)} AS {quote(c.name)}" for c in self.shape.columns]
        return ", ".join([*columns, *self._beside("_exact")]) or NO_COLUMNS

    def _beside(self, exact: str) -> list[str]:
        """What is shown beside the source's columns, out of a row's `_exact`: nothing."""
        return []

    def _has(self, physical: str) -> bool:
        return any(c.physical == physical for t in self.state.versions for c in t.columns)


class ExactView(View):
    """The same with one column more, the last: `_exact`, by physical name the texts that no column can hold.

    Where the source has a column of that name, ours has one more underscore in front.
    """

    def _beside(self, exact: str) -> list[str]:
        return [f"{exact} AS {quote(free_name('_exact', (c.name for c in self.shape.columns)))}"]


def _parquet(files: Sequence[DataFile], *, places: bool = False) -> str:
    listed = ", ".join(quote_text(f.uri) for f in files)
    options = f", {_ROW} = true, filename = '{_FILE}'" if places else ""
    return f"read_parquet([{listed}]{options})"
