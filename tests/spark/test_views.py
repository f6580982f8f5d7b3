"""Spark's views of a lake are what claimhouse itself reads there, now and at every past position that is flushed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tests.query.book import Book

import claimhouse
import claimhouse.spark
from claimhouse.change import lsn_text
from claimhouse.errors import NotExact, UsageError
from claimhouse.table import Column, Table

pytestmark = pytest.mark.stack

Rows = list[dict[str, Any]]
OURS = ("_end_lsn", "_committed_at", "_missing")


class Life:
    """Random transactions over three tables, one of which gets a column, is truncated and is copied anew on the way."""

    def __init__(self, where: Path, seed: int) -> None:
        self.random, self.book = random.Random(seed), Book(where)
        columns = {"id": "int8", "line": "text", "note": "text", "paid": "decimal(12,2)"}
        self.rows: Rows = [self.row(n) for n in range(8)]
        self.claim = self.book.table("claim", columns, rows=self.rows)
        self.log = self.book.table("log", {"a": "text", "b": "int4"}, key=("a", "b"), identity="full")
        self.event = self.book.table("event", {"a": "text"}, key=(), identity="none", schema="audit")
        self.book.cut()
        self.lines: list[dict[str, Any]] = []
        self.positions: list[int] = []

    def row(self, key: int) -> dict[str, Any]:
        from decimal import Decimal

        made = {"id": key, "line": self.random.choice("mp"), "note": f"long {self.random.random()}"}
        return made | {"paid": Decimal(self.random.randrange(10_000)) / 100}

    def step(self) -> None:
        changes = [self.change(), ("c", self.event, {"a": str(len(self.positions))})]
        if self.lines and self.random.random() < 0.4:
            gone = self.lines.pop(self.random.randrange(len(self.lines)))
            new = {"a": gone["a"], "b": gone["b"] + 1}
            changes.append(self.random.choice([("d", self.log, gone), ("u", self.log, new, gone)]))
            self.lines += [new] if changes[-1][0] == "u" else []
        else:
            self.lines.append({"a": self.random.choice("xy"), "b": 1})
            changes.append(("c", self.log, self.lines[-1]))
        self.positions.append(self.book.commit(*changes))

    def change(self) -> tuple[Any, ...]:
        what, keys = self.random.random(), [r["id"] for r in self.rows]
        if what < 0.3 or not keys:
            self.rows.append(self.row(max([*keys, 100]) + 1))
            return ("c", self.claim, self.rows[-1])
        row = self.rows.pop(self.random.randrange(len(self.rows)))
        if what < 0.45:
            return ("d", self.claim, {"id": row["id"]})
        new = self.row(row["id"])
        if what < 0.65:  # the key changes; all values come along
            new["id"] = max(keys) + 1
            self.rows.append(new)
            return ("u", self.claim, new, {"id": row["id"]})
        self.rows.append({**new, "note": row["note"]})
        return ("u", self.claim, {**new, "note": None}, None, ["note"])

    def evolve(self) -> None:
        place = len(self.claim.columns) + 1
        added = Column("state", "state", place, "text", 25, -1, "text", missing="open", since=self.claim.version + 1)
        self.claim = self.book.evolve(self.claim, [*self.claim.columns, added])

    def truncate(self) -> None:
        self.rows = []
        self.positions.append(self.book.commit(("t", self.claim)))


def embedded(where: Path, at: str, table: str) -> list[str]:
    with claimhouse.open(where, at=at) as lake:
        return sorted(map(repr, (tuple(r.values()) for r in lake.table(table).arrow().to_pylist())))


def in_spark(spark: Any, view: str) -> list[str]:
    rows = spark.table(view).drop(*OURS).toArrow().to_pylist()
    return sorted(map(repr, (tuple(r.values()) for r in rows)))


@pytest.mark.parametrize("seed", [2, 3])
def test_the_state_at_any_flushed_position_is_that_of_the_embedded_engine(
    spark: Any, tmp_path: Path, seed: int
) -> None:
    life = Life(tmp_path, seed)
    for number in range(24):
        life.step()
        if number == 8:
            life.evolve()
        if number == 14 and seed == 2:
            life.truncate()
        if number == 15 and seed == 3:
            life.book.copy(life.claim, [*life.rows])
            life.book.live(life.claim)
        if number % 4 == 3:
            life.book.cut()
        if number == 12:
            life.book.flush()
            life.book.fold(life.claim, life.log)
    life.book.cut()
    life.book.flush()
    newest = claimhouse.spark.flushed(str(tmp_path))
    assert newest == lsn_text(life.positions[-1])
    for lsn in [*life.random.sample(life.positions[:-1], 2), life.positions[-1]]:
        at = lsn_text(lsn)
        made = claimhouse.spark.register(spark, str(tmp_path), at=None if at == newest else at)
        assert sorted(made) == ["audit__event", "claim", "log"]
        assert in_spark(spark, "claim") == embedded(tmp_path, at, "claim"), f"seed {seed} at {at}"
        assert in_spark(spark, "log") == embedded(tmp_path, at, "log"), f"seed {seed} at {at}"
        assert in_spark(spark, "audit__event") == embedded(tmp_path, at, "audit.event"), f"seed {seed} at {at}"
        assert spark.table("claim").where("_missing IS NOT NULL").count() == 0


def test_a_log_has_every_version_up_to_the_position(spark: Any, tmp_path: Path) -> None:
    book, table = lake(tmp_path)
    first = book.commit(("u", table, {"id": 1, "note": "b"}))
    second = book.commit(("d", table, {"id": 1}))
    book.cut()
    book.flush()

    def versions(at: str | None = None) -> list[tuple[Any, ...]]:
        found = claimhouse.spark.log(spark, str(tmp_path), "claim", at=at).orderBy("_end_lsn")
        return [(r["_op"], r["_end_lsn"], r["note"]) for r in found.collect()]

    assert versions() == [("r", 1000, "a"), ("u", first, "b"), ("d", second, None)]
    assert versions(lsn_text(first)) == versions()[:2]


def test_a_value_that_did_not_come_along_with_a_key_change_is_named_not_made_up(spark: Any, tmp_path: Path) -> None:
    book, table = lake(tmp_path)
    book.commit(("c", table, {"id": 2, "note": "another row's"}))
    book.commit(("d", table, {"id": 2}))
    book.commit(("u", table, {"id": 2}, {"id": 1}, ["note"]))
    book.cut()
    book.flush()
    claimhouse.spark.register(spark, str(tmp_path))
    shown = spark.sql("SELECT id, note, _missing FROM claim").collect()
    assert [tuple(r) for r in shown] == [(2, None, "note")]


def test_moments_that_are_not_in_the_flushed_lake_are_refused(spark: Any, tmp_path: Path) -> None:
    book, table = lake(tmp_path)
    place = str(tmp_path)
    with pytest.raises(NotExact, match="has no flush yet"):
        claimhouse.spark.register(spark, place)
    book.commit(("c", table, {"id": 2, "note": "b"}))
    book.cut()
    book.flush()
    with pytest.raises(NotExact, match="not known at") as before:
        claimhouse.spark.register(spark, place, at="0/1")
    assert before.value.hint == "its history begins at 0/3E8"
    later = book.commit(("c", table, {"id": 3, "note": "c"}))
    book.cut()
    with pytest.raises(NotExact, match="is not flushed yet"):
        claimhouse.spark.register(spark, place, at=lsn_text(later))
    with pytest.raises(UsageError, match="there is no table nonsense"):
        claimhouse.spark.log(spark, place, "nonsense")


def lake(where: Path) -> tuple[Book, Table]:
    """A table of one row, copied, in one cut; nothing is flushed."""
    book = Book(where)
    table = book.table("claim", {"id": "int8", "note": "text"}, rows=[{"id": 1, "note": "a"}])
    book.cut()
    return book, table
