"""A table's state at a position, as ONE SQL query over its log: what `now`, `as of` and the fold have in common.

The *ground* is what a state builds on: the rows of `current`, or, without one, the `r` rows of the copy. The *stream*
is every later change. Where rows have a key, the newest change of each touched key decides; the ground's other rows
pass by an anti-join, so the cost follows the ground's scan and the stream's size. Where they have none, a row is its
whole image, and every deleted image takes one such row away. Values that an UPDATE did not bring (unchanged TOAST) are
sought in the row's earlier versions, life by life: a *life* is a row's time under one key, it begins with an insert or
a key change, and a key change leads on to the life before.

A table whose identity changed is worked out era by era: the state of one is the ground of the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa

from claimhouse.change import BY_CUT, META, old_name
from claimhouse.lake.defaults import filled, filled_exact, with_exact
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.relation import empty_sql
from claimhouse.quoting import quote, quote_text
from claimhouse.table import Column, Table, arrow_type

OUTPUT = tuple(f.name for f in (*META, *BY_CUT))
# incarnation (14 bits), end LSN (63), place (48), and one bit for whoever needs a flag
ORDER = "(((_incarnation::HUGEINT * 9223372036854775808 + _end_lsn) * 281474976710656) + _seq)"


def may_be_exact(kind: str) -> bool:
    """Whether values of a kind can stand in `_exact`."""
    return kind in ("date", "timestamp", "timestamptz") or kind.startswith(("decimal(", "list<"))


def may_be_missing(column: Column) -> bool:
    """Whether an UPDATE can leave a column's value out: what PostgreSQL stores out of line."""
    return not column.key and (column.kind in ("text", "bytes") or column.kind.startswith(("decimal(", "list<")))


def state_columns(table: Table) -> list[str]:
    """The columns of a state, and of `current`: the log's without `_old_*`."""
    return [*OUTPUT, *(c.physical for c in table.columns)]


def state_schema(table: Table) -> pa.Schema:
    """The Arrow schema of `state_columns`."""
    return pa.schema([*META, *BY_CUT, *(pa.field(c.physical, arrow_type(c.kind)) for c in table.columns)])


def state_sql(
    state: TableState,
    *,
    log: str | None,
    copy: Copy,
    base: str | None = None,
    upto: tuple[int, int] | None = None,
    seen_by: str | None = None,
    shape: Table | None = None,
    versions: Collection[int] | None = None,
    missing: bool = True,
) -> str:
    """A SELECT that gives one row per live row: `state_columns(shape)`, all values resolved, `_schema` = shape's.

    `log` names a relation of log rows (after `base`, if there is one; None: there are none), `base` one of `current`
    rows, made on the same copy; both must have every column of the shapes concerned. `upto` is (incarnation, end LSN),
    included; None: all. `seen_by` (pg_snapshot text): corrections, and the transactions that this snapshot sees; of a
    copy made in one snapshot (`copy.sees`) the transactions that it saw do not count again. `versions`: the shapes that
    the log's rows have (None: any), `missing`: whether any may have `_missing`.
    """
    shape = shape or state.table
    if log is None:
        return f"SELECT {_final(shape)} FROM {base} g" if base else empty_sql(state_schema(shape))
    known = [t for t in state.versions if t.version < shape.version and (versions is None or t.version in versions)]
    eras = eras_of([*known, shape])
    writer = _Writer(shape, log, copy, upto, seen_by, missing and any(map(may_be_missing, shape.columns)))
    ground = base
    for number, era in enumerate(eras):
        later = [t for e in eras[number + 1 :] for t in e]
        ground = writer.era(number, era, len(eras) > 1, ground, _extra(shape, later))
    return f"WITH RECURSIVE {', '.join(writer.ctes)}\nSELECT {_final(shape)} FROM {ground} g"


def newest_sql(shape: Table, *, log: str, copy: Copy) -> str:
    """What `state_sql` gives without a ground, for rows with a key that never changed, and whose values all came.

    `log` holds no truncate, and no row of another identity. Half the cost, where it is the planning that costs.
    """
    rows = _Writer(shape, log, copy, None, None, False).stream(None, state_columns(shape))
    keys = ", ".join(sql for c in shape.key for sql in KeyPart(c).new("r"))
    newest = f"SELECT r.* FROM ({rows}) r QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY r._ord DESC) = 1"
    return f"SELECT {_final(shape)} FROM ({newest}) g WHERE g._op <> 'd'"


