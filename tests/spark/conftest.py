"""One Spark for all its tests, since a JVM takes seconds to start; it knows a bucket as well as folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

import claimhouse.spark


@pytest.fixture(scope="session")
def bucket() -> Iterator[dict[str, str]]:
    """Storage options of a server with the bucket `lake`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"access_key_id": "planted-key", "secret_access_key": "planted-secret"}
    options = {"endpoint": f"http://{host}:{port}", "region": "us-east-1", "allow_http": "true", **keys}
    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint"],
        region_name=options["region"],
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
    )
    client.create_bucket(Bucket="lake")
    yield options
    server.stop()


@pytest.fixture(scope="session")
def spark(bucket: dict[str, str]) -> Iterator[Any]:
    made = claimhouse.spark.session(storage_options=bucket)
    yield made
    made.stop()
