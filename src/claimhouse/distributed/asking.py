"""A reader's SQL on Trino, at now or at a past moment, in the names of the lake: `query --engine trino`.

The moment is resolved as in the embedded engine, over what Trino can see (`past.py`). A statement names tables as
there; each becomes a CTE in front of it: the present's view, or the SQL of the past state. Nothing is made in Glue.
One statement that reads the lake's tables is let through, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from claimhouse.distributed import answer
from claimhouse.distributed.mover import wire_type
from claimhouse.distributed.past import TrinoPast, past_sql
from claimhouse.distributed.registering import source_dsn
from claimhouse.distributed.topology import Secrets, Topology, s3_options
from claimhouse.distributed.trino import Page, Trino, TrinoError
from claimhouse.distributed.views import Behind, schema_name
from claimhouse.errors import LakeError, QueryError
from claimhouse.lake import delta
from claimhouse.lake.lake import changes_key, current_key, open_lake
from claimhouse.lake.registry import TableState
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.postgres.server import connect
from claimhouse.query.guard import without_values
from claimhouse.query.names import Names, TableName
from claimhouse.query.session import Session
from claimhouse.quoting import quote
from claimhouse.table import Column

_HINT = "one SELECT, WITH or VALUES over the lake's tables; nothing is ever written by a query"
_WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Command, exp.Into)
_FORGOT = {"TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "CATALOG_NOT_FOUND"}


class TrinoSession:
    """Read a stack's lake through its Trino. `folder` is the stack's, `url` another address of its Trino.

    `at` as in `query.moment`. Raises SettingsError, UsageError, NotExact, LakeError, TrinoError.
    """

    def __init__(self, folder: Path, *, at: str | None = None, zone: str = "UTC", url: str | None = None) -> None:
        self.folder, self.at = folder, at
        self.topology, self._keys = Topology.load(folder / "topology.json"), Secrets.load(folder / "secrets.json")
        self.trino = Trino(url or self.topology.url("trino"), catalog=self.topology.catalog)
        lake = open_lake(self.topology.lake, s3_options(self.topology, self._keys))
        self._pasts: list[TrinoPast] = []
        self._open = ExitStack()
        self._session = self._open.enter_context(
            Session(lake, at=at, sources=[self.topology.source], zone=zone, past=self._past)
        )
        self._wires: dict[int, int] = {}
        self._known: dict[str, set[str]] = {}  # database of Glue -> its tables
        self._source: Any = None

    @property
    def warnings(self) -> list[str]:
        """What a reader of the tables used so far must know."""
        return self._session.warnings

    def sql(self, text: str) -> pa.RecordBatchReader:
        """Run one reading statement; its answer in batches. Raises QueryError, NotExact, TrinoError."""
        return answer.reader(self._pages(self.written(text), text))

    def written(self, text: str) -> str:
        """The statement as Trino gets it."""
        return rewritten(text, self._session.names, self._relation)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> TrinoSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _past(self, snapshot: LakeSnapshot, connection: Any) -> TrinoPast:
        self._pasts.append(TrinoPast(snapshot, connection))
        return self._pasts[-1]

    def _pages(self, sql: str, text: str) -> Iterator[Page]:
        try:
            yield from self.trino.pages(sql)
        except TrinoError as error:
            raise _told(error, text) from None

    # --- tables

    def _relation(self, table: TableName) -> str:
        """The SELECT of a table at this session's moment, columns under the source's names."""
        state = self._session.reads(table)
        if self.at is None:
            schema, _, name = state.folder.partition("/")
            columns = ", ".join(f"{quote(c.physical)} AS {quote(c.name)}" for c in state.table.columns)
            view = f"{quote(self.topology.catalog)}.{quote(schema_name(table.source, schema))}.{quote(name)}"
            return f"SELECT {columns} FROM {view}"
        return past_sql(state, self._behind(table, state), self._session.positions[table.source])

    def _behind(self, table: TableName, state: TableState) -> Behind:
        (past,) = self._pasts
        record = past.snapshot.record
        if record is None:
            raise LakeError(f"nothing of source {table.source} is flushed yet", hint="claimhouse stack status")
        entry = record.table(state.folder)
        if entry.current is not None and not self._knows(table.source, state):
            entry = replace(entry, current=None)  # folded just now, and not yet told to Trino: the log does as well
        return Behind(
            self.topology.catalog,
            table.source,
            entry,
            self._columns(changes_key(table.source, state.folder), entry.changes),
            self._columns(current_key(table.source, state.folder), entry.current),
            record.cut,
            record.end_lsn,
            0,
            self._keys.placeholder,
            self._wire,
            record.incarnation,
            tail=past.tail,
        )

    def _knows(self, source: str, state: TableState) -> bool:
        """Whether Trino knows a table's `current`."""
        schema, _, name = state.folder.partition("/")
        database = schema_name(source, schema, "current")
        if database not in self._known:
            try:
                found = self.trino.run(f"SHOW TABLES FROM {quote(self.topology.catalog)}.{quote(database)}")
            except TrinoError as error:
                if error.kind not in _FORGOT:
                    raise
                found = []
            self._known[database] = {name for (name,) in found}
        return name in self._known[database]

    def _columns(self, key: str, version: int | None) -> frozenset[str]:
        table = delta.open_table(self._session.lake, key, version) if version is not None else None
        return frozenset(f.name for f in table.schema().fields) if table is not None else frozenset()

    def _wire(self, column: Column) -> int:
        """What Debezium takes a column for: the source's catalog knows; only rows of the tail ask."""
        if column.type_oid not in self._wires:
            if self._source is None:
                self._source = self._open.enter_context(connect(source_dsn(self.folder)))
            self._wires[column.type_oid] = wire_type(self._source, column.type_oid)
        return self._wires[column.type_oid]


