"""Whose scores a change can move: the claims that changed rows touch, and those that share something with them.

A row touches claims as the model's `[changed]` says, in the state before the change and in the state after it. From
there a rule names its reach: `self`, the kinds of links through which another claim's rows count for it, `component`
(which goes on along the links, evaluate.py), or `all`. Links are followed in both states too, so that a claim which has
just lost its neighbour is scored as well. A value that more claims share than any rule looks at, before and after, is
not followed: for those rules it counts for nothing either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.fraud import compose, graph
from claimhouse.fraud.rule import LINKS, Rule
from claimhouse.marts.model import Model

GRAPH_LINKS = ("phone", "account", "address", "vin")
NO_HUBS = ("provider", "asset", "vin")  # kinds whose rules look at every claim, however many


class Reach:
    """Collects what one change concerns. Call `look` before and after the change is applied, then ask `of`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, model: Model, rules: Iterable[Rule]) -> None:
        self.connection, self.model = connection, model
        self.rules = {rule.name: rule for rule in rules}
        self.tables = {rule.name: compose.tables(rule, model) for rule in self.rules.values()}
        self._touch = {t: query.sql("duckdb") for t, query in model.changed.items()}
        self._hub = max((int(r.values.get("hub", 0)) for r in self.rules.values()), default=0)
        self.touched: dict[str, pa.Array] = {}
        self._linked: list[pa.Table] = []

    def begin(self) -> None:
        """Forget the last change."""
        self.touched, self._linked = {}, []

    def look(self, tables: Iterable[str], keys: Mapping[str, tuple[str, ...]]) -> None:
        """Find who is touched in the state as it is now, by rows whose keys are in `changed_keys_<table>`."""
        for table in tables:
            if table not in self._touch:
                continue
            match = " AND ".join(f't."{k}" = k."{k}"' for k in keys[table])
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE changed AS SELECT t.* FROM {table} t"
                f" JOIN changed_keys_{table} k ON {match}"
            )
            found = self.connection.sql(self._touch[table]).to_arrow_table()["claim_id"]
            known = self.touched.get(table)
            self.touched[table] = graph.distinct(found) if known is None else graph.distinct(known, found)
        self._follow()

    def _follow(self) -> None:
        every = self._all()
        if not len(every):
            return
        self.connection.register("_touched", pa.table({"claim_id": every}))
        self._linked.append(
            self.connection.sql(f"""
            WITH reached AS (
                SELECT DISTINCT kind, value FROM link_input WHERE claim_id IN (SELECT claim_id FROM _touched)
            ), member AS (
                SELECT DISTINCT l.kind, l.value, l.claim_id FROM link_input l
                JOIN reached r ON r.kind = l.kind AND r.value = l.value
            ), size AS (
                SELECT kind, value, count(*) AS claims FROM member GROUP BY ALL
            )
            SELECT DISTINCT m.kind, m.claim_id FROM member m JOIN size s ON s.kind = m.kind AND s.value = m.value
            WHERE m.kind IN {NO_HUBS} OR s.claims <= {self._hub + len(every)}
            """).to_arrow_table()
        )
        self.connection.unregister("_touched")

    def _all(self) -> pa.Array:
        return graph.distinct(*self.touched.values())

    def of(self, rule: Rule) -> pa.Array | None:
        """The claims that a rule must score again: none of them, some, or all (None)."""
        touched = graph.distinct(*(c for t, c in self.touched.items() if t in self.tables[rule.name]))
        if not len(touched) and not any(t in self.tables[rule.name] for t in self.touched):
            return touched
        if "all" in rule.reach:
            return None
        kinds = GRAPH_LINKS if "component" in rule.reach else tuple(k for k in rule.reach if k in LINKS)
        return graph.distinct(touched, *(self._by_kind(kinds))) if kinds else touched

    def _by_kind(self, kinds: tuple[str, ...]) -> list[pa.ChunkedArray]:
        wanted = pa.array(kinds, pa.string())
        return [t.filter(pc.is_in(t["kind"], wanted))["claim_id"] for t in self._linked]

