"""A change travels from postgres to trino, and stays exact through kills, replays and schema changes. Real engines."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.stack.conftest import until

from claimhouse.distributed.native import Stack
from claimhouse.distributed.status import hops

pytestmark = pytest.mark.stack
VIEW = "main__public"


def in_trino(stack: Stack, table: str, columns: str = "*", order: str = "1, 2") -> list[tuple[Any, ...]]:
    return stack.trino.run(f"SELECT {columns} FROM {VIEW}.{table} ORDER BY {order}")


def in_source(source: psycopg.Connection[Any], table: str, columns: str, order: str = "1, 2") -> list[tuple[Any, ...]]:
    rows = source.execute(f"SELECT {columns} FROM {table} ORDER BY {order}".encode()).fetchall()  # type: ignore[arg-type]
    return [tuple(str(v) if isinstance(v, Decimal) else v for v in row) for row in rows]


CLAIM_SOURCE = "id, status, amount, opened::text, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'), note, ok"
CLAIM_TRINO = "id, status, amount, CAST(opened AS varchar), format_datetime(at, 'yyyy-MM-dd HH:mm:ss.SSS'), note, ok"


def equal(stack: Stack, source: psycopg.Connection[Any], within: float = 180) -> None:
    """All three tables are the same in PostgreSQL and in Trino."""

    def same() -> bool:
        assert in_trino(stack, "claim", CLAIM_TRINO) == in_source(source, "claim", CLAIM_SOURCE)
        assert in_trino(stack, "line", "claim, no, amount") == in_source(source, "line", "claim, no, amount")
        assert in_trino(stack, "log", "a, b") == in_source(source, "log", "a, b")
        return True

    until(same, within=within)


def flushed(stack: Stack, source: psycopg.Connection[Any], within: float = 240) -> None:
    """What is committed by now is in the lake, not only in its tail."""
    row = source.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").fetchone()
    assert row is not None
    source.execute("INSERT INTO log VALUES ('flushed', 1)")  # an idle source gives nothing to flush

    def reached() -> bool:
        return json.loads((stack.folder / "run" / "job.json").read_text())["flush"]["end_lsn"] >= row[0]

    until(reached, within=within)


def test_rows_older_than_the_stack_are_copied(stack: Stack, source: psycopg.Connection[Any]) -> None:
    equal(stack, source, within=300)


def test_a_change_travels_from_postgres_to_trino(stack: Stack, source: psycopg.Connection[Any]) -> None:
    with source.transaction():
        source.execute(
            "INSERT INTO claim (id, status, amount, ok) VALUES (1000, 'new', 10.50, true) ON CONFLICT DO NOTHING"
        )
        source.execute("INSERT INTO line VALUES (1000, 1, 4.25), (1000, 2, 6.25) ON CONFLICT DO NOTHING")
        source.execute("INSERT INTO log VALUES ('1000', 1)")
    source.execute("UPDATE claim SET status = 'paid', note = NULL WHERE id = 7")
    source.execute("DELETE FROM line WHERE claim = 9")
    source.execute("DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log WHERE a = 'x')")
    equal(stack, source)


@pytest.mark.case("O2", "O3")
def test_a_key_change_is_one_update_and_keeps_values_that_did_not_come_along(
    stack: Stack, source: psycopg.Connection[Any]
) -> None:
    source.execute("ALTER TABLE claim ALTER COLUMN note SET STORAGE EXTERNAL")
    source.execute("UPDATE claim SET note = repeat('toast ', 2000) WHERE id = 11")
    source.execute("UPDATE claim SET status = 'toasted' WHERE id = 11")
    source.execute("UPDATE claim SET id = 1011 WHERE id = 12")
    source.execute("UPDATE line SET claim = 1011 WHERE claim = 12")
    equal(stack, source)


@pytest.mark.case("O5")
def test_truncate_empties_and_what_follows_it_stays(stack: Stack, source: psycopg.Connection[Any]) -> None:
    with source.transaction():
        source.execute("TRUNCATE log")
        source.execute("INSERT INTO log VALUES ('after', 1), ('after', 1)")
    equal(stack, source)


def test_no_reader_sees_half_a_transaction(stack: Stack, source: psycopg.Connection[Any]) -> None:
    """Every transaction moves an amount between two tables: their sum never changes."""
    total = "SELECT (SELECT sum(amount) FROM claim) + (SELECT sum(amount) FROM line)"
    expected = str(source.execute(total.encode()).fetchone()[0])  # type: ignore[index]
    query = f"SELECT (SELECT sum(amount) FROM {VIEW}.claim) + (SELECT sum(amount) FROM {VIEW}.line)"
    seen: set[str] = set()
    for number in range(40):
        with source.transaction():
            source.execute("UPDATE claim SET amount = amount - 1 WHERE id = %s", (20 + number,))
            source.execute("UPDATE line SET amount = amount + 1 WHERE claim = %s", (20 + number,))
        if number % 5 == 0:
            seen.add(stack.trino.run(query)[0][0])
    assert seen == {expected}
    equal(stack, source)


@pytest.mark.case("K1", "K2")
def test_exact_through_kills_of_spark_connect_and_the_broker(stack: Stack, source: psycopg.Connection[Any]) -> None:
    for round_, killed in enumerate(("spark", "connect", "kafka")):
        for number in range(60):
            with source.transaction():
                source.execute("INSERT INTO log VALUES (%s, %s)", (f"r{round_}", number))
                source.execute("UPDATE claim SET status = %s WHERE id = %s", (f"r{round_}-{number}", 1 + number))
            if number == 20:
                stack.process(killed).kill()
            if number == 40:
                stack.up(["kafka", "connect", "spark"])
    equal(stack, source, within=400)


def test_an_added_column_arrives_with_its_default_for_old_rows(stack: Stack, source: psycopg.Connection[Any]) -> None:
    source.execute("ALTER TABLE line ADD COLUMN IF NOT EXISTS currency text NOT NULL DEFAULT 'EUR'")
    source.execute("INSERT INTO line (claim, no, amount, currency) VALUES (2000, 1, 1, 'USD') ON CONFLICT DO NOTHING")

    def same() -> bool:
        columns = "claim, no, amount, currency"
        assert in_trino(stack, "line", columns) == in_source(source, "line", columns)
        return True

    until(same, within=240)


@pytest.mark.case("S2")
def test_a_rewrite_without_events_is_compared_and_only_what_differs_comes(
    stack: Stack, source: psycopg.Connection[Any]
) -> None:
    import claimhouse
    from claimhouse.distributed.topology import s3_options

    source.execute("UPDATE claim SET status = upper(status) WHERE id > 3")
    equal(stack, source)
    source.execute("ALTER TABLE claim ALTER COLUMN status TYPE text USING upper(status)")
    equal(stack, source, within=240)
    log = "SELECT _op, count(*) AS rows FROM claim__log WHERE _op <> 'r' AND _xid IS NULL GROUP BY ALL"
    with claimhouse.open(stack.topology.lake, options=s3_options(stack.topology, stack.secrets)) as lake:
        (found,) = lake.sql(log).arrow().to_pylist()
    (total,) = source.execute("SELECT count(*) FROM claim").fetchone() or (0,)
    assert found["_op"] == "u"
    assert 0 < found["rows"] < total / 2


def test_a_new_table_arrives_and_says_what_debezium_loses_of_it(stack: Stack, source: psycopg.Connection[Any]) -> None:
    from claimhouse.distributed.topology import s3_options
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.status import status

    source.execute("CREATE TABLE IF NOT EXISTS adjuster (id int PRIMARY KEY, name text, rate money)")
    source.execute("INSERT INTO adjuster VALUES (1, 'Ada', 1), (2, 'Grace', 2) ON CONFLICT DO NOTHING")
    until(lambda: in_trino(stack, "adjuster", "id, name") == [(1, "Ada"), (2, "Grace")], within=300)
    told = status(open_lake(stack.topology.lake, s3_options(stack.topology, stack.secrets))).sources[0].tables
    lossy = {t.name: list(t.lossy) for t in told}
    assert (lossy["adjuster"], lossy["line"]) == (["rate"], [])


def test_a_glue_that_forgot_is_filled_again_by_register(stack: Stack, source: psycopg.Connection[Any]) -> None:
    stack.process("glue").kill()
    stack.start("glue")
    assert stack.register() >= 3
    equal(stack, source)


@pytest.mark.case("L9")
def test_the_embedded_reader_reads_the_same_lake(stack: Stack, source: psycopg.Connection[Any]) -> None:
    """One lake, whichever runtime wrote it: DuckDB over the flushed cuts gives PostgreSQL's rows."""
    import claimhouse
    from claimhouse.distributed.topology import s3_options

    def same() -> bool:
        with claimhouse.open(stack.topology.lake, options=s3_options(stack.topology, stack.secrets)) as lake:
            rows = lake.sql("SELECT claim, no, amount::varchar AS amount FROM line ORDER BY 1, 2").arrow().to_pylist()
        assert [tuple(r.values()) for r in rows] == in_source(source, "line", "claim, no, amount")
        return True

    until(same, within=120)


