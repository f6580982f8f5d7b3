"""The fraud queue in Trino's SQL: what the rules' process keeps in the lake, as the queue of the console shows it.

`fraud_hits` has one row per event of a rule on a claim; what holds is the last one. Reasons are the rules' own words,
their values put in by SQL. People decide: a claim that was cleared is no longer open, its indicators stay.
"""

from __future__ import annotations

import string
from functools import cache

from claimhouse.fraud.disposition import VERDICTS
from claimhouse.fraud.rule import RuleSet, shipped
from claimhouse.quoting import quote, quote_text

_HOLDS = """WITH held AS (
  SELECT h.rule, h.claim_id, MAX_BY(h.claim_number, h.place) AS claim_number, MAX_BY(h.score, h.place) AS score,
    MAX_BY(h.weight, h.place) AS weight, MAX_BY(h."values", h.place) AS given,
    MAX_BY(h.at, IF(h.event = 'held', h.place)) AS since
  FROM (SELECT e.*, ROW_NUMBER() OVER (ORDER BY e.cut, e.found_at, e.seq) AS place
    FROM {hits} AS e WHERE e.source = {source}) AS h
  GROUP BY h.rule, h.claim_id
  HAVING MAX_BY(h.event, h.place) <> 'withdrawn'
), decided AS (
  SELECT d.claim_number, MAX_BY(d.verdict, d.number) AS verdict
  FROM {decisions} AS d WHERE d.source = {source} GROUP BY d.claim_number
), queue AS (
  SELECT h.claim_id, MAX(h.claim_number) AS claim_number, COUNT(*) AS flags, MIN(h.since) AS since,
    ROUND(1 - EXP(SUM(LN(GREATEST(1 - h.weight * h.score, 1e-12)))), 4) AS score,
    ARRAY_JOIN(ARRAY_AGG({reason} ORDER BY h.weight * h.score DESC, h.rule), '; ') AS reasons
  FROM held AS h GROUP BY h.claim_id
), ranked AS (
  SELECT q.*, CASE WHEN q.score >= {high} THEN 'high' WHEN q.score >= {medium} THEN 'medium' ELSE 'low' END AS band,
    COALESCE(d.verdict, 'open') AS verdict
  FROM queue AS q LEFT JOIN decided AS d ON d.claim_number = q.claim_number
)
"""
BANDS = (
    _HOLDS
    + """SELECT r.band, COUNT(*) AS claims, COUNT_IF(r.verdict = 'open') AS undecided,
  COUNT_IF(r.flags >= 3) AS three_flags
FROM ranked AS r WHERE r.verdict <> 'cleared'
GROUP BY r.band ORDER BY MIN(r.score) DESC"""
)
RULES = (
    _HOLDS
    + """SELECT {title} AS rule, COUNT(*) AS claims, ROUND(100 * AVG(h.score), 1) AS mean_score, MAX(h.since) AS newest
FROM held AS h GROUP BY h.rule ORDER BY 2 DESC, 1"""
)
QUEUE = (
    _HOLDS
    + """SELECT r.claim_number, ROUND(100 * r.score, 1) AS score, r.band, r.flags,
  CONCAT('indicators consistent with fraud: ', r.reasons) AS indicators, r.since, {verdict} AS decision
FROM ranked AS r WHERE r.verdict <> 'cleared'
ORDER BY r.score DESC, r.flags DESC, r.claim_number DESC LIMIT 200"""
)
DECISIONS = """SELECT CAST(DATE_TRUNC('week', r.at) AS DATE) AS week, {verdict} AS decision, COUNT(*) AS decisions
FROM {decisions} AS r WHERE r.source = {source}
GROUP BY 1, 2 ORDER BY 1, 2"""


def parts(source: str, catalog: str) -> dict[str, str]:
    """What the questions' placeholders stand for, for one source in one Trino catalog."""
    control = f"{quote(catalog)}.{quote(source + '__control')}"
    bands = RuleSet({})
    return {
        "hits": f"{control}.fraud_hits",
        "decisions": f"{control}.fraud_dispositions",
        "source": quote_text(source),
        "high": str(bands.high),
        "medium": str(bands.medium),
        "reason": _reasons(),
        "title": _cases("h.rule", {name: quote_text(rule.title) for name, rule in shipped().items()}),
        "verdict": _cases("r.verdict", {word: quote_text(title) for word, title in VERDICTS.items()}),
    }


@cache
def _reasons() -> str:
    """A hit's indicator in words, as `Rule.text` gives it."""
    return _cases("h.rule", {name: _sentence(rule.indicator) for name, rule in shipped().items()})


def _sentence(indicator: str) -> str:
    words: list[str] = []
    for text, name, _, _ in string.Formatter().parse(indicator):
        if text:
            words.append(quote_text(text))
        if name:
            words.append(_shown(f"JSON_EXTRACT_SCALAR(h.given, '$.{name}')"))
    return f"CONCAT({', '.join(words)})" if len(words) > 1 else words[0]


def _shown(value: str) -> str:
    """A number with thousands apart and two digits where it has any, anything else as it is."""
    number = f"TRY_CAST({value} AS DECIMAL(38, 10))"
    text = f"REGEXP_REPLACE(FORMAT('%,.2f', {number}), '[.]00$', '')"
    return f"COALESCE(IF({number} IS NOT NULL, {text}), {value}, '?')"


def _cases(value: str, words: dict[str, str]) -> str:
    cases = " ".join(f"WHEN {quote_text(name)} THEN {text}" for name, text in words.items())
    return f"CASE {value} {cases} ELSE {value} END"