def rewritten(text: str, names: Names, relation: Any) -> str:
    """A statement whose tables are CTEs in front of it; `relation` gives the SELECT of one. Raises QueryError."""
    tree = read(text)
    made: dict[TableName, str] = {}
    ctes: list[str] = []
    for table in list(tree.find_all(exp.Table)):
        path = tuple(part.name for part in table.parts if isinstance(part, exp.Identifier))
        if len(path) != len(table.parts) or not path:
            raise QueryError("table functions are not allowed: name the lake's tables", hint=_HINT)
        if len(path) == 1 and _is_cte(table, path[0]):
            continue
        if table.args.get("version"):
            raise QueryError(
                "FOR VERSION AS OF belongs to the tables behind, in Trino itself", hint="a past moment is --at MOMENT"
            )
        found = names.find(path)
        if found is None:
            raise names.unknown(path)
        if found not in made:
            made[found] = f"lake_{len(made)}"
            ctes.append(f"{made[found]} AS ({relation(found)})")
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        for part in ("db", "catalog"):
            table.set(part, None)
        table.set("this", exp.to_identifier(made[found]))
    sql = tree.sql("trino")
    if not ctes:
        return sql
    own = tree.args.get("with_")
    word = "WITH RECURSIVE " if own is not None and own.args.get("recursive") else "WITH "
    return f"{word}{', '.join(ctes)}{', ' + sql.removeprefix(word) if own is not None else ' ' + sql}"


def read(text: str) -> exp.Query:
    """The one reading statement in a text. Raises QueryError."""
    try:
        found = [tree for tree in sqlglot.parse(text, dialect="trino") if tree is not None]
    except SqlglotError as error:
        place = next(iter(getattr(error, "errors", ())), {})
        where = f" at line {place['line']}, column {place['col']}" if place.get("line") else ""
        raise QueryError(f"the statement cannot be read as Trino's SQL{where}", hint=_HINT) from None
    if len(found) != 1:
        raise QueryError(f"exactly one statement is allowed, not {len(found)}", hint=_HINT)
    tree = exp.select("*").from_(found[0]) if isinstance(found[0], exp.Values) else found[0]
    if not isinstance(tree, exp.Query) or tree.find(*_WRITES):
        raise QueryError("this statement is not allowed: the session is read-only", hint=_HINT)
    return tree


def _is_cte(table: exp.Table, name: str) -> bool:
    """Whether a bare name means a CTE that is visible where it stands."""
    inside: exp.Expr = table
    while inside.parent is not None:
        query = inside.parent
        clause = query.args.get("with_") if not isinstance(inside, exp.With) else None
        if isinstance(query, exp.With):
            recursive = bool(query.args.get("recursive"))
            for cte in query.expressions:
                if cte is inside and not recursive:
                    break
                if cte.alias.lower() == name.lower():
                    return True
                if cte is inside:
                    break
        elif clause is not None and any(cte.alias.lower() == name.lower() for cte in clause.expressions):
            return True
        inside = query
    return False


def _told(error: TrinoError, text: str) -> TrinoError | QueryError:
    """Trino's error in the words of the lake: without values, and without places in the text that only Trino saw."""
    if not error.kind:
        return error
    if error.kind in _FORGOT:
        return TrinoError("trino does not know the lake's tables", hint="claimhouse stack register", kind=error.kind)
    message = without_values(re.sub(r"^trino: \w+: (line \d+:\d+: )?", "", str(error)), text)
    return QueryError(f"trino: {message[:1].lower()}{message[1:]}", hint="the statement is Trino's SQL")
