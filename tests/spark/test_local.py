"""The session for notebooks reads the storage that claimhouse reads, and shows its keys to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.query.book import Book

import claimhouse.spark
from claimhouse.lake.lake import create

pytestmark = pytest.mark.stack


def test_a_lake_in_a_bucket_is_read_with_the_sessions_own_keys(spark: Any, bucket: dict[str, str]) -> None:
    book = Book("", lake=create("s3://lake/a/b", bucket))
    table = book.table("claim", {"id": "int8", "note": "text"}, rows=[{"id": n, "note": "x"} for n in range(3)])
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("d", table, {"id": 0}), ("u", table, {"id": 1, "note": "y"}))
    book.cut()
    book.flush()
    assert claimhouse.spark.register(spark, "s3://lake/a/b", storage_options=bucket) == ["claim"]
    rows = spark.sql("SELECT id, note FROM claim ORDER BY id").collect()
    assert [tuple(r) for r in rows] == [(1, "y"), (2, "x")]


def test_no_key_stands_in_the_settings_or_on_the_command_line(spark: Any) -> None:
    command = Path(f"/proc/{spark.sparkContext._gateway.proc.pid}/cmdline").read_text()
    assert "spark.hadoop.fs.s3a.endpoint" in command
    told = " ".join([command, repr(spark), str(spark.sparkContext.getConf().getAll())])
    assert "planted" not in told


def test_a_second_call_gives_the_same_session(spark: Any) -> None:
    assert claimhouse.spark.session() is spark
