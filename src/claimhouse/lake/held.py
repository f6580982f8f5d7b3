"""What the lake holds of one table in one view of it: its live rows, as an SQL relation that DuckDB computes."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.errors import LakeError
from claimhouse.lake import delta
from claimhouse.lake.lake import TRANSACTIONS
from claimhouse.lake.registry import TableState
from claimhouse.lake.relation import files_sql
from claimhouse.lake.snapshot import LakeSnapshot, schema_of
from claimhouse.lake.state import may_be_exact, seen, state_sql
from claimhouse.quoting import quote, quote_text
from claimhouse.table import Column


class Held:
    """A table's rows in the lake, as one snapshot of PostgreSQL (its text `sees`; None: the newest cut) sees them.

    `sql` is a SELECT of `state_columns`, to be run in `db`, a DuckDB connection that reads the lake's files. Raises
    LakeError where the table is not visible.
    """

    def __init__(
        self, db: duckdb.DuckDBPyConnection, snapshot: LakeSnapshot, state: TableState, sees: str | None = None
    ) -> None:
        self.db, self.snapshot, self.state, self.sees = db, snapshot, state, sees
        copy = state.copy_at(snapshot.mark.end_lsn)
        if copy is None:
            raise LakeError(f"table {state.label} is not visible in the lake")
        record = snapshot.record.table(state.folder) if snapshot.record else None
        self._has_base = bool(record and record.current is not None and record.current_copy == copy.number)
        self._after = record.current_cut if record and self._has_base else 0  # an empty `current` counts, too
        schema = schema_of(state)
        log = [f.uri for f in snapshot.changes_files(state.folder, cut_from=self._after + 1)]
        db.register("tail", snapshot.tail(state.folder) or schema.empty_table())
        where = f"_cut > {self._after}"
        db.execute(f"CREATE OR REPLACE VIEW log AS {files_sql(log, schema, where)} UNION ALL BY NAME FROM tail")
        if self._has_base:
            base = [f.uri for f in snapshot.current_files(state.folder)]
            db.execute(f"CREATE OR REPLACE VIEW base AS {files_sql(base, schema)}")
        self.sql = state_sql(state, log="log", copy=copy, base="base" if self._has_base else None, seen_by=sees)

    def ahead(self) -> bool:
        """Whether `current` may hold a transaction that the snapshot of PostgreSQL does not see."""
        record = self.snapshot.record
        if self.sees is None or not self._has_base or record is None:
            return False
        files = delta.files(self.snapshot.lake, TRANSACTIONS, record.transactions)
        if not files:
            return False
        listed = ", ".join(quote_text(f.uri) for f in files)
        found = self.db.execute(
            f"SELECT 1 FROM (SELECT xid AS _xid FROM read_parquet([{listed}])"
            f" WHERE source = {quote_text(self.snapshot.source)} AND cut <= {self._after})"
            f" WHERE NOT {seen(self.sees)} LIMIT 1"
        ).fetchall()
        return bool(found)

    def of_keys(self, key: Sequence[Column], wanted: pa.Table) -> str:
        """A SELECT of those rows of `sql` whose key is among `wanted`: k0, k1, … and x0, …, their parts of `_exact`."""
        match: list[str] = []
        for i, column in enumerate(key):
            match.append(f"s.{quote(column.physical)} IS NOT DISTINCT FROM w.k{i}")
            if may_be_exact(column.kind):
                exact = f"coalesce(s._exact[{quote_text(column.physical)}], '')"
                match.append(f"{exact} = coalesce(w.x{i}, '')")
        self.db.register("wanted", wanted)
        return f"SELECT s.* FROM ({self.sql}) s SEMI JOIN wanted w ON {' AND '.join(match)}"


def aligned(ours: list[pa.Array], theirs: list[pa.Array]) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
    """(places in ours, places in theirs) of rows with the same key, places only in ours, places only in theirs.

    A key is a text per column; each side has an array per column.
    """
    names = [f"k{i}" for i in range(len(ours))]
    with duckdb.connect() as db:
        for name, keys in (("ours", ours), ("theirs", theirs)):
            places = pa.array(np.arange(len(keys[0])))
            db.register(name, pa.Table.from_arrays([*keys, places], names=[*names, "place"]))
        match = " AND ".join(f"o.{n} = t.{n}" for n in names)
        pairs = (
            db.sql(f"SELECT o.place AS a, t.place AS b FROM ours o FULL JOIN theirs t ON {match}")
            .to_arrow_table()
            .combine_chunks()
        )
    a, b = pairs.column("a").combine_chunks(), pairs.column("b").combine_chunks()
    both = pc.and_(a.is_valid(), b.is_valid())
    return a.filter(both), b.filter(both), a.filter(b.is_null()), b.filter(a.is_null())
