"""One row's history: every version it had, out of the log, through key changes, deletes and re-inserts.

A version is what one committed change left behind. The walk begins at the asked key and goes back: where a version
came in by a key change, the life under the old key is read too. What a copy found counts as a version only where the
stream did not already say so: rows read while their table was first copied may be younger than the copy's position, so
the stream's own changes of that time come before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from claimhouse.change import old_name
from claimhouse.errors import QueryError, UsageError
from claimhouse.lake.defaults import filled, filled_exact, literal
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.state import may_be_exact
from claimhouse.query.names import HISTORY, LOG, TableName
from claimhouse.query.session import Session
from claimhouse.query.versions import blurred
from claimhouse.quoting import quote, quote_text
from claimhouse.table import Column, Table

LIVES = 50  # how many key changes are followed back
_META = ("_op", "_incarnation", "_end_lsn", "_seq", "_xid", "_committed_at", "_cut", "_copy", "_schema", "_missing")
Order = tuple[int, int, int]  # incarnation, end LSN, place


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a row. `op`: r found by a copy, c insert, u update, d delete, t truncate.

    `values` by the source's column names, of a delete the last ones; `changed` names what differs from the version
    before (empty where there is none). `key` is the row's key in this version; `moved_to` the one it went on under.
    """

    op: str
    order: Order
    committed_at: datetime | None  # None where only a later copy tells that the row was gone
    xid: int | None
    cut: int
    key: dict[str, str]
    values: dict[str, Any]
    changed: tuple[str, ...] = ()
    moved_to: dict[str, str] | None = None

    @property
    def lsn(self) -> int:
        return self.order[1]


def history(session: Session, table: TableName, key: Mapping[str, str]) -> list[Version]:
    """Every version of the row with that key up to the session's moment, oldest first; empty if there never was one.

    `key` holds texts as PostgreSQL writes them, by column name. The session's warnings tell where it is not exact.
    Raises UsageError for a key that is not the table's, QueryError for a table whose rows have none, NotExact.
    """
    return _Walk(session, table).versions(key)


def key_by(session: Session, table: TableName, values: Mapping[str, str]) -> dict[str, str]:
    """The key of the one row with these values in other columns: now, or else at any time before.

    Raises UsageError where there is none, or several.
    """
    state = session.states[table]
    shape = state.shape_at(session.positions[table.source].lsn)
    keys = [c.name for c in shape.key]
    where = " AND ".join(f"CAST({quote(c)} AS VARCHAR) = {quote_text(v)}" for c, v in values.items())
    shown = ", ".join(f"CAST({quote(k)} AS VARCHAR) AS {quote(k)}" for k in keys)
    for suffix in ("", HISTORY):
        place = ".".join(map(quote, (table.source, table.schema, table.name + suffix)))
        found = session.sql(f"SELECT DISTINCT {shown} FROM {place} WHERE {where} LIMIT 2").arrow().to_pylist()
        if len(found) == 1:
            return found[0]
        if found:
            ask = f'claimhouse query "SELECT {", ".join(keys)} FROM {state.name} WHERE …"'
            raise UsageError(f"several rows of {state.label} have that", hint=f"name one by its key: {ask}")
    raise UsageError(
        f"no row of {state.label} has that, neither now nor before", hint="values are as a query shows them"
    )


