"""What differs between a table's state at two moments: by key, and by column where a row changed.

Both states are read once, joined by key in DuckDB. A column that only one of the moments has counts as changed in no
row: it is named by the shapes. Values come along for the rows that are told one by one, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import duckdb

from claimhouse.errors import QueryError
from claimhouse.query import render
from claimhouse.query.guard import quote
from claimhouse.query.names import TableName
from claimhouse.query.session import Session

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
    kinds = {c.name: c.kind for c in shapes[0].columns}
    same = {c.name: kinds[c.name] == c.kind for c in shapes[1].columns if c.name in kinds}
    shared = [name for name in same if name not in keys[1]]
    here = _free([c.name for shape in shapes for c in shape.columns])
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        path = (table.source, table.schema, table.name)
        for name, session in (("o", old), ("n", new)):
            db.register(f"{name}_rows", session.table(path).arrow())
            db.execute(f"CREATE TABLE {name} AS SELECT *, true AS {here} FROM {name}_rows")
        rows = _compared(db, keys[1], shared, same, here)
        found = [_row(row, keys[1], shared) for row in rows]
        told = _with_values(db, [(row, ids[:2]) for row, ids in zip(found[:values], rows, strict=False)], shared)
    found = [*told, *found[values:]]
    counts = {kind: sum(r.kind == kind for r in found) for kind in ("added", "removed", "changed")}
    return Difference(
        state.label, str(begin), str(end), counts["added"], counts["removed"], counts["changed"], tuple(found)
    )


def _compared(
    db: duckdb.DuckDBPyConnection, key: list[str], shared: list[str], same: Mapping[str, bool], here: str
) -> list[tuple[Any, ...]]:
    """(row of o, row of n, which columns differ, the key's values) of each pair that differs, by key."""

    def sides(name: str) -> tuple[str, str]:
        """A column at both moments; of another type then, as text: no type holds all values of both."""
        values = (f"o.{quote(name)}", f"n.{quote(name)}")
        return values if same[name] else (f"CAST({values[0]} AS VARCHAR)", f"CAST({values[1]} AS VARCHAR)")

    match = " AND ".join(" IS NOT DISTINCT FROM ".join(sides(k)) for k in key)
    flags = [" IS DISTINCT FROM ".join(sides(c)) for c in shared]
    shown = ", ".join(f"coalesce({', '.join(sides(k))}) AS k{i}" for i, k in enumerate(key))
    return db.execute(
        f"SELECT CASE WHEN o.{here} THEN o.rowid END, CASE WHEN n.{here} THEN n.rowid END,"
        f" [{', '.join(flags) or 'false'}], {shown} FROM o FULL JOIN n ON {match}"
        f" WHERE o.{here} IS NULL OR n.{here} IS NULL{''.join(' OR ' + f for f in flags)}"
        f" ORDER BY {', '.join(f'k{i}' for i in range(len(key)))}"
    ).fetchall()


def _free(taken: list[str]) -> str:
    """A column name that the table does not have."""
    name = "_here"
    while name in {t.lower() for t in taken}:
        name += "_"
    return name


def _row(row: tuple[Any, ...], key: list[str], shared: list[str]) -> RowDifference:
    went, came, differs, *values = row
    kind = "added" if went is None else "removed" if came is None else "changed"
    names = tuple(c for c, d in zip(shared, differs, strict=False) if d) if kind == "changed" else ()
    return RowDifference(kind, dict(zip(key, values, strict=True)), names)


def _with_values(
    db: duckdb.DuckDBPyConnection, rows: list[tuple[RowDifference, tuple[Any, ...]]], shared: list[str]
) -> list[RowDifference]:
    """The rows with their values, each side read once."""
    if not shared:
        return [row for row, _ in rows]
    texts = ", ".join(f"CAST({quote(c)} AS VARCHAR)" for c in shared)
    sides: list[dict[int, Values]] = []
    for place, name in enumerate(("o", "n")):
        wanted = [ids[place] for _, ids in rows if ids[place] is not None]
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
