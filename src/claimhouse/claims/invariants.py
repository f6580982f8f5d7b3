"""What holds in the claims book at every commit, as queries that return one row per breach.

The generator makes it so and every transaction of the simulator keeps it so. Each query reads at least two tables, so a
reader that sees half a transaction is caught by it: run them on PostgreSQL, or on the lake at any moment. They keep to
SQL that PostgreSQL, DuckDB, Spark and Trino all understand, with table names as they are in schema public.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True)
class Invariant:
    """A rule of the book: its name, what it says, and the query that finds breaches."""

    name: str
    says: str
    breaches: str


INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "payment_is_its_lines",
        "payment.amount = sum(payment_line.amount) of the payment",
        """
        SELECT p.payment_id FROM payment p LEFT JOIN payment_line l ON l.payment_id = p.payment_id
        GROUP BY p.payment_id, p.amount HAVING p.amount <> coalesce(sum(l.amount), 0)
        """,
    ),
    Invariant(
        "payments_draw_reserves",
        "sum(payment_line.amount) = - sum(reserve_txn.amount) per payment, exposure and cost type",
        """
        SELECT payment_id, exposure_id, cost_type FROM (
            SELECT payment_id, exposure_id, cost_type, amount FROM payment_line
            UNION ALL
            SELECT payment_id, exposure_id, cost_type, amount FROM reserve_txn WHERE payment_id IS NOT NULL
        ) both_sides GROUP BY payment_id, exposure_id, cost_type HAVING sum(amount) <> 0
        """,
    ),
    Invariant(
        "reserves_are_not_negative_and_end_at_zero",
        "sum(reserve_txn.amount) >= 0 per exposure and cost type; = 0 once the exposure is closed",
        """
        SELECT r.exposure_id, r.cost_type FROM reserve_txn r JOIN exposure e ON e.exposure_id = r.exposure_id
        GROUP BY r.exposure_id, r.cost_type, e.status
        HAVING sum(r.amount) < 0 OR (e.status = 'closed' AND sum(r.amount) <> 0)
        """,
    ),
    Invariant(
        "status_is_the_last_of_its_history",
        "claim.status = the status of the claim's newest claim_status_history row",
        """
        SELECT c.claim_id FROM claim c LEFT JOIN (
            SELECT h.claim_id, h.status FROM claim_status_history h JOIN (
                SELECT claim_id, max(claim_status_history_id) AS newest FROM claim_status_history GROUP BY claim_id
            ) n ON n.newest = h.claim_status_history_id
        ) last_one ON last_one.claim_id = c.claim_id
        WHERE last_one.status IS NULL OR last_one.status <> c.status
        """,
    ),
    Invariant(
        "claims_have_insured_and_exposure",
        "every claim has an insured among its parties and at least one exposure",
        """
        SELECT c.claim_id FROM claim c
        LEFT JOIN (SELECT claim_id, count(*) AS n FROM claim_party WHERE role = 'insured' GROUP BY claim_id) p
          ON p.claim_id = c.claim_id
        LEFT JOIN (SELECT claim_id, count(*) AS n FROM exposure GROUP BY claim_id) e ON e.claim_id = c.claim_id
        WHERE p.n IS NULL OR e.n IS NULL
        """,
    ),
)

ONE_NUMBER = "SELECT (SELECT sum(amount) FROM payment) - (SELECT sum(amount) FROM payment_line)"
"""Zero at every commit: the cheapest two-table check, for a reader in a loop."""


def breaches(conn: psycopg.Connection[Any]) -> dict[str, int]:
    """How many rows break each invariant, those with none left out: one statement, so one moment of the database."""
    each = [f"SELECT '{i.name}', count(*) FROM ({i.breaches}) AS b" for i in INVARIANTS]
    with conn.transaction():
        conn.execute("SET LOCAL search_path = public")
        rows = conn.execute(" UNION ALL ".join(each).encode()).fetchall()
    return {name: count for name, count in rows if count}
