"""Bases: states of a table that are kept, so that an old moment costs one of them and the log up to the next.

A base is what a fold made of `current`, under names of its own that no upkeep removes. One is kept whenever the log has
grown by the table's size since the one before (or since the copy): kept bases at most double what the log takes. It
says nothing that the log does not say, so no record names it: its card, written after its files, is what makes it one.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any

from claimhouse.errors import LakeError
from claimhouse.failpoint import hit
from claimhouse.lake import delta
from claimhouse.lake.delta import DataFile
from claimhouse.lake.flushes import TableRecord
from claimhouse.lake.lake import Lake, bases_folder, current_key
from claimhouse.lake.registry import Copy
from claimhouse.lake.storage import Exists

FLOOR = 500_000  # rows of log that are never worth a base of their own


@dataclass(frozen=True, slots=True)
class Base:
    """A table as it was after `cut`, at (`incarnation`, `end_lsn`), made on copy number `copy`, in shape `schema`.

    `rows`: how many it has, `seen`: how many the log had, `files`: the names of its files in the cut's folder.
    """

    cut: int
    incarnation: int
    end_lsn: int
    copy: int
    schema: int
    rows: int
    seen: int
    files: tuple[str, ...]

    @property
    def position(self) -> tuple[int, int]:
        return self.incarnation, self.end_lsn


def keep(lake: Lake, source: str, folder: str, entry: TableRecord, copy: Copy) -> bool:
    """Keep the `current` that an entry names as a base, if the log has grown enough; whether it did.

    Raises LakeError, StorageGone.
    """
    cuts = _cuts(lake, source, folder)
    last = _load(lake, source, folder, cuts[-1]) if cuts else None
    if last and last.position >= (entry.current_incarnation, entry.current_lsn):
        return False
    grown = entry.current_seen - (last.seen if last else 0)
    if last is None or last.copy != copy.number:
        grown -= copy.rows
    if grown < max(FLOOR, entry.current_rows):
        return False
    name = f"{entry.current_cut:020d}"
    made = []
    for file in delta.files(lake, current_key(source, folder), entry.current):
        made.append(file.key.rpartition("/")[2])
        lake.store.copy(file.key, f"{bases_folder(source, folder)}/{name}/{made[-1]}")
    base = Base(
        cut=entry.current_cut,
        incarnation=entry.current_incarnation,
        end_lsn=entry.current_lsn,
        copy=entry.current_copy,
        schema=entry.current_schema,
        rows=entry.current_rows,
        seen=entry.current_seen,
        files=tuple(made),
    )
    hit("base.before_card")
    try:
        lake.store.put_new(f"{bases_folder(source, folder)}/{name}.json", json.dumps(asdict(base)).encode())
    except Exists:
        return False  # of a fold that a kill repeated: it holds the same
    return True


def newest(lake: Lake, source: str, folder: str, position: tuple[int, int], copy: Copy) -> Base | None:
    """The newest base at or before (incarnation, end LSN) that was made on that copy. Raises LakeError."""
    cuts = _cuts(lake, source, folder)
    found = bisect_right(cuts, position, key=lambda cut: _load(lake, source, folder, cut).position)
    base = _load(lake, source, folder, cuts[found - 1]) if found else None
    return base if base and base.copy == copy.number else None


def files(lake: Lake, source: str, folder: str, base: Base) -> list[DataFile]:
    """A base's data files."""
    place = f"{bases_folder(source, folder)}/{base.cut:020d}"
    keys = [f"{place}/{name}" for name in base.files]
    return [DataFile(key, lake.store.uri(key), 0, 0, None, None, None) for key in keys]


def _cuts(lake: Lake, source: str, folder: str) -> list[int]:
    names = lake.store.list(bases_folder(source, folder))
    return [int(name[:20]) for name in names if name.endswith(".json")]


def _load(lake: Lake, source: str, folder: str, cut: int) -> Base:
    key = f"{bases_folder(source, folder)}/{cut:020d}.json"
    try:
        raw: dict[str, Any] = json.loads(lake.store.get(key))
        return Base(**{**raw, "files": tuple(raw["files"])})
    except (KeyError, ValueError, TypeError) as error:
        hint = "restore it from a copy, or remove it: the log holds what it says"
        raise LakeError(f"{key} is damaged", hint=hint) from error
