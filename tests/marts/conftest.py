"""Books that figures are asked of: the demo book small, and chainladder's prism, both in DuckDB without PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from claimhouse.claims import prism
from claimhouse.claims.book import make_book


def connect(tables: Mapping[str, pa.Table]) -> duckdb.DuckDBPyConnection:
    """A connection in which these tables stand."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'America/New_York'")  # a session's zone must not matter
    for name, table in tables.items():
        connection.register("arrow_table", table)
        connection.execute(f"CREATE TABLE {name} AS FROM arrow_table")
        connection.unregister("arrow_table")
    return connection


@pytest.fixture(scope="session")
def demo_tables() -> dict[str, pa.Table]:
    return make_book(seed=5, scale=0.15).tables


@pytest.fixture(scope="session")
def demo(demo_tables: dict[str, pa.Table]) -> duckdb.DuckDBPyConnection:
    return connect(demo_tables)


@pytest.fixture(scope="session")
def prism_book() -> duckdb.DuckDBPyConnection:
    """prism as `claims/prism.py` leaves it in PostgreSQL after its last day."""
    if find_spec("chainladder") is None:
        pytest.skip("chainladder is not installed")
    rows = prism.rows()
    paid = [r for r in rows if r.paid]
    claim = pa.table(
        {
            "claim_no": [r.claim for r in rows],
            "line": [r.line for r in rows],
            "type": [r.type for r in rows],
            "accident_date": [r.accident for r in rows],
            "report_date": [r.report for r in rows],
            "close_date": [r.settle for r in rows],
            "status": ["CLOSED"] * len(rows),
        }
    )
    payment = pa.table(
        {
            "payment_id": [r.claim for r in paid],
            "claim_no": [r.claim for r in paid],
            "payment_date": [r.settle for r in paid],
            "amount": pa.array([r.paid for r in paid], pa.decimal128(20, 14)),
        }
    )
    return connect({"prism_claim": claim, "prism_payment": payment})


@pytest.fixture(scope="session")
def cl() -> Any:
    return pytest.importorskip("chainladder")


@pytest.fixture(scope="session")
def oracle(cl: Any) -> Callable[..., Any]:
    """chainladder's triangle of prism, incremental, by month (its sample `prism` summed over claims)."""
    import pandas as pd

    data = pd.read_csv(prism.data_file(), low_memory=False)
    columns = ["Paid", "reportedCount", "closedPaidCount"]

    def build(line: str | None = None) -> Any:
        rows = data if line is None else data[data["Line"] == line]
        dates = {"origin": "AccidentDate", "development": "PaymentDate"}
        return cl.Triangle(rows, **dates, columns=columns, cumulative=False)

    return build


@pytest.fixture(scope="session")
def paid_oracle(oracle: Callable[..., Any]) -> Any:
    return oracle()["Paid"]
