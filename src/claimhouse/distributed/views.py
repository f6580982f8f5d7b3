"""A table's present state for Trino, as one view: what one flush holds, and the tail laid over it.

The view reads `current` at the version that one flush record names, `changes` up to its cut, and from the tail table
every transaction beyond it that a cut holds. The tail is read at its newest version, once for all tables of a query, so
a query over several views sees one cut of all of them. Views of an older flush stay right as long as the tail still
holds what came after it: both give the state at the newest cut.

Values of the tail are Debezium's text; they are read here as `values` reads them, for the types that SQL can bring
back. Of the rest (SHOWN_LATER) a row shows nothing until it is flushed, and says so in `_missing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from claimhouse.change import old_name
from claimhouse.distributed.events import ERA
from claimhouse.distributed.values import HEX
from claimhouse.lake.flushes import TableRecord
from claimhouse.lake.registry import TableState
from claimhouse.table import Column, Table

SHOWN_LATER = frozenset((600, 1186, 1266, 1560, 1562))  # point, interval, timetz, bit, varbit
_KINDS = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double",
    "text": "varchar",
    "bytes": "varbinary",
    "date": "date",
    "timestamp": "timestamp(6)",
    "timestamptz": "timestamp(3) with time zone",  # Trino's Delta connector knows milliseconds
}
_FIRST, _LAST = "0001-01-01 00:00:00.000000", "9999-12-31 23:59:59.999999"

# Stands for the log of a table that never had a row.
_EMPTY = (
    "(SELECT CAST(NULL AS varchar) AS _op, CAST(NULL AS bigint) AS _end_lsn, CAST(NULL AS bigint) AS _seq,"
    " CAST(NULL AS timestamp(3) with time zone) AS _committed_at, CAST(NULL AS varchar) AS _missing,"
    " CAST(NULL AS integer) AS _schema, CAST(NULL AS bigint) AS _cut, CAST(NULL AS integer) AS _copy WHERE false)"
)


def trino_type(kind: str) -> str:
    """Trino's type of a kind, as its Delta connector shows it. Raises KeyError."""
    if kind.startswith("list<"):
        return f"array({trino_type(kind[5:-1])})"
    return kind if kind.startswith("decimal(") else _KINDS[kind]


def schema_name(source: str, schema: str, part: str = "") -> str:
    """The Glue database of a source schema's views; `part` 'log' or 'current' of the tables behind them."""
    return f"{source}__{schema}" + (f"__{part}" if part else "")


@dataclass(frozen=True, slots=True)
class Behind:
    """What a view reads. `logged` and `folded` are the columns that `changes` and `current` have at those versions."""

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


def view_sql(state: TableState, behind: Behind) -> str | None:
    """The SELECT of a table's view; None while no copy of it is complete."""
    table = state.table
    copy = next((c for c in reversed(state.copies) if c.exact_from is not None), None)
    if copy is None or state.status == "gone":
        return None
    writer = _Writer(state, table, behind)
    if table.identity == "key":
        return writer.keyed(copy.number, copy.at)
    return writer.whole(copy.number, copy.at) if table.identity == "full" else writer.appended(copy.number, copy.at)


