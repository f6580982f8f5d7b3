"""How good the rules are: on the labelled demo book, on seeds that nobody looked at while writing them.

Per rule: alerts per 1,000 claims; recall of the claims planted for it; precision, once counting a hit right only where
the claim was planted for this rule, once where it was planted for any (one claim may show several signs). Combined: the
claims at or above a band. Intervals are Wilson's at 95 %. The book's innocent lookalikes count as what they are: wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from claimhouse.fraud.evaluate import Hit, Scorer
from claimhouse.fraud.model import load
from claimhouse.fraud.rule import RuleSet, load_rules
from claimhouse.fraud.score import combined

WRITTEN_ON = (1, 2, 3)  # seeds that were looked at while the rules were written
HELD_OUT = (101, 102, 103, 104, 105)
SCALE = 0.5
MEANT = {"shared_by_strangers": ("phone_velocity", "bank_velocity", "linked_ring")}
"""The labels that a rule looks for, where that is not the label of its own name."""


def wilson(hits: int, trials: int, z: float = 1.96) -> tuple[float, float] | None:
    """The interval of a share, None where nothing was tried."""
    if not trials:
        return None
    p, n = hits / trials, trials
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class Tally:
    """What one rule, or a band of combined scores, came to over the books."""

    claims: int = 0
    alerts: int = 0
    own: int = 0  # alerts on claims planted for it
    planted_any: int = 0  # alerts on claims planted for anything
    lookalikes: int = 0  # alerts on innocent lookalikes
    meant: int = 0  # claims planted for it

    def add(self, claims: int, alerts: set[str], meant: set[str], planted: set[str], innocent: set[str]) -> None:
        self.claims += claims
        self.alerts += len(alerts)
        self.own += len(alerts & meant)
        self.planted_any += len(alerts & planted)
        self.lookalikes += len((alerts & innocent) - planted)
        self.meant += len(meant)

    def as_data(self) -> dict[str, Any]:
        """Shares with their intervals."""
        return {
            "claims": self.claims,
            "alerts": self.alerts,
            "alerts_per_1000": round(1000 * self.alerts / max(self.claims, 1), 2),
            "planted": self.meant,
            "found": self.own,
            "recall": _share(self.own, self.meant),
            "precision_own": _share(self.own, self.alerts),
            "precision_any": _share(self.planted_any, self.alerts),
            "lookalikes": self.lookalikes,
        }


def _share(hits: int, trials: int) -> dict[str, Any] | None:
    bounds = wilson(hits, trials)
    if bounds is None:
        return None
    return {"value": round(hits / trials, 4), "low": round(bounds[0], 4), "high": round(bounds[1], 4)}


@dataclass
class Quality:
    """The report: per rule, and combined from each band on."""

    seeds: tuple[int, ...]
    scale: float
    rules: dict[str, Tally] = field(default_factory=dict)
    bands: dict[str, Tally] = field(default_factory=dict)
    planted_claims: int = 0

    def as_data(self) -> dict[str, Any]:
        return {
            "seeds": list(self.seeds),
            "scale": self.scale,
            "written_on": list(WRITTEN_ON),
            "planted_claims": self.planted_claims,
            "rules": {name: tally.as_data() for name, tally in self.rules.items()},
            "combined": {name: tally.as_data() for name, tally in self.bands.items()},
        }

    def rows(self) -> list[dict[str, str]]:
        """A table for people."""
        named = [*self.rules.items(), *((f"combined, {b} or above", t) for b, t in self.bands.items())]
        return [_row(name, tally.as_data()) for name, tally in named]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_data(), indent=1) + "\n", encoding="utf-8")


def _row(name: str, data: Mapping[str, Any]) -> dict[str, str]:
    return {
        "rule": name,
        "alerts": str(data["alerts"]),
        "per 1,000 claims": f"{data['alerts_per_1000']:.1f}",
        "planted": str(data["planted"]),
        "recall": _interval(data["recall"]),
        "precision (own)": _interval(data["precision_own"]),
        "precision (any)": _interval(data["precision_any"]),
        "lookalikes": str(data["lookalikes"]),
    }


def _interval(share: Mapping[str, float] | None) -> str:
    if share is None:
        return "-"
    return f"{share['value']:.2f} ({share['low']:.2f}-{share['high']:.2f})"


def measure(seeds: Iterable[int] = HELD_OUT, scale: float = SCALE, rules: RuleSet | None = None) -> Quality:
    """Score every book whole and compare with its labels."""
    rules = rules or load_rules()
    found = Quality(tuple(seeds), scale, {name: Tally() for name in rules.rules})
    found.bands = {"high": Tally(), "medium": Tally(), "low": Tally()}
    for seed in found.seeds:
        _measure(found, seed, rules)
    return found


def _measure(found: Quality, seed: int, rules: RuleSet) -> None:
    from claimhouse.claims.book import labels, lookalikes, make_book

    book = make_book(seed=seed, scale=found.scale)
    planted: dict[str, set[str]] = {}
    for row in labels(book).to_pylist():
        planted.setdefault(row["rule"], set()).add(row["claim_number"])
    every = set().union(*planted.values())
    innocent = set(lookalikes(book)["claim_number"].to_pylist())
    claims = book.tables["claim"].num_rows
    found.planted_claims += len(every)
    hits = score_book(book.tables, rules)
    by_claim: dict[str, list[Hit]] = {}
    for name, rows in hits.items():
        alerts = {hit.number for hit in rows}
        meant = set().union(*(planted.get(label, set()) for label in MEANT.get(name, (name,))))
        found.rules[name].add(claims, alerts, meant, every, innocent)
        for hit in rows:
            by_claim.setdefault(hit.number, []).append(hit)
    scores = {n: combined((rules.rules[h.rule].weight, h.score) for h in rows) for n, rows in by_claim.items()}
    for band, least in (("high", rules.high), ("medium", rules.medium), ("low", 0.0)):
        found.bands[band].add(claims, {n for n, s in scores.items() if s >= least}, every, every, innocent)


def score_book(tables: Mapping[str, pa.Table], rules: RuleSet) -> dict[str, list[Hit]]:
    """The hits of every rule over a book's Arrow tables, without a lake."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    for name, table in tables.items():
        connection.register("_table", table)
        connection.execute(f"CREATE TABLE {name} AS FROM _table")
        connection.unregister("_table")
    try:
        scorer = Scorer(connection, load("demo"), rules)
        return {name: scorer.run(rule) for name, rule in scorer.rules.items()}
    finally:
        connection.close()
