"""What Trino and Glue know of the lake: the tables behind, by location, and one view per source table.

Everything here may be done again at any time: a Glue that forgot (the stand-in does) is filled anew from the lake.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from claimhouse.change import old_name
from claimhouse.distributed.trino import Trino, TrinoError
from claimhouse.distributed.views import Behind, schema_name, view_sql
from claimhouse.fraud import hits
from claimhouse.lake import delta
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import FLUSHES, TRANSACTIONS, Lake, changes_key, current_key, tail_events_key
from claimhouse.lake.registry import Registry, TableState
from claimhouse.quoting import quote as _q
from claimhouse.table import Column

CONTROL = "control"
BESIDE = {"transactions": TRANSACTIONS, "flushes": FLUSHES, "fraud_hits": hits.KEY, "fraud_dispositions": hits.DECIDED}


@dataclass(slots=True)
class Catalog:
    """One lake in one Trino catalog. Raises TrinoError."""

    trino: Trino
    lake: Lake
    name: str
    source: str
    placeholder: str
    wire: Callable[[Column], int]
    _known: dict[str, str] = field(default_factory=dict)  # what was made -> its definition
    _shown: dict[str, str] = field(default_factory=dict)  # view -> what it was made from
    _log_columns: dict[str, frozenset[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def publish(self, record: FlushRecord, registry: Registry, floor: int) -> list[str]:
        """Bring tables and views up to a flush record; the names of the views made anew.

        `floor` is the lowest batch of the tail that holds something beyond the record.
        """
        with self._lock:
            self._table(self._database(CONTROL), "tail_events", tail_events_key(self.source))
            for name, key in BESIDE.items():
                if f"{self._database(CONTROL)}.{_q(name)}" in self._known or delta.open_table(self.lake, key) is None:
                    continue
                self._table(self._database(CONTROL), name, key)
            made: list[str] = []
            for state in registry.tables.values():
                try:
                    if self._view(state, record, floor):
                        made.append(state.label)
                except TrinoError:
                    self._known.clear()  # Glue may have forgotten: all of it is made again with the next record
                    raise
            return made

    def forget(self) -> None:
        """Glue was replaced: make everything again."""
        with self._lock:
            self._known.clear()

    def _view(self, state: TableState, record: FlushRecord, floor: int) -> bool:
        schema, _, table = state.folder.partition("/")
        entry = record.table(state.folder)
        label = f"{self._database(schema)}.{_q(table)}"
        shown = repr((entry, state.table, state.copies, state.status))
        if self._shown.get(label) == shown and label in self._known:
            return False  # the view of an older flush shows the same: nothing of this table moved since
        log, current = changes_key(self.source, state.folder), current_key(self.source, state.folder)
        logged = self._logged(log, entry.changes, state)
        folded = self._columns(current, entry.current)
        if logged is not None:
            self._table(self._database(schema, "log"), table, log)
        if folded is not None:
            self._table(self._database(schema, "current"), table, current)
        behind = Behind(
            self.name,
            self.source,
            entry,
            logged or (),
            folded or (),
            record.cut,
            record.end_lsn,
            floor,
            self.placeholder,
            self.wire,
            record.incarnation,
        )
        sql = view_sql(state, behind)
        if sql is None:
            return False
        self._make(label, "CREATE OR REPLACE VIEW {} AS " + sql)
        self._shown[label] = shown
        return True

    def _logged(self, key: str, version: int | None, state: TableState) -> frozenset[str] | None:
        """The log's columns. It only gains some, so what is known will do where it has all that the shape has."""
        columns = state.table.columns
        own = [c for c in columns if c.key or state.table.identity == "full"]
        known = self._log_columns.get(key)
        if known is None or not known >= {*(c.physical for c in columns), *(old_name(c.physical) for c in own)}:
            known = self._columns(key, version)
        if known is not None:
            self._log_columns[key] = known
        return known

    def _columns(self, key: str, version: int | None) -> frozenset[str] | None:
        table = delta.open_table(self.lake, key, version) if version is not None else None
        return frozenset(f.name for f in table.schema().fields) if table is not None else None

    def _database(self, schema: str, part: str = "") -> str:
        name = f"{_q(self.name)}.{_q(schema_name(self.source, schema, part))}"
        self._make(name, f"CREATE SCHEMA IF NOT EXISTS {{}} WITH (location = '{self.lake.location}/warehouse')")
        return name

    def _table(self, database: str, table: str, key: str) -> None:
        name = f"{database}.{_q(table)}"
        if name in self._known:
            return
        schema = database.rpartition(".")[2].strip('"')
        statement = (
            f"CALL {_q(self.name)}.system.register_table(schema_name => '{schema}', table_name => '{table}',"
            f" table_location => '{self.lake.store.uri(key)}')"
        )
        try:
            self.trino.run(statement)
        except TrinoError as error:
            if "already exists" not in str(error).lower():
                raise
        self._known[name] = statement

    def _make(self, name: str, statement: str) -> bool:
        if self._known.get(name) == statement:
            return False
        self.trino.run(statement.replace("{}", name, 1))
        self._known[name] = statement
        return True
