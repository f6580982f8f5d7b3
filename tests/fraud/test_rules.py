"""Each rule fires on a small case made by hand, and not on a near miss of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from tests.fraud.books import Case

from claimhouse.errors import SettingsError, UsageError
from claimhouse.fraud import compose
from claimhouse.fraud.model import load
from claimhouse.fraud.rule import all_files, changed, load_rules, parse, shipped
from claimhouse.marts.compose import DIALECTS, parses

Make = Callable[[], Case]


def _paid(case: Case, *amounts: float, days: int = 0, claim: int = 1) -> Case:
    """Payments with one line each on exposure 1, so many days apart."""
    for n, amount in enumerate(amounts, 1):
        when = f"{date(2024, 5, 1) + timedelta(days=n * days)} 10:00+00"
        case.add("payment", {"payment_id": n, "claim_id": claim, "amount": amount, "paid_at": when})
        case.add("payment_line", {"payment_id": n, "exposure_id": 1, "amount": amount})
    return case


def _plain(make: Make, **claim: Any) -> Case:
    """One claim with an exposure, its coverage (limit 10,000), adjuster (authority 5,000), policy and claimant."""
    return (
        make()
        .add("adjuster", {"adjuster_id": 1})
        .add("policy", {"policy_id": 1})
        .add("coverage", {"coverage_id": 1})
        .add("party", {"party_id": 1})
        .add("claim", {"claim_id": 1, **claim})
        .add("exposure", {"exposure_id": 1, "claim_id": 1})
    )


def _only(case: Case, rule: str) -> float | None:
    """The score of claim C-001, None without a hit."""
    hit = case.hits(rule).get("C-001")
    return hit.score if hit else None


def test_over_limit(case: Make) -> None:
    assert _only(_paid(_plain(case), 9_000, 2_000), "over_limit") == pytest.approx(0.8)
    assert _only(_paid(_plain(case), 9_000, 1_200), "over_limit") is None  # within the tolerance
    found = _paid(_plain(case), 9_000, 2_000).hits("over_limit")["C-001"]
    assert found.values == '{"coverage": "collision", "paid": "11000.00", "limit_amount": "10000.00"}'


def test_round_amount(case: Make) -> None:
    assert _only(_paid(_plain(case), 4_000, 2_000), "round_amount") == 0.8
    assert _only(_paid(_plain(case), 4_000, 2_000.01), "round_amount") is None
    assert _only(_paid(_plain(case), 2_000), "round_amount") is None  # too small


def test_near_authority(case: Make) -> None:
    assert _only(_paid(_plain(case), 4_600, 5_000), "near_authority") == 1.0
    assert _only(_paid(_plain(case), 4_600, 300), "near_authority") is None
    assert _only(_paid(_plain(case), 5_001), "near_authority") is None  # beyond: somebody else approved


def test_holiday_loss(case: Make) -> None:
    assert _only(_plain(case, loss_date="2024-12-25"), "holiday_loss") == 1.0
    assert _only(_plain(case, loss_date="2024-12-27"), "holiday_loss") is None


def test_late_report(case: Make) -> None:
    late = {"loss_date": "2024-01-01", "reported_at": "2024-05-01 12:00+00"}
    assert _only(_plain(case, **late), "late_report") is not None
    assert _only(_plain(case, **late, line="liability"), "late_report") is None
    assert _only(_plain(case, loss_date="2024-03-01", reported_at="2024-05-01 12:00+00"), "late_report") is None


def test_before_inception(case: Make) -> None:
    assert _only(_plain(case, loss_date="2019-12-20"), "before_inception") == 1.0
    assert _only(_plain(case, loss_date="2019-12-31"), "before_inception") is None  # a binder's day


def test_after_lapse_and_before_expiry(case: Make) -> None:
    def ended(day: str) -> Case:
        book = _plain(case, loss_date="2024-03-05")
        book.connection.execute("UPDATE policy SET ended_on = ?", [day])
        return book

    assert _only(ended("2024-02-20"), "after_lapse") == 1.0
    assert _only(ended("2024-03-03"), "after_lapse") == 0.5  # days of grace
    assert _only(ended("2024-03-06"), "after_lapse") is None
    assert _only(ended("2024-03-06"), "before_expiry") == 1.0
    assert _only(ended("2024-03-05"), "before_expiry") is None
    assert _only(ended("2024-04-06"), "before_expiry") is None


def test_early_loss(case: Make) -> None:
    assert _only(_plain(case, loss_date="2020-01-04"), "early_loss") == pytest.approx(0.93)
    assert _only(_plain(case, loss_date="2020-02-04"), "early_loss") is None
    assert _only(_plain(case, loss_date="2020-01-04", catastrophe_code="CAT-1"), "early_loss") is None


def test_limit_increase(case: Make) -> None:
    def raised(loss: str, paid: float, limit: int = 10_000) -> Case:
        book = _plain(case, loss_date=loss)
        versions = [(1, "new", "2020-01-01", "2024-03-01"), (2, "limit_increase", "2024-03-01", "2025-01-01")]
        for version, reason, begin, end in versions:
            row = {"policy_id": 1, "version": version, "effective_from": begin, "effective_to": end}
            book.add("policy_version", {**row, "reason": reason})
        book.connection.execute("UPDATE coverage SET limit_amount = 5000")
        book.add("coverage", {"coverage_id": 2, "version": 2, "limit_amount": limit})
        return _paid(book, paid)

    assert _only(raised("2024-03-09", 7_000), "limit_increase") == 1.0
    assert _only(raised("2024-03-09", 4_000), "limit_increase") == 0.3  # the old limit would have done
    assert _only(raised("2024-04-09", 7_000), "limit_increase") is None
    assert _only(raised("2024-02-27", 7_000), "limit_increase") is None  # before the change
    assert _only(raised("2024-03-09", 7_000, 5_000), "limit_increase") is None  # the limit did not grow


def test_duplicate_invoice(case: Make) -> None:
    def billed(number: str, amount: float = 1_000, provider: int = 1) -> Case:
        book = _plain(case).add("provider", {"provider_id": 1}, {"provider_id": 2})
        book.add("claim", {"claim_id": 2})
        book.add("invoice", {"invoice_id": 1, "claim_id": 1, "provider_id": 1, "invoice_number": "INV-2024-00017"})
        other = {"invoice_id": 2, "claim_id": 2, "provider_id": provider, "amount": amount, "invoice_number": number}
        return book.add("invoice", other)

    assert set(billed(" inv 2024/00017.").hits("duplicate_invoice")) == {"C-001", "C-002"}
    assert not billed("INV-2024-00018").hits("duplicate_invoice")
    assert not billed("INV-2024-00017", amount=1_000.01).hits("duplicate_invoice")
    assert not billed("INV-2024-00017", provider=2).hits("duplicate_invoice")


def test_duplicate_loss(case: Make) -> None:
    def twice(**second: Any) -> Case:
        book = _plain(case, asset_id=1).add("insured_asset", {"asset_id": 1, "vin": "V1"}, {"asset_id": 2, "vin": "V1"})
        row = {"claim_id": 2, "asset_id": 1, "loss_date": "2024-03-06", "reported_at": "2024-03-20 12:00+00"}
        return book.add("claim", {**row, **second})

    assert {n: h.score for n, h in twice().hits("duplicate_loss").items()} == {"C-002": 1.0}  # the later claim
    assert set(twice(asset_id=2).hits("duplicate_loss")) == {"C-002"}  # the same vehicle on another policy
    assert twice(cause="theft").hits("duplicate_loss")["C-002"].score == 0.4
    assert not twice(loss_date="2024-03-10").hits("duplicate_loss")
    assert not twice(asset_id=3).hits("duplicate_loss")


def _sharing(make: Make, reported: list[str], **party: Callable[[int], Any]) -> Case:
    """Claims of different people, one a day given; `party`: what each person has, by number."""
    book = make()
    for n, day in enumerate(reported, 1):
        person = {"party_id": n, "address_id": n, "phone": f"+{n}", **{k: f(n) for k, f in party.items()}}
        account = {
            "bank_account_id": n,
            "party_id": n,
            "routing_number": "9",
            "account_number": person.pop("account", n),
        }
        book.add("claim", {"claim_id": n, "policy_id": n, "reported_at": f"{day} 12:00+00"})
        book.add("exposure", {"exposure_id": n, "claim_id": n, "claimant_id": n})
        book.add("party", person).add("bank_account", account)
    return book


CLOSE = ["2024-01-01", "2024-01-20", "2024-02-10", "2024-03-01"]
SPREAD = ["2024-01-01", "2024-06-20", "2024-12-10", "2025-07-01"]


def test_phone_velocity(case: Make) -> None:
    shared = {"phone": lambda n: "+1555"}
    assert len(_sharing(case, CLOSE, **shared).hits("phone_velocity")) == 4
    assert not _sharing(case, SPREAD, **shared).hits("phone_velocity")
    assert not _sharing(case, CLOSE, **shared, address_id=lambda n: 1).hits("phone_velocity")  # a family's
    assert not _sharing(case, CLOSE[:2], **shared).hits("phone_velocity")


def test_bank_velocity(case: Make) -> None:
    shared = {"account": lambda n: "77"}
    assert len(_sharing(case, CLOSE, **shared).hits("bank_velocity")) == 4
    assert not _sharing(case, SPREAD, **shared).hits("bank_velocity")
    assert not _sharing(case, CLOSE, account=lambda n: "77" if n < 3 else str(n)).hits("bank_velocity")


def test_address_velocity(case: Make) -> None:
    assert len(_sharing(case, CLOSE, address_id=lambda n: 1).hits("address_velocity")) == 4
    assert not _sharing(case, SPREAD, address_id=lambda n: 1).hits("address_velocity")
    assert not _sharing(case, CLOSE[:3], address_id=lambda n: 1).hits("address_velocity")


def test_claimant_velocity(case: Make) -> None:
    def one_person(days: list[str], policies: int) -> Case:
        book = _sharing(case, days)
        book.connection.execute("UPDATE exposure SET claimant_id = 1")
        book.connection.execute("UPDATE claim SET policy_id = claim_id % ?", [policies])
        return book

    assert len(one_person(CLOSE, 2).hits("claimant_velocity")) == 4
    assert not one_person(CLOSE, 1).hits("claimant_velocity")  # a fleet's
    assert not one_person(SPREAD, 2).hits("claimant_velocity")


def test_a_value_that_everybody_shares_is_left_out(case: Make) -> None:
    rules = changed({"phone_velocity": {"hub": 3}})
    book = _sharing(case, CLOSE, phone=lambda n: "+1555")
    assert not book.hits("phone_velocity", rules) and book.hits("phone_velocity")


def _visits(make: Make, days: list[int], amount: Callable[[int], float] = lambda n: 1_000, **invoice: Any) -> Case:
    """Claims that one provider billed, so many days after 2024-01-01."""
    book = make().add("provider", {"provider_id": 1})
    for n, day in enumerate(days, 1):
        when = date(2024, 1, 1) + timedelta(days=day)
        book.add("claim", {"claim_id": n, "reported_at": f"{when} 12:00+00"})
        book.add("invoice", {"invoice_id": n, "claim_id": n, "provider_id": 1, "invoice_number": str(n),
                             "invoiced_on": str(when), "amount": amount(n), **invoice})  # fmt: skip
    return book


def test_provider_velocity(case: Make) -> None:
    crowd = [100, 101, 103, 104, 106, 107, 109]
    assert len(_visits(case, crowd).hits("provider_velocity")) == 7
    assert not _visits(case, crowd[:5]).hits("provider_velocity")
    assert not _visits(case, list(range(0, 180, 2))).hits("provider_velocity")  # busy all year
    book = _visits(case, crowd)
    book.connection.execute("UPDATE claim SET catastrophe_code = 'CAT-1'")
    assert not book.hits("provider_velocity")


def test_split_payments(case: Make) -> None:
    assert _only(_paid(_plain(case), 3_000, 3_000, 2_500, days=1), "split_payments") == 1.0
    assert _only(_paid(_plain(case), 3_000, 3_000, 2_500, days=14), "split_payments") is None
    assert _only(_paid(_plain(case), 3_000, 2_500, days=1), "split_payments") is None
    assert _only(_paid(_plain(case), 3_000, 3_000, 500, days=1), "split_payments") is None


def test_provider_severity(case: Make) -> None:
    def providers(dear: float) -> Case:
        book = case().add("provider", *({"provider_id": p} for p in range(1, 8)))
        number = 0
        for provider in range(1, 8):
            for turn in range(5):
                number += 1
                book.add("claim", {"claim_id": number})
                amount = dear if provider == 7 else 1_000 + 40 * provider + turn
                book.add("invoice", {"invoice_id": number, "claim_id": number, "provider_id": provider,
                                     "invoice_number": str(number), "amount": amount})  # fmt: skip
        return book

    assert set(providers(5_000).hits("provider_severity")) == {f"C-{n:03d}" for n in range(31, 36)}
    assert not providers(1_900).hits("provider_severity")


def test_benford(case: Make) -> None:
    invented = _visits(case, list(range(0, 150, 10)), lambda n: 600 + 25 * n)
    assert len(invented.hits("benford")) > 8
    honest = [100, 110, 120, 150, 160, 200, 210, 250, 300, 320, 400, 470, 500, 650, 800]
    assert not _visits(case, list(range(0, 150, 10)), lambda n: honest[n - 1]).hits("benford")
    assert not _visits(case, list(range(0, 80, 10)), lambda n: 900 + n).hits("benford")  # too few to tell


def test_linked_ring(case: Make) -> None:
    days = ["2024-01-01", "2024-04-01", "2024-08-01", "2024-12-01", "2025-03-01"]
    # 1-2 telephone, 2-3 account, 3-4 address, 4-5 telephone
    things = {
        "phone": lambda n: {1: "+a", 2: "+a", 4: "+b", 5: "+b"}.get(n, f"+{n}"),
        "account": lambda n: {2: "77", 3: "77"}.get(n, str(n)),
        "address_id": lambda n: {4: 3}.get(n, n),
    }
    ring = _sharing(case, days, **things).hits("linked_ring")
    assert len(ring) == 5 and '"claims": 5' in ring["C-001"].values and '"kinds": 2' in ring["C-003"].values
    one_home = {**things, "address_id": lambda n: 1}
    assert not _sharing(case, days, **one_home).hits("linked_ring")
    assert not _sharing(case, days, phone=lambda n: "+a").hits("linked_ring")  # one kind of thing only
    far = ["2018-01-01", "2020-04-01", "2022-08-01", "2024-12-01", "2027-03-01"]
    assert not _sharing(case, far, **things).hits("linked_ring")


def test_shared_by_strangers(case: Make) -> None:
    pair = ["2024-01-01", "2024-12-01"]
    found = _sharing(case, pair, account=lambda n: "77").hits("shared_by_strangers")
    assert set(found) == {"C-001", "C-002"} and '"links": 1' in found["C-001"].values
    assert not _sharing(case, pair, account=lambda n: "77", address_id=lambda n: 1).hits("shared_by_strangers")
    assert not _sharing(case, pair).hits("shared_by_strangers")


def test_there_are_two_rules_of_each_class() -> None:
    kinds = [rule.kind for rule in shipped().values()]
    assert {kind: kinds.count(kind) >= 2 for kind in kinds} == dict.fromkeys(
        ("row", "lookup", "windowed", "statistics", "graph"), True
    )


@pytest.mark.parametrize("name", list(all_files()))
def test_a_rule_is_written_in_the_subset_and_says_what_it_reads(name: str) -> None:
    rule, is_part = all_files()[name]
    assert compose.findings(rule.sql, name) == []
    assert compose.needs(rule) is not None
    assert is_part or all(p.meaning for p in rule.parameters)


@pytest.mark.parametrize("engine", DIALECTS)
def test_every_rule_can_be_said_to_every_engine(engine: str) -> None:
    model = load("demo")
    for rule in shipped().values():
        parses(compose.render(rule, engine, model), engine)


def test_settings_change_parameters_and_name_what_they_do_not_know() -> None:
    rules = changed({"early_loss": {"days": 10, "weight": 0.1}, "benford": {"enabled": False}, "bands": {"high": 0.9}})
    assert rules.rules["early_loss"].values["days"] == 10 and rules.rules["early_loss"].weight == 0.1
    assert "benford" not in rules.rules and rules.band(0.8) == "medium"
    for wrong in (
        {"nothing": {}},
        {"early_loss": {"day": 1}},
        {"early_loss": {"days": "x"}},
        {"early_loss": {"weight": 2}},
    ):
        with pytest.raises(SettingsError):
            changed(wrong)


def test_a_header_that_lacks_something_is_named() -> None:
    with pytest.raises(UsageError, match="no weight"):
        parse("r", "-- title: t\n-- class: row\n-- indicator: i\n-- explanation: e\n-- source: s\nSELECT 1 AS claim_id")


def test_an_indicator_reads_as_a_sentence() -> None:
    text = (
        load_rules().rules["over_limit"].text({"coverage": "collision", "paid": "11000.00", "limit_amount": "10000.00"})
    )
    assert text == "11,000 paid on collision against a limit of 10,000"
