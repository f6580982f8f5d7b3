"""One DuckDB engine of a session: views under the names that queries use, and no file beyond theirs.

It is open while its views are made and locked from then on. Answers are read through cursors of their own, so several
can be read side by side. A view may be replaced by a faster one of the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from claimhouse.lake.defaults import duck_type
from claimhouse.lake.lake import Lake
from claimhouse.query import guard
from claimhouse.query.guard import quote
from claimhouse.query.versions import HistoryView, LogView
from claimhouse.query.views import NO_COLUMNS, View
from claimhouse.table import Table

Path = tuple[str, ...]
Shown = View | HistoryView | LogView
_OURS = "claimhouse_internal"  # the schema of what the views need


class Engine:
    """`shown` are its views, by the paths that they answer to."""

    def __init__(self, lake: Lake, *, threads: int | None = None, memory: str | None = None) -> None:
        self.connection = guard.connect(threads=threads, memory=memory)
        self.shown: dict[Path, Shown] = {}
        self.locked = False
        self._uses: dict[Shown, int] = {}
        lake.store.attach(self.connection)

    def show(self, views: Mapping[Path, Shown], stubs: Mapping[Path, Table] | None = None) -> None:
        """Make a view under each path, and under those of `stubs` an empty one; then lock."""
        self.connection.execute(f"CREATE SCHEMA {_OURS}; CREATE SCHEMA public; USE public")
        made: dict[Shown, str] = {}
        for path, view in views.items():
            if view not in made:
                made[view] = view.sql(self.connection, f"{_OURS}.v{len(made)}")
            self._make(path, made[view])
        for path, table in (stubs or {}).items():
            columns = ", ".join(f"CAST(NULL AS {duck_type(c.kind)}) AS {quote(c.name)}" for c in table.columns)
            self._make(path, f"SELECT {columns or NO_COLUMNS} WHERE false")
        self.shown.update(views)
        guard.lock(self.connection, {file for view in made for file in view.files})
        self.locked = True

    def use(self, views: set[Shown], *, selective: bool) -> None:
        """Get the views ready for a query: what is read whole, or again, is worth the search for places."""
        for view in views:
            self._uses[view] = self._uses.get(view, 0) + 1
            if (not selective or self._uses[view] > 1) and (faster := view.by_place(self.connection)):
                for path in [p for p, v in self.shown.items() if v is view]:
                    self.connection.execute(f"CREATE OR REPLACE VIEW {_place(path)} AS {faster}")

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to this engine, for one answer."""
        cursor = self.connection.cursor()
        cursor.execute("USE public")
        return cursor

    def close(self) -> None:
        self.connection.close()

    def _make(self, path: Path, sql: str) -> None:
        for depth in range(1, len(path)):
            self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {'.'.join(map(quote, path[:depth]))}")
        self.connection.execute(f"CREATE VIEW {_place(path)} AS {sql}")


def _place(path: Path) -> str:
    """Where a path's view lies: source.schema.table are schemas within each other."""
    return ".".join(map(quote, path if len(path) > 1 else ("public", *path)))
