"""The subset of SQL that figures are written in: what three engines are known to understand alike.

SQLGlot renders more than it renders right (seen: PERCENTILE_CONT, ISODOW, GROUP BY ALL, an ORDER BY lost from
COLLECT_LIST). So the list says what is allowed, and everything else is refused until someone has compared it on all
three engines. Beyond the list:

- a division is of doubles, and by NULLIF(…, 0): what a decimal's or a whole number's division gives, and what a zero
  does, differs;
- a sum of whole numbers is cast to BIGINT by whoever sums; an average is a division;
- windows that add up name their frame; the figure ends with an ORDER BY of whole columns;
- `*` is only for COUNT(*); joins have an ON; days are added by INTERVAL inside CAST(… AS DATE).
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

from claimhouse.errors import UsageError

ALLOWED: frozenset[type[exp.Expr]] = frozenset({
    exp.Select, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.With,
    exp.CTE, exp.Union, exp.Subquery, exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Identifier, exp.Literal,
    exp.Null, exp.Boolean, exp.Parameter, exp.Placeholder, exp.Var, exp.Star, exp.Paren, exp.Tuple,
    exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between,
    exp.Exists, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Neg, exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.Cast,
    exp.DataType, exp.DataTypeParam, exp.Interval, exp.Extract, exp.DateDiff, exp.AtTimeZone, exp.Floor, exp.Round,
    exp.Abs, exp.Least, exp.Greatest, exp.Lower, exp.Upper, exp.Trim, exp.Concat, exp.Pad, exp.Sum, exp.Count, exp.Min,
    exp.Max, exp.Distinct, exp.Window, exp.WindowSpec, exp.RowNumber, exp.Lag, exp.Lead,
})  # fmt: skip
TYPES = frozenset(
    {"BIGINT", "BOOLEAN", "DATE", "DECIMAL", "DOUBLE", "INT", "TEXT", "VARCHAR", "TIMESTAMP", "TIMESTAMPNTZ"}
)


def read(name: str, sql: str) -> exp.Query:
    """The one query in the text. Raises UsageError naming the file."""
    try:
        found = sqlglot.parse(sql, read="duckdb")
    except ParseError as error:
        where = error.errors[0] if error.errors else {}
        raise UsageError(f"{name}: line {where.get('line')}: {where.get('description', 'not SQL')}") from error
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        raise UsageError(f"{name}: it must be one SELECT")
    return found[0]


def findings(query: exp.Query, *, ordered: bool = True) -> list[str]:
    """What lies outside the subset, in words; `ordered`: the query must end with an ORDER BY."""
    found = [text for node in query.walk() for text in _of(node)]
    if ordered and query.args.get("order") is None:
        found.append("no ORDER BY at the end")
    return list(dict.fromkeys(found))


def _of(node: exp.Expr) -> Iterator[str]:
    if type(node) not in ALLOWED:
        name = (
            node.sql_name()
            if isinstance(node, exp.Func) and not isinstance(node, exp.Anonymous)
            else node.sql("duckdb")
        )
        yield f"not in the subset: {name}"
    elif check := _CHECKS.get(type(node)):
        yield from check(node)


def _star(node: exp.Expr) -> Iterator[str]:
    if not isinstance(node.parent, exp.Count):
        yield "`*` outside COUNT(*)"


def _division(node: exp.Expr) -> Iterator[str]:
    if not all(_is_double(side) for side in (node.left, node.right)):  # type: ignore[attr-defined]
        yield f"both sides of a division are CAST(… AS DOUBLE): {node.sql('duckdb')}"
    elif not (_guarded(node.right) or not list(node.right.find_all(exp.Column))):  # type: ignore[attr-defined]
        yield f"division by what may be zero; use CAST(NULLIF(…, 0) AS DOUBLE): {node.sql('duckdb')}"


def _is_double(node: exp.Expr) -> bool:
    return isinstance(node, exp.Cast) and node.to.this.name == "DOUBLE"


def _guarded(node: exp.Expr) -> bool:
    return isinstance(node.this, exp.Nullif)


def _join(node: exp.Expr) -> Iterator[str]:
    if node.args.get("using") or node.args.get("method"):
        yield "a join without ON"
    if node.kind != "CROSS" and not node.args.get("on"):  # type: ignore[attr-defined]
        yield "a join without ON (a comma?)"


def _window(node: exp.Expr) -> Iterator[str]:
    if (
        not isinstance(node.this, (exp.RowNumber, exp.Lag, exp.Lead))
        and node.args.get("order")
        and not node.args.get("spec")
    ):
        yield "a running sum without ROWS BETWEEN"


def _group(node: exp.Expr) -> Iterator[str]:
    if node.args.get("all") or any(isinstance(x, exp.Literal) for x in node.expressions):
        yield "GROUP BY names its columns"
    if any(node.args.get(kind) for kind in ("cube", "rollup", "grouping_sets")):
        yield "GROUP BY with CUBE, ROLLUP or GROUPING SETS"


def _ordered(node: exp.Expr) -> Iterator[str]:
    if node.this.name.upper() == "ALL":
        yield "ORDER BY names its columns"


def _type(node: exp.Expr) -> Iterator[str]:
    if node.this.name not in TYPES and not isinstance(node.parent, exp.Interval):
        yield f"not a type of the subset: {node.this.name}"


def _interval(node: exp.Expr) -> Iterator[str]:
    outer = node.parent.parent if node.parent else None
    if not (isinstance(outer, exp.Cast) and outer.to.this.name == "DATE"):
        yield "a date and an INTERVAL are added inside CAST(… AS DATE)"


def _date_diff(node: exp.Expr) -> Iterator[str]:
    if (node.args.get("unit") or exp.Var(this="DAY")).name.upper() != "DAY":
        yield "DATE_DIFF counts days"


def _extract(node: exp.Expr) -> Iterator[str]:
    if node.name.upper() not in ("YEAR", "MONTH", "DAY"):
        yield f"EXTRACT({node.name.upper()}) differs between engines"


def _parameter(node: exp.Expr) -> Iterator[str]:
    if not isinstance(node.parent, exp.Cast):
        yield f"a parameter is typed by CAST: {node.sql('duckdb')}"


_CHECKS = {
    exp.Star: _star,
    exp.Div: _division,
    exp.Join: _join,
    exp.Window: _window,
    exp.Group: _group,
    exp.Ordered: _ordered,
    exp.DataType: _type,
    exp.Interval: _interval,
    exp.DateDiff: _date_diff,
    exp.Extract: _extract,
    exp.Parameter: _parameter,
    exp.Placeholder: _parameter,
}
