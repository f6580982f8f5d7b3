"""The policies of a lake on AWS, held against a server that enforces them (actions and resources, not conditions)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from tests.query.book import Book

import claimhouse
from claimhouse.distributed.policies import ROLES, policy
from claimhouse.errors import ClaimhouseError, UsageError
from claimhouse.lake.lake import create

LAKE = "s3://claims/deep/lake"


@pytest.fixture(scope="module")
def account() -> Iterator[dict[str, Any]]:
    """An account with a user per role, after whose making every call is authorized. A process of its own: that switch
    is one of the whole process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        admin = {
            "endpoint_url": url,
            "region_name": "us-east-1",
            "aws_access_key_id": "a",
            "aws_secret_access_key": "a",
        }
        deadline = time.monotonic() + 30
        while True:
            try:
                boto3.client("s3", **admin).create_bucket(Bucket="claims")
                break
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        iam, users = boto3.client("iam", **admin), {}
        for role in ROLES:
            iam.create_user(UserName=role)
            iam.put_user_policy(UserName=role, PolicyName="lake", PolicyDocument=json.dumps(policy(role, LAKE)))
            key = iam.create_access_key(UserName=role)["AccessKey"]
            users[role] = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
        text = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", text, method="POST"))
        yield {"endpoint": url, "users": users}
    finally:
        server.kill()
        server.wait()


def options(account: dict[str, Any], role: str) -> dict[str, str]:
    return {"endpoint": account["endpoint"], "region": "us-east-1", "allow_http": "true", **account["users"][role]}


def client(account: dict[str, Any], role: str) -> Any:
    keys = {f"aws_{name}": value for name, value in account["users"][role].items()}
    return boto3.client("s3", endpoint_url=account["endpoint"], region_name="us-east-1", **keys)


def refused(call: Any, **asked: Any) -> bool:
    try:
        call(Bucket="claims", **asked)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return False


def test_a_writer_captures_flushes_and_folds_and_a_reader_queries(account: dict[str, Any]) -> None:
    book = Book("", lake=create(LAKE, options(account, "writer")))
    table = book.table("claim", {"id": "int8", "note": "text"}, rows=[{"id": n, "note": "x"} for n in range(3)])
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("d", table, {"id": 0}), ("u", table, {"id": 1, "note": "y"}))
    book.cut()
    book.flush()
    for role in ("writer", "reader", "trino"):
        with claimhouse.open(LAKE, options=options(account, role)) as lake:
            assert lake.sql("SELECT id, note FROM claim ORDER BY id").arrow().to_pylist() == [
                {"id": 1, "note": "y"},
                {"id": 2, "note": "x"},
            ]


def test_a_reader_cannot_write_or_delete(account: dict[str, Any]) -> None:
    with pytest.raises(ClaimhouseError):
        create("s3://claims/deep/lake/of-its-own", options(account, "reader"))
    reader = client(account, "reader")
    assert refused(reader.put_object, Key="deep/lake/x", Body=b"")
    assert refused(reader.delete_object, Key="deep/lake/x")


def test_no_role_reaches_beyond_the_lake(account: dict[str, Any]) -> None:
    for role in ROLES:
        user = client(account, role)
        assert refused(user.get_object, Key="payroll/2026.csv"), role
        assert refused(user.put_object, Key="payroll/2026.csv", Body=b""), role
        assert refused(user.delete_object, Key="deep/other"), role


@pytest.mark.case("L10")
def test_trino_writes_below_its_warehouse_only(account: dict[str, Any]) -> None:
    user = client(account, "trino")
    user.put_object(Bucket="claims", Key="deep/lake/warehouse/x", Body=b"")
    assert refused(user.put_object, Key="deep/lake/changes/x", Body=b"")


def test_the_catalogs_rights_end_at_the_sources_databases() -> None:
    made = policy("trino", LAKE, sources=("main", "life"), region="eu-central-1", account="123456789012")
    (catalog,) = [s for s in made["Statement"] if s["Sid"] == "Catalog"]
    arn = "arn:aws:glue:eu-central-1:123456789012:"
    assert catalog["Resource"] == [
        f"{arn}catalog",
        *(f"{arn}{kind}/{source}__*" for source in ("main", "life") for kind in ("database", "table")),
    ]
    assert not any("*" in action for s in made["Statement"] for action in s["Action"])


def test_a_listing_stays_inside_the_prefix() -> None:
    (listing,) = [s for s in policy("reader", LAKE)["Statement"] if s["Sid"] == "List"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["deep/lake", "deep/lake/*"]}}
    assert "Condition" not in policy("reader", "s3://claims")["Statement"][0]


@pytest.mark.parametrize(("role", "lake"), [("reader", "./lake"), ("reader", "s3://"), ("owner", LAKE)])
def test_what_is_no_bucket_or_no_role_is_told(role: str, lake: str) -> None:
    with pytest.raises(UsageError):
        policy(role, lake)
