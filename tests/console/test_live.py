"""The live stream, readings and their limits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.console.claimslake import TOKEN, served
from tests.query.book import Book

from claimhouse.console.app import Console
from claimhouse.console.book import TABLES
from claimhouse.console.reader import Reader
from claimhouse.errors import QueryError
from claimhouse.fraud.evaluate import Hit
from claimhouse.fraud.hits import Event, HitWriter
from claimhouse.fraud.rule import load_rules
from claimhouse.marts.mirror import Moment

COLUMNS = {
    "id": "int8", "claim_number": "text", "line": "text", "cause": "text", "loss_place": "text", "loss_state": "text",
    "loss_date": "date", "status": "text",
}  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> Book:
    made = Book(tmp_path / "lake")
    made.table("claim", COLUMNS)
    made.cut()
    return made


def test_a_new_claim_reaches_an_open_page(book: Book) -> None:
    claim = book.registry.tables["public/claim"].table
    with served(Console(book.lake)) as running, httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        base = running.url.partition("/overview")[0]
        with client.stream("GET", f"{base}/live?every=0.25", timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.iter_lines()
            while "event: beat" not in next(lines):
                pass
            book.commit(("c", claim, {"id": 1, "claim_number": "CLM-<b>", "line": "motor", "cause": "glass"}))
            book.cut()
            deadline = time.monotonic() + 20
            while "CLM-" not in (line := next(lines)):
                assert time.monotonic() < deadline
    assert "CLM-&lt;b&gt;" in line and "CLM-<b>" not in line


def _hit(rule: str, claim: str) -> Hit:
    return Hit(rule, claim, f"CLM-{claim}-<b>", 1.0, '{"days": 3}')


def _next(lines: Iterator[str], name: str) -> dict[str, Any]:
    """The data of the stream's next event of that name."""
    deadline = time.monotonic() + 30
    while f"event: {name}" not in next(lines):
        assert time.monotonic() < deadline
    return json.loads(next(lines).removeprefix("data: "))


