"""Provisioning against what Metabase's published interface accepts: made once, then left alone or put right."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import sqlglot
from sqlglot import exp
from tests.distributed.metabase_contract import State, metabase

from claimhouse.distributed import dashboards
from claimhouse.distributed import metabase as provisioning
from claimhouse.distributed.dashboards import CARDS, COLUMNS, DASHBOARDS, sql_of, variables_of, without_values
from claimhouse.distributed.metabase import Api, MetabaseError, Provisioned, Trino, admin_password, provision
from claimhouse.distributed.topology import Secrets

PASSWORD = "a-password-with-1-digit"
TRINO = Trino("trino", 8080)


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def url(state: State) -> Iterator[str]:
    with metabase(state) as address:
        yield address


def run(url: str, trino: Trino = TRINO, password: str = PASSWORD) -> Provisioned:
    return provision(url, trino, password, within=5)


def entered(url: str) -> Api:
    api = Api(url)
    api.await_ready(5)
    api.enter(provisioning.EMAIL, PASSWORD)
    return api


def test_a_new_metabase_gets_admin_database_questions_and_dashboards(url: str, state: State) -> None:
    state.starting = 2
    done = run(url)
    assert state.admin is not None and state.admin["email"] == provisioning.EMAIL
    (database,) = state.databases.values()
    assert (database["engine"], database["details"]["schema"]) == ("starburst", "main__public")
    assert {c["name"] for c in state.cards.values()} == {c.name for c in CARDS}
    assert {b["name"] for b in state.boards.values()} == {b.name for b in DASHBOARDS} == set(done.dashboards)
    assert sum(len(b["dashcards"]) for b in state.boards.values()) == len(CARDS)
    (collection,) = state.collections
    assert {t["collection_id"] for t in (*state.cards.values(), *state.boards.values())} == {collection}
    assert +done.did == {"made": 3 + len(CARDS) + len(DASHBOARDS)}


def test_a_second_run_changes_nothing(url: str, state: State) -> None:
    run(url)
    before = copy.deepcopy(state.things())
    state.asked.clear()
    done = run(url)
    assert done.unchanged and state.things() == before
    assert [a for a in state.asked if a[0] != "GET"] == [("POST", "/api/session")]


def test_a_renamed_or_changed_question_is_put_right_under_its_number(url: str, state: State) -> None:
    run(url)
    one, two, *_ = state.cards.values()
    before = copy.deepcopy(state.things())
    entered(url).ask("PUT", f"/api/card/{one['id']}", {"name": "Renamed by somebody"})
    entered(url).ask("PUT", f"/api/card/{two['id']}", {"display": "pie"})
    done = run(url)
    assert done.did["changed"] == 2 and done.did["made"] == 0
    assert state.things() == before


def test_a_question_that_got_another_name_is_changed_not_made_twice(
    url: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(url)
    numbers = set(state.cards)
    renamed = tuple(replace(c, name="Incurred and paid") if c.key == "totals" else c for c in CARDS)
    monkeypatch.setattr(provisioning, "CARDS", renamed)
    assert run(url).did["changed"] == 1 and set(state.cards) == numbers
    assert sum(c["name"] == "Incurred and paid" for c in state.cards.values()) == 1


def test_what_is_no_longer_listed_is_archived_and_what_others_made_is_not_touched(url: str, state: State) -> None:
    run(url)
    api = entered(url)
    some = next(iter(state.cards.values()))
    told = ("display", "collection_id", "dataset_query", "visualization_settings")
    old = {**{k: some[k] for k in told}, "name": "Old", "description": "[claimhouse:of_an_older_version]"}
    api.ask("POST", "/api/card", old)
    theirs = api.ask("POST", "/api/card", {**old, "name": "Theirs", "description": None})
    assert run(url).did["archived"] == 1
    assert {c["name"] for c in state.cards.values() if c["archived"]} == {"Old"}
    assert state.cards[theirs["id"]] == theirs
    assert run(url).unchanged


def test_a_dashboard_keeps_the_numbers_of_its_cards_when_one_was_moved(url: str, state: State) -> None:
    run(url)
    board = next(iter(state.boards.values()))
    numbers = [d["id"] for d in board["dashcards"]]
    board["dashcards"][0]["row"] += 3
    assert run(url).did["changed"] == 1
    assert [d["id"] for d in board["dashcards"]] == numbers and run(url).unchanged


def test_another_address_of_trino_changes_the_database_alone(url: str, state: State) -> None:
    run(url)
    assert run(url, Trino("10.0.0.7", 8443)).did["changed"] == 1
    (database,) = state.databases.values()
    assert (database["details"]["host"], database["details"]["port"]) == ("10.0.0.7", 8443)


def test_an_old_metabase_is_refused_before_anything_is_made(url: str, state: State) -> None:
    state.version = "v0.53.9"
    with pytest.raises(MetabaseError, match=r"v0\.53\.9 has no driver for Trino") as caught:
        run(url)
    assert "54 or newer" in str(caught.value.hint) and state.admin is None


def test_nobody_there_and_something_else_there_are_told() -> None:
    with pytest.raises(MetabaseError, match="not ready after 0 s: metabase is not reachable") as caught:
        provision("http://127.0.0.1:9", TRINO, PASSWORD, within=0.2)
    assert "docker compose" in str(caught.value.hint)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(MetabaseError, match="is not metabase"):
            provision(f"http://127.0.0.1:{server.server_address[1]}", TRINO, PASSWORD, within=0.2)
    finally:
        server.shutdown()
        server.server_close()


def test_a_password_that_is_not_the_admins_is_told_without_being_repeated(url: str) -> None:
    run(url)
    with pytest.raises(MetabaseError, match=r"does not let admin@claimhouse\.local in") as caught:
        run(url, password="another-1")
    assert "another-1" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("POST", "/api/card", {"name": "x"}, "400"),
        ("POST", "/api/dashboard", {"name": "x", "colour": "red"}, "400.*: colour"),
        ("POST", "/api/collection", {"name": 7}, "400.*: name"),
        ("GET", "/api/cards", None, "404"),
        ("GET", "/api/card?limit=7", None, "400.*: limit"),
    ],
)
def test_the_contract_refuses_what_metabase_would(url: str, method: str, path: str, body: object, told: str) -> None:
    run(url)
    with pytest.raises(MetabaseError, match=told):
        entered(url).ask(method, path, body)  # type: ignore[arg-type]
    with pytest.raises(MetabaseError, match="401"):
        Api(url).ask("GET", "/api/card")


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.key)
def test_a_questions_sql_is_trinos_with_and_without_values(card: dashboards.Card) -> None:
    sql = sql_of(card, "main", "claimhouse")
    assert set(variables_of(sql)) <= {"valuation", "line"}
    filled = sql.replace("[[", "").replace("]]", "").replace("{{valuation}}", "DATE '2026-01-31'")
    for text in (without_values(sql), filled.replace("{{line}}", "'motor'")):
        tree = sqlglot.parse_one(text, read="trino")
        named = {t for t in tree.find_all(exp.Table) if t.db}
        assert named and {(t.catalog, t.db) for t in named} <= {
            ("claimhouse", "main__public"), ("claimhouse", "main__public__log"), ("claimhouse", "main__control"),
        }  # fmt: skip
        assert not {c.alias for c in tree.find_all(exp.CTE)} & {t.name for t in named}


def test_every_question_stands_once_and_within_the_grid() -> None:
    places = [(board, place) for board in DASHBOARDS for place in board.places]
    assert sorted(p.card for _, p in places) == sorted(c.key for c in CARDS)
    for board, place in places:
        assert place.col + place.wide <= COLUMNS
        for other in board.places:
            apart = (
                other is place or place.col + place.wide <= other.col or other.col + other.wide <= place.col
                or place.row + place.high <= other.row or other.row + other.high <= place.row
            )  # fmt: skip
            assert apart, (place, other)


def test_the_admins_password_has_a_digit() -> None:
    assert admin_password(Secrets(metabase="abc")) == "abc7" and admin_password(Secrets(metabase="a1")) == "a1"
