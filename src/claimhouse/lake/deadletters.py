"""What could not be kept, and why: one small object each, listed by status, opened by whoever repairs.

A dead letter names table and position, never a value. A table with an open one is not exact from its position on, until
a copy that was begun behind it is complete: then the rows are the source's again, and the letter tells of the past.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import TableState
from claimhouse.lake.storage import Exists


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`at` is when it was written, microseconds since 1970."""

    source: str
    cut: int
    folder: str
    lsn: int
    message: str
    at: int


def put(lake: Lake, source: str, cut: int, folder: str, lsn: int, message: str) -> None:
    """Writes one; the same letter written twice (a batch seen again after a crash) is one."""
    letter = DeadLetter(source, cut, folder, lsn, message, time.time_ns() // 1000)
    name = f"control/dead_letters/{source}/{lsn:020d}-{folder.replace('/', '.')}.json"
    try:
        lake.store.put_new(name, json.dumps(asdict(letter)).encode())
    except Exists:
        return


def letters(lake: Lake, source: str) -> list[DeadLetter]:
    """All of a source, oldest position first."""
    prefix = f"control/dead_letters/{source}/"
    return [DeadLetter(**json.loads(lake.store.get(prefix + name))) for name in lake.store.list(prefix)]


def still_open(found: Iterable[DeadLetter], state: TableState, lsn: int) -> list[DeadLetter]:
    """Those of a table that its rows at a position lack."""
    copy = state.copy_at(lsn)
    since = copy.at if copy is not None else 0
    return [d for d in found if d.folder == state.folder and since < d.lsn <= lsn]
