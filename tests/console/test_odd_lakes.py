"""The console on lakes that nobody here has made: odd names, no claims book, malformed requests, a lake that goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.console.claimslake import TOKEN
from tests.query.book import Book

from claimhouse.console.app import Console, create_app
from claimhouse.console.guard import Access
from claimhouse.fraud.disposition import Dispositions


@pytest.fixture
def book(tmp_path: Path) -> Book:
    made = Book(tmp_path / "lake")
    row = {"id": 1, "note": "<b>", "raw": b"\x01\xff", "rate": float("nan")}
    made.table("t", {"id": "int8", "note": "text", "raw": "bytes", "rate": "float8"}, rows=[row])
    made.table("no columns", {}, key=(), identity="none")
    made.cut()
    return made


@pytest.fixture
def client(book: Book) -> Iterator[TestClient]:
    console = Console(book.lake, user="an examiner")
    console.reader.fresh = 0.0
    app = create_app(console, Access(token=TOKEN))
    made = TestClient(app, base_url="http://localhost", follow_redirects=False)
    made.headers["Authorization"] = f"Bearer {TOKEN}"
    yield made
    console.stop()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tables/main/public/_xff_", 404),
        ("/tables/main/_xc3_/t", 404),
        ("/tables/main/public/no_x20_columns?q=x", 200),
        ("/tables/main/public/t?page=-1&q=%27%25&column=none", 200),
        ("/tables/main/public/t?page=99999999999999999999", 200),
        ("/claims/2026/00012", 404),
        ("/claims/2026/00012.json", 404),
        ("/overview?at=2026-W01", 400),
    ],
)
def test_an_odd_address_is_answered_by_a_page(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith(("text/html", "application/json"))


def test_a_rows_bytes_and_special_numbers_are_shown_as_queries_show_them(client: TestClient) -> None:
    (version,) = client.get("/tables/main/public/t/row.json?key.id=1").json()["versions"]
    assert version["values"] == {"id": "1", "note": "<b>", "raw": "\\x01ff", "rate": "NaN"}


def test_a_malformed_post_is_refused_and_a_claim_number_may_hold_a_slash(client: TestClient, book: Book) -> None:
    post = "/fraud/2026/00012/disposition"
    assert client.post(post, content=b"verdict=open", headers={"Origin": "http://["}).status_code == 403
    assert client.post(post, content=b"a=1&" * 30).status_code == 400
    for score, kept in (("37.5", 37.5), ("\u00b2", None), ("nan", None), ("1e999", None)):
        assert client.post(post, data={"verdict": "open", "score": score}).status_code == 303
        made = Dispositions(book.lake).of("2026/00012")[0]
        assert (made.claim, made.score) == ("2026/00012", kept)


def test_a_lake_that_vanishes_is_told_and_shown_again_when_it_is_back(client: TestClient, book: Book) -> None:
    place = Path(book.lake.location)
    assert client.get("/tables").status_code == 200
    shutil.move(place, place.with_name("away"))
    answer = client.get("/tables")
    assert answer.status_code == 503
    assert "no longer at" in answer.text
    shutil.move(place.with_name("away"), place)
    assert client.get("/tables").status_code == 200
