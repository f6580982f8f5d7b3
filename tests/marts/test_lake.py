"""Figures of a lake: captured from PostgreSQL, now and at a past moment."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.marts.cells import cells, oracle_cells

from claimhouse.change import lsn_text
from claimhouse.claims import prism
from claimhouse.claims.loader import load as load_book
from claimhouse.errors import NotExact, UsageError
from claimhouse.lake.lake import open_lake
from claimhouse.marts import ClaimMart, available, changed_claims, check, figure_names, figures, find, load
from claimhouse.marts.compose import parameters_of
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.query.session import Session

THEN = date(2013, 12, 31)


def ask(session: Session, name: str, valuation: str = "2025-12-31") -> dict[tuple[Any, ...], Any]:
    """Cells of a triangle of the demo book."""
    rows = figures(session, load("demo"), name, {"valuation": valuation}).to_pylist()
    return {(r["measure"], r["origin"], r["age"]): r["value"] for r in rows}


def _latest(cells: dict[tuple[Any, ...], Any]) -> dict[Any, Any]:
    """The last diagonal by origin."""
    return {origin: value for (_, origin, _), value in sorted(cells.items())}


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
        check(session, model)
        now = cells(figures(session, model, "triangle_paid", {"valuation": "2017-12-31"}))
        said = cells(figures(session, model, "triangle_log", {"valuation": "2017-12-31"}))
        closed = figures(session, model, "claims_by_status").to_pylist()
    assert len(now) == 55 and now == pytest.approx(oracle_cells(whole), rel=1e-12)
    assert {r["status"] for r in closed} == {"CLOSED"} and sum(r["claims"] for r in closed) == 34_244
    assert len(said) == 55 and said == pytest.approx(oracle_cells(whole), rel=1e-12)
    with Session(lake, at=moment) as session:
        said = cells(figures(session, model, "triangle_log", {"valuation": THEN}))
        then = cells(figures(session, model, "triangle_paid", {"valuation": THEN}))
        late = cells(figures(session, model, "triangle_paid", {"valuation": "2017-12-31"}))
        opened = figures(session, model, "claims_by_status").to_pylist()
    assert said == then
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
        assert all(a.on for a in available(model, session))
        for name in figure_names():
            given = {"prior": "2024-12-31", "claim": paid, "valuation": "2025-12-31"}
            params = {key: value for key, value in given.items() if key in parameters_of(find(name))}
            assert figures(session, model, name, params).num_rows > 0, name
        before = [ask(session, name) for name in ("triangle_paid", "triangle_incurred", "triangle_log")]
        assert before[2] == {**before[0], **before[1]}
        mart.rebuild(session)
    line = postgres.execute("SELECT payment_id, line_no FROM payment_line LIMIT 1")[0]
    postgres.execute("UPDATE payment_line SET amount = amount + 5 WHERE payment_id = %s AND line_no = %s", line)
    Capture(asked).run()
    with Session(lake) as session:
        touched = changed_claims(session, model, {"payment_line": pa.table({"payment_id": [line[0]]})})
        assert len(touched) == 1 and mart.refresh(session, touched) == 1
        assert mart.table().equals(figures(session, model, "claim_money", {"valuation": "9999-12-31"}))
        now = date.today().isoformat()
        paid_now, seen_now = ask(session, "triangle_paid", now), ask(session, "triangle_log", now)
    moved = {place: value - before[0].get(place, value) for place, value in paid_now.items()}
    # the table as it is now says that it was always so; the log says that it was not, and when it became so
    assert set(moved.values()) == {0, 5}
    assert {p: v for p, v in seen_now.items() if p in before[2]} == before[2]
    assert _latest(paid_now) == _latest({p: v for p, v in seen_now.items() if p[0] == "paid"})


def test_a_moment_before_the_tables_were_known_has_their_figures_off_and_says_since_when(
    postgres: Any, tmp_path: Path
) -> None:
    asked = CaptureOptions("main", postgres.dsn, str(tmp_path / "lake"), once=True)
    postgres.execute("CREATE TABLE other (id int PRIMARY KEY)")
    Capture(asked).run()
    lake = open_lake(asked.location)
    with Session(lake) as session:
        before = lsn_text(session.positions["main"].lsn)
    prism.create(postgres.dsn)
    Capture(asked).run()
    with Session(lake) as session:
        assert figures(session, load("prism"), "claims_by_status").num_rows == 0
    with Session(lake, at=before) as session:
        state = {a.name: a for a in available(load("prism"), session)}["claims_by_status"]
        assert "prism_claim is not known at" in state.missing[0]
        with pytest.raises(NotExact, match="prism_claim is not known at"):
            figures(session, load("prism"), "claims_by_status")


def test_a_model_of_tables_that_the_lake_does_not_hold_has_its_figures_off(postgres: Any, tmp_path: Path) -> None:
    prism.create(postgres.dsn)
    asked = CaptureOptions("main", postgres.dsn, str(tmp_path / "lake"), once=True)
    Capture(asked).run()
    with Session(open_lake(asked.location)) as session:
        assert not any(a.on for a in available(load("demo"), session))
        with pytest.raises(UsageError, match="off: claim_input: there is no table"):
            figures(session, load("demo"), "claims_by_status")
