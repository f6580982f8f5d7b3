"""Who looked at which claim or row, and when: kept in the lake, without any value that was seen.

One small JSON object per reading below `control/access/<day>/`, durable before the answer is given; none is ever
changed. A day that need not be kept any longer can be deleted as a whole.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime

from claimhouse.errors import LakeError
from claimhouse.lake.lake import Lake

FOLDER = "control/access"


@dataclass(frozen=True, slots=True)
class Access:
    """One reading. `key` is what was asked for (a claim's number, or a table's key columns), `at` the moment shown.

    `found`: whether there was something to show. `by`: through what it was read, as `console.html`.
    """

    who: str
    what: str
    key: dict[str, str]
    found: bool
    by: str
    at: str = "now"
    when: str = field(default_factory=lambda: _iso(time.time_ns() // 1000))


def write(lake: Lake, access: Access) -> None:
    """Returns once it is durable. Raises StorageGone."""
    data = json.dumps(asdict(access), ensure_ascii=False, separators=(",", ":")).encode()
    lake.store.put_new(f"{FOLDER}/{access.when[:10]}/{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.json", data)


def read(lake: Lake, first: date | None = None, last: date | None = None) -> Iterator[Access]:
    """Readings in order of time, of the days between these. Raises LakeError for a damaged object."""
    for day in lake.store.folders(FOLDER):
        if (first and day < first.isoformat()) or (last and day > last.isoformat()):
            continue
        for name in lake.store.list(f"{FOLDER}/{day}"):
            try:
                yield Access(**json.loads(lake.store.get(f"{FOLDER}/{day}/{name}")))
            except (KeyError, ValueError, TypeError) as error:
                raise LakeError(f"{FOLDER}/{day}/{name} is damaged", hint="restore it from a copy") from error


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
