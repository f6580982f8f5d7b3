"""chainladder's prism data played into PostgreSQL day by day."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from claimhouse.claims import prism
from claimhouse.marts import figures, load

pytestmark = pytest.mark.skipif(find_spec("chainladder") is None, reason="chainladder is not installed")
CLAIMS = 3000
HALF = date(2010, 6, 30)


def tables(postgres: Any) -> duckdb.DuckDBPyConnection:
    """What PostgreSQL holds now, in DuckDB."""
    connection = duckdb.connect()
    for name in ("prism_claim", "prism_payment"):
        cursor = postgres.conn.execute(f"SELECT * FROM {name}")
        rows = cursor.fetchall()
        columns = {c.name: [row[n] for row in rows] for n, c in enumerate(cursor.description)}
        connection.register("arrow_table", pa.table(columns))
        connection.execute(f"CREATE TABLE {name} AS FROM arrow_table")
    return connection


def test_the_days_played_are_the_book_as_it_was_and_the_rest_completes_it(postgres: Any) -> None:
    rows = prism.rows(limit=CLAIMS)
    prism.create(postgres.dsn)
    first = prism.replay(postgres.dsn, until=HALF, days=7, limit=CLAIMS)
    assert first.last_day is not None and first.last_day <= HALF
    assert postgres.execute("SELECT count(*), count(close_date), sum(paid) FROM prism_claim") == [
        (
            sum(r.report <= HALF for r in rows),
            sum(r.settle <= HALF for r in rows),
            sum((r.paid for r in rows if r.settle <= HALF), Decimal(0)),
        )
    ]
    half = figures(tables(postgres), load("prism"), "triangle_paid", {"valuation": HALF})
    second = prism.replay(postgres.dsn, after=HALF, days=7, limit=CLAIMS)
    assert first.claims + second.claims == CLAIMS
    assert first.payments + second.payments == sum(r.paid != 0 for r in rows)
    whole = tables(postgres)
    assert figures(whole, load("prism"), "triangle_paid", {"valuation": HALF}).equals(half)
    total = figures(whole, load("prism"), "triangle_paid", {"valuation": "2017-12-31"}).to_pylist()
    assert sum(r["increment"] for r in total) == sum(r.paid for r in rows)


def test_a_claim_is_reported_before_it_is_settled_even_on_one_day(postgres: Any) -> None:
    prism.create(postgres.dsn)
    done = prism.replay(postgres.dsn, days=10_000, limit=200)
    assert done.transactions <= 2
    assert postgres.execute("SELECT count(*) FROM prism_claim WHERE status = 'CLOSED'") == [(200,)]
