"""What the lake knows of one source: its tables, their shapes and copies. One immutable JSON object per change of it.

Every cut mark names the registry object that holds for it, so a reader gets tables, shapes and exactness for exactly
its cut by one read. `TableState.copies` tells from which position (H, `exact_from`) a table is visible and right: rows
with `_copy` n, of the newest copy whose H is reached, and every streamed row above that copy's P.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from claimhouse.errors import LakeError
from claimhouse.lake.lake import Lake, registry_folder
from claimhouse.lake.storage import Exists
from claimhouse.table import Table

if TYPE_CHECKING:
    from claimhouse.lake.owner import Owner

Status = Literal["copying", "live", "errored", "gone"]


@dataclass(slots=True)
class Copy:
    """One copy of a table's rows out of the source.

    `at` is P: the rows count as the table's content at it, every streamed change above it wins over them. `exact_from`
    is H, None while the copy is under way. `sees` is, for tables without a key, the copy's pg_snapshot text: streamed
    transactions that it saw are dropped at capture.
    """

    number: int
    incarnation: int
    at: int
    exact_from: int | None = None
    exact_at: int = 0  # the newest commit time known then, microseconds: by time, the history begins here
    sees: str | None = None
    filenodes: str = ""
    blocks: int = 0
    rows: int = 0

    @property
    def unread(self) -> bool:
        """Whether it follows another one and has read nothing yet: its P is still to be set."""
        return self.number > 1 and not self.rows and not self.blocks


OPEN_END = 1 << 62  # the end of a range that is not exact until a new copy is complete


@dataclass(slots=True)
class TableState:
    """One source table. `versions`: shapes, oldest first; `inexact`: LSN ranges [from, to) not known exactly.

    `errored_at`: where it was stopped, or, of one that is gone, where it was missed first. `lossy`: by column, what its
    streamed values lose on the way here (of the embedded runtime nothing). `doubtful`: rows may have changed without an
    event, and are to be compared with the source's.
    """

    oid: int
    schema: str
    name: str
    folder: str
    status: Status
    error: str | None = None
    errored_at: int | None = None
    versions: list[Table] = field(default_factory=list)
    since: list[int] = field(default_factory=list)  # the LSN from which each of `versions` holds
    copies: list[Copy] = field(default_factory=list)
    copies_begun: int = 0
    inexact: list[tuple[int, int]] = field(default_factory=list)
    lossy: dict[str, str] = field(default_factory=dict)
    doubtful: bool = False
    storage: dict[str, Any] = field(default_factory=dict)  # what betrays a rewrite: postgres.catalog.Mark

    @property
    def table(self) -> Table:
        """The newest shape."""
        return self.versions[-1]

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    def shape(self, version: int) -> Table:
        """The shape of that version. Raises KeyError."""
        for table in self.versions:
            if table.version == version:
                return table
        raise KeyError(version)

    def shape_at(self, lsn: int) -> Table:
        """The shape that the source had at that position (the oldest one for positions before all)."""
        held = [v for v, since in zip(self.versions, self.since, strict=True) if since <= lsn]
        return held[-1] if held else self.versions[0]

    def copy_at(self, lsn: int) -> Copy | None:
        """The copy that a read at that position builds on, None if the table is not visible there."""
        done = [c for c in self.copies if c.exact_from is not None and c.exact_from <= lsn]
        return done[-1] if done else None


@dataclass(slots=True)
class Registry:
    """Everything about one source that a cut mark refers to. `tables` is keyed by folder."""

    source: str
    system_id: str = ""
    timeline: int = 0
    incarnation: int = 1
    slot: str = ""
    publication: str = ""
    database: str = ""
    generated: bool = False  # whether stored generated columns are captured
    surveyed: int = 0  # up to here the shapes are known to be the catalog's
    tables: dict[str, TableState] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        told = _shallow(self)
        told["tables"] = {folder: _told(state) for folder, state in self.tables.items()}
        return json.dumps(told, separators=(",", ":")).encode()

    def copy(self) -> Registry:
        """As it is now: what changes of this one later does not show there. Shapes never change, and are shared."""
        return replace(self, tables={folder: _copied(state) for folder, state in self.tables.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Registry:
        raw: dict[str, Any] = json.loads(data)
        raw["tables"] = {folder: _table_state(t) for folder, t in raw["tables"].items()}
        return cls(**raw)


def _shallow(of: Any) -> dict[str, Any]:
    return {f.name: getattr(of, f.name) for f in fields(of)}


def _told(state: TableState) -> dict[str, Any]:
    versions = [shape.to_json() for shape in state.versions]
    return {**_shallow(state), "versions": versions, "copies": [_shallow(c) for c in state.copies]}


def _copied(state: TableState) -> TableState:
    return replace(
        state,
        versions=[*state.versions],
        since=[*state.since],
        copies=[replace(c) for c in state.copies],
        inexact=[*state.inexact],
        lossy=dict(state.lossy),
        storage=dict(state.storage),  # never changed in place
    )


def _table_state(raw: Mapping[str, Any]) -> TableState:
    told = dict(raw)
    told["versions"] = [Table.from_json(v) for v in raw["versions"]]
    told["copies"] = [Copy(**c) for c in raw["copies"]]
    told["inexact"] = [(a, b) for a, b in raw["inexact"]]
    return TableState(**told)


def save(owner: Owner, registry: Registry, cut: int) -> str:
    """Store a registry that holds from that cut on; its object's name, for the cut mark. Raises StorageGone."""
    data = registry.to_bytes()
    folder = registry_folder(owner.source)
    for again in range(1000):
        name = f"{cut:020d}-{owner.epoch}{f'-{again}' if again else ''}.json"
        try:
            owner.lake.store.put_new(f"{folder}/{name}", data)
        except Exists:
            if owner.lake.store.get(f"{folder}/{name}") != data:
                continue  # of an append that failed; no cut names it
        return name
    raise LakeError(f"no free name for a registry of cut {cut} of source {owner.source}")


def drop_before(lake: Lake, source: str, name: str) -> None:
    """Remove the objects that only cuts before the one that brought this object could name."""
    folder, first = registry_folder(source), name[:20]
    lake.store.delete(f"{folder}/{n}" for n in lake.store.list(folder) if n[:20].isdigit() and n[:20] < first)


def load(lake: Lake, source: str, name: str) -> Registry:
    """The registry object that a cut mark or a flush record names. Raises LakeError."""
    try:
        return Registry.from_bytes(lake.store.get(f"{registry_folder(source)}/{name}"))
    except KeyError:
        raise LakeError(f"registry {name} of source {source} is missing", hint="restore it from a copy") from None
    except (ValueError, TypeError) as error:
        raise LakeError(f"registry {name} of source {source} is damaged", hint="restore it from a copy") from error
