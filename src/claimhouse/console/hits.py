"""Indicators as they come and go, for pages that are open: a thread beside the pulse that follows the log of hits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from claimhouse.console import fraud, page
from claimhouse.console.background import Background
from claimhouse.console.page import Ask
from claimhouse.console.pulse import Pulse
from claimhouse.errors import ClaimhouseError
from claimhouse.fraud.news import Changes, News
from claimhouse.lake.lake import Lake

WHAT = "hits"  # the name of this feed among the pulse's news
PAUSE_LOCAL, PAUSE_REMOTE = 0.25, 2.0  # seconds between two looks


@dataclass
class HitWatch(Background):
    """Tells the pulse of each change of the queue."""

    lake: Lake
    pulse: Pulse
    trouble: str | None = None

    def _run(self) -> None:
        news, pause = News(self.lake), PAUSE_LOCAL if self.lake.store.local else PAUSE_REMOTE
        while not self._stop.is_set():
            try:
                if (changes := news.look()) is not None:
                    self.pulse.tell(WHAT, {"changes": changes})
                self.trouble = None
            except (ClaimhouseError, OSError) as error:
                self.trouble = str(error)
            self._stop.wait(pause if self.trouble is None else 2.0)


def newest_of(news: list[Changes]) -> list[Any] | None:
    """The newest hits after these changes, None where nothing changed."""
    return news[-1].newest if news else None


def queue_event(news: list[Changes], query: QueryParams, user: str, seen_lsn: str) -> dict[str, Any]:
    """What an open queue takes in: the bands' counts, and each changed claim's entry as it now reads.

    `shown` is whether an entry that is not on the page yet belongs there, by the page's filters.
    """
    kept = [(k, v) for k, v in query.multi_items() if k in ("band", "verdict", "q")]
    ask = Ask("/fraud", QueryParams(kept))
    latest = {row.claim: row for changes in news for row in changes.claims}
    entries = []
    for entry in (fraud.entry_of(row, row.disposition) for row in latest.values()):
        html = page.fragment("entry.html", e=entry, ask=ask, verdicts=fraud.VERDICTS, user=user, seen_lsn=seen_lsn)
        holds = any(h["withdrawn"] is None for h in entry["hits"])
        entries.append({"claim": entry["claim"], "shown": holds and fraud.wanted(entry, ask), "html": html})
    return {
        "bands": news[-1].bands,
        "held": sum(c.held for c in news),
        "withdrawn": sum(c.withdrawn for c in news),
        "more": sum(c.more for c in news),
        "entries": entries,
    }
