"""Triangles by hand, and against chainladder on its own data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.marts.cells import cells, oracle_cells
from tests.marts.conftest import connect

from claimhouse.errors import UsageError
from claimhouse.marts import figures, load
from claimhouse.marts.model import Model, parse
from claimhouse.marts.reserving import factors, grid, reserve, to_chainladder

HISTORY = """
[model]
name = "hand"
[inputs]
amount_history_input = \"\"\"
SELECT h.claim_id, h.line, h.currency, h.loss_date, h.paid, h.outstanding, h.valid_from, h.valid_to FROM said AS h
\"\"\"
"""


def said(*rows: tuple[Any, ...]) -> tuple[duckdb.DuckDBPyConnection, Model]:
    """Versions (claim, loss, paid, outstanding, from, to)."""
    names = ("claim_id", "loss_date", "paid", "outstanding", "valid_from", "valid_to")
    table = pa.table({name: [row[n] for row in rows] for n, name in enumerate(names)})
    table = table.append_column("line", pa.array(["motor"] * len(rows))).append_column(
        "currency", pa.array(["USD"] * len(rows))
    )
    return connect({"said": table}), parse(HISTORY, "hand.toml")


def test_an_overwritten_amount_counts_as_it_was_seen_at_each_age() -> None:
    loss = date(2020, 5, 1)
    book = said(
        (1, loss, 0, 100, date(2020, 6, 1), date(2021, 2, 1)),
        (1, loss, 80, 50, date(2021, 2, 1), date(2022, 3, 1)),
        (1, loss, 120, 0, date(2022, 3, 1), None),
    )
    found = figures(*book, "triangle_log", {"valuation": "2022-12-31"})
    assert cells(found, "paid") == {("2020-01-01", 12): 0, ("2020-01-01", 24): 80, ("2020-01-01", 36): 120}
    assert cells(found, "incurred") == {("2020-01-01", 12): 100, ("2020-01-01", 24): 130, ("2020-01-01", 36): 120}


def test_a_deleted_row_is_taken_back_at_the_age_of_its_deletion() -> None:
    book = said((1, date(2020, 5, 1), 70, 0, date(2020, 6, 1), date(2022, 1, 1)))
    found = cells(figures(*book, "triangle_log", {"valuation": "2022-12-31"}))
    assert found == {("2020-01-01", 12): 70, ("2020-01-01", 24): 70, ("2020-01-01", 36): 0}


def test_ages_without_movement_and_years_without_losses_have_cells() -> None:
    book = said(
        (1, date(2018, 5, 1), 10, 0, date(2018, 6, 1), None),
        (2, date(2020, 5, 1), 20, 0, date(2020, 6, 1), None),
    )
    found = cells(figures(*book, "triangle_log", {"valuation": "2020-12-31"}))
    assert found == {
        ("2018-01-01", 12): 10, ("2018-01-01", 24): 10, ("2018-01-01", 36): 10,
        ("2019-01-01", 12): 0, ("2019-01-01", 24): 0, ("2020-01-01", 12): 20,
    }  # fmt: skip


def test_a_development_period_that_has_not_ended_is_marked() -> None:
    book = said((1, date(2019, 5, 1), 10, 0, date(2019, 6, 1), None))
    half = figures(*book, "triangle_log", {"valuation": "2020-06-30"}).to_pylist()
    assert [(r["age"], r["complete"]) for r in half if r["measure"] == "paid"] == [(12, True), (24, False)]
    almost = figures(*book, "triangle_log", {"valuation": "2019-12-30"}).to_pylist()
    assert not any(r["complete"] for r in almost)


def test_money_before_the_loss_counts_at_the_first_age() -> None:
    book = said((1, date(2020, 5, 1), 10, 0, date(2019, 12, 1), None))
    assert cells(figures(*book, "triangle_log", {"valuation": "2020-12-31"})) == {("2020-01-01", 12): 10}


@pytest.mark.parametrize("months", [12, 1])
def test_a_loss_in_a_year_that_cannot_be_takes_no_cell_from_the_others(months: int) -> None:
    rows = [
        (1, date(2019, 5, 1), 10, 0, date(2019, 6, 1), None),
        (2, date(1941, 3, 1), 20, 0, date(2020, 6, 1), None),
    ]
    odd = [(n, day, 1, 0, date(2020, 6, 1), None) for n, day in enumerate((date(1, 1, 1), date(9999, 12, 31)), 3)]
    asked = {"valuation": "2020-12-31", "origin_months": months, "development_months": months}
    found = figures(*said(*rows, *odd), "triangle_log", asked)
    assert found == figures(*said(*rows), "triangle_log", asked)
    assert {"1941-01-01" if months == 12 else "1941-03-01", "2019-01-01"} <= {
        str(o) for o in found["origin"].to_pylist()
    }
    assert max(found["age"].to_pylist()) == (80 * 12 if months == 12 else 958)


@pytest.mark.parametrize(("origin", "development"), [(12, 12), (12, 3), (3, 3), (6, 3), (1, 1)])
def test_period_starts_and_ages_are_whole(origin: int, development: int) -> None:
    book = said((1, date(2019, 11, 30), 10, 0, date(2020, 2, 1), None))
    asked = {"valuation": "2020-03-31", "origin_months": origin, "development_months": development}
    found = figures(*book, "triangle_log", asked).to_pylist()
    begins = date(2019, (11 - 1) // origin * origin + 1, 1)
    assert {r["origin"] for r in found} == {begins}
    months = (2020 - begins.year) * 12 + 3 - begins.month + 1
    assert [r["age"] for r in found if r["measure"] == "paid"] == list(
        range(development, months + development, development)
    )


# --- against chainladder


pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def test_prisms_paid_triangle_equals_chainladders_in_all_55_cells(
    prism_book: duckdb.DuckDBPyConnection, paid_oracle: Any
) -> None:
    found = cells(figures(prism_book, load("prism"), "triangle_paid", {"valuation": "2017-12-31"}))
    expected = oracle_cells(paid_oracle.grain("OYDY").incr_to_cum())
    assert len(found) == 55
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-6)


@pytest.mark.parametrize(("grain", "origin", "development"), [("OYDQ", 12, 3), ("OQDQ", 3, 3), ("OQDM", 3, 1)])
def test_other_grains_equal_chainladders(
    prism_book: duckdb.DuckDBPyConnection, paid_oracle: Any, grain: str, origin: int, development: int
) -> None:
    asked = {"valuation": "2017-12-31", "origin_months": origin, "development_months": development}
    found = cells(figures(prism_book, load("prism"), "triangle_paid", asked))
    expected = {k: v for k, v in oracle_cells(paid_oracle.grain(grain).incr_to_cum()).items() if v}
    assert {k: v for k, v in found.items() if v} == pytest.approx(expected, rel=1e-12, abs=1e-6)


def test_an_earlier_valuation_equals_chainladders(prism_book: duckdb.DuckDBPyConnection, paid_oracle: Any) -> None:
    found = cells(figures(prism_book, load("prism"), "triangle_paid", {"valuation": "2013-12-31"}))
    whole = paid_oracle.grain("OYDY").incr_to_cum()
    expected = oracle_cells(whole[whole.valuation < "2014"])
    expected = {k: v for k, v in expected.items() if k[0] <= "2013-12"}
    assert len(found) == 21 and found == pytest.approx(expected, rel=1e-12)


def test_a_line_of_prism_equals_chainladders(prism_book: duckdb.DuckDBPyConnection, oracle: Callable[..., Any]) -> None:
    found = cells(figures(prism_book, load("prism"), "triangle_paid", {"valuation": "2017-12-31", "line": "Home"}))
    expected = oracle_cells(oracle("Home")["Paid"].grain("OYDY").incr_to_cum())  # which leaves out cells of nothing
    assert {k: v for k, v in found.items() if v} == pytest.approx(expected, rel=1e-12)
    assert len(expected) == 45


def test_prisms_closed_counts_equal_chainladders(
    prism_book: duckdb.DuckDBPyConnection, oracle: Callable[..., Any]
) -> None:
    found = figures(prism_book, load("prism"), "triangle_counts", {"valuation": "2017-12-31"})
    counts = oracle().grain("OYDY").incr_to_cum()
    assert cells(found, "closed_with_payment") == oracle_cells(counts["closedPaidCount"])
    # its reportedCount is developed by payment date, which is the day of closing
    assert cells(found, "closed") == oracle_cells(counts["reportedCount"])


def test_prisms_paid_chain_ladder_ibnr(prism_book: duckdb.DuckDBPyConnection, cl: Any) -> None:
    found = figures(prism_book, load("prism"), "triangle_paid", {"valuation": "2017-12-31"})
    total = reserve(found).to_pylist()[-1]
    assert total["origin"] is None and total["ibnr"] == pytest.approx(495_644_438.43, abs=0.01)
    assert reserve(found).num_rows == 11


def test_factors_equal_chainladders(prism_book: duckdb.DuckDBPyConnection, cl: Any) -> None:
    found = figures(prism_book, load("prism"), "triangle_paid", {"valuation": "2017-12-31"})
    expected = cl.Development().fit(to_chainladder(found)).ldf_.values.ravel()
    assert factors(found)["factor"].to_pylist() == pytest.approx(list(expected), rel=1e-12)


def raa(cl: Any) -> pa.Table:
    rows = oracle_cells(cl.load_sample("raa"))
    return pa.table(
        {
            "measure": ["paid"] * len(rows),
            "currency": ["USD"] * len(rows),
            "origin": [date.fromisoformat(origin) for origin, _ in rows],
            "age": [age for _, age in rows],
            "value": list(rows.values()),
        }
    )


def test_raa_gives_the_published_ultimate_and_mack_error(cl: Any) -> None:
    total = reserve(raa(cl)).to_pylist()[-1]
    assert total["ultimate"] == pytest.approx(213_122.23, abs=0.01)
    assert total["ibnr"] == pytest.approx(52_135.23, abs=0.01)
    assert total["mack_std_err"] == pytest.approx(26_880.74, abs=0.01)


def test_factors_alone_give_raas_ultimate(cl: Any) -> None:
    triangle = raa(cl)
    to_ultimate = {r["age"]: r["to_ultimate"] for r in factors(triangle).to_pylist()}
    latest: dict[date, tuple[int, float]] = {}
    for row in triangle.to_pylist():
        latest[row["origin"]] = max(latest.get(row["origin"], (0, 0.0)), (row["age"], row["value"]))
    assert sum(value * to_ultimate.get(age, 1.0) for age, value in latest.values()) == pytest.approx(
        213_122.23, abs=0.01
    )


def test_one_triangle_must_be_named_where_there_are_several(prism_book: duckdb.DuckDBPyConnection, cl: Any) -> None:
    counts = figures(prism_book, load("prism"), "triangle_counts", {"valuation": "2017-12-31"})
    with pytest.raises(UsageError, match="name one triangle"):
        reserve(counts)
    assert reserve(counts, measure="reported").num_rows == 11


def test_a_triangle_is_read_as_a_grid() -> None:
    book = said(
        (1, date(2019, 5, 1), 10, 0, date(2019, 6, 1), None),
        (1, date(2019, 5, 1), 5, 0, date(2020, 6, 1), None),
        (2, date(2020, 5, 1), 20, 0, date(2020, 6, 1), None),
    )
    found = figures(*book, "triangle_log", {"valuation": "2020-12-31"})
    assert [list(map(str, row.values())) for row in grid(found).to_pylist() if row["measure"] == "paid"] == [
        ["paid", "USD", "2019-01-01", "10.00", "15.00"],
        ["paid", "USD", "2020-01-01", "20.00", "None"],
    ]
    assert [str(row["12"]) for row in grid(found, "link_ratio").to_pylist()][-2:] == ["1.5000", "None"]
