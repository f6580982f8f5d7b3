"""The fraud queue: claims with indicators that are consistent with fraud, for a person to look at.

A hit never decides anything. The rules' side gives `claimhouse.fraud.queue`:

    queue(session) -> list of entries, highest score first; None where no rules have run on this lake
    an entry: claim (its number), score (0 to 100), previous (score before it last changed, or None), since, hits
    a hit:    rule, title, score (0 to 100), reason, values (name -> value), lsn, first_held, withdrawn (or None)

    an entry's band (high, medium or low) is the rules' own, by their settings; `consider` where its flags are many

(attributes or keys of those names; times as datetime or ISO text). This side adds the page. Until the rules' side has
run, the page says so.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from claimhouse.change import lsn_text
from claimhouse.console.page import Ask, Page
from claimhouse.console.reader import Reading
from claimhouse.fraud.disposition import VERDICTS, Disposition, Dispositions
from claimhouse.query.session import Session

# a band's name, and what it asks for; which scores are in it is the rules' side's
BANDS = (("high", "look first"), ("medium", "look soon"), ("low", "look when there is time"))
PAGE = 20
Row = dict[str, Any]
Queue = Callable[[Session], Any]


def rules_side() -> Queue | None:
    """`claimhouse.fraud.queue.queue`, None while there is none."""
    try:
        module = importlib.import_module("claimhouse.fraud.queue")
    except ModuleNotFoundError as error:
        if error.name != "claimhouse.fraud.queue":
            raise
        return None
    return getattr(module, "queue", None)


def fraud_page(reading: Reading, ask: Ask, dispositions: Dispositions, source: Queue | None, number: int = 0) -> Page:
    """The queue, filtered by band, disposition, rule, state and text; live news count on from `number`."""
    entries = entries_of(reading.session, source)
    around = {"verdicts": VERDICTS, "number": number, "seen_lsn": lsn_text(_newest_lsn(reading.session))}
    if entries is None:
        return Page("fraud.html", "Fraud", {"ran": False, **around}, None, hidden=("number", "seen_lsn"))
    newest = dispositions.newest()
    for entry in entries:
        _decide(entry, newest.get(entry["claim"]))
    counts = {name: sum(e["band"] == name for e in entries) for name, _ in BANDS}
    by_verdict = {name: sum(e["verdict"] == name for e in entries) for name in VERDICTS}
    shown = [e for e in entries if wanted(e, ask)]
    if ask.text("order") == "newest":
        shown.sort(key=_newest_hit, reverse=True)
    page = ask.number("page", 1, 1)
    part = shown[(page - 1) * PAGE : page * PAGE] if ask.face == "html" else shown
    data = {
        "ran": True,
        **around,
        "bands": BANDS,
        "counts": counts,
        "by_verdict": by_verdict,
        "rules": _rule_counts(entries),
        "asked": {name: ask.text(name) for name in ("band", "verdict", "q", "rule", "state", "order")},
        "total": len(shown),
        "page": page,
        "pages": max(1, -(-len(shown) // PAGE)),
        "entries": part,
    }
    return Page("fraud.html", "Fraud", data, _rows(shown), hidden=("entries", "number", "seen_lsn"))


def wanted(entry: Row, ask: Ask) -> bool:
    """Whether the page's filters let an entry through."""
    band, verdict, q, rule = ask.text("band"), ask.text("verdict"), ask.text("q").lower(), ask.text("rule")
    hits = entry["hits"]
    withdrawn = ask.text("state") == "withdrawn"
    return (
        (not band or entry["band"] == band)
        and (not verdict or entry["verdict"] == verdict)
        and (not rule or any(h["rule"] == rule for h in hits))
        and (not withdrawn or any(h["withdrawn"] is not None for h in hits))
        and (not q or q in entry["claim"].lower() or any(q in h["title"].lower() for h in entry["hits"]))
    )


def entry_of(raw: Any, decided: Disposition | None) -> Row:
    """One entry of the rules' side, with what was decided, as the page shows it."""
    return _decide(_entry(raw), decided)


