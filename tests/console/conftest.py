"""One claims lake for all console tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from tests.console import claimslake
from tests.console.claimslake import TOKEN, ClaimsLake, hits_of

from claimhouse.console.app import Console, create_app
from claimhouse.console.guard import Access
from claimhouse.postgres.embedded import Embedded


@pytest.fixture(scope="session")
def claims_lake(server: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClaimsLake]:
    made = claimslake.make(server, tmp_path_factory.mktemp("console"))
    yield made
    claimslake.drop(server, made)


@pytest.fixture(scope="session")
def console(claims_lake: ClaimsLake) -> Iterator[Console]:
    made = Console(claims_lake.lake, user="an examiner", queue=lambda session: hits_of(claims_lake.number))
    yield made
    made.stop()


def client_of(console: Console) -> TestClient:
    client = TestClient(create_app(console, Access(token=TOKEN)), base_url="http://localhost", follow_redirects=False)
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def client(console: Console) -> TestClient:
    return client_of(console)
