"""Each page on a claims lake: what it says, in all three faces."""

from __future__ import annotations

import csv
import io
import random
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.testclient import TestClient
from tests.console.claimslake import FORMULA, IMAGE, ClaimsLake, hits_of
from tests.console.conftest import client_of
from tests.marts.test_follower import Claims
from tests.query.book import Book

from claimhouse.console.app import Console
from claimhouse.lake.lake import create
from claimhouse.query.session import Session

PAGES = (
    "/overview",
    "/claims",
    "/claims?q=motor&status=not+closed&order=loss",
    "/fraud",
    "/figures",
    "/figures?measure=incurred&line=motor",
    "/figures?measure=counts",
    "/figures/all",
    "/figures/loss_ratio",
    "/figures/cell?measure=paid&origin=2024-01-01&age=24&currency=USD",
    "/figures/cell?measure=counts&origin=2024-01-01&age=24",
    "/tables",
    "/tables/main/public/claim",
    "/tables/main/public/policy_version?q=renewal&column=reason",
)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def face(address: str, name: str) -> str:
    path, _, query = address.partition("?")
    return f"{path}.{name}" + (f"?{query}" if query else "")


@pytest.mark.parametrize("address", PAGES)
def test_a_page_is_html_json_and_csv(client: TestClient, address: str) -> None:
    html = client.get(address)
    assert html.status_code == 200, html.text
    assert html.headers["content-type"].startswith("text/html") and "<h1>" in html.text
    document = client.get(face(address, "json"))
    assert document.status_code == 200 and document.json()["title"]
    table = client.get(face(address, "csv"))
    assert table.status_code == 200 and table.headers["content-type"].startswith("text/csv")


def test_row_values_are_text_on_every_page(client: TestClient, claims_lake: ClaimsLake) -> None:
    for address in (
        "/overview",
        "/claims",
        f"/claims/{claims_lake.number}",
        "/fraud",
        "/tables/main/public/claim",
        f"/tables/main/public/claim/row?key.claim_id={claims_lake.claim_id}",
    ):
        text = client.get(address).text
        assert "<img" not in text and "&lt;img src=x" in text, address


def test_a_spreadsheet_runs_nothing_of_a_csv(client: TestClient, claims_lake: ClaimsLake) -> None:
    found = rows(client.get(f"/claims.csv?q={claims_lake.number}").text)
    assert [(r["claim_number"], r["cause"]) for r in found] == [(claims_lake.number, "'" + FORMULA)]


def test_a_file_says_what_it_is_as_of(client: TestClient, claims_lake: ClaimsLake) -> None:
    lsn = client.get(f"/claims/{claims_lake.number}.json").json()["versions"][2]["lsn"]
    answer = client.get(f"/claims.csv?at={lsn}")
    assert answer.headers["x-claimhouse-as-of"] == f"main={lsn}"
    assert f'filename="claims-main-{lsn.replace("/", "-")}.csv"' in answer.headers["content-disposition"]
    assert client.get(f"/claims.json?at={lsn}").json()["positions"] == {"main": lsn}


def test_a_claims_amounts_are_those_of_the_book(client: TestClient, claims_lake: ClaimsLake) -> None:
    found = rows(client.get("/claims.csv").text)
    with Session(claims_lake.lake) as session:
        expected = session.sql(
            "SELECT count(*), (SELECT sum(amount) FROM payment_line), (SELECT sum(amount) FROM reserve_txn) FROM claim"
        ).arrow()
    count, paid, outstanding = (c[0].as_py() for c in expected.columns)
    assert len(found) == count
    assert sum(Decimal(r["paid"]) for r in found) == paid
    assert sum(Decimal(r["outstanding"]) for r in found) == outstanding
    page = client.get(f"/claims/{found[5]['claim_number']}.json").json()
    assert Decimal(str(page["money"]["incurred"])) == Decimal(found[5]["incurred"])


def test_a_claims_history_has_every_version_with_its_changes(client: TestClient, claims_lake: ClaimsLake) -> None:
    document = client.get(f"/claims/{claims_lake.number}.json").json()
    changed = [[c["column"] for c in v["changes"]] for v in document["versions"]]
    assert changed == [["cause"], ["loss_place"], ["notes"], []]
    assert document["versions"][0]["changes"][0]["after"] == FORMULA
    text = client.get(f"/claims/{claims_lake.number}").text
    sections = ("summary", "headline", "activities", "details", "parties", "exposures", "money", "history")
    order = [text.index(f'id="{s}"') for s in sections]
    assert order == sorted(order)


def test_a_past_moment_shows_the_claim_as_it_was(client: TestClient, claims_lake: ClaimsLake) -> None:
    versions = client.get(f"/claims/{claims_lake.number}.json").json()["versions"]
    then = client.get(f"/claims/{claims_lake.number}.json?at={versions[2]['lsn']}").json()
    assert then["claim"]["notes"] == IMAGE and then["claim"]["loss_place"] != IMAGE
    html = client.get(f"/claims?at={versions[2]['lsn']}").text
    assert 'class="bar past"' in html and f"at={versions[2]['lsn'].replace('/', '%2F')}" in html