class _Walk:
    def __init__(self, session: Session, table: TableName) -> None:
        session.path((table.source, table.schema, table.name))
        self.state: TableState = session.states[table]
        self.position = session.positions[table.source]
        self.shape: Table = self.state.shape_at(self.position.lsn)
        if self.shape.identity != "key":
            hint = f"read its changes as they came: {self.state.name}{LOG}"
            raise QueryError(f"rows of {self.state.label} have no key", hint=hint)
        session.note(table)
        told = blurred(self.state, self.shape, self.position.lsn)
        session.warnings += [w for w in told if w not in session.warnings]
        self.key = self.shape.key
        log = session.log(self.state.folder, table.source)
        self.log = log
        done = [c for c in self.state.copies if c.exact_from is not None and c.exact_from <= self.position.lsn]
        self._known: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        self.copies: list[Copy] = sorted(done, key=lambda c: c.number)

    def versions(self, key: Mapping[str, str]) -> list[Version]:
        """The walk back from a key, oldest version first."""
        wanted = {c.name for c in self.key}
        if set(key) != wanted:
            raise UsageError(f"the key of {self.state.label} is {', '.join(sorted(wanted))}")
        if self.log is None:
            return []
        told: dict[object, Version] = {}  # a row that comes back to the key is led to what is told already
        for version in self._life(dict(key), None, LIVES, whole=True):
            told.setdefault((version.order, version.op, tuple(version.key.items())), version)
        return list(told.values())

    def _life(self, key: dict[str, str], until: Order | None, depth: int, *, whole: bool) -> list[Version]:
        """Versions under one key before `until`: all of them, or the last life alone."""
        found: list[Version] = []
        current: dict[str, Any] | None = None
        events = list(self._events(key, until))
        for event in events if whole else events[_begun(events) :]:
            fields = dict(event)
            before = current
            if event["_op"] == "u" and event["came_from"] and depth:
                earlier = self._life(event["came_from"], event["order"], depth - 1, whole=False)
                found += earlier
                before = earlier[-1].values if earlier else None
            version, current = _step(fields, key, before)
            if version is not None:
                found.append(version)
        return found

    def _events(self, key: dict[str, str], until: Order | None) -> Iterator[dict[str, Any]]:
        """What happened to a key, in order; of a copy, what it found where the stream had not said so."""
        stream: list[dict[str, Any]] = []
        copied: dict[int, dict[str, Any]] = {}
        for row in self._rows(key):
            if row["_op"] == "r":
                copied[row["_copy"]] = row
            elif until is None or row["order"] < until:
                stream.append(row)
        marks = [(c.incarnation, c.exact_from or 0, 1 << 62) for c in self.copies]
        if not marks:
            return
        place = 0
        alive: dict[str, Any] | None = None
        for number, (copy, mark) in enumerate(zip(self.copies, marks, strict=True)):
            start = (copy.incarnation, copy.at, 1 << 62)
            window = [e for e in stream if start < e["order"] < mark]
            while place < len(stream) and stream[place]["order"] < mark:
                if number or stream[place]["order"] > start:
                    alive = _alive(stream[place], alive)
                    yield stream[place]
                place += 1
            if until is not None and mark > until and number:
                break
            held = copied.get(copy.number)
            if not window and held is not None and (alive is None or _differs(held["values"], alive)):
                alive = held["values"]
                at = start if not number else mark
                yield {**held, "order": (at[0], at[1], 0)}
            elif not window and held is None and alive is not None:
                alive = None
                yield {**_found_gone(copy, mark), "order": (mark[0], mark[1], 0)}
        yield from stream[place:]

    def _rows(self, key: dict[str, str]) -> list[dict[str, Any]]:
        """The log's rows that have a key now or had it before, in order of the log."""
        name = tuple(key[c.name] for c in self.key)
        if name not in self._known:
            self._known[name] = list(self._read(key))
        return self._known[name]

    def _read(self, key: dict[str, str]) -> Iterator[dict[str, Any]]:
        assert self.log is not None
        new = " AND ".join(self._is(c, key[c.name], c.physical) for c in self.key)
        old = " AND ".join(self._was(c, key[c.name]) for c in self.key)
        moved = " OR ".join(f"{quote(old_name(c.physical))} IS NOT NULL" for c in self.key)
        incarnation, lsn = self.position.incarnation, self.position.lsn
        upto = f"(_incarnation < {incarnation} OR (_incarnation = {incarnation} AND _end_lsn <= {lsn}))"
        columns = [*_META, f"{filled_exact(self.shape)} AS _exact"]
        columns += [f"{filled(c)} AS v{i}" for i, c in enumerate(self.shape.columns)]
        columns += [f"CAST({quote(old_name(c.physical))} AS VARCHAR) AS o{i}" for i, c in enumerate(self.key)]
        columns += [f"CAST({filled(c)} AS VARCHAR) AS k{i}" for i, c in enumerate(self.key)]
        try:
            rows = (
                self.log.filter(f"{upto} AND (({new}) OR _op = 't' OR (_op = 'u' AND ({moved}) AND {old}))")
                .project(", ".join(columns))
                .order("_incarnation, _end_lsn, _seq")
            )
            names = rows.columns
            for row in rows.fetchall():
                yield self._event(dict(zip(names, row, strict=True)), key)
        except (duckdb.DataError, duckdb.BinderException, duckdb.InvalidInputException):
            columns = [f"{c.name} {c.type}" for c in self.key]
            raise UsageError(
                f"that is no key of {self.state.label}, which is ({', '.join(columns)})",
                hint=f"find a row by any column: claimhouse history {self.state.name} column=value",
            ) from None

    def _event(self, row: dict[str, Any], key: dict[str, str]) -> dict[str, Any]:
        exact: dict[str, str] = row["_exact"] or {}
        missing = set((row["_missing"] or "").split(",")) - {""}
        event = {name: row[name] for name in _META}
        event["order"] = (row["_incarnation"], row["_end_lsn"], row["_seq"])
        event["values"] = {
            c.name: exact.get(c.physical, row[f"v{i}"])
            for i, c in enumerate(self.shape.columns)
            if c.physical not in missing
        }
        here = {c.name: exact.get(c.physical, row[f"k{i}"]) for i, c in enumerate(self.key)}
        olds = {c.name: exact.get(old_name(c.physical), row[f"o{i}"]) for i, c in enumerate(self.key)}
        before = {name: here[name] if olds[name] is None else olds[name] for name in here}
        event["key"] = here
        moved = row["_op"] == "u" and before != here
        left = moved and all(_same_key(before[n], key[n]) for n in key)
        event["moved_to"] = here if left else None
        event["came_from"] = before if moved and not left else None
        return event

    def _is(self, column: Column, text: str, physical: str) -> str:
        """Whether a log row's column holds that text."""
        value, exact = literal(text, column.kind)
        noted = f"_exact[{quote_text(physical)}]"
        if exact is not None:
            return f"{noted} = {quote_text(exact)}"
        shown = filled(column) if physical == column.physical else quote(physical)
        plain = f"{shown} = {value}"
        return f"({plain} AND {noted} IS NULL)" if may_be_exact(column.kind) else plain

    def _was(self, column: Column, text: str) -> str:
        """Whether an update's row had that text before."""
        name = old_name(column.physical)
        given = f"({quote(name)} IS NOT NULL OR _exact[{quote_text(name)}] IS NOT NULL)"
        return (
            f"CASE WHEN {given} THEN {self._is(column, text, name)} ELSE {self._is(column, text, column.physical)} END"
        )


