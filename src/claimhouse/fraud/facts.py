"""The inputs of rules as tables: what a model's SELECTs give, kept fresh claim by claim.

An input whose rows belong to claims is computed once and kept; after a change only the touched claims' rows are
computed again and compared with what was there. So a rule is asked again only where a fact that it reads has changed:
a new status or note moves nothing. Inputs that belong to no claim (policies, providers) stay views of the insurer's
tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.fraud import graph
from claimhouse.fraud.inputs import INPUTS
from claimhouse.marts.model import Model

SMALL = 100_000  # rows up to which reading an input whole costs less than planning what of it to skip


@dataclass(frozen=True, slots=True)
class Difference:
    """Claims whose rows in an input differ. `rows`: those that came, or if some are `gone`, all that these claims have
    now; None for an input that is a view."""

    claims: pa.Array
    rows: pa.Table | None
    gone: bool = False


class Facts:
    """The inputs of a model over the insurer's tables in a connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, model: Model) -> None:
        self.connection, self.model = connection, model
        self.kept = [name for name in model.inputs if INPUTS[name].per_claim]
        self.reads = {name: frozenset(model.tables(name)) for name in model.inputs}
        for name, query in model.inputs.items():
            made = f"VIEW fresh_{name}" if name in self.kept else f"VIEW {name}"
            connection.execute(f"CREATE OR REPLACE {made} AS {query.sql('duckdb')}")
        self._columns = {name: ", ".join(c.name for c in INPUTS[name].columns) for name in self.kept}
        self.fill()

    def fill(self) -> None:
        """Compute every input whole."""
        for name in self.kept:
            select = f"SELECT {self._columns[name]} FROM fresh_{name}"
            self.connection.execute(f"CREATE OR REPLACE TABLE {name} AS {select}")
        counted = [self.connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in self.kept]
        off = "join_filter_pushdown" if max(counted, default=0) <= SMALL else ""
        self.connection.execute(f"SET disabled_optimizers = '{off}'")

    def differences(self, touched: Mapping[str, pa.Array]) -> dict[str, Difference]:
        """Input -> what of it differs now; `touched`: the insurer's table -> claims. Nothing is replaced yet."""
        concerned = [t for t in touched if len(touched[t])]
        asked = [name for name in self.model.inputs if not self.reads[name].isdisjoint(concerned)]
        if asked:
            put(self.connection, "touched_now", graph.distinct(*(touched[t] for t in concerned)))
        found = {name: self._different(name, touched) for name in asked}
        return {name: difference for name, difference in found.items() if len(difference.claims)}

    def _different(self, name: str, touched: Mapping[str, pa.Array]) -> Difference:
        if name not in self.kept:
            return Difference(graph.distinct(*(c for t, c in touched.items() if t in self.reads[name])), None)
        columns, some = self._columns[name], "claim_id IN (SELECT claim_id FROM touched_now)"
        rows = self.connection.sql(
            f"SELECT {columns}, count(*) FILTER (_now) AS _now, count(*) FILTER (NOT _now) AS _was FROM ("
            f"SELECT {columns}, true AS _now FROM fresh_{name} WHERE {some}"
            f" UNION ALL SELECT {columns}, false FROM {name} WHERE {some}) GROUP BY ALL"
        ).to_arrow_table()
        more = pc.subtract(rows["_now"], rows["_was"])
        claims = graph.distinct(rows.filter(pc.not_equal(more, 0))["claim_id"])
        gone = pc.min(more).as_py() if len(more) else 0
        if gone < 0:
            more = pc.if_else(pc.is_in(rows["claim_id"], claims), rows["_now"], 0)
        places = np.repeat(np.arange(rows.num_rows), more.to_numpy())
        return Difference(claims, rows.drop_columns(["_now", "_was"]).take(pa.array(places)), gone < 0)

    def replace(self, differing: Mapping[str, Difference]) -> None:
        """Put the new rows of these claims in the place of the old."""
        for name, difference in differing.items():
            if difference.rows is None:
                continue
            if difference.gone:
                given = pa.table({"claim_id": difference.claims})
                self.connection.execute(f"DELETE FROM {name} WHERE claim_id IN (SELECT claim_id FROM given)")
            given = difference.rows
            if given.num_rows:
                self.connection.execute(f"INSERT INTO {name} BY NAME FROM given")


def put(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Array | pa.Table) -> None:
    """Make these a table; an array is its column claim_id.

    The table is made anew: one that is emptied and filled keeps its dead rows, and the planner takes them for live.
    """
    given = rows if isinstance(rows, pa.Table) else pa.table({"claim_id": rows})  # noqa: F841  named in the SQL
    connection.execute(f"CREATE OR REPLACE TABLE {table} AS FROM given")
