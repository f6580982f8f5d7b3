"""Figures per claim kept fresh: the same as computing all again, at the cost of what changed."""

from __future__ import annotations

import random

import duckdb
import pyarrow as pa
import pytest
from tests.marts.conftest import connect

from claimhouse.errors import UsageError
from claimhouse.marts import ClaimMart, changed_claims, figures, load
from claimhouse.marts.model import parse

TEXT_KEYS = '''
[model]
name = "text"
[inputs]
claim_input = """
SELECT c.id AS claim_id, c.id AS claim_number, 'a' AS line, 'USD' AS currency, c.d AS loss_date, c.d AS reported_on,
    c.d AS closed_on, 'x' AS status, 'x' AS cause, 'x' AS catastrophe_code, 'x' AS adjuster
FROM c
"""
payment_input = """
SELECT p.id AS payment_id, p.id AS claim_id, p.id AS exposure_id, 'indemnity' AS cost_type, p.amount,
    'USD' AS currency, p.t AS paid_at
FROM p
"""
'''
EVER = {"valuation": "9999-12-31"}


@pytest.fixture
def book(demo_tables: dict[str, pa.Table]) -> duckdb.DuckDBPyConnection:
    return connect(demo_tables)


def test_after_random_changes_the_mart_equals_a_full_computation(book: duckdb.DuckDBPyConnection) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    model = load("demo")
    mart = ClaimMart(model)
    mart.rebuild(book)
    claims = [row[0] for row in book.execute("SELECT claim_id FROM claim").fetchall()]
    for _ in range(4):
        changes = _change(book, rng, claims)
        touched = changed_claims(book, model, changes)
        mart.refresh(book, touched)
        assert mart.table().equals(figures(book, model, "claim_money", EVER))
        assert mart.figures("totals").equals(figures(book, model, "totals", EVER))
        asked = {"threshold": "30000", "line": "motor"}
        assert mart.figures("large_losses", asked).equals(figures(book, model, "large_losses", {**EVER, **asked}))


def _change(book: duckdb.DuckDBPyConnection, rng: random.Random, claims: list[int]) -> dict[str, pa.Table]:
    """A reserve, a mended payment line, a closed and a deleted claim, an adjuster's new name."""
    one, two, three, gone = rng.sample(claims, 4)
    reserve = book.sql(
        "SELECT * REPLACE (-claim_id AS reserve_txn_id, 500 AS amount) FROM reserve_txn WHERE claim_id = ? LIMIT 1",
        params=[one],
    ).to_arrow_table()
    book.register("new_reserve", reserve)
    book.execute("INSERT INTO reserve_txn FROM new_reserve").fetchall()
    book.unregister("new_reserve")
    line = book.sql(
        "SELECT l.* FROM payment_line l JOIN payment p USING (payment_id) WHERE p.claim_id = ? LIMIT 1", params=[two]
    ).to_arrow_table()
    for row in line.to_pylist():
        book.execute(
            "UPDATE payment_line SET amount = amount + 1 WHERE payment_id = ? AND line_no = ?",
            [row["payment_id"], row["line_no"]],
        )
    book.execute("UPDATE claim SET status = 'closed' WHERE claim_id = ?", [three])
    closed = book.sql("FROM claim WHERE claim_id = ?", params=[three]).to_arrow_table()
    deleted = book.sql("FROM claim WHERE claim_id = ?", params=[gone]).to_arrow_table()
    book.execute("DELETE FROM claim WHERE claim_id = ?", [gone])
    claims.remove(gone)
    return {
        "reserve_txn": reserve,
        "payment_line": line,
        "claim": pa.concat_tables([closed, deleted]),
        "activity": pa.table({"activity_id": [1]}),
    }


def test_only_the_claims_that_changed_are_computed(book: duckdb.DuckDBPyConnection) -> None:
    mart = ClaimMart(load("demo"))
    mart.rebuild(book)
    before = mart.table()
    book.execute("UPDATE payment_line SET amount = amount * 2")
    assert mart.refresh(book, [3, 4]) == 2
    after = mart.table()
    moved = [a["claim_id"] for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True) if a != b]
    assert moved and set(moved) <= {3, 4}


def test_a_changed_policy_touches_its_claims(book: duckdb.DuckDBPyConnection) -> None:
    policy = book.execute(
        "SELECT policy_id FROM claim GROUP BY policy_id ORDER BY count(*) DESC, 1 LIMIT 1"
    ).fetchall()[0][0]
    expected = [
        r[0] for r in book.execute("SELECT claim_id FROM claim WHERE policy_id = ? ORDER BY 1", [policy]).fetchall()
    ]
    assert len(expected) > 1
    assert changed_claims(book, load("demo"), {"policy": pa.table({"policy_id": [policy, policy]})}) == expected


def test_keys_that_are_text_cannot_leave_their_quotes() -> None:
    model = parse(TEXT_KEYS, "text.toml")
    book = duckdb.connect()
    book.execute("CREATE TABLE c AS SELECT x AS id, DATE '2020-01-01' AS d FROM (VALUES ('O''Hara'), ('b')) AS v (x)")
    book.execute("CREATE TABLE p AS SELECT id, 7 AS amount, TIMESTAMP '2020-02-01' AS t FROM c")
    mart = ClaimMart(model, "claim_paid")
    assert mart.rebuild(book) == 2
    book.execute("UPDATE p SET amount = 9")
    assert mart.refresh(book, ["O'Hara"]) == 1
    assert {r["claim_id"]: r["paid"] for r in mart.table().to_pylist()} == {"O'Hara": 9, "b": 7}


def test_a_figure_that_is_not_per_claim_is_no_mart() -> None:
    with pytest.raises(UsageError, match="totals is not one per claim"):
        ClaimMart(load("demo"), "totals")


def test_another_valuation_than_the_marts_is_refused(book: duckdb.DuckDBPyConnection) -> None:
    mart = ClaimMart(load("demo"))
    mart.rebuild(book)
    with pytest.raises(UsageError, match="valued at"):
        mart.figures("totals", {"valuation": "2020-12-31"})
