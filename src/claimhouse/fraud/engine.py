"""Keeps what holds: scores all claims once, then after each change those that it can have moved.

`all` and `change` return events, the differences between what held and what holds now; whoever calls writes them down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import duckdb
import pyarrow as pa

from claimhouse.fraud.evaluate import REVISED, Hit, Scorer
from claimhouse.fraud.hits import Event
from claimhouse.fraud.reach import Reach
from claimhouse.fraud.rule import Rule, RuleSet
from claimhouse.marts.mirror import Settled
from claimhouse.marts.model import Model

SHARE = 10  # rules over all claims take at most one part in so many of the time


class Engine:
    """Rules over a connection in which the insurer's tables stand. `held`: what holds, by rule and claim."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        model: Model,
        rules: RuleSet,
        held: Mapping[tuple[str, str], Hit] | None = None,
    ) -> None:
        self.scorer = Scorer(connection, model, rules)
        self.rules: dict[str, Rule] = self.scorer.rules
        self.reach = Reach(connection, self.scorer.facts, self.rules.values())
        self.held: dict[str, dict[str, Hit]] = {name: {} for name in self.rules}
        for (rule, claim), hit in (held or {}).items():
            self.held.setdefault(rule, {})[claim] = hit
        self.waiting: set[str] = set()
        self._not_before: dict[str, float] = {}

    def all(self) -> list[Event]:
        """Score every claim by every rule. What held by a rule that is off is withdrawn."""
        found = []
        for name in list(self.held):
            hits = self.scorer.run(self.rules[name]) if name in self.rules else []
            found += self._differences(name, hits, None)
        self.waiting.clear()
        return found

    def change(self, change: Mapping[str, Settled], apply: Callable[[], None]) -> list[Event]:
        """Take a change in, which `apply` puts into the tables. Rules over all claims wait for `whole`."""
        found = []
        concerned = self.reach.take(change, apply)
        self.scorer.forget()
        own = [self.rules[name] for name in concerned if self.rules[name].reach == ("self",)]
        alone = self.scorer.alone(own, concerned[own[0].name]) if own else {}
        for name, claims in concerned.items():
            if claims is None:
                self.waiting.add(name)
            elif name in alone:
                found += self._differences(name, alone[name], claims)
            else:
                hits = [] if name in self.reach.idle else self.scorer.run(self.rules[name], claims)
                found += self._differences(name, hits, claims)
        return found

    def whole(self, *, now: bool = False) -> list[Event]:
        """Score by the rules over all claims that wait for it, as far as their share of the time allows, or `now`."""
        found = []
        for name in sorted(self.waiting):
            began = time.monotonic()
            if not now and began < self._not_before.get(name, 0.0):
                continue
            found += self._differences(name, self.scorer.run(self.rules[name]), None)
            self.waiting.discard(name)
            self._not_before[name] = time.monotonic() + (SHARE - 1) * (time.monotonic() - began)
        return found

    def _differences(self, name: str, hits: list[Hit], claims: pa.Array | None) -> Iterator[Event]:
        """What changed of a rule's hits on these claims (None: all), taken into `held`."""
        held = self.held[name]
        now = {hit.claim: hit for hit in hits}
        concerned = set(held) if claims is None else held.keys() & set(map(str, claims.to_pylist()))
        concerned |= held.keys() & now.keys()  # a component may reach further than was asked
        for claim in concerned - now.keys():
            yield Event("withdrawn", held.pop(claim))
        steady = name in self.rules and self.rules[name].kind == "statistics"
        for claim, hit in now.items():
            before = held.get(claim)
            if before is None:
                yield Event("held", hit)
            elif abs(before.score - hit.score) >= (REVISED if steady else 1e-9) or (
                not steady and before.values != hit.values
            ):
                yield Event("revised", hit)
            else:
                continue
            held[claim] = hit
