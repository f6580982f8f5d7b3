"""The tests of this folder run once for each major version of PostgreSQL, one version after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.conftest import served
from tests.versions.servers import SERVERS, Server, Unavailable, programs

from claimhouse.postgres.embedded import Embedded


@pytest.fixture(scope="session", params=SERVERS, ids=str)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """A server of the version, in the place of the session's: the fixture `postgres` gives databases of it."""
    one: Server = request.param
    try:
        found = programs(one)
    except Unavailable as reason:
        if "is for Linux" not in str(reason):
            raise
        pytest.skip(str(reason))
    with served(tmp_path_factory.mktemp(str(one)), found) as running:
        yield running