def test_indicators_that_come_and_go_reach_an_open_queue(book: Book) -> None:
    rules = load_rules().rules
    writer = HitWriter(book.lake, "main")
    writer.append([Event("held", _hit("over_limit", "1"))], Moment("main", 1, 1, 16, 1), rules)
    with served(Console(book.lake)) as running, httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        base = running.url.partition("/overview")[0]
        address = f"{base}/live?feed=hits&every=0.25&band=medium"
        with client.stream("GET", address, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            time.sleep(1.0)  # the watch has begun: what held before is on the page
            both = [Event("held", _hit("early_loss", "2")), Event("held", _hit("before_inception", "3"))]
            writer.append(both, Moment("main", 1, 2, 32, 2), rules)
            told = _next(lines, "hits")
            assert told["bands"] == {"high": 2, "medium": 1, "low": 0} and (told["held"], told["withdrawn"]) == (2, 0)
            assert {e["claim"]: e["shown"] for e in told["entries"]} == {"CLM-2-<b>": True, "CLM-3-<b>": False}
            assert all("-&lt;b&gt;" in e["html"] and "-<b>" not in e["html"] for e in told["entries"])
            writer.append([Event("withdrawn", _hit("over_limit", "1"))], Moment("main", 1, 3, 48, 3), rules)
            told = _next(lines, "hits")
            assert (told["held"], told["withdrawn"]) == (0, 1) and told["bands"]["high"] == 1
            (entry,) = told["entries"]
            assert not entry["shown"] and "no indicator holds any longer" in entry["html"]
        with client.stream("GET", f"{base}/live?every=0.25", timeout=30) as answer:
            lines = answer.iter_lines()
            writer.append([Event("held", _hit("over_limit", "7"))], Moment("main", 1, 4, 64, 4), rules)
            deadline = time.monotonic() + 20
            while "CLM-7-&lt;b&gt;" not in (line := next(lines)):
                assert time.monotonic() < deadline and "CLM-7-<b>" not in line


def test_a_page_that_was_opened_during_the_copy_is_told_when_it_is_complete(tmp_path: Path) -> None:
    made = Book(tmp_path / "lake")
    claim = made.table(
        "claim", {**COLUMNS, **dict.fromkeys(("claim_id", "policy_id"), "int8"), "reported_at": "date"}, live=False
    )
    for name in set(TABLES) - {"claim"}:
        made.table(name, {"id": "int8"})
    made.cut()
    with served(Console(made.lake)) as running, httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        base = running.url.partition("/overview")[0]
        text = client.get(f"{base}/overview", timeout=30).text
        assert "being copied for the first time" in text and "public.claim" in text
        waits = client.get(f"{base}/claims", timeout=30)
        assert waits.status_code != 200 and "shows itself once the copy is complete" in waits.text
        assert "feed=anew" in waits.text and "feed=anew" not in client.get(f"{base}/claims?at=cut:7", timeout=30).text
        for feed in ("anew", "transaction"):
            with client.stream("GET", f"{base}/live?every=0.25&feed={feed}", timeout=30) as answer:
                lines = answer.iter_lines()
                next(lines)
                if feed == "anew":
                    time.sleep(0.5)
                    made.commit(("c", claim, {"id": 9}))
                    made.live(claim)
                    made.cut()
                assert _next(lines, "anew") == {}


def test_the_console_ends_while_a_page_listens(book: Book) -> None:
    with served(Console(book.lake)) as running, httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        base = running.url.partition("/overview")[0]
        with client.stream("GET", f"{base}/live", timeout=30) as answer:
            next(answer.iter_lines())
            running.stop()
    assert running.console.streams == 0


def test_pages_at_one_moment_share_a_session_and_the_present_moves_on(book: Book) -> None:
    reader = Reader(book.lake, fresh=0.0)
    with reader.at(None) as first:
        one = first.session
    with reader.at(None) as again:
        assert again.session is one
    book.commit(("c", book.registry.tables["public/claim"].table, {"id": 2}))
    book.cut()
    with reader.at(None) as moved:
        assert moved.session is not one
        assert moved.rows("SELECT count(*) AS n FROM claim") == [{"n": 1}]
    for cut in ("cut:1", "cut:2", "cut:1", "cut:2"):
        with reader.at(cut):
            pass
    assert len(reader._kept) == 3


def test_a_session_that_is_read_outlives_its_place_in_the_cache(book: Book) -> None:
    reader = Reader(book.lake, keep=1)
    with reader.at(None) as reading:
        with reader.at("cut:1"):
            pass
        assert reading.rows("SELECT count(*) AS n FROM claim") == [{"n": 0}]


def test_a_query_that_takes_too_long_is_stopped(book: Book) -> None:
    reader = Reader(book.lake, seconds=0.3)
    with reader.at(None) as reading, pytest.raises(QueryError, match="took longer"):
        reading.sql("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b")
    assert threading.active_count() < 30


def test_hops_are_timed_and_a_lake_that_stands_still_is_called_stale(book: Book) -> None:
    console = Console(book.lake)
    console.start()
    try:
        deadline = time.monotonic() + 10
        while not console.pulse.sources and time.monotonic() < deadline:
            time.sleep(0.05)
        book.at = time.time_ns() // 1000 - 2_000_000
        book.commit(("c", book.registry.tables["public/claim"].table, {"id": 3}))
        book.cut()
        while console.pulse.lags(0.5) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        lags = console.pulse.lags(0.5)
        assert lags is not None and 1000 <= lags[0] < 60_000 and 0 <= lags[1] < 10_000
        from claimhouse.console.overview import live

        assert live(console.pulse, None)["stale"] is False
        console.pulse.stop()
        console.pulse.sources["main"].written_at -= 1000
        assert live(console.pulse, None)["stale"] is True
    finally:
        console.stop()
