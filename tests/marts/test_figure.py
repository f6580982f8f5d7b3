"""Headers of figure files, and the parameters that figures are asked with."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from claimhouse.errors import UsageError
from claimhouse.marts.figure import all_files, bound, figure_names, find, parse

HEADER = """\
-- title: A figure
-- definition: What it means,
--   on two lines.
-- source: a book
-- rows: one
-- inputs: claim_input
-- parameters: line
-- columns:
--   a count? the number
SELECT 1 AS a
"""
TODAY = date(2025, 6, 30)


def test_a_header_says_all_there_is_to_know() -> None:
    figure = parse("mine", HEADER)
    assert figure.definition == "What it means, on two lines."
    assert figure.inputs == ("claim_input",) and figure.parameters == ("line",)
    assert [(c.name, c.kind, c.nullable, c.meaning) for c in figure.columns] == [("a", "count", True, "the number")]
    assert figure.sql == "SELECT 1 AS a"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("-- source: a book\n", "", "no source"),
        ("-- rows: one", "-- row: one", "row"),
        ("line\n-- columns", "lime\n-- columns", "lime"),
        ("--   a count? the number\n", "", "columns"),
        ("a count? the number", "a count?", "line 9"),
    ],
)
def test_a_bad_header_is_told_by_figure_and_field(old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError, match="mine") as error:
        parse("mine", HEADER.replace(old, new))
    assert said in str(error.value)


def test_parts_are_not_figures() -> None:
    assert "cells" in all_files() and "cells" not in figure_names()
    with pytest.raises(UsageError, match="no figure cells"):
        find("cells")


def test_parameters_come_as_text_and_are_typed() -> None:
    asked = {"valuation": "2024-12-31", "threshold": "1000.50", "origin_months": "3", "line": "motor"}
    values = bound(("valuation", "threshold", "origin_months", "line"), asked, TODAY)
    assert values == {
        "valuation": date(2024, 12, 31),
        "threshold": Decimal("1000.50"),
        "origin_months": 3,
        "line": "motor",
    }


def test_defaults_fill_what_is_not_given() -> None:
    assert bound(("valuation", "line", "origin_months"), {}, TODAY) == {
        "valuation": TODAY,
        "line": None,
        "origin_months": 12,
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"valuation": "yesterday"}, "valuation is not a date"),
        ({"threshold": "NaN"}, "threshold"),
        ({"origin_months": 5}, "one of 1, 3, 6, 12"),
        ({"colour": "red"}, "no parameter colour"),
        ({}, "claim is missing"),
    ],
)
def test_a_wrong_parameter_is_told_by_name_and_never_by_value(given: dict[str, object], said: str) -> None:
    names = ("valuation", "threshold", "origin_months") if given else ("claim",)
    with pytest.raises(UsageError, match=said) as error:
        bound(names, given, TODAY)
    assert "yesterday" not in str(error.value)
