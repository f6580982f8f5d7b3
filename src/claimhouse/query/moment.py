"""A past moment: how `--at` spells one, and which position of each source's log it means.

`0/16B3748`   every commit that ends at or before it          `cut:17`     the state that cut 17 made visible
`xid:4711`    that transaction and all before it              ISO time     see below; without a zone it is the book's
`2026-03-31`  the last microsecond of that day in the book's zone

Commit times are not monotonic in the log. A TIME means the log up to just before the first commit that is later than
it. It is refused unless such a commit is known, so that an answer never changes. Positions, transactions and cuts
belong to one source; where a lake has several, write `claims=0/16B3748,billing=xid:12` or give a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from claimhouse.change import lsn_text, parse_lsn
from claimhouse.errors import NotExact, UsageError

_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_NUMBERED = re.compile(r"(xid|cut):(\d{1,19})")
_DAY = re.compile(r"\d{4}(-?)\d{2}\1\d{2}")
_WEEK = re.compile(r"\d{4}-?W")  # which Python would take for a Monday's first instant
_PAIR = re.compile(r"([a-z0-9_]+)=(.+)")
_HINT = "write an LSN (0/16B3748), xid:4711, cut:17, an ISO time (2026-03-31T17:00:00Z) or a date"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in one source's log: everything up to and including this end LSN of this incarnation."""

    incarnation: int
    lsn: int

    def __str__(self) -> str:
        return lsn_text(self.lsn)


@dataclass(frozen=True, slots=True)
class AtLsn:
    lsn: int


@dataclass(frozen=True, slots=True)
class AtXid:
    xid: int


@dataclass(frozen=True, slots=True)
class AtCut:
    cut: int


@dataclass(frozen=True, slots=True)
class AtTime:
    micros: int  # since 1970, UTC


Moment = AtLsn | AtXid | AtCut | AtTime


class Past(Protocol):
    """What a source's transactions tell about past positions."""

    @property
    def newest(self) -> Position: ...
    @property
    def max_committed_at(self) -> int: ...
    @property
    def cut(self) -> int: ...
    def first_later_than(self, micros: int) -> Position | None:
        """Where the first transaction ends whose commit time is later."""
        ...

    def end_of_xid(self, xid: int) -> Position | None: ...
    def end_of_cut(self, cut: int) -> Position | None: ...


def parse(text: str, *, zone: str = "UTC") -> Moment:
    """The moment that a text spells. Raises UsageError."""
    text = text.strip()
    if _LSN.fullmatch(text):
        return AtLsn(parse_lsn(text))
    if numbered := _NUMBERED.fullmatch(text):
        number = int(numbered[2])
        return AtXid(number) if numbered[1] == "xid" else AtCut(number)
    try:
        if _DAY.fullmatch(text):
            day = datetime.combine(date.fromisoformat(text) + timedelta(days=1), datetime.min.time(), _zone(zone))
            return AtTime(_micros(day) - 1)
        if _WEEK.match(text):
            raise ValueError
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no moment", hint=_HINT) from None
    return AtTime(_micros(moment if moment.tzinfo else moment.replace(tzinfo=_zone(zone))))


def parse_for(at: str, sources: Iterable[str], *, zone: str = "UTC") -> Mapping[str, Moment]:
    """The moment of each source. Raises UsageError where one text cannot mean several sources."""
    names = list(sources)
    pairs = [_PAIR.fullmatch(part.strip()) for part in at.split(",")]
    if all(pairs):
        given = {p[1]: parse(p[2], zone=zone) for p in pairs if p}
        if set(given) != set(names) or len(given) < len(pairs):
            wrong = ", ".join(sorted(set(given) ^ set(names))) or at
            raise UsageError(f"the moment must name each source once: see {wrong}", hint="source=moment,…")
        return given
    moment = parse(at, zone=zone)
    if len(names) > 1 and not isinstance(moment, AtTime):
        each = ",".join(f"{n}=…" for n in names)
        raise UsageError(f"{at!r} belongs to one source, this lake has {len(names)}", hint=f"write {each}, or a time")
    return dict.fromkeys(names, moment)


def resolve(moment: Moment, past: Past) -> Position:
    """The position that a moment means in one source. Raises NotExact where it is not known, or not yet."""
    if isinstance(moment, AtTime):
        return _resolve_time(moment.micros, past)
    if isinstance(moment, AtXid):
        found = past.end_of_xid(moment.xid)
        what = f"transaction {moment.xid}"
    elif isinstance(moment, AtCut):
        found = past.end_of_cut(moment.cut) if moment.cut <= past.cut else None
        what = f"cut {moment.cut}"
    else:
        found = Position(past.newest.incarnation, moment.lsn) if moment.lsn <= past.newest.lsn else None
        what = f"position {lsn_text(moment.lsn)}"
    if found is None:
        raise NotExact(
            f"{what} is not in the lake", hint=f"the newest is {past.newest} (cut {past.cut}); see claimhouse status"
        )
    return found


def _resolve_time(micros: int, past: Past) -> Position:
    if micros >= past.max_committed_at:
        newest = iso(past.max_committed_at)
        raise NotExact(
            f"{iso(micros)} is not final yet: a commit may still come that belongs before it",
            hint=f"the newest final moment lies just before {newest}; leave --at out for now",
        )
    later = past.first_later_than(micros)
    if later is None:
        return past.newest
    return Position(later.incarnation, later.lsn - 1)


def iso(micros: int) -> str:
    """Microseconds since 1970 as ISO 8601 with Z."""
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"{name!r} is no time zone", hint="an IANA name, e.g. Europe/Berlin") from None
