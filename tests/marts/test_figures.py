"""The figures of the demo book, against the same definitions worked out row by row in Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.marts.conftest import connect

from claimhouse.errors import UsageError
from claimhouse.marts import figure_names, figures, find, load
from claimhouse.marts.compose import parameters_of
from claimhouse.marts.figure import columns_of

VALUED = date(2024, 6, 30)
NEEDED = {"prior": "2023-12-31", "claim": "5", "valuation": VALUED}
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rows(demo_tables: dict[str, pa.Table]) -> dict[str, Rows]:
    names = ("claim", "policy", "policy_version", "premium_txn", "payment", "payment_line", "reserve_txn", 
             "recovery_txn", "claim_status_history", "adjuster")  # fmt: skip
    return {name: demo_tables[name].to_pylist() for name in names}


def ask(demo: duckdb.DuckDBPyConnection, name: str, **params: Any) -> Rows:
    return figures(demo, load("demo"), name, {"valuation": VALUED, **params}).to_pylist()


def payments(rows: dict[str, Rows]) -> Rows:
    heads = {p["payment_id"]: p for p in rows["payment"]}
    return [{**heads[x["payment_id"]], **x} for x in rows["payment_line"]]


def by_claim(rows: dict[str, Rows]) -> dict[int, Counter[str]]:
    """Per claim: amounts at the valuation."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for p in payments(rows):
        if p["paid_at"].date() <= VALUED:
            found[p["claim_id"]][p["cost_type"] + "_paid"] += p["amount"]
    for r in rows["reserve_txn"]:
        if r["booked_at"].date() <= VALUED:
            found[r["claim_id"]][r["cost_type"] + "_reserve"] += r["amount"]
    for r in rows["recovery_txn"]:
        if r["booked_at"].date() <= VALUED:
            found[r["claim_id"]][r["kind"]] += r["amount"]
    return found


def known(rows: dict[str, Rows]) -> dict[int, dict[str, Any]]:
    return {c["claim_id"]: c for c in rows["claim"] if c["reported_at"].date() <= VALUED}


@pytest.mark.parametrize("name", [n for n in figure_names() if n != "triangle_log"])
def test_columns_are_as_the_header_says(demo: duckdb.DuckDBPyConnection, name: str) -> None:
    figure = find(name)
    asked = {key: value for key, value in NEEDED.items() if key in parameters_of(figure)}
    found = figures(demo, load("demo"), name, asked)
    fits = {
        "key": pa.types.is_int64, "count": pa.types.is_int64, "text": pa.types.is_string, "date": pa.types.is_date32,
        "money": pa.types.is_decimal, "ratio": pa.types.is_float64, "amount": pa.types.is_float64,
        "days": pa.types.is_float64, "flag": pa.types.is_boolean, "moment": pa.types.is_timestamp,
    }  # fmt: skip
    assert found.num_rows > 0
    assert found.schema.names == [c.name for c in columns_of(figure)]
    for column in columns_of(figure):
        assert fits[column.kind](found.schema.field(column.name).type), column.name
        assert column.nullable or found[column.name].null_count == 0, column.name


