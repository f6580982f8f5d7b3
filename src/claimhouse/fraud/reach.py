"""Whose scores a change can move: the claims whose facts it changed, and those that share something with them.

A row touches claims as the model's `[changed]` says, in the state before the change and in the state after it; those
whose inputs then differ are changed (facts.py). From there a rule names its reach: `self`, the kinds of links through
which another claim's rows count for it, `component` (which goes on along the links, evaluate.py), or `all`. Links are
followed as they were and as they are, so that a claim which has just lost its neighbour is scored as well. Not followed
is what counts for nothing before and after: a value that more claims share than any rule looks at, a claim further away
in days than the rule sees, a burst of too few. (A value that comes near the number at which it counts as a hub is.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.fraud import compose, graph
from claimhouse.fraud.facts import Facts, put
from claimhouse.fraud.rule import LINKS, Rule

GRAPH_LINKS = ("phone", "account", "address", "vin")
BURST = 90  # the longest window of the rules that count bursts (sql/parts/bursts.sql)
NO_HUBS = ("provider", "asset", "vin")  # kinds whose rules look at every claim, however many


class Reach:
    """Takes changes into the facts and tells what they concern."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, facts: Facts, rules: Iterable[Rule]) -> None:
        self.connection, self.facts = connection, facts
        self.rules = {rule.name: rule for rule in rules}
        self._needs = {rule.name: compose.needs(rule) for rule in self.rules.values()}
        self._touch = {t: query.sql("duckdb") for t, query in facts.model.changed.items()}
        hubs = [int(rule.values["hub"]) for rule in self.rules.values() if "hub" in rule.values] or [0]
        self._hubs = (min(hubs), max(hubs))
        self._key = connection.sql("SELECT claim_id FROM claim_input LIMIT 0").to_arrow_table().schema.field(0).type
        self._prepared: set[str] = set()
        if "link_input" in facts.kept:
            self._prepare()

    def take(
        self, tables: Iterable[str], keys: Mapping[str, tuple[str, ...]], apply: Callable[[], None]
    ) -> dict[str, pa.Array | None]:
        """Rule -> the claims to score again, None for all; rules that nothing concerns are left out.

        `idle` then names those that can hold on none of these claims: too few share anything with others.

        The keys of changed rows are in `changed_keys_<table>`; `apply` puts the rows into the tables.
        """
        self.idle: set[str] = set()
        tables = [t for t in tables if t in self._touch]
        touched: dict[str, pa.Array] = {}
        self._look(tables, keys, touched)
        apply()
        self._look(tables, keys, touched)
        differing = self.facts.differences(touched)
        changed = {name: _union(differing, needs) for name, needs in self._needs.items()}
        changed = {name: claims for name, claims in changed.items() if len(claims)}
        alone = graph.distinct(*(c for name, c in changed.items() if self.rules[name].reach == ("self",)))
        changed |= {n: alone for n in changed if self.rules[n].reach == ("self",)}  # one subject for all of them
        linked = [c for name, c in changed.items() if self._kinds(self.rules[name])]
        before = self._linked(linked)
        self.facts.replace(differing)
        after = self._linked(linked)
        return {name: self._of(self.rules[name], claims, [before, after]) for name, claims in changed.items()}

    def _look(self, tables: Iterable[str], keys: Mapping[str, tuple[str, ...]], touched: dict[str, pa.Array]) -> None:
        """Add whom the changed rows touch in the state as it is now."""
        for table in tables:
            rows = self.connection.execute(self._touching(table, keys[table])).fetchall()
            found = pa.array([row[0] for row in rows], self._key)
            touched[table] = graph.distinct(found, *([touched[table]] if table in touched else []))

    def _touching(self, table: str, key: tuple[str, ...]) -> str:
        """The statement that tells whom the rows of a table with changed keys touch, prepared once."""
        if table not in self._prepared:
            match = " AND ".join(f't."{k}" = k."{k}"' for k in key)
            rows = f"SELECT t.* FROM {table} t JOIN changed_keys_{table} k ON {match}"
            self.connection.execute(f"PREPARE touching_{table} AS WITH changed AS ({rows}) {self._touch[table]}")
            self._prepared.add(table)
        return f"EXECUTE touching_{table}"

    def _linked(self, claims: list[pa.Array]) -> pa.Table | None:
        """Who shares a value of a kind with one of these claims, as links are now: kind, claim_id, and of that value
        how many claims share it, how many of them within BURST days of one of these, and how many days away it is."""
        every = graph.distinct(*claims)
        if not len(every) or "link_input" not in self.facts.kept:
            return None
        put(self.connection, "touched_now", every)
        most, near_hub = self._hubs[1] + len(every), self._hubs[0] - len(every)
        rows = self.connection.execute(f"EXECUTE linked({most}, {near_hub})").fetchall()
        columns = list(zip(*rows, strict=True)) if rows else [()] * 5
        kinds = [pa.string(), self._key, pa.int64(), pa.int64(), pa.int64()]
        arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
        return pa.table(arrays, names=["kind", "claim_id", "claims", "near", "days"])

    def _prepare(self) -> None:
        self.connection.execute(f"""
            PREPARE linked AS WITH reached AS (
                SELECT DISTINCT l.kind, l.value, l.claim_id, c.reported_on AS day
                FROM link_input l JOIN claim_input c ON c.claim_id = l.claim_id
                WHERE l.claim_id IN (SELECT claim_id FROM touched_now)
            ), member AS (
                SELECT DISTINCT l.kind, l.value, l.claim_id, c.reported_on AS day FROM link_input l
                JOIN (SELECT DISTINCT kind, value FROM reached) r ON r.kind = l.kind AND r.value = l.value
                JOIN claim_input c ON c.claim_id = l.claim_id
            ), size AS (
                SELECT kind, value, count(*) AS claims FROM member GROUP BY ALL HAVING count(*) > 1
            ), pair AS (
                SELECT m.kind, m.claim_id, s.claims, abs(m.day - r.day) AS days,
                    count(*) FILTER (abs(m.day - r.day) < {BURST})
                        OVER (PARTITION BY r.kind, r.value, r.claim_id) AS near
                FROM member m JOIN reached r ON r.kind = m.kind AND r.value = m.value
                JOIN size s ON s.kind = m.kind AND s.value = m.value
                WHERE m.kind IN {NO_HUBS} OR s.claims <= $1
            )
            SELECT kind, claim_id, max(claims), max(CASE WHEN claims >= $2 THEN claims ELSE near END),
                min(CASE WHEN claims >= $2 THEN 0 ELSE days END)
            FROM pair GROUP BY ALL
            """)

    def _least(self, rule: Rule) -> int:
        """How many claims must share a value before a rule can hold through it."""
        return min((int(v) for n, v in rule.values.items() if n.startswith("claims_")), default=2)

    def _kinds(self, rule: Rule) -> tuple[str, ...]:
        return GRAPH_LINKS if "component" in rule.reach else tuple(k for k in rule.reach if k in LINKS)

    def _of(self, rule: Rule, claims: pa.Array, linked: list[pa.Table | None]) -> pa.Array | None:
        if "all" in rule.reach:
            return None
        kinds, least = self._kinds(rule), self._least(rule)
        if not kinds or linked[0] is None or linked[1] is None:
            return claims
        near = [_some(table, kinds, least, rule.days) for table in linked if table is not None]
        if not any(map(len, near)) and "provider" not in kinds:
            self.idle.add(rule.name)
        return graph.distinct(claims, *near)


def _some(linked: pa.Table, kinds: tuple[str, ...], least: int, days: int | None) -> pa.ChunkedArray:
    wanted = pc.is_in(linked["kind"], pa.array(kinds, pa.string()))
    wanted = pc.and_(wanted, pc.greater_equal(linked["claims"], least))
    if least > 2:
        wanted = pc.and_(wanted, pc.greater_equal(linked["near"], least))
    if days is not None:
        wanted = pc.and_(wanted, pc.less_equal(linked["days"], days))
    return linked.filter(wanted)["claim_id"]


def _union(differing: Mapping[str, pa.Array], names: Iterable[str]) -> pa.Array:
    return graph.distinct(*(differing[name] for name in names if name in differing))
