"""A statement for Trino in the lake's names: tables become CTEs, and nothing but reading is let through."""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from claimhouse.distributed.asking import read, rewritten
from claimhouse.errors import QueryError
from claimhouse.query.names import Names, TableName

CLAIM, PAYMENT, ORDER = (
    TableName("main", "public", "claim"), TableName("main", "public", "payment"), TableName("main", "sales", "Order"),
)  # fmt: skip
NAMES = Names([CLAIM, PAYMENT, ORDER])


def relation(table: TableName) -> str:
    return f'SELECT "id" FROM "c"."main__{table.schema}"."{table.name.lower()}"'


def written(text: str) -> str:
    return rewritten(text, NAMES, relation)


def read_tables(sql: str) -> dict[str, str]:
    """The CTEs in front of a statement by name, each with the table that it reads."""
    tree = sqlglot.parse_one(sql, dialect="trino")
    return {c.alias: t.sql("trino") for c in tree.find_all(exp.CTE) for t in c.this.find_all(exp.Table) if t.catalog}


def test_each_table_becomes_one_cte_however_often_it_is_named() -> None:
    sql = written('SELECT count(*) FROM claim a JOIN public.claim b ON a.id = b.id JOIN sales."Order" ON true')
    assert read_tables(sql) == {
        "lake_0": '"c"."main__public"."claim"', "lake_1": '"c"."main__sales"."order"',
    }  # fmt: skip
    assert 'FROM lake_0 AS a JOIN lake_0 AS b ON a.id = b.id JOIN lake_1 AS "Order" ON TRUE' in sql


def test_a_table_without_an_alias_keeps_its_name_for_its_columns() -> None:
    assert written("SELECT claim.id FROM main.public.claim").endswith('SELECT claim.id FROM lake_0 AS "claim"')


def test_names_inside_subqueries_and_unions_are_found() -> None:
    sql = written("SELECT (SELECT max(id) FROM payment) FROM claim UNION ALL SELECT id FROM (SELECT * FROM payment) p")
    assert len(read_tables(sql)) == 2
    assert sqlglot.parse_one(sql, dialect="trino").args["with_"] is not None


def test_a_cte_of_the_readers_own_hides_a_table_where_it_is_visible() -> None:
    sql = written(
        "WITH claim AS (SELECT id FROM claim WHERE id > 1), p AS (SELECT * FROM claim) SELECT * FROM claim, p"
    )
    tree = sqlglot.parse_one(sql, dialect="trino")
    bodies = {c.alias: c.this.sql("trino") for c in tree.args["with_"].expressions}
    assert "lake_0" in bodies["claim"], "inside itself it still means the lake's table"
    assert bodies["p"] == "SELECT * FROM claim" and sql.endswith("SELECT * FROM claim, p")


def test_a_recursive_cte_means_itself() -> None:
    sql = written("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT * FROM t, claim")
    assert sql.startswith("WITH RECURSIVE lake_0 AS (") and sql.endswith('FROM t, lake_0 AS "claim"')


def test_a_statement_without_tables_is_left_as_it_is() -> None:
    assert written("SELECT 1") == "SELECT 1"
    assert written("VALUES 1, 2") == "SELECT * FROM (VALUES (1), (2))"


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO claim SELECT 1", "DELETE FROM claim", "CREATE TABLE x AS SELECT 1", "DROP TABLE claim",
        "CALL system.sync()", "SHOW TABLES", "SET SESSION a = 1", "SELECT 1; SELECT 2", "", "SELECT * FROM (",
        "SELECT * FROM TABLE(c.system.query('x'))", "GRANT SELECT ON claim TO x", "EXPLAIN SELECT 1",
        "MERGE INTO claim USING payment ON true WHEN MATCHED THEN DELETE",
    ],
)  # fmt: skip
def test_what_is_not_one_reading_statement_is_refused(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        written(text)
    assert "one SELECT" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["claims", "system.runtime.queries", '"claim$history"', "main__public__log.claim"])
def test_no_other_table_of_trino_can_be_read(name: str) -> None:
    with pytest.raises(QueryError, match="does not exist in this lake"):
        written(f"SELECT * FROM {name}")


def test_versions_of_tables_are_refused_with_the_way_to_ask() -> None:
    with pytest.raises(QueryError) as caught:
        written("SELECT * FROM claim FOR VERSION AS OF 3")
    assert "--at MOMENT" in str(caught.value.hint)


def test_a_statement_that_cannot_be_parsed_says_where() -> None:
    with pytest.raises(QueryError, match="at line 2"):
        read("SELECT 1\nFROM WHERE (")
