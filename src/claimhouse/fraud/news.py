"""What came to the queue and what left it, told as it happens, for pages that are open.

    news = News(lake)
    news.look()          # None while nothing is new, else what changed since the last look

The first look tells nothing: a page that is opened shows what holds. A claim whose last hit was withdrawn is told as
well, with a score of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.fraud import hits
from claimhouse.fraud.disposition import Dispositions
from claimhouse.fraud.queue import QueueRow, bands_of, rows_of_claims
from claimhouse.fraud.rule import RuleSet, load_rules
from claimhouse.lake import delta
from claimhouse.lake.lake import Lake

MANY = 40  # claims that are told one by one; beyond that, how many


@dataclass(frozen=True, slots=True)
class Newest:
    """One of the newest hits that hold."""

    claim: str
    band: str
    rule: str
    title: str
    score: float
    first_held: datetime


@dataclass(frozen=True, slots=True)
class Changes:
    """What one look found: hits that began and ended, the claims concerned (at most MANY, `more` beyond them)."""

    held: int
    withdrawn: int
    claims: list[QueueRow]
    more: int
    bands: dict[str, int]
    newest: list[Newest]


class News:
    """Follows the log of hits by its version; for one thread."""

    def __init__(self, lake: Lake, rules: RuleSet | None = None) -> None:
        self.lake, self.rules = lake, rules or load_rules()
        self._version: int | None = None
        self._seen: dict[str, datetime] = {}
        self._begun = False

    def look(self) -> Changes | None:
        """What changed since the last look; None for nothing."""
        table = delta.open_table(self.lake, hits.KEY)
        version = table.version() if table is not None else None
        if self._begun and version == self._version:
            return None
        log = hits.events(self.lake)
        new = self._new(log) if log is not None else None
        first, self._begun, self._version = not self._begun, True, version
        return None if first or log is None or new is None or not new.num_rows else self._told(log, new)

    def _new(self, log: pa.Table) -> pa.Table:
        """The events that were found after those of the last look, by each source's own clock."""
        parts = [log.slice(0, 0)]
        for source in pc.unique(log["source"]).to_pylist():
            of_it = log.filter(pc.equal(log["source"], source))
            seen = self._seen.get(source)
            self._seen[source] = pc.max(of_it["found_at"]).as_py()
            parts.append(of_it if seen is None else of_it.filter(pc.greater(of_it["found_at"], seen)))
        return pa.concat_tables(parts)

    def _told(self, log: pa.Table, new: pa.Table) -> Changes:
        counts = {c["values"]: c["counts"] for c in new["event"].value_counts().to_pylist()}
        concerned = list(dict.fromkeys(zip(new["source"].to_pylist(), new["claim_id"].to_pylist(), strict=True)))
        holding = hits.holding(log)
        newest = holding.sort_by([("since_at", "descending"), ("claim_number", "ascending")]).slice(0, 12).to_pylist()
        wanted = dict.fromkeys([*concerned[-MANY:], *((h["source"], h["claim_id"]) for h in newest)])
        rows = rows_of_claims(list(wanted), log, Dispositions(self.lake).newest(), self.rules)
        return Changes(
            held=counts.get("held", 0),
            withdrawn=counts.get("withdrawn", 0),
            claims=[rows[c] for c in concerned[-MANY:]],
            more=max(0, len(concerned) - MANY),
            bands=bands_of(holding, self.rules),
            newest=[_newest(h, rows[h["source"], h["claim_id"]]) for h in newest],
        )


def _newest(hit: dict[str, object], row: QueueRow) -> Newest:
    found = next(h for h in row.hits if h.rule == hit["rule"])
    return Newest(row.claim, row.band, found.rule, found.title, found.score, found.first_held)