def test_spark_reads_the_flushed_rows_by_temporary_views(stack: Stack, source: psycopg.Connection[Any]) -> None:
    from claimhouse.distributed.job import spark_session
    from claimhouse.distributed.topology import s3_options
    from claimhouse.spark import register

    flushed(stack, source)
    spark = spark_session(stack.topology, stack.secrets, stack.folder / "notebook")
    try:

        def same() -> bool:
            made = register(spark, stack.topology.lake, storage_options=s3_options(stack.topology, stack.secrets))
            assert {"claim", "line", "log"} <= set(made)
            lines = spark.sql("SELECT claim, no, CAST(amount AS string) FROM line ORDER BY 1, 2").collect()
            assert [tuple(r) for r in lines] == in_source(source, "line", "claim, no, amount")
            notes = spark.sql("SELECT id, note FROM claim ORDER BY 1").collect()
            assert [tuple(r) for r in notes] == in_source(source, "claim", "id, note", "1")
            assert [tuple(r) for r in spark.sql("SELECT a, b FROM log ORDER BY 1, 2").collect()] == in_source(
                source, "log", "a, b"
            )
            return True

        until(same, within=480, every=2)
    finally:
        spark.stop()


def test_every_hop_reports_well(stack: Stack) -> None:
    def well() -> bool:
        ill = [h for h in hops(stack.topology, stack.folder / "run" / "job.json") if not h.ok]
        assert not ill, ill
        return True

    until(well, within=60)


def test_no_secret_stands_in_logs_or_in_connects_answers(stack: Stack) -> None:
    planted = [stack.secrets.postgres, stack.secrets.s3_secret]
    texts = [p.read_text(errors="replace") for p in (stack.folder / "logs").iterdir()]
    texts.append(str(stack.connect._ask("GET", f"/connectors/{stack.topology.prefix}")))
    assert not [s for s in planted for text in texts if s in text]


def test_no_secret_stands_on_a_command_line(stack: Stack) -> None:
    planted = {k: v for k, v in asdict(stack.secrets).items() if v and k != "placeholder"}
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended
            lines.append(process.read_text(errors="replace"))
    assert any("pyspark" in line or "spark" in line for line in lines)
    assert not [k for k, v in planted.items() for line in lines if v in line]
