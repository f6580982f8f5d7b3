"""One transaction of the simulator: statements composed from what a desk knows, committed together.

Beside it, what many moves do: book a reserve, change a claim's status, put a task on the work list.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from claimhouse.claims.book import id_column
from claimhouse.claims.desk import Desk, File, Work, dollars
from claimhouse.claims.lines import CURRENCY

COST_TYPES = ("indemnity", "expense")
CHANNELS = ("phone", "web", "app", "broker")
_texts: dict[tuple[str, tuple[str, ...]], str] = {}


class Transaction:
    """Statements to be committed together at the book's time `now`; `labels`: (claim, number, rule) planted."""

    def __init__(self, desk: Desk, now: datetime, number: int, channels: bool) -> None:
        self.desk, self.now, self.number, self.channels = desk, now, number, channels
        self.today = now.date()
        self.statements: list[tuple[str, list[Any]]] = []
        self.labels: list[tuple[int, str, str]] = []

    def insert(self, table: str, **values: Any) -> None:
        shape = (table, tuple(values))
        if shape not in _texts:
            marks = ", ".join(["%s"] * len(values))
            _texts[shape] = f"INSERT INTO public.{table} ({', '.join(values)}) VALUES ({marks})"
        self.statements.append((_texts[shape], list(values.values())))

    def run(self, statement: str, *values: Any) -> None:
        self.statements.append((statement, list(values)))

    def new(self, table: str, **values: Any) -> int:
        """Insert a row under the next number of its table, and return the number."""
        number = self.desk.numbers.next(table)
        self.insert(table, **{id_column(table): number}, **values)
        return number


def lognormal(desk: Desk, median: float, sigma: float) -> float:
    return median * math.exp(desk.rng.gauss(0, sigma))


def book(
    tx: Transaction, file: File, work: Work, cost: int, reason: str, amount: int, payment: int | None = None
) -> None:
    """Book a change of a reserve line, in cents."""
    if amount == 0:
        return
    work.reserve[cost] += amount
    tx.new("reserve_txn", claim_id=file.claim_id, exposure_id=work.exposure_id, cost_type=COST_TYPES[cost],
           reason=reason, amount=dollars(amount), currency=CURRENCY, payment_id=payment,
           booked_by=file.adjuster.adjuster_id, booked_at=tx.now)  # fmt: skip


def status(tx: Transaction, file: File, to: str, also: str = "", *values: Any) -> None:
    """Move a claim to a status, in the claim and in its history; `also` sets further columns."""
    file.status = to
    tx.run(f"UPDATE public.claim SET status = %s, updated_at = %s{also} WHERE claim_id = %s",
           to, tx.now, *values, file.claim_id)  # fmt: skip
    tx.new("claim_status_history", claim_id=file.claim_id, status=to, changed_at=tx.now,
           changed_by=file.adjuster.adjuster_id)  # fmt: skip


def task(tx: Transaction, file: File, kind: str, subject: str, days: int) -> None:
    number = tx.new("activity", claim_id=file.claim_id, kind=kind, subject=subject,
                    assigned_to=file.adjuster.adjuster_id, status="open",
                    due_on=tx.today + timedelta(days=days), created_at=tx.now)  # fmt: skip
    tx.desk.tasks.append(number)
