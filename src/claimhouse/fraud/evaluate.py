"""Evaluates rules over a DuckDB connection in which a model's inputs stand: for all claims, or for some.

    scorer = Scorer(connection, model, rules)
    scorer.run(rule)                # every claim
    scorer.run(rule, claims)        # these, an Arrow array of keys

`claims` must hold every claim whose result could differ; reach.py finds them. A rule whose inputs the model lacks is
off and scores nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.fraud import compose, graph
from claimhouse.fraud.facts import Facts, put
from claimhouse.fraud.inputs import INPUTS
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
    """Evaluates the rules that the model can fill. Makes tables of the model's inputs in the connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, model: Model, rules: RuleSet) -> None:
        self.connection, self.model = connection, model
        self.rules = {n: r for n, r in rules.rules.items() if set(compose.needs(r)) <= set(model.inputs)}
        self.off = sorted(set(rules.rules) - set(self.rules))
        self.facts = Facts(connection, model)
        connection.execute("CREATE OR REPLACE TABLE subject AS SELECT claim_id FROM claim_input LIMIT 0")
        connection.execute("CREATE OR REPLACE TABLE component_input AS SELECT claim_id, 0 AS component FROM subject")
        self.sql = {name: compose.render(rule) for name, rule in self.rules.items()}
        lone = [rule for rule in self.rules.values() if rule.reach == ("self",)]
        self._own = sorted({name for rule in lone for name in compose.needs(rule)}, key=self._order)
        self._alone = {r.name: compose.renamed(self.sql[r.name], {n: f"own_{n}" for n in self._own}) for r in lone}
        self.edges = {n: _edges(rule) for n, rule in self.rules.items() if "component" in rule.reach}
        self._key = connection.sql("FROM subject").to_arrow_table().schema.field("claim_id").type
        self._chosen: pa.Array | None = None
        self._known: dict[str, graph.Members] = {}
        self._joined: dict[str, tuple[pa.Array, pa.Array, bool]] = {}

    def run(self, rule: Rule, claims: pa.Array | None = None) -> list[Hit]:
        """The claims that a rule holds on, of these or of all."""
        if "component" in rule.reach:
            claims, strange = self._components(rule, claims)
            if not strange:
                return []
        self.choose(claims)
        return self._hits(rule, self.sql[rule.name], "claim_input")

    def alone(self, rules: Sequence[Rule], claims: pa.Array) -> dict[str, list[Hit]]:
        """What rules of reach `self` hold on, by rule: they read the rows of these claims and no others.

        Those are set out in tables of their own. Planning costs more there than scanning, so nothing is optimized.
        """
        self.choose(claims)
        for name in self._own:
            self.connection.execute(f"CREATE OR REPLACE TABLE own_{name} AS FROM {name} WHERE {self._whose(name)}")
        self.connection.execute("PRAGMA disable_optimizer")
        try:
            return {rule.name: self._hits(rule, self._alone[rule.name], "own_claim_input") for rule in rules}
        finally:
            self.connection.execute("PRAGMA enable_optimizer")

    def _order(self, name: str) -> tuple[bool, str]:
        """Inputs of claims first: from them follows which rows of the others are theirs."""
        return (name not in self.facts.kept, name)

    def _whose(self, name: str) -> str:
        """Which rows of an input belong to the claims of `subject`."""
        if name in self.facts.kept:
            return "claim_id IN (SELECT claim_id FROM subject)"
        key = INPUTS[name].columns[0].name
        holders = [n for n in self._own if n in self.facts.kept and key in {c.name for c in INPUTS[n].columns}]
        return " OR ".join(f"{key} IN (SELECT {key} FROM own_{n})" for n in holders) or "true"

    def choose(self, claims: pa.Array | None) -> None:
        """Make these the subject, all claims for None."""
        if claims is None:
            self.connection.execute("CREATE OR REPLACE TABLE subject AS SELECT DISTINCT claim_id FROM claim_input")
        elif self._chosen is None or not self._chosen.equals(claims):
            put(self.connection, "subject", claims)
        self._chosen = claims

    def forget(self) -> None:
        """The facts have changed: components found before no longer hold."""
        self._joined.clear()

    def _hits(self, rule: Rule, sql: str, claims: str) -> list[Hit]:
        rows = self._rows(sql)
        if not rows:
            return []
        given = pa.table({"claim_id": pa.array([row["claim_id"] for row in rows], self._key)})  # noqa: F841  in the SQL
        numbers = self.connection.execute(
            f"SELECT claim_id, claim_number FROM {claims} WHERE claim_id IN (SELECT claim_id FROM given)"
        ).fetchall()
        known = dict(numbers)
        return [_hit(rule, row, known[row["claim_id"]]) for row in rows]

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        found = self.connection.execute(sql)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _components(self, rule: Rule, claims: pa.Array | None) -> tuple[pa.Array | None, bool]:
        """Make the components of these claims `component_input`; the claims in them, and whether strangers are."""
        if claims is None:
            self.choose(None)
            return None, self._join(rule, self.connection.sql(self.edges[rule.name]).to_arrow_table())
        known = self._joined.get(self.edges[rule.name])
        if known is None or not known[0].equals(claims):
            known = (claims, *self._closure(rule, claims))
            self._joined = {self.edges[rule.name]: known}
        return known[1], known[2]

    def _closure(self, rule: Rule, claims: pa.Array) -> tuple[pa.Array, bool]:
        known = self._known.setdefault(self.edges[rule.name], graph.Members())
        claims = pa.array(known.around(claims.to_pylist()), self._key)
        while True:
            self.choose(claims)
            rows = self._rows(self.edges[rule.name])
            found = {n: pa.array([r[n] for r in rows], self._key) for n in ("claim_id", "other_id")}
            wider = graph.distinct(claims, *found.values())
            if len(wider) == len(claims):
                break
            claims = pa.array(known.around(wider.to_pylist()), self._key)
        known.forget(claims.to_pylist())
        strange = pa.array([r["apart"] for r in rows], pa.int32())
        return claims, self._join(rule, pa.table({**found, "apart": strange}))

    def _join(self, rule: Rule, edges: pa.Table) -> bool:
        """Make the components of these edges `component_input` and remember them; whether any edge joins strangers."""
        joined = graph.components(edges["claim_id"], edges["other_id"])
        self._known.setdefault(self.edges[rule.name], graph.Members()).learn(joined)
        put(self.connection, "component_input", joined)
        return bool(pc.any(pc.equal(edges["apart"], 1)).as_py())


def _edges(rule: Rule) -> str:
    return compose.of_text(part("edges").sql, {n: rule.values[n] for n in ("span", "hub")}, f"edges of {rule.name}")


def _hit(rule: Rule, row: dict[str, Any], number: Any) -> Hit:
    values = json.dumps({c.name: _plain(row[c.name]) for c in rule.columns}, ensure_ascii=False)
    return Hit(rule.name, str(row["claim_id"]), str(number), round(float(row["score"]), 4), values)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
