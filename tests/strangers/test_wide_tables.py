"""Tables with many columns, of every kind that can keep a value's exact text beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.strangers.test_odd_schemas import Lake

from claimhouse.lake.lake import open_lake
from claimhouse.lake.registry import TableState
from claimhouse.lake.snapshot import take
from claimhouse.lake.state import state_sql
from claimhouse.query.session import Session

KINDS = ("numeric(12,2)", "int[]", "timestamptz", "text", "date[]", "float8")


@pytest.mark.case("O3")
def test_a_table_of_many_columns_is_folded_read_and_verified(postgres: Any, tmp_path: Path) -> None:
    columns = ", ".join(f"c{n} {KINDS[n % len(KINDS)]}" for n in range(100))
    postgres.execute(f"CREATE TABLE wide (id int PRIMARY KEY, big text, {columns})")
    postgres.execute("ALTER TABLE wide ALTER big SET STORAGE EXTERNAL")
    postgres.execute("INSERT INTO wide (id, big, c1, c2) SELECT g, repeat('x', 3000), '{1}', 'infinity' FROM"
                     " generate_series(1, 9) g")  # fmt: skip
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    (state,) = take(open_lake(lake.location), "main").registry.tables.values()
    assert length(state, 24) < 3 * length(state, 12)  # it once doubled with each column, and took all memory
    postgres.execute("UPDATE wide SET c3 = 'later', c1 = '[0:1]={1,2}' WHERE id < 5")  # `big` does not come along
    postgres.execute("UPDATE wide SET c0 = 'NaN', id = id + 100 WHERE id < 3")
    lake.capture()
    later, plain = [(n, 3000, "later") for n in (101, 102)], [(n, 3000, None) for n in range(5, 10)]
    shown = lake.rows("SELECT id, length(big), c3 FROM wide WHERE id <> 3")
    assert shown == [(4, 3000, "later"), *plain, *later]
    with Session(open_lake(lake.location)) as session:
        versions = session.sql("SELECT id, length(big) AS n FROM wide__history").arrow().to_pylist()
    assert {v["n"] for v in versions} == {3000}
    assert lake.differences() == []


def length(state: TableState, columns: int) -> int:
    """How long the SQL of the state would be, had the table so many columns."""
    table = replace(state.table, columns=state.table.columns[:columns])
    return len(state_sql(replace(state, versions=[table]), log="log", copy=state.copies[0]))
