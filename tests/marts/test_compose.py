"""One query out of figures, parts and a model, for three engines."""

from __future__ import annotations

import pytest
from sqlglot import exp

from claimhouse.errors import UsageError
from claimhouse.marts import compose, lint
from claimhouse.marts.figure import all_files, figure_names, find, parse
from claimhouse.marts.inputs import INPUTS
from claimhouse.marts.model import Model, load


def full_model() -> Model:
    """The demo's inputs, and a table for those that it does not have."""
    demo = load("demo")
    rest = {name: exp.select(*(c.name for c in INPUTS[name].columns)).from_(f"my_{name}") for name in INPUTS}
    return Model("full", "", "full.toml", {**rest, **demo.inputs})


@pytest.mark.parametrize("dialect", compose.DIALECTS)
@pytest.mark.parametrize("name", figure_names())
def test_every_figure_is_rendered_for_every_engine_and_reads_again(name: str, dialect: str) -> None:
    query = compose.compose(find(name), full_model())
    rendered = compose.render(query, dialect)
    again = compose.parses(rendered.sql, dialect)
    assert isinstance(again, exp.Query) and again.args.get("order") is not None
    assert set(rendered.parameters) == set(compose.parameters_of(find(name)))


@pytest.mark.parametrize("name", figure_names())
def test_ctes_stand_on_one_level_under_names_that_come_once(name: str) -> None:
    query = compose.compose(find(name), full_model(), claims=[1])
    for dialect in compose.DIALECTS:
        tree = compose.parses(compose.render(query, dialect).sql, dialect)
        names = [cte.alias for cte in tree.find_all(exp.CTE)]
        assert len(list(tree.find_all(exp.With))) == 1
        assert len(names) == len(set(names))


def test_a_models_own_ctes_meet_no_others() -> None:
    query = load("demo").inputs["claim_input"]
    mine = lint.read("x", f"WITH side AS ({query.sql('duckdb')}) SELECT {', '.join(query.named_selects)} FROM side")
    model = Model("mine", "", "mine.toml", {**load("demo").inputs, "claim_input": mine})
    tree = compose.compose(find("claim_incurred"), model, claims=[1])
    assert len(list(tree.find_all(exp.With))) == 1
    names = [cte.alias for cte in tree.find_all(exp.CTE)]
    assert "claim_input__side" in names and "claim_incurred__side" in names and len(names) == len(set(names))


@pytest.mark.parametrize("name", sorted(all_files()))
def test_every_input_that_is_declared_is_read_and_no_other(name: str) -> None:
    figure, query = all_files()[name], compose.query_of(name)
    own = {cte.alias for cte in query.find_all(exp.CTE)}
    assert {t.name for t in query.find_all(exp.Table)} - own == set(figure.inputs)


def test_trino_gets_its_parameters_in_the_order_of_the_text() -> None:
    rendered = compose.render(compose.compose(find("claims_by_status"), load("demo")), "trino")
    assert rendered.sql.count("?") == len(rendered.parameters) == 2
    assert rendered.parameters == ("line", "line")
    spark = compose.render(compose.compose(find("claims_by_status"), load("demo")), "spark")
    assert ":line" in spark.sql and spark.parameters == ("line",)


def test_values_become_literals_that_text_cannot_leave() -> None:
    query = compose.compose(find("claims_by_status"), load("demo"))
    sql = compose.render(query, "duckdb", values={"line": "x' OR '1'='1"}).sql
    assert "'x'' OR ''1''=''1'" in sql and "$" not in sql


def test_the_models_tables_take_another_engines_names() -> None:
    def place(table: exp.Table) -> exp.Table:
        return exp.to_table(f"lake.claims.main__public__{table.name}")

    sql = compose.render(compose.compose(find("claims_by_status"), load("demo"), tables=place), "trino").sql
    assert "lake.claims.main__public__claim AS c" in sql
    assert "FROM claim " not in sql


def test_a_given_table_stands_in_for_a_figure_and_its_inputs() -> None:
    sql = compose.render(compose.compose(find("totals"), load("prism"), given={"claim_money": "mart"}), "duckdb").sql
    assert "FROM mart" in sql and "payment" not in sql


def test_an_unknown_name_among_the_inputs_is_told() -> None:
    header = "-- title: t\n-- definition: d\n-- source: s\n-- rows: r\n-- inputs: claims\n-- columns:\n--   a count n\n"
    with pytest.raises(UsageError, match="claims is neither"):
        compose.needs(parse("mine", header + "SELECT 1 AS a"))


def test_there_are_three_dialects() -> None:
    with pytest.raises(UsageError, match="no dialect oracle"):
        compose.render(exp.select("1"), "oracle")
