"""Evaluates rules over a DuckDB connection in which a model's inputs stand: for all claims, or for some.

    scorer = Scorer(connection, model, rules)
    scorer.run(rule)                # every claim
    scorer.run(rule, claims)        # these, an Arrow array of keys

`claims` must hold every claim whose result could differ; reach.py finds them. A rule whose inputs the model lacks is
off and scores nothing.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.fraud import compose, graph
from claimhouse.fraud.facts import Facts, put
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
    """Evaluates the rules that the model can fill. Makes tables of the model's inputs in the connection.

    For some claims a rule's statement is prepared once: what it then costs is the claims, not the planning.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, model: Model, rules: RuleSet) -> None:
        self.connection, self.model = connection, model
        self.rules = {n: r for n, r in rules.rules.items() if set(compose.needs(r)) <= set(model.inputs)}
        self.off = sorted(set(rules.rules) - set(self.rules))
        self.facts = Facts(connection, model)
        connection.execute("CREATE OR REPLACE TABLE subject AS SELECT claim_id FROM claim_input LIMIT 0")
        connection.execute("CREATE OR REPLACE TABLE component_input AS SELECT claim_id, 0 AS component FROM subject")
        self.sql = {name: _numbered(compose.render(rule)) for name, rule in self.rules.items()}
        self.edges = {n: _edges(rule) for n, rule in self.rules.items() if "component" in rule.reach}
        self._key = connection.sql("FROM subject").to_arrow_table().schema.field("claim_id").type
        self._prepared: set[str] = set()
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
        rows = self._rows(f"rule_{rule.name}", self.sql[rule.name], prepared=claims is not None)
        return [_hit(rule, row) for row in rows]

    def choose(self, claims: pa.Array | None) -> None:
        """Make these the subject, all claims for None."""
        if claims is None:
            self.connection.execute(
                "DELETE FROM subject; INSERT INTO subject SELECT DISTINCT claim_id FROM claim_input"
            )
        elif self._chosen is None or not self._chosen.equals(claims):
            put(self.connection, "subject", claims)
        self._chosen = claims

    def forget(self) -> None:
        """The facts have changed: components found before no longer hold."""
        self._joined.clear()

    def _rows(self, name: str, sql: str, *, prepared: bool) -> list[dict[str, Any]]:
        if prepared and name not in self._prepared:
            self.connection.execute(f"PREPARE {name} AS {sql}")
            self._prepared.add(name)
        found = self.connection.execute(f"EXECUTE {name}" if prepared else sql)
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
        name = f"edges_{zlib.crc32(self.edges[rule.name].encode())}"
        known = self._known.setdefault(self.edges[rule.name], graph.Members())
        claims = pa.array(known.around(claims.to_pylist()), self._key)
        while True:
            self.choose(claims)
            rows = self._rows(name, self.edges[rule.name], prepared=True)
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


def _numbered(sql: str) -> str:
    return f"SELECT f.*, c.claim_number AS _number FROM ({sql}) f JOIN claim_input c ON c.claim_id = f.claim_id"


def _edges(rule: Rule) -> str:
    return compose.of_text(part("edges").sql, {n: rule.values[n] for n in ("span", "hub")}, f"edges of {rule.name}")


def _hit(rule: Rule, row: dict[str, Any]) -> Hit:
    values = json.dumps({c.name: _plain(row[c.name]) for c in rule.columns}, ensure_ascii=False)
    return Hit(rule.name, str(row["claim_id"]), str(row["_number"]), round(float(row["score"]), 4), values)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
