"""Evaluates rules over a DuckDB connection in which a model's inputs stand: for all claims, or for some.

    scorer = Scorer(connection, model, rules)
    scorer.run(rule)                # every claim
    scorer.run(rule, claims)        # these, an Arrow array of keys

`claims` must hold every claim whose result could differ; reach.py finds them. A rule whose inputs the model lacks is
off and scores nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from claimhouse.fraud import compose, graph
from claimhouse.fraud.rule import Rule, RuleSet, part
from claimhouse.marts.model import Model

REVISED = 0.1  # a score that moves less leaves a hit of a statistics rule as it is


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that holds on a claim. `claim` is the claim's key as text, `values` JSON of what made it fire."""

    rule: str
    claim: str
    number: str
    score: float
    values: str


class Scorer:
    """Evaluates the rules that the model can fill. Makes views of the model's inputs in the connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, model: Model, rules: RuleSet) -> None:
        self.connection, self.model = connection, model
        self.rules = {n: r for n, r in rules.rules.items() if set(compose.needs(r)) <= set(model.inputs)}
        self.off = sorted(set(rules.rules) - set(self.rules))
        self.sql = {n: compose.render(r) for n, r in self.rules.items()}
        self._edges = {n: self._edges_sql(r) for n, r in self.rules.items() if "component" in r.reach}
        for name, query in model.inputs.items():
            connection.execute(f"CREATE OR REPLACE VIEW {name} AS {query.sql('duckdb')}")

    def _edges_sql(self, rule: Rule) -> str:
        return compose.of_text(part("edges").sql, rule.values, f"edges of {rule.name}")

    def run(self, rule: Rule, claims: pa.Array | None = None) -> list[Hit]:
        """The claims that a rule holds on, of these or of all."""
        if "component" in rule.reach:
            claims = self._components(rule, claims)
        self.choose(claims)
        found = self.connection.sql(
            f"SELECT f.*, c.claim_number AS _number FROM ({self.sql[rule.name]}) f"
            " JOIN claim_input c ON c.claim_id = f.claim_id"
        ).to_arrow_table()
        return list(_hits(rule, found))

    def choose(self, claims: pa.Array | None) -> None:
        """Make these the subject, all claims for None."""
        if claims is None:
            self.connection.execute("CREATE OR REPLACE TABLE subject AS SELECT DISTINCT claim_id FROM claim_input")
        else:
            self.connection.register("_chosen", pa.table({"claim_id": claims}))
            self.connection.execute("CREATE OR REPLACE TABLE subject AS SELECT DISTINCT claim_id FROM _chosen")
            self.connection.unregister("_chosen")

    def _components(self, rule: Rule, claims: pa.Array | None) -> pa.Array | None:
        """Make the components of these claims `component_input`; the claims in them, to score in their place."""
        self.choose(claims)
        edges = self.connection.sql(self._edges[rule.name]).to_arrow_table()
        while claims is not None:
            wider = graph.distinct(claims, edges["claim_id"], edges["other_id"])
            if len(wider) == len(claims):
                break
            claims = wider
            self.choose(claims)
            edges = self.connection.sql(self._edges[rule.name]).to_arrow_table()
        joined = graph.components(edges["claim_id"], edges["other_id"])
        self.connection.register("_joined", joined)
        self.connection.execute("CREATE OR REPLACE TABLE component_input AS FROM _joined")
        self.connection.unregister("_joined")
        return claims


def _hits(rule: Rule, found: pa.Table) -> Iterator[Hit]:
    names = [c.name for c in rule.columns]
    for row in found.to_pylist():
        values = json.dumps({n: _plain(row[n]) for n in names}, ensure_ascii=False)
        yield Hit(rule.name, str(row["claim_id"]), str(row["_number"]), round(float(row["score"]), 4), values)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
