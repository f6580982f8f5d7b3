"""Figures of a lake: captured from PostgreSQL, now and at a past moment."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.marts.cells import cells, oracle_cells

from claimhouse.change import lsn_text
from claimhouse.claims import prism
from claimhouse.claims.loader import load as load_book
from claimhouse.errors import UsageError
from claimhouse.lake.lake import Lake, open_lake
from claimhouse.lake.snapshot import schema_of, take
from claimhouse.marts import ClaimMart, available, changed_claims, check, figure_names, figures, find, load
from claimhouse.marts.compose import parameters_of
from claimhouse.marts.model import parse
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.query.session import Session

THEN = date(2013, 12, 31)
# The claims' overwritten `paid`, version by version as the log has them, in the book's own days.
LOG_MODEL = """
[model]
name = "prism log"
[inputs]
amount_history_input = '''
SELECT v.claim_no AS claim_id, v.line, 'USD' AS currency, v.accident_date AS loss_date, v.paid, 0 AS outstanding,
    v.changed_on AS valid_from,
    LEAD(v.changed_on) OVER (PARTITION BY v.claim_no ORDER BY v._end_lsn, v._seq) AS valid_to
FROM prism_claim_versions AS v
'''
"""


def versions(lake: Lake) -> duckdb.DuckDBPyConnection:
    """The change log of prism_claim, flushed and not, as one table."""
    snapshot = take(lake, "main")
    folder = next(f for f in snapshot.registry.tables if f.endswith("prism_claim"))
    connection = duckdb.connect()
    files = [f.uri for f in snapshot.changes_files(folder)]
    connection.register("tail", snapshot.tail(folder) or schema_of(snapshot.registry.tables[folder]).empty_table())
    connection.execute(
        f"CREATE TABLE prism_claim_versions AS SELECT * FROM read_parquet({files}, union_by_name = true)"
        f" WHERE _cut <= {snapshot.flushed} UNION ALL BY NAME FROM tail"
    )
    return connection


@pytest.mark.filterwarnings("ignore::Warning")
def test_prism_replayed_through_the_lake_equals_chainladder_now_and_then(
    postgres: Any, tmp_path: Path, paid_oracle: Any
) -> None:
    model = load("prism")
    prism.create(postgres.dsn)
    asked = CaptureOptions("main", postgres.dsn, str(tmp_path / "lake"), once=True)
    Capture(asked).run()
    prism.replay(postgres.dsn, until=THEN, days=28)
    Capture(asked).run()
    lake = open_lake(asked.location)
    with Session(lake) as session:
        moment = lsn_text(session.positions["main"].lsn)
    prism.replay(postgres.dsn, after=THEN, days=28)
    Capture(asked).run()

    whole = paid_oracle.grain("OYDY").incr_to_cum()
    with Session(lake) as session:
        now = cells(figures(session, model, "triangle_paid", {"valuation": "2017-12-31"}))
        closed = figures(session, model, "claims_by_status").to_pylist()
    assert len(now) == 55 and now == pytest.approx(oracle_cells(whole), rel=1e-12)
    assert {r["status"] for r in closed} == {"CLOSED"} and sum(r["claims"] for r in closed) == 34_244
    from_log = cells(figures(versions(lake), parse(LOG_MODEL, "log.toml"), "triangle_log", {"valuation": "2017-12-31"}))
    assert len(from_log) == 55 and from_log == pytest.approx(oracle_cells(whole), rel=1e-12)
    with Session(lake, at=moment) as session:
        then = cells(figures(session, model, "triangle_paid", {"valuation": THEN}))
        late = cells(figures(session, model, "triangle_paid", {"valuation": "2017-12-31"}))
        opened = figures(session, model, "claims_by_status").to_pylist()
    assert len(then) == 21 and then == pytest.approx(oracle_cells(whole[whole.valuation < "2014"]), rel=1e-12)
    assert max(late.values()) == max(then.values())  # the book of that moment knows no later payment
    assert {r["status"] for r in opened} == {"CLOSED", "OPEN"}


def test_the_demo_book_in_a_lake_has_every_figure_and_its_mart_stays_fresh(postgres: Any, tmp_path: Path) -> None:
    load_book(postgres.dsn, scale=0.05, seed=3)
    paid = postgres.execute("SELECT min(claim_id)::text FROM payment")[0][0]
    asked = CaptureOptions("main", postgres.dsn, str(tmp_path / "lake"), once=True)
    Capture(asked).run()
    model, lake, mart = load("demo"), open_lake(asked.location), ClaimMart(load("demo"))
    with Session(lake) as session:
        check(session, model)
        off = [a.name for a in available(model, session) if not a.on]
        for name in figure_names():
            given = {"prior": "2024-12-31", "claim": paid, "valuation": "2025-12-31"}
            params = {key: value for key, value in given.items() if key in parameters_of(find(name))}
            assert name in off or figures(session, model, name, params).num_rows > 0
        mart.rebuild(session)
    line = postgres.execute("SELECT payment_id, line_no FROM payment_line LIMIT 1")[0]
    postgres.execute("UPDATE payment_line SET amount = amount + 5 WHERE payment_id = %s AND line_no = %s", line)
    Capture(asked).run()
    with Session(lake) as session:
        touched = changed_claims(session, model, {"payment_line": pa.table({"payment_id": [line[0]]})})
        assert len(touched) == 1 and mart.refresh(session, touched) == 1
        assert mart.table().equals(figures(session, model, "claim_money", {"valuation": "9999-12-31"}))


def test_a_model_of_tables_that_the_lake_does_not_hold_has_its_figures_off(postgres: Any, tmp_path: Path) -> None:
    prism.create(postgres.dsn)
    asked = CaptureOptions("main", postgres.dsn, str(tmp_path / "lake"), once=True)
    Capture(asked).run()
    with Session(open_lake(asked.location)) as session:
        assert not any(a.on for a in available(load("demo"), session))
        with pytest.raises(UsageError, match="off: claim_input: there is no table"):
            figures(session, load("demo"), "claims_by_status")
