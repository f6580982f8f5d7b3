"""The lake for Python programs: `claimhouse.open(location)`, its tables as Arrow, Polars, pandas or DuckDB.

A handle shows one cut of each source until `refresh` moves it to the newest, so that what a program reads step by step
fits together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from claimhouse.lake.lake import Lake, open_lake
from claimhouse.query.names import Path, written
from claimhouse.query.session import Answer, Session
from claimhouse.quoting import quote

if TYPE_CHECKING:
    import pandas
    import polars


def open(
    location: str | os.PathLike[str],
    *,
    at: str | None = None,
    sources: Iterable[str] | None = None,
    options: Mapping[str, str] | None = None,
    zone: str = "UTC",
) -> LakeHandle:
    """Open a lake for reading: a folder or `s3://bucket/prefix`.

    `at` is a past moment (an LSN, `xid:4711`, `cut:17`, ISO time, or a date in `zone`), `options` are the store's
    (endpoint, region, …). Raises NotALake, NewerLake, NotExact, UsageError.
    """
    return LakeHandle(
        open_lake(location, options), at=at, sources=None if sources is None else list(sources), zone=zone
    )


class LakeHandle:
    """A lake at one cut of each source. Use it in one thread at a time."""

    def __init__(
        self, lake: Lake, *, at: str | None = None, sources: list[str] | None = None, zone: str = "UTC"
    ) -> None:
        self.lake = lake
        self._how: dict[str, Any] = {"at": at, "sources": sources, "zone": zone}
        self._session = Session(lake, **self._how)

    def sql(self, text: str) -> Answer:
        """Run one reading statement. Raises QueryError, NotExact."""
        return self._session.sql(text)

    def table(self, name: str | tuple[str, ...]) -> TableHandle:
        """A table by its name (`claim`, `sales.Order`) or its parts. Raises QueryError where there is none."""
        return TableHandle(self, self._session.path(name))

    def tables(self) -> list[str]:
        """The visible tables, each by the shortest name that means it alone, as SQL writes it."""
        return [written(self._session.names.shortest(t)) for t in self._session.tables()]

    @property
    def cuts(self) -> dict[str, int]:
        """The number of the cut that each source is read at."""
        return {source: snapshot.mark.cut for source, snapshot in self._session.snapshots.items()}

    @property
    def positions(self) -> dict[str, str]:
        """The LSN that each source is read at."""
        return {source: str(position) for source, position in self._session.positions.items()}

    @property
    def warnings(self) -> list[str]:
        """What a reader of the tables used so far must know."""
        return self._session.warnings

    def refresh(self) -> LakeHandle:
        """Move to the newest cuts (a handle at a past moment stays there)."""
        fresh = self._session.renewed()
        self._session.close()
        self._session = fresh
        return self

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> LakeHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<claimhouse lake {self.lake.location} at {self.positions}>"


class TableHandle:
    """One table at its lake handle's moment, and after a refresh at the new one."""

    def __init__(self, lake: LakeHandle, path: Path) -> None:
        self._lake = lake
        self._from = ".".join(map(quote, path))
        self.name = written(path)

    def _all(self) -> Answer:
        return self._lake.sql(f"SELECT * FROM {self._from}")

    @property
    def columns(self) -> list[str]:
        """The source's column names, in its order."""
        return self._all().columns

    def count(self) -> int:
        return self._lake.sql(f"SELECT count(*) FROM {self._from}").arrow()[0][0].as_py()

    def arrow(self) -> pa.Table:
        return self._all().arrow()

    def reader(self, rows: int = 10_000) -> pa.RecordBatchReader:
        """The rows in batches, for tables larger than memory."""
        return self._all().reader(rows)

    def polars(self) -> polars.DataFrame:
        """Needs the extra `frames`."""
        return self._all().polars()

    def pandas(self) -> pandas.DataFrame:
        """With Arrow-backed columns, so that no value is rounded. Needs the extra `frames`."""
        return self._all().pandas()

    def duckdb(self) -> duckdb.DuckDBPyRelation:
        """A lazy relation: filter, join and aggregate on it before anything is read."""
        return self._all().relation

    def __repr__(self) -> str:
        return f"<claimhouse table {self.name}>"
