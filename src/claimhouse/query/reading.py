"""What a foreign reader must pin to read a table at one flush, and the SQL by which it does.

The versions are those of ONE flush record: the table's `current` as it was folded, and the log rows since, up to the
record's cut. The overlay is plain SQL wherever rows are told apart by a key and every change brought its whole row;
`why_not` says where it is not so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from claimhouse.change import old_name
from claimhouse.errors import UsageError
from claimhouse.lake.delta import DataFile
from claimhouse.lake.flushes import FlushRecord, TableRecord
from claimhouse.lake.lake import changes_key, current_key
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.relation import files_sql
from claimhouse.lake.snapshot import schema_of
from claimhouse.lake.state import may_be_exact, state_sql
from claimhouse.query.names import TableName
from claimhouse.query.session import Session
from claimhouse.quoting import quote
from claimhouse.table import Table, encode_name

_OPEN_OPTIONS = ("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP")  # no secret is ever printed


@dataclass(frozen=True, slots=True)
class Reading:
    """One table at one flush.

    `current` and `changes` are locations, `folded`: there is a `current` to build on, `behind`: the log holds rows
    since then, `why_not`: why the plain overlay does not do for them, None if it does.
    """

    name: TableName
    state: TableState
    shape: Table
    copy: Copy
    record: FlushRecord
    versions: TableRecord
    current: str
    changes: str
    options: dict[str, str]
    folded: bool
    behind: bool
    why_not: str | None
    current_files: list[DataFile]
    log_files: list[DataFile]

    @property
    def keys(self) -> list[str]:
        return [c.physical for c in self.shape.key]

    @property
    def view(self) -> str:
        """The table's name as an identifier that every engine takes."""
        return encode_name(self.name.name)

    def columns(self, name: Callable[[str], str] = quote) -> str:
        return ", ".join(f"{name(c.physical)} AS {name(c.name)}" for c in self.shape.columns)

    def log_where(self) -> str:
        after = self.versions.current_cut if self.folded else 0
        return f"_cut > {after} AND _cut <= {self.record.cut}"


def reading(session: Session, name: TableName) -> Reading:
    """What to pin for a table. Raises UsageError while the table is not in Delta as a whole."""
    snapshot, state = session.snapshots[name.source], session.states[name]
    record = snapshot.record
    versions = record.table(state.folder) if record else TableRecord()
    copy = state.copy_at(record.end_lsn) if record else None
    if record is None or versions.changes is None or copy is None:
        raise UsageError(
            f"table {state.label} is not in Delta as a whole yet",
            hint="it is with the next flush after its copy; until then read it by claimhouse query",
        )
    store, shape = session.lake.store, state.shape_at(record.end_lsn)
    folded = versions.current is not None and versions.current_copy == copy.number
    after = versions.current_cut if folded else 0
    ops = _ops(session, name, f"_cut > {after} AND _cut <= {record.cut}")
    return Reading(
        name=name,
        state=state,
        shape=shape,
        copy=copy,
        record=record,
        versions=versions,
        current=store.uri(current_key(name.source, state.folder)),
        changes=store.uri(changes_key(name.source, state.folder)),
        options={k: v for k, v in store.delta_options.items() if k in _OPEN_OPTIONS},
        folded=folded,
        behind=bool(ops),
        why_not=_why_not(shape, versions, ops) if folded else "it is not folded yet",
        current_files=snapshot.current_files(state.folder) if folded else [],
        log_files=snapshot.changes_files(state.folder, after + 1, record.cut),
    )


def _ops(session: Session, name: TableName, where: str) -> dict[str, Any]:
    """Operations in the flushed log since the fold: how many rows of each lack values."""
    log = session.log(session.states[name].folder, name.source)
    if log is None:
        return {}
    found = log.filter(f"{where} AND _op <> 'r'").aggregate("_op, count(_missing)", "_op")
    return dict(found.fetchall())


def _why_not(shape: Table, versions: TableRecord, ops: dict[str, int]) -> str | None:
    if shape.version != versions.current_schema:
        return "its shape changed since its last fold"
    if not ops:
        return None
    if shape.identity != "key":
        return "its rows have no key"
    if any(may_be_exact(c.kind) for c in shape.key):
        return "its key may hold values that only _exact tells apart"
    if "t" in ops:
        return "it was truncated since its last fold"
    return "its log holds updates that left unchanged large values out" if any(ops.values()) else None


def overlay(read: Reading, current: str, log: str, name: Callable[[str], str] = quote) -> str:
    """The state of `current` and the rows of `log`, in SQL that DuckDB, Spark and Trino share.

    `name` quotes an identifier. Where the plain overlay does not do, `current` alone.
    """
    if not read.behind or read.why_not:
        return f"SELECT {read.columns(name)}\nFROM {current}"
    order, keys = ["_incarnation", "_end_lsn", "_seq"], [name(k) for k in read.keys]
    olds = ", ".join(f"coalesce({name(old_name(k))}, {name(k)})" for k in read.keys)
    moved = " OR ".join(f"{name(old_name(k))} IS NOT NULL" for k in read.keys)
    key, ordered = ", ".join(keys), ", ".join(order)

    def columns(alias: str) -> str:
        return ", ".join(f"{alias}.{name(c.physical)}" for c in read.shape.columns)

    def same(a: str, b: str, names: list[str]) -> str:
        return " AND ".join(f"{a}.{n} = {b}.{n}" for n in names)

    return textwrap.dedent(
        f"""\
        WITH log AS (
          SELECT * FROM {log} WHERE {read.log_where()} AND _op <> 'r'
        ), events AS (
          SELECT {key}, {ordered}, 1 AS place, CASE WHEN _op = 'd' THEN 0 ELSE 1 END AS live FROM log
          UNION ALL
          SELECT {olds}, {ordered}, 0, 0 FROM log WHERE _op = 'u' AND ({moved})
        ), ranked AS (
          SELECT *, row_number() OVER (
            PARTITION BY {key} ORDER BY _incarnation DESC, _end_lsn DESC, _seq DESC, place DESC
          ) AS newest FROM events
        ), n AS (
          SELECT * FROM ranked WHERE newest = 1
        )
        SELECT {read.columns(name)} FROM (
          SELECT {columns("b")} FROM {current} b WHERE NOT EXISTS (SELECT 1 FROM n WHERE {same("n", "b", keys)})
          UNION ALL
          SELECT {columns("l")} FROM log l JOIN n ON {same("n", "l", [*order, *keys])} WHERE n.live = 1
        ) s"""
    )


def whole(read: Reading) -> str:
    """The state by claimhouse's own query, in DuckDB's SQL, for what the plain overlay cannot do."""
    schema = schema_of(read.state)
    log = files_sql([f.uri for f in read.log_files], schema, read.log_where())
    base = files_sql([f.uri for f in read.current_files], schema)
    base = f"({base})" if read.folded else None
    rows = state_sql(read.state, log=f"({log})", base=base, copy=read.copy, shape=read.shape)
    return f"SELECT {read.columns()} FROM ({rows})"