def test_money_per_claim_is_the_sum_of_its_transactions(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    found = {r["claim_id"]: r for r in ask(demo, "claim_money")}
    money, claims = by_claim(rows), known(rows)
    assert set(found) == set(claims)
    for number, row in found.items():
        for kind in (
            "indemnity_paid",
            "expense_paid",
            "indemnity_reserve",
            "expense_reserve",
            "salvage",
            "subrogation",
        ):
            assert row[kind] == money[number][kind], (number, kind)
        assert row["paid"] == row["indemnity_paid"] + row["expense_paid"]
        assert row["incurred"] == row["paid"] + row["outstanding"]
        assert row["net_incurred"] == row["incurred"] - row["salvage"] - row["subrogation"]


def test_the_smaller_figures_per_claim_agree_with_the_whole(demo: duckdb.DuckDBPyConnection) -> None:
    whole = ask(demo, "claim_money")
    for name, columns in (
        ("claim_paid", ["paid"]),
        ("claim_outstanding", ["outstanding"]),
        ("claim_incurred", ["incurred"]),
    ):
        part = ask(demo, name)
        assert [[r["claim_id"], *(r[c] for c in columns)] for r in part] == [
            [r["claim_id"], *(r[c] for c in columns)] for r in whole
        ]


def test_totals_are_sums_over_claims(demo: duckdb.DuckDBPyConnection) -> None:
    whole, total = ask(demo, "claim_money"), ask(demo, "totals")
    for row in total:
        own = [r for r in whole if r["line"] == row["line"]]
        assert row["claims"] == len(own)
        for kind in ("paid", "outstanding", "incurred", "salvage", "subrogation", "net_incurred"):
            assert row[kind] == sum(r[kind] for r in own)
    assert sum(r["claims"] for r in total) == len(whole)


def test_a_line_alone_is_its_share_of_all(demo: duckdb.DuckDBPyConnection) -> None:
    for name in (
        "totals",
        "loss_ratio",
        "frequency_severity",
        "closing",
        "cycle_times",
        "earned_premium",
        "claim_money",
    ):
        everything = ask(demo, name)
        assert ask(demo, name, line="motor") == [r for r in everything if r.get("line") == "motor"], name


def test_counts_by_status(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    found = figures(demo, load("demo"), "claims_by_status").to_pylist()
    expected = Counter((c["line"], c["status"]) for c in rows["claim"])
    assert {(r["line"], r["status"]): r["claims"] for r in found} == dict(expected)
    assert all(r["open"] == (0 if r["status"] == "closed" else r["claims"]) for r in found)


def overlap(begin: date, end: date, year: int) -> int:
    last = min(date(year + 1, 1, 1), VALUED + timedelta(days=1))
    return max(0, (min(end, last) - max(begin, date(year, 1, 1))).days)


def days_of(year: int) -> int:
    return (date(year + 1, 1, 1) - date(year, 1, 1)).days


def test_earned_units_are_days_in_force_of_the_year(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    line = {p["policy_id"]: p["line"] for p in rows["policy"]}
    expected: Counter[tuple[str, int]] = Counter()
    for v in rows["policy_version"]:
        for year in range(2016, 2025):
            days = overlap(v["effective_from"], v["effective_to"], year)
            expected[line[v["policy_id"]], year] += v["units"] * days / days_of(year)
    found = {(r["line"], r["year"]): r["earned_units"] for r in ask(demo, "earned_units")}
    assert found == pytest.approx({k: v for k, v in expected.items() if v}, abs=1e-5)


def test_earned_premium_is_pro_rata_up_to_the_valuation(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    line = {p["policy_id"]: p["line"] for p in rows["policy"]}
    expected: Counter[tuple[str, int]] = Counter()
    for t in rows["premium_txn"]:
        for year in range(2016, 2025):
            share = overlap(t["earned_from"], t["earned_to"], year) / (t["earned_to"] - t["earned_from"]).days
            expected[line[t["policy_id"]], year] += float(t["amount"]) * share
    found = {(r["line"], r["year"]): r["earned_premium"] for r in ask(demo, "earned_premium")}
    assert found == pytest.approx({k: v for k, v in expected.items() if v}, abs=0.011)


def test_ratios_by_accident_year(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    premium = {(r["line"], r["year"]): r["earned_premium"] for r in ask(demo, "earned_premium")}
    units = {(r["line"], r["year"]): r["earned_units"] for r in ask(demo, "earned_units")}
    incurred: Counter[tuple[str, int]] = Counter()
    count: Counter[tuple[str, int]] = Counter()
    money = by_claim(rows)
    for number, claim in known(rows).items():
        place = (claim["line"], claim["loss_date"].year)
        count[place] += 1
        incurred[place] += sum(v for k, v in money[number].items() if k not in ("salvage", "subrogation"))
    for row in ask(demo, "loss_ratio"):
        place = (row["line"], row["accident_year"])
        assert row["incurred"] == incurred[place]
        assert row["loss_ratio"] == pytest.approx(float(incurred[place]) / premium[place])
    for row in ask(demo, "frequency_severity"):
        place = (row["line"], row["accident_year"])
        assert row["claims"] == count[place]
        assert row["frequency"] == pytest.approx(count[place] / units[place])
        assert row["pure_premium"] == pytest.approx(float(incurred[place]) / units[place])
        if count[place]:
            assert row["severity"] == pytest.approx(float(incurred[place]) / count[place])


def test_calendar_years_add_up_to_the_accident_years(demo: duckdb.DuckDBPyConnection) -> None:
    accident, calendar = ask(demo, "loss_ratio"), ask(demo, "loss_ratio_calendar")
    assert sum(r["incurred"] for r in accident) == sum(r["incurred"] for r in calendar)
    assert sum(r["paid"] for r in accident) == sum(r["paid"] for r in calendar)
    assert [r["incurred"] for r in accident] != [r["incurred"] for r in calendar]


def test_closing_and_reopening(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    claims, money = known(rows), by_claim(rows)
    expected: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for claim in claims.values():
        expected[claim["line"], claim["reported_at"].year]["new_claims"] += 1
    for event in rows["claim_status_history"]:
        if event["changed_at"].date() <= VALUED and event["status"] in ("closed", "reopened"):
            place = expected[claims[event["claim_id"]]["line"], event["changed_at"].year]
            place[event["status"]] += 1
            unpaid = money[event["claim_id"]]["indemnity_paid"] == 0
            place["closed_no_pay"] += event["status"] == "closed" and unpaid
    found = ask(demo, "closing")
    assert {(r["line"], r["year"]) for r in found} == set(expected)
    for row in found:
        own = expected[row["line"], row["year"]]
        assert all(row[k] == own[k] for k in ("new_claims", "reopened", "closed", "closed_no_pay"))
        if own["new_claims"] + own["reopened"]:
            assert row["closing_ratio"] == pytest.approx(own["closed"] / (own["new_claims"] + own["reopened"]))
    assert sum(r["reopened"] for r in found) > 0


def test_cycle_times_are_means_of_whole_days(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    first: dict[int, date] = {}
    for p in payments(rows):
        day = p["paid_at"].date()
        if p["amount"] > 0 and day <= VALUED:
            first[p["claim_id"]] = min(day, first.get(p["claim_id"], day))
    waits: dict[tuple[str, int], list[list[int]]] = defaultdict(lambda: [[], [], []])
    for number, c in known(rows).items():
        own = waits[c["line"], c["reported_at"].year]
        own[0].append((c["reported_at"].date() - c["loss_date"]).days)
        if number in first:
            own[1].append((first[number] - c["reported_at"].date()).days)
        if c["closed_at"] and c["closed_at"].date() <= VALUED:
            own[2].append((c["closed_at"].date() - c["reported_at"].date()).days)
    for row in ask(demo, "cycle_times"):
        own = waits[row["line"], row["report_year"]]
        assert [row["claims"], row["paid_claims"], row["closed_claims"]] == [len(x) for x in own]
        for name, values in zip(("loss_to_report", "report_to_payment", "report_to_close"), own, strict=True):
            assert row[name] == (pytest.approx(sum(values) / len(values)) if values else None)


def test_backlog_by_band_and_adjuster(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    valued = date(2025, 12, 31)
    names = {a["adjuster_id"]: a["name"] for a in rows["adjuster"]}
    expected: dict[tuple[str, str], list[int]] = defaultdict(list)
    for c in rows["claim"]:
        if c["closed_at"] is None:
            age = (valued - c["reported_at"].date()).days
            band = "0-7" if age <= 7 else "8-30" if age <= 30 else "31-60" if age <= 60 else ">60"
            expected[names[c["adjuster_id"]], band].append(age)
    found = {
        (r["adjuster"], r["band"]): (r["claims"], r["oldest_days"]) for r in ask(demo, "backlog", valuation=valued)
    }
    assert found == {k: (len(v), max(v)) for k, v in expected.items()}
    assert len({band for _, band in found}) >= 3


def test_a_claims_reserve_history_ends_at_its_figures(demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]) -> None:
    busiest = Counter(r["claim_id"] for r in rows["reserve_txn"] if r["booked_at"].date() <= VALUED).most_common(1)[0][
        0
    ]
    number = next(c["claim_number"] for c in rows["claim"] if c["claim_id"] == busiest)
    history = ask(demo, "reserve_history", claim=number)
    assert history == ask(demo, "reserve_history", claim=str(busiest))
    assert [r["moved_at"] for r in history] == sorted(r["moved_at"] for r in history)
    outstanding = paid = Decimal(0)
    for row in history:
        outstanding += row["amount"] if row["kind"] == "reserve" else 0
        paid += row["amount"] if row["kind"] == "payment" else 0
        assert (row["outstanding"], row["paid"], row["incurred"]) == (outstanding, paid, outstanding + paid)
    final = next(r for r in ask(demo, "claim_incurred") if r["claim_id"] == busiest)
    assert (final["outstanding"], final["paid"]) == (outstanding, paid)


def test_initial_reserves_are_compared_with_what_became_of_them(
    demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]
) -> None:
    year = {c["claim_id"]: (c["line"], c["loss_date"].year) for c in rows["claim"]}
    initial: Counter[int] = Counter()
    incurred: Counter[int] = Counter()
    claim_of: dict[int, int] = {}
    for r in rows["reserve_txn"]:
        if r["cost_type"] == "indemnity" and r["booked_at"].date() <= VALUED:
            claim_of[r["exposure_id"]] = r["claim_id"]
            incurred[r["exposure_id"]] += r["amount"]
            if r["reason"] == "initial":
                initial[r["exposure_id"]] += r["amount"]
    for p in payments(rows):
        if p["cost_type"] == "indemnity" and p["paid_at"].date() <= VALUED:
            incurred[p["exposure_id"]] += p["amount"]
    expected: dict[tuple[str, int], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for exposure, amount in initial.items():
        own = expected[year[claim_of[exposure]]]
        own[0] += amount
        own[1] += incurred[exposure]
    found = ask(demo, "initial_reserve_accuracy")
    assert {(r["line"], r["accident_year"]): [r["initial_reserve"], r["incurred"]] for r in found} == dict(expected)


def test_reserve_development_follows_the_claims_of_the_prior_valuation(
    demo: duckdb.DuckDBPyConnection, rows: dict[str, Rows]
) -> None:
    prior = date(2023, 6, 30)
    claims = {c["claim_id"]: c for c in rows["claim"] if c["reported_at"].date() <= prior}
    expected: Counter[tuple[str, int]] = Counter()
    for r in rows["reserve_txn"]:
        if r["claim_id"] in claims and prior < r["booked_at"].date() <= VALUED:
            c = claims[r["claim_id"]]
            expected[c["line"], c["loss_date"].year] += r["amount"]
    for p in payments(rows):
        if p["claim_id"] in claims and prior < p["paid_at"].date() <= VALUED:
            c = claims[p["claim_id"]]
            expected[c["line"], c["loss_date"].year] += p["amount"]
    found = ask(demo, "reserve_development", prior=prior)
    assert {(r["line"], r["accident_year"]): r["development"] for r in found if r["development"]} == {
        k: v for k, v in expected.items() if v
    }


def test_large_losses_are_those_above_the_threshold_largest_first(demo: duckdb.DuckDBPyConnection) -> None:
    found = ask(demo, "large_losses", threshold="20000")
    above = [r for r in ask(demo, "claim_money") if r["incurred"] >= 20000]
    assert {r["claim_number"] for r in found} == {r["claim_number"] for r in above}
    assert [r["incurred"] for r in found] == sorted((r["incurred"] for r in above), reverse=True)


def test_currencies_are_never_added_up(demo_tables: dict[str, pa.Table]) -> None:
    tables = {name: demo_tables[name] for name in demo_tables if name != "payment_line"}
    line = demo_tables["payment_line"]
    euros = pa.array(["EUR" if n % 2 else "USD" for n in range(line.num_rows)])
    connection = connect(
        {**tables, "payment_line": line.set_column(line.schema.get_field_index("currency"), "currency", euros)}
    )
    found = figures(connection, load("demo"), "totals", {"valuation": VALUED}).to_pylist()
    expected: Counter[str] = Counter()
    heads = {p["payment_id"]: p for p in demo_tables["payment"].to_pylist()}
    for n, row in enumerate(line.to_pylist()):
        if heads[row["payment_id"]]["paid_at"].date() <= VALUED:
            expected["EUR" if n % 2 else "USD"] += row["amount"]
    paid: Counter[str] = Counter()
    for row in found:
        paid[row["currency"]] += row["paid"]
    assert paid == expected


def test_a_figure_is_bound_and_never_pasted(demo: duckdb.DuckDBPyConnection) -> None:
    assert ask(demo, "totals", line="motor' OR '1'='1") == []
    assert ask(demo, "reserve_history", claim="x' OR true --") == []


def test_the_valuation_defaults_to_today(demo: duckdb.DuckDBPyConnection) -> None:
    assert datetime.now().year >= 2025
    assert figures(demo, load("demo"), "totals").equals(
        figures(demo, load("demo"), "totals", {"valuation": date.today()})
    )


def test_an_unknown_figure_names_those_there_are(demo: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UsageError, match="no figure profit") as error:
        figures(demo, load("demo"), "profit")
    assert "loss_ratio" in str(error.value.hint)
