"""The queue of claims with hits, as an investigator reads it: score, band, what changed, and every reason for itself.

    queue(lake, limit=20)                       now
    queue(lake, at="2026-03-31")                what the rules had found by then
    queue(session)                              at the moment that a session reads
    dispose(lake, "CLM-2025-006101", "mw", "referred", "…")

A row says "indicators consistent with …" and never more: three or more flags are a reason to consider a special
investigation, which people decide. Scores are shown from 0 to 100.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.change import lsn_text
from claimhouse.errors import UsageError
from claimhouse.fraud import hits
from claimhouse.fraud.disposition import Disposition, Dispositions
from claimhouse.fraud.rule import RuleSet, load_rules, shipped
from claimhouse.fraud.score import combined
from claimhouse.lake.lake import Lake
from claimhouse.query.moment import Position
from claimhouse.query.session import Session

MANY = 3  # so many flags: consider a special investigation
State = dict[tuple[str, str], tuple[float, float]]  # (source, rule) -> (weight, score)

_RANKED = """
SELECT source, claim_id, any_value(claim_number) AS claim_number, count(*) AS flags,
    1 - product(1 - weight * score) AS score
FROM now GROUP BY source, claim_id
"""


@dataclass(frozen=True, slots=True)
class ClaimHit:
    """One hit of a rule on a claim. `reason` is its indicator in words, `values` what made it fire, `score` 0 to 100.

    `lsn`, `cut` and `first_held`: when it began to hold; `withdrawn`: when it no longer did, None while it does.
    """

    rule: str
    kind: str
    title: str
    reason: str
    score: float
    weight: float
    values: dict[str, Any]
    lsn: str
    cut: int
    first_held: datetime
    withdrawn: datetime | None


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One claim with hits. `score` and `previous` are 0 to 100.

    `previous` is the score before the last change, None if it had none; `changed` when that was. `hits`: those that
    hold, the heaviest first, then those withdrawn. `consider`: three or more flags hold. `lsn`, `since`: the oldest hit
    that holds.
    """

    source: str
    claim_id: str
    claim: str
    score: float
    band: str
    previous: float | None
    flags: int
    consider: bool
    summary: str
    hits: list[ClaimHit]
    lsn: str
    since: datetime
    changed: datetime
    disposition: Disposition | None

    def as_data(self) -> dict[str, Any]:
        """For JSON (times are datetimes still)."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """What the queue comes to: claims by band, hits by rule, claims without a decision, the newest event's moment."""

    claims: int
    bands: dict[str, int]
    rules: dict[str, int]
    undecided: int
    newest: datetime | None


def queue(
    target: Lake | Session,
    *,
    at: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    band: str | None = None,
    rule: str | None = None,
    claim: str | None = None,
    rules: RuleSet | None = None,
    zone: str = "UTC",
) -> list[QueueRow] | None:
    """The claims with hits, highest score first, now or at a past moment; None where no rules have run on the lake.

    Only those in a band, with a hit of a rule, or one claim (number or key), if so asked. Raises NotExact and
    UsageError as a session does.
    """
    lake, until = _where(target, at, zone)
    log = hits.events(lake, until)
    if log is None:
        return None
    rules = rules or load_rules()
    holding = hits.holding(log)
    chosen = _ranked(holding, rules, band, rule, claim).slice(offset, limit).to_pylist()
    return _rows(chosen, log, Dispositions(lake).newest(), rules)


def summary(
    target: Lake | Session, *, at: str | None = None, rules: RuleSet | None = None, zone: str = "UTC"
) -> QueueSummary | None:
    """How many claims are in each band, and how many hits each rule has; None where no rules have run."""
    lake, until = _where(target, at, zone)
    log = hits.events(lake, until)
    if log is None:
        return None
    rules = rules or load_rules()
    holding = hits.holding(log)
    scores = _ranked(holding, rules).to_pylist()
    counted = holding["rule"].value_counts().to_pylist() if holding.num_rows else []
    decided = {c for c, d in Dispositions(lake).newest().items() if d.verdict != "open"}
    return QueueSummary(
        claims=len(scores),
        bands=_bands(scores, rules),
        rules={c["values"]: c["counts"] for c in sorted(counted, key=lambda c: -c["counts"])},
        undecided=sum(r["claim_number"] not in decided for r in scores),
        newest=log["at"][-1].as_py() if log.num_rows else None,
    )


