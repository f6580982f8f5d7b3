"""Pages that stay open: one stream of server-sent events each, made of what the pulse has noticed.

The overview's stream swaps pieces of HTML in (hops, new claims, the newest hits) and tells the charts; the queue's
stream tells which entries changed, and the page puts them where the reader is not disturbed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.responses import Response, StreamingResponse

from claimhouse.change import lsn_text
from claimhouse.console import overview, page
from claimhouse.console.hits import WHAT as HITS
from claimhouse.console.hits import newest_of, queue_event
from claimhouse.console.pulse import News
from claimhouse.fraud.news import Changes

if TYPE_CHECKING:
    from claimhouse.console.app import Console

STREAMS = 16  # live pages at once
ANEW = "anew"  # the news that what is shown can be more than was there when a page was opened


def live(console: Console) -> Callable[..., Any]:
    async def answer(request: Request, since: int = 0, every: float = 1.0, feed: str = "claim") -> Response:
        """Live pieces of a page as server-sent events, at most one every `every` seconds (0.25 to 60).

        `feed`: claim or transaction (the overview), hits (the fraud queue, whose filters are given as well), or anew (a
        page that waits for a copy).
        """
        if console.streams >= STREAMS:
            return Response("too many live pages", 503)
        last = request.headers.get("last-event-id", "")
        number = int(last) if last.isascii() and last.isdigit() else since
        if feed == HITS:
            told = _queue_news(console, request.query_params)
        else:
            told = _overview_news(console, feed) if feed != ANEW else lambda news: ""
        return StreamingResponse(
            _events(console, number, max(0.25, min(60.0, every)), told), media_type="text/event-stream"
        )

    return answer


async def _events(console: Console, number: int, every: float, told: Callable[[list[News]], str]) -> AsyncIterator[str]:
    """What is new since a number, beat by beat; a beat without anything is a comment, which keeps the line open."""
    console.streams += 1
    try:
        last: str | None = None
        while not console.pulse.stopped:
            news = console.pulse.since(number)
            number = news[-1].number if news else number
            text = await run_in_threadpool(told, news)
            if any(n.what == ANEW for n in news):
                text += _named(ANEW, {})
            yield f"id: {number}\n{text}" if text and text != last else ": still\n\n"
            last = text
            await asyncio.sleep(every)
    finally:
        console.streams -= 1


def _overview_news(console: Console, feed: str) -> Callable[[list[News]], str]:
    def told(news: list[News]) -> str:
        """One message that is swapped in, and one for the charts."""
        html = page.fragment(
            "live.html",
            **overview.live(console.pulse, console.slot),
            feed=feed,
            news=[n.row for n in news if n.what == feed][-12:][::-1],
            hits=newest_of(_changes(news)),
        )
        lines = "".join(f"data: {line}\n" for line in html.splitlines())
        beats = [[b.second, b.rows, b.to_cut, b.to_query] for b in console.pulse.beats(15)]
        counts = {"beats": beats, "claims": sum(n.what == "claim" for n in news), "now": time.time()}
        return f"{lines}\n" + _named("beat", counts)

    return told


def _queue_news(console: Console, query: QueryParams) -> Callable[[list[News]], str]:
    def told(news: list[News]) -> str:
        changes = _changes(news)
        if not changes:
            return ""
        newest = max((s.lsn for s in console.pulse.sources.values()), default=0)
        return _named(HITS, queue_event(changes, query, console.user, lsn_text(newest)))

    return told


def _changes(news: list[News]) -> list[Changes]:
    return [n.row["changes"] for n in news if n.what == HITS]


def _named(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
