"""Who may talk to the console, and what every answer says to the browser."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tests.console.claimslake import TOKEN

from claimhouse.console.guard import POLICY, Access, Guard
from claimhouse.console.server import listen
from claimhouse.errors import UsageError


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/{rest:path}", lambda r: PlainTextResponse("page"), methods=["GET", "POST"])])
    guarded = Guard(app, Access(token=TOKEN, port=8123))
    return TestClient(guarded, base_url="http://localhost:8123", follow_redirects=False)


def test_without_the_token_nothing_is_shown(client: TestClient) -> None:
    assert client.get("/claims").status_code == 401
    assert client.get("/claims?token=wrong").status_code == 401
    assert client.get("/claims", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/claims", headers={"Cookie": f"claimhouse_8123={TOKEN}"}).status_code == 401


def test_the_token_is_traded_for_a_cookie_and_leaves_the_address(client: TestClient) -> None:
    answer = client.get(f"/claims?q=a&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/claims?q=a")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
    assert client.get("/claims").text == "page"


def test_the_redirect_stays_on_this_host(client: TestClient) -> None:
    answer = client.get(f"//evil.example/x?token={TOKEN}")
    assert not answer.headers.get("location", "/").startswith("//")


def test_a_foreign_host_name_is_refused(client: TestClient) -> None:
    for host in ("evil.example", "localhost.evil.example:8123", ""):
        answer = client.get("/claims", headers={"Host": host, "Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 421, host
    assert client.get("/claims", headers={"Host": "[::1]:8123", "Authorization": f"Bearer {TOKEN}"}).text == "page"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8123"}, 200),
        ({}, 200),  # no browser
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8123"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_post_comes_from_the_consoles_own_page(client: TestClient, headers: dict[str, str], status: int) -> None:
    answer = client.post("/fraud/x/disposition", headers={**headers, "Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == status


def test_every_answer_carries_the_policy(client: TestClient) -> None:
    for path in ("/claims", "/static/none.css"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY and "default-src 'self'" in POLICY


def test_it_listens_beyond_loopback_only_behind_a_proxy() -> None:
    with pytest.raises(UsageError, match="not loopback"):
        listen(object(), host="0.0.0.0")  # type: ignore[arg-type]