def test_a_position_typed_into_the_bar_becomes_the_pages_moment(client: TestClient, claims_lake: ClaimsLake) -> None:
    version = client.get(f"/claims/{claims_lake.number}.json").json()["versions"][2]
    asked = client.get(f"/claims?line=motor&at=2026-01-01&position=xid:{version['xid']}")
    assert asked.status_code == 303 and asked.headers["location"] == f"/claims?line=motor&at=xid%3A{version['xid']}"
    assert client.get(asked.headers["location"]).status_code == 200
    assert client.get("/claims?at=&position=").headers["location"] == "/claims"


def test_each_movement_of_money_leads_to_who_booked_it(client: TestClient, claims_lake: ClaimsLake) -> None:
    with Session(claims_lake.lake) as session:
        paid = "SELECT claim_number FROM claim JOIN payment USING (claim_id) ORDER BY claim_number LIMIT 1"
        number = session.sql(paid).arrow()[0][0].as_py()
    moves = client.get(f"/claims/{number}.json").json()["movements"]
    links = re.findall(
        r'href="(/tables/main/public/(?:reserve_txn|payment)/row[^"]+)"', client.get(f"/claims/{number}").text
    )
    assert len(links) == len(moves) and {m["kind"] for m in moves} == {"reserve", "payment"}
    for move, link in zip(reversed(moves), links, strict=True):
        assert link.endswith(f"/{move['place']}/row?key.{move['place']}_id={move['id']}")
    for link in (links[0], links[-1]):
        assert client.get(link.replace("/row?", "/row.json?")).json()["versions"][0]["lsn"]


def test_the_queue_is_narrowed_by_rule_and_state_and_keeps_its_filters(
    client: TestClient, claims_lake: ClaimsLake
) -> None:
    def claims(query: str) -> list[str]:
        return list(dict.fromkeys(row["claim"] for row in rows(client.get(f"/fraud.csv?{query}").text)))

    both = [claims_lake.number, "CLM-OTHER"]
    assert claims("rule=duplicate_invoice") == both and claims("rule=none") == []
    assert claims("rule=late_report") == claims("state=withdrawn") == both[:1]
    assert claims("rule=duplicate_invoice&band=medium") == both[1:]
    text = client.get("/fraud?rule=duplicate_invoice&state=withdrawn&order=newest").text
    assert "Invoice billed twice (2)" in text and "Reported late (0)" in text
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="/fraud\?([^"]+)"', text)]
    kept = {"rule": ["duplicate_invoice"], "state": ["withdrawn"], "order": ["newest"]}
    assert {**kept, "band": ["high"]} in [parse_qs(link) for link in links]


def test_the_newest_indicator_comes_first_if_so_asked(claims_lake: ClaimsLake) -> None:
    def queue(_: Session) -> list[dict[str, object]]:
        older, newer = hits_of(claims_lake.number)
        hit = {**newer["hits"][0], "first_held": "2026-01-07T10:00:00Z"}  # type: ignore[index]
        return [older, {**newer, "hits": [hit]}]

    client = client_of(Console(claims_lake.lake, queue=queue))
    first = [rows(client.get(f"/fraud.csv{order}").text)[0]["claim"] for order in ("", "?order=newest")]
    assert first == [claims_lake.number, "CLM-OTHER"]


def test_a_tables_page_names_each_columns_type(client: TestClient) -> None:
    text = client.get("/tables/main/public/payment").text
    assert 'amount<span class="dim type">numeric(14,2)</span>' in text


def test_the_slider_steps_through_the_transactions(client: TestClient, claims_lake: ClaimsLake) -> None:
    client.get("/claims")
    last = client.get("/moments?index=999999999").json()
    versions = client.get(f"/claims/{claims_lake.number}.json").json()["versions"]
    assert last["step"]["index"] == last["last"] and last["step"]["at"] == versions[0]["lsn"]
    before = client.get(f"/moments?index={last['last'] - 1}").json()["step"]
    assert before["at"] == versions[1]["lsn"] and before["xid"] == versions[1]["xid"]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/claims?at=0/1", 404),
        ("/claims?at=nonsense", 400),
        ("/claims/CLM-0", 404),
        ("/figures/nothing", 404),
        ("/figures/cell?origin=x", 400),
        ("/tables/main/public/nothing", 404),
        ("/tables/main/public/claim/row?key.claim_id=0", 404),
        ("/tables/main/public/claim/row?key.wrong=1", 400),
        ("/nothing", 404),
    ],
)
def test_what_cannot_be_shown_is_explained_within_the_page(client: TestClient, address: str, status: int) -> None:
    answer = client.get(address)
    assert answer.status_code == status and 'id="bar"' in answer.text and "Traceback" not in answer.text