@dataclass(slots=True)
class _Writer:
    state: TableState
    table: Table
    behind: Behind

    def keyed(self, copy: int, at: int) -> str:
        """Each touched key's newest change, joined to the ground: the stream is read once, the ground passes by."""
        keys = [_q(c.physical) for c in self.table.key]
        rest = [c for c in self.table.columns if not c.key]
        lackable = [c for c in rest if self._may_lack(c)]
        same = " AND ".join(f"n.{k} = g.{k}" for k in keys)
        picks = [self._pick(c) for c in rest]
        picks += [f"count_if({self._came(c)}) > 0 AS _came{i}" for i, c in enumerate(lackable)]
        picks += ["max_by(_end_lsn, _at) AS _end_lsn", "max_by(_committed_at, _at) AS _committed_at"]
        values = ", ".join(self._joined(c, lackable) for c in self.table.columns)
        return (
            f"WITH {self._stream(copy, at)},\n"
            f"keyed AS (SELECT {', '.join(f'u.{k}' for k in keys)}, u._at, u._live, s._end_lsn, s._committed_at,"
            f" s._missing{''.join(f', s.{_q(c.physical)}' for c in rest)} FROM kept s"
            f" CROSS JOIN UNNEST({self._variants()}) AS u ({', '.join(keys)}, _at, _live)),\n"
            f"newest AS (SELECT {', '.join(keys)}, max_by(_live, _at) AS _live, {', '.join(picks)}"
            f" FROM keyed GROUP BY {', '.join(keys)}),\n"
            f"ground AS ({self._ground(copy, first=True)})\n"
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
        kind = f"ROW({types}, _at decimal(38, 0), _live boolean)"
        moved = " OR ".join(f"s.{_q(old_name(c.physical))} IS NOT NULL" for c in key)
        new_row = f"CAST(ROW({own}, s._pos * 2 + 1, s._op <> 'd') AS {kind})"
        old_row = f"CAST(ROW({old}, s._pos * 2, false) AS {kind})"
        return f"IF({moved}, ARRAY[{new_row}, {old_row}], ARRAY[{new_row}])"

    def _joined(self, column: Column, lackable: list[Column]) -> str:
        name = _q(column.physical)
        first = _q(self.table.key[0].physical)
        if column.key:
            return f"coalesce(n.{name}, g.{name}) AS {name}"
        ground = f"n.{first} IS NULL"
        if column in lackable:
            ground += f" OR NOT n._came{lackable.index(column)}"
        return f"IF({ground}, g.{name}, n.{name}) AS {name}"

    def appended(self, copy: int, at: int) -> str:
        column_list = ", ".join(_q(c.physical) for c in self.table.columns)
        meta = "_end_lsn, _committed_at, _missing"
        return (
            f"WITH {self._stream(copy, at)},\nground AS ({self._ground(copy, first=False)})\n"
            f"SELECT {column_list}, {meta} FROM ground WHERE (SELECT count(*) FROM cleared) = 0\n"
            f"UNION ALL SELECT {column_list}, {meta} FROM kept WHERE _op <> 'd'"
        )

    def whole(self, copy: int, at: int) -> str:
        columns = [_q(c.physical) for c in self.table.columns]
        olds = ", ".join(_q(old_name(c.physical)) for c in self.table.columns)
        column_list = ", ".join(columns)
        return (
            f"WITH {self._stream(copy, at)},\nground AS ({self._ground(copy, first=False)}),\n"
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

    def _ground(self, copy: int, *, first: bool) -> str:
        """Rows that the stream is laid over: `current`, or the copy's own rows (the last read of a key counts)."""
        record = self.behind.record
        folded = record.current is not None
        have = self.behind.folded if folded else self.behind.logged
        values = ", ".join(f"{self._filled(c, have)} AS {_q(c.physical)}" for c in self.table.columns)
        meta = "_end_lsn, _committed_at, _missing"
        if folded:
            return f"SELECT {values}, {meta} FROM {self._behind('current')} FOR VERSION AS OF {record.current}"
        log = self._log()
        rows = f"SELECT {values}, {meta}, _cut, _seq FROM {log} AND _op = 'r' AND _copy = {copy}"
        names = ", ".join(_q(c.physical) for c in self.table.columns)
        if not first:
            return f"SELECT {names}, {meta} FROM ({rows})"
        keys = ", ".join(_q(c.physical) for c in self.table.key)
        newest = f"row_number() OVER (PARTITION BY {keys} ORDER BY _cut DESC, _seq DESC) AS _nth"
        return f"SELECT {names}, {meta} FROM (SELECT *, {newest} FROM ({rows})) WHERE _nth = 1"

    def _stream(self, copy: int, at: int) -> str:
        """CTEs `kept` (changes above the ground that no truncate follows) and `cleared` (the last truncate)."""
        record, behind = self.behind.record, self.behind
        olds = [(c, old_name(c.physical)) for c in self.table.key]
        logged = [f"{self._filled(c, behind.logged)} AS {_q(c.physical)}" for c in self.table.columns]
        logged += [
            f"{_q(n) if n in behind.logged else f'CAST(NULL AS {trino_type(c.kind)})'} AS {_q(n)}" for c, n in olds
        ]
        above = record.current_lsn if record.current is not None else at
        tail = [f"{self._text(c, 'v')} AS {_q(c.physical)}" for c in self.table.columns]
        tail += [f"{self._old(c)} AS {_q(n)}" for c, n in olds]
        pos = "CAST(_end_lsn AS decimal(38, 0)) * 281474976710656 + _seq AS _pos"
        t = f"{_q(behind.catalog)}.{_q(behind.source + '__control')}.tail_events"
        shown_later = [c.physical for c in self.table.columns if self._later(c)]
        lacking = ", ".join(
            [f"CASE WHEN {self._lacks(c)} THEN '{c.physical}' END" for c in self.table.columns if self._may_lack(c)]
            + [f"CASE WHEN op <> 'd' THEN '{name}' END" for name in shown_later]
        )
        missing = f"nullif(concat_ws(',', {lacking}, NULL), '')" if lacking else "CAST(NULL AS varchar)"
        image = "CASE WHEN op = 'd' THEN before ELSE after END"
        log = f"{self._log()} AND _end_lsn > {above}"
        mine = f"schema = {_l(self.state.schema)} AND name = {_l(self.state.name)}"
        unflushed = f"{t} WHERE era >= {behind.batch // ERA} AND batch >= {behind.batch}"
        return (
            # One pass over the tail: a row takes its position from the commit of its transaction, in whatever batch.
            f"tailed AS (SELECT *, max(IF(kind = 'commit', end_lsn)) OVER (PARTITION BY xid) AS _end_lsn FROM ("
            f"SELECT kind, op, xid, seq, before, after, old, at, end_lsn FROM {unflushed} AND"
            f" (kind = 'commit' AND end_lsn > {behind.end_lsn}"
            f" OR kind = 'row' AND {mine} AND op IN ('c', 'u', 'd', 't')))),\n"
            f"imaged AS (SELECT op, _end_lsn, seq AS _seq, before, after, old, {image} AS v,"
            f" from_unixtime(CAST((at + 500) / 1000 AS double) / 1e3, 'UTC') AS _committed_at FROM tailed"
            f" WHERE kind = 'row' AND _end_lsn IS NOT NULL),\n"
            f"stream AS (SELECT _op, _end_lsn, _committed_at, _missing, {pos}, {', '.join(logged)}"
            f" FROM {log} AND _op <> 'r'\n"
            f"UNION ALL SELECT op, _end_lsn, _committed_at, {missing}, {pos}, {', '.join(tail)} FROM imaged),\n"
            f"cleared AS (SELECT 1 FROM {log} AND _op = 't' UNION ALL SELECT 1 FROM {unflushed}"
            f" AND kind = 'truncate' AND {mine} AND end_lsn > {behind.end_lsn}),\n"
            f"kept AS (SELECT * FROM (SELECT *, max(IF(_op = 't', _pos)) OVER () AS _cleared FROM stream)"
            f" WHERE _op <> 't' AND _pos > coalesce(_cleared, decimal '-1'))"
        )

    def _log(self) -> str:
        """The log up to the flush, by its cuts: Trino keeps the newest version's files in mind, a named one's not."""
        if self.behind.record.changes is None:
            return f"{_EMPTY} WHERE _cut IS NULL"
        return f"{self._behind('log')} WHERE _cut <= {self.behind.cut}"

    def _behind(self, part: str) -> str:
        schema, _, table = self.table.folder.partition("/")
        return f"{_q(self.behind.catalog)}.{_q(schema_name(self.behind.source, schema, part))}.{_q(table)}"

    # --- values

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
        if self._may_lack(column):
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

    def _may_lack(self, column: Column) -> bool:
        return not column.key and (column.kind in ("text", "bytes") or column.kind.startswith(("decimal(", "list<")))

    def _later(self, column: Column) -> bool:
        return self.behind.wire(column) in SHOWN_LATER

    def _lacks(self, column: Column) -> str:
        words = ", ".join(_l(w) for w in (self.behind.placeholder, f'["{self.behind.placeholder}"]'))
        return f"op <> 'd' AND coalesce(element_at(after, {_l(column.name)}) IN ({words}), false)"

    def _pick(self, column: Column) -> str:
        """A column's newest value that came along."""
        name = _q(column.physical)
        if not self._may_lack(column):
            return f"max_by({name}, _at) AS {name}"
        return f"max_by({name}, _at) FILTER (WHERE {self._came(column)}) AS {name}"

    def _came(self, column: Column) -> str:
        return f"_live AND NOT coalesce(contains(split(_missing, ','), {_l(column.physical)}), false)"

    def _left(self, lackable: list[Column]) -> str:
        """Which columns neither the ground nor the stream has under this key: they came with a key change."""
        key = _q(self.table.key[0].physical)
        words = ", ".join(
            f"IF(n.{key} IS NOT NULL AND NOT n._came{i} AND g.{key} IS NULL, {_l(c.physical)})"
            for i, c in enumerate(lackable)
        )
        return f"nullif(concat_ws(',', {words}, NULL), '')" if words else "CAST(NULL AS varchar)"


def typed_sql(value: str, kind: str, wire: int) -> str:
    """Debezium's text as a value of Trino's type; `value` is SQL that gives the text."""
    kind_sql = trino_type(kind)
    if kind.startswith("list<"):
        return _list_sql(value, kind[5:-1], wire)
    if kind == "bool":
        return f"{value} = 'true'"
    if kind == "bytes":
        return f"from_hex({value})"
    if kind == "text":
        return _plain_text_sql(value, wire)
    if kind.startswith("decimal("):
        return f"TRY_CAST({value} AS {kind_sql})"
    if kind == "date":
        return _far(value, f"CAST(substr({value}, 1, 10) AS date)", f"date '{_FIRST[:10]}'", f"date '{_LAST[:10]}'")
    if kind in ("timestamp", "timestamptz"):
        return _moment_sql(value, kind)
    return f"CAST({value} AS {kind_sql})"


def _moment_sql(value: str, kind: str) -> str:
    text = f"replace(replace({value}, 'T', ' '), 'Z', '')"
    if kind == "timestamp":
        return _far(value, f"CAST({text} AS timestamp(6))", f"timestamp '{_FIRST}'", f"timestamp '{_LAST}'")
    # To the nearest millisecond, as Trino reads the same value from the lake: a flush must change nothing.
    zoned = f"with_timezone(CAST(CAST({text} AS timestamp(6)) AS timestamp(3)), 'UTC')"
    first, last = f"timestamp '{_FIRST[:23]} UTC'", f"timestamp '{_LAST[:23]} UTC'"
    return f"CAST({_far(value, zoned, first, last)} AS timestamp(3) with time zone)"


def _far(value: str, plain: str, first: str, last: str) -> str:
    """The stand-ins for what the type cannot hold; the exact text shows once the row is flushed."""
    return (
        f"CASE WHEN {value} LIKE '-%' OR {value} LIKE '0000%' THEN {first}"
        f" WHEN {value} LIKE '+%' OR {value} = 'infinity' THEN {last} ELSE {plain} END"
    )


def _plain_text_sql(value: str, wire: int) -> str:
    if wire == HEX:
        return f"from_utf8(from_hex({value}))"
    if wire == 1700:
        return (
            f"CASE {value} WHEN 'NAN' THEN 'NaN' WHEN 'POSITIVE_INFINITY' THEN 'Infinity'"
            f" WHEN 'NEGATIVE_INFINITY' THEN '-Infinity' ELSE {value} END"
        )
    if wire == 1083:
        return f"replace({value}, 'Z', '')"
    return value


def _list_sql(value: str, kind: str, wire: int) -> str:
    inner = typed_sql("x", kind, wire)
    return f"transform(CAST(json_parse({value}) AS array(varchar)), x -> {inner})"


def default_sql(text: str, kind: str) -> str:
    """PostgreSQL's text for a column's default as a Trino expression of its type."""
    kind_sql = trino_type(kind)
    if kind == "bool":
        return "true" if text == "t" else "false"
    if kind == "bytes":
        return f"from_hex({_l(text[2:])})"
    if kind.startswith("list<"):
        return f"CAST(NULL AS {kind_sql})"
    if kind == "timestamptz":
        return f"TRY_CAST({_l(text.removesuffix('+00') + ' UTC')} AS {kind_sql})"
    return f"TRY_CAST({_l(text)} AS {kind_sql})"


def _q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _l(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
