"""One claim in ClaimCenter's order: summary, headline, activities, details, parties, exposures, money, history."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from claimhouse.change import lsn_text
from claimhouse.console.book import SCHEMA, Book
from claimhouse.console.page import Ask, Page
from claimhouse.console.reader import Reading
from claimhouse.errors import QueryError
from claimhouse.query.history import Version, history
from claimhouse.query.names import TableName
from claimhouse.query.render import single
from claimhouse.quoting import quote_text

Row = dict[str, Any]
OPS = {"r": "as first copied", "c": "opened", "u": "changed", "d": "deleted", "t": "deleted"}

_CLAIM = """
SELECT c.*, p.policy_number, p.currency, p.inception, p.status AS policy_status, h.name AS holder,
  a.name AS adjuster, a.authority_limit, s.kind AS asset_kind, s.vin, s.make, s.model_year, s.insured_value,
  k.name AS catastrophe
FROM {claim} c
JOIN {policy} p ON p.policy_id = c.policy_id
LEFT JOIN {party} h ON h.party_id = p.holder_id
LEFT JOIN {adjuster} a ON a.adjuster_id = c.adjuster_id
LEFT JOIN {insured_asset} s ON s.asset_id = c.asset_id
LEFT JOIN {catastrophe} k ON k.code = c.catastrophe_code
WHERE c.claim_number = {number} LIMIT 1"""

_SECTIONS = {
    "activities": """
SELECT y.kind, y.subject, y.status, y.due_on, y.created_at, y.done_at, a.name AS assigned_to
FROM {activity} y LEFT JOIN {adjuster} a ON a.adjuster_id = y.assigned_to
WHERE y.claim_id = {id}
ORDER BY y.status <> 'open', coalesce(y.done_at, y.due_on) DESC, y.activity_id DESC LIMIT 200""",
    "parties": """
SELECT string_agg(x.role, ', ' ORDER BY x.role <> 'insured', x.role) AS roles, p.name, p.kind, p.phone, p.email,
  min(x.added_at) AS added_at, bool_or(x.role = 'insured') AS insured
FROM {claim_party} x JOIN {party} p ON p.party_id = x.party_id WHERE x.claim_id = {id}
GROUP BY p.party_id, p.name, p.kind, p.phone, p.email ORDER BY insured DESC, roles, p.name LIMIT 200""",
    "exposures": """
SELECT e.exposure_id, e.kind, e.status, p.name AS claimant, v.kind AS coverage, v.limit_amount, v.deductible,
  v.currency, e.opened_at, e.closed_at,
  coalesce((SELECT sum(r.amount) FROM {reserve_txn} r WHERE r.exposure_id = e.exposure_id), 0) AS outstanding,
  coalesce((SELECT sum(l.amount) FROM {payment_line} l WHERE l.exposure_id = e.exposure_id), 0) AS paid
FROM {exposure} e LEFT JOIN {party} p ON p.party_id = e.claimant_id
LEFT JOIN {coverage} v ON v.coverage_id = e.coverage_id
WHERE e.claim_id = {id} ORDER BY e.exposure_id LIMIT 200""",
    "payments": """
SELECT y.payment_id, y.payment_number, y.paid_at, y.amount, y.currency, y.method, y.status, p.name AS payee,
  a.name AS approved_by, i.invoice_number, y.corrects_id
FROM {payment} y LEFT JOIN {party} p ON p.party_id = y.payee_id LEFT JOIN {adjuster} a ON a.adjuster_id = y.approved_by
LEFT JOIN {invoice} i ON i.invoice_id = y.invoice_id
WHERE y.claim_id = {id} ORDER BY y.paid_at DESC, y.payment_id DESC LIMIT 500""",
    "recoveries": """
SELECT r.kind, r.amount, r.currency, r.booked_at, r.corrects_id IS NOT NULL AS correction
FROM {recovery_txn} r WHERE r.claim_id = {id} ORDER BY r.booked_at DESC LIMIT 500""",
    "statuses": """
SELECT s.status, s.changed_at, a.name AS changed_by
FROM {claim_status_history} s LEFT JOIN {adjuster} a ON a.adjuster_id = s.changed_by
WHERE s.claim_id = {id} ORDER BY s.changed_at, s.claim_status_history_id LIMIT 200""",
    "movements": """
SELECT moved_at, kind, reason, cost_type, amount, id, place,
  sum(reserved) OVER so AS outstanding, sum(paid) OVER so AS paid, sum(reserved + paid) OVER so AS incurred
