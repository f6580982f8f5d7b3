"""A mart that follows cuts: what a computation from all rows gives, at every cut, by the claims that changed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.query.book import Book

from claimhouse.errors import UsageError
from claimhouse.marts import MartFollower, figures, load
from claimhouse.marts.fresh import readable
from claimhouse.marts.model import parse
from claimhouse.query.session import Session
from claimhouse.table import Table

MONEY = "decimal(14,2)"
BOOKED = {"claim_id": "int8", "exposure_id": "int8", "cost_type": "text", "amount": MONEY, "currency": "text"}
TABLES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "policy": (("policy_id",), {"policy_id": "int8", "currency": "text", "line": "text"}),
    "adjuster": (("adjuster_id",), {"adjuster_id": "int8", "name": "text"}),
    "claim": (
        ("claim_id",),
        {"claim_id": "int8", "claim_number": "text", "policy_id": "int8", "adjuster_id": "int8", "line": "text",
         "loss_date": "date", "reported_at": "timestamptz", "closed_at": "timestamptz", "status": "text",
         "cause": "text", "catastrophe_code": "text"},
    ),
    "payment": (("payment_id",), {"payment_id": "int8", "claim_id": "int8", "paid_at": "timestamptz"}),
    "payment_line": (
        ("payment_id", "line_no"),
        {"payment_id": "int8", "line_no": "int4", **{k: v for k, v in BOOKED.items() if k != "claim_id"}},
    ),
    "reserve_txn": (("reserve_txn_id",), {"reserve_txn_id": "int8", **BOOKED, "reason": "text",
                                          "booked_at": "timestamptz"}),
    "recovery_txn": (("recovery_txn_id",), {"recovery_txn_id": "int8", **BOOKED, "kind": "text",
                                            "booked_at": "timestamptz"}),
}  # fmt: skip
DAY = date(2026, 1, 20)


class Claims:
    """A claims book that changes at random, in a lake without PostgreSQL."""

    def __init__(self, folder: Path, rng: random.Random, claims: int = 12) -> None:
        self.book, self.rng, self.claims = Book(folder / "lake"), rng, claims
        self.rows: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        self.tables: dict[str, Table] = {}
        for name, (key, columns) in TABLES.items():
            made = [self._row(name, n) for n in range(1, (claims if name != "adjuster" else 3) + 1)]
            self.rows[name] = {tuple(r[k] for k in key): r for r in made}
            self.tables[name] = self.book.table(name, columns, key=key, rows=made)
        self.book.cut()

    def _row(self, name: str, number: int) -> dict[str, Any]:
        pick, some = self.rng.choice, lambda: self.rng.randint(1, self.claims)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=self.rng.randint(0, 700))
        given: dict[str, Any] = {
            "policy_id": some(), "adjuster_id": self.rng.randint(1, 4), "claim_id": some(), "payment_id": some(),
            "currency": pick(["USD", "EUR"]), "line": pick(["motor", "home"]), "name": f"n{some()}", "line_no": 1,
            "claim_number": f"C{number}", "loss_date": at.date(), "reported_at": at, "closed_at": None, "paid_at": at,
            "booked_at": at, "status": pick(["open", "closed"]), "cause": "x", "catastrophe_code": None,
            "exposure_id": 1, "cost_type": pick(["indemnity", "expense"]), "reason": "initial",
            "kind": pick(["salvage", "subrogation"]), "amount": Decimal(self.rng.randint(-500, 5000)),
        }  # fmt: skip
        key, columns = TABLES[name]
        return {c: number if c == key[0] else given[c] for c in columns}

    def change(self) -> tuple[Any, ...]:
        """One random change, as a commit takes it."""
        name = self.rng.choice(list(TABLES))
        rows, key = self.rows[name], TABLES[name][0]
        act = self.rng.choices("cudm", [4, 5, 2, 1])[0]
        number = max((k[0] for k in rows), default=0) + 1
        if act == "c" or not rows:
            row = self._row(name, number)
            rows[tuple(row[k] for k in key)] = row
            return ("c", self.tables[name], row)
        old = self.rng.choice(list(rows))
        if act == "d":
            del rows[old]
            return ("d", self.tables[name], dict(zip(key, old, strict=True)))
        row = self._row(name, number if act == "m" else old[0])
        del rows[old]
        rows[tuple(row[k] for k in key)] = row
        moved = {k: v for k, v in zip(key, old, strict=True) if row[k] != v}
        return ("u", self.tables[name], row, moved)

    def cut(self) -> int:
        for _ in range(self.rng.randint(1, 3)):
            self.book.commit(*(self.change() for _ in range(self.rng.randint(1, 4))))
        return self.book.cut().cut


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Claims]:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    yield Claims(tmp_path, random.Random(seed))


def test_after_every_cut_the_mart_equals_a_computation_from_all_rows(book: Claims) -> None:
    follower = MartFollower(book.book.lake, load("demo"), DAY)
    for step in range(14):
        cut = book.cut()
        if step % 4 == 3:
            continue  # the next step takes two cuts in
        if step == 10:
            book.book.flush()
            cut = book.book.tail.last().cut  # type: ignore[union-attr]
        assert follower.step(cut) >= 0
        assert follower.moment.cut == cut
        with Session(book.book.lake) as session:
            whole = figures(session, load("demo"), "claim_money", {"valuation": DAY})
            totals = figures(session, load("demo"), "totals", {"valuation": DAY})
        assert whole.num_rows > 0
        assert follower.mart.table().equals(whole)
        assert follower.mart.figures("totals").equals(totals)
    follower.close()


def test_only_the_touched_claims_are_computed(book: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = MartFollower(book.book.lake, load("demo"), DAY)
    computed: list[Any] = []
    refresh = follower.mart.refresh

    def counting(target: Any, claims: Any) -> int:
        computed.append(list(claims))
        return refresh(target, claims)

    monkeypatch.setattr(follower.mart, "refresh", counting)
    row = book.rows["reserve_txn"][(1,)]
    book.book.commit(("u", book.tables["reserve_txn"], {**row, "claim_id": row["claim_id"] % 12 + 1}))
    assert follower.step(book.book.cut().cut) == 2
    book.book.commit(("u", book.tables["adjuster"], {"adjuster_id": 99, "name": "of no claim"}))
    assert follower.step(book.book.cut().cut) == 0
    assert computed == [sorted({row["claim_id"], row["claim_id"] % 12 + 1}), []]
    follower.close()


def test_what_cannot_be_followed_makes_the_mart_anew(book: Claims) -> None:
    follower = MartFollower(book.book.lake, load("demo"), DAY)
    book.book.commit(("t", book.tables["recovery_txn"], {}))
    assert follower.step(book.book.cut().cut) == -1
    with Session(book.book.lake) as session:
        assert follower.mart.table().equals(figures(session, load("demo"), "claim_money", {"valuation": DAY}))
    follower.close()


def test_another_day_values_the_mart_anew(book: Claims) -> None:
    follower = MartFollower(book.book.lake, load("demo"), DAY)
    earlier = DAY - timedelta(days=12)
    follower.value(earlier)
    with Session(book.book.lake) as session:
        assert follower.mart.table().equals(figures(session, load("demo"), "claim_money", {"valuation": earlier}))
        assert not follower.mart.table().equals(figures(session, load("demo"), "claim_money", {"valuation": DAY}))
    follower.close()


def test_a_model_that_does_not_tell_whose_claims_a_row_touches_is_not_followed(book: Claims) -> None:
    columns = "c.claim_id, c.claim_number, c.line, c.line AS currency, c.loss_date, c.loss_date AS reported_on,"
    columns += " c.loss_date AS closed_on, c.status, c.cause, c.catastrophe_code, c.cause AS adjuster"
    text = f'[model]\n[inputs]\nclaim_input = "SELECT {columns} FROM claim AS c"\n'
    with pytest.raises(UsageError, match=r"\[changed\] does not say whose claims a row of claim touches"):
        MartFollower(book.book.lake, parse(text, "mine.toml"))


def test_totals_and_large_losses_are_read_from_the_mart() -> None:
    assert [name for name in ("totals", "large_losses", "backlog", "triangle_paid") if readable(name)] == [
        "totals",
        "large_losses",
    ]
