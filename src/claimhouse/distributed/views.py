"""A table's present state for Trino, as one view: what one flush holds, and the tail laid over it.

The view reads `current` at the version that one flush record names, `changes` up to its cut, and from the tail table
every transaction beyond it that a cut holds. The tail is read at its newest version, once for all tables of a query, so
a query over several views sees one cut of all of them. Views of an older flush stay right as long as the tail still
holds what came after it: both give the state at the newest cut.

The same SQL gives a past state (`past.py`): the ground is then one folded or copied before that position, and neither
log nor tail counts beyond it. Values of the tail are Debezium's text (`typed.py`); of types that SQL cannot bring back
(SHOWN_LATER) a row shows nothing until it is flushed, and says so in `_missing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from claimhouse.change import old_name
from claimhouse.distributed.events import ERA
from claimhouse.distributed.typed import default_sql, trino_type, typed_sql
from claimhouse.lake.flushes import TableRecord
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.state import may_be_missing, seen
from claimhouse.query.moment import Position
from claimhouse.quoting import quote as _q
from claimhouse.quoting import quote_text as _l
from claimhouse.table import Column, Table

SHOWN_LATER = frozenset((600, 1186, 1266, 1560, 1562))  # point, interval, timetz, bit, varbit

# Stands for the log of a table that never had a row.
_EMPTY = (
    "(SELECT CAST(NULL AS varchar) AS _op, CAST(NULL AS bigint) AS _end_lsn, CAST(NULL AS bigint) AS _seq,"
    " CAST(NULL AS timestamp(3) with time zone) AS _committed_at, CAST(NULL AS varchar) AS _missing,"
    " CAST(NULL AS integer) AS _schema, CAST(NULL AS bigint) AS _cut, CAST(NULL AS integer) AS _copy,"
    " CAST(NULL AS bigint) AS _xid, CAST(NULL AS integer) AS _incarnation WHERE false)"
)


def schema_name(source: str, schema: str, part: str = "") -> str:
    """The Glue database of a source schema's views; `part` 'log' or 'current' of the tables behind them."""
    return f"{source}__{schema}" + (f"__{part}" if part else "")


@dataclass(frozen=True, slots=True)
class Behind:
    """What a view reads. `logged` and `folded` are the columns that `changes` and `current` have at those versions.

    `upto`: a past position, beyond which nothing counts; None: all. `tailed`: whether the tail counts, `tail` its
    version (None: the newest).
    """

    catalog: str
    source: str
    record: TableRecord
    logged: Collection[str]
    folded: Collection[str]
    cut: int  # of the flush: the log counts up to it
    end_lsn: int  # of the flush: the tail counts above it
    batch: int  # what the tail holds below it is not needed
    placeholder: str
    wire: Callable[[Column], int]
    incarnation: int = 1  # of the flush
    upto: Position | None = None
    tailed: bool = True
    tail: int | None = None


def view_sql(state: TableState, behind: Behind) -> str | None:
    """The SELECT of a table's view; None while no copy of it is complete."""
    table = state.table
    copy = next((c for c in reversed(state.copies) if c.exact_from is not None), None)
    if copy is None or state.status == "gone":
        return None
    return Writer(state, table, behind, copy).state_sql()


