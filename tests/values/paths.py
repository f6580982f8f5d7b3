"""One wide table with a column of every case of the value book, followed on all its ways into the lake.

A row comes by the copy, by an INSERT and by an UPDATE in the stream. Each reader's rows are held against what was
sent, or where only PostgreSQL knows its spelling, against what the server prints in a session of ours.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from psycopg import sql
from tests.values.book import AS_TEXT, EXACT, Case, Pair, drawn, filled

from claimhouse.postgres.server import connect

INSERTED, UPDATED = 1000, 2000  # what is added to the number of a row that came so
_LOW, _HIGH = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)
_STAND_INS: dict[str, tuple[Any, Any]] = {
    "date": (date(1, 1, 1), date(9999, 12, 31)),
    "timestamp": (_LOW, _HIGH),
    "timestamptz": (_LOW.replace(tzinfo=UTC), _HIGH.replace(tzinfo=UTC)),
}


@dataclass
class Typed:
    """The table `name`, column `c0`, `c1`, … for each case, `rows` rows of `start`'s values by each way."""

    postgres: Any
    cases: list[Case]
    start: int
    rows: int = 10
    name: str = "typed"
    end: str = ", PRIMARY KEY (id)"
    values: list[list[Pair]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = [filled(drawn(c.values, self.rows - 1, self.start), self.rows) for c in self.cases]
        columns = "".join(f", c{n} {case.type}" for n, case in enumerate(self.cases))
        self.postgres.execute(f"CREATE TABLE {self.name} (id int NOT NULL{columns}{self.end})")

    @property
    def columns(self) -> list[str]:
        return [f"c{n}" for n in range(len(self.cases))]

    def insert(self, offset: int = 0) -> None:
        """All rows, numbered from `offset`."""
        cells = ", ".join(f"%s::{case.type}" for case in self.cases)
        with self.postgres.conn.cursor() as cursor, self.postgres.conn.transaction():
            cursor.executemany(f"INSERT INTO {self.name} VALUES (%s, {cells})", list(self._sent(offset)))

    def insert_empty(self) -> None:
        """The rows that an UPDATE fills later."""
        self.postgres.execute(
            f"INSERT INTO {self.name} (id) SELECT n FROM generate_series({UPDATED}, {UPDATED + self.rows - 1}) n"
        )

    def update(self) -> None:
        cells = ", ".join(f"c{n} = %s::{case.type}" for n, case in enumerate(self.cases))
        with self.postgres.conn.cursor() as cursor, self.postgres.conn.transaction():
            for number, *values in self._sent(UPDATED):
                cursor.execute(f"UPDATE {self.name} SET {cells} WHERE id = %s", [*values, number])

    def _sent(self, offset: int) -> Iterable[list[Any]]:
        for n in range(self.rows):
            yield [offset + n, *(pairs[n][0] for pairs in self.values)]

    def expected(self) -> dict[int, list[tuple[Any, str | None]]]:
        """By row number, (value, text in `_exact`) of each column."""
        spelled = "CASE WHEN {0} IS DISTINCT FROM NULL THEN format('%s', {0}) END"
        each = (
            "CASE WHEN {0} IS NOT NULL THEN ARRAY(SELECT "
            + spelled.format("{0}[i]")
            + (" FROM generate_subscripts({0}, 1) i ORDER BY i) END")
        )
        cells = [spelled.format(c) for c in self.columns]
        cells += [each.format(c) if self._of_text(k) else "NULL" for c, k in zip(self.columns, self.cases, strict=True)]
        query = sql.SQL("SELECT id, {} FROM public.{} ORDER BY id").format(
            sql.SQL(", ").join(map(sql.SQL, cells)),
            sql.Identifier(self.name),  # type: ignore[arg-type]
        )
        with connect(self.postgres.dsn) as conn:
            found = conn.execute(query).fetchall()
        many = len(self.cases)
        return {r[0]: self._row(r[0], r[1 : many + 1], r[many + 1 :]) for r in found}

    def _row(self, number: int, texts: Any, elements: Any) -> list[tuple[Any, str | None]]:
        sent = [pairs[number % INSERTED][1] for pairs in self.values]
        return [_cell(c, *told) for c, *told in zip(self.cases, sent, texts, elements, strict=True)]

    @staticmethod
    def _of_text(case: Case) -> bool:
        return case.kind == "list<text>"

    def wrong(
        self,
        reader: str,
        rows: Mapping[int, Mapping[str, Any]],
        *,
        exact: bool = False,
        known: Callable[[Any], Any] = lambda value: value,
    ) -> list[str]:
        """What a reader of the lake (its rows by number) has that was not sent; `exact`: with `_exact` beside.

        `known`: what the reader's engine can know of a value.
        """
        expected = self.expected()
        if rows.keys() != expected.keys():
            return [f"{reader} has {len(rows)} rows of {len(expected)}"]
        found: list[str] = []
        for number, cells in expected.items():
            kept = dict(rows[number].get("_exact") or ())
            for column, case, (value, text) in zip(self.columns, self.cases, cells, strict=True):
                held = rows[number][column]
                if not same(held, known(value)):
                    found.append(f"{reader}, row {number}, {case.type}: {held!r} and not {known(value)!r}")
                if exact and kept.get(column) != text:
                    found.append(f"{reader}, row {number}, {case.type}: {kept.get(column)!r} in _exact, not {text!r}")
        return found


def _cell(case: Case, sent: Any, text: str | None, elements: list[str | None] | None) -> tuple[Any, str | None]:
    if text is None:
        return None, None
    if sent is AS_TEXT:
        return text, None
    if isinstance(sent, list) and AS_TEXT in sent:
        return elements, None
    if sent is not EXACT:
        return sent, None
    low, high = _STAND_INS.get(case.kind, (None, None))
    return (low if text.startswith("-") or text.endswith("BC") else high), text


def same(found: Any, expected: Any) -> bool:
    """Equal in type and value; floats bit by bit."""
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float) and isinstance(found, float):
        return struct.pack("d", found) == struct.pack("d", expected) or (math.isnan(found) and math.isnan(expected))
    if isinstance(expected, datetime) and isinstance(found, datetime):
        return (found.tzinfo is None) == (expected.tzinfo is None) and found == expected
    return type(found) is type(expected) and found == expected