def _alive(event: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is known of a key's values after an event, None where it has no row."""
    if event["_op"] in ("d", "t") or event["moved_to"]:
        return None
    return event["values"] if event["came_from"] else {**_kept(before, event), **event["values"]}


def _differs(held: dict[str, Any], alive: dict[str, Any]) -> bool:
    """Whether a copy found a row otherwise than the stream left it, by what the stream told."""
    return any(held[name] != value for name, value in alive.items() if name in held)


def _found_gone(copy: Copy, mark: Order) -> dict[str, Any]:
    """What it comes to where a later copy no longer has a row that the stream left alive."""
    absent = {"_xid": None, "_committed_at": None, "_cut": 0, "values": {}, "key": {}}
    return {"_op": "d", "_copy": copy.number, "moved_to": None, "came_from": None, **absent}


def _step(
    event: dict[str, Any], key: dict[str, str], before: dict[str, Any] | None
) -> tuple[Version | None, dict[str, Any] | None]:
    """(the version that an event makes, the values under this key after it)."""
    op = event["_op"]
    gone = op in ("d", "t")
    if gone and before is None:
        return None, None
    values = dict(before or {}) if gone else {**_kept(before, event), **event["values"]}
    changed = () if gone or before is None else tuple(n for n, v in values.items() if n in before and before[n] != v)
    version = Version(
        op=op,
        order=event["order"],
        committed_at=event["_committed_at"],
        xid=event["_xid"],
        cut=event["_cut"],
        key=key if gone else event["key"],
        values=values,
        changed=changed,
        moved_to=event["moved_to"],
    )
    return version, None if gone or event["moved_to"] else values


def _kept(before: dict[str, Any] | None, event: dict[str, Any]) -> dict[str, Any]:
    """Values that an update did not bring (unchanged and stored out of line): those of the version before."""
    return {n: v for n, v in (before or {}).items() if n not in event["values"]} if event["_op"] == "u" else {}


def _begun(events: list[dict[str, Any]]) -> int:
    """Where the last life under a key begins: a delete and a key change away end one, a key change to it begins one."""
    begun = 0
    for place, event in enumerate(events):
        if event["_op"] in ("d", "t") or event["moved_to"]:
            begun = place + 1
        elif event["came_from"]:
            begun = place
    return begun


def _same_key(a: str | None, b: str) -> bool:
    return a == b or (a is not None and a.strip() == b.strip())
