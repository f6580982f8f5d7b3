"""The claims list: search, filters and paging over a claims book, each claim with what it comes to."""

from __future__ import annotations

from claimhouse.console.book import Book
from claimhouse.console.page import ROWS, Ask, Page
from claimhouse.console.reader import Reading
from claimhouse.quoting import quote_text

PAGE = 50
ORDERS = {
    "reported": "c.reported_at DESC, c.claim_id DESC",
    "loss": "c.loss_date DESC, c.claim_id DESC",
    "number": "c.claim_number",
    "changed": "c.updated_at DESC, c.claim_id DESC",
}
_NEEDED = ("claim", "policy", "party", "adjuster", "reserve_txn", "payment", "payment_line", "recovery_txn")

_FROM = """
FROM {claim} c
JOIN {policy} p ON p.policy_id = c.policy_id
LEFT JOIN {party} h ON h.party_id = p.holder_id
LEFT JOIN {adjuster} a ON a.adjuster_id = c.adjuster_id
WHERE {where}"""

_LIST = (
    """
WITH found AS MATERIALIZED (
  SELECT c.claim_id, c.claim_number, c.line, c.cause, c.status, c.outcome, c.loss_date, c.loss_place, c.loss_state,
    c.catastrophe_code, c.reported_at, c.closed_at, p.policy_number, p.currency, h.name AS holder, a.name AS adjuster,
    row_number() OVER (ORDER BY {order}) AS place"""
    + _FROM
    + """
  ORDER BY place LIMIT {limit} OFFSET {offset}
), held AS (
  SELECT r.claim_id, sum(r.amount) AS outstanding FROM {reserve_txn} r SEMI JOIN found f ON f.claim_id = r.claim_id
  GROUP BY ALL
), paid AS (
  SELECT y.claim_id, sum(l.amount) AS paid FROM {payment} y JOIN {payment_line} l ON l.payment_id = y.payment_id
  SEMI JOIN found f ON f.claim_id = y.claim_id GROUP BY ALL
), back AS (
  SELECT r.claim_id, sum(r.amount) AS recovered FROM {recovery_txn} r SEMI JOIN found f ON f.claim_id = r.claim_id
  GROUP BY ALL
)
SELECT f.claim_number, f.status, f.outcome, f.line, f.cause, f.loss_date, f.loss_place, f.loss_state,
  f.catastrophe_code, f.reported_at, f.closed_at, f.policy_number, f.holder, f.adjuster, f.currency,
  coalesce(paid.paid, 0) AS paid, coalesce(held.outstanding, 0) AS outstanding,
  coalesce(paid.paid, 0) + coalesce(held.outstanding, 0) AS incurred, coalesce(back.recovered, 0) AS recovered
FROM found f
LEFT JOIN held ON held.claim_id = f.claim_id
LEFT JOIN paid ON paid.claim_id = f.claim_id
LEFT JOIN back ON back.claim_id = f.claim_id
ORDER BY f.place"""
)


def claims_page(reading: Reading, book: Book, ask: Ask) -> Page:
    """The list that a request asks for: q, line, status, adjuster, order, page."""
    reading.prepare(book.names(*_NEEDED))
    where = _where(ask)
    order = ask.text("order", "reported")
    size = PAGE if ask.face == "html" else ask.number("limit", ROWS if ask.face == "csv" else 1000, 1, ROWS)
    page = ask.number("page", 1, 1, 1_000_000)
    total = reading.rows(book.sql("SELECT count(*) AS n" + _FROM, where=where))[0]["n"]
    found = reading.sql(
        book.sql(
            _LIST,
            where=where,
            order=ORDERS.get(order, ORDERS["reported"]),
            limit=str(size),
            offset=str((page - 1) * size),
        )
    )
    assert isinstance(total, int)
    data = {
        "asked": {name: ask.text(name) for name in ("q", "line", "status", "adjuster")},
        "order": order if order in ORDERS else "reported",
        "total": total,
        "page": page,
        "pages": max(1, -(-total // size)),
        "first": min(total, (page - 1) * size + 1),
        "last": min(total, (page - 1) * size + found.num_rows),
        "choices": _choices(reading, book),
        "claims": found.to_pylist() if ask.face == "html" else [],
    }
    return Page("claims.html", "Claims", data, found, hidden=("choices", "claims"))


def _where(ask: Ask) -> str:
    conditions = ["true"]
    text = (
        "lower(concat_ws(' ', c.claim_number, p.policy_number, h.name, c.cause, c.loss_place, c.loss_state,"
        " c.catastrophe_code, c.line))"
    )
    conditions += [f"contains({text}, {quote_text(word.lower())})" for word in ask.text("q").split()[:8]]
    if line := ask.text("line"):
        conditions.append(f"c.line = {quote_text(line)}")
    if adjuster := ask.text("adjuster"):
        conditions.append(f"a.name = {quote_text(adjuster)}")
    if status := ask.text("status"):
        conditions.append("c.closed_at IS NULL" if status == "not closed" else f"c.status = {quote_text(status)}")
    return " AND ".join(f"({c})" for c in conditions)


def _choices(reading: Reading, book: Book) -> dict[str, list[str]]:
    found = reading.rows(
        book.sql("SELECT list(DISTINCT line ORDER BY line) AS line, list(DISTINCT status) AS status FROM {claim}")
    )[0]
    order = ["new", "open", "accepted", "reopened", "closed"]
    statuses = sorted(map(str, found["status"] or []), key=lambda s: (order.index(s) if s in order else 9, s))  # type: ignore[arg-type,call-overload]
    return {"line": list(map(str, found["line"] or [])), "status": statuses}  # type: ignore[call-overload]