def test_sql_in_a_search_is_only_text(client: TestClient) -> None:
    for address in (
        "/claims?q=' OR 1=1 --",
        "/claims?line=' OR '1'='1",
        "/tables/main/public/claim?q=%25'",
        "/claims?q={claim}",
    ):
        found = client.get(address)
        assert found.status_code == 200 and ("No claim matches" in found.text or "No row matches" in found.text)


def test_a_triangles_cell_leads_to_claims_that_sum_to_it(client: TestClient) -> None:
    text = client.get("/figures").text
    link = re.findall(r'href="(/figures/cell\?[^"]+)" title="([\d,.]+):', text)[3]
    document = client.get(face(link[0].replace("&amp;", "&"), "json")).json()
    assert f"{Decimal(str(document['total'])):,.2f}" == link[1]


def test_a_book_without_premiums_has_its_other_figures(tmp_path: Path) -> None:
    client = client_of(Console(Claims(tmp_path, random.Random(5)).book.lake))
    found = client.get("/figures.json").json()
    assert found["totals"] and found["triangles"] and found["ratios"] == []
    assert "this figure is off" in client.get("/figures").text


def test_claims_dated_in_years_that_cannot_be_are_counted_and_spoil_no_triangle(tmp_path: Path) -> None:
    claims = Claims(tmp_path, random.Random(5))
    console = Console(claims.book.lake)
    console.reader.fresh = 0.0
    client = client_of(console)
    before = client.get("/figures.json?measure=counts").json()
    assert before["left_out"] == 0 and "left out" not in client.get("/figures").text
    row = next(iter(claims.rows["claim"].values()))
    odd = [
        {**row, "claim_id": 101, "reported_at": datetime(9999, 12, 31, tzinfo=UTC)},
        {**row, "claim_id": 102, "loss_date": date(1, 1, 1)},
        {**row, "claim_id": 103, "loss_date": date(9999, 12, 31)},
    ]
    claims.book.commit(*(("c", claims.tables["claim"], r) for r in odd))
    claims.book.cut()
    after = client.get("/figures.json?measure=counts").json()
    assert (after["left_out"], after["valuation"]) == (3, before["valuation"])
    assert after["triangles"] == before["triangles"] and len(after["triangles"][0]["ages"]) == 1
    assert "3 claims left out" in client.get("/figures?measure=counts").text


def test_a_disposition_is_kept_in_the_lake_with_who_and_when(
    client: TestClient, claims_lake: ClaimsLake, console: Console
) -> None:
    made = client.post(
        f"/fraud/{claims_lake.number}/disposition",
        data={"verdict": "referred", "note": IMAGE, "score": "91.0", "lsn": "0/1", "back": "//evil.example"},
    )
    assert (made.status_code, made.headers["location"]) == (303, "/fraud")
    kept = console.dispositions.of(claims_lake.number)[0]
    assert (kept.verdict, kept.who, kept.note, kept.score) == ("referred", "an examiner", IMAGE, 91.0)
    text = client.get("/fraud?verdict=referred").text
    assert claims_lake.number in text and "CLM-OTHER" not in text and "an examiner" in text and "<img" not in text
    assert client.post(f"/fraud/{claims_lake.number}/disposition", data={"verdict": "guilty"}).status_code == 400
    again = Console(claims_lake.lake).dispositions.newest()
    assert again[claims_lake.number].verdict == "referred"


def test_before_any_rule_has_run_the_queue_says_so(claims_lake: ClaimsLake) -> None:
    text = client_of(Console(claims_lake.lake, queue=lambda session: None)).get("/fraud").text
    assert "No fraud rules have run" in text


def test_any_other_lake_is_shown_table_by_table(tmp_path: Path) -> None:
    book = Book(tmp_path / "lake")
    odd: Any = book.table("Odd; {name}", {"id": "int8", "a/b": "text"}, rows=[{"id": 1, "a/b": IMAGE}])
    book.cut()
    book.commit(("u", odd, {"id": 1, "a/b": "now"}))
    book.cut()
    client = client_of(Console(book.lake))
    assert "No claims book here" in client.get("/claims").text
    assert "No figures here" in client.get("/figures").text
    assert client.get("/overview").status_code == 200
    listed = client.get("/tables.json").json()["rows"]
    assert [(r["table"], r["rows"], r["status"]) for r in listed] == [("public.Odd; {name}", 1, "live")]
    path = re.findall(r'href="(/tables/main/[^"?]+)', client.get("/tables").text)[0]
    page = client.get(path)
    assert page.status_code == 200 and "now" in page.text
    history = re.findall(r'href="([^"]+/row\?[^"]+)"', page.text)[0].replace("&amp;", "&")
    assert "&lt;img" in client.get(history).text


def test_an_empty_lake_says_what_it_waits_for(tmp_path: Path) -> None:
    client = client_of(Console(create(tmp_path / "lake")))
    for address in ("/overview", "/claims", "/fraud", "/figures", "/tables"):
        assert client.get(address).status_code == 200, address
    assert "No table yet" in client.get("/tables").text
    assert "No cut yet" in client.get("/overview").text