@dataclass(slots=True)
class Writer:
    """Writes a table's state in the shape `table`, built on one copy."""

    state: TableState
    table: Table
    behind: Behind
    copy: Copy

    @property
    def folded(self) -> bool:
        """Whether `current` is a ground: folded from this copy, at a position that is not later than the asked one."""
        record, upto = self.behind.record, self.behind.upto
        if record.current is None or record.current_copy != self.copy.number:
            return False
        return upto is None or Position(record.current_incarnation, record.current_lsn) <= upto

    def state_sql(self) -> str:
        """A SELECT of the physical columns, `_end_lsn`, `_committed_at` and `_missing`."""
        kinds = {"key": self.keyed, "full": self.whole, "none": self.appended}
        return kinds[self.table.identity]()

    def keyed(self) -> str:
        """Each touched key's newest change, joined to the ground: the stream is read once, the ground passes by."""
        keys = [_q(c.physical) for c in self.table.key]
        rest = [c for c in self.table.columns if not c.key]
        lackable = self.lackable
        same = " AND ".join(f"n.{k} = g.{k}" for k in keys)
        picks = [self._pick(c) for c in rest]
        picks += [f"max(_at) FILTER (WHERE {self._came(c)}) AS _came{i}" for i, c in enumerate(lackable)]
        picks += ["max(_at) FILTER (WHERE _begins) AS _begun"]  # what came before is of another row under this key
        picks += ["max_by(_end_lsn, _at) AS _end_lsn", "max_by(_committed_at, _at) AS _committed_at"]
        values = ", ".join(self._joined(c, lackable) for c in self.table.columns)
        return (
            f"WITH {self._stream()},\n"
            f"keyed AS (SELECT {', '.join(f'u.{k}' for k in keys)}, u._at, u._live, u._begins, s._end_lsn,"
            f" s._committed_at,"
            f" s._missing{''.join(f', s.{_q(c.physical)}' for c in rest)} FROM kept s"
            f" CROSS JOIN UNNEST({self._variants()}) AS u ({', '.join(keys)}, _at, _live, _begins)),\n"
            f"newest AS (SELECT {', '.join(keys)}, max_by(_live, _at) AS _live, {', '.join(picks)}"
            f" FROM keyed GROUP BY {', '.join(keys)}),\n"
            f"ground AS ({self._ground(first=True)})\n"
            f"SELECT {values}, IF(n.{keys[0]} IS NULL, g._end_lsn, n._end_lsn) AS _end_lsn,"
            f" IF(n.{keys[0]} IS NULL, g._committed_at, n._committed_at) AS _committed_at,"
            f" {self._left(lackable)} AS _missing"
            f" FROM (SELECT * FROM ground WHERE (SELECT count(*) FROM cleared) = 0) g"
            f" FULL JOIN newest n ON {same} WHERE n._live OR n.{keys[0]} IS NULL"
        )

    def _variants(self) -> str:
        """Under which keys a change counts: its own, and, where it left another, that one as gone."""
        key = self.table.key
        own = ", ".join(f"s.{_q(c.physical)}" for c in key)
        old = ", ".join(f"coalesce(s.{_q(old_name(c.physical))}, s.{_q(c.physical)})" for c in key)
        types = ", ".join(f"{_q(c.physical)} {trino_type(c.kind)}" for c in key)
        kind = f"ROW({types}, _at decimal(38, 0), _live boolean, _begins boolean)"
        moved = " OR ".join(f"s.{_q(old_name(c.physical))} IS NOT NULL" for c in key)
        new_row = f"CAST(ROW({own}, s._pos * 2 + 1, s._op <> 'd', s._op = 'c' OR {moved}) AS {kind})"
        old_row = f"CAST(ROW({old}, s._pos * 2, false, false) AS {kind})"
        return f"IF({moved}, ARRAY[{new_row}, {old_row}], ARRAY[{new_row}])"

    def _joined(self, column: Column, lackable: list[Column]) -> str:
        name = _q(column.physical)
        first = _q(self.table.key[0].physical)
        if column.key:
            return f"coalesce(n.{name}, g.{name}) AS {name}"
        if column not in lackable:
            return f"IF(n.{first} IS NULL, g.{name}, n.{name}) AS {name}"
        came = f"n._came{lackable.index(column)}"
        return (
            f"CASE WHEN {came} >= coalesce(n._begun, {came}) THEN n.{name}"
            f" WHEN n._begun IS NULL THEN g.{name} END AS {name}"
        )

    def appended(self) -> str:
        column_list = ", ".join(_q(c.physical) for c in self.table.columns)
        meta = "_end_lsn, _committed_at, _missing"
        return (
            f"WITH {self._stream()},\nground AS ({self._ground(first=False)})\n"
            f"SELECT {column_list}, {meta} FROM ground WHERE (SELECT count(*) FROM cleared) = 0\n"
            f"UNION ALL SELECT {column_list}, {meta} FROM kept WHERE _op <> 'd'"
        )

    def whole(self) -> str:
        columns = [_q(c.physical) for c in self.table.columns]
        olds = ", ".join(_q(old_name(c.physical)) for c in self.table.columns)
        column_list = ", ".join(columns)
        return (
            f"WITH {self._stream()},\nground AS ({self._ground(first=False)}),\n"
            f"images AS (SELECT {column_list}, _end_lsn, _committed_at, 1 AS _n FROM ground"
            f" WHERE (SELECT count(*) FROM cleared) = 0"
            f" UNION ALL SELECT {column_list}, _end_lsn, _committed_at, IF(_op = 'd', -1, 1) FROM kept"
            f" UNION ALL SELECT {olds}, _end_lsn, _committed_at, -1 FROM kept WHERE _op = 'u'),\n"
            f"counted AS (SELECT {column_list}, sum(_n) AS _n, max(_end_lsn) AS _end_lsn,"
            f" max(_committed_at) AS _committed_at FROM images GROUP BY {column_list} HAVING sum(_n) > 0)\n"
            f"SELECT {column_list}, _end_lsn, _committed_at, CAST(NULL AS varchar) AS _missing FROM counted"
            f" CROSS JOIN UNNEST(sequence(1, _n)) AS u (i)"
        )

    # --- the three sources

    def _ground(self, *, first: bool) -> str:
        """Rows that the stream is laid over: `current`, or the copy's own rows (the last read of a key counts)."""
        record = self.behind.record
        have = self.behind.folded if self.folded else self.behind.logged
        values = ", ".join(f"{self._filled(c, have)} AS {_q(c.physical)}" for c in self.table.columns)
        meta = "_end_lsn, _committed_at, _missing"
        if self.folded:
            return f"SELECT {values}, {meta} FROM {self._behind('current')} FOR VERSION AS OF {record.current}"
        log = self._log()
        rows = f"SELECT {values}, {meta}, _cut, _seq FROM {log} AND _op = 'r' AND _copy = {self.copy.number}"
        names = ", ".join(_q(c.physical) for c in self.table.columns)
        if not first:
            return f"SELECT {names}, {meta} FROM ({rows})"
        keys = ", ".join(_q(c.physical) for c in self.table.key)
        newest = f"row_number() OVER (PARTITION BY {keys} ORDER BY _cut DESC, _seq DESC) AS _nth"
        return f"SELECT {names}, {meta} FROM (SELECT *, {newest} FROM ({rows})) WHERE _nth = 1"

    def _stream(self) -> str:
        """CTEs `kept` (changes above the ground that no truncate follows) and `cleared` (the last truncate)."""
        behind = self.behind
        olds = [(c, old_name(c.physical)) for c in self.table.key]
        logged = [f"{self._filled(c, behind.logged)} AS {_q(c.physical)}" for c in self.table.columns]
        logged += [
            f"{_q(n) if n in behind.logged else f'CAST(NULL AS {trino_type(c.kind)})'} AS {_q(n)}" for c, n in olds
        ]
        log = self._above()
        meta = "_op, _end_lsn, _committed_at, _missing"
        streams = [f"SELECT {meta}, {self._pos('_incarnation')}, {', '.join(logged)} FROM {log} AND _op <> 'r'"]
        cleared = [f"SELECT 1 FROM {log} AND _op = 't'"]
        ctes: list[str] = []
        if behind.tailed:
            ctes, stream, truncated = self._tail(olds)
            streams.append(stream)
            cleared.append(truncated)
        return ",\n".join(
            (
                *ctes,
                f"stream AS ({' UNION ALL '.join(streams)})",
                f"cleared AS ({' UNION ALL '.join(cleared)})",
                "kept AS (SELECT * FROM (SELECT *, max(IF(_op = 't', _pos)) OVER () AS _cleared FROM stream)"
                " WHERE _op <> 't' AND _pos > coalesce(_cleared, decimal '-1'))",
            )
        )

    def _tail(self, olds: list[tuple[Column, str]]) -> tuple[list[str], str, str]:
        """(CTEs, the tail's rows as those of the log, its truncates of this table)."""
        behind = self.behind
        values = [f"{self._text(c, 'v')} AS {_q(c.physical)}" for c in self.table.columns]
        values += [f"{self._old(c)} AS {_q(n)}" for c, n in olds]
        table = f"{_q(behind.catalog)}.{_q(behind.source + '__control')}.tail_events"
        if behind.tail is not None:
            table += f" FOR VERSION AS OF {behind.tail}"
        shown_later = [c.physical for c in self.table.columns if self._later(c)]
        lacking = ", ".join(
            [f"CASE WHEN {self._lacks(c)} THEN '{c.physical}' END" for c in self.table.columns if may_be_missing(c)]
            + [f"CASE WHEN op <> 'd' THEN '{name}' END" for name in shown_later]
        )
        missing = f"nullif(concat_ws(',', {lacking}, NULL), '')" if lacking else "CAST(NULL AS varchar)"
        image = "CASE WHEN op = 'd' THEN before ELSE after END"
        mine = f"schema = {_l(self.state.schema)} AND name = {_l(self.state.name)}"
        unflushed = f"{table} WHERE era >= {behind.batch // ERA} AND batch >= {behind.batch}"
        beyond = f"end_lsn > {behind.end_lsn}"
        if behind.upto is not None:
            beyond += f" AND end_lsn <= {behind.upto.lsn}"
        ctes = [
            # One pass over the tail: a row takes its position from the commit of its transaction, in whatever batch.
            f"tailed AS (SELECT *, max(IF(kind = 'commit', end_lsn)) OVER (PARTITION BY xid) AS _end_lsn FROM ("
            f"SELECT kind, op, xid, seq, before, after, old, at, end_lsn FROM {unflushed} AND"
            f" (kind = 'commit' AND {beyond}"
            f" OR kind = 'row' AND {mine} AND op IN ('c', 'u', 'd', 't'))))",
            f"imaged AS (SELECT op, _end_lsn, seq AS _seq, before, after, old, {image} AS v,"
            f" from_unixtime(CAST((at + 500) / 1000 AS double) / 1e3, 'UTC') AS _committed_at FROM tailed"
            f" WHERE kind = 'row' AND _end_lsn IS NOT NULL)",
        ]
        pos = self._pos(str(behind.incarnation))
        rows = f"SELECT op, _end_lsn, _committed_at, {missing}, {pos}, {', '.join(values)} FROM imaged"
        return ctes, rows, f"SELECT 1 FROM {unflushed} AND kind = 'truncate' AND {mine} AND {beyond}"

    def _pos(self, incarnation: str) -> str:
        """A place in the source's history as one number: incarnation, end LSN, place in the transaction."""
        lsn = "CAST(_end_lsn AS decimal(38, 0))"
        if self.behind.incarnation > 1:
            lsn = f"(CAST({incarnation} AS decimal(38, 0)) * decimal '9223372036854775808' + _end_lsn)"
        return f"{lsn} * 281474976710656 + _seq AS _pos"

    def _above(self) -> str:
        """The log's changes that count: above the ground, up to the asked position, not what the copy saw."""
        record, copy, upto = self.behind.record, self.copy, self.behind.upto
        ground = (record.current_incarnation, record.current_lsn) if self.folded else (copy.incarnation, copy.at)
        several = self.behind.incarnation > 1
        where = [f"_end_lsn > {ground[1]}"]
        if several:
            where = [f"(_incarnation > {ground[0]} OR (_incarnation = {ground[0]} AND {where[0]}))"]
        if upto is not None:
            until = f"_end_lsn <= {upto.lsn}"
            place = f"(_incarnation < {upto.incarnation} OR (_incarnation = {upto.incarnation} AND {until}))"
            where.append(place if several else until)
        if copy.sees is not None:
            where.append(f"NOT {seen(copy.sees)}")
        return f"{self._log()} AND {' AND '.join(where)}"

    def _log(self) -> str:
        """The log up to the flush, by its cuts: Trino keeps the newest version's files in mind, a named one's not."""
        if self.behind.record.changes is None:
            return f"{_EMPTY} WHERE _cut IS NULL"
        return f"{self._behind('log')} WHERE _cut <= {self.behind.cut}"

    def _behind(self, part: str) -> str:
        schema, _, table = self.state.folder.partition("/")
        return f"{_q(self.behind.catalog)}.{_q(schema_name(self.behind.source, schema, part))}.{_q(table)}"

    # --- values

    @property
    def lackable(self) -> list[Column]:
        """The columns whose value an update may leave out."""
        return [c for c in self.table.columns if may_be_missing(c)]

    def _filled(self, column: Column, have: Collection[str]) -> str:
        """A column of `changes` or `current`: rows older than it show its default."""
        kind = trino_type(column.kind)
        stored = f"CAST({_q(column.physical)} AS {kind})" if column.physical in have else f"CAST(NULL AS {kind})"
        if column.missing is None or column.since <= 1:
            return stored
        shown = default_sql(column.missing, column.kind)
        return f"CASE WHEN _schema < {column.since} THEN {shown} ELSE {stored} END"

    def _text(self, column: Column, maps: str) -> str:
        value = f"element_at({maps}, {_l(column.name)})"
        if may_be_missing(column):
            value = f"CASE WHEN {self._lacks(column)} THEN NULL ELSE {value} END"
        if self._later(column):
            return f"CAST(NULL AS {trino_type(column.kind)})"
        typed = typed_sql(value, column.kind, self.behind.wire(column))
        if column.missing is None or column.since <= 1:
            return typed
        absent = f"op <> 'd' AND NOT contains(map_keys({maps}), {_l(column.name)})"  # written before the column was
        return f"CASE WHEN {absent} THEN {default_sql(column.missing, column.kind)} ELSE {typed} END"

    def _old(self, column: Column) -> str:
        was = f"coalesce(element_at(before, {_l(column.name)}), element_at(old, {_l(column.name)}))"
        value = f"CASE WHEN op = 'u' THEN {was} END"
        if self.table.identity != "full":
            changed = " OR ".join(
                f"coalesce(element_at(before, {_l(c.name)}), element_at(old, {_l(c.name)}))"
                f" <> element_at(after, {_l(c.name)})"
                for c in self.table.key
            )
            value = f"CASE WHEN op = 'u' AND ({changed}) THEN {was} END"
        return typed_sql(value, column.kind, self.behind.wire(column))

    def _later(self, column: Column) -> bool:
        return self.behind.wire(column) in SHOWN_LATER

    def _lacks(self, column: Column) -> str:
        words = ", ".join(_l(w) for w in (self.behind.placeholder, f'["{self.behind.placeholder}"]'))
        return f"op <> 'd' AND coalesce(element_at(after, {_l(column.name)}) IN ({words}), false)"

    def _pick(self, column: Column) -> str:
        """A column's newest value that came along."""
        name = _q(column.physical)
        if not may_be_missing(column):
            return f"max_by({name}, _at) AS {name}"
        return f"max_by({name}, _at) FILTER (WHERE {self._came(column)}) AS {name}"

    def _came(self, column: Column) -> str:
        return f"_live AND NOT coalesce(contains(split(_missing, ','), {_l(column.physical)}), false)"

    def _left(self, lackable: list[Column]) -> str:
        """Which columns neither the ground nor the stream has of this row: it came under this key without them."""
        key = _q(self.table.key[0].physical)
        words = ", ".join(
            f"IF(n.{key} IS NOT NULL AND coalesce(n._came{i} < n._begun,"
            f" n._came{i} IS NULL AND (n._begun IS NOT NULL OR g.{key} IS NULL)), {_l(c.physical)})"
            for i, c in enumerate(lackable)
        )
        return f"nullif(concat_ws(',', {words}, NULL), '')" if words else "CAST(NULL AS varchar)"
