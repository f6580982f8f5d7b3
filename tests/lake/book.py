"""A source in plain Python: rows, the log that capture would make of their changes, and what the table was when.

One small table of each identity; positions are 10, 20, 30 …; every change is its own transaction. A copy reads pages at
moments of its own, as the real one does, then reads again by key what the stream brought without its TOAST value.
"""

from __future__ import annotations

import datetime as dt
import decimal
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from claimhouse.change import log_schema, old_name
from claimhouse.lake.registry import Copy, TableState
from claimhouse.table import Column, Table

Row = tuple[Any, ...]
INFINITY = dt.date(9999, 12, 31)


def column(name: str, kind: str, attnum: int, **more: Any) -> Column:
    return Column(name, name, attnum, kind, 1, -1, kind, **more)


def shapes(identity: str) -> list[Table]:
    """Two versions: the second has one more column, with a default that older rows show."""
    key = {"id": 1, "day": 2} if identity == "key" else {}
    first = (
        column("id", "int4", 1, key=key.get("id", 0)),
        column("day", "date", 2, key=key.get("day", 0)),
        column("note", "text", 3),
        column("tags", "list<int4>", 4),
    )
    added = column("paid", "decimal(12,2)", 5, missing="7.50", since=2)
    tables = [
        Table("main", "public", "claim", 1, 1, "key", first),
        Table("main", "public", "claim", 1, 2, "key", (*first, added)),
    ]
    return [replace(table, identity=identity) for table in tables]  # type: ignore[arg-type]


