"""Model files: what they must fill, and how their mistakes are told."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from claimhouse.marts import available, check, figures, load
from claimhouse.marts.model import ModelError, parse, shipped

GOOD = """
[model]
name = "mine"
[inputs]
recovery_input = "SELECT r.claim AS claim_id, r.kind, r.amount, r.currency, r.got AS booked_at FROM recovery AS r"
"""


def test_shipped_models_load_by_name() -> None:
    assert shipped() == ["demo", "prism"]
    assert all(load(name).name == name for name in shipped())


def test_a_model_file_loads_by_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load(tmp_path / "mine.toml").tables("recovery_input") == ["recovery"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("r.kind, ", "", ["recovery_input", "column kind is missing"]),
        ("recovery_input", "recoveries", ["recoveries is not an input"]),
        ("[inputs]", "[tables]", ["unknown section [tables]"]),
        ("SELECT", "SELEC", ["recovery_input"]),
        ("r.amount,", "MEDIAN(r.amount) AS amount,", ["recovery_input", "MEDIAN"]),
        ("r.amount, r.currency", "*", ["recovery_input", "`*`"]),
        ('name = "mine"', "name = mine", ["mine.toml"]),
        (
            "[inputs]",
            "[changed]\nrecovery = 'SELECT c.a AS a FROM changed AS c'\n[inputs]",
            ["changed.recovery", "claim_id"],
        ),
    ],
)
def test_a_mistake_is_told_by_file_input_and_column(old: str, new: str, said: list[str]) -> None:
    with pytest.raises(ModelError, match=r"mine\.toml") as error:
        parse(GOOD.replace(old, new), "mine.toml")
    assert all(text in str(error.value) for text in said)


def test_a_column_of_another_kind_is_told_by_file_input_and_column() -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE recovery (claim BIGINT, kind VARCHAR, amount VARCHAR, currency VARCHAR, got TIMESTAMP)"
    )
    with pytest.raises(ModelError, match=r"mine\.toml: recovery_input: amount is VARCHAR, not a money"):
        check(connection, parse(GOOD, "mine.toml"))


def test_a_column_that_the_table_does_not_have_is_told_by_file_and_input() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE recovery (claim BIGINT, kind VARCHAR, currency VARCHAR, got TIMESTAMP)")
    with pytest.raises(ModelError, match=r"mine\.toml: recovery_input: .*amount"):
        check(connection, parse(GOOD, "mine.toml"))


def test_the_demo_model_fits_the_demo_book(demo: duckdb.DuckDBPyConnection) -> None:
    check(demo, load("demo"))


def test_a_figure_without_its_inputs_is_off_and_says_which(prism_book: duckdb.DuckDBPyConnection) -> None:
    states = {a.name: a for a in available(load("prism"), prism_book)}
    assert states["triangle_paid"].on and states["claim_paid"].on
    assert states["claim_incurred"].missing == ("reserve_input: not in the model",)
    with pytest.raises(Exception, match="off: reserve_input: not in the model"):
        figures(prism_book, load("prism"), "claim_incurred")


def test_a_figure_whose_table_is_not_there_is_off_and_the_others_are_not(demo_tables: dict) -> None:
    from tests.marts.conftest import connect

    connection = connect(
        {name: demo_tables[name] for name in ("claim", "policy", "adjuster", "payment", "payment_line")}
    )
    states = {a.name: a for a in available(load("demo"), connection)}
    assert states["claim_paid"].on
    assert states["totals"].missing == (
        "recovery_input: there is no table recovery_txn",
        "reserve_input: there is no table reserve_txn",
    )
    with pytest.raises(Exception, match="off: reserve_input: there is no table reserve_txn"):
        figures(connection, load("demo"), "claim_outstanding")
    assert figures(connection, load("demo"), "claim_paid").num_rows == demo_tables["claim"].num_rows
