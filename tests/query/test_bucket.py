"""A lake in a bucket is read as one in a folder is."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.query.book import Book

import claimhouse
from claimhouse.errors import QueryError
from claimhouse.lake.lake import create
from claimhouse.query.recipes import recipes


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"access_key_id": "test", "secret_access_key": "planted-secret"}
    for name, value in keys.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="lake")
    yield {"endpoint": endpoint, "region": "us-east-1", "allow_http": "true"}
    server.stop()


def test_base_log_and_tail_in_a_bucket_give_one_state(options: dict[str, str]) -> None:
    book = Book("", lake=create("s3://lake/a/b", options))
    table = book.table("claim", {"id": "int8", "note": "text"}, rows=[{"id": n, "note": "x"} for n in range(5)])
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("d", table, {"id": 0}), ("u", table, {"id": 1, "note": "y"}))
    book.cut()
    book.flush()
    book.commit(("c", table, {"id": 9, "note": "z"}))
    book.cut()
    with claimhouse.open("s3://lake/a/b", options=options) as lake:
        for _ in range(3):
            found = lake.sql("SELECT id, note FROM claim ORDER BY id").arrow().to_pylist()
            assert [(r["id"], r["note"]) for r in found] == [(1, "y"), (2, "x"), (3, "x"), (4, "x"), (9, "z")]
        with pytest.raises(QueryError):
            lake.sql("SELECT * FROM 's3://lake/a/b/control/lake.json'")
    found = recipes(book.lake, "claim")
    assert not any("planted-secret" in text for text in found.values())
    for engine in ("duckdb", "polars"):
        scope: dict[str, object] = {}
        exec(found[engine], scope)
        frame = scope["claim"]
        rows = frame.collect() if hasattr(frame, "collect") else frame.pl()  # type: ignore[attr-defined]
        assert sorted(rows.rows()) == [(1, "y"), (2, "x"), (3, "x"), (4, "x")]
