"""The figures of the present out of a mart: what the tables give, and left to them where the mart cannot tell."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.marts.test_follower import DAY, Claims

from claimhouse.console.figures import Figures
from claimhouse.console.reader import Reader
from claimhouse.console.standing import Standing
from claimhouse.marts import figures, load

MODEL = load("demo")


@pytest.fixture
def book(tmp_path: Path) -> Claims:
    return Claims(tmp_path, random.Random(5))


@pytest.fixture
def standing(book: Claims) -> Iterator[Standing]:
    made = Standing(book.book.lake)
    made.start()
    made.want(MODEL, DAY)
    yield made
    made.stop()


@pytest.fixture
def reader(book: Claims) -> Iterator[Reader]:
    made = Reader(book.book.lake, fresh=0.0)
    yield made
    made.close()


def answered(standing: Standing, reader: Reader, params: dict[str, object]) -> bool:
    """Ask until it answers, and compare what it says with the tables."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with reader.at(None) as reading:
            found = standing.ask(reading, MODEL, "totals", params)
            if found is not None:
                return found.equals(figures(reading.session, MODEL, "totals", params))
        time.sleep(0.05)
    raise AssertionError(f"no answer: {standing.trouble}")


def test_the_present_is_answered_at_the_cut_that_a_page_shows(book: Claims, standing: Standing, reader: Reader) -> None:
    for _ in range(4):
        assert answered(standing, reader, {"valuation": DAY})
        book.cut()
    assert answered(standing, reader, {"valuation": DAY, "line": "motor"})


def test_other_days_past_moments_and_older_cuts_are_left_to_the_tables(
    book: Claims, standing: Standing, reader: Reader
) -> None:
    assert answered(standing, reader, {"valuation": DAY})
    with reader.at(None) as older:
        assert standing.ask(older, MODEL, "totals", {"valuation": "2026-01-05"}) is None
        assert standing.ask(older, MODEL, "backlog", {"valuation": DAY}) is None
        book.cut()
        assert answered(standing, Reader(book.book.lake, fresh=0.0), {"valuation": DAY})
        assert standing.ask(older, MODEL, "totals", {"valuation": DAY}) is None
    with reader.at(f"0/{book.book.lsn:X}") as past:
        assert standing.ask(past, MODEL, "totals", {"valuation": DAY}) is None


def test_pages_say_the_same_with_a_mart_and_without(book: Claims, standing: Standing, reader: Reader) -> None:
    assert answered(standing, reader, {"valuation": DAY})
    before = standing.answered
    with reader.at(None) as reading:
        for name in ("totals", "large_losses", "claims_by_status"):
            asked = {"valuation": DAY, "threshold": "1000"}
            ours = Figures(MODEL, standing).ask(reading, MODEL, name, asked)
            assert ours.equals(Figures(MODEL).ask(reading, MODEL, name, asked))
    assert standing.answered == before + 2


def test_before_it_has_started_it_answers_nothing(book: Claims, reader: Reader) -> None:
    idle = Standing(book.book.lake)
    idle.want(MODEL, DAY)
    with reader.at(None) as reading:
        assert idle.ask(reading, MODEL, "totals", {"valuation": DAY}) is None
