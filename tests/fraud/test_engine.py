"""Scoring what changed comes to the same as scoring everything; late rows score again; what ends is withdrawn."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from tests.fraud.books import MODEL, Case, change, connect, fill, full, key_of

from claimhouse.fraud.engine import Engine
from claimhouse.fraud.rule import load_rules

SEEDS = [11]
LATE = ("policy", "party", "insured_asset")  # whose rows go, and come after the claims that need them


@pytest.mark.parametrize("seed", SEEDS)
def test_scoring_what_changed_equals_scoring_everything_on_random_changes(book: dict[str, pa.Table], seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    connection = connect()
    fill(connection, book)
    engine = Engine(connection, MODEL, load_rules())
    engine.all()
    events = 0
    late = {table: connection.sql(f"FROM {table} LIMIT 40").to_arrow_table().to_pylist() for table in LATE}
    for turn in range(4):
        rows = _random_changes(rng, connection)
        if turn == 0:
            rows = {t: [("d", {k: row[k] for k in key_of(t)}) for row in some] for t, some in late.items()}
        elif turn == 1:
            rows = {t: [("c", row) for row in some] for t, some in late.items()}
        events += len(change(engine, rows))
        engine.whole(now=True)
        fresh = full(engine)
        for name, held in engine.held.items():
            assert held.keys() == fresh[name].keys(), name
            if engine.rules[name].kind != "statistics":
                assert held == fresh[name], name
    assert events > 0


def _random_changes(rng: random.Random, connection: Any) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Some rows of every kind: moved telephones and accounts, dates of policies, amounts, new and deleted claims."""
    rows: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def some(table: str, count: int) -> list[dict[str, Any]]:
        every = connection.sql(f"FROM {table} ORDER BY ALL").to_arrow_table()
        return every.take(rng.sample(range(every.num_rows), min(count, every.num_rows))).to_pylist()

    def put(table: str, op: str, row: dict[str, Any]) -> None:
        rows.setdefault(table, []).append((op, row))

    phones = [p["phone"] for p in some("party", 3)]
    claimants = [e["claimant_id"] for e in some("exposure", 12)]
    listed = ", ".join(map(str, claimants))
    for row in connection.sql(f"FROM party WHERE party_id IN ({listed})").to_arrow_table().to_pylist():
        put("party", "u", {**row, "phone": rng.choice(phones)})
    account = some("bank_account", 1)[0]
    for row in some("bank_account", 6):
        put("bank_account", "u", {**row, "routing_number": account["routing_number"],
                                  "account_number": account["account_number"]})  # fmt: skip
    for row in some("policy", 8):
        put("policy", "u", {**row, "inception": rng.choice(some("claim", 1))["loss_date"]})
    for row in some("payment", 10):
        put("payment", "u", {**row, "amount": 3000})
    for row in some("payment_line", 10):
        put("payment_line", "u", {**row, "amount": row["amount"] * 5})
    for row in some("claim", 10):
        other = rng.choice(some("claim", 1))
        put("claim", "u", {**row, "asset_id": other["asset_id"], "loss_date": other["loss_date"]})
    for row in some("invoice", 6):
        other = rng.choice(some("invoice", 1))
        put("invoice", "u", {**row, **{k: other[k] for k in ("provider_id", "invoice_number", "amount")}})
    for row in some("exposure", 4):
        put("exposure", "d", {k: row[k] for k in key_of("exposure")})
    for row in some("invoice", 3):
        put("invoice", "d", {"invoice_id": row["invoice_id"]})
    for row in some("claim", 4):
        new = 1_000_000 + rng.randrange(10**6)
        put("claim", "c", {**row, "claim_id": new, "claim_number": f"N-{new}"})
        for exposure in some("exposure", 1):
            put("exposure", "c", {**exposure, "exposure_id": new, "claim_id": new})
    for row in some("claim", 1):  # its key moves
        put("claim", "u", {**row, "claim_id": row["claim_id"] + 5_000_000, "_old_claim_id": row["claim_id"]})
    return rows


