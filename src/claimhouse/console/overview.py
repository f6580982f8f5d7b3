"""The overview: where a commit is on its way, how much comes, what came in, and the day against the week."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from claimhouse.change import lsn_text
from claimhouse.console.book import LATEST, SCHEMA, Book
from claimhouse.console.moments import Line
from claimhouse.console.page import Ask, Page
from claimhouse.console.pulse import Pulse
from claimhouse.console.reader import Reading
from claimhouse.console.slot import SlotWatch
from claimhouse.lake import deadletters
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.lake.tail import Cut

FEED = 12
STALE = 120.0  # seconds without a cut, after which an idle capture would have written one
_CLAIM_FOLDER = f"{SCHEMA}/claim"
_CLAIM_COLUMNS = ("claim_number", "line", "cause", "loss_place", "loss_state", "loss_date", "status")

_NEWEST = """
SELECT claim_number, line, cause, loss_place, loss_state, loss_date, status, reported_at
FROM {claim} ORDER BY reported_at DESC, claim_id DESC LIMIT {feed}"""

_WEEK = """
WITH newest AS (SELECT CAST(max(reported_at) AS DATE) AS day FROM {claim} WHERE reported_at <= {latest}),
moved AS (
  SELECT CAST(reported_at AS DATE) AS day, 1 AS opened, 0 AS closed, 0 AS paid, 0 AS reserved FROM {claim}
  UNION ALL SELECT CAST(closed_at AS DATE), 0, 1, 0, 0 FROM {claim} WHERE closed_at IS NOT NULL
  UNION ALL SELECT CAST(paid_at AS DATE), 0, 0, amount, 0 FROM {payment}
  UNION ALL SELECT CAST(booked_at AS DATE), 0, 0, 0, amount FROM {reserve_txn}
)
SELECT moved.day, CAST(sum(opened) AS BIGINT) AS opened, CAST(sum(closed) AS BIGINT) AS closed,
  CAST(sum(paid) AS DOUBLE) AS paid, CAST(sum(reserved) AS DOUBLE) AS reserved
