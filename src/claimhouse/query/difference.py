"""What differs between a table's state at two moments: by key, and by column where a row changed.

Both states are read once, joined by key in DuckDB. A column that only one of the moments has counts as changed in no
row: it is named by the shapes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from claimhouse.errors import QueryError
from claimhouse.query import render
from claimhouse.query.guard import quote
from claimhouse.query.names import TableName
from claimhouse.query.session import Session


@dataclass(frozen=True, slots=True)
class RowDifference:
    """`kind`: added, removed, changed; `columns` that differ, for changed rows."""

    kind: str
    key: dict[str, Any]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs in one table, counted; `rows` in order of the key."""

    table: str
    added: int
    removed: int
    changed: int
    rows: tuple[RowDifference, ...]

    def to_json(self, limit: int) -> dict[str, Any]:
        rows = [{**asdict(r), "key": render.single(r.key)} for r in self.rows[:limit]]
        return {**asdict(self), "rows": rows}


def difference(old: Session, new: Session, table: TableName) -> Difference:
    """The rows of a keyed table that differ. Raises QueryError (no key, or another key then), NotExact, LakeError."""
    state = new.states[table]
    shapes = [s.states[table].shape_at(s.positions[table.source].lsn) for s in (old, new)]
    keys = [[c.name for c in shape.key] for shape in shapes]
    if shapes[1].identity != "key" or keys[0] != keys[1]:
        raise QueryError(f"rows of {state.label} cannot be paired: it has no key, or had another one then")
    kinds = {c.name: c.kind for c in shapes[0].columns}
    then = {c.name: kinds[c.name] == c.kind for c in shapes[1].columns if c.name in kinds}
    shared = [name for name in then if name not in keys[1]]
    path = (table.source, table.schema, table.name)

    def sides(name: str) -> tuple[str, str]:
        """A column at both moments; of another type then, as text: no type holds all values of both."""
        values = (f"o.{quote(name)}", f"n.{quote(name)}")
        return values if then[name] else (f"CAST({values[0]} AS VARCHAR)", f"CAST({values[1]} AS VARCHAR)")

    match = " AND ".join(" IS NOT DISTINCT FROM ".join(sides(k)) for k in keys[1])
    flags = [" IS DISTINCT FROM ".join(sides(c)) for c in shared]
    shown = ", ".join(f"coalesce({', '.join(sides(k))}) AS k{i}" for i, k in enumerate(keys[1]))
    order = ", ".join(f"k{i}" for i in range(len(keys[1])))
    here = _free([c.name for shape in shapes for c in shape.columns])
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for name, session in (("o", old), ("n", new)):
            db.register(f"{name}_rows", session.table(path).arrow())
            db.execute(f"CREATE TABLE {name} AS SELECT *, true AS {here} FROM {name}_rows")
        rows = db.execute(
            f"SELECT o.{here} IS NULL, n.{here} IS NULL, [{', '.join(flags) or 'false'}], {shown}"
            f" FROM o FULL JOIN n ON {match}"
            f" WHERE o.{here} IS NULL OR n.{here} IS NULL{''.join(' OR ' + f for f in flags)} ORDER BY {order}"
        ).fetchall()
    found: list[RowDifference] = []
    for came, went, differs, *key in rows:
        kind = "added" if came else "removed" if went else "changed"
        names = tuple(c for c, d in zip(shared, differs, strict=False) if d) if kind == "changed" else ()
        found.append(RowDifference(kind, dict(zip(keys[1], key, strict=True)), names))
    counts = {kind: sum(r.kind == kind for r in found) for kind in ("added", "removed", "changed")}
    return Difference(state.label, counts["added"], counts["removed"], counts["changed"], tuple(found))


def _free(taken: list[str]) -> str:
    """A column name that the table does not have."""
    name = "_here"
    while name in {t.lower() for t in taken}:
        name += "_"
    return name