def test_a_late_policy_row_scores_its_claims_again(case: Callable[[], Case]) -> None:
    book = case().add("adjuster", {"adjuster_id": 1}).add("claim", {"claim_id": 1, "loss_date": "2024-03-05"})
    engine = Engine(book.connection, MODEL, load_rules())
    assert [e for e in engine.all() if e.hit.rule == "before_inception"] == []
    events = change(engine, {"policy": [("c", {"policy_id": 1, "inception": _day("2024-03-20"), "ended_on": None})]})
    assert [(e.kind, e.hit.rule, e.hit.number) for e in events] == [("held", "before_inception", "C-001")]
    assert '"days": 15' in events[0].hit.values
    events = change(engine, {"policy": [("u", {"policy_id": 1, "inception": _day("2023-03-20"), "ended_on": None})]})
    assert [(e.kind, e.hit.rule) for e in events] == [("withdrawn", "before_inception")]


def test_a_late_party_row_scores_the_claims_of_all_who_share_its_telephone(case: Callable[[], Case]) -> None:
    book = case()
    for n in (1, 2, 3):
        book.add("claim", {"claim_id": n}).add("exposure", {"exposure_id": n, "claim_id": n, "claimant_id": n})
    book.add("party", *({"party_id": n, "address_id": n, "phone": "+15551"} for n in (1, 2)))
    engine = Engine(book.connection, MODEL, load_rules())
    assert not [e for e in engine.all() if e.hit.rule == "phone_velocity"]
    events = change(engine, {"party": [("c", {"party_id": 3, "address_id": 3, "phone": "+15551"})]})
    found = [(e.kind, e.hit.number) for e in events if e.hit.rule == "phone_velocity"]
    assert sorted(found) == [("held", "C-001"), ("held", "C-002"), ("held", "C-003")]
    moved = change(engine, {"party": [("u", {"party_id": 3, "address_id": 3, "phone": "+15559"})]})
    found = [(e.kind, e.hit.number) for e in moved if e.hit.rule == "phone_velocity"]
    assert sorted(found) == [("withdrawn", "C-001"), ("withdrawn", "C-002"), ("withdrawn", "C-003")]


def test_those_whom_a_neighbour_left_are_scored_by_what_they_still_share(case: Callable[[], Case]) -> None:
    book = case()
    for n in (1, 2, 3, 4):
        book.add("claim", {"claim_id": n}).add("exposure", {"exposure_id": n, "claim_id": n, "claimant_id": n})
        book.add("party", {"party_id": n, "address_id": n, "phone": "+15551"})
    engine = Engine(book.connection, MODEL, load_rules())
    assert len([e for e in engine.all() if e.hit.rule == "phone_velocity"]) == 4
    events = change(engine, {"party": [("u", {"party_id": 4, "address_id": 4, "phone": "+15559"})]})
    found = [(e.kind, e.hit.number) for e in events if e.hit.rule == "phone_velocity"]
    assert sorted(found) == [("revised", "C-001"), ("revised", "C-002"), ("revised", "C-003"), ("withdrawn", "C-004")]
    assert engine.held == full(engine)


def test_more_of_the_same_revises_a_hit(case: Callable[[], Case]) -> None:
    book = case().add("coverage", {"coverage_id": 1}).add("adjuster", {"adjuster_id": 1}).add("claim", {"claim_id": 1})
    book.add("exposure", {"exposure_id": 1, "claim_id": 1})
    book.add("payment", {"payment_id": 1, "claim_id": 1, "amount": 11000})
    book.add("payment_line", {"payment_id": 1, "exposure_id": 1, "amount": 11000})
    engine = Engine(book.connection, MODEL, load_rules())
    engine.all()
    line = {"payment_id": 1, "line_no": 2, "exposure_id": 1, "cost_type": "indemnity", "amount": 500}
    events = change(engine, {"payment_line": [("c", line)]})
    assert [(e.kind, e.hit.rule) for e in events] == [("revised", "over_limit")] and "11500.00" in events[0].hit.values


def _day(text: str) -> Any:
    from datetime import date

    return date.fromisoformat(text)