FROM moved CROSS JOIN newest n WHERE moved.day > n.day - 8 AND moved.day <= n.day
GROUP BY moved.day ORDER BY moved.day"""


def watch_claims(snapshot: LakeSnapshot, cuts: list[Cut]) -> list[tuple[str, dict[str, Any]]]:
    """News of new cuts: the claims that came in, or where there is no claims book the transactions."""
    news: list[tuple[str, dict[str, Any]]] = []
    state = snapshot.registry.tables.get(_CLAIM_FOLDER)
    for cut in cuts[-20:]:
        at = cut.mark.written_at / 1e6
        if state is not None:
            for _, batch in cut.batches(_CLAIM_FOLDER):
                news += [("claim", {**row, "seen_at": at}) for row in _claims_in(batch)]
        for row in cut.transactions().slice(0, 5).to_pylist():
            tables = [{"table": f.split("/", 1)[1], "rows": n} for f, n in row["counts"] or ()]
            news.append(
                ("transaction", {"xid": row["xid"], "lsn": lsn_text(row["end_lsn"]), "tables": tables, "seen_at": at})
            )
    return news[-40:]


def _claims_in(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    if not set(_CLAIM_COLUMNS) <= set(batch.schema.names):
        return []
    return [
        {name: row[name] for name in _CLAIM_COLUMNS}
        for row in batch.select(["_op", *_CLAIM_COLUMNS]).to_pylist()
        if row["_op"] == "c"
    ]


def waiting(snapshot: LakeSnapshot) -> str | None:
    """A table of the source that has not been copied yet, None where all have been."""
    states = snapshot.registry.tables.values()
    return next((s.label for s in states if s.status == "copying" and not any(c.exact_from for c in s.copies)), None)


def overview_page(
    reading: Reading, book: Book | None, ask: Ask, pulse: Pulse, slot: SlotWatch | None, lines: dict[str, Line]
) -> Page:
    """The page at a moment; hops are always those of now."""
    claims = reading.sql(book.sql(_NEWEST, feed=str(FEED))) if book else None
    data = {
        "has_book": book is not None,
        "claims": claims.to_pylist() if claims is not None else [],
        "transactions": [n.row for n in pulse.since(0, "transaction")][-FEED:][::-1],
        "number": pulse.number,
        "week": _week(reading, book) if book else None,
        "tables": _health(reading),
        **live(pulse, slot),
        "series": series(pulse, lines),
    }
    return Page("overview.html", "Overview", data, claims, hidden=("series",))


def live(pulse: Pulse, slot: SlotWatch | None) -> dict[str, Any]:
    """What the live part of the page shows: hops, rates, slots, and whether the lake moves."""
    now = time.time()
    p50, p99 = pulse.lags(0.5), pulse.lags(0.99)
    beats = pulse.beats(10)
    known = pulse.sources
    newest = max((s.written_at for s in known.values()), default=0.0)
    flushed = min((s.flushed_at for s in known.values() if s.flushed_at), default=0.0)
    hour = pulse.beats()
    slots = slot.health() if slot else []
    return {
        "hops": [
            {
                "from": "commit",
                "to": "cut",
                "what": "from the commit in PostgreSQL until it is durable in the lake",
                "now": p50[0] if p50 else None,
                "p99": p99[0] if p99 else None,
                "hour": _worst([b.to_cut for b in hour]),
            },
            {
                "from": "cut",
                "to": "query",
                "what": "until this page had read it",
                "now": p50[1] if p50 else None,
                "p99": p99[1] if p99 else None,
                "hour": _worst([b.to_query for b in hour]),
            },
        ],
        "delta_age": (now - flushed) * 1000 if flushed else None,
        "tail_cuts": sum(s.tail_cuts for s in known.values()),
        "rate": sum(b.rows for b in beats) / 10 if beats else 0.0,
        "transaction_rate": sum(b.transactions for b in beats) / 10 if beats else 0.0,
        "newest_cut_age": (now - newest) * 1000 if newest else None,
        "stale": bool(newest) and now - newest > STALE,
        "empty": not known or not newest,
        "trouble": pulse.trouble,
        "sources": {n: {"cut": s.cut, "lsn": lsn_text(s.lsn)} for n, s in known.items()},
        "slots": slots,
        "slot_asked": slot is not None,
        "slot_trouble": slot.trouble if slot else None,
        "watched_for": now - pulse.began,
    }


def _worst(values: list[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def series(pulse: Pulse, lines: dict[str, Line], seconds: int = 3600, step: int = 10) -> list[list[Any]]:
    """[time, changes per second, commit → cut, cut → query] over the last hour, one point per `step` seconds.

    Changes come from the log itself, so they reach back before this console was started; hops do not.
    """
    last = int(time.time()) // step * step
    first = last - seconds
    points = {at: [0.0, None, None] for at in range(first, last + step, step)}
    for line in lines.values():
        recent = line.between(max(0, len(line) - 200_000), len(line))
        for at, rows in zip((recent.committed // 1_000_000 // step * step).tolist(), recent.rows.tolist(), strict=True):
            if at in points:
                points[at][0] += rows / step  # type: ignore[operator]
    for beat in pulse.beats(seconds):
        point = points.get(beat.second // step * step)
        if point is not None:
            for place, value in ((1, beat.to_cut), (2, beat.to_query)):
                if value is not None:
                    point[place] = max(point[place] or 0.0, value)
    busy = [at for at, point in points.items() if any(point)]
    shown = min(busy[0] - 60 if busy else last, last - 600)  # a young lake fills the chart, too
    points = {at: point for at, point in points.items() if at >= shown}
    columns = list(zip(*points.values(), strict=True))
    return [list(points), *[[None if v is None else round(v, 2) for v in c] for c in columns]]


def _week(reading: Reading, book: Book) -> dict[str, Any] | None:
    """The book's newest day beside the seven before it."""
    days = reading.rows(book.sql(_WEEK, latest=LATEST))
    if not days:
        return None
    by_day = {d["day"]: d for d in days}
    newest: Any = days[-1]["day"]
    span = [newest.fromordinal(newest.toordinal() - back) for back in range(7, -1, -1)]
    measures = []
    for name, title, kind in (
        ("opened", "New claims", "count"),
        ("closed", "Closed", "count"),
        ("paid", "Paid", "money"),
        ("reserved", "Change of reserves", "money"),
    ):
        values = [float(by_day[d][name]) if d in by_day else 0.0 for d in span]  # type: ignore[arg-type]
        usual = sum(values[:-1]) / 7
        top = max([abs(v) for v in values] or [0.0]) or 1.0
        measures.append(
            {
                "title": title,
                "kind": kind,
                "today": values[-1],
                "usual": usual,
                "bars": [
                    {"day": d, "value": v, "height": round(abs(v) / top * 30, 1), "negative": v < 0}
                    for d, v in zip(span, values, strict=True)
                ],
            }
        )
    return {"day": newest, "measures": measures}


def _health(reading: Reading) -> dict[str, Any]:
    session = reading.session
    states = list(session.states.values())
    letters = sum(len(deadletters.letters(session.lake, s)) for s in session.snapshots)
    errored = [s.label for s in states if s.status == "errored"]
    return {
        "live": sum(s.status == "live" for s in states),
        "copying": [s.label for s in states if s.status == "copying"],
        "errored": errored,
        "dead_letters": letters,
        "all": len(states),
    }
