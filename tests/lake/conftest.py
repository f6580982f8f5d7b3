"""Lakes for tests: a local folder, or a bucket of an S3 server that runs in this process."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from claimhouse.lake.lake import Lake, create

KEYS = {"access_key_id": "tester", "secret_access_key": "tester"}


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str) -> tuple[str, dict[str, str]]:
    """(location, options) in a fresh bucket."""
    name = f"lake-{secrets.token_hex(4)}"
    client = boto3.client(
        "s3", endpoint_url=s3_endpoint, region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t"
    )
    client.create_bucket(Bucket=name)
    return f"s3://{name}/deep/lake", {"endpoint": s3_endpoint, "allow_http": "true", **KEYS}


@pytest.fixture(params=["folder", "s3"])
def new_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Lake]:
    """Opens one and the same lake, each time with a store of its own."""
    if request.param == "folder":
        return lambda: create(tmp_path / "lake")
    location, options = request.getfixturevalue("bucket")
    return lambda: create(location, options)


@pytest.fixture
def lake(new_lake: Callable[[], Lake]) -> Lake:
    return new_lake()


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
    return create(tmp_path / "lake")
