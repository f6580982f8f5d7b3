"""`figures` and `triangle` on a real lake."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from claimhouse.claims import prism
from claimhouse.cli.figures import figures, triangle
from claimhouse.errors import UsageError
from claimhouse.pipeline import Capture, CaptureOptions

pytestmark = pytest.mark.skipif(find_spec("chainladder") is None, reason="chainladder is not installed")
app = typer.Typer()
app.command()(figures)
app.command()(triangle)


def ask(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def lake(postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    prism.create(postgres.dsn)
    prism.replay(postgres.dsn, days=100_000, limit=400)
    location = str(tmp_path / "lake")
    Capture(CaptureOptions("main", postgres.dsn, location, once=True)).run()
    return location


def test_what_is_asked_for_in_vain_is_answered_with_what_there_is(lake: str) -> None:
    for given, said in ((["triangle", "payed"], "paid, incurred"), (["figures", "reserve_history"], "--claim")):
        with pytest.raises(UsageError) as refused:
            ask(*given, "--lake", lake, "--model", "prism" if given[0] == "triangle" else "demo")
        assert said in str(refused.value.hint)


@pytest.mark.filterwarnings("ignore::Warning")
def test_people_read_rounded_numbers_and_are_warned_of_an_open_diagonal(lake: str) -> None:
    shown = ask("triangle", "paid", "--reserve", "--lake", lake, "--valuation", "2017-06-30")
    assert "not complete at this valuation" in shown.stderr
    numbers = [word for word in shown.stdout.split() if "." in word]
    assert numbers and max(len(n.partition(".")[2]) for n in numbers) <= 4
    assert "not complete" not in ask("triangle", "--reserve", "--lake", lake, "--valuation", "2017-12-31").stderr


@pytest.mark.filterwarnings("ignore::Warning")
def test_what_there_is_and_what_it_comes_to(lake: str) -> None:
    listed = ask("figures", "--lake", lake, "--format", "json")
    states = {row["figure"]: row["state"] for row in json.loads(listed.stdout)}
    assert states["triangle_paid"] == "on"
    assert states["claim_incurred"] == "off: reserve_input: not in the model"
    assert "model prism" in listed.stderr

    paid = ask(
        "figures", "claim_paid", "--lake", lake, "--model", "prism", "--format", "csv", "--valuation", "2017-12-31"
    )
    assert len(paid.stdout.splitlines()) == 401 and paid.stderr == ""

    cells = json.loads(ask("triangle", "--lake", lake, "--format", "json", "--valuation", "2017-12-31").stdout)
    assert {"origin", "age", "value", "link_ratio"} <= set(cells[0])
    shown = ask("triangle", "--lake", lake, "--valuation", "2017-12-31", "--format", "markdown").stdout
    total = max(float(c["value"]) for c in cells)
    assert f"{total:.2f}" in shown and "| 120" in shown
    ratios = ask("triangle", "--ratios", "--lake", lake, "--valuation", "2017-12-31", "--format", "markdown").stdout
    assert any(c["link_ratio"] and f"{c['link_ratio']:.4f}" in ratios for c in cells)


def test_its_sql_is_shown_for_each_engine(lake: str) -> None:
    assert "$valuation" in ask("figures", "claim_paid", "--sql", "duckdb", "--lake", lake).stdout
    assert ":valuation" in ask("figures", "claim_paid", "--sql", "spark", "--lake", lake).stdout
    assert ":valuation" not in ask("figures", "claim_paid", "--sql", "trino", "--lake", lake).stdout


def test_what_cannot_be_asked_is_told(lake: str) -> None:
    for arguments, said in (
        (["figures", "profit"], "no figure profit"),
        (["figures", "claim_paid", "--claim", "3"], "no parameter claim"),
        (["figures", "claim_incurred"], "off: reserve_input"),
        (["triangle", "profit"], "no triangle of profit"),
        (["triangle", "--origin", "week"], "no period week"),
    ):
        with pytest.raises(UsageError, match=said):
            ask(*arguments, "--lake", lake)
