"""What differs between a table's state at two moments: by key, and by column where a row changed.

Both states are read once, joined by key in DuckDB. A column that only one of the moments has counts as changed in no
row: it is named by the shapes. A value that its column cannot hold (infinity, NaN in a decimal) is compared and told by
its exact text. Values come along for the rows that are told one by one, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import duckdb

from claimhouse.errors import QueryError
from claimhouse.lake.state import may_be_exact
from claimhouse.query import render
from claimhouse.query.names import TableName, free_name
from claimhouse.query.session import Session
from claimhouse.quoting import quote, quote_text
from claimhouse.table import Column

Values = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class RowDifference:
    """`kind`: added, removed, changed; `columns` that differ, for changed rows.

    `before` and `after` hold values as text: of a changed row those of its `columns`, else of all; empty where they
    were not asked for.
    """

    kind: str
    key: dict[str, Any]
    columns: tuple[str, ...] = ()
    before: Values = field(default_factory=dict)
    after: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs in one table, counted; `rows` in order of the key. `begin` and `end` are positions."""

    table: str
    begin: str
    end: str
    added: int
    removed: int
    changed: int
    rows: tuple[RowDifference, ...]

    def to_json(self, limit: int) -> dict[str, Any]:
        return {**asdict(self), "rows": [{**asdict(r), "key": render.single(r.key)} for r in self.rows[:limit]]}


def difference(old: Session, new: Session, table: TableName, values: int = 0) -> Difference:
    """The rows of a keyed table that differ, with values for the first so many.

    Raises QueryError (no key, or another key then), NotExact, LakeError.
    """
    state = new.states[table]
    begin, end = (s.positions[table.source] for s in (old, new))
    shapes = [s.states[table].shape_at(s.positions[table.source].lsn) for s in (old, new)]
    keys = [[c.name for c in shape.key] for shape in shapes]
    if shapes[1].identity != "key" or keys[0] != keys[1]:
        raise QueryError(f"rows of {state.label} cannot be paired: it has no key, or had another one then")
    names = [c.name for shape in shapes for c in shape.columns]
    exact, here = free_name("_exact", names), free_name("_here", names)
    before = {c.name: c for c in shapes[0].columns}
    both = {c.name: _Both(before[c.name], c, exact) for c in shapes[1].columns if c.name in before}
    key = {name: both.pop(name) for name in keys[1]}
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for name, session in (("o", old), ("n", new)):
            rows = session.exact(table).arrow()
            db.register("rows", rows)
            beside = f"{quote(rows.column_names[-1])} AS {exact}, true AS {here}"
            db.execute(f"CREATE TABLE {name} AS SELECT * EXCLUDE ({quote(rows.column_names[-1])}), {beside} FROM rows")
            db.unregister("rows")
        rows = _compared(db, key, both, here)
        found = [_row(row, [*key], [*both]) for row in rows]
        told = _with_values(db, [(row, ids[:2]) for row, ids in zip(found[:values], rows, strict=False)], both)
    found = [*told, *found[values:]]
    counts = {kind: sum(r.kind == kind for r in found) for kind in ("added", "removed", "changed")}
    return Difference(
        state.label, str(begin), str(end), counts["added"], counts["removed"], counts["changed"], tuple(found)
    )


@dataclass(frozen=True, slots=True)
class _Both:
    """A column at both moments, `o` and `n`, as SQL; `exact` is what tables o and n call their `_exact`.

    Where one of the kinds has values that only `_exact` tells apart, their texts count beside the values.
    """

    old: Column
    new: Column
    exact: str

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What must be the same at both moments; of another type then, the text: no type holds all values of both."""
        if self.old.kind != self.new.kind:
            return [(self.text("o"), self.text("n"))]
        name = quote(self.new.name)
        return [(f"o.{name}", f"n.{name}"), *([self.exacts] if may_be_exact(self.new.kind) else [])]

    @property
    def shown(self) -> str:
        """Its value where the rows of both moments agree in it, or there is but one."""
        return f"coalesce({', '.join(self.pairs[0])})"

    @property
    def exacts(self) -> tuple[str, str]:
        """Exact texts, NULL where a column holds the value itself."""
        return self._exact_text("o"), self._exact_text("n")

    def text(self, side: str) -> str:
        return f"coalesce({self._exact_text(side)}, CAST({side}.{quote(self.new.name)} AS VARCHAR))"

    def _exact_text(self, side: str) -> str:
        return f"{side}.{self.exact}[{quote_text((self.old if side == 'o' else self.new).physical)}]"


def _compared(
    db: duckdb.DuckDBPyConnection, key: Mapping[str, _Both], shared: Mapping[str, _Both], here: str
) -> list[tuple[Any, ...]]:
    """(row of o, row of n, which columns differ, the key's values and their exact texts) of each that differs, by key.

    A pair of rows is one of the same key.
    """
    match = " AND ".join(f"{o} IS NOT DISTINCT FROM {n}" for k in key.values() for o, n in k.pairs)
    flags = [f"({' OR '.join(f'{o} IS DISTINCT FROM {n}' for o, n in c.pairs)})" for c in shared.values()]
    shown = [f"{k.shown}, coalesce({', '.join(k.exacts)})" for k in key.values()]
    order = [f"{place}, {place + 1} NULLS FIRST" for place in range(4, 4 + 2 * len(key), 2)]
    return db.execute(
        f"SELECT CASE WHEN o.{here} THEN o.rowid END, CASE WHEN n.{here} THEN n.rowid END,"
        f" [{', '.join(flags) or 'false'}], {', '.join(shown)} FROM o FULL JOIN n ON {match}"
        f" WHERE o.{here} IS NULL OR n.{here} IS NULL{''.join(f' OR {f}' for f in flags)}"
        f" ORDER BY {', '.join(order)}"
    ).fetchall()


def _row(row: tuple[Any, ...], key: list[str], shared: list[str]) -> RowDifference:
    went, came, differs, *told = row
    kind = "added" if went is None else "removed" if came is None else "changed"
    names = tuple(c for c, d in zip(shared, differs, strict=False) if d) if kind == "changed" else ()
    values = [value if exact is None else exact for value, exact in zip(told[::2], told[1::2], strict=True)]
    return RowDifference(kind, dict(zip(key, values, strict=True)), names)


def _with_values(
    db: duckdb.DuckDBPyConnection, rows: list[tuple[RowDifference, tuple[Any, ...]]], shared: Mapping[str, _Both]
) -> list[RowDifference]:
    """The rows with their values, each side read once."""
    if not shared:
        return [row for row, _ in rows]
    sides: list[dict[int, Values]] = []
    for place, name in enumerate(("o", "n")):
        wanted = [ids[place] for _, ids in rows if ids[place] is not None]
        texts = ", ".join(column.text(name) for column in shared.values())
        read = db.execute(
            f"SELECT rowid, {texts} FROM {name} WHERE rowid IN (SELECT unnest(?::BIGINT[]))", [wanted]
        ).fetchall()
        sides.append({number: dict(zip(shared, values, strict=True)) for number, *values in read})
    told = []
    for row, (went, came) in rows:
        before, after = sides[0].get(went, {}), sides[1].get(came, {})
        if row.kind == "changed":
            before, after = ({c: side[c] for c in row.columns} for side in (before, after))
        told.append(replace(row, before=before, after=after))
    return told