def bands_of(holding: pa.Table, rules: RuleSet) -> dict[str, int]:
    """How many claims of what holds are in each band."""
    return _bands(_ranked(holding, rules).to_pylist(), rules)


def _bands(scores: list[dict[str, Any]], rules: RuleSet) -> dict[str, int]:
    bands = {"high": 0, "medium": 0, "low": 0}
    for row in scores:
        bands[rules.band(row["score"])] += 1
    return bands


def history(target: Lake | Session, claim: str, *, at: str | None = None, zone: str = "UTC") -> list[dict[str, Any]]:
    """Every event of a claim (number or key), oldest first, with the combined score (0 to 100) after it."""
    lake, until = _where(target, at, zone)
    log = hits.events(lake, until)
    state: State = {}
    found = []
    for row in _of_claim(log, claim).to_pylist() if log is not None else ():
        _apply(state, row)
        found.append(
            {
                "at": row["at"],
                "lsn": lsn_text(row["lsn"]),
                "cut": row["cut"],
                "event": row["event"],
                "rule": row["rule"],
                "reason": _text(row["rule"], json.loads(row["values"])),
                "score": _hundred(row["score"]),
                "combined": _hundred(combined(state.values())),
            }
        )
    return found


def dispose(lake: Lake, claim: str, who: str, decision: str, note: str = "") -> Disposition:
    """Keep what `who` decided (see VERDICTS) about a claim (number or key) that has or had hits. Raises UsageError."""
    events = history(lake, claim)
    if not events:
        raise UsageError(f"no rule ever held on claim {claim}", hint="claimhouse fraud queue lists those with hits")
    log = hits.events(lake)
    assert log is not None
    number = _of_claim(log, claim)["claim_number"][-1].as_py()
    last = events[-1]
    return Dispositions(lake).add(number, decision, who, note, score=last["combined"], lsn=last["lsn"])


def _where(target: Lake | Session, at: str | None, zone: str) -> tuple[Lake, Mapping[str, Position] | None]:
    """The lake, and the position of each source that is asked about; None for now."""
    if isinstance(target, Session):
        return target.lake, target.positions
    if at is None:
        return target, None
    with Session(target, at=at, zone=zone) as session:
        return target, dict(session.positions)


def _ranked(
    holding: pa.Table, rules: RuleSet, band: str | None = None, rule: str | None = None, claim: str | None = None
) -> pa.Table:
    """source, claim_id, claim_number, flags and score of the claims with hits, in order."""
    connection = duckdb.connect(config={"threads": 1})
    connection.register("now", holding)
    where, values = ["true"], {}
    if band is not None:
        low, high = _between(band, rules)
        where.append(f"score >= {low} AND score < {high}")
    if rule is not None:
        where.append("(source, claim_id) IN (SELECT (source, claim_id) FROM now WHERE rule = $rule)")
        values["rule"] = rule
    if claim is not None:
        where.append("(claim_number = $claim OR claim_id = $claim)")
        values["claim"] = claim
    text = f"FROM ({_RANKED}) WHERE {' AND '.join(where)} ORDER BY score DESC, flags DESC, claim_number DESC"
    return connection.sql(text, params=values or None).to_arrow_table()


def _between(band: str, rules: RuleSet) -> tuple[float, float]:
    found = {"high": (rules.high, 2.0), "medium": (rules.medium, rules.high), "low": (-1.0, rules.medium)}.get(band)
    if found is None:
        raise UsageError(f"there is no band {band}", hint="high, medium or low")
    return found


def _of_claim(log: pa.Table, claim: str) -> pa.Table:
    return log.filter(pc.or_(pc.equal(log["claim_number"], claim), pc.equal(log["claim_id"], claim)))


