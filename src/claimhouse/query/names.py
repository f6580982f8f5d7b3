"""Which table a name in SQL means: bare in schema public, as schema.table, or as source.schema.table.

A name is first taken as it is spelled, then without regard to case, as DuckDB does. Where sources share a name, the
query must say which one it means. `claim__history` and `claim__log` are the versions and the changes of `claim`,
unless the source itself has a table of that name.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from claimhouse.errors import QueryError
from claimhouse.query.guard import Path, looks_like_file
from claimhouse.quoting import quote

HISTORY, LOG = "__history", "__log"
EXACT = "exact"  # no name in SQL means it
_CATALOGS = ("memory", "system", "temp")  # DuckDB's own


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table of the lake, spelled as its source spells it."""

    source: str
    schema: str
    name: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every way to write it, shortest first."""
        whole = (self.source, self.schema, self.name)
        if self.schema.lower() in _CATALOGS:  # as the first part it would mean the catalog
            return (whole,)
        short = (self.schema, self.name)
        return ((self.name,), short, whole) if self.schema == "public" else (short, whole)


@dataclass(frozen=True, slots=True)
class Relation:
    """What a name means: a table, or with a `suffix` (HISTORY, LOG, EXACT) what a session offers beside it."""

    table: TableName
    suffix: str = ""


class Names:
    """The names of a session's tables."""

    def __init__(self, tables: Iterable[TableName]) -> None:
        self.tables = sorted(tables)
        self._exact: dict[Path, list[TableName]] = {}
        self._folded: dict[Path, list[TableName]] = {}
        for table in self.tables:
            for path in table.paths:
                self._exact.setdefault(path, []).append(table)
                self._folded.setdefault(_fold(path), []).append(table)

    def find(self, path: Path) -> TableName | None:
        """The table that a path means, None if it means none. Raises QueryError where it means several."""
        found = self._exact.get(path) or self._folded.get(_fold(path)) or []
        if len(found) > 1:
            ways = " or ".join(written(t.paths[-1]) for t in found)
            raise QueryError(f"{written(path)} is in more than one source", hint=f"write {ways}")
        return found[0] if found else None

    def relation(self, path: Path) -> Relation | None:
        """What a path means, None if nothing. Raises QueryError where it is in several sources."""
        table = self.find(path)
        if table is not None:
            return Relation(table)
        for suffix in (HISTORY, LOG):
            if path[-1].lower().endswith(suffix) and (table := self.find((*path[:-1], path[-1][: -len(suffix)]))):
                return Relation(table, suffix)
        return None

    def spelled(self, path: Path, relation: Relation) -> Path:
        """That path in the source's own spelling, and one for both ways to write a table of schema public."""
        whole = next(p for p in relation.table.paths if len(p) == len(path))
        whole = whole[1:] if len(whole) == 2 and whole[0] == "public" else whole
        return (*whole[:-1], whole[-1] + relation.suffix)

    def shortest(self, table: TableName) -> Path:
        """The shortest path that means this table alone."""
        return next(p for p in table.paths if len(self._exact[p]) == 1)

    def unknown(self, path: Path) -> QueryError:
        """What to say of a path that means no table."""
        name = written(path)
        if len(path) == 1 and looks_like_file(path[0]):
            return QueryError(f"{name} is not a table: files are not readable in this session", hint=self._hint(path))
        return QueryError(f"table {name} does not exist in this lake", hint=self._hint(path))

    def _hint(self, path: Path) -> str:
        ways = {".".join(p): written(p) for t in self.tables for p in t.paths[:1]}
        for suffix in (HISTORY, LOG):  # only those: a history is not what a misspelt table means
            if "__" in path[-1]:
                ways |= {
                    ".".join(p) + suffix: written((*p[:-1], p[-1] + suffix)) for t in self.tables for p in t.paths[:1]
                }
        close = difflib.get_close_matches(".".join(path), ways, n=3)
        if close:
            return "did you mean " + " or ".join(ways[c] for c in close) + "?"
        return "SHOW ALL TABLES lists the lake's tables"


def written(path: Path) -> str:
    """A path as SQL: parts are quoted where they need it."""
    return ".".join(
        p if p.isascii() and p.islower() and p.isidentifier() and p not in _reserved() else quote(p) for p in path
    )


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """A column's name, with as many more underscores in front as it takes to be no other's."""
    others = {name.lower() for name in taken}
    while wanted.lower() in others:
        wanted = "_" + wanted
    return wanted


@functools.cache
def _reserved() -> frozenset[str]:
    """The words that are no name without quotes."""
    with duckdb.connect() as db:
        found = db.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
        return frozenset(word for (word,) in found.fetchall())


def _fold(path: Path) -> Path:
    return tuple(p.lower() for p in path)
