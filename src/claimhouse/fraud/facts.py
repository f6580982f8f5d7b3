"""The inputs of rules as tables: what a model's SELECTs give, kept fresh claim by claim.

An input whose rows belong to claims is computed once and kept; after a change only the touched claims' rows are
computed again and compared with what was there. So a rule is asked again only where a fact that it reads has changed:
a new status or note moves nothing. Inputs that belong to no claim (policies, providers) stay views of the insurer's
tables.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from claimhouse.fraud import graph
from claimhouse.fraud.inputs import INPUTS
from claimhouse.marts.model import Model


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
            self.connection.execute(f"CREATE OR REPLACE TABLE new_{name} AS FROM {name} LIMIT 0")
        self.connection.execute("CREATE OR REPLACE TABLE touched_now AS SELECT claim_id FROM claim_input LIMIT 0")
        for name in self.kept:
            self._prepare(name)

    def differences(self, touched: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Input -> claims whose rows in it differ now; `touched`: the insurer's table -> claims.

        The new rows wait in `new_<input>` until `replace`.
        """
        found: dict[str, pa.Array] = {}
        for name in self.model.inputs:
            claims = graph.distinct(*(c for t, c in touched.items() if t in self.reads[name]))
            if not len(claims):
                continue
            found[name] = self._different(name, claims) if name in self.kept else claims
        return {name: claims for name, claims in found.items() if len(claims)}

    def _different(self, name: str, claims: pa.Array) -> pa.Array:
        execute = self.connection.execute
        put(self.connection, "touched_now", claims)
        execute(f"TRUNCATE new_{name}")
        execute(f"EXECUTE fresh_{name}")
        differing = execute(f"EXECUTE differing_{name}").fetchall()
        return pa.array([row[0] for row in differing], claims.type)

    def _prepare(self, name: str) -> None:
        """The statements that each change asks, planned once."""
        columns, some = self._columns[name], "claim_id IN (SELECT claim_id FROM touched_now)"
        fresh = f"INSERT INTO new_{name} SELECT {columns} FROM fresh_{name} WHERE {some}"
        was, now = f"SELECT {columns} FROM {name} WHERE {some}", f"SELECT {columns} FROM new_{name}"
        self.connection.execute(f"PREPARE fresh_{name} AS {fresh}")
        self.connection.execute(
            f"PREPARE differing_{name} AS SELECT claim_id FROM ({was} EXCEPT ALL {now})"
            f" UNION SELECT claim_id FROM ({now} EXCEPT ALL {was})"
        )

    def replace(self, differing: Mapping[str, pa.Array]) -> None:
        """Put the new rows of these claims in the place of the old."""
        for name, claims in differing.items():
            if name in self.kept:
                put(self.connection, "touched_now", claims)
                some = "claim_id IN (SELECT claim_id FROM touched_now)"
                self.connection.execute(f"DELETE FROM {name} WHERE {some}")
                self.connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM new_{name} WHERE {some}")


def put(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Array | pa.Table) -> None:
    """Make these the rows of a table that is there; an array is its column claim_id.

    The catalog stays as it is (DuckDB finds `given` in this frame), so prepared statements keep their plans.
    """
    given = rows if isinstance(rows, pa.Table) else pa.table({"claim_id": rows})
    connection.execute(f"TRUNCATE {table}")
    if given.num_rows:
        connection.execute(f"INSERT INTO {table} BY NAME FROM given")
