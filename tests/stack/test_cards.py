"""Metabase's questions, run as Metabase would run them: by the real Trino, over the real views of the demo book."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.stack import book as books
from tests.stack.book import SOURCE, Book
from tests.stack.conftest import until

from claimhouse.distributed.dashboards import CARDS, Card, sql_of, variables_of, without_values
from claimhouse.distributed.views import schema_name
from claimhouse.fraud.disposition import VERDICTS, Dispositions
from claimhouse.fraud.follower import follow
from claimhouse.fraud.queue import QueueRow, queue

pytestmark = pytest.mark.stack

# Questions that a small book may have no row for once a variable is given, and why.
MAY_BE_EMPTY = {
    "backlog": "of one line of business no claim may be open at one day",
    "large_losses": "one line of business may have none",
}
VALUATION = "2025-12-31"


@pytest.fixture(scope="module")
def judged(book: Book, stack: Any) -> Iterator[list[QueueRow]]:
    """The book with its indicators, and a decision on two of its claims; the queue of the console."""
    follow(book.lake, once=True)
    first, second, *_ = queue(book.lake) or []
    decided = Dispositions(book.lake)
    decided.add(first.claim, "referred", "tests")
    decided.add(second.claim, "watching", "tests")
    decided.add(second.claim, "cleared", "tests", "an ordinary explanation")
    follow(book.lake, once=True)
    books.publish(stack, book.lake)
    rows = queue(book.lake)
    assert rows
    yield rows


def filled(sql: str, **values: str) -> str:
    """The SQL as Metabase runs it: a block in [[ ]] goes with its variable, a date and a text become literals."""

    def block(found: re.Match[str]) -> str:
        return found[1] if all(name in values for name in variables_of(found[1])) else ""

    kept = re.sub(r"\[\[(.*?)\]\]", block, sql, flags=re.DOTALL)
    for name, value in values.items():
        literal = f"DATE '{value}'" if name == "valuation" else f"'{value}'"
        kept = kept.replace(f"{{{{{name}}}}}", literal)
    assert not variables_of(kept)
    return kept


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.key)
def test_a_question_gives_rows_with_and_without_its_variables(card: Card, book: Book, judged: list[QueueRow]) -> None:
    sql = sql_of(card, SOURCE, book.catalog)
    names = variables_of(sql)
    ((line, _),) = book.over_views("SELECT line, count(*) FROM claim GROUP BY 1 ORDER BY 2 DESC LIMIT 1")
    given = {n: v for n, v in (("valuation", VALUATION), ("line", line)) if n in names}
    texts = {"nothing": without_values(sql)} | {n: filled(sql, **{n: v}) for n, v in given.items()}
    texts["all"] = filled(sql, **given)
    assert filled(sql) == texts["nothing"]
    views, copies = (f"{book.catalog}.{schema}." for schema in (schema_name(SOURCE, "public"), book.flat))
    answers = {text: book.trino.run(text.replace(views, copies)) for text in dict.fromkeys(texts.values())}
    still = slice(0, -1 if card.key == "freshness" else None)  # its last column is the seconds until now
    both = (book.trino.run(texts["nothing"]), answers[texts["nothing"]])
    shown, copied = (sorted(repr(row[still]) for row in rows) for rows in both)
    assert shown == copied
    found = {word: answers[text] for word, text in texts.items()}
    empty = [word for word, rows in found.items() if not rows]
    assert not empty or (card.key in MAY_BE_EMPTY and "nothing" not in empty), f"no rows with {empty}"
    if "line" in names:
        assert found["line"] != found["nothing"], "the line of business changes nothing"


def test_the_queue_of_trino_is_the_queue_of_the_console(book: Book, judged: list[QueueRow]) -> None:
    rows = book.trino.run(sql_of(card("fraud_queue"), SOURCE, book.catalog))
    cleared = {r.claim for r in judged if r.disposition and r.disposition.verdict == "cleared"}
    assert len(cleared) == 1
    expected = [
        (
            r.claim, r.score, r.band, r.flags,
            "indicators consistent with fraud: " + "; ".join(h.reason for h in r.hits if h.withdrawn is None),
            VERDICTS[r.disposition.verdict if r.disposition else "open"],
        )
        for r in judged
        if r.claim not in cleared
    ]  # fmt: skip
    assert [(*r[:5], r[6]) for r in rows] == expected[:200]


def test_bands_rules_and_decisions_add_up(book: Book, judged: list[QueueRow]) -> None:
    bands = {r[0]: r[1] for r in book.trino.run(sql_of(card("fraud_bands"), SOURCE, book.catalog))}
    held = [r for r in judged if not (r.disposition and r.disposition.verdict == "cleared")]
    assert bands == {b: n for b in ("high", "medium", "low") if (n := sum(r.band == b for r in held))}
    rules = {r[0]: r[1] for r in book.trino.run(sql_of(card("fraud_rules"), SOURCE, book.catalog))}
    titles = [h.title for r in judged for h in r.hits if h.withdrawn is None]
    assert rules == {t: titles.count(t) for t in set(titles)}
    weeks = book.trino.run(sql_of(card("fraud_decisions"), SOURCE, book.catalog))
    assert sorted(r[1] for r in weeks) == sorted(VERDICTS[v] for v in ("referred", "watching", "cleared"))


def test_a_decision_reaches_trino_while_the_rules_run(book: Book, judged: list[QueueRow]) -> None:
    stop = threading.Event()
    rules = threading.Thread(target=follow, args=(book.lake, "demo", stop))
    rules.start()
    try:
        Dispositions(book.lake).add(judged[-1].claim, "watching", "tests")
        text = sql_of(card("fraud_decisions"), SOURCE, book.catalog)
        until(lambda: sum(r[2] for r in book.trino.run(text)) == 4, within=120)
    finally:
        stop.set()
        rules.join(60)


def card(key: str) -> Card:
    return next(c for c in CARDS if c.key == key)
