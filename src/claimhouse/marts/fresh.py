"""Figures per claim, kept fresh at the cost of the claims that changed.

A figure per claim depends on that claim's rows alone. So after a cut only the claims that it touched are computed
again, from all of their rows, and put in the place of what was there: no arithmetic on differences, nothing to drift.
What else is known per claim (totals, large losses) is then read from the mart instead of from the payments.

    mart = ClaimMart(model)
    mart.rebuild(session)
    mart.refresh(next_session, changed_claims(next_session, model, {"payment_line": rows}))
    mart.figures("totals")
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from claimhouse.errors import UsageError
from claimhouse.marts import compose, runner
from claimhouse.marts.figure import bound, columns_of, find
from claimhouse.marts.model import Model

if TYPE_CHECKING:
    from claimhouse.query.session import Session

LAST_DAY = "9999-12-31"


def changed_claims(
    target: duckdb.DuckDBPyConnection | Session, model: Model, changes: Mapping[str, pa.Table]
) -> list[Any]:
    """The keys of the claims that changed rows touch, by the model's [changed], sorted.

    `changes`: the insurer's table -> rows as they were and as they are, with the columns that the model's query reads.
    Tables that the model does not list touch no claim. `target` must stand at the later cut; a claim that a row
    belonged to before is found only if the row that says so is among the changes.
    """
    found: set[Any] = set()
    for table, rows in changes.items():
        if table not in model.changed or not rows.num_rows:
            continue
        if isinstance(target, duckdb.DuckDBPyConnection):
            found.update(touched_claims(target, changed_sql(model, table), rows))
        else:
            query = _over(model.changed[table].copy(), rows)
            found.update(runner.run(target, query, {}).column(0).to_pylist())
    return sorted(found - {None})


def changed_sql(model: Model, table: str) -> str:
    """The model's query for a table's touched claims, as DuckDB runs it over `changed_rows`."""
    query = model.changed[table].copy()
    names = _read(query)
    query = query.with_("changed", as_=exp.select(*map(exp.column, names)).distinct().from_("changed_rows"))
    return compose.render(query, "duckdb").sql


def touched_claims(target: duckdb.DuckDBPyConnection, sql: str, changed_rows: pa.Table) -> set[Any]:
    """The claims that `changed_sql` finds for these rows."""
    own = target.cursor()
    own.register("changed_rows", changed_rows)
    return {row[0] for row in own.sql(sql).fetchall()} - {None}


def _over(query: exp.Query, rows: pa.Table) -> exp.Query:
    """The query with `changed` as the distinct values of the columns that it reads."""
    names = _read(query)
    distinct = rows.select(names).group_by(names).aggregate([])
    values = exp.values([tuple(row.values()) for row in distinct.to_pylist()], alias="changed", columns=names)
    return query.with_("changed", as_=exp.select("*").from_(values))


def readable(name: str, mart: str = "claim_money") -> bool:
    """Whether a figure reads nothing but a mart's."""
    figure = find(name)
    return figure.inputs == (mart,) and figure.then is None


def _read(query: exp.Query) -> list[str]:
    """The columns of `changed` that a query reads."""
    aliases = {t.alias_or_name for t in query.find_all(exp.Table) if t.name == "changed"}
    return sorted({c.name for c in query.find_all(exp.Column) if c.table in aliases})


class ClaimMart:
    """One figure per claim, held in memory; `name` is a figure whose first column is claim_id.

    `params` are fixed for the mart's life; the valuation defaults to the end of time: whatever is booked counts.
    """

    def __init__(self, model: Model, name: str = "claim_money", params: Mapping[str, Any] | None = None) -> None:
        figure = find(name)
        if not figure.columns or figure.columns[0].name != "claim_id":
            raise UsageError(f"the figure {name} is not one per claim")
        self.model = model
        self.name = name
        self.params = {"valuation": LAST_DAY, **(params or {})}
        self._connection = duckdb.connect(config={"threads": 1})
        self._some: compose.Rendered | None = None  # the figure of some claims, written once

    def rebuild(self, target: duckdb.DuckDBPyConnection | Session) -> int:
        """Compute every claim; returns the number of rows."""
        rows = runner.figures(target, self.model, self.name, self.params)
        self._connection.register("computed", rows)
        self._connection.execute("CREATE OR REPLACE TABLE mart AS FROM computed")
        self._connection.unregister("computed")
        return rows.num_rows

    def refresh(self, target: duckdb.DuckDBPyConnection | Session, claims: Collection[Any]) -> int:
        """Compute these claims again and no others; returns the number of their rows. Deleted claims vanish."""
        if not claims:
            return 0
        if isinstance(target, duckdb.DuckDBPyConnection):
            rows = self._of(target, claims)
        else:
            rows = runner.figures(target, self.model, self.name, self.params, claims=claims)
        own = self._connection
        own.register("computed", rows)
        own.register("touched", pa.table({"claim_id": pa.array(list(claims))}))
        own.begin()
        own.execute("DELETE FROM mart WHERE claim_id IN (SELECT claim_id FROM touched)")
        own.execute("INSERT INTO mart FROM computed")
        own.commit()
        own.unregister("computed").unregister("touched")
        return rows.num_rows

    def _of(self, target: duckdb.DuckDBPyConnection, claims: Collection[Any]) -> pa.Table:
        """The rows of these claims, whose list is bound: the query is put together once."""
        figure = find(self.name)
        if self._some is None:
            self._some = compose.render(compose.compose(figure, self.model, claims="claims"), "duckdb")
        values = bound(compose.parameters_of(figure), self.params, runner.day_of(target))
        given = {name: values[name] for name in self._some.parameters} | {"claims": list(claims)}
        found = target.cursor().sql(self._some.sql, params=given).to_arrow_table()
        return found.rename_columns([c.name for c in columns_of(figure)])

    def table(self) -> pa.Table:
        """All rows, in the figure's order."""
        return self._connection.cursor().sql("FROM mart ORDER BY claim_id, currency").to_arrow_table()

    def figures(self, name: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        """Another figure that can be read from the mart alone, e.g. totals or large_losses, at the mart's valuation."""
        asked = {"valuation": self.params["valuation"], **(params or {})}
        if str(asked["valuation"]) != str(self.params["valuation"]):
            raise UsageError(f"the mart is valued at {self.params['valuation']}", hint="ask the session instead")
        known = compose.parameters_of(find(name))
        asked = {key: value for key, value in asked.items() if key in known or key != "valuation"}
        return runner.figures(self._connection, self.model, name, asked, given={self.name: "mart"})
