"""The subset that figures and models are written in."""

from __future__ import annotations

import pytest

from claimhouse.errors import UsageError
from claimhouse.marts import lint
from claimhouse.marts.compose import query_of
from claimhouse.marts.figure import all_files


@pytest.mark.parametrize("name", sorted(all_files()))
def test_every_file_keeps_to_the_subset(name: str) -> None:
    assert lint.findings(query_of(name), ordered=all_files()[name].then is None) == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY a) AS m FROM t ORDER BY m", "not in the subset"),
        ("SELECT QUANTILE_CONT(a, 0.5) AS m FROM t ORDER BY m", "not in the subset"),
        ("SELECT EXTRACT(ISODOW FROM a) AS d FROM t ORDER BY d", "EXTRACT(ISODOW)"),
        ("SELECT a FROM t GROUP BY ALL ORDER BY a", "GROUP BY"),
        ("SELECT a, COUNT(*) AS n FROM t GROUP BY 1 ORDER BY a", "GROUP BY names its columns"),
        ("SELECT a FROM t GROUP BY ROLLUP (a) ORDER BY a", "not in the subset"),
        ("SELECT LIST(a ORDER BY a) AS l FROM t ORDER BY l", "not in the subset"),
        ("SELECT LIST_SUM([1, 2]) AS l FROM t ORDER BY l", "not in the subset"),
        ("SELECT STRING_AGG(a, ',') AS l FROM t ORDER BY l", "not in the subset"),
        ("SELECT a FROM t QUALIFY ROW_NUMBER() OVER (ORDER BY a) = 1 ORDER BY a", "not in the subset"),
        ("SELECT AVG(a) AS a FROM t ORDER BY a", "not in the subset"),
        ("SELECT a / b AS r FROM t ORDER BY r", "CAST"),
        ("SELECT CAST(a AS DOUBLE) / CAST(b AS DOUBLE) AS r FROM t ORDER BY r", "NULLIF"),
        ("SELECT a // 2 AS r FROM t ORDER BY r", "not in the subset"),
        ("SELECT SUM(a) OVER (ORDER BY b) AS s FROM t ORDER BY s", "ROWS BETWEEN"),
        ("SELECT * FROM t ORDER BY a", "COUNT(*)"),
        ("SELECT a FROM t, u ORDER BY a", "ON"),
        ("SELECT a FROM t JOIN u USING (a) ORDER BY a", "ON"),
        ("SELECT a FROM t", "ORDER BY"),
        ("SELECT a FROM t ORDER BY ALL", "ORDER BY names"),
        ("SELECT DATE_DIFF('month', a, b) AS d FROM t ORDER BY d", "days"),
        ("SELECT a + INTERVAL '1' DAY AS d FROM t ORDER BY d", "INTERVAL"),
        ("SELECT a FROM t WHERE b = $line ORDER BY a", "typed by CAST"),
        ("SELECT CAST(a AS HUGEINT) AS a FROM t ORDER BY a", "not a type"),
        ("SELECT strftime(a, '%Y') AS y FROM t ORDER BY y", "not in the subset"),
        ("SELECT a FROM read_csv('x.csv') ORDER BY a", "not in the subset"),
        ("SELECT a FROM t TABLESAMPLE 10% ORDER BY a", "not in the subset"),
        ("SELECT DATE_TRUNC('month', a) AS m FROM t ORDER BY m", "not in the subset"),
        ("SELECT MEDIAN(a) AS m FROM t ORDER BY m", "not in the subset"),
    ],
)
def test_what_engines_read_differently_is_refused(sql: str, said: str) -> None:
    assert any(said in text for text in lint.findings(lint.read("x", sql))), lint.findings(lint.read("x", sql))


@pytest.mark.parametrize("sql", ["SELECT FROM WHERE", "DROP TABLE t", "SELECT 1 AS a; SELECT 2 AS a"])
def test_what_is_not_one_select_is_refused_by_name(sql: str) -> None:
    with pytest.raises(UsageError, match=r"mine\.sql"):
        lint.read("mine.sql", sql)
