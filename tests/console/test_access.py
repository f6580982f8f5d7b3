"""Single claims and rows are shown only once it is written down who saw them; values are not."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient
from tests.console.claimslake import ClaimsLake
from tests.console.conftest import client_of

from claimhouse.cli.guard import guarded
from claimhouse.console.app import Console
from claimhouse.errors import StorageGone
from claimhouse.lake import access


def test_a_claim_and_a_row_are_on_record_and_lists_are_not(client: TestClient, claims_lake: ClaimsLake) -> None:
    before = len(list(access.read(claims_lake.lake)))
    number, row = claims_lake.number, f"/tables/main/public/claim/row.json?key.claim_id={claims_lake.claim_id}"
    for path in ("/overview", "/claims", "/fraud", "/figures", "/tables/main/public/claim"):
        assert client.get(path).status_code == 200
    assert client.get(f"/claims/{number}").status_code == 200
    assert client.get(row).status_code == 200
    assert client.get("/claims/NONE?at=2020-01-01T00:00:00Z").status_code == 404  # no such moment: nothing was read
    assert client.get("/claims/NONE").status_code == 404
    one, two, three = list(access.read(claims_lake.lake))[before:]
    assert (one.who, one.what, one.key, one.by, one.found, one.at) == (
        "an examiner", "claim", {"claim_number": number}, "console.html", True, "now",
    )  # fmt: skip
    assert (two.what, two.key, two.by) == (
        "main/public/claim", {"claim_id": str(claims_lake.claim_id)}, "console.json",
    )  # fmt: skip
    assert (three.key, three.found) == ({"claim_number": "NONE"}, False)
    assert one.when < two.when < three.when and one.when.endswith("Z")


def test_nothing_but_who_when_and_which_is_kept(client: TestClient, claims_lake: ClaimsLake) -> None:
    client.get(f"/claims/{claims_lake.number}")
    store = claims_lake.lake.store
    (day, *_) = store.folders(access.FOLDER)
    kept = json.loads(store.get(f"{access.FOLDER}/{day}/{store.list(f'{access.FOLDER}/{day}')[-1]}"))
    assert set(kept) == {"who", "what", "key", "found", "by", "at", "when", "previous"}


def test_what_cannot_be_written_down_is_not_shown(claims_lake: ClaimsLake, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise StorageGone("the lake cannot be written")

    monkeypatch.setattr(access.AccessLog, "write", gone)
    answer = client_of(Console(claims_lake.lake)).get(f"/claims/{claims_lake.number}")
    assert answer.status_code == 503 and claims_lake.number not in answer.text.replace(
        "/claims/" + claims_lake.number, ""
    )
    assert client_of(Console(claims_lake.lake, audited=False)).get(f"/claims/{claims_lake.number}").status_code == 200


def test_the_record_is_listed(client: TestClient, claims_lake: ClaimsLake, capsys: pytest.CaptureFixture[str]) -> None:
    client.get(f"/claims/{claims_lake.number}")
    given = ["access", claims_lake.number, "--lake", claims_lake.location]
    assert guarded(given) == 0
    assert "an examiner" in capsys.readouterr().out
    assert guarded([*given, "--json", "--who", "nobody"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert guarded([*given, "--check"]) == 0
    assert "are as they were written" in capsys.readouterr().out
    assert guarded([*given, "--from", "yesterday"]) == 2
    assert guarded([*given, "--to", "2020-01-01"]) == 0
    assert "nobody is on record" in capsys.readouterr().err
