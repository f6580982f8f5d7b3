"""The demo book: repeatable, consistent, realistic, with labelled fraud."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from claimhouse.claims.book import ORDER, Book, labels, lookalikes, make_book
from claimhouse.claims.plants import PLANTS


@pytest.fixture(scope="module")
def book() -> Book:
    return make_book(seed=11, scale=0.5)


def test_the_same_seed_makes_the_same_bytes() -> None:
    one, two = make_book(seed=3, scale=0.05), make_book(seed=3, scale=0.05)
    assert all(one.tables[name].equals(two.tables[name]) for name in ORDER)
    assert labels(one).equals(labels(two))


def test_another_seed_makes_another_book() -> None:
    one, two = make_book(seed=3, scale=0.05), make_book(seed=4, scale=0.05)
    assert not one.tables["claim"].equals(two.tables["claim"])


def test_nothing_is_known_that_happens_after_the_date() -> None:
    as_of = date(2022, 6, 30)
    book = make_book(seed=5, scale=0.1, as_of=as_of)
    late = pa.scalar(as_of.isoformat() + "T23:59:59.999999").cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    for table, column in (
        ("claim", "reported_at"), ("claim", "updated_at"), ("payment", "paid_at"), ("reserve_txn", "booked_at"),
        ("claim_status_history", "changed_at"), ("activity", "done_at"), ("premium_txn", "booked_at"),
        ("invoice", "received_at"), ("recovery_txn", "booked_at"), ("exposure", "closed_at"),
    ):  # fmt: skip
        newest = pc.max(book.tables[table][column])
        assert pc.less_equal(newest, late).as_py(), f"{table}.{column}"


def test_ten_accident_years_have_claims(book: Book) -> None:
    years = pc.value_counts(pc.year(book.tables["claim"]["loss_date"]))
    count = {v["values"].as_py(): v["counts"].as_py() for v in years}
    assert all(count[year] > 60 for year in range(2016, 2026))


def test_paid_losses_are_a_sane_share_of_the_premium(book: Book) -> None:
    paid = float(pc.sum(book.tables["payment"]["amount"]).as_py())
    premium = float(pc.sum(book.tables["premium_txn"]["amount"]).as_py())
    assert 0.4 < paid / premium < 1.1


def test_some_claims_are_open_and_most_of_the_old_ones_closed(book: Book) -> None:
    claim = book.tables["claim"]
    still = pc.sum(pc.not_equal(claim["status"], "closed")).as_py() / claim.num_rows
    assert 0.005 < still < 0.15


def test_versions_of_a_policy_do_not_overlap(book: Book) -> None:
    version = book.tables["policy_version"]
    policy, start, end = (version[c].to_numpy() for c in ("policy_id", "effective_from", "effective_to"))
    same = policy[1:] == policy[:-1]
    assert (start[1:] >= end[:-1])[same].all()
    assert (end >= start).all()


def test_every_kind_of_fraud_is_there_at_a_few_percent(book: Book) -> None:
    marked = labels(book)
    assert set(marked["rule"].to_pylist()) == {p.rule for p in PLANTS}
    share = len(set(marked["claim_id"].to_pylist())) / book.tables["claim"].num_rows
    assert 0.03 < share < 0.07


def test_lookalikes_are_not_labelled(book: Book) -> None:
    innocent = set(lookalikes(book)["claim_id"].to_pylist())
    assert len(innocent) > 20
    assert not innocent & set(labels(book)["claim_id"].to_pylist())


def test_labels_name_claims_by_number(book: Book) -> None:
    claim = dict(zip(*(book.tables["claim"][c].to_pylist() for c in ("claim_id", "claim_number")), strict=True))
    assert all(claim[row["claim_id"]] == row["claim_number"] for row in labels(book).to_pylist())
