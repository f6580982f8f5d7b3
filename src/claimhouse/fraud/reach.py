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
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from claimhouse.fraud import compose, graph
from claimhouse.fraud.facts import Difference, Facts, put
from claimhouse.fraud.near import near
from claimhouse.fraud.rule import LINKS, Rule
from claimhouse.marts.mirror import Settled

GRAPH_LINKS = ("phone", "account", "address", "vin")
NO_HUBS = ("provider", "asset", "vin")  # kinds whose rules look at every claim, however many


class Reach:
    """Takes changes into the facts and tells what they concern."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, facts: Facts, rules: Iterable[Rule]) -> None:
        self.connection, self.facts = connection, facts
        self.rules = {rule.name: rule for rule in rules}
        self._needs = {rule.name: compose.needs(rule) for rule in self.rules.values()}
        self._touch = {t: _touching(query) for t, query in facts.model.changed.items()}
        hubs = [int(rule.values["hub"]) for rule in self.rules.values() if "hub" in rule.values] or [0]
        self._hubs = (min(hubs), max(hubs))
        self._key = connection.sql("SELECT claim_id FROM claim_input LIMIT 0").to_arrow_table().schema.field(0).type

    def take(self, change: Mapping[str, Settled], apply: Callable[[], None]) -> dict[str, pa.Array | None]:
        """Rule -> the claims to score again, None for all; rules that nothing concerns are left out.

        `idle` then names those that can hold on none of these claims: too few share anything with others.

        `change`: the insurer's table -> what its rows come to; `apply` puts them into the tables.
        """
        self.idle: set[str] = set()
        change = {name: settled for name, settled in change.items() if name in self._touch}
        before = {name: self._look(name, settled.before) for name, settled in change.items()}
        apply()
        after = {name: self._look(name, settled.after) for name, settled in change.items()}
        differing = self.facts.differences({name: graph.distinct(before[name], after[name]) for name in change})
        changed = {name: _union(differing, needs) for name, needs in self._needs.items()}
        changed = {name: claims for name, claims in changed.items() if len(claims)}
        alone = graph.distinct(*(c for name, c in changed.items() if self.rules[name].reach == ("self",)))
        changed |= {n: alone for n in changed if self.rules[n].reach == ("self",)}  # one subject for all of them
        linked = [c for name, c in changed.items() if self._kinds(self.rules[name])]
        was = self._linked(linked)
        self.facts.replace(differing)
        now = was if differing.keys().isdisjoint(("link_input", "claim_input")) else self._linked(linked)
        return {name: self._of(self.rules[name], claims, [was, now]) for name, claims in changed.items()}

    def _look(self, table: str, rows: pa.Table) -> pa.Array:
        """Whom rows of a table touch in the state as it is now."""
        if not rows.num_rows:
            return pa.array([], self._key)
        touch = self._touch[table]
        if touch.column in rows.column_names:
            return graph.distinct(rows[touch.column].cast(self._key))
        given = rows  # noqa: F841  named in the SQL below
        found = self.connection.execute(touch.sql).fetchall()
        return graph.distinct(pa.array([row[0] for row in found], self._key))

    def _linked(self, claims: list[pa.Array]) -> pa.Table | None:
        """Who shares a value of a kind with one of these claims, as links are now (near.py)."""
        every = graph.distinct(*claims)
        if not len(every) or "link_input" not in self.facts.kept:
            return None
        put(self.connection, "touched_now", every)
        members = self.connection.sql(
            "SELECT DISTINCT l.kind, l.value, l.claim_id, c.reported_on AS day FROM link_input l JOIN ("
            "SELECT DISTINCT kind, value FROM link_input WHERE claim_id IN (SELECT claim_id FROM touched_now)"
            ") r ON r.kind = l.kind AND r.value = l.value JOIN claim_input c ON c.claim_id = l.claim_id"
        ).to_arrow_table()
        return near(members, every, self._hubs[1] + len(every), self._hubs[0] - len(every), NO_HUBS)

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
        some = [_some(table, kinds, least, rule.days) for table in linked if table is not None]
        if not any(map(len, some)) and "provider" not in kinds:
            self.idle.add(rule.name)
        return graph.distinct(claims, *some)


def _some(linked: pa.Table, kinds: tuple[str, ...], least: int, days: int | None) -> pa.ChunkedArray:
    wanted = pc.is_in(linked["kind"], pa.array(kinds, pa.string()))
    wanted = pc.and_(wanted, pc.greater_equal(linked["claims"], least))
    if least > 2:
        wanted = pc.and_(wanted, pc.greater_equal(linked["near"], least))
    if days is not None:
        wanted = pc.and_(wanted, pc.less_equal(linked["days"], days))
    return linked.filter(wanted)["claim_id"]


def _union(differing: Mapping[str, Difference], names: Iterable[str]) -> pa.Array:
    return graph.distinct(*(differing[name].claims for name in names if name in differing))


@dataclass(frozen=True, slots=True)
class _Touch:
    """Whose claims a table's rows touch: SQL over `given`, and the column that it merely reads, if it does no more."""

    sql: str
    column: str | None


def _touching(query: exp.Query) -> _Touch:
    sql = query.copy().with_("changed", as_="SELECT * FROM given", dialect="duckdb").sql("duckdb")
    parts = {name for name, value in query.args.items() if value} - {"expressions", "from", "from_", "kind"}
    only = query.selects[0].unalias()
    read = not parts and isinstance(only, exp.Column) and [t.name for t in query.find_all(exp.Table)] == ["changed"]
    return _Touch(sql, only.name if read else None)