FROM (
  SELECT booked_at AS moved_at, 'reserve' AS kind, reason, cost_type, amount, amount AS reserved, 0 AS paid,
    reserve_txn_id AS id, 'reserve_txn' AS place FROM {reserve_txn} WHERE claim_id = {id}
  UNION ALL
  SELECT y.paid_at, 'payment', l.category, l.cost_type, l.amount, 0, l.amount, y.payment_id, 'payment'
  FROM {payment} y JOIN {payment_line} l ON l.payment_id = y.payment_id WHERE y.claim_id = {id}
) WINDOW so AS (ORDER BY moved_at, kind DESC, id ROWS UNBOUNDED PRECEDING)
ORDER BY moved_at, kind DESC, id LIMIT 2000""",
}
_NAMES = """
claim policy party adjuster insured_asset catastrophe activity claim_party exposure coverage reserve_txn payment
payment_line invoice recovery_txn claim_status_history"""
_NEEDED = tuple(_NAMES.split())


def claim_page(reading: Reading, book: Book, ask: Ask) -> Page:
    """The page of the claim with that number. A number that no claim has is a page that says so (404)."""
    number = ask.parts["number"]
    reading.prepare(book.names(*_NEEDED))
    found = reading.rows(book.sql(_CLAIM, number=quote_text(number)))
    if not found:
        data = {"number": number}
        return Page("absent.html", f"Claim {number}", data, None, 404)
    claim = found[0]
    sections = {name: reading.rows(book.sql(text, id=str(claim["claim_id"]))) for name, text in _SECTIONS.items()}
    versions = _versions(reading, book, str(claim["claim_id"]))
    data = {
        "claim": claim,
        "money": _money(sections),
        "clocks": _clocks(claim, sections),
        "details": _details(str(claim.get("details") or "")),
        **sections,
        "versions": versions,
        "chart": _chart(sections["movements"]),
        "rows_of": f"/tables/{book.source}/{SCHEMA}",
    }
    return Page("claim.html", f"Claim {number}", data, timeline(versions), hidden=("chart", "rows_of"))


def _money(sections: dict[str, Any]) -> Row:
    moves = sections["movements"]
    last = moves[-1] if moves else {"outstanding": 0, "paid": 0, "incurred": 0}
    recovered = sum(r["amount"] for r in sections["recoveries"])
    return {
        "outstanding": last["outstanding"],
        "paid": last["paid"],
        "incurred": last["incurred"],
        "recovered": recovered,
        "net_incurred": last["incurred"] - recovered,
    }


def _clocks(claim: Row, sections: dict[str, Any]) -> list[Row]:
    """The file's milestones: what, when, and whole days since the one that starts its clock."""
    first_paid = min((p["paid_at"] for p in sections["payments"] if p["amount"] > 0), default=None)
    steps = [
        ("loss", claim["loss_date"], None),
        ("reported", claim["reported_at"], claim["loss_date"]),
        ("acknowledged", claim["acknowledged_at"], claim["reported_at"]),
        ("decided", claim["decided_at"], claim["reported_at"]),
        ("first payment", first_paid, claim["reported_at"]),
        ("closed", claim["closed_at"], claim["reported_at"]),
    ]
    return [{"what": what, "when": when, "days": _days(when, start)} for what, when, start in steps]


def _days(when: Any, start: Any) -> int | None:
    if when is None or start is None:
        return None
    return (_date(when) - _date(start)).days


def _date(value: Any) -> Any:
    return value.astimezone(UTC).date() if isinstance(value, datetime) else value


def _details(text: str) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {"details": text}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _chart(moves: list[Row]) -> list[list[float]]:
    """[seconds, outstanding, paid, incurred] columns; several moves of one second as its last."""
    points: dict[float, tuple[float, float, float]] = {}
    for move in moves:
        when = move["moved_at"].timestamp()
        points[when] = (float(move["outstanding"]), float(move["paid"]), float(move["incurred"]))
    if not points:
        return []
    first, last = min(points), max(points)
    margin = max(86_400.0, (last - first) * 0.03)  # so that one move is a step, not a dot at the edge
    points = {first - margin: (0.0, 0.0, 0.0), **points, last + margin: points[last]}
    columns = list(zip(*points.values(), strict=True))
    return [list(points), *map(list, columns)]


def _versions(reading: Reading, book: Book, claim_id: str) -> list[Row]:
    """The claim row's versions, newest first, for a timeline."""
    table = TableName(book.source, SCHEMA, "claim")
    try:
        found = history(reading.session, table, {"claim_id": claim_id})
    except QueryError:
        return []
    return [told(v, found[i - 1] if i else None) for i, v in enumerate(found)][::-1]


def told(version: Version, before: Version | None) -> Row:
    """A version for the page: what happened, when, and each changed column's two values."""
    values = version.values
    changes = [(n, before.values.get(n) if before else None, values.get(n)) for n in version.changed]
    return {
        "op": version.op,
        "what": OPS[version.op],
        "lsn": lsn_text(version.lsn),
        "xid": version.xid,
        "committed_at": version.committed_at,
        "key": version.key,
        "moved_to": version.moved_to,
        "changes": [{"column": n, "before": _text(a), "after": _text(b)} for n, a, b in changes],
        "values": {n: _text(v) for n, v in values.items()},
    }


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    if isinstance(value, bool):
        return "true" if value else "false"
    found = single(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def timeline(versions: list[Row]) -> pa.Table:
    """The versions as rows for CSV: one per version and changed column."""
    rows = [
        {
            "lsn": v["lsn"],
            "committed_at": v["committed_at"],
            "xid": v["xid"],
            "what": v["what"],
            "column": c["column"] if c else None,
            "before": c["before"] if c else None,
            "after": c["after"] if c else None,
        }
        for v in versions
        for c in (v["changes"] or [None])
    ]
    schema = pa.schema(
        [("lsn", pa.string()), ("committed_at", pa.timestamp("us", tz="UTC")), ("xid", pa.int64())]
        + [(name, pa.string()) for name in ("what", "column", "before", "after")]
    )
    return pa.Table.from_pylist(rows, schema)