def seen(snapshot: str) -> str:
    """SQL: whether a pg_snapshot (its text: xmin:xmax:xip,…) sees a row's transaction."""
    _, xmax, running = snapshot.split(":")
    own = f" AND _xid NOT IN ({running})" if running else ""
    return f"(_xid < {int(xmax)}{own})"


def eras_of(versions: list[Table]) -> list[list[Table]]:
    """Runs of shapes whose rows are told apart alike."""
    eras: list[list[Table]] = []
    for table in versions:
        if eras and _identity(eras[-1][-1]) == _identity(table):
            eras[-1].append(table)
        else:
            eras.append([table])
    return eras


def _identity(table: Table) -> tuple[str, ...]:
    return (table.identity, *(c.physical for c in table.key)) if table.identity == "key" else (table.identity,)


def _extra(shape: Table, later: list[Table]) -> list[str]:
    """Key columns that later eras need although the shape has them no more."""
    have = {c.physical for c in shape.columns}
    return sorted({c.physical for t in later for c in t.key} - have)


def _final(shape: Table) -> str:
    meta = {"_schema": f"CAST({shape.version} AS INTEGER)", "_exact": filled_exact(shape, "g")}
    columns = [f"{meta.get(name, 'g.' + name)} AS {name}" for name in OUTPUT]
    columns += [f"{filled(c, 'g')} AS {quote(c.physical)}" for c in shape.columns]
    return ", ".join(columns)


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One column of a key as SQL: its value, and its exact text where the kind can have one."""

    column: Column

    @property
    def exact(self) -> bool:
        return may_be_exact(self.column.kind)

    def new(self, row: str) -> Iterator[str]:
        yield filled(self.column, row)
        if self.exact:
            yield f"coalesce({row}._exact[{quote_text(self.column.physical)}], '')"

    def old(self, row: str, whole: bool) -> Iterator[str]:
        """Before an update; `whole`: `_old_` columns are always there (identity 'full')."""
        name = old_name(self.column.physical)
        value, text = f"{row}.{quote(name)}", f"{row}._exact[{quote_text(name)}]"
        new, *new_text = self.new(row)
        if whole:
            yield filled(self.column, row, name)
            if self.exact:
                yield f"coalesce({text}, '')"
            return
        given = f"({value} IS NOT NULL OR {text} IS NOT NULL)" if self.exact else f"({value} IS NOT NULL)"
        yield f"CASE WHEN {given} THEN {value} ELSE {new} END"
        if self.exact:
            yield f"CASE WHEN {given} THEN coalesce({text}, '') ELSE {new_text[0]} END"


class _Writer:
    """Writes the CTEs of each era; `era` returns the name of the relation that holds its state."""

    def __init__(
        self, shape: Table, log: str, copy: Copy, upto: tuple[int, int] | None, seen_by: str | None, missing: bool
    ) -> None:
        self.shape, self.log, self.copy, self.upto, self.missing = shape, log, copy, upto, missing
        self.seen_by = seen_by
        self.ctes: list[str] = []

    def era(self, number: int, era: list[Table], several: bool, ground: str | None, extra: list[str]) -> str:
        n, newest = f"_{number}", era[-1]
        olds = [old_name(c.physical) for c in newest.key]
        have = [*state_columns(self.shape), *extra]
        have += [c.physical for c in newest.key if c.physical not in have]
        self._add(f"rows{n}", self.stream(era if several else None, [*have, *olds]), "MATERIALIZED")
        cleared = f"SELECT max(_ord) FROM rows{n} WHERE _op = 't'"
        self._add(f"kept{n}", f"SELECT * FROM rows{n} WHERE _op <> 't' AND _ord > coalesce(({cleared}), -1)")
        plain = ", ".join(f"r.{quote(c)}" for c in have)
        source = f"{ground} r" if ground else f"{self.log} r WHERE _op = 'r' AND _copy = {self.copy.number}"
        self._add(f"all{n}", f"SELECT {plain} FROM {source}", "NOT MATERIALIZED")
        untouched = f"SELECT r.* FROM all{n} r WHERE NOT EXISTS (SELECT 1 FROM rows{n} WHERE _op = 't')"
        self._add(f"ground{n}", untouched, "NOT MATERIALIZED")
        if newest.identity == "key":
            return self._keyed(n, newest, plain, first=ground is None)
        if newest.identity == "full":
            return self._whole(n, newest, plain)
        self._add(f"state{n}", f"SELECT * FROM ground{n} UNION ALL SELECT {plain} FROM kept{n} r", "NOT MATERIALIZED")
        return f"state{n}"

    def _add(self, name: str, sql: str, how: str = "") -> None:
        self.ctes.append(f"{name} AS {how} ({sql})")

    def stream(self, era: list[Table] | None, columns: list[str]) -> str:
        copy = self.copy
        where = [
            "_op <> 'r'",
            f"(_incarnation > {copy.incarnation} OR (_incarnation = {copy.incarnation} AND _end_lsn > {copy.at}))",
        ]
        if self.upto is not None:
            incarnation, lsn = self.upto
            where.append(f"(_incarnation < {incarnation} OR (_incarnation = {incarnation} AND _end_lsn <= {lsn}))")
        if copy.sees is not None:
            where.append(f"NOT {seen(copy.sees)}")
        if self.seen_by is not None:
            where.append(f"(_xid IS NULL OR {seen(self.seen_by)})")  # corrections are of what everybody sees
        if era is not None:
            where.append(f"_schema BETWEEN {era[0].version} AND {era[-1].version}")
        names = ", ".join(map(quote, columns))
        return f"SELECT {names}, {ORDER} AS _ord FROM {self.log} WHERE {' AND '.join(where)}"

    # --- rows with a key

    def _keyed(self, n: str, table: Table, plain: str, *, first: bool) -> str:
        parts = [KeyPart(c) for c in table.key]
        new = [sql for p in parts for sql in p.new("r")]
        old = [sql for p in parts for sql in p.old("r", whole=False)]
        keys = [f"_k{i}" for i in range(len(new))]  # no physical name begins so
        named = ", ".join(f"{sql} AS {key}" for sql, key in zip(new, keys, strict=True))
        named_old = ", ".join(f"{sql} AS {key}_old" for sql, key in zip(old, keys, strict=True))
        moved = " OR ".join(f"{key}_old IS DISTINCT FROM {key}" for key in keys)
        self._add(
            f"keyed{n}",
            f"SELECT *, _op = 'u' AND ({moved}) AS _moved FROM (SELECT r.*, {named}, {named_old} FROM kept{n} r)",
            "MATERIALIZED",
        )
        olds = ", ".join(f"{key}_old" for key in keys)
        self._add(
            f"last{n}",
            f"SELECT {', '.join(keys)}, max(_at) AS _at FROM ("
            f"SELECT {', '.join(keys)}, _ord * 2 + (_op <> 'd')::INT AS _at FROM keyed{n} UNION ALL "
            f"SELECT {olds}, _ord * 2 FROM keyed{n} WHERE _moved) GROUP BY {', '.join(keys)}",
            "MATERIALIZED",
        )
        self._add(f"live{n}", f"SELECT r.* FROM keyed{n} r SEMI JOIN last{n} l ON r._ord * 2 + 1 = l._at")
        ground = self._once(n, new, keys) if first else f"ground{n}"
        match = _same(zip(new, (f"l.{key}" for key in keys), strict=True))
        passed = f"SELECT {plain} FROM {ground} r ANTI JOIN last{n} l ON {match}"
        live = self._resolved(n, table, new, keys, ground, plain) if self.missing else f"SELECT {plain} FROM live{n} r"
        self._add(f"state{n}", f"{passed} UNION ALL {live}", "NOT MATERIALIZED")
        return f"state{n}"

    def _once(self, n: str, new: list[str], keys: list[str]) -> str:
        """A copy can bring a key twice (the row moved, or was read again): the last read counts."""
        named = ", ".join(f"{sql} AS {key}" for sql, key in zip(new, keys, strict=True))
        self._add(
            f"twice{n}",
            f"SELECT {', '.join(keys)} FROM (SELECT {named} FROM ground{n} r) GROUP BY ALL HAVING count(*) > 1",
            "MATERIALIZED",
        )
        match = _same(zip(new, (f"t.{key}" for key in keys), strict=True))
        newest = f"row_number() OVER (PARTITION BY {', '.join(new)} ORDER BY r._cut DESC, r._seq DESC) = 1"
        self._add(
            f"once{n}",
            f"SELECT r.* FROM ground{n} r ANTI JOIN twice{n} t ON {match} UNION ALL "
            f"SELECT r.* FROM ground{n} r SEMI JOIN twice{n} t ON {match} QUALIFY {newest}",
            "NOT MATERIALIZED",
        )
        return f"once{n}"

    # --- unchanged TOAST values

    def _resolved(self, n: str, table: Table, new: list[str], keys: list[str], ground: str, plain: str) -> str:
        """The SELECT of live rows with the values that their `_missing` names; nothing runs where no row has it."""
        wanted = [c for c in self.shape.columns if may_be_missing(c)]
        self._history(n, new, keys, ground, wanted)
        values = ", ".join(
            f"arg_min({{'v': {filled(c, 'h')}, 'x': h._exact[{quote_text(c.physical)}]}}, h._rank)"
            f" FILTER (NOT {lacks('h._missing', c)}) AS v{i}"
            for i, c in enumerate(wanted)
        )
        self._add(f"found{n}", f"SELECT h._target, {values} FROM ranked{n} h GROUP BY h._target")
        changed = {c.physical: _value(c, i) for i, c in enumerate(wanted)}
        changed["_missing"] = _still_missing(wanted)
        changed["_exact"] = _with_exact(wanted)
        columns = ", ".join(f"{changed[c]} AS {quote(c)}" if c in changed else item for c, item in _split(plain))
        return f"SELECT {columns} FROM live{n} r LEFT JOIN found{n} f ON r._ord = f._target"

    def _history(self, n: str, new: list[str], keys: list[str], ground: str, wanted: list[Column]) -> None:
        """Rows' earlier versions, ranked: `ranked` has _target (a live row's _ord) and _rank, the best first.

        The stream's own versions come first, along the chain of lives. What was never changed since the ground has its
        value there, under the key that the row had when the copy ended; under the keys that it had before, a copy may
        have met other rows.
        """
        k, ok = ", ".join(keys), ", ".join(f"{key}_old" for key in keys)
        columns = ", ".join(quote(name) for name in ("_schema", "_missing", "_exact", *_physical(wanted)))
        self._add(f"needy{n}", f"SELECT {k}, _ord FROM live{n} WHERE _missing IS NOT NULL", "MATERIALIZED")
        self._add(
            f"kin{n}",
            f"SELECT {k} FROM needy{n} UNION SELECT {of('h', ok)} FROM kin{n} c"
            f" JOIN keyed{n} h ON {matching('h', 'c', keys)} AND h._moved",
        )
        begun = "coalesce(max(CASE WHEN _op = 'c' OR _moved THEN _ord END) OVER lives, -1::HUGEINT) AS _life"
        self._add(
            f"lives{n}",
            f"SELECT {k}, {ok}, {columns}, _ord, _op, _moved, {begun}"
            f" FROM keyed{n} h SEMI JOIN kin{n} c ON {matching('h', 'c', keys)}"
            f" WINDOW lives AS (PARTITION BY {k} ORDER BY _ord)",
            "MATERIALIZED",
        )
        before = _same((f"h.{key}_old", f"p.{key}") for key in keys)
        self._add(
            f"came{n}",
            f"SELECT {of('h', k)}, h._life, {of('h', ok)}, coalesce(max(p._life), -1::HUGEINT) AS _from"
            f" FROM lives{n} h LEFT JOIN lives{n} p ON {before} AND p._ord < h._ord WHERE h._moved GROUP BY ALL",
        )
        self._add(
            f"chain{n}",
            f"SELECT t._ord AS _target, {of('h', k)}, h._life, 0 AS _depth FROM needy{n} t"
            f" JOIN lives{n} h ON {matching('t', 'h', keys)} AND h._ord = t._ord UNION ALL "
            f"SELECT c._target, {of('h', ok)}, h._from, c._depth + 1 FROM chain{n} c"
            f" JOIN came{n} h ON {matching('c', 'h', keys)} AND h._life = c._life",
        )
        copied = ((self.copy.incarnation << 63) + (self.copy.exact_from or self.copy.at) + 1) << 48
        self._add(
            f"held{n}",
            f"SELECT * FROM chain{n} WHERE _life < {copied}::HUGEINT"
            " QUALIFY row_number() OVER (PARTITION BY _target ORDER BY _depth) = 1",
        )
        held = _same(zip(new, (f"c.{key}" for key in keys), strict=True))
        self._add(
            f"ranked{n}",
            "SELECT *, row_number() OVER (PARTITION BY _target ORDER BY _depth, _ord DESC) AS _rank FROM ("
            f"SELECT c._target, c._depth, h._ord, {of('h', columns)} FROM chain{n} c JOIN lives{n} h"
            f" ON {matching('c', 'h', keys)} AND h._life = c._life AND h._op <> 'd' UNION ALL "
            f"SELECT c._target, 2147483647, -1::HUGEINT, {of('r', columns)} FROM {ground} r JOIN held{n} c ON {held})",
        )

    # --- rows without a key

    def _whole(self, n: str, table: Table, plain: str) -> str:
        parts = [KeyPart(c) for c in table.key]
        new = [sql for p in parts for sql in p.new("r")]
        old = [sql for p in parts for sql in p.old("r", whole=True)]
        images = [f"i{i}" for i in range(len(new))]
        here = ", ".join(f"{sql} AS {i}" for sql, i in zip(new, images, strict=True))
        before = ", ".join(f"{sql} AS {i}" for sql, i in zip(old, images, strict=True))
        self._add(
            f"gone{n}",
            f"SELECT {', '.join(images)}, count(*) AS _times FROM ("
            f"SELECT {here} FROM kept{n} r WHERE _op = 'd' UNION ALL "
            f"SELECT {before} FROM kept{n} r WHERE _op = 'u') GROUP BY ALL",
            "MATERIALIZED",
        )
        self._add(
            f"come{n}",
            f"SELECT {plain}, -1::HUGEINT AS _ord FROM ground{n} r UNION ALL "
            f"SELECT {plain}, r._ord FROM kept{n} r WHERE _op <> 'd'",
            "NOT MATERIALIZED",
        )
        match = _same(zip(new, (f"g.{i}" for i in images), strict=True), null_safe=True)
        window = f"OVER (PARTITION BY {', '.join(new)}"
        self._add(
            f"state{n}",
            f"SELECT {plain} FROM come{n} r ANTI JOIN gone{n} g ON {match} UNION ALL "
            f"SELECT {plain} FROM come{n} r JOIN gone{n} g ON {match} QUALIFY "
            f"row_number() {window} ORDER BY r._ord DESC) <= count(*) {window}) - g._times",
            "NOT MATERIALIZED",
        )
        return f"state{n}"


def _same(pairs: Iterator[tuple[str, str]] | zip[tuple[str, str]], *, null_safe: bool = True) -> str:
    operator = "IS NOT DISTINCT FROM" if null_safe else "="
    return " AND ".join(f"{a} {operator} {b}" for a, b in pairs)


def matching(a: str, b: str, keys: list[str]) -> str:
    return _same((f"{a}.{key}", f"{b}.{key}") for key in keys)


def of(row: str, names: str) -> str:
    """Comma-joined columns of one relation."""
    return ", ".join(f"{row}.{name}" for name in names.split(", "))


def _split(plain: str) -> Iterator[tuple[str, str]]:
    for item in plain.split(", "):
        yield item.removeprefix("r.").strip('"'), item


def _physical(columns: list[Column]) -> list[str]:
    return [c.physical for c in columns]


def lacks(text: str, column: Column) -> str:
    """Whether a `_missing` text names a column."""
    return f"coalesce(contains(',' || {text} || ',', {quote_text(',' + column.physical + ',')}), false)"


def _value(column: Column, place: int) -> str:
    name = quote(column.physical)
    return f"CASE WHEN {lacks('r._missing', column)} THEN f.v{place}.v ELSE r.{name} END"


def _still_missing(wanted: list[Column]) -> str:
    left = ", ".join(
        f"CASE WHEN f.v{i} IS NULL AND {lacks('r._missing', c)} THEN {quote_text(c.physical)} END"
        for i, c in enumerate(wanted)
    )
    return f"nullif(concat_ws(',', {left}), '')"


def _with_exact(wanted: list[Column]) -> str:
    found = [
        (column, f"f.v{i}.x IS NOT NULL AND {lacks('r._missing', column)}", f"f.v{i}.x")
        for i, column in enumerate(wanted)
        if may_be_exact(column.kind)
    ]
    return with_exact("r._exact", found)
