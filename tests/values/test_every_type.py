"""Every type on every way into the lake: the copy's value is the stream's is the one that was sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.values.book import CASES, book, drawn, row_of
from tests.values.lake import Lake, Row
from tests.values.paths import INSERTED, Typed

from claimhouse.postgres.types import TYPES

START = int(os.environ.get("CLAIMHOUSE_VALUES_SEED", "20261130"))
# What a role or a database may say of spellings, and of how its sessions work.
WILD = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "search_path": "wild",
}


def test_every_type_of_the_table_has_values() -> None:
    assert {t.name for t in TYPES} <= {row_of(c) for c in CASES}
    kinds = {row_of(c): {k.kind.partition("(")[0] for k in CASES if row_of(k) == row_of(c)} for c in CASES}
    assert [t.name for t in TYPES if t.kind not in kinds[t.name]] == []


def by_id(rows: list[Row]) -> dict[int, Row]:
    return {row["id"]: row for row in rows}


@pytest.mark.case("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13", "T14", "T16", "L9")
@pytest.mark.parametrize("settings", [{}, WILD], ids=["plain", "wild"])
def test_a_value_is_the_same_by_copy_and_stream_whatever_a_role_sets_between(
    postgres: Any, tmp_path: Path, settings: dict[str, str]
) -> None:
    print("CLAIMHOUSE_VALUES_SEED", START)
    table = Typed(postgres, book(postgres), START)
    table.insert()
    table.insert_empty()
    lake = Lake(postgres.role("LOGIN SUPERUSER"), tmp_path)
    lake.capture()
    for name, value in settings.items():
        for whom in (f"ROLE {postgres.roles[0]}", f"DATABASE {postgres.name}"):
            postgres.execute(f"ALTER {whom} SET {name} = '{value}'")
    table.insert(INSERTED)
    table.update()
    lake.capture()
    log = [row for row in lake.log("public/typed") if row["_op"] in ("r", "c")]
    updated = [row for row in lake.log("public/typed") if row["_op"] == "u"]
    streamed = by_id(log) | by_id(updated)
    wrong = table.wrong("DuckDB", by_id(lake.asked("SELECT * FROM typed")))
    wrong += table.wrong("delta-rs over changes", streamed, exact=True)
    wrong += table.wrong("delta-rs over current", by_id(lake.folded("public/typed")), exact=True)
    assert not wrong, "\n".join(wrong[:20])
    assert len(updated) == table.rows
    assert lake.differences() == []


@pytest.mark.case("O1")
def test_rows_without_a_key_are_told_apart_by_values_of_every_type(postgres: Any, tmp_path: Path) -> None:
    table = Typed(postgres, book(postgres), START + 1, rows=7, name="loose", end="")
    postgres.execute("ALTER TABLE loose REPLICA IDENTITY FULL")
    table.insert()
    table.insert_empty()
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    table.insert(INSERTED)
    table.update()
    postgres.execute(f"DELETE FROM loose WHERE id % {INSERTED} IN (1, 2)")
    lake.capture()
    wrong = table.wrong("DuckDB", by_id(lake.asked("SELECT * FROM loose")))
    assert not wrong, "\n".join(wrong[:20])
    assert lake.differences() == []


KEYS = (
    *("bool", "int8", "float8", "numeric(12,2)", "numeric", "text", "bpchar(12)", "citext", "bytea", "date"),
    *("timestamp", "timestamptz", "mood", "positive", "pair", "int4range", "int8[]", "text[]", "date[]"),
)


@pytest.mark.case("O2")
def test_a_row_is_found_by_a_key_of_every_kind(postgres: Any, tmp_path: Path) -> None:
    cases = [c for c in book(postgres) if c.type in KEYS]
    assert {c.type for c in cases} == {*KEYS}
    keys: dict[str, list[str]] = {}
    for n, case in enumerate(cases):
        postgres.execute(f"CREATE TABLE k{n} (k {case.type} PRIMARY KEY, v int)")
        for text, _ in drawn(case.values, 9, START + 2):
            postgres.execute(f"INSERT INTO k{n} VALUES (%s::{case.type}, 0) ON CONFLICT DO NOTHING", [text])
        keys[f"k{n}"] = [k for (k,) in postgres.execute(f"SELECT format('%s', k) FROM k{n} ORDER BY k")]
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    for n, case in enumerate(cases):
        first, *_, last = keys[f"k{n}"]
        postgres.execute(f"UPDATE k{n} SET v = 1")
        postgres.execute(f"DELETE FROM k{n} WHERE k = %s::{case.type}", [first])
        postgres.execute(f"UPDATE k{n} SET k = %s::{case.type}, v = 2 WHERE k = %s::{case.type}", [first, last])
        postgres.execute(f"INSERT INTO k{n} VALUES (%s::{case.type}, 3)", [last])
    lake.capture()
    for n, case in enumerate(cases):
        held = [v for (v,) in lake.rows(f"SELECT v FROM k{n}")]
        assert held == [1] * (len(keys[f"k{n}"]) - 2) + [2, 3], case.type
    assert lake.differences() == []


@pytest.mark.case("T5", "T6")
def test_a_value_of_megabytes_is_kept_whole_by_copy_and_stream(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, raw bytea, words text, many text[])")
    big = (
        "(SELECT string_agg(decode(md5(g::text), 'hex') || '\\x00', '') FROM generate_series(1, 90000) g),"
        " repeat('é😀\\N', 300000), ARRAY[repeat('a,\"', 400000), NULL, '']"
    )
    postgres.execute(f"INSERT INTO t SELECT 1, {big}")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute(f"INSERT INTO t SELECT 2, {big}; UPDATE t SET id = id + 2")
    lake.capture()
    (raw, words, many) = postgres.execute("SELECT raw, words, many FROM t WHERE id = 3")[0]
    assert len(raw) > 1 << 20
    for row in lake.asked("SELECT * FROM t"):
        assert (row["raw"], row["words"], row["many"]) == (bytes(raw), words, many)
    assert lake.differences() == []


@pytest.mark.case("T14")
def test_a_label_that_comes_later_is_a_value_like_the_others(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN temper AS mood")
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, m mood, d temper, a mood[])")
    postgres.execute("INSERT INTO t VALUES (1, 'sad', 'ok', '{sad,ok}')")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("ALTER TYPE mood ADD VALUE 'quite well' BEFORE 'ok'")
    postgres.execute("INSERT INTO t VALUES (2, 'quite well', 'quite well', '{quite well,NULL}')")
    lake.capture()
    assert lake.rows("SELECT * FROM t WHERE id = 2") == [(2, "quite well", "quite well", ["quite well", None])]
    postgres.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")  # old rows read otherwise, and no event tells
    postgres.execute("INSERT INTO t VALUES (3, 'blue', 'blue', '{}')")
    lake.capture()
    assert lake.rows("SELECT id, m, a FROM t WHERE id <> 2") == [(1, "blue", ["blue", "ok"]), (3, "blue", [])]
    assert lake.differences() == []