@dataclass
class Book:
    """`truth[lsn]`: the rows (id, day, note, tags, paid) after each change; `log`: log rows as dicts."""

    rng: random.Random
    identity: str
    rows: list[Row] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[int, list[Row]] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    lsn: int = 10
    version: int = 1
    since: list[int] = field(default_factory=lambda: [0])
    begun: int = 0
    _open: tuple[Copy, list[int], set[tuple[Any, ...]]] | None = None

    def __post_init__(self) -> None:
        self.tables = shapes(self.identity)
        self.truth[self.lsn] = []

    @property
    def state(self) -> TableState:
        tables = self.tables[: self.version]
        return TableState(
            1, "public", "claim", "public/claim", "live", versions=tables, since=self.since, copies=self.copies
        )

    def play(self, steps: int) -> None:
        """A random life: changes, at some moments a copy that runs beside them, once a column more."""
        for _ in range(self.rng.randrange(6)):
            self._change(unseen=True)
        self._begin_copy()
        for step in range(steps):
            if self.version == 1 and self._open is None and self.rng.random() < 0.05:
                self._alter()
            self._change()
            if self._open is not None:
                self._read_on()
            elif self.rng.random() < 0.06 and step < steps - 12:
                self._begin_copy()
        while self._open is not None:
            self._read_on()

    # --- the source

    def _change(self, unseen: bool = False) -> None:
        self.lsn += 10
        what = self.rng.random()
        if what < 0.03 and not unseen:
            self.rows, self.pages = [], []
            self._write("t", None)
        elif what < 0.35 or not self.rows:
            self._insert(unseen)
        elif what < 0.5:
            gone = self.rng.randrange(len(self.rows))
            row = self.rows.pop(gone)
            self.pages.pop(gone)
            self._write("d", row, unseen=unseen)
        else:
            self._update(unseen)
        self.truth[self.lsn] = list(self.rows)

    def _key(self) -> tuple[Any, ...]:
        day = self.rng.choice([dt.date(2024, 1, 1), INFINITY, None if self.identity != "key" else INFINITY, "infinity"])
        return self.rng.randrange(5), day

    def _insert(self, unseen: bool) -> None:
        key = self._key()
        if self.identity == "key" and key in [row[:2] for row in self.rows]:
            return
        row = (*key, self._note(), self._tags(), self._paid())
        self.rows.append(row)
        self.pages.append(self.rng.randrange(3))
        self._write("c", row, unseen=unseen)

    def _update(self, unseen: bool) -> None:
        at = self.rng.randrange(len(self.rows))
        old = self.rows[at]
        key = self._key() if self.rng.random() < 0.35 else old[:2]
        if self.identity == "key" and key != old[:2] and key in [row[:2] for row in self.rows]:
            key = old[:2]
        note = self._note() if self.rng.random() < 0.4 else old[2]
        tags = self._tags() if self.rng.random() < 0.4 else old[3]
        row = (*key, note, tags, self._paid() if self.rng.random() < 0.5 else old[4])
        self.rows[at] = row
        self.pages[at] = self.rng.randrange(3)
        self._write("u", row, old, unseen)

    def _note(self) -> str | None:
        return self.rng.choice([None, "short", f"BIG {self.rng.random()}", f"BIG {self.rng.random()}"])

    def _tags(self) -> Any:
        return self.rng.choice([None, [1, None], [self.rng.randrange(9)], f"[0:0]={{{self.rng.randrange(9)}}}"])

    def _paid(self) -> Any:
        return None if self.version == 1 else self.rng.choice([None, "1.25", "NaN"])

    def _alter(self) -> None:
        self.version = 2
        self.rows = [(*row[:4], "7.50") for row in self.rows]
        self.lsn += 10
        self.since = [0, self.lsn]
        self.truth[self.lsn] = list(self.rows)

    # --- what capture makes of it

    def _write(self, op: str, row: Row | None, old: Row | None = None, unseen: bool = False) -> None:
        if unseen or (self.identity == "none" and op in "ud"):
            return
        missing: list[str] = []
        if op == "u" and self.identity == "key" and row is not None and old is not None:
            big = [("note", 2, lambda v: str(v).startswith("BIG")), ("tags", 3, lambda v: v is not None)]
            missing = [name for name, at, large in big if large(old[at]) and row[at] == old[at]]
            if missing and self._open is not None:
                self._open[2].add(row[:2])
        if op == "d" and self.identity == "key" and row is not None:
            row = (*row[:2], None, None, None)
        self._add(op, row, old, missing, {})

    def _add(self, op: str, row: Row | None, old: Row | None, missing: list[str], more: dict[str, Any]) -> None:
        table = self.tables[self.version - 1]
        exact: dict[str, str] = {}
        values: dict[str, Any] = {}
        for at, c in enumerate(table.columns):
            if row is not None and c.physical not in missing:
                values[c.physical] = _kept(row[at], c, c.physical, exact)
            if (
                old is not None
                and row is not None
                and c in table.key
                and (self.identity == "full" or old[:2] != row[:2])
            ):
                values[old_name(c.physical)] = _kept(old[at], c, old_name(c.physical), exact)
        made = {"_op": op, "_end_lsn": self.lsn, "_seq": len(self.log), "_xid": self.lsn, "_schema": self.version}
        made |= {"_committed_at": self.lsn, "_incarnation": 1, "_cut": self.lsn // 10, "_copy": None, "_missing": None}
        made |= {"_exact": list(exact.items()) or None}
        if missing:
            made["_missing"] = ",".join(missing)
        self.log.append(made | values | more)

    # --- copies

    def _begin_copy(self) -> None:
        self.begun += 1
        copy = Copy(self.begun, 1, self.lsn)
        self.copies = [*self.copies, copy]
        self._open = (copy, [0, 1, 2], set())

    def _read_on(self) -> None:
        """Maybe the next page, in the end the keys that lack values, all at once; then H."""
        assert self._open is not None
        copy, pages, lacking = self._open
        if self.identity != "key":  # one snapshot
            self._take(copy, self.rows)
            copy.at = self.lsn
        elif self.rng.random() < 0.3 and pages:
            page = pages.pop(0)
            self._take(copy, [row for row, at in zip(self.rows, self.pages, strict=True) if at == page])
            return
        elif pages:
            return
        else:
            self._take(copy, [row for row in self.rows if row[:2] in lacking])
        copy.exact_from = self.lsn
        for entry in self.log:
            if entry["_copy"] == copy.number:
                entry["_end_lsn"] = copy.at
        self._open = None

    def _take(self, copy: Copy, rows: list[Row]) -> None:
        for row in rows:
            self._add("r", row, None, [], {"_copy": copy.number, "_xid": None})

    # --- comparing

    def table(self, rows: list[dict[str, Any]]) -> pa.Table:
        fields: dict[str, pa.Field] = {}
        for table in self.tables[: self.version]:
            fields |= {f.name: f for f in log_schema(table) if f.name not in fields}
        return pa.Table.from_pylist(rows, pa.schema(list(fields.values())))

    def shown(self, lsn: int) -> list[str]:
        """The true rows at a position, as comparable text."""
        at = max(p for p in self.truth if p <= lsn)
        width = len(self.state.shape_at(lsn).columns)
        return sorted(repr(tuple(row[:width])) for row in self.truth[at])

    def visible(self) -> list[int]:
        """Positions at which the table is right."""
        first = min((c.exact_from for c in self.copies if c.exact_from is not None), default=None)
        return [p for p in self.truth if first is not None and p >= first]


def _kept(value: Any, column: Column, name: str, exact: dict[str, str]) -> Any:
    if isinstance(value, str) and column.kind != "text":
        if column.kind.startswith("decimal") and value != "NaN":
            return decimal.Decimal(value)
        exact[name] = value
        return INFINITY if column.kind == "date" else None
    return value


def found(rows: list[dict[str, Any]], table: Table) -> list[str]:
    """A state's rows as `Book.shown` writes them."""
    out = []
    for row in rows:
        exact = dict(row["_exact"] or [])
        values = [exact.get(c.physical, row[c.physical]) for c in table.columns]
        if len(values) == 5 and not isinstance(values[4], str | None):
            values[4] = str(values[4])
        out.append(repr(tuple(values)))
    return sorted(out)