def _decide(entry: Row, decided: Disposition | None) -> Row:
    entry["disposition"] = decided
    entry["verdict"] = decided.verdict if decided else "open"
    return entry


def _newest_hit(entry: Row) -> str:
    """When the newest of an entry's indicators that hold began to."""
    return max((str(h["first_held"]) for h in entry["hits"] if h["withdrawn"] is None), default="")


def _rule_counts(entries: list[Row]) -> list[Row]:
    """The rules that hold on any claim, by title, each with the number of its claims."""
    titles = {h["rule"]: h["title"] or h["rule"] for e in entries for h in e["hits"]}
    counts = Counter(rule for e in entries for rule in {h["rule"] for h in e["hits"] if h["withdrawn"] is None})
    return [{"rule": r, "title": t, "claims": counts[r]} for r, t in sorted(titles.items(), key=lambda x: x[1].lower())]


def _newest_lsn(session: Session) -> int:
    return max((p.lsn for p in session.positions.values()), default=0)


def indicators(session: Session, claim: str, source: Queue | None) -> Row | None:
    """One claim's entry, for its page; None where it has none."""
    entries = entries_of(session, source) or []
    return next((e for e in entries if e["claim"] == claim), None)


def newest_hits(session: Session, source: Queue | None, limit: int = 12) -> list[Row] | None:
    """The newest hits over all claims, newest first; None where no rules have run."""
    entries = entries_of(session, source)
    if entries is None:
        return None
    hits = [{"claim": e["claim"], "band": e["band"], **h} for e in entries for h in e["hits"] if h["withdrawn"] is None]
    return sorted(hits, key=lambda h: str(h["first_held"]), reverse=True)[:limit]


def entries_of(session: Session, source: Queue | None) -> list[Row] | None:
    """The rules' entries as this side uses them."""
    found = source(session) if source is not None else None
    return None if found is None else [_entry(e) for e in found]


def _entry(raw: Any) -> Row:
    entry = {n: _get(raw, n) for n in ("claim", "score", "previous", "since")}
    score = _shown(entry["score"])
    entry["score"], entry["previous"] = score, None if entry["previous"] is None else _shown(entry["previous"])
    entry["band"] = _get(raw, "band")
    entry["consider"] = bool(_get(raw, "consider"))
    entry["hits"] = [_hit(h) for h in _get(raw, "hits") or []]
    return entry


def _hit(raw: Any) -> Row:
    hit = {n: _get(raw, n) for n in ("rule", "title", "score", "reason", "values", "first_held", "withdrawn")}
    lsn = _get(raw, "lsn")
    hit["score"] = _shown(hit["score"])
    hit["values"] = _values(hit["values"])
    return {**hit, "lsn": lsn_text(lsn) if isinstance(lsn, int) else str(lsn or "")}


def _shown(score: Any) -> float:
    return round(float(score), 1)


def _values(given: Any) -> dict[str, Any]:
    """What made a rule fire; the rules' side may hand it on as JSON."""
    found = json.loads(given) if isinstance(given, str) else given
    return found if isinstance(found, dict) else {}


def _get(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)


def _rows(entries: list[Row]) -> pa.Table:
    schema = pa.schema(
        [("claim", pa.string()), ("score", pa.float64()), ("band", pa.string()), ("disposition", pa.string())]
        + [(n, pa.string()) for n in ("who", "when", "rule", "title", "reason", "lsn")]
        + [("hit_score", pa.float64())]
    )
    rows = []
    for entry in entries:
        decided = entry["disposition"]
        for hit in entry["hits"]:
            rows += [
                {
                    **{n: entry[n] for n in ("claim", "score", "band")},
                    "disposition": entry["verdict"],
                    "who": decided.who if decided else None,
                    "when": decided.at if decided else None,
                    **{n: hit[n] for n in ("rule", "title", "reason", "lsn")},
                    "hit_score": hit["score"],
                }
            ]
    return pa.Table.from_pylist(rows, schema)
