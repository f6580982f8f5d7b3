"""One DuckDB engine of a session: views under the names that queries use, and no file beyond theirs.

It is open while its views are made and locked from then on. Answers are read through cursors of their own, so several
can be read side by side. A view may be replaced by a faster one of the same rows. An engine costs more to make than a
small query to run, so one that nobody reads from any more serves a later moment, if that needs no other file.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping

import duckdb

from claimhouse.lake.defaults import duck_type
from claimhouse.lake.lake import Lake
from claimhouse.query import guard
from claimhouse.query.guard import Path
from claimhouse.query.versions import HistoryView, LogView
from claimhouse.query.views import NO_COLUMNS, View
from claimhouse.quoting import quote
from claimhouse.table import Table

Shown = View | HistoryView | LogView
_OURS = "claimhouse_internal_"  # begins the names of the schemas of what the views need, one each


class Engine:
    """`shown` are its views, by the paths that they answer to."""

    def __init__(self, lake: Lake, *, threads: int | None = None, memory: str | None = None) -> None:
        self.connection = guard.connect(threads=threads, memory=memory)
        self.shown: dict[Path, Shown] = {}
        self.locked = False
        self._uses: dict[Shown, int] = {}
        self._places: dict[Shown, str] = {}  # the schema of what each needs
        self._made = 0
        self._files: set[str] = set()
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        lake.store.attach(self.connection)

    def show(self, views: Mapping[Path, Shown], stubs: Mapping[Path, Table] | None = None) -> None:
        """Make a view under each path, and under those of `stubs` an empty one; then lock."""
        self.connection.execute("CREATE SCHEMA public; USE public")
        self._show(views)
        for path, table in (stubs or {}).items():
            columns = ", ".join(f"CAST(NULL AS {duck_type(c.kind)}) AS {quote(c.name)}" for c in table.columns)
            self._make(path, f"SELECT {columns or NO_COLUMNS} WHERE false")
        self._files = {file for view in set(views.values()) for file in view.files}
        guard.lock(self.connection, self._files)
        self.locked = True

    def renew(self, views: Mapping[Path, Shown]) -> bool:
        """Show these views instead of the ones here. False, with nothing done, if that takes an engine of its own.

        A view whose rows are the same stays. An answer that is still to be read keeps its engine as it is.
        """
        wanted = {file for view in set(views.values()) for file in view.files}
        if not self.locked or not views or self._cursors or not wanted <= self._files:
            return False
        shown = self.shown
        staying = {path: shown[path] for path, view in views.items() if path in shown and _same(view, shown[path])}
        for path in shown.keys() - staying.keys():
            self.connection.execute(f"DROP VIEW {_place(path)}")
            del shown[path]
        for view in self._places.keys() - set(staying.values()):
            self.connection.execute(f"DROP SCHEMA {self._places.pop(view)} CASCADE")
            self._uses.pop(view, None)
        self._show({path: view for path, view in views.items() if path not in staying})
        return True

    def _show(self, views: Mapping[Path, Shown]) -> None:
        made: dict[Shown, str] = {}
        for path, view in views.items():
            if view not in made:
                self._made += 1
                self._places[view] = place = f"{_OURS}{self._made}"
                self.connection.execute(f"CREATE SCHEMA {place}")
                made[view] = view.sql(self.connection, f"{place}.v")
            self._make(path, made[view])
            self.shown[path] = view

    def use(self, paths: Iterable[Path], *, selective: bool) -> None:
        """Get the views ready for a query: what is read whole, or again, is worth the search for places."""
        for view in {self.shown[path] for path in paths}:
            self._uses[view] = self._uses.get(view, 0) + 1
            if (not selective or self._uses[view] > 1) and (faster := view.by_place(self.connection)):
                for path in [p for p, v in self.shown.items() if v is view]:
                    self.connection.execute(f"CREATE OR REPLACE VIEW {_place(path)} AS {faster}")

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to this engine, for one answer."""
        cursor = self.connection.cursor()
        cursor.execute("USE public")
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        self.connection.close()

    def _make(self, path: Path, sql: str) -> None:
        for depth in range(1, len(path)):
            self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {'.'.join(map(quote, path[:depth]))}")
        self.connection.execute(f"CREATE VIEW {_place(path)} AS {sql}")


def _same(new: Shown, old: Shown) -> bool:
    """Whether two views show the same rows and columns, as far as can be told without a look at them."""
    return new.content is not None and new.content == old.content


def _place(path: Path) -> str:
    """Where a path's view lies: source.schema.table are schemas within each other."""
    return ".".join(map(quote, path if len(path) > 1 else ("public", *path)))
