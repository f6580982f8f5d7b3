"""What --at may say, and which position it means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from claimhouse.errors import NotExact, UsageError
from claimhouse.query.moment import AtCut, AtLsn, AtTime, AtXid, Position, parse, parse_for, resolve


def micros(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0/16B3748", AtLsn(0x16B3748)),
        ("2/0000000a", AtLsn(0x20000000A)),
        ("xid:4711", AtXid(4711)),
        ("cut:17", AtCut(17)),
        ("2026-03-31T17:00:00Z", AtTime(micros(2026, 3, 31, 17))),
        ("2026-03-31 17:00:00.000001+02:00", AtTime(micros(2026, 3, 31, 15) + 1)),
        ("2026-03-31T17:00", AtTime(micros(2026, 3, 31, 17))),
        ("2026-03-31", AtTime(micros(2026, 4, 1) - 1)),
        ("20260331", AtTime(micros(2026, 4, 1) - 1)),
    ],
)
def test_each_form_is_understood(text: str, moment: object) -> None:
    assert parse(text) == moment


def test_a_day_and_a_bare_time_are_the_books() -> None:
    assert parse("2026-03-31", zone="Europe/Berlin") == AtTime(micros(2026, 3, 31, 22) - 1)
    assert parse("2026-03-29", zone="Europe/Berlin") == AtTime(micros(2026, 3, 29, 22) - 1)  # a day of 23 hours
    assert parse("2026-01-31T12:00", zone="America/New_York") == AtTime(micros(2026, 1, 31, 17))
    assert parse("2026-01-31T12:00Z", zone="America/New_York") == AtTime(micros(2026, 1, 31, 12))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "xid:",
        "cut:x",
        "0/",
        "0/16B374800",
        "2026-13-01",
        "9999-12-31",
        "1/2/3",
        "2026-W14",
        "2026-W14-2",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="time zone"):
        parse("2026-03-31", zone="Mars/Olympus")
    with pytest.raises(UsageError, match="time zone"):
        parse("2026-03-31", zone="Europe")


def test_several_sources_share_a_time_but_not_a_position() -> None:
    assert parse_for("2026-03-31", ["a", "b"]) == dict.fromkeys("ab", AtTime(micros(2026, 4, 1) - 1))
    assert parse_for("0/10", ["a"]) == {"a": AtLsn(16)}
    assert parse_for("a=0/10, b=cut:3", ["a", "b"]) == {"a": AtLsn(16), "b": AtCut(3)}
    for text in ("0/10", "a=0/10", "a=0/10,c=cut:3", "a=0/10,b=cut:3,a=0/20"):
        with pytest.raises(UsageError):
            parse_for(text, ["a", "b"])


@dataclass
class Log:
    """Transactions (end LSN, commit time, xid, cut) of one source, in order."""

    rows: list[tuple[int, int, int, int]]
    newest: Position
    max_committed_at: int
    cut: int

    def first_later_than(self, micros: int) -> Position | None:
        return next((Position(1, lsn) for lsn, at, _, _ in self.rows if at > micros), None)

    def end_of_xid(self, xid: int) -> Position | None:
        return next((Position(1, lsn) for lsn, _, x, _ in self.rows if x == xid), None)

    def end_of_cut(self, cut: int) -> Position | None:
        return next((Position(1, lsn) for lsn, _, _, c in reversed(self.rows) if c <= cut), None)


LOG = Log([(100, 10, 7, 1), (200, 30, 8, 1), (300, 20, 9, 2), (400, 40, 10, 3)], Position(1, 450), 40, 3)


@pytest.mark.parametrize(
    ("moment", "lsn"),
    [
        (AtTime(5), 99),
        (AtTime(10), 199),
        (AtTime(25), 199),  # the commit of time 20 follows one of time 30 in the log
        (AtTime(30), 399),
        (AtTime(39), 399),
        (AtXid(8), 200),
        (AtCut(1), 200),
        (AtLsn(250), 250),
        (AtLsn(450), 450),
    ],
)
def test_a_moment_means_one_position(moment: AtTime, lsn: int) -> None:
    assert resolve(moment, LOG) == Position(1, lsn)


@pytest.mark.parametrize("moment", [AtTime(40), AtTime(41), AtXid(11), AtCut(4), AtLsn(451)])
def test_what_may_still_change_is_refused_and_the_newest_is_named(moment: AtTime) -> None:
    with pytest.raises(NotExact) as caught:
        resolve(moment, LOG)
    assert caught.value.hint