def rows_of_claims(
    claims: list[tuple[str, str]], log: pa.Table, made: Mapping[str, Disposition], rules: RuleSet
) -> dict[tuple[str, str], QueueRow]:
    """Claims (source, claim_id) as the queue has them; one whose hits are all withdrawn has a score of zero."""
    events = _events_of(log, [claim for _, claim in claims])
    return {claim: _row(*claim, events[claim], made, rules) for claim in claims}


def _rows(
    chosen: list[dict[str, Any]], log: pa.Table, made: Mapping[str, Disposition], rules: RuleSet
) -> list[QueueRow]:
    found = rows_of_claims([(c["source"], c["claim_id"]) for c in chosen], log, made, rules)
    return list(found.values())


def _events_of(log: pa.Table, claims: list[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    events: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in log.filter(pc.is_in(log["claim_id"], pa.array(claims, pa.string()))).to_pylist():
        events.setdefault((row["source"], row["claim_id"]), []).append(row)
    return events


def _row(
    source: str, claim: str, events: list[dict[str, Any]], made: Mapping[str, Disposition], rules: RuleSet
) -> QueueRow:
    found = _hits(events)
    holding = [h for h in found if h.withdrawn is None]
    first = min(holding or found, key=lambda h: (h.cut, h.first_held))
    previous, changed = _before(events)
    state: State = {}
    for event in events:
        _apply(state, event)
    score, number = combined(state.values()), events[-1]["claim_number"]
    return QueueRow(
        source=source,
        claim_id=claim,
        claim=number,
        score=_hundred(score),
        band=rules.band(score),
        previous=previous,
        flags=len(holding),
        consider=len(holding) >= MANY,
        summary=_summary(holding),
        hits=found,
        lsn=first.lsn,
        since=first.first_held,
        changed=changed,
        disposition=made.get(number),
    )


def _summary(holding: list[ClaimHit]) -> str:
    if not holding:
        return "no indicator holds any longer"
    return f"indicators consistent with: {'; '.join(h.title[:1].lower() + h.title[1:] for h in holding)}"


def _hits(events: list[dict[str, Any]]) -> list[ClaimHit]:
    """Every rule that held, as it stands after these events: what holds first, the heaviest first."""
    begun: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any]] = {}
    for row in events:
        if row["event"] == "held":
            begun[row["rule"]] = row
        last[row["rule"]] = row
    found = [_hit(begun.get(rule, row), row) for rule, row in last.items()]
    return sorted(found, key=lambda h: (h.withdrawn is not None, -h.weight * h.score, h.rule))


def _hit(begun: dict[str, Any], row: dict[str, Any]) -> ClaimHit:
    values = json.loads(row["values"])
    rule = shipped().get(row["rule"])
    return ClaimHit(
        rule=row["rule"],
        kind=row["class"],
        title=rule.title if rule else row["rule"],
        reason=_text(row["rule"], values),
        score=_hundred(row["score"]),
        weight=row["weight"],
        values=values,
        lsn=lsn_text(begun["lsn"]),
        cut=begun["cut"],
        first_held=begun["at"],
        withdrawn=row["at"] if row["event"] == "withdrawn" else None,
    )


def _before(events: list[dict[str, Any]]) -> tuple[float | None, datetime]:
    """The combined score before the last evaluation that changed something, and that evaluation's moment."""
    state: State = {}
    before: float | None = None
    score: float | None = None
    evaluation: tuple[int, datetime] | None = None
    for row in events:
        if (row["cut"], row["found_at"]) != evaluation:
            evaluation, before = (row["cut"], row["found_at"]), score
        _apply(state, row)
        score = _hundred(combined(state.values()))
    return before, events[-1]["at"]


def _apply(state: State, row: Mapping[str, Any]) -> None:
    if row["event"] == "withdrawn":
        state.pop((row["source"], row["rule"]), None)
    else:
        state[row["source"], row["rule"]] = (row["weight"], row["score"])


def _text(name: str, values: Mapping[str, Any]) -> str:
    rule = shipped().get(name)
    return rule.text(values) if rule else name


def _hundred(score: float) -> float:
    return round(100 * score, 1)
