"""Who read what, and when: kept in the lake, without any value that was seen.

One small JSON object per reading below `control/access/<day>/`, numbered within its day and durable before the answer
is given; none is ever changed. Each holds the hash of the one before it, the first of a day that of a day before, so
that an object which was changed or taken out is missed by the next. Whole days may be deleted, the oldest first.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime

from claimhouse.errors import LakeError
from claimhouse.lake.lake import Lake
from claimhouse.lake.storage import Exists

FOLDER = "control/access"
_START = ""  # what the first reading of a lake follows


@dataclass(frozen=True, slots=True)
class Access:
    """One reading. `key` is what was asked for: a claim's number, a table's key columns, or a statement (`sql`).

    `at`: the moment shown. `found`: whether there was something to show. `by`: through what it was read, as
    `console.html` or `cli.query`. `previous`: the SHA-256 of the reading before it, as bytes in the lake.
    """

    who: str
    what: str
    key: dict[str, str]
    found: bool
    by: str
    at: str = "now"
    when: str = field(default_factory=lambda: _iso(time.time_ns() // 1000))
    previous: str = _START


@dataclass(frozen=True, slots=True)
class Chain:
    """What a check found whole: so many readings on these days, and the hash of the newest; empty where none is."""

    readings: int
    first: str
    last: str
    head: str


class AccessLog:
    """Writes readings. Knows where the chain ends, so that a long-lived writer asks for nothing before it writes."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._end: tuple[str, int, str] | None = None  # the newest object's day and number, and its hash
        self._lock = threading.Lock()

    def write(self, access: Access) -> None:
        """Returns once it is durable. Raises StorageGone."""
        with self._lock:
            while True:
                day, number, head = self._end = self._end or self._ended()
                today = max(access.when[:10], day)
                number = number + 1 if today == day else 1
                data = _bytes(replace(access, previous=head))
                try:
                    self.lake.store.put_new(_name(today, number), data)
                except Exists:
                    self._end = None  # somebody else wrote meanwhile
                    continue
                self._end = today, number, _hash(data)
                return

    def _ended(self) -> tuple[str, int, str]:
        for day in reversed(self.lake.store.folders(FOLDER)):
            if names := _numbered(self.lake, day):
                return day, int(names[-1].removesuffix(".json")), _hash(_get(self.lake, day, names[-1]))
        return "", 0, _START


def read(lake: Lake, first: date | None = None, last: date | None = None) -> Iterator[Access]:
    """Readings in the order in which they were written, of the days between these. Raises LakeError."""
    for day in lake.store.folders(FOLDER):
        if (first and day < first.isoformat()) or (last and day > last.isoformat()):
            continue
        for name in lake.store.list(f"{FOLDER}/{day}"):
            yield _parsed(_get(lake, day, name), day, name)


def check(lake: Lake) -> Chain:
    """Follow the chain over all days that are kept. Raises LakeError where a reading was changed or taken out."""
    known: set[str] = set()  # of the day before
    days = [day for day in lake.store.folders(FOLDER) if _numbered(lake, day)]
    head, count = _START, 0
    for day in days:
        of_day: set[str] = set()
        for number, name in enumerate(_numbered(lake, day), 1):
            data = _get(lake, day, name)
            previous = _parsed(data, day, name).previous
            # Around midnight a writer may have opened the new day before another closed the old one.
            follows = previous == head if number > 1 else day == days[0] or previous in known
            if not follows or name != f"{number:020d}.json":
                raise LakeError(
                    f"the readings before {FOLDER}/{day}/{name} are not those that were written",
                    hint="compare with a copy; whole days may be deleted, but only the oldest",
                )
            head, count = _hash(data), count + 1
            of_day.add(head)
        known = of_day
    return Chain(count, days[0] if days else "", days[-1] if days else "", head)


def _numbered(lake: Lake, day: str) -> list[str]:
    """A day's objects that are in the chain; those of older lakes have a time and a dash in their names."""
    return [name for name in lake.store.list(f"{FOLDER}/{day}") if "-" not in name]


def _name(day: str, number: int) -> str:
    return f"{FOLDER}/{day}/{number:020d}.json"


def _bytes(access: Access) -> bytes:
    return json.dumps(asdict(access), ensure_ascii=False, separators=(",", ":")).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _get(lake: Lake, day: str, name: str) -> bytes:
    try:
        return lake.store.get(f"{FOLDER}/{day}/{name}")
    except KeyError as error:
        raise _damaged(day, name) from error


def _parsed(data: bytes, day: str, name: str) -> Access:
    try:
        return Access(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise _damaged(day, name) from error


def _damaged(day: str, name: str) -> LakeError:
    return LakeError(f"{FOLDER}/{day}/{name} is damaged", hint="restore it from a copy")


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
